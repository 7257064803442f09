//! Parses the text of an instruction to a value.

use operation::quantity;

use super::{
    flags::Flags,
    instruction::{
        Argument, CommandLine, Copy, Healthcheck, Instruction, Pair, Run, RunNetwork, Stage, Statement,
    },
    lines::{self, Line},
    mount,
    suggest::suggest,
    words,
    words::Json,
};

pub(super) enum Parsed {
    Stage(Stage),
    Statement(Statement),
}

/// The name, flags, text and here-documents of an instruction.
struct Parts<'a> {
    name: String,
    flags: Flags,
    rest: &'a str,
    line: &'a Line,
    escape: char,
}

/// The instructions of a Dockerfile.
const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";

/// Parses an instruction. Errors use Docker's words, and do not name the line.
pub(super) fn parse(line: &Line, escape: char) -> Result<Parsed, String> {
    let (name, flags, rest) = words::split_instruction(&line.text, escape);
    let parts = Parts { name: name.to_ascii_uppercase(), flags: Flags::new(flags), rest, line, escape };
    if parts.name == "FROM" {
        return from(parts, name).map(Parsed::Stage);
    }
    let instruction = instruction(parts, name)?;
    let (keyword, comments) = (name.to_owned(), line.comments.clone());
    Ok(Parsed::Statement(Statement {
        line: line.first,
        text: line.text.clone(),
        keyword,
        comments,
        instruction,
    }))
}

fn instruction(mut parts: Parts, written: &str) -> Result<Instruction, String> {
    let instruction = match parts.name.as_str() {
        "ADD" => Instruction::Add(copy(&mut parts)?),
        "ARG" => Instruction::Arg(arguments(&parts)?),
        "CMD" => Instruction::Cmd(command(parts.rest)?),
        "COPY" => Instruction::Copy(copy(&mut parts)?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(parts.rest)?),
        "ENV" => Instruction::Env(pairs(&parts)?),
        "EXPOSE" => Instruction::Expose(expose(&parts)?),
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(&mut parts)?),
        "LABEL" => Instruction::Label(pairs(&parts)?),
        "MAINTAINER" => Instruction::Maintainer(one(&parts)?),
        "ONBUILD" => Instruction::Onbuild(onbuild(&mut parts)?),
        "RUN" => Instruction::Run(run(&mut parts)?),
        "SHELL" => Instruction::Shell(shell(&parts)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(&parts)?),
        "USER" => Instruction::User(one(&parts)?),
        "VOLUME" => Instruction::Volume(volume(&parts)?),
        "WORKDIR" => Instruction::Workdir(one(&parts)?),
        _ => return Err(format!("unknown instruction: {written}{}", suggest(written, &INSTRUCTIONS))),
    };
    parts.flags.finish()?;
    Ok(instruction)
}

fn at_least_one(name: &str) -> String {
    format!("{name} requires at least one argument")
}

/// Splits text at white space. Quotes are ordinary characters.
fn plain_words(text: &str) -> Vec<String> {
    text.split([' ', '\t', '\u{b}', '\u{c}', '\r'])
        .filter(|word| !word.is_empty())
        .map(String::from)
        .collect()
}

/// Reads a JSON array of strings, or else plain words.
fn list(text: &str) -> Result<Vec<String>, String> {
    match words::json(text) {
        Json::Strings(list) => Ok(list),
        Json::Mixed => Err(NOT_STRINGS.to_owned()),
        Json::None => Ok(plain_words(text)),
    }
}

fn command(text: &str) -> Result<CommandLine, String> {
    match words::json(text) {
        Json::Strings(list) => Ok(CommandLine::Exec(list)),
        Json::Mixed => Err(NOT_STRINGS.to_owned()),
        Json::None => Ok(CommandLine::Shell(text.to_owned())),
    }
}

/// Reads the whole rest as one argument.
fn one(parts: &Parts) -> Result<String, String> {
    if parts.rest.is_empty() {
        return Err(format!("{} requires exactly one argument", parts.name));
    }
    Ok(parts.rest.to_owned())
}

fn from(mut parts: Parts, keyword: &str) -> Result<Stage, String> {
    let words = plain_words(parts.rest);
    let (base, name) = match words.as_slice() {
        [base] => (base.clone(), None),
        [base, as_, name] if as_.eq_ignore_ascii_case("as") => {
            let lower = name.to_lowercase();
            let valid = lower.starts_with(|c: char| c.is_ascii_lowercase())
                && lower.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
            if !valid {
                return Err(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                ));
            }
            (base.clone(), Some(lower))
        }
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    let platform = parts.flags.string("--platform")?;
    parts.flags.finish()?;
    let line = parts.line;
    Ok(Stage {
        line: line.first,
        text: line.text.clone(),
        keyword: keyword.to_owned(),
        comments: line.comments.clone(),
        as_keyword: words.get(1).cloned(),
        written_name: words.get(2).cloned(),
        base,
        name,
        platform,
        statements: Vec::new(),
    })
}

fn pairs(parts: &Parts) -> Result<Vec<Pair>, String> {
    let words = words::quoted_words(parts.rest, parts.escape);
    let Some(first) = words.first() else { return Err(at_least_one(&parts.name)) };
    let pairs: Vec<_> = if first.contains('=') {
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) => Ok(Pair { name: name.to_owned(), value: value.to_owned(), legacy: false }),
            None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
        };
        words.iter().map(pair).collect::<Result<_, _>>()?
    } else {
        // The old form, `ENV name value with spaces`.
        let (name, value) = parts
            .rest
            .split_once([' ', '\t', '\u{b}', '\u{c}', '\r'])
            .ok_or_else(|| format!("{} must have two arguments", parts.name))?;
        vec![Pair { name: name.to_owned(), value: value.trim_start().to_owned(), legacy: true }]
    };
    if pairs.iter().any(|pair| pair.name.is_empty()) {
        return Err(format!("{} names can not be blank", parts.name));
    }
    Ok(pairs)
}

fn arguments(parts: &Parts) -> Result<Vec<Argument>, String> {
    let words = words::quoted_words(parts.rest, parts.escape);
    if words.is_empty() {
        return Err(at_least_one("ARG"));
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err("ARG names can not be blank".to_owned()),
            Some((name, default)) => {
                Ok(Argument { name: name.to_owned(), default: Some(default.to_owned()) })
            }
            None => Ok(Argument { name: word.clone(), default: None }),
        })
        .collect()
}

fn copy(parts: &mut Parts) -> Result<Copy, String> {
    let add = parts.name == "ADD";
    let mut words = list(parts.rest)?;
    let Some(destination) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(format!(
            "{} requires at least two arguments, but only one was provided. Destination could not be determined",
            parts.name
        ));
    };
    if lines::announced(&destination).is_some() {
        return Err(format!("{} cannot accept a heredoc as a destination", parts.name));
    }
    let flags = &mut parts.flags;
    let mut copy = Copy {
        destination,
        chown: flags.string("--chown")?,
        chmod: flags.string("--chmod")?,
        link: flags.boolean("--link")?.unwrap_or(false),
        exclude: flags.strings("--exclude")?,
        ..Copy::default()
    };
    if add {
        copy.unpack = flags.boolean("--unpack")?;
        copy.checksum = flags.string("--checksum")?;
        copy.keep_git_dir = flags.boolean("--keep-git-dir")?;
    } else {
        copy.from = flags.string("--from")?;
        copy.parents = flags.boolean("--parents")?.unwrap_or(false);
        if copy.from.as_ref().is_some_and(|from| from.contains('$')) {
            return Err("variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround".to_owned());
        }
    }
    for word in words {
        match lines::announced(&word) {
            Some(announced) => {
                let found = parts.line.documents.iter().find(|document| document.name == announced.name);
                copy.documents.push(found.cloned().unwrap_or(announced));
            }
            None => copy.sources.push(word),
        }
    }
    Ok(copy)
}

fn run(parts: &mut Parts) -> Result<Run, String> {
    let mounts = parts.flags.strings("--mount")?;
    for text in &mounts {
        mount::check(text)?;
    }
    let network = match parts.flags.string("--network")?.as_deref() {
        None | Some("default") => RunNetwork::Default,
        Some("none") => RunNetwork::None,
        Some("host") => RunNetwork::Host,
        Some(other) => {
            let near = suggest(other, &["default", "none", "host"]);
            return Err(format!("unsupported network mode {other:?}{near}"));
        }
    };
    match parts.flags.string("--security")?.as_deref() {
        None | Some("sandbox") => {}
        Some("insecure") => return Err("security mode \"insecure\" is not allowed".to_owned()),
        Some(other) => return Err(format!("security {other:?} is not valid")),
    }
    let command = command(parts.rest)?;
    if matches!(&command, CommandLine::Exec(words) if words.is_empty()) {
        return Err("RUN has no command: [] is empty".to_owned());
    }
    Ok(Run { command, documents: parts.line.documents.clone(), mounts, network })
}

fn expose(parts: &Parts) -> Result<Vec<String>, String> {
    let mut ports = plain_words(parts.rest);
    if ports.is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    ports.sort();
    Ok(ports)
}

fn volume(parts: &Parts) -> Result<Vec<String>, String> {
    let volumes = list(parts.rest)?;
    if volumes.is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    if volumes.iter().any(|volume| volume.trim().is_empty()) {
        return Err("VOLUME specified can not be an empty string".to_owned());
    }
    Ok(volumes.iter().map(|volume| volume.trim().to_owned()).collect())
}

fn shell(parts: &Parts) -> Result<Vec<String>, String> {
    match words::json(parts.rest) {
        Json::Strings(list) if !list.is_empty() => Ok(list),
        Json::Strings(_) => Err(at_least_one("SHELL")),
        Json::Mixed => Err(NOT_STRINGS.to_owned()),
        Json::None if parts.rest.is_empty() => Err(at_least_one("SHELL")),
        Json::None => Err(format!("SHELL requires the arguments to be in JSON form: {}", parts.line.text)),
    }
}

fn onbuild(parts: &mut Parts) -> Result<String, String> {
    if parts.rest.is_empty() {
        return Err(at_least_one("ONBUILD"));
    }
    let (name, ..) = words::split_instruction(parts.rest, parts.escape);
    match name.to_ascii_uppercase().as_str() {
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()),
        name @ ("MAINTAINER" | "FROM") => return Err(format!("{name} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    // The instruction is checked here already, and not only where it is triggered.
    let line = Line { text: parts.rest.to_owned(), ..parts.line.clone() };
    parse(&line, parts.escape)?;
    let mut text = parts.rest.to_owned();
    for document in &parts.line.documents {
        text.push_str(&format!("\n{}{}", document.content, document.name));
    }
    Ok(text)
}

fn healthcheck(parts: &mut Parts) -> Result<Healthcheck, String> {
    let (kind, rest) = parts.rest.split_once(char::is_whitespace).unwrap_or((parts.rest, ""));
    let rest = rest.trim();
    let mut check = Healthcheck::default();
    match kind.to_ascii_uppercase().as_str() {
        "" => return Err(at_least_one("HEALTHCHECK")),
        "NONE" if rest.is_empty() => {
            // Flags say nothing about no check.
            parts.flags = Flags::new(Vec::new());
            check.test.push("NONE".to_owned());
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => match command(rest)? {
            CommandLine::Shell(text) if !text.is_empty() => check.test = vec!["CMD-SHELL".to_owned(), text],
            CommandLine::Exec(words) if !words.is_empty() => {
                check.test = std::iter::once("CMD".to_owned()).chain(words).collect();
            }
            _ => return Err("Missing command after HEALTHCHECK CMD".to_owned()),
        },
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    let flags = &mut parts.flags;
    let mut time = |name: &'static str| -> Result<i64, String> {
        let Some(text) = flags.string(name)?.filter(|text| !text.is_empty()) else { return Ok(0) };
        match quantity::duration(&text)?.as_nanos() {
            time @ 1..1_000_000 => Err(format!("Interval {name:?} cannot be less than 1ms: {time}ns")),
            time => i64::try_from(time).map_err(|error| error.to_string()),
        }
    };
    check.interval = time("--interval")?;
    check.timeout = time("--timeout")?;
    check.start_period = time("--start-period")?;
    check.start_interval = time("--start-interval")?;
    if let Some(text) = flags.string("--retries")?.filter(|text| !text.is_empty()) {
        check.retries =
            text.parse().map_err(|_| format!("--retries cannot be {text:?}: a number from 0 up"))?;
    }
    Ok(check)
}
