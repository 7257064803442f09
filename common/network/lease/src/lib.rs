//! Leases: which container has which address of a subnet.
//!
//! A lease is a file `$STAVE_RUN/leases/<subnet>/<address>` that contains the container's id. The
//! subnet's slash is written as `_`. The file `cursor` in the same directory contains the last
//! address that was leased. So the next address is found at once, and a freed address is not reused
//! soon.
//!
//! The caller holds a lock from the plan until the lease is applied. Even so, the file is created
//! exclusively.

mod operation;
mod subnet;

use std::{
    collections::HashSet,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ::operation::{Cause, Place, unless_gone};
use ipnet::IpNet;

pub use operation::Lease;
pub use subnet::{gateway, has_room, hosts_of};

/// Why an address could not be leased.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address of the range is in use.
    #[error("lease an address of {range}: all {given} are in use")]
    UsedUp {
        /// The range, or the whole subnet.
        range: IpNet,
        /// The number of its addresses.
        given: usize,
    },
    /// A lease file could not be read or written.
    #[error("{0}")]
    File(#[from] ::operation::Error),
}

impl From<Error> for ::operation::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::File(error) => error,
            Error::UsedUp { .. } => Self::caused_by(error),
        }
    }
}

/// For `map_err`: the error that `verb` failed on a lease file.
pub(crate) fn file<C: Into<Cause>>(verb: &'static str, path: &Path) -> impl FnOnce(C) -> ::operation::Error {
    move |cause| ::operation::Error::new(verb, format_args!("lease {path:?}"), cause).of(Place::RunDir)
}

/// How many addresses are tried one by one before all leases are listed.
const PROBES: u64 = 16;

pub(crate) const CURSOR: &str = "cursor";

/// The directory of a subnet's leases.
pub fn directory(run_dir: &Path, subnet: IpNet) -> PathBuf {
    run_dir.join("leases").join(subnet.trunc().to_string().replace('/', "_"))
}

/// Plans the lease of a free address of `range`, a part of the subnet, for the container `holder`.
/// Changes nothing.
///
/// The network address, the broadcast address and the addresses in `reserved` (the gateway) are
/// never used. The address is the next one after the cursor. In a range that is too large to list,
/// it is derived from the holder, so a container gets its address again.
///
/// If all addresses are in use, the lease of a container that is gone may be taken over. `in_use`
/// gets the container's id. It must return `true` unless it is certain that no record, namespace or
/// link of the container is left.
///
/// # Errors
/// [`Error::UsedUp`]; [`Error::File`] when the leases cannot be read.
pub fn plan(
    run_dir: &Path,
    subnet: IpNet,
    range: IpNet,
    reserved: &[IpAddr],
    holder: &str,
    in_use: impl Fn(&str) -> bool,
) -> Result<Lease, Error> {
    let directory = directory(run_dir, subnet);
    let lease =
        |address| Lease { directory: directory.clone(), address, holder: holder.into(), instead_of: None };
    if subnet::is_large(range) {
        for address in subnet::derived(subnet, range, holder) {
            let path = directory.join(address.to_string());
            if !reserved.contains(&address) && !path.try_exists().map_err(file("look for", &path))? {
                return Ok(lease(address));
            }
        }
    }
    let after = subnet::cursor(&directory);
    let mut candidates =
        subnet::addresses(subnet, range, after).filter(|address| !reserved.contains(address));
    for address in candidates.by_ref().take(PROBES as usize) {
        let path = directory.join(address.to_string());
        if !path.try_exists().map_err(file("look for", &path))? {
            return Ok(lease(address));
        }
    }
    let given = list(&directory)?;
    if let Some(address) = candidates.find(|address| !given.contains(address)) {
        return Ok(lease(address));
    }
    for address in subnet::addresses(subnet, range, after).filter(|address| !reserved.contains(address)) {
        let path = directory.join(address.to_string());
        // The lease may have been released in the meantime.
        let Some(earlier) = unless_gone(fs::read_to_string(&path)).map_err(file("read", &path))? else {
            continue;
        };
        let earlier = earlier.trim();
        if !earlier.is_empty() && !in_use(earlier) {
            return Ok(Lease { instead_of: Some(earlier.to_owned()), ..lease(address) });
        }
    }
    let given = given.iter().filter(|address| range.contains(*address)).count();
    Err(Error::UsedUp { range, given })
}

/// The container that has the address. None if it is free.
///
/// # Errors
/// When the lease cannot be read.
pub fn holder(run_dir: &Path, subnet: IpNet, address: IpAddr) -> Result<Option<String>, ::operation::Error> {
    let path = directory(run_dir, subnet).join(address.to_string());
    let text = unless_gone(fs::read_to_string(&path)).map_err(file("read", &path))?;
    Ok(text.map(|text| text.trim().to_owned()))
}

/// The addresses in use.
fn list(directory: &Path) -> Result<HashSet<IpAddr>, Error> {
    let entries = unless_gone(fs::read_dir(directory)).map_err(file("list", directory))?;
    let Some(entries) = entries else { return Ok(HashSet::new()) };
    let mut given = HashSet::new();
    for entry in entries {
        let name = entry.map_err(file("list", directory))?.file_name();
        given.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
    }
    Ok(given)
}
