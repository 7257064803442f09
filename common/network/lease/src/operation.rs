use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use operation::{Condition, Error, Operation, Scope, quote, remove_if_empty, unless_gone, words};
use rustix::{
    fs::{AtFlags, CWD, RenameFlags, renameat_with, unlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{CURSOR, file};

/// A container's lease of an address: a file with the container's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "lease", rename_all = "camelCase")]
pub struct Lease {
    /// The directory of the subnet's leases.
    pub directory: PathBuf,
    /// The address.
    pub address: IpAddr,
    /// The container's id.
    pub holder: String,
    /// The id of the former container whose lease is taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

impl Lease {
    fn path(&self) -> PathBuf {
        self.directory.join(self.address.to_string())
    }

    /// The path of the lease before it is renamed. Nothing else has such a name: ids do not begin
    /// with a dot.
    fn beside(&self) -> PathBuf {
        self.directory.join(format!(".{}", self.holder))
    }

    /// The container that has the address.
    fn held_by(&self) -> Result<Option<String>, Error> {
        let text = unless_gone(fs::read_to_string(self.path())).map_err(file("read", &self.path()))?;
        Ok(text.map(|text| text.trim().to_owned()))
    }

    /// Renames the file to its final name. The name must be free, or belong to the lease that is
    /// taken over.
    fn take(&self) -> Result<(), Error> {
        let flags = match &self.instead_of {
            Some(earlier) if self.held_by()?.as_deref() == Some(earlier) => RenameFlags::empty(),
            _ => RenameFlags::NOREPLACE,
        };
        renameat_with(CWD, self.beside(), CWD, self.path(), flags).map_err(file("create", &self.path()))
    }

    fn validate(&self, scope: &Scope) -> Result<(), Error> {
        let leases = scope.run_dir.join("leases");
        // The holder becomes part of a path. An id contains no slash.
        if self.directory.parent() == Some(&leases) && !self.holder.contains('/') && !self.holder.is_empty() {
            scope.contain(&self.directory)?;
            return Ok(());
        }
        Err(file("find", &self.path())(Errno::INVAL))
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    unless_gone(unlinkat(CWD, path, AtFlags::empty())).map(drop).map_err(file("remove", path))
}

impl Operation for Lease {
    fn explain(&self) -> Vec<String> {
        let write = |text: &str, path: PathBuf| {
            format!("{} > {}", words(["echo", text]), quote(&path.to_string_lossy()))
        };
        vec![
            words(["mkdir", "-p", &self.directory.to_string_lossy()]),
            write(&self.holder, self.path()),
            write(&self.address.to_string(), self.directory.join(CURSOR)),
        ]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        self.validate(scope)?;
        operation::make_directories(&self.directory, 0o777).map_err(file("create", &self.directory))?;
        let beside = self.beside();
        fs::write(&beside, format!("{}\n", self.holder)).map_err(file("create", &beside))?;
        if let Err(error) = self.take() {
            let _ = remove(&beside);
            return Err(error);
        }
        // A cursor that is missing or half written only makes the search longer.
        let _ = fs::write(self.directory.join(CURSOR), format!("{}\n", self.address));
        Ok(())
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        self.validate(scope)?;
        remove(&self.beside())?;
        if self.held_by()?.as_deref() == Some(&self.holder) {
            remove(&self.path())?;
        }
        // Remove the directories with the last lease.
        let others = operation::holds_another(&self.directory, CURSOR);
        if !others.map_err(file("look for others beside", &self.path()))? {
            remove(&self.directory.join(CURSOR))?;
            for directory in self.directory.ancestors().take(2) {
                remove_if_empty(directory).map_err(file("remove", directory))?;
            }
        }
        Ok(())
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        let address = self.address;
        Ok(match self.held_by()? {
            Some(holder) if holder == self.holder => Condition::Present,
            Some(holder) => Condition::Different(format!("lease of {address}: {holder:?} has it")),
            None => Condition::Missing(format!("lease of {address}")),
        })
    }
}
