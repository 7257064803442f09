//! Watches the network, and puts back what others take away from the containers'.
//!
//! # Does
//! Listens to the kernel's messages about rules, links, addresses and routes. When something may be missing, it does for all
//! containers on record what `net-repair --all` does, as far as it stands in the host's namespace: what a container changed in
//! its own stays. It stays until SIGTERM, SIGINT or SIGHUP. All that it knows is in the records, so it may be killed at any moment.
//! A container that is being made or taken back is left alone.
//! # Reads
//! No document; the records of the containers.
//! # Adds
//! Nothing; says on standard error what it put back. Tells systemd (`NOTIFY_SOCKET`) once it watches.
//! # Undoes
//! Nothing.
//! # Needs
//! root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

mod watch;

use std::process::ExitCode;

use clap::Parser;
use serde_json::Value;
use toolkit::{Records, prelude::*};

/// Watch the network, and put back what others take away from the containers'
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

fn main() -> ExitCode {
    toolkit::report::<NetGuard>()
}
