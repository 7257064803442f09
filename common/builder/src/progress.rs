//! The output of a build on standard error, in Docker's form.

use std::io::Write;

/// Prints the steps.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Print nothing.
    pub quiet: bool,
}

impl Progress {
    /// Prints a line of any kind.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            // If standard error is closed, the build goes on.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// `Step 2/4 : RUN make`; the joined lines of an instruction.
    pub fn step(&self, number: usize, of: usize, text: &str) {
        self.line(&format!("Step {number}/{of} : {text}"));
    }

    /// The image after a step: the first twelve digits of its id.
    pub fn id(&self, id: &oci::Digest) {
        self.line(&format!(" ---> {}", id.short()));
    }

    /// A step from the cache.
    pub fn cached(&self) {
        self.line(" ---> Using cache");
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        self.line(&format!("[Warning] {text}"));
    }
}
