//! Tools whose step is made, undone or repaired by a script: those that the pipe of the other tests does not have.

use std::ops::ControlFlow;

use testkit::{Sandbox, Snapshot};

use super::{Run, Share, Trial, after_unwind, fails, untold};
use crate::pipe;

/// A script with one tool that has a failing call.
pub(crate) struct Step {
    /// What the host has.
    pub(crate) host: &'static str,
    /// What is made before each run.
    pub(crate) ready: &'static str,
    /// The script. `{}` is the place before the tool, which writes its document to `after.json`.
    pub(crate) script: &'static str,
    /// A condition that holds after a run that reported success.
    pub(crate) done: &'static str,
    /// The containers, as arguments of unwind. Empty for a tool that makes none.
    pub(crate) ids: &'static str,
    /// What removes everything else that was made.
    pub(crate) removal: &'static str,
    /// Whether the tool writes a document.
    pub(crate) documents: bool,
    /// Whether it starts a process that stays.
    pub(crate) stays: bool,
}

impl Step {
    /// Makes every call fail, and then unwinds the containers without faults.
    pub(crate) fn fails(&self, share: Share) {
        fails(self, share);
    }

    fn unwound(&self, sandbox: &Sandbox) -> testkit::Outcome {
        let unwind = if self.ids.is_empty() { "true" } else { "unwind" };
        sandbox.sh(&format!("{unwind} {} > /dev/null && {{ {}; }}", self.ids, self.removal))
    }
}

impl Trial for Step {
    fn tool(&self) -> &'static str {
        let (_, after) = self.script.split_once("{}").unwrap();
        after.split_whitespace().next().unwrap()
    }

    fn name(&self) -> String {
        let (_, after) = self.script.split_once("{}").unwrap();
        after.split('>').next().unwrap().trim().to_owned()
    }

    fn sandbox(&self) -> Sandbox {
        let sandbox = pipe::ready();
        sandbox.sh(self.host).ok();
        sandbox
    }

    fn ready(&self, sandbox: &Sandbox) {
        sandbox.sh(self.ready).ok();
    }

    fn script(&self, prefix: &str) -> String {
        if !self.stays {
            return self.script.replace("{}", prefix);
        }
        // strace follows the process that stays, and the script does not wait for either of them.
        let script = self.script.replace("{}", &prefix.replace("strace ", "strace -D "));
        format!("rm -f trace; {{ {script}; }} > said 2>&1; status=$?; cat said >&2; exit $status")
    }

    fn clean(&self, sandbox: &Sandbox) {
        self.unwound(sandbox).ok();
    }

    fn judge(&self, sandbox: &Sandbox, before: &Snapshot, run: &Run) -> ControlFlow<String, String> {
        let mut complaint = String::new();
        if run.outcome.status == 0 {
            let done = sandbox.sh(self.done);
            if done.status != 0 {
                complaint += &format!("not done: {}{}\n", done.stdout, done.stderr);
            }
        } else if self.documents && !run.of_output && self.tool() != "unwind" {
            complaint += untold(sandbox, "after.json", self.tool());
        }
        after_unwind(sandbox, before, run, complaint, &self.unwound(sandbox))
    }
}
