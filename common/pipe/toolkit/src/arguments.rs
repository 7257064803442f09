//! The arguments that every tool takes.

use std::{
    ffi::OsString,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context as _;
use clap::{
    Arg, ArgGroup, Command, FromArgMatches,
    builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use document::Id;
use operation::Scope;

use crate::{
    defaults, failure,
    kind::Kind,
    naming,
    switches::{self, Settled},
};

/// The arguments of every tool, flattened into each tool's own.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every tool")]
pub struct Common {
    /// Name the container; only needed if the document has no id
    #[arg(long, value_name = "ID")]
    pub id: Option<Id>,
    /// Keep images, layers and containers in this directory
    #[arg(long, value_name = "DIR", env = "STAVE_ROOT", hide_env_values = true, value_parser = any_path())]
    pub root: Option<PathBuf>,
    /// Keep records, locks and leases in this directory, until the next reboot
    #[arg(long, value_name = "DIR", env = "STAVE_RUN", hide_env_values = true, value_parser = any_path())]
    pub run_dir: Option<PathBuf>,
    /// Start with an empty document instead of reading standard input
    #[arg(short = 'n', long)]
    pub null_input: bool,
    /// Undo what this tool made, according to the document
    #[arg(long)]
    pub undo: bool,
    /// With --undo: undo this many of the tool's steps, the newest first
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, requires = "undo")]
    pub steps: usize,
    /// Print what would be done, as commands that you would type, and do nothing
    #[arg(long, conflicts_with_all = ["undo", "check", "repair"])]
    pub explain: bool,
    /// Only print the plan to standard error, and pass it on to later tools
    #[arg(long, conflicts_with_all = ["undo", "check", "repair", "explain"])]
    pub dry_run: bool,
    /// Compare the document with the machine, and change nothing
    #[arg(long, conflicts_with_all = ["undo", "repair"])]
    pub check: bool,
    /// Make missing parts again, according to the document
    #[arg(long, conflicts_with = "undo")]
    pub repair: bool,
    /// Print the JSON Schema of the members that this tool reads and writes
    #[arg(long)]
    pub schema: bool,
    /// Print the manual page (man), or completions for a shell (bash, zsh, fish, elvish)
    #[arg(long, value_name = "WHAT", hide = true)]
    pub generate: Option<String>,
    /// Ignore the defaults of flags in /etc/stave.toml and ~/.config/stave.toml
    #[arg(long)]
    pub no_config: bool,
    /// Print JSON to a terminal too, where it would show a table or a line
    #[arg(long)]
    pub json: bool,
    /// Print only errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Print more; repeat for debug output
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// A parser for an argument that is one of these names. `--help` lists them.
pub fn one_of<T>(names: impl Into<PossibleValuesParser>) -> impl TypedValueParser<Value = T>
where
    T: FromStr + Clone + Send + Sync + 'static,
{
    names.into().try_map(|name| name.parse().map_err(|_| format!("{name:?} is none of these")))
}

/// Parses an argument of the form `NAME=VALUE`.
///
/// # Errors
/// When there is no name, or no equals sign.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is NAME=VALUE".to_owned()),
    }
}

/// Parses a path, which may be empty: so is a variable that is set to nothing.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What a tool knows about its surroundings while it works.
#[derive(Debug, Clone)]
pub struct Context {
    /// The directories `--root` and `--run-dir`, as absolute paths.
    pub scope: Scope,
    /// The container's id. Empty in a source, and in a report that is not about a container.
    pub id: String,
    /// `--quiet`: print only errors.
    pub quiet: bool,
    /// How often `--verbose` was given.
    pub verbose: u8,
    /// Whether the tool only plans (`--dry-run`): nothing that the document describes exists, and nothing
    /// will be made.
    pub planned: bool,
}

/// The directories of a tool, as absolute paths. The arguments count first, then `STAVE_ROOT` and
/// `STAVE_RUN`, then the defaults: the system's directories for root, and the XDG directories for other
/// users, even for root of a user namespace.
///
/// From here on, what this process makes can only be written by its user. A daemon has no umask by the book
/// (daemon(7)), and whoever can write records decides what root does.
///
/// # Errors
/// When the current directory is needed but not known; when others may write to one of the directories.
pub fn scope(root: Option<PathBuf>, run_dir: Option<PathBuf>) -> anyhow::Result<Scope> {
    operation::keep_others_out();
    let root_user = userns::is_system_root();
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").unwrap_or_else(|| "/".into());
    // A variable that is empty counts as unset.
    let given = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    let root = given(root).or(variable("STAVE_ROOT")).unwrap_or_else(|| match root_user {
        true => "/var/lib/stave".into(),
        false => variable("XDG_DATA_HOME").unwrap_or_else(|| home().join(".local/share")).join("stave"),
    });
    let run_dir = given(run_dir).or(variable("STAVE_RUN")).unwrap_or_else(|| {
        match (root_user, variable("XDG_RUNTIME_DIR")) {
            (true, _) => "/run/stave".into(),
            (false, Some(dir)) => dir.join("stave"),
            (false, None) => format!("/tmp/stave-{}", user()).into(),
        }
    });
    let scope = Scope { root: absolute(&root)?, run_dir: absolute(&run_dir)? };
    // Root may work on another user's images. Records and what belongs to them are of this user or root.
    require_private(&scope.root, !root_user)?;
    require_private(&scope.run_dir, true)?;
    Ok(scope)
}

/// What the tools make in these directories. A record of somebody else's is not believed; these are found by their names.
const MADE: [&str; 15] = [
    "build",
    "cache",
    "containers",
    "egress",
    "images",
    "layers",
    "leases",
    "locks",
    "mount-points",
    "networks",
    "peers",
    "shared",
    "sysctl",
    "views",
    "volumes",
];

/// Refuses a directory in which others may replace files: what is in it decides what the tools do. With the sticky bit, as on
/// a fresh tmpfs, others may only add files; then what the tools make there must be this user's or root's.
fn require_private(directory: &Path, owner_counts: bool) -> anyhow::Result<()> {
    let Some(why) = shared_with(directory, true).filter(|why| why.is_open || owner_counts) else {
        return Ok(());
    };
    let mode = std::fs::metadata(directory).map_or(0, |found| found.mode());
    if why.is_open && mode & 0o1000 != 0 {
        let below = MADE.iter().map(|name| directory.join(name));
        return match below.filter_map(|path| Some((shared_with(&path, false)?, path))).next() {
            Some((why, path)) => Err(why.refuse(&path)),
            None => Ok(()),
        };
    }
    Err(why.refuse(directory))
}

/// Why others may write to a directory.
struct SharedWith {
    /// Whether its mode lets them. Otherwise it belongs to one of them.
    is_open: bool,
    words: String,
}

impl SharedWith {
    fn refuse(&self, directory: &Path) -> anyhow::Error {
        let error = anyhow::anyhow!("use {directory:?}: {}", self.words);
        let mend = if self.is_open { "chmod -R go-w" } else { "chown" };
        let what = directory.display();
        crate::hint(
            error,
            format!("check who has written there, then fix it ({mend} … {what}), or choose another place"),
        )
    }
}

/// Whether others than this user and root may write to a directory. None if they may not, or it does not exist.
/// `through_links`: the user may name a link.
fn shared_with(directory: &Path, through_links: bool) -> Option<SharedWith> {
    let found = match through_links {
        true => std::fs::metadata(directory).ok()?,
        false => std::fs::symlink_metadata(directory).ok()?,
    };
    let (own, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    // In a user namespace, root of the machine looks like this.
    let is_unmapped = found.uid() == 65534 && !userns::is_system_root();
    if ![0, own].contains(&found.uid()) && !is_unmapped {
        return Some(SharedWith { is_open: false, words: format!("it belongs to user {}", found.uid()) });
    }
    let by_group = found.mode() & 0o020 != 0 && ![0, group].contains(&found.gid());
    let is_open = found.is_dir() && (by_group || found.mode() & 0o002 != 0);
    let words = format!("others may write to it (mode {:04o})", found.mode() & 0o7777);
    is_open.then_some(SharedWith { is_open, words })
}

impl Common {
    /// The directories `--root` and `--run-dir`, as absolute paths. See [`scope`].
    ///
    /// # Errors
    /// When the current directory is needed but not known.
    pub fn scope(&self) -> anyhow::Result<Scope> {
        scope(self.root.clone(), self.run_dir.clone())
    }

    /// The context for work on the container `id`.
    ///
    /// # Errors
    /// As [`Common::scope`].
    pub fn context(&self, id: Option<&Id>) -> anyhow::Result<Context> {
        Ok(self.context_in(self.scope()?, id))
    }

    /// As [`Common::context`], for a caller that has the directories already.
    pub fn context_in(&self, scope: Scope, id: Option<&Id>) -> Context {
        Context {
            scope,
            id: id.or(self.id.as_ref()).map(Id::to_string).unwrap_or_default(),
            quiet: self.quiet,
            verbose: self.verbose,
            planned: false,
        }
    }

    /// Whether the user asks for something that does not need the tool's own arguments, such as `--undo`.
    fn is_aside(&self) -> bool {
        self.undo || self.check || self.repair || self.schema || self.generate.is_some()
    }
}

/// The caller's user id on the machine, outside a user namespace that makes the caller root.
fn user() -> u32 {
    let user = nix::unistd::geteuid().as_raw();
    let namespace = userns::Namespace::current().ok().flatten();
    namespace.and_then(|namespace| namespace.user_outside(user)).unwrap_or(user)
}

/// An absolute path without `.` and `..`. Symbolic links are resolved in the part of the path that exists.
/// Paths in documents are compared later, so each path needs a single spelling.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let absolute = std::path::absolute(path).with_context(|| format!("resolve {path:?}"))?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(found) = existing.canonicalize() {
            return Ok(missing.iter().rev().fold(found, |path, name| path.join(name)));
        }
        match (existing.parent(), existing.file_name()) {
            (Some(parent), Some(name)) => {
                missing.push(name.to_owned());
                existing = parent;
            }
            _ => return Ok(absolute),
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Asked<T> {
    /// The tool's job.
    Job(T),
    /// Something else: undo, check, repair, the schema, the manual page or completions.
    Aside(Common),
    /// Wrong usage. clap reports `--help` and `--version` in the same way.
    Usage(clap::Error),
}

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation<T> {
    /// The tool's name, which is also the name of its command.
    pub(crate) tool: String,
    /// The tool's version, for its steps.
    pub(crate) version: String,
    /// The words of the command line. The first is the command.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) asked: Asked<T>,
}

impl<T: clap::Parser> Invocation<T> {
    /// Parses the command line of this process, a filter.
    pub fn parse() -> Self {
        Self::parse_as(Kind::Filter)
    }

    /// Parses the command line of this process, a tool of this kind.
    pub(crate) fn parse_as(kind: Kind) -> Self {
        let _ = operation::interrupt::settle_signals();
        Self::of(kind, std::env::args_os(), &defaults::files())
    }

    /// Parses a command line. The tool's own arguments are required only if the command line asks for the
    /// tool's job.
    fn of(kind: Kind, arguments: impl IntoIterator<Item = OsString>, defaults: &[PathBuf]) -> Self {
        // Built only once, because it takes a good part of a tool's start.
        // Of a flag with a value that is given twice the last one counts, as in Docker: aliases have defaults.
        let mut command = kind.command::<T>().args_override_self(true);
        let tool = command.get_name().to_owned();
        let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION")).to_owned();
        let typed: Vec<OsString> = arguments.into_iter().collect();
        let Settled { words: arguments, off } = switches::settled(&command, &typed);
        let asked = match aside(&command, &arguments) {
            Some(common) => Asked::Aside(common),
            None => match with_defaults(kind, &mut command, &arguments, &off, defaults) {
                Ok(tool) => Asked::Job(tool),
                Err(error) => Asked::Usage(error),
            },
        };
        Self { tool, version, arguments, asked }
    }

    /// The tool's arguments, if the command line asks for the tool's job.
    pub fn job(&self) -> Option<&T> {
        match &self.asked {
            Asked::Job(tool) => Some(tool),
            _ => None,
        }
    }
}

/// The common arguments, if the command line asks for something other than the tool's job.
fn aside(command: &Command, arguments: &[OsString]) -> Option<Common> {
    let mut words = arguments.iter().filter_map(|argument| argument.to_str());
    let asides = ["--undo", "--check", "--repair", "--schema", "--generate"];
    if !words.any(|word| asides.iter().any(|aside| word.starts_with(aside))) {
        return None;
    }
    let lenient = command.clone().mut_args(|argument: Arg| argument.required(false));
    let groups: Vec<_> = lenient.get_groups().map(|group| group.get_id().clone()).collect();
    let lenient = groups
        .into_iter()
        .fold(lenient, |lenient, group| lenient.mut_group(group, |group: ArgGroup| group.required(false)));
    let matches = lenient.try_get_matches_from(arguments).ok()?;
    Common::from_arg_matches(&matches).ok().filter(Common::is_aside)
}

/// Parses the tool's job, with the defaults of these files. `off` are the switches that the command line has switched off.
fn with_defaults<T: clap::Parser>(
    kind: Kind,
    command: &mut Command,
    arguments: &[OsString],
    off: &[String],
    files: &[PathBuf],
) -> Result<T, clap::Error> {
    let with = match defaults::added(command, arguments.to_vec(), off, files) {
        Ok(with) => with,
        Err(error) => {
            let is_of_system = error.chain().any(|cause| cause.is::<std::io::Error>());
            let kind = if is_of_system { ErrorKind::Io } else { ErrorKind::InvalidValue };
            let mut usage = command.error(kind, crate::report_line(&error));
            if let Some(hint) = failure::hint_of(&error) {
                usage.insert(ContextKind::Custom, ContextValue::String(hint.into_owned()));
            }
            return Err(usage);
        }
    };
    if with.len() == arguments.len() {
        return strict(kind, command, arguments);
    }
    strict(kind, command, &with).map_err(|mut error| {
        // The words of the command line alone are right, so a default is wrong.
        if error.use_stderr() && strict::<T>(kind, command, arguments).is_ok() {
            let words =
                "a default is wrong: look into /etc/stave.toml and ~/.config/stave.toml, or use --no-config";
            error.insert(ContextKind::Custom, ContextValue::String(words.to_owned()));
        }
        error
    })
}

/// Parses the tool's own arguments beside `--undo` and the like. None where they are not complete.
pub(crate) fn beside<T: clap::Parser>(kind: Kind, arguments: &[OsString]) -> Option<T> {
    strict(kind, &mut kind.command::<T>().args_override_self(true), arguments).ok()
}

fn strict<T: clap::Parser>(
    kind: Kind,
    command: &mut Command,
    arguments: &[OsString],
) -> Result<T, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments)?;
    let mut matches = naming::with_ids(command, matches, arguments)?;
    let is_given = |flag: &&&str| matches.value_source(flag) == Some(ValueSource::CommandLine);
    if let Some(flag) = kind.rejected().iter().find(is_given) {
        let (tool, flag) = (command.get_name().to_owned(), flag.replace('_', "-"));
        let words = format!("use --{flag}: {tool} does nothing with it");
        return Err(command.error(ErrorKind::ArgumentConflict, words));
    }
    if let Ok(Some(true)) = matches.try_get_one::<bool>("quiet") {
        operation::show_no_status();
    }
    T::from_arg_matches_mut(&mut matches).map_err(|error| error.format(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    #[command(name = "portmap", version)]
    struct Tool {
        #[arg(short, required = true)]
        publish: Vec<String>,
        #[command(flatten)]
        #[allow(dead_code)]
        common: Common,
    }

    fn asked(line: &str) -> Asked<Tool> {
        asked_of(Kind::Filter, line)
    }

    fn asked_of(kind: Kind, line: &str) -> Asked<Tool> {
        Invocation::of(kind, line.split(' ').map(OsString::from), &[]).asked
    }

    #[test]
    fn a_tool_shows_and_takes_only_what_it_carries_out() {
        let all = ["--id", "--null-input", "--undo", "--steps", "--check", "--repair", "--dry-run"];
        for (kind, shown) in [
            (Kind::Filter, &all[..]),
            (Kind::Source, &["--id", "--undo", "--steps", "--dry-run"]),
            (Kind::Export, &["--id", "--dry-run"]),
            (Kind::Report, &["--dry-run"]),
            (Kind::Walker, &["--dry-run"]),
        ] {
            let Asked::Usage(help) = asked_of(kind, "portmap --help") else { panic!("{kind:?}") };
            let help = help.to_string();
            let has = |flag: &&str| {
                help.lines().any(|line| line.trim_start().trim_start_matches("-n, ").starts_with(*flag))
            };
            assert_eq!(all.into_iter().filter(has).collect::<Vec<_>>(), shown, "{kind:?}: {help}");
            let passes_on = matches!(kind, Kind::Filter | Kind::Export);
            assert_eq!(help.contains("pass it on to later tools"), passes_on, "{kind:?}: {help}");
        }
        for (flag, name) in [("-n", "null-input"), ("--id web", "id")] {
            let line = format!("portmap -p 1:2 {flag}");
            assert!(matches!(asked(&line), Asked::Job(_)));
            let Asked::Usage(error) = asked_of(Kind::Report, &line) else { panic!("{line}") };
            let expected = format!("error: use --{name}: portmap does nothing with it\n");
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn own_arguments_are_needed_only_for_the_job() {
        assert!(matches!(asked("portmap -p 1:2"), Asked::Job(tool) if tool.publish == ["1:2"]));
        assert!(matches!(asked("portmap"), Asked::Usage(_)));
        assert!(matches!(asked("portmap --undo"), Asked::Aside(common) if common.undo));
        assert!(matches!(asked("portmap --schema"), Asked::Aside(common) if common.schema));
        assert!(matches!(asked("portmap --undo --steps 3"), Asked::Aside(common) if common.steps == 3));
        assert!(matches!(asked("portmap -p 1:2 --steps 3"), Asked::Usage(_)));
        assert!(matches!(asked("portmap --undo --check"), Asked::Usage(_)));
        assert!(matches!(asked("portmap --help"), Asked::Usage(_)));
    }

    #[test]
    fn directories_are_spelled_in_one_way() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
        let spelled = absolute(&dir.path().join("link/./missing/below")).unwrap();
        assert_eq!(spelled, dir.path().canonicalize().unwrap().join("missing/below"));
    }
}
