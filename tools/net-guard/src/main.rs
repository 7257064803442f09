//! Watches containers' networks, and restores what other programs remove.
//!
//! # Does
//! Listens to the kernel's messages about rules, links, addresses and routes. When something may be missing,
//! it does for all containers on record what `net-repair --all` does, but only in the host's namespace:
//! changes that a container made in its own namespace stay. Runs until SIGTERM, SIGINT or SIGHUP. It keeps no
//! state besides the records, so it may be killed at any moment. It leaves a container alone while a tool
//! makes or undoes it.
//! # Reads
//! No document. Reads the records of the containers.
//! # Adds
//! Nothing; prints what it restored on standard error. Notifies systemd (`NOTIFY_SOCKET`) when it is
//! watching.
//! # Undoes
//! Nothing.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

mod watch;

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use toolkit::{Records, prelude::*};

/// Watch containers' networks, and restore what other programs remove
#[derive(Parser)]
#[command(name = "net-guard", version)]
struct NetGuard {
    #[command(flatten)]
    common: Common,
}

impl Report for NetGuard {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let found = watch::repair(&context.scope, &mut Records::default(), None)?.found;
        Ok(found.into_iter().flat_map(|found| found.commands).collect())
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        watch::watch(&context.scope, context.quiet)?;
        Ok(Value::Null)
    }

    fn text(&self, _: &Value) -> Option<String> {
        Some(String::new())
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<NetGuard>()
}
