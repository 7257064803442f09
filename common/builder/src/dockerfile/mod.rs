//! The Dockerfile language, as the Dockerfile reference describes it.

pub mod expand;
mod flags;
mod grammar;
pub mod instruction;
mod lines;
pub mod mount;
mod pattern;
pub(crate) mod suggest;
mod words;

pub use instruction::{Instruction, Stage, Statement};

/// An error in a Dockerfile. It prints as `line: message`, so that the file's name can stand before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {message}")]
pub struct Error {
    /// The number of the line, from 1.
    pub line: usize,
    /// The problem.
    pub message: String,
}

/// The word of an instruction that a message is about, if the message names one.
pub(crate) fn word_of(message: &str) -> Option<&str> {
    if let Some((word, _)) = message.split_once(" isn't allowed as an ONBUILD trigger") {
        return Some(word);
    }
    const BEFORE: [&str; 17] = [
        "unknown instruction: ",
        "unknown flag: ",
        "missing a value on flag: ",
        "duplicate flag specified: ",
        "expecting boolean value for flag ",
        "unexpected key '",
        "invalid field '",
        "unsupported mount type \"",
        "unsupported sharing value \"",
        "unsupported network mode \"",
        "invalid name for build stage: \"",
        "can't find = in \"",
        "invalid chmod parameter: '",
        "Unknown type \"",
        "variable expansion is not supported for ",
        "Interval \"",
        "invalid escape token '",
    ];
    let rest = BEFORE.iter().find_map(|start| message.split_once(start).map(|(_, rest)| rest))?;
    let end = rest.find([' ', '\'', '"', ',', '=']).unwrap_or(rest.len());
    Some(&rest[..end])
}

impl Error {
    /// An error on a line.
    pub fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character: a backslash, or a backtick by a directive.
    pub escape: char,
    /// The value of `# syntax=`, which is ignored.
    pub syntax: Option<String>,
    /// The ARGs before the first FROM.
    pub arguments: Vec<Statement>,
    /// The stages. There is at least one.
    pub stages: Vec<Stage>,
    /// The value of `# check=`: which checks to skip or to treat as errors.
    pub check: Option<String>,
    /// The last lines of instructions that contain an empty line, without here-documents.
    pub empty_continuations: Vec<usize>,
}

impl Dockerfile {
    /// Parses an instruction and adds it to the others. `broken` are the numbers of the lines that are not UTF-8.
    fn take(&mut self, line: &lines::Line, broken: &[usize]) -> Result<(), String> {
        let parsed = grammar::parse(line, self.escape)?;
        if is_broken(line, broken) && !is_description(&parsed) {
            return Err("an instruction has bytes that are not UTF-8".to_owned());
        }
        match parsed {
            grammar::Parsed::Stage(stage) => self.stages.push(stage),
            grammar::Parsed::Statement(statement) => match self.stages.last_mut() {
                Some(stage) => stage.statements.push(statement),
                None if matches!(statement.instruction, Instruction::Arg(_)) => {
                    self.arguments.push(statement);
                }
                None => return Err("no build stage in current context".to_owned()),
            },
        }
        Ok(())
    }

    /// The name of a stage, or `stage-` and its number.
    pub(crate) fn name_of(&self, stage: usize) -> String {
        self.stages[stage].name.clone().unwrap_or_else(|| format!("stage-{stage}"))
    }
}

/// The largest number of instructions in a Dockerfile. Each is an entry in the image's history.
const INSTRUCTIONS: usize = 4000;

/// Parses a Dockerfile. Bytes that are not UTF-8 are read as U+FFFD; most of them are in comments, or in the names
/// of people. In an instruction that does more than describe the image they are an error, because they would be changed
/// silently.
///
/// # Errors
/// [`Error`] in Docker's words.
pub fn parse(file: &[u8]) -> Result<Dockerfile, Error> {
    match parse_some(file)? {
        (dockerfile, None) => Ok(dockerfile),
        (_, Some(error)) => Err(error),
    }
}

/// Parses the instructions up to the first that is wrong. Returns its error beside the others.
///
/// # Errors
/// [`Error`], if the lines cannot be told from each other.
pub(crate) fn parse_some(file: &[u8]) -> Result<(Dockerfile, Option<Error>), Error> {
    let text = String::from_utf8_lossy(file);
    let lines = lines::split(&text)?;
    let mut dockerfile = Dockerfile {
        escape: lines.escape,
        syntax: lines.syntax,
        arguments: Vec::new(),
        stages: Vec::<Stage>::new(),
        check: lines.check,
        empty_continuations: lines.empty_continuations,
    };
    if lines.lines.len() > INSTRUCTIONS {
        let message = format!("more than {INSTRUCTIONS} instructions");
        return Err(Error::new(lines.lines[INSTRUCTIONS].first, message));
    }
    let broken = broken(file);
    for line in lines.lines {
        if let Err(message) = dockerfile.take(&line, &broken) {
            return Ok((dockerfile, Some(Error::new(line.first, message))));
        }
    }
    let missing = match (&*dockerfile.stages, &*dockerfile.arguments) {
        ([], []) => Some(Error::new(1, "file with no instructions")),
        ([], [first, ..]) => Some(Error::new(first.line, "no build stage in current context")),
        _ => None,
    };
    Ok((dockerfile, missing))
}

/// The numbers of the lines that are not UTF-8.
fn broken(file: &[u8]) -> Vec<usize> {
    let lines = file.split(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| std::str::from_utf8(line).is_err()).map(|(at, _)| at + 1).collect()
}

/// Whether something was read as U+FFFD in an instruction or its here-documents.
fn is_broken(line: &lines::Line, broken: &[usize]) -> bool {
    let is_read = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
    broken.iter().any(|number| (line.first..=line.last).contains(number))
        && (is_read(&line.text) || line.documents.iter().any(|document| is_read(&document.content)))
}

/// Whether an instruction only describes the image. People's names are written there, in older encodings too.
fn is_description(parsed: &grammar::Parsed) -> bool {
    let grammar::Parsed::Statement(statement) = parsed else { return false };
    matches!(statement.instruction, Instruction::Maintainer(_) | Instruction::Label(_))
}

/// The last line of the instruction that begins on the line `first`, including continued lines and
/// here-documents.
pub fn last_line(file: &[u8], first: usize) -> usize {
    let text = String::from_utf8_lossy(file);
    let lines = lines::split(&text).map(|lines| lines.lines).unwrap_or_default();
    lines.iter().find(|line| line.first == first).map_or(first, |line| line.last)
}

/// Whether a command line only announces a here-document: `<<EOF`.
pub fn announces_document(text: &str) -> bool {
    lines::announced(text).is_some()
}

/// Parses a single instruction, in the form that ONBUILD stores in an image.
///
/// # Errors
/// [`Error`], also if the text is not exactly one instruction that ONBUILD allows.
pub fn parse_trigger(text: &str) -> Result<Statement, Error> {
    let lines = lines::split(text)?;
    let [line] = lines.lines.as_slice() else { return Err(Error::new(1, "not one instruction")) };
    match grammar::parse(line, lines.escape).map_err(|message| Error::new(1, message))? {
        grammar::Parsed::Statement(statement) => Ok(statement),
        grammar::Parsed::Stage(_) => Err(Error::new(1, "FROM isn't allowed as an ONBUILD trigger")),
    }
}

#[cfg(test)]
mod tests;
