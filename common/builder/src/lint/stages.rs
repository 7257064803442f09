//! The checks that go through a stage, instruction by instruction, with its variables. Only stages that are
//! built are checked.

use std::collections::BTreeMap;

use super::{Found, Surroundings, used, used_by};
use crate::{
    dockerfile::{
        Dockerfile, Instruction, Statement,
        expand::Expander,
        instruction::{Argument, CommandLine, Copy, Pair},
        suggest::suggest,
    },
    plan::Origin,
};

/// Arguments that are known without an ARG, and that never get into the environment (reference, "Predefined
/// ARGs").
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// Parts of names that suggest a secret, and parts that make such a name harmless.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// What is known about a stage after some of its instructions.
#[derive(Debug, Clone, Default)]
struct Known {
    variables: BTreeMap<String, String>,
    /// ARGs without a value. They are declared nevertheless.
    declared: Vec<String>,
    /// Whether all variables of the base are known.
    is_complete: bool,
    has_workdir: bool,
    has_shell: bool,
    /// The line of the last instruction, for instructions of which only the last counts.
    last: BTreeMap<&'static str, usize>,
}

/// How much of a value is looked at, in bytes. No path is longer. A Dockerfile may use a long value thousands of times.
const LOOKED_AT: usize = 4096;

impl Known {
    /// The value of a variable, or its beginning.
    fn short(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| beginning(value))
    }
}

/// As much of a value as is looked at.
fn beginning(value: &str) -> String {
    value[..value.floor_char_boundary(LOOKED_AT)].to_owned()
}

/// The checks of a Dockerfile's stages.
pub(super) struct Rules<'a> {
    file: &'a Dockerfile,
    around: &'a Surroundings<'a>,
    done: BTreeMap<usize, Known>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(file: &'a Dockerfile, around: &'a Surroundings<'a>) -> Self {
        Self { file, around, done: BTreeMap::new() }
    }

    pub(super) fn run(mut self, found: &mut Found<'_>) {
        for &at in &self.around.plan.stages {
            let mut known = self.base(at);
            if !self.around.plan.replaced[at] {
                for statement in &self.file.stages[at].statements {
                    found.with(&statement.comments);
                    self.statement(found, statement, &mut known);
                }
            }
            self.done.insert(at, known);
        }
    }

    fn base(&self, at: usize) -> Known {
        let is_path = |known: &mut Known| {
            known.variables.entry("PATH".to_owned()).or_default();
        };
        let mut known = match &self.around.plan.bases[at] {
            Origin::Stage(index) => {
                let base = self.done.get(index).cloned().unwrap_or_default();
                return Known { last: BTreeMap::new(), ..base };
            }
            Origin::Image(name, platform) => match (self.around.image)(name, platform.as_ref()) {
                None => Known::default(),
                Some(image) => Known {
                    variables: image
                        .config
                        .env
                        .iter()
                        .filter_map(|pair| pair.split_once('='))
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .collect(),
                    has_shell: image.config.shell.is_some_and(|shell| !shell.is_empty()),
                    is_complete: true,
                    ..Known::default()
                },
            },
            Origin::Scratch | Origin::Files(_) => Known { is_complete: true, ..Known::default() },
        };
        is_path(&mut known);
        known
    }

    fn statement(&self, found: &mut Found<'_>, statement: &Statement, known: &mut Known) {
        let line = statement.line;
        match &statement.instruction {
            Instruction::Arg(arguments) => self.arguments(found, line, arguments, known),
            Instruction::Env(pairs) => {
                self.pairs(found, line, pairs, known, &statement.keyword);
                for pair in pairs {
                    secret(found, line, "ENV", &pair.name);
                }
                // All values see the variables as they were before the instruction.
                let values: Vec<String> = pairs.iter().map(|pair| self.value(&pair.value, known)).collect();
                known.variables.extend(pairs.iter().map(|pair| pair.name.clone()).zip(values));
            }
            Instruction::Label(pairs) => self.pairs(found, line, pairs, known, &statement.keyword),
            Instruction::Workdir(path) => {
                self.words(found, line, [path], known);
                if !known.has_workdir {
                    self.relative(found, line, path, known);
                }
                known.has_workdir = true;
            }
            Instruction::Cmd(command) => self.command(found, statement, command, "CMD", known),
            Instruction::Entrypoint(command) => self.command(found, statement, command, "ENTRYPOINT", known),
            Instruction::Healthcheck(_) => once(found, statement, "HEALTHCHECK", known),
            Instruction::Shell(_) => known.has_shell = true,
            Instruction::Expose(ports) => self.expose(found, line, ports, known),
            Instruction::Copy(copy) | Instruction::Add(copy) => {
                let is_add = matches!(statement.instruction, Instruction::Add(_));
                self.copy(found, line, copy, is_add, known);
            }
            Instruction::User(word) | Instruction::StopSignal(word) => self.words(found, line, [word], known),
            Instruction::Volume(words) => self.words(found, line, words, known),
            Instruction::Run(_) | Instruction::Maintainer(_) | Instruction::Onbuild(_) => {}
        }
    }

    /// The value that a variable gets, or its beginning. The text, if it cannot be expanded: its own step says so.
    fn value(&self, text: &str, known: &Known) -> String {
        let lookup = |name: &str| known.short(name);
        let value = Expander::new(self.file.escape, &lookup).word(text);
        beginning(value.as_deref().unwrap_or(text))
    }

    /// Checks that the first WORKDIR is absolute, with its variables expanded.
    fn relative(&self, found: &mut Found<'_>, line: usize, path: &str, known: &Known) {
        let lookup = |name: &str| known.short(name);
        let (set, unset) = used(self.file.escape, path, &lookup);
        // The base may set a variable that is not known here.
        let is_known = known.is_complete || (set.is_empty() && unset.is_empty());
        let Ok(path) = Expander::new(self.file.escape, &lookup).word(path) else { return };
        if is_known && !path.starts_with('/') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            found.add(line, "WorkdirRelativePath", message);
        }
    }

    fn pairs(&self, found: &mut Found<'_>, line: usize, pairs: &[Pair], known: &Known, name: &str) {
        if pairs.iter().any(|pair| pair.legacy) {
            let message =
                format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
            found.add(line, "LegacyKeyValueFormat", message);
        }
        self.words(found, line, pairs.iter().flat_map(|pair| [&pair.name, &pair.value]), known);
    }

    fn arguments(&self, found: &mut Found<'_>, line: usize, arguments: &[Argument], known: &mut Known) {
        for argument in arguments {
            secret(found, line, "ARG", &argument.name);
            let given = self.around.global.given_value(&argument.name);
            let value = match (given, &argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    self.words(found, line, [default], known);
                    Some(self.value(default, known))
                }
                (None, None) => self.around.global.variable(&argument.name),
            };
            known.declared.push(argument.name.clone());
            if let Some(value) = value {
                known.variables.insert(argument.name.clone(), value);
            }
        }
    }

    fn command(
        &self,
        found: &mut Found<'_>,
        statement: &Statement,
        command: &CommandLine,
        name: &'static str,
        known: &mut Known,
    ) {
        if matches!(command, CommandLine::Shell(_)) && !known.has_shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                statement.keyword
            );
            found.add(statement.line, "JSONArgsRecommended", message);
        }
        once(found, statement, name, known);
    }

    fn expose(&self, found: &mut Found<'_>, line: usize, ports: &[String], known: &Known) {
        let lookup = |name: &str| known.short(name);
        let expander = Expander::new(self.file.escape, &lookup);
        for port in ports.iter().filter_map(|port| expander.words(port).ok()).flatten() {
            let (address, protocol) = port.split_once('/').unwrap_or((&port, ""));
            if protocol.chars().any(char::is_uppercase) {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                found.add(line, "ExposeProtoCasing", message);
            }
            if address.contains(':') {
                let message = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                );
                found.add(line, "ExposeInvalidFormat", message);
            }
        }
    }

    fn copy(&self, found: &mut Found<'_>, line: usize, copy: &Copy, is_add: bool, known: &Known) {
        let flags = [&copy.chown, &copy.chmod, &copy.checksum].into_iter().flatten();
        let words = copy.sources.iter().chain(&copy.exclude).chain([&copy.destination]).chain(flags);
        self.words(found, line, words, known);
        for document in copy.documents.iter().filter(|document| document.expand) {
            let lookup = |name: &str| known.short(name);
            let (_, unset) = used_by(&lookup, |lookup| {
                let raw = Expander { skip_quotes: true, ..Expander::new('\\', lookup) };
                raw.word(&document.text()).map(drop)
            });
            self.undefined(found, line, &unset, known);
        }
        let ignore = self.around.ignore;
        if copy.from.is_some() || ignore.is_empty() || ignore.has_exceptions() {
            return;
        }
        let lookup = |name: &str| known.short(name);
        let expander = Expander::new(self.file.escape, &lookup);
        for source in copy.sources.iter().filter_map(|source| expander.word(source).ok()) {
            if source.contains("://") {
                continue;
            }
            let clean = crate::copy::clean("", &source);
            let path = clean.to_string_lossy();
            let is_out = if path.is_empty() { ignore.takes_all() } else { ignore.ignores(&path) };
            if is_out {
                let (verb, shown) =
                    (if is_add { "Add" } else { "Copy" }, if path.is_empty() { "." } else { &path });
                let message =
                    format!("Attempting to {verb} file {shown:?} that is excluded by .dockerignore");
                found.add(line, "CopyIgnoredFile", message);
            }
        }
    }

    /// Checks that the variables in words are defined.
    fn words<'w>(
        &self,
        found: &mut Found<'_>,
        line: usize,
        words: impl IntoIterator<Item = &'w String>,
        known: &Known,
    ) {
        for word in words {
            let (_, unset) = used(self.file.escape, word, &|name| known.short(name));
            self.undefined(found, line, &unset, known);
        }
    }

    fn undefined(&self, found: &mut Found<'_>, line: usize, unset: &[String], known: &Known) {
        let is_defined = |name: &String| {
            !known.is_complete || known.declared.contains(name) || PREDEFINED.contains(&name.as_str())
        };
        for name in unset.iter().filter(|name| !is_defined(name)) {
            let names: Vec<&str> = known.variables.keys().map(String::as_str).collect();
            let near = suggest(name, &names).replace("mean ", "mean $");
            found.add(line, "UndefinedVar", format!("Usage of undefined variable '${name}'{near}"));
        }
    }
}

/// Checks that an instruction of which only the last counts appears once.
fn once(found: &mut Found<'_>, statement: &Statement, name: &'static str, known: &mut Known) {
    if let Some(earlier) = known.last.insert(name, statement.line) {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            statement.keyword
        );
        found.add(earlier, "MultipleInstructionsDisallowed", message);
    }
}

fn secret(found: &mut Found<'_>, line: usize, instruction: &str, name: &str) {
    let lower = name.to_lowercase();
    let has = |words: &[&str]| {
        // A whole word between underscores, or at either end.
        words.iter().any(|word| lower.split('_').any(|part| part == *word))
    };
    if has(&SECRET) && !has(&HARMLESS) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
        found.add(line, "SecretsUsedInArgOrEnv", message);
    }
}
