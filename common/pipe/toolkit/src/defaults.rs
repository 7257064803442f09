//! Defaults of flags, from `/etc/stave.toml` and the user's own `stave.toml`.
//!
//! A table has the name of a tool, and its keys are flags of that tool without the dashes. They go in front of the words of
//! the command line, so they are checked like these. A default gives way to the same flag on the command line, and to one
//! with which it conflicts.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use toml::{Table, Value};

use crate::{hint, manual};

/// The file of the machine.
const OF_MACHINE: &str = "/etc/stave.toml";
/// A file is not larger than this, in bytes.
const LARGEST: u64 = 1 << 20;
/// Flags that say what a tool does for once, or where. `STAVE_ROOT` and `STAVE_RUN` hold for all tools at once.
const WITHOUT: [&str; 14] = [
    "check",
    "dry-run",
    "explain",
    "generate",
    "help",
    "id",
    "no-config",
    "null-input",
    "repair",
    "root",
    "run-dir",
    "schema",
    "steps",
    "undo",
];
/// It undoes, and nothing but its command line decides what.
const UNDOES: &str = "unwind";

/// The files with defaults. Those of a later one count.
pub(crate) fn files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
    [Some(OF_MACHINE.into()), own.map(|directory| directory.join("stave.toml"))]
        .into_iter()
        .flatten()
        .collect()
}

/// The command line with the defaults of these files, but for those of the switches in `off`.
///
/// # Errors
/// When a file cannot be read or is not believed, or has something that is not carried out.
pub(crate) fn added(
    command: &Command,
    mut arguments: Vec<OsString>,
    off: &[String],
    files: &[PathBuf],
) -> anyhow::Result<Vec<OsString>> {
    if command.get_name() == UNDOES {
        return Ok(arguments);
    }
    let opened: Vec<_> =
        files.iter().filter_map(|path| open(path).transpose().map(|file| (path, file))).collect();
    if opened.is_empty() {
        return Ok(arguments);
    }
    // Wrong words are reported later.
    let Ok(given) = command.clone().ignore_errors(true).try_get_matches_from(&arguments) else {
        return Ok(arguments);
    };
    if given.get_flag("no_config") {
        return Ok(arguments);
    }
    let mut defaults: Vec<(&Arg, Value)> = Vec::new();
    for (path, file) in opened {
        for (name, value) in table(path, file?, command.get_name())? {
            let argument = argument(command, &name).map_err(|error| refused(path, error))?;
            defaults.retain(|(other, _)| other.get_id() != argument.get_id());
            words(argument, &value).map_err(|error| refused(path, error))?;
            defaults.push((argument, value));
        }
    }
    let is_off = |argument: &Arg| argument.get_long().is_some_and(|name| off.iter().any(|off| off == name));
    defaults.retain(|(argument, _)| !is_off(argument) && !is_decided(command, argument, &given));
    let mut added = Vec::new();
    for (argument, value) in &defaults {
        added.extend(words(argument, value)?.into_iter().map(OsString::from));
    }
    let behind = arguments.len().min(1);
    arguments.splice(behind..behind, added);
    Ok(arguments)
}

/// Whether the command line has the flag, or one with which it conflicts.
fn is_decided(command: &Command, argument: &Arg, given: &ArgMatches) -> bool {
    let is_given = |other: &Arg| {
        given.try_contains_id(other.get_id().as_str()).is_ok()
            && given.value_source(other.get_id().as_str()) == Some(ValueSource::CommandLine)
    };
    let conflict =
        |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id());
    let others = command.get_arguments().filter(|other| is_given(other));
    is_given(argument)
        || others.into_iter().any(|other| conflict(argument, other) || conflict(other, argument))
}

/// The file, if there is one.
fn open(path: &Path) -> anyhow::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    // Opening something else than a file must not wait.
    match File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        // A place that the caller may not enter is not the caller's own: `$HOME` may still be another user's.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(refused(path, error.into())),
    }
}

/// The defaults of a tool in a file.
fn table(path: &Path, file: File, tool: &str) -> anyhow::Result<Table> {
    believed(path, &file)?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| refused(path, error.into()))?;
    if text.len() as u64 > LARGEST {
        return Err(refused(path, anyhow!("it is larger than 1 MiB")));
    }
    let tables = text.parse::<Table>().map_err(|error| {
        let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        refused(path, anyhow!("{place}{}", error.message().replace('\n', ", ")))
    })?;
    let mut own = Table::new();
    for (name, value) in tables {
        let Value::Table(flags) = value else {
            return Err(refused(path, anyhow!("{name:?} is in no table: [TOOL] begins the flags of a tool")));
        };
        if name == UNDOES || !manual::is_tool(&name) {
            return Err(refused(path, anyhow!("there is no tool [{name}] that takes defaults")));
        }
        if name == tool {
            own = flags;
        }
    }
    Ok(own)
}

/// Only root and the caller decide what the caller's tools do.
fn believed(path: &Path, file: &File) -> anyhow::Result<()> {
    let found = file.metadata().map_err(|error| refused(path, error.into()))?;
    let own = nix::unistd::geteuid().as_raw();
    // In a user namespace, root of the machine looks like this.
    let is_unmapped = path == Path::new(OF_MACHINE) && found.uid() == 65534 && !userns::is_system_root();
    let problem = match found.uid() {
        _ if !found.is_file() => "it is not a file".to_owned(),
        uid if ![0, own].contains(&uid) && !is_unmapped => format!("it belongs to user {uid}"),
        _ if found.mode() & 0o022 != 0 => {
            format!("others may write to it (mode {:04o})", found.mode() & 0o7777)
        }
        _ => return Ok(()),
    };
    Err(refused(path, anyhow!("{problem}")))
}

fn refused(path: &Path, error: anyhow::Error) -> anyhow::Error {
    hint(
        error.context(format!("take defaults from {}", path.display())),
        "fix that file (docs/defaults.md), or use --no-config",
    )
}

/// The flag of this name.
fn argument<'a>(command: &'a Command, name: &str) -> anyhow::Result<&'a Arg> {
    let tool = command.get_name();
    if WITHOUT.contains(&name) {
        bail!("[{tool}] --{name} has no default");
    }
    let is_it = |argument: &&Arg| {
        argument.get_long() == Some(name)
            || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    command.get_arguments().find(is_it).with_context(|| format!("[{tool}] there is no flag --{name}"))
}

/// A flag with its value, as words of a command line.
fn words(argument: &Arg, value: &Value) -> anyhow::Result<Vec<String>> {
    let name = argument.get_long().unwrap_or_default();
    let flag = format!("--{name}");
    match (argument.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::SetFalse, Value::Boolean(is_on)) => {
            Ok(if *is_on { vec![flag] } else { Vec::new() })
        }
        (ArgAction::SetTrue | ArgAction::SetFalse, _) => {
            bail!("{flag} is true or false, not of type {}", value.type_str())
        }
        (ArgAction::Count, Value::Integer(times @ 0..=9)) => Ok((0..*times).map(|_| flag.clone()).collect()),
        (ArgAction::Append, Value::Array(values)) => {
            values.iter().map(|value| Ok(format!("{flag}={}", word(name, value)?))).collect()
        }
        (ArgAction::Set | ArgAction::Append, value) => Ok(vec![format!("{flag}={}", word(name, value)?)]),
        _ => bail!("{flag} has no values of type {}", value.type_str()),
    }
}

fn word(name: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(is_on) => Ok(is_on.to_string()),
        other => bail!("--{name} has no values of type {}", other.type_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::CommandFactory;

    use super::*;
    use crate::Common;

    #[derive(clap::Parser)]
    #[command(name = "img-pull")]
    #[allow(dead_code)]
    struct Tool {
        #[arg(long)]
        retries: Option<u32>,
        #[arg(long, conflicts_with = "everything")]
        platform: Vec<String>,
        #[arg(long = "all-platforms")]
        everything: bool,
        name: String,
        #[command(flatten)]
        common: Common,
    }

    /// The command line with the defaults in these files, or why there are none.
    fn line(files: &[&str], words: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..files.len()).map(|at| directory.path().join(at.to_string())).collect();
        for (path, text) in paths.iter().zip(files) {
            std::fs::write(path, text).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let words = words.split(' ').map(OsString::from).collect();
        let place = format!("take defaults from {}/0: ", directory.path().display());
        let words: Vec<OsString> = words;
        let settled = crate::switches::settled(&Tool::command(), &words);
        match added(&Tool::command(), settled.words, &settled.off, &paths) {
            Ok(words) => Ok(words.join(std::ffi::OsStr::new(" ")).into_string().unwrap()),
            Err(error) => Err(crate::report_line(&error).strip_prefix(&place).unwrap().to_owned()),
        }
    }

    #[test]
    fn what_the_command_line_says_counts() {
        let machine = "[img-pull]\nretries = 3\nplatform = ['linux/amd64', 'linux/arm64']\nquiet = true\n[img-ls]\ntable = true";
        let own = "[img-pull]\nretries = 5\nverbose = 2";
        for (files, words, expected) in [
            (&[][..], "img-pull a", "img-pull a"),
            (
                &[machine],
                "img-pull a",
                "img-pull --platform=linux/amd64 --platform=linux/arm64 --quiet --retries=3 a",
            ),
            (
                &[machine, own],
                "img-pull --platform p a",
                "img-pull --quiet --retries=5 --verbose --verbose --platform p a",
            ),
            (
                &[machine],
                "img-pull --all-platforms --retries=1 a",
                "img-pull --quiet --all-platforms --retries=1 a",
            ),
            (&[machine], "img-pull --no-config a", "img-pull --no-config a"),
            (
                &[machine],
                "img-pull --nonsense a",
                "img-pull --platform=linux/amd64 --platform=linux/arm64 --quiet --retries=3 --nonsense a",
            ),
            (&["[img-pull]\nquiet = false"], "img-pull a", "img-pull a"),
            (&["[img-pull]\nquiet = true\nretries = 1"], "img-pull -q=false a", "img-pull --retries=1 a"),
            (&["[img-pull]\nquiet = true"], "img-pull --quiet=false -q a", "img-pull --quiet a"),
        ] {
            assert_eq!(line(files, words).unwrap(), expected, "{words}");
        }
    }

    #[test]
    fn what_is_not_carried_out_is_refused() {
        for (text, problem) in [
            ("[img-pull]\nretry = 3", "[img-pull] there is no flag --retry"),
            ("[img-pull]\nroot = '/x'", "[img-pull] --root has no default"),
            ("[img-pull]\nundo = true", "[img-pull] --undo has no default"),
            ("[img-pull]\nquiet = 'yes'", "--quiet is true or false, not of type string"),
            ("[img-pull]\nretries = [1, 2]", "--retries has no values of type array"),
            ("[img-pul]\n", "there is no tool [img-pul] that takes defaults"),
            ("[unwind]\nquiet = true", "there is no tool [unwind] that takes defaults"),
            ("[oci-runtime]\n", "there is no tool [oci-runtime] that takes defaults"),
            ("retries = 3", "\"retries\" is in no table: [TOOL] begins the flags of a tool"),
            ("[img-pull]\n\nretries =\n", "line 3: "),
        ] {
            let error = line(&[text], "img-pull a").unwrap_err();
            assert!(error.starts_with(problem) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_of_others_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stave.toml");
        std::fs::write(&path, "").unwrap();
        let read = |mode| {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            added(&Tool::command(), vec!["img-pull".into(), "a".into()], &[], std::slice::from_ref(&path))
        };
        assert!(read(0o600).is_ok());
        let error = crate::report_line(&read(0o666).unwrap_err());
        assert!(error.ends_with("stave.toml: others may write to it (mode 0666)"), "{error}");
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4711), None).unwrap();
            let error = crate::report_line(&read(0o600).unwrap_err());
            assert!(error.ends_with("stave.toml: it belongs to user 4711"), "{error}");
        }
        let none = added(&Tool::command(), vec!["img-pull".into()], &[], &[directory.path().into()]);
        let error = crate::report_line(&none.unwrap_err());
        assert!(error.ends_with(": it is not a file"), "{error}");
    }
}
