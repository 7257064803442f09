//! Instructions as commands of buildah, for `--explain`.

use oci::{Layout, spec::Descriptor};
use operation::words;

use super::run::script;
use crate::{
    arguments::{Global, Local},
    commit::change,
    config::Image,
    dockerfile::{
        Instruction, Statement,
        expand::Expander,
        instruction::{Healthcheck, Pair, Run, RunNetwork},
    },
    edit::Edit,
    error::Cause,
    metadata::{self, MetadataError},
};

/// What is known of a stage without its base image.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    image: Image,
    arguments: Local,
}

impl Known {
    /// A stage that is based on this one. ARGs end with their stage.
    pub(super) fn on_top(&self) -> Self {
        Self { image: self.image.clone(), ..Self::default() }
    }

    /// The command to the same effect as an instruction. A comment for an ARG, which has no effect by itself, and for an
    /// instruction that has no such command.
    pub(super) fn command(
        &mut self,
        container: &str,
        statement: &Statement,
        (global, escape): (&Global, char),
    ) -> String {
        let (_, rest) = statement.text.split_once(char::is_whitespace).unwrap_or((&statement.text, ""));
        let command = match &statement.instruction {
            Instruction::Copy(_) => Some(format!("buildah copy {} {rest}", operation::quote(container))),
            Instruction::Add(_) => Some(format!("buildah add {} {rest}", operation::quote(container))),
            Instruction::Run(run) => self.run(container, run),
            Instruction::Arg(arguments) => {
                // A default that needs the base image stays unknown.
                let _ = self.arguments.declare(arguments, global, &self.image.config, escape);
                None
            }
            instruction => self.config(instruction, escape).ok().map(|flags| {
                let flags = flags.iter().map(String::as_str);
                words(["buildah", "config"].into_iter().chain(flags).chain([container]))
            }),
        };
        command.unwrap_or_else(|| format!("# {}", statement.text))
    }

    fn run(&self, container: &str, run: &Run) -> Option<String> {
        let script = script(run, self.image.config.shell());
        if script.program.is_some() {
            return None;
        }
        let mut command = vec!["buildah".to_owned(), "run".to_owned()];
        for (name, value) in self.arguments.environment() {
            command.extend(["--env".to_owned(), format!("{name}={value}")]);
        }
        command.extend(run.mounts.iter().map(|mount| format!("--mount={mount}")));
        match run.network {
            RunNetwork::Default => {}
            RunNetwork::None => command.push("--network=none".to_owned()),
            RunNetwork::Host => command.push("--network=host".to_owned()),
        }
        command.extend([container.to_owned(), "--".to_owned()]);
        command.extend(script.words);
        Some(words(command))
    }

    /// The flags of `buildah config` for an instruction that changes the configuration.
    fn config(&mut self, instruction: &Instruction, escape: char) -> Result<Vec<String>, MetadataError> {
        let before = self.clone();
        let lookup = |name: &str| before.arguments.variable(name, &before.image.config);
        // buildah itself expands a variable of the base image.
        let expander = Expander { skip_unset: true, ..Expander::new(escape, &lookup) };
        if let Some(change) = metadata::change(instruction, &self.image, &expander, false)? {
            change.apply(&mut self.image);
        }
        if let Instruction::Env(pairs) = instruction {
            pairs.iter().for_each(|pair| self.arguments.hide(&pair.name));
        }
        flags(instruction, &self.image, &expander)
    }
}

/// The flags for an instruction. `after` is the configuration that the instruction has changed.
fn flags(
    instruction: &Instruction,
    after: &Image,
    expander: &Expander,
) -> Result<Vec<String>, MetadataError> {
    let config = &after.config;
    let one = |flag: &str, value: &str| vec![flag.to_owned(), value.to_owned()];
    let each = |flag: &str, values: Vec<String>| -> Vec<String> {
        values.into_iter().flat_map(|value| [flag.to_owned(), value]).collect()
    };
    let pairs = |pairs: &[Pair], of: &'static str| -> Result<Vec<String>, MetadataError> {
        let pairs = metadata::expanded(pairs, expander, of)?;
        Ok(pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    };
    Ok(match instruction {
        Instruction::Cmd(_) => one("--cmd", &words(config.cmd.as_deref().unwrap_or_default())),
        Instruction::Entrypoint(_) => {
            let entrypoint = serde_json::Value::from(config.entrypoint.as_deref().unwrap_or_default());
            one("--entrypoint", &entrypoint.to_string())
        }
        Instruction::Env(variables) => each("--env", pairs(variables, "ENV")?),
        Instruction::Label(labels) => each("--label", pairs(labels, "LABEL")?),
        Instruction::Expose(ports) => each("--port", metadata::exposed(ports, expander)?),
        Instruction::Healthcheck(check) => healthcheck(check),
        Instruction::Maintainer(author) => one("--author", author),
        Instruction::Onbuild(trigger) => one("--onbuild", trigger),
        Instruction::Shell(shell) => one("--shell", &words(shell)),
        Instruction::StopSignal(_) => one("--stop-signal", config.stop_signal.as_deref().unwrap_or_default()),
        Instruction::User(_) => one("--user", &config.user),
        Instruction::Volume(volumes) => {
            let volumes = volumes.iter().map(|volume| expander.word(volume));
            each("--volume", volumes.collect::<Result<_, _>>()?)
        }
        Instruction::Workdir(path) => one("--workingdir", &expander.word(path)?),
        Instruction::Add(_) | Instruction::Arg(_) | Instruction::Copy(_) | Instruction::Run(_) => Vec::new(),
    })
}

fn healthcheck(check: &Healthcheck) -> Vec<String> {
    let mut flags = vec!["--healthcheck".to_owned(), words(&check.test)];
    for (name, time) in [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ] {
        if time != 0 {
            flags.extend([format!("--healthcheck-{name}"), metadata::duration(time)]);
        }
    }
    if check.retries != 0 {
        flags.extend(["--healthcheck-retries".to_owned(), check.retries.to_string()]);
    }
    flags
}

/// The commands to the same effect as the changes of an image's configuration, one for each.
///
/// # Errors
/// As the run's: the image cannot be read, or [`Cause::Change`].
pub fn explain_changes(container: &str, edit: &Edit, image: &Descriptor) -> Result<Vec<String>, Cause> {
    let layout = Layout::look(edit.root.join("images"))?;
    let found = layout.image(image, edit.platform.as_ref())?;
    changed(container, serde_json::from_value(found.raw_configuration)?, &edit.changes)
}

/// The commands, if the image takes the changes.
fn changed(container: &str, mut image: Image, changes: &[String]) -> Result<Vec<String>, Cause> {
    let (mut known, global) = (Known::default(), Global::default());
    let statements = change(&mut image, changes)?;
    Ok(statements.iter().map(|statement| known.command(container, statement, (&global, '\\'))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile;

    fn commands(text: &str) -> Vec<String> {
        let file = dockerfile::parse(format!("FROM a\n{text}").as_bytes()).unwrap();
        let (mut known, global) = (Known::default(), Global::default());
        let statements = file.stages[0].statements.iter();
        statements.map(|statement| known.command("c", statement, (&global, file.escape))).collect()
    }

    /// `buildah config` without a flag does nothing.
    #[test]
    fn each_instruction_has_its_flag() {
        for (instruction, command) in [
            (r#"CMD ["a", "b c"]"#, r"buildah config --cmd 'a '\''b c'\''' c"),
            ("CMD a | b", r"buildah config --cmd '/bin/sh -c '\''a | b'\''' c"),
            (r#"ENTRYPOINT ["/a", "b"]"#, r#"buildah config --entrypoint '["/a","b"]' c"#),
            (r#"ENV A="x y" B=$A:$C"#, "buildah config --env 'A=x y' --env 'B=$A:$C' c"),
            ("ENV A b c", "buildah config --env 'A=b c' c"),
            ("LABEL a=1 b='2 3'", "buildah config --label a=1 --label 'b=2 3' c"),
            ("EXPOSE 80 53/udp", "buildah config --port 53/udp --port 80/tcp c"),
            ("USER 7:7", "buildah config --user 7:7 c"),
            ("WORKDIR /w", "buildah config --workingdir /w c"),
            ("VOLUME /a /b", "buildah config --volume /a --volume /b c"),
            ("STOPSIGNAL SIGINT", "buildah config --stop-signal SIGINT c"),
            (r#"SHELL ["/bin/bash", "-c"]"#, "buildah config --shell '/bin/bash -c' c"),
            ("ONBUILD RUN a", "buildah config --onbuild 'RUN a' c"),
            ("MAINTAINER x y", "buildah config --author 'x y' c"),
            ("HEALTHCHECK NONE", "buildah config --healthcheck NONE c"),
            (
                "HEALTHCHECK --interval=90s --retries=2 CMD a || b",
                r"buildah config --healthcheck 'CMD-SHELL '\''a || b'\''' --healthcheck-interval 1m30s --healthcheck-retries 2 c",
            ),
            ("ARG A=1", "# ARG A=1"),
            // Whether it is a signal is known only with the base image.
            ("STOPSIGNAL $S", "# STOPSIGNAL $S"),
            ("COPY a /b", "buildah copy c a /b"),
            ("RUN a | b", "buildah run c -- /bin/sh -c 'a | b'"),
            (r#"RUN ["a", "b c"]"#, "buildah run c -- a 'b c'"),
            (
                "RUN --mount=type=tmpfs,target=/t --network=none a",
                "buildah run --mount=type=tmpfs,target=/t --network=none c -- /bin/sh -c a",
            ),
        ] {
            assert_eq!(commands(instruction), [command], "{instruction}");
        }
    }

    #[test]
    fn values_come_from_the_instructions_before() {
        let lines = commands("ARG V=1\nENV A=$V\nSHELL [\"/bin/bash\", \"-c\"]\nRUN x\nENV V=2\nUSER $V$A");
        assert_eq!(
            lines,
            [
                "# ARG V=1",
                "buildah config --env A=1 c",
                "buildah config --shell '/bin/bash -c' c",
                "buildah run --env V=1 c -- /bin/bash -c x",
                "buildah config --env V=2 c",
                "buildah config --user 21 c",
            ]
        );
        let changes = ["ENV A=2 B=$A".to_owned(), "USER $A".to_owned()];
        let lines = changed("c", Image::default(), &changes).unwrap();
        assert_eq!(lines, ["buildah config --env A=2 --env 'B=$A' c", "buildah config --user 2 c"]);
        for refused in ["nonsense", "RUN a", "SHELL [\"/bin/sh\"]", "MAINTAINER a", "STOPSIGNAL nonsense"] {
            changed("c", Image::default(), &[refused.to_owned()]).unwrap_err();
        }
    }
}
