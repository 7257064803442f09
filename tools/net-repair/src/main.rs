//! Restores what is missing from containers' networks.
//!
//! # Does
//! Compares the networks in the records (of netns-bridge, veth-pair, portmap and others) with the machine,
//! and applies the missing operations again: the table `inet stave` with all its elements, bridges with their
//! addresses and routes, forwarding, ports of bridges, veth pairs, claims, leases, and rules in the host's
//! own firewall. So networks work again after `nft flush ruleset` or the removal of a bridge. If one
//! container cannot be repaired, the others still are. A container is left alone while a tool makes or undoes
//! it.
//! # Reads
//! No document. Reads the records of the containers.
//! # Adds
//! Nothing; prints a JSON array with `id`, `restored` and `failed` of each container.
//! # Undoes
//! Nothing.
//! # Needs
//! Root (CAP_NET_ADMIN, CAP_SYS_ADMIN).

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use document::{Id, table::network_tools};
use repair::{Act, Found, Network, NetworkOperation, Reach};
use serde_json::{Value, json};
use toolkit::{Records, prelude::*, print_error, report_line};

/// Restore what is missing from containers' networks
#[derive(Parser)]
#[command(name = "net-repair", version, group = ArgGroup::new("what").args(["ids", "all"]).required(true))]
struct NetRepair {
    /// The containers to repair
    #[arg(value_name = "CONTAINER")]
    ids: Vec<Id>,
    /// Repair all containers on record
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// What was found in the containers, and the skipped containers with the reason.
type Outcome = (Vec<Found>, Vec<(Id, anyhow::Error)>);

impl NetRepair {
    fn repair(&self, context: &toolkit::Context, act: Act) -> Result<Outcome> {
        // While the lock is held, no network is half made. To only look, no lock is needed.
        let lock = (act == Act::Restore).then_some(repair::LOCK);
        let mut records = Records::<NetworkOperation>::default();
        let settled = records.settled(&context.scope, lock, &network_tools(), &self.ids)?;
        let containers = settled.containers.iter();
        let networks: Vec<_> =
            containers.map(|(id, operations)| Network::new(id.as_str(), operations)).collect();
        let found = repair::repair(&context.scope, &networks, Reach::Whole, act)?;
        Ok((found, settled.left))
    }
}

impl Report for NetRepair {
    fn common(&self) -> &Common {
        &self.common
    }

    fn explain(&self, context: &toolkit::Context) -> Result<Vec<String>> {
        let (found, mut left) = self.repair(context, Act::Explain)?;
        match left.is_empty() {
            true => Ok(found.into_iter().flat_map(|found| found.commands).collect()),
            false => Err(left.remove(0).1),
        }
    }

    fn report(&self, context: &toolkit::Context) -> Result<Value> {
        const TOOL: &str = "net-repair";
        let (found, left) = self.repair(context, Act::Restore)?;
        let mut rows = Vec::new();
        for found in found {
            let id = &found.id;
            for what in found.restored.iter().filter(|_| !context.quiet) {
                operation::tell!("{TOOL}: {id}: restored: {what}");
            }
            let failed: Vec<_> = found.failed.into_iter().map(anyhow::Error::from).collect();
            failed.iter().for_each(|error| print_error(&format!("{TOOL}: {id}"), error));
            let failed: Vec<_> = failed.iter().map(report_line).collect();
            rows.push(json!({"id": id, "restored": found.restored, "failed": failed}));
        }
        for (id, error) in left {
            print_error(TOOL, &error);
            rows.push(json!({"id": id, "restored": [], "failed": [report_line(&error)]}));
        }
        let is_empty = |row: &Value, member: &str| row[member].as_array().is_none_or(Vec::is_empty);
        if !context.quiet && rows.iter().all(|row| is_empty(row, "restored") && is_empty(row, "failed")) {
            operation::tell!("{TOOL}: nothing is missing");
        }
        Ok(Value::Array(rows))
    }

    fn verdict(&self, report: &Value) -> Result<()> {
        let rows = report.as_array().into_iter().flatten();
        let has_failed = |row: &&Value| row["failed"].as_array().is_some_and(|failed| !failed.is_empty());
        match rows.filter(has_failed).count() {
            0 => Ok(()),
            1 => bail!("1 container could not be repaired"),
            several => bail!("{several} containers could not be repaired"),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let exit = toolkit::report::<NetRepair>();
    nat::close();
    exit
}
