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
    /// The containers, as arguments of unwind.
    pub(crate) ids: &'static str,
}

impl Step {
    /// Makes every call fail, and then unwinds the containers without faults.
    pub(crate) fn fails(&self, share: Share) {
        fails(self, share);
    }

    fn unwound(&self, sandbox: &Sandbox) -> testkit::Outcome {
        sandbox.sh(&format!("unwind {} > /dev/null", self.ids))
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
        self.script.replace("{}", prefix)
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
        } else if !run.of_output && self.tool() != "unwind" {
            complaint += untold(sandbox, "after.json", self.tool());
        }
        after_unwind(sandbox, before, run, complaint, &self.unwound(sandbox))
    }
}
