//! The AppArmor profile that a process gets when it executes its command (apparmor.d(5), "Onexec").

use std::{
    fs::{File, OpenOptions},
    io::Write,
};

use oci_spec::runtime::Process;

use crate::{Error, error::Result};

/// Since Linux 5.8 each security module has its own directory. Before that, one module had these files.
const FILES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// Whether AppArmor runs on this machine.
pub fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// A profile for the next program. It is opened while the host's `/proc` is there.
pub(super) struct Profile<'a> {
    name: &'a str,
    file: File,
}

impl<'a> Profile<'a> {
    /// Opens the profile of the process, if it has one.
    pub(super) fn open(process: &'a Process) -> Result<Option<Self>> {
        let Some(name) = process.apparmor_profile().as_deref().filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let open = |path: &&str| OpenOptions::new().write(true).open(path);
        let file = open(&FILES[0])
            .or_else(|_| open(&FILES[1]))
            .map_err(Error::at("open", format_args!("{:?}", FILES[0])))?;
        Ok(Some(Self { name, file }))
    }

    /// Sets the profile for the next program that this process, or a fork of it, executes.
    pub(super) fn set(mut self) -> Result<()> {
        self.file
            .write_all(format!("exec {}", self.name).as_bytes())
            .map_err(Error::at("set", format_args!("the AppArmor profile {:?}", self.name)))
    }
}
