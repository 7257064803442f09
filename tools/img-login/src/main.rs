//! Logs in to a registry.
//!
//! # Does
//! Checks the name and password with the registry. If the registry accepts them, stores them where Docker,
//! podman and skopeo also find them: in a credential helper if the file names one, or else in the file.
//! # Reads
//! No document. The password comes from standard input, or is asked for at the terminal.
//! # Adds
//! Nothing; prints `{registry, username}` and the place of the login: `file` or `helper`.
//! # Undoes
//! Nothing; `img-logout` removes the login.
//! # Needs
//! Access to the registry, and write access to the file.

use std::process::ExitCode;

use clap::Parser;
use registry::{
    Login,
    credentials::{self, Place},
};
use remote::{Reach, ask};
use serde_json::{Value, json};
use toolkit::{prelude::*, rows};

/// Log in to a registry
#[derive(Parser)]
#[command(name = "img-login", version, after_help = toolkit::EQUIVALENT_HELP)]
struct LogIn {
    #[arg(help = "The registry: HOST[:PORT][/PATH]", value_name = "REGISTRY", default_value = "docker.io", value_parser = remote::registry)]
    registry: String,
    /// The user name; by default, ask for it
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    common: Common,
}

impl Report for LogIn {
    fn common(&self) -> &Common {
        &self.common
    }

    fn report(&self, context: &Context) -> Result<Value> {
        let registry = &self.registry;
        // The login is for a part of the registry, which is asked as a whole.
        let host = registry.split('/').next().unwrap_or_default();
        let login = self.login()?;
        self.reach.client().log_in(host, &login).map_err(|error| match error.is_denied() {
            true => error.into(),
            false => remote::hinted(error, registry),
        })?;
        let place = credentials::keep(self.reach.authfile.as_deref(), registry, &login);
        let place = place.map_err(|error| remote::hinted(error, registry))?;
        let mut report = json!({"registry": registry, "username": login.name});
        match place {
            Place::File(file) => {
                if !context.quiet {
                    operation::tell!("img-login: the password is in {}, not encrypted", file.display());
                }
                report["file"] = json!(file);
            }
            Place::Program(helper) => report["helper"] = json!(format!("docker-credential-{helper}")),
        }
        Ok(report)
    }

    fn explain(&self, _: &Context) -> Result<Vec<String>> {
        let name = self.username.as_deref().or(self.reach.creds.as_ref().map(|login| &*login.name));
        let file = self.reach.authfile.as_ref().map(|file| file.to_string_lossy());
        let mut words = vec!["skopeo", "login"];
        words.extend(file.iter().flat_map(|file| ["--authfile", file]));
        words.extend(name.into_iter().flat_map(|name| ["--username", name]));
        words.extend(self.password_stdin.then_some("--password-stdin"));
        words.push(&self.registry);
        Ok(toolkit::equivalent([operation::words(words)]))
    }

    fn shown(&self, report: &Value) -> Option<String> {
        Some(format!(
            "Login Succeeded: {} as {}\n",
            rows::word(&report["registry"]),
            rows::word(&report["username"])
        ))
    }
}

/// What to do without a terminal.
const INSTEAD: &str = "give the name with --username and the password with --password-stdin";

impl LogIn {
    fn login(&self) -> Result<Login> {
        match (&self.reach.creds, &self.username) {
            (Some(login), None) if !self.password_stdin => return Ok(login.clone()),
            (Some(_), _) => bail!("--creds gives the name and the password already"),
            (None, None) if self.password_stdin => bail!("--password-stdin needs --username"),
            _ => {}
        }
        let name = match &self.username {
            Some(name) => name.clone(),
            None => ask::line("Username: ", INSTEAD)?,
        };
        let password = match self.password_stdin {
            true => ask::password_of_stdin()?,
            false => ask::secret("Password: ", INSTEAD)?,
        };
        match (name.as_str(), password.as_str()) {
            ("", _) => bail!("the name is empty"),
            (_, "") => bail!("the password is empty"),
            _ if name.contains(':') => bail!("the name {name:?} has a colon, which no registry can read"),
            _ => Ok(Login { name, password }),
        }
    }
}

pub(crate) fn main() -> ExitCode {
    toolkit::report::<LogIn>()
}
