use std::{
    fs::{self, File},
    io::ErrorKind,
    os::fd::OwnedFd,
};

use operation::Error;

use crate::{Mapping, Namespace, sys::Idle};

impl Namespace {
    /// Makes the namespace as a child of the caller's. It exists as long as a process has it open or is in
    /// it, or a mount belongs to it.
    ///
    /// # Errors
    /// EPERM if the caller may not map these ids; ENOSPC if the machine allows no more user namespaces.
    pub fn make(&self) -> Result<OwnedFd, Error> {
        let failed = |verb: &'static str| Error::on(verb, "user namespace");
        let idle = Idle::in_new_namespace().map_err(|errno| failed("create")(errno.into()))?;
        let of = |name: &str| format!("/proc/{}/{name}", idle.pid());
        for (name, mappings) in [("uid_map", &self.uid_mappings), ("gid_map", &self.gid_mappings)] {
            let map = || fs::write(of(name), lines(mappings));
            let mapped = match map() {
                // Who may not choose groups maps their own one only where nobody changes the groups (user_namespaces(7)).
                Err(error) if name == "gid_map" && error.kind() == ErrorKind::PermissionDenied => {
                    fs::write(of("setgroups"), "deny").and_then(|()| map())
                }
                mapped => mapped,
            };
            mapped.map_err(failed("map the ids of"))?;
        }
        Ok(File::open(of("ns/user")).map_err(failed("open"))?.into())
    }
}

/// The mappings in the form of user_namespaces(7).
fn lines(mappings: &[Mapping]) -> String {
    let line = |Mapping { inside, outside, size }: &Mapping| format!("{inside} {outside} {size}\n");
    mappings.iter().map(line).collect()
}
