//! What people see of a build, on standard error: the lines that they know from Docker.

use std::io::Write;

/// Prints the steps.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Say nothing.
    pub quiet: bool,
}

impl Progress {
    /// A line of any kind.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            // Whoever closed standard error wants to see nothing; the build goes on.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// `Step 2/4 : RUN make`; of an instruction of several lines all, as they were joined.
    pub fn step(&self, number: usize, of: usize, text: &str) {
        self.line(&format!("Step {number}/{of} : {text}"));
    }

    /// The image as it is after a step: the first twelve digits of its id.
    pub fn id(&self, id: &oci::Digest) {
        self.line(&format!(" ---> {}", id.short()));
    }

    /// A step that was not run.
    pub fn cached(&self) {
        self.line(" ---> Using cache");
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.line(&format!("[Warning] {text}"));
    }
}
