use std::{
    fs::{self, File},
    os::fd::OwnedFd,
};

use operation::Error;

use crate::{Mapping, Namespace, sys::Idle};

impl Namespace {
    /// Makes the namespace below the caller's. It lasts as long as somebody has it open, or mounts or processes are in it.
    ///
    /// # Errors
    /// EPERM for a caller who may not map these ids; ENOSPC where the machine allows no more.
    pub fn make(&self) -> Result<OwnedFd, Error> {
        let failed = |verb: &'static str| Error::on(verb, "user namespace");
        let idle = Idle::in_new_namespace().map_err(|errno| failed("create")(errno.into()))?;
        let of = |name: &str| format!("/proc/{}/{name}", idle.pid());
        for (name, mappings) in [("uid_map", &self.uid_mappings), ("gid_map", &self.gid_mappings)] {
            fs::write(of(name), lines(mappings)).map_err(failed("map the ids of"))?;
        }
        Ok(File::open(of("ns/user")).map_err(failed("open"))?.into())
    }
}

/// In the form of user_namespaces(7).
fn lines(mappings: &[Mapping]) -> String {
    let line = |Mapping { inside, outside, size }: &Mapping| format!("{inside} {outside} {size}\n");
    mappings.iter().map(line).collect()
}
