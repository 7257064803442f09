use std::path::PathBuf;

use nix::errno::Errno;
use operation::{Condition, Error, Operation, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{ADDRESS, Place, host, resident};

/// Operations that let a container look up the names of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all_fields = "camelCase")]
pub enum NamesOperation {
    /// Serves the container's network namespace with the host's resolver. Undo stops that. The
    /// resolver process ends with the last container.
    #[serde(rename = "names-serve")]
    Serve {
        /// The container's id.
        holder: String,
        /// Path of its network namespace.
        namespace: PathBuf,
    },
}

impl NamesOperation {
    fn failed(&self, verb: &'static str) -> impl Fn(rustix::io::Errno) -> Error {
        let Self::Serve { holder, .. } = self;
        move |errno| Error::new(verb, format!("names of {holder:?}"), Errno::from_raw(errno.raw_os_error()))
    }

    /// A connection that hangs up when the host's resolver ends. None if it does not run.
    pub fn watch(&self) -> Option<std::os::fd::OwnedFd> {
        resident::watch(&host::name()).ok().flatten()
    }
}

impl Operation for NamesOperation {
    fn explain(&self) -> Vec<String> {
        let Self::Serve { namespace, .. } = self;
        let (namespace, address) =
            (format!("--net={}", namespace.display()), format!("--listen-address={}", ADDRESS.ip()));
        vec![words(["nsenter", &namespace, "dnsmasq", &address, "--addn-hosts=/run/stave"])]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        let Self::Serve { holder, namespace } = &*self;
        if host::serves(&scope.run_dir, holder).map_err(self.failed("look for"))? {
            return Ok(());
        }
        let place = Place::open(namespace, ADDRESS).map_err(|errno| {
            Error::new("listen on", format!("{ADDRESS} in {}", namespace.display()), errno)
        })?;
        host::serve(&scope.run_dir, holder, &place).map_err(self.failed("serve"))
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        let Self::Serve { holder, .. } = self;
        host::withdraw(&scope.run_dir, holder).map_err(self.failed("withdraw"))
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        let Self::Serve { holder, .. } = self;
        Ok(match host::serves(&scope.run_dir, holder).map_err(self.failed("look for"))? {
            true => Condition::Present,
            false => Condition::Missing(format!("names of {holder:?}")),
        })
    }
}
