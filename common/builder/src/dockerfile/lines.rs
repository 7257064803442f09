//! Splits a Dockerfile into the texts of its instructions. Reads directives, removes comments, joins
//! continued lines and takes out here-documents.

use super::{Error, expand::Expander, instruction::HereDocument, words};

/// The text of one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) text: String,
    /// The comments right before the instruction, without `#`.
    pub(super) comments: Vec<String>,
    pub(super) documents: Vec<HereDocument>,
}

/// A whole Dockerfile.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) syntax: Option<String>,
    /// The value of `# check=`.
    pub(super) check: Option<String>,
    pub(super) lines: Vec<Line>,
    /// The last lines of instructions that contain an empty line, without here-documents. Docker warns about them.
    pub(super) empty_continuations: Vec<usize>,
}

/// Reads parser directives (reference, "Parser directives"): comments of the form `# name=value` at the top
/// of the file.
struct Directives {
    done: bool,
    seen: Vec<&'static str>,
    escape: char,
    syntax: Option<String>,
    check: Option<String>,
}

impl Directives {
    /// Reads one line, without leading white space. Returns whether it is a directive.
    fn read(&mut self, line: &str) -> Result<bool, String> {
        if self.done {
            return Ok(false);
        }
        self.done = true;
        let Some((name, value)) = line.strip_prefix('#').and_then(|rest| rest.split_once('=')) else {
            return Ok(false);
        };
        let value = value.trim();
        let known =
            ["escape", "syntax", "check"].into_iter().find(|known| known.eq_ignore_ascii_case(name.trim()));
        let Some(name) = known.filter(|_| !value.is_empty()) else { return Ok(false) };
        self.done = false;
        if self.seen.contains(&name) {
            return Err(format!("only one {name} parser directive can be used"));
        }
        self.seen.push(name);
        match (name, value) {
            ("escape", "\\" | "`") => self.escape = if value == "`" { '`' } else { '\\' },
            ("escape", _) => return Err(format!("invalid escape token '{value}' does not match ` or \\")),
            ("syntax", _) => self.syntax = Some(value.to_owned()),
            _ => self.check = Some(value.split(' ').next().unwrap_or_default().to_owned()),
        }
        Ok(true)
    }
}

/// The line without its continuation mark, and whether it had one. The mark is an escape character that does
/// not follow another escape character. Only spaces and tabs may come after it.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// Splits a Dockerfile into instructions.
pub(super) fn split(file: &str) -> Result<Lines, Error> {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file);
    let mut source = file.split_inclusive('\n').enumerate().map(|(at, line)| (at + 1, line));
    let mut directives =
        Directives { done: false, seen: Vec::new(), escape: '\\', syntax: None, check: None };
    let mut comments = Vec::new();
    let mut lines = Vec::new();
    let mut empty_continuations = Vec::new();
    while let Some((first, line)) = source.next() {
        let line = without_end(line).trim_start();
        if directives.read(line).map_err(|message| Error::new(first, message))? {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        if line.is_empty() {
            comments.clear();
        }
        let (start, mut more) = continued(line, directives.escape);
        let mut text = start.to_owned();
        let mut empty = false;
        let mut last = first;
        while more {
            let Some((number, line)) = source.next() else { break };
            last = number;
            let line = without_end(line);
            if is_comment(line) {
                continue;
            }
            if line.trim().is_empty() {
                empty = true;
                continue;
            }
            let (part, goes_on) = continued(line, directives.escape);
            text.push_str(part);
            more = goes_on;
        }
        if text.trim().is_empty() {
            continue;
        }
        if empty {
            empty_continuations.push(last);
        }
        let documents = documents(&mut last, first, &text, directives.escape, &mut source)?;
        let comments = std::mem::take(&mut comments);
        lines.push(Line { first, last, text: text.trim().to_owned(), comments, documents });
    }
    let Directives { escape, syntax, check, .. } = directives;
    Ok(Lines { escape, syntax, check, lines, empty_continuations })
}

/// Takes the here-documents that `text` announces out of the following lines.
fn documents<'a>(
    last: &mut usize,
    first: usize,
    text: &str,
    escape: char,
    source: &mut impl Iterator<Item = (usize, &'a str)>,
) -> Result<Vec<HereDocument>, Error> {
    if !text.contains("<<") || !takes_documents(text, escape) {
        return Ok(Vec::new());
    }
    let unset = |_: &str| None;
    let expander =
        Expander { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Expander::new('\\', &unset) };
    // Text that is not a list of words has no here-documents: a shell script with an apostrophe, for example.
    let words = expander.words(text).unwrap_or_default();
    let mut documents = Vec::new();
    for mut document in words.iter().filter_map(|word| announced(word)) {
        loop {
            let Some((number, line)) = source.next() else {
                return Err(Error::new(first, "unterminated heredoc"));
            };
            *last = number;
            let end = without_end(line);
            let end = if document.strip_tabs { end.trim_start_matches('\t') } else { end };
            if end == document.name {
                break;
            }
            document.content.push_str(line);
        }
        documents.push(document);
    }
    Ok(documents)
}

/// Whether here-documents may follow the instruction: RUN, COPY or ADD, also in ONBUILD, but not in exec
/// form.
fn takes_documents(text: &str, escape: char) -> bool {
    let (name, _, rest) = words::split_instruction(text, escape);
    match name.to_ascii_uppercase().as_str() {
        "ONBUILD" => {
            let (name, _, rest) = words::split_instruction(rest.trim(), escape);
            matches!(name.to_ascii_uppercase().as_str(), "RUN" | "COPY" | "ADD") && !words::is_json(rest)
        }
        "RUN" | "COPY" | "ADD" => !words::is_json(rest),
        _ => false,
    }
}

/// The here-document that a word announces: `<<EOF`, `3<<-"EOF"`.
pub(super) fn announced(word: &str) -> Option<HereDocument> {
    let (descriptor, rest) = word.split_once("<<")?;
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) || rest.contains('<') {
        return None;
    }
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    let unset = |_: &str| None;
    let expander = Expander { skip_unset: true, ..Expander::new('\\', &unset) };
    let name = match expander.words(rest).ok()?.as_slice() {
        [name] => name.clone(),
        _ => return None,
    };
    // If a part of the word is quoted, variables in the document are not expanded, as in a shell.
    let raw = Expander { raw_quotes: true, ..expander }.words(rest).ok()?.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&raw);
    Some(HereDocument { name, content: String::new(), expand, strip_tabs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<(usize, String)> {
        split(file).unwrap().lines.into_iter().map(|line| (line.first, line.text)).collect()
    }

    #[test]
    fn lines_are_joined() {
        for (file, expected) in [
            ("FROM a\n\n  RUN b  \n", vec![(1, "FROM a"), (3, "RUN b")]),
            ("RUN a \\\n  b \\  \n c", vec![(1, "RUN a   b  c")]),
            ("RUN a \\\n# comment\n  # another\n\n b\nRUN c", vec![(1, "RUN a  b"), (6, "RUN c")]),
            ("RUN a \\\\\nRUN b", vec![(1, "RUN a \\\\"), (2, "RUN b")]),
            ("RUN a\\\r\nb\r\n", vec![(1, "RUN ab")]),
            ("RUN a \\", vec![(1, "RUN a")]),
            ("RUN a \\\n\\\n b", vec![(1, "RUN a  b")]),
            ("\u{feff}FROM a", vec![(1, "FROM a")]),
            ("RUN a # no comment", vec![(1, "RUN a # no comment")]),
            ("# escape=`\nRUN a `\n b\\\nRUN c", vec![(2, "RUN a  b\\"), (4, "RUN c")]),
            ("# Escape = `\nRUN a `\n b", vec![(2, "RUN a  b")]),
            ("# comment\n# escape=`\nRUN a `\nRUN b", vec![(3, "RUN a `"), (4, "RUN b")]),
            ("\n# escape=`\nRUN a `\nRUN b", vec![(3, "RUN a `"), (4, "RUN b")]),
            ("#syntax=x\n# check=skip=all\n# escape=`\nRUN a `\n b", vec![(4, "RUN a  b")]),
            ("\\\n", vec![]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
            assert_eq!(texts(file), expected, "{file:?}");
        }
        assert_eq!(
            split("# syntax=docker/dockerfile:1\nFROM a").unwrap().syntax.as_deref(),
            Some("docker/dockerfile:1")
        );
        assert_eq!(split("RUN a \\\n\n b").unwrap().empty_continuations, [3]);
    }

    #[test]
    fn wrong_directives() {
        for (file, error) in [
            ("# escape=x\nFROM a", "1: invalid escape token 'x' does not match ` or \\"),
            ("# escape=`\n# escape=`\nFROM a", "2: only one escape parser directive can be used"),
        ] {
            assert_eq!(split(file).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn here_documents() {
        type Expected<'a> = Vec<(&'a str, &'a str, bool, bool)>;
        let cases: Vec<(&str, Expected)> = vec![
            ("RUN <<EOF\nEOF\n", vec![("EOF", "", true, false)]),
            ("RUN 3<<EOF\na\n# b\n\nEOF\n", vec![("EOF", "a\n# b\n\n", true, false)]),
            ("RUN \"<<EOF\"\n", vec![]),
            ("RUN <<-EOF\n\ta\n\tEOF\n", vec![("EOF", "\ta\n", true, true)]),
            ("RUN <<-'EOF'\n\t$a\n\tEOF\n", vec![("EOF", "\t$a\n", false, true)]),
            ("COPY <<a <<b /dest\n1\na\n2\nb\n", vec![("a", "1\n", true, false), ("b", "2\n", true, false)]),
            ("COPY <<X <<Y /dest\nY\nX\nX\nY\n", vec![("X", "Y\n", true, false), ("Y", "X\n", true, false)]),
            ("RUN <<eo'f'\necho\neof\n", vec![("eof", "echo\n", false, false)]),
            ("RUN <<eo\\'f\necho\neo'f\n", vec![("eo'f", "echo\n", true, false)]),
            ("RUN <<'one two'\nbar\none two\n", vec![("one two", "bar\n", false, false)]),
            ("RUN <<$EOF\n$EOF\n", vec![("$EOF", "", true, false)]),
            ("RUN <<  EOF  > foo\nEOF\n", vec![("EOF", "", true, false)]),
            ("ONBUILD RUN <<EOF\na\nEOF\n", vec![("EOF", "a\n", true, false)]),
            ("USER <<EOF\n", vec![]),
            ("RUN [\"<<EOF\"]\n", vec![]),
            ("RUN cat <<<EOF\n", vec![]),
            ("RUN --mount=type=cache,target=/a <<EOF\na\r\nEOF", vec![("EOF", "a\r\n", true, false)]),
        ];
        for (file, expected) in cases {
            let lines = split(file).unwrap();
            let found: Expected = lines.lines[0]
                .documents
                .iter()
                .map(|d| (&*d.name, &*d.content, d.expand, d.strip_tabs))
                .collect();
            assert_eq!(found, expected, "{file:?}");
            assert_eq!(lines.lines.len(), 1, "{file:?}");
        }
        assert_eq!(split("FROM a\nRUN <<EOF\na\n").unwrap_err().to_string(), "2: unterminated heredoc");
    }
}
