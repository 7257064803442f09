//! Tools of the pipe that apply, undo, repair or unwind.

use std::ops::ControlFlow;

use testkit::{Sandbox, Snapshot};

use super::{Run, Share, Trial, after_unwind, fails, untold};
use crate::pipe::{ON_THE_WIRE, PIPE, Stage, pipe_of, ready};

/// One mode of one tool of the pipe.
pub(crate) struct Container {
    stages: &'static [Stage],
    at: usize,
    way: Way,
}

enum Way {
    Apply,
    Undo,
    /// Repair, after this damage to the container.
    Repair(&'static str),
    Unwind,
}

impl Container {
    pub(crate) fn applied(at: usize) -> Self {
        Self { stages: &PIPE, at, way: Way::Apply }
    }

    pub(crate) fn undone(at: usize) -> Self {
        Self { stages: &PIPE, at, way: Way::Undo }
    }

    pub(crate) fn repaired(at: usize, broken: &'static str) -> Self {
        Self { stages: &PIPE, at, way: Way::Repair(broken) }
    }

    pub(crate) fn unwound() -> Self {
        Self { stages: &PIPE, at: PIPE.len() - 1, way: Way::Unwind }
    }

    /// The same for a network on the host's wire.
    pub(crate) fn on_the_wire(self) -> Self {
        Self { stages: &ON_THE_WIRE, ..self }
    }

    /// Makes every call fail, and then unwinds the container without faults.
    pub(crate) fn fails(&self, share: Share) {
        fails(self, share);
    }

    /// What is wrong with the result of a run that reports success.
    fn wrong_result(&self, sandbox: &Sandbox) -> String {
        let tool = self.tool();
        let check = |file: &str| match tool {
            "ns-exec" | "link-hosts" => format!("jq -e '.error == null' {file} > /dev/null"),
            _ => format!("{tool} --check < {file} > /dev/null"),
        };
        let outcome = sandbox.sh(&match self.way {
            Way::Apply => check("web.json"),
            Way::Repair(_) => check("after.json"),
            Way::Undo => format!("jq -e '[.steps[] | select(.tool == \"{tool}\")] == []' after.json"),
            Way::Unwind => "jq -e '.steps == []' after.json && test ! -e $STAVE_RUN/web.json".to_owned(),
        });
        match outcome.status {
            0 => String::new(),
            _ => format!("not done: {}{}", outcome.stdout, outcome.stderr),
        }
    }
}

impl Trial for Container {
    fn tool(&self) -> &'static str {
        match self.way {
            Way::Unwind => "unwind",
            _ => self.stages[self.at].0,
        }
    }

    fn name(&self) -> String {
        let flag = match self.way {
            Way::Apply | Way::Unwind => "",
            Way::Undo => " --undo",
            Way::Repair(_) => " --repair",
        };
        format!("{}{flag}", self.tool())
    }

    fn sandbox(&self) -> Sandbox {
        ready()
    }

    fn ready(&self, sandbox: &Sandbox) {
        let made = pipe_of(self.stages, self.at, "");
        match self.way {
            Way::Apply => {}
            Way::Repair(broken) => drop(sandbox.sh(&format!("{made} && {{ {broken}; }}")).ok()),
            Way::Undo | Way::Unwind => drop(sandbox.sh(&made).ok()),
        }
    }

    fn script(&self, prefix: &str) -> String {
        let tool = self.tool();
        match self.way {
            // strace stays until the last process has ended.
            Way::Apply => pipe_of(self.stages, self.at, prefix).replace("sleep 1000", "sleep 0.1"),
            Way::Undo => format!("{prefix} {tool} --undo < web.json > after.json"),
            Way::Repair(_) => format!("{prefix} {tool} --repair < web.json > after.json"),
            Way::Unwind => format!("{prefix} unwind web > after.json"),
        }
    }

    /// If no program may hold the ports, a process does, and strace would wait for it.
    fn is_skipped(&self, error: &str) -> bool {
        self.tool() == "portmap" && error == "EPERM"
    }

    /// 126 is that of a command that cannot be executed, or looked at.
    fn failed(&self) -> &'static [i32] {
        match self.way {
            Way::Apply if self.tool() == "ns-exec" => &[125, 126],
            _ => &[1],
        }
    }

    fn clean(&self, sandbox: &Sandbox) {
        sandbox.sh("unwind web > /dev/null").ok();
    }

    fn judge(&self, sandbox: &Sandbox, before: &Snapshot, run: &Run) -> ControlFlow<String, String> {
        let mut complaint = String::new();
        if run.outcome.status == 0 {
            complaint += &self.wrong_result(sandbox);
        } else if !run.of_output && !matches!(self.way, Way::Unwind) {
            let file = if matches!(self.way, Way::Apply) { "web.json" } else { "after.json" };
            complaint += untold(sandbox, file, self.tool());
        }
        after_unwind(sandbox, before, run, complaint, &sandbox.sh("unwind web > /dev/null"))
    }
}
