//! The table after somebody else removed it, as `nft flush ruleset` does.

use netlink::{
    Error,
    netfilter::{Kind, Netfilter},
};
use operation::{Operation, Scope};

use crate::{NatOperation, TABLE, encode};

/// Whether there is no table.
///
/// # Errors
/// When the kernel does not say.
pub fn is_gone() -> Result<bool, Error> {
    let look = || Netfilter::of_this_thread()?.get(Kind::GetTable, &encode::table()[..1]);
    let table = look().map_err(|refusal| Error::new("look for", format!("table ip {TABLE}"), refusal))?;
    Ok(table.is_none())
}

/// Applies the operations of all containers again: bridges first, then addresses, then ports. One that cannot be put back is
/// told, and does not keep the others from it.
pub fn restore(mut operations: Vec<NatOperation>, scope: &Scope) {
    if operations.is_empty() {
        return;
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
}
