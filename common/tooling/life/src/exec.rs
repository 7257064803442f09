use oci_spec::{
    OciSpecError,
    runtime::{BoxBuilder, Process, Spec, UserBuilder},
};
use operation::Error;
use runtime::{
    Relays, Running, Stdio, Streams,
    spec::{every_capability, set_variables},
    user,
};

use crate::{Container, Result};

/// Another command in a running container, as `docker exec` starts it.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Variables as `NAME=value`. They override those of the container's process.
    pub variables: Vec<String>,
    /// The user, in the form of [`user::resolve`]. `None` for the user of the container's process.
    pub user: Option<String>,
    /// The working directory, as an absolute path. `None` for that of the container's process.
    pub workdir: Option<String>,
    /// Whether the command has a terminal.
    pub terminal: bool,
    /// The size of the terminal: columns and rows.
    pub size: Option<(u16, u16)>,
    /// Whether the command has all capabilities and no seccomp policy.
    pub privileged: bool,
    /// Whether executed programs gain no privileges (`no_new_privs`).
    pub no_new_privileges: bool,
}

fn invalid(error: OciSpecError) -> Error {
    Error::new("describe", "the process", error.to_string())
}

impl Exec {
    /// Starts the command in a running container. With `stdin`, it gets the caller's standard input. With
    /// `in_background`, it gets no standard stream of the caller. The second value is for [`runtime::foreground`]: the
    /// streams that go through the caller.
    ///
    /// # Errors
    /// When the container is paused; the errors of [`Exec::process`] and [`runtime::join`].
    pub fn start(
        &self,
        container: &Container,
        stdin: bool,
        in_background: bool,
    ) -> Result<(Running, Relays)> {
        if container.is_paused()? {
            let error = Error::new(
                "",
                format_args!("container \"{}\" is paused", container.id),
                "nothing can start in it",
            );
            return Err(error.with_hint("`container-pause --resume` resumes it"));
        }
        let (mut spec, process) = self.process(container)?;
        spec.set_process(Some(process.clone()));
        let is_relayed = !in_background && !self.terminal;
        let mut relays = Relays::of(stdin && is_relayed, is_relayed)?;
        let null = Streams { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
        let streams = match in_background {
            true => null,
            false => relays.streams(if stdin { Stdio::Inherit } else { Stdio::Null }),
        };
        let running = runtime::join(&spec, container.identity(), &process, streams)?.release()?;
        relays.begin();
        Ok((running, relays))
    }

    /// The arguments for [`runtime::join`]: the container's specification and the process.
    ///
    /// # Errors
    /// When there is no command, the user is unknown, or the working directory is not absolute.
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
        // As with Docker, an empty name is none.
        if let Some(name) = self.user.as_ref().filter(|name| !name.is_empty()) {
            let root = spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default();
            let user::User { uid, gid, groups, home } = user::resolve(&root, name)?;
            let user = UserBuilder::default().uid(uid).gid(gid).additional_gids(groups).build();
            let user = user.map_err(invalid)?;
            runtime::spec::may_become(&user, &spec)?;
            process.set_user(user);
            // A home that the image or `-e` names is no user's, and stays.
            if !container.has_variable("HOME") {
                set_variables(&mut env, [&format!("HOME={home}")]);
            }
        }
        set_variables(&mut env, &self.variables);
        process.set_env(Some(env));
        if let Some(directory) = self.workdir.as_ref().filter(|directory| !directory.is_empty()) {
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
