//! Makes a container's cgroup with limits.
//!
//! # Does
//! Makes the cgroup `/stave/<id>.<instance>` in the hierarchy of version 2, and in each hierarchy of version
//! 1 with a controller that a limit needs. ns-exec starts the process in it. Without this tool, ns-exec makes
//! a cgroup without limits.
//! # Reads
//! Nothing.
//! # Adds
//! `cgroup`.
//! # Undoes
//! Kills every process in the cgroup, and removes the cgroup.
//! # Needs
//! Root; Linux 5.12 with cgroups, and the controller of each limit.

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use document::{Instance, Member, members::Cgroup};
use limits::Limits;
use toolkit::prelude::*;

/// Make a container's cgroup with limits
#[derive(Debug, Parser)]
#[command(name = "cgroup-limit", version, mut_arg("verbose", |verbose| verbose.short(None)), group = ArgGroup::new("limit").multiple(true).required(true))]
struct CgroupLimit {
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    common: Common,
}

impl Filter for CgroupLimit {
    type Adds = Cgroup;
    type Operation = cgroup::CgroupOperation;
    const READS: &'static [&'static str] = &[];

    fn common(&self) -> &Common {
        &self.common
    }

    fn plan(&self, context: &Context, document: &Document) -> Result<Plan<Self>> {
        if document.get::<Cgroup>()?.is_some() {
            let error = anyhow!("the container has a cgroup already: `{}`", Cgroup::NAME);
            return Err(hint(error, "name all limits at once; `cgroup-limit --undo` removes the cgroup"));
        }
        if document.get::<members::Process>()?.is_some() {
            bail!("the container has a process already: put cgroup-limit before ns-exec");
        }
        let instance: Option<Instance> = document.get()?;
        let path = cgroup::path(&context.id, instance.map(|found| found.to_string()).as_deref());
        let resources = self.limits.resources()?;
        let operations = cgroup::plan(&path, &resources)?;
        if !context.planned {
            operations.iter().try_for_each(cgroup::CgroupOperation::may_apply).map_err(refused)?;
        }
        Ok(Plan { adds: Cgroup { path, resources }, operations })
    }
}

fn refused(error: operation::Error) -> anyhow::Error {
    match cgroup::is_refusal(&error) {
        true => {
            hint(error, "only root of the machine may make cgroups; without cgroup-limit, nothing is limited")
        }
        false => error.into(),
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::filter::<CgroupLimit>()
}
