//! The table after somebody else removed it, as `nft flush ruleset` does.

use netlink::{
    Error,
    netfilter::{Kind, Netfilter},
};
use operation::{Operation, Scope};

use crate::{NatOperation, TABLE, encode};

/// Makes the table again for all containers, if it is gone: applies their operations, which `recorded` lists; bridges first,
/// then addresses, then ports. One that cannot be put back is told, and does not keep the others from it.
///
/// # Errors
/// When the kernel does not say whether the table is there; those of `recorded`.
pub fn restore<E: From<Error>>(
    scope: &Scope,
    recorded: impl FnOnce() -> Result<Vec<NatOperation>, E>,
) -> Result<(), E> {
    let look = || Netfilter::of_this_thread()?.get(Kind::GetTable, &encode::table()[..1]);
    let table = look().map_err(|refusal| Error::new("look for", format!("table ip {TABLE}"), refusal))?;
    if table.is_some() {
        return Ok(());
    }
    let mut operations = recorded()?;
    if operations.is_empty() {
        return Ok(());
    }
    operations.sort_by_key(|operation| match operation {
        NatOperation::Bridge { .. } => 0,
        NatOperation::Address { .. } => 1,
        NatOperation::Publish { .. } => 2,
    });
    operation::note(&format!("table ip {TABLE} was gone: it is made again for all containers"));
    for operation in &mut operations {
        if let Err(error) = operation.apply(scope) {
            operation::note(&error.to_string());
        }
    }
    Ok(())
}
