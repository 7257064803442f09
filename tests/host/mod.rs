//! A host on which `stave` is tested.

#![allow(dead_code)] // Each test uses a part of it.

use testkit::{Outcome, Sandbox, repository};

/// A host with the image `busybox`, on which `stave` runs the tools of this build.
pub(crate) struct Host(pub(crate) Sandbox);

impl Host {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::with_busybox();
        // Through a link, so that `stave` does not find the tools of another build beside itself.
        sandbox.sh(&format!("ln -s {}/scripts/stave stave", repository().display())).ok();
        Self(sandbox)
    }

    #[track_caller]
    pub(crate) fn stave(&self, arguments: &str) -> Outcome {
        self.0.sh(&format!("./stave {arguments}"))
    }

    #[track_caller]
    pub(crate) fn prints(&self, arguments: &str, expected: &str) {
        assert_eq!(self.stave(arguments).ok().trim_end(), expected, "{arguments}");
    }

    /// Replaces the next call of a tool by this script. In the script, the tool's name means the tool itself.
    #[track_caller]
    pub(crate) fn instead_of(&self, tool: &str, script: &str) {
        // `stave` finds the script first, because it is in the same directory.
        let script = format!("printf '#!/bin/sh\\nrm {tool}\\n%s\\n' '{script}' > {tool}; chmod +x {tool}");
        self.0.sh(&script).ok();
    }

    /// Asserts that the container's process runs, and that the container's file system exists.
    #[track_caller]
    pub(crate) fn runs(&self, name: &str) {
        self.prints("ps -q", name);
        self.prints(&format!("exec {name} echo hi"), "hi");
    }

    /// Waits until container-ls prints this word for `web` with this format.
    #[track_caller]
    pub(crate) fn until(&self, format: &str, word: &str) {
        let look =
            format!("until [ \"$(container-ls --format '{format}' web)\" = '{word}' ]; do sleep 0.01; done");
        self.0.sh(&format!("timeout 20 sh -c '{}'", look.replace('\'', "'\\''"))).ok();
    }

    /// Asserts that `stave` exits with this status, with this first line on standard error, and with nothing on
    /// standard output.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &str, status: i32, line: &str) {
        let outcome = self.stave(arguments).exits(status);
        assert_eq!(
            (outcome.stderr.lines().next(), outcome.stdout.as_str()),
            (Some(line), ""),
            "{arguments}: {}",
            outcome.stderr
        );
    }
}
