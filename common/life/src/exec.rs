use oci_spec::{
    OciSpecError,
    runtime::{BoxBuilder, Process, Spec, UserBuilder},
};
use operation::Error;
use runtime::{
    Running, Stdio, Streams,
    spec::{every_capability, set_variables},
    user,
};

use crate::{Container, Result};

/// Another command in a container: `docker exec`.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// `NAME=value`: they override those of the container's process.
    pub variables: Vec<String>,
    /// Replaces the user of the container's process, in the form of [`user::resolve`].
    pub user: Option<String>,
    /// Replaces its working directory.
    pub workdir: Option<String>,
    /// With a terminal.
    pub terminal: bool,
    /// Columns and rows of the terminal.
    pub size: Option<(u16, u16)>,
    /// All capabilities, and no policy for system calls.
    pub privileged: bool,
    /// Programs gain no privileges by being executed.
    pub no_new_privileges: bool,
}

fn invalid(error: OciSpecError) -> Error {
    Error::new("describe", "the process", error.to_string())
}

impl Exec {
    /// Starts it in a running container. With `stdin` it has the caller's standard input; in the background it has neither that
    /// nor standard output and standard error.
    ///
    /// # Errors
    /// As [`Exec::process`], and [`runtime::join`].
    pub fn start(&self, container: &Container, stdin: bool, in_background: bool) -> Result<Running> {
        if container.is_paused()? {
            let error = Error::new(
                "",
                format_args!("container \"{}\" is paused", container.id),
                "nothing can start in it",
            );
            return Err(error.with_hint("`container-pause --resume` lets it go on"));
        }
        let (spec, process) = self.process(container)?;
        let out = if in_background { Stdio::Null } else { Stdio::Inherit };
        let stdin = if stdin { out } else { Stdio::Null };
        let streams = Streams { stdin, stdout: out, stderr: out };
        Ok(runtime::join(&spec, container.identity(), &process, streams)?.release()?)
    }

    /// What [`runtime::join`] takes: the container's specification, and the process.
    ///
    /// # Errors
    /// When there is no command, or the user is unknown.
    pub fn process(&self, container: &Container) -> Result<(Spec, Process)> {
        let mut spec = (*container.operation.spec).clone();
        let recorded = spec.process().clone();
        let mut process = recorded.ok_or_else(|| {
            Error::new("", format_args!("container \"{}\" has no process", container.id), "none is recorded")
        })?;
        if self.command.is_empty() {
            return Err(Error::new("", "no command", "give one after `--`"));
        }
        process.set_args(Some(self.command.clone()));
        let mut env = process.env().clone().unwrap_or_default();
        if self.terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
            env.push("TERM=xterm".to_owned());
        }
        if let Some(name) = &self.user {
            let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
            let user::User { uid, gid, groups, home } = user::resolve(&root, name)?;
            let user = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build();
            process.set_user(user.map_err(invalid)?);
            set_variables(&mut env, [&format!("HOME={home}")]);
        }
        set_variables(&mut env, &self.variables);
        process.set_env(Some(env));
        if let Some(directory) = &self.workdir {
            if !directory.starts_with('/') {
                return Err(Error::new(
                    "",
                    format_args!("working directory {directory:?}"),
                    "it is not absolute",
                ));
            }
            process.set_cwd(directory.into());
        }
        process.set_terminal(Some(self.terminal)).set_console_size(None);
        if let Some((columns, rows)) = self.size {
            let size = BoxBuilder::default().width(u64::from(columns)).height(u64::from(rows)).build();
            process.set_console_size(Some(size.map_err(invalid)?));
        }
        if self.no_new_privileges {
            process.set_no_new_privileges(Some(true));
        }
        if self.privileged {
            process
                .set_capabilities(Some(every_capability().map_err(invalid)?))
                .set_no_new_privileges(Some(false));
            if let Some(linux) = spec.linux_mut() {
                linux.set_seccomp(None);
            }
        }
        Ok((spec, process))
    }
}
