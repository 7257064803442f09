//! Logs out of a registry.
//!
//! # Does
//! Removes the login from each file and credential helper where `img-pull` would find it. It does not contact
//! the registry.
//! # Reads
//! No document.
//! # Adds
//! Nothing; prints `{registry, removed}`, the files and helpers that had a login.
//! # Undoes
//! Nothing; `img-login` logs in again.
//! # Needs
//! Write access to the files.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use registry::credentials::{self, Place};
use serde_json::{Value, json};
use toolkit::prelude::*;

/// Log out of a registry
#[derive(Parser)]
#[command(name = "img-logout", version, after_help = toolkit::EQUIVALENT_HELP)]
struct LogOut {
    #[arg(help = "The registry: HOST[:PORT][/PATH]", value_name = "REGISTRY", default_value = "docker.io", value_parser = remote::registry)]
    registry: String,
    /// Remove the login from this file only
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Report for LogOut {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let places = credentials::remove(self.authfile.as_deref(), &self.registry)?;
        if places.is_empty() && !context.quiet {
            operation::tell!("img-logout: there was no login for {}", self.registry);
        }
        let removed = places.into_iter().map(|place| match place {
            Place::File(file) => json!({"file": file}),
            Place::Program(helper) => json!({"helper": format!("docker-credential-{helper}")}),
        });
        Ok(json!({"registry": self.registry, "removed": removed.collect::<Vec<_>>()}))
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let file = self.authfile.as_ref().map(|file| file.to_string_lossy());
        let mut words = vec!["skopeo", "logout"];
        words.extend(file.iter().flat_map(|file| ["--authfile", file]));
        words.push(&self.registry);
        Ok(toolkit::equivalent([operation::words(words)]))
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<LogOut>()
}
