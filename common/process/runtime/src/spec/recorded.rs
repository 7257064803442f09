//! Reads a specification back from a record that this crate wrote.
//!
//! The process is read with a type of its own. The type of oci-spec would match `execCPUAffinity`, which we
//! never write, against a regular expression. The tables of the regex engine are half of what a static
//! program must relocate when it starts: with them, ns-exec took a fifteenth longer to run a command.

use std::{collections::HashMap, path::PathBuf};

use oci_spec::runtime::{
    Box as Size, Linux, LinuxCapabilities, Mount, PosixRlimit, Process, Root, Spec, User,
};
use serde::{Deserialize, Deserializer};

/// The members of a specification that [`super::from_image`] sets.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Recorded {
    oci_version: String,
    root: Option<Root>,
    mounts: Option<Vec<Mount>>,
    process: Option<RecordedProcess>,
    hostname: Option<String>,
    domainname: Option<String>,
    annotations: Option<HashMap<String, String>>,
    linux: Option<Linux>,
}

/// The members of its process. ns-exec sets the size of a terminal.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordedProcess {
    terminal: Option<bool>,
    console_size: Option<Size>,
    user: User,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    cwd: PathBuf,
    capabilities: Option<LinuxCapabilities>,
    rlimits: Option<Vec<PosixRlimit>>,
    no_new_privileges: Option<bool>,
    oom_score_adj: Option<i32>,
}

impl From<RecordedProcess> for Process {
    fn from(recorded: RecordedProcess) -> Self {
        let mut process = Self::default();
        process
            .set_terminal(recorded.terminal)
            .set_console_size(recorded.console_size)
            .set_user(recorded.user)
            .set_args(recorded.args)
            .set_env(recorded.env)
            .set_cwd(recorded.cwd)
            .set_capabilities(recorded.capabilities)
            .set_rlimits(recorded.rlimits)
            .set_no_new_privileges(recorded.no_new_privileges)
            .set_oom_score_adj(recorded.oom_score_adj);
        process
    }
}

/// For `deserialize_with`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<Spec>, D::Error> {
    let recorded = Recorded::deserialize(deserializer)?;
    let mut spec = Spec::default();
    spec.set_version(recorded.oci_version)
        .set_root(recorded.root)
        .set_mounts(recorded.mounts)
        .set_process(recorded.process.map(Process::from))
        .set_hostname(recorded.hostname)
        .set_domainname(recorded.domainname)
        .set_annotations(recorded.annotations)
        .set_linux(recorded.linux);
    Ok(Box::new(spec))
}
