//! Expands variables in a Dockerfile: `$x`, `${x:-y}`, `${x#pattern}`, quotes and escapes (Dockerfile
//! reference, "Environment replacement").

use super::pattern::Pattern;
pub use super::pattern::PatternError;

/// The largest depth of nested substitutions: `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 64;

/// The largest size of a result, in bytes. A variable that contains itself twice doubles with each line.
pub(crate) const LONGEST: usize = 1 << 20;

/// Why a word could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote is not closed.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(&'static str),
    /// A `${` has no `}`.
    #[error("syntax error: missing {0:?} in substitution")]
    Missing(char),
    /// The substitution is malformed: `${}`, `${{x}`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${x:=y}` or another operator that Dockerfiles do not have.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${x:?message}`, and x is not set.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The words after the `?`, or a default.
        message: String,
    },
    /// A pattern is invalid.
    #[error("invalid pattern ({pattern}) in substitution: {source}")]
    Pattern {
        /// The pattern as written.
        pattern: String,
        /// The problem.
        source: PatternError,
    },
    /// The result is too long.
    #[error("substitutions make more than 1 MiB")]
    TooLong,
    /// More than 64 substitutions are nested.
    #[error("substitutions are nested too deeply")]
    TooDeep,
}

/// Returns the value of a variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands words. The fields say which parts of the notation count.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    /// The escape character of the Dockerfile.
    pub escape: char,
    /// The values of the variables.
    pub lookup: Lookup<'a>,
    /// Whether quotes stay in the result.
    pub raw_quotes: bool,
    /// Whether escape characters stay in the result.
    pub raw_escapes: bool,
    /// Whether quotes are ordinary characters.
    pub skip_quotes: bool,
    /// Whether `$x` stays unchanged if x is not set.
    pub skip_unset: bool,
}

impl<'a> Expander<'a> {
    /// The usual expander of instructions: quotes and escapes are removed, and unset variables are empty.
    pub fn new(escape: char, lookup: Lookup<'a>) -> Self {
        Self { escape, lookup, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// Expands the text as one word.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn word(&self, text: &str) -> Result<String, ExpandError> {
        // The common case: there is nothing to expand.
        if !text.contains(['$', '\'', '"', self.escape]) {
            return Ok(text.to_owned());
        }
        Ok(Lexer::new(self, text).until(None, self.raw_escapes)?.text)
    }

    /// Expands the text and splits it at white space that is neither quoted nor escaped. Values of variables
    /// are split too.
    ///
    /// # Errors
    /// [`ExpandError`].
    pub fn words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        Ok(Lexer::new(self, text).until(None, self.raw_escapes)?.finish())
    }
}

/// The result so far, both as one text and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Output {
    fn split(&mut self, c: char) {
        self.text.push(c);
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Lexer<'a> {
    expander: &'a Expander<'a>,
    text: Vec<char>,
    at: usize,
    raw_escapes: bool,
    depth: usize,
}

impl<'a> Lexer<'a> {
    fn new(expander: &'a Expander<'a>, text: &str) -> Self {
        Self { expander, text: text.chars().collect(), at: 0, raw_escapes: expander.raw_escapes, depth: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Reads up to and including `stop`, or to the end if `stop` is `None`.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Output, ExpandError> {
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let read = self.read(stop);
        self.raw_escapes = before;
        self.depth -= 1;
        read
    }

    fn read(&mut self, stop: Option<char>) -> Result<Output, ExpandError> {
        let mut out = Output::default();
        while let Some(c) = self.next() {
            if stop == Some(c) {
                return Ok(out);
            }
            if out.text.len() > LONGEST.max(self.text.len() * 4) {
                return Err(ExpandError::TooLong);
            }
            match c {
                '$' => self.dollar()?.chars().for_each(|c| out.split(c)),
                '\'' if !self.expander.skip_quotes => out.whole(&self.single_quoted()?),
                '"' if !self.expander.skip_quotes => out.whole(&self.double_quoted()?),
                '<' if self.peek() == Some('<') => out.whole(&self.here_document_mark()),
                _ if c == self.expander.escape => {
                    if self.raw_escapes {
                        out.whole(c.encode_utf8(&mut [0; 4]));
                    }
                    if let Some(escaped) = self.next() {
                        out.whole(escaped.encode_utf8(&mut [0; 4]));
                    }
                }
                _ => out.split(c),
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Missing(stop)),
            None => Ok(out),
        }
    }

    /// Reads `<<`, and the white space after it, as a part of the next word.
    fn here_document_mark(&mut self) -> String {
        self.at += 1;
        let mut mark = String::from("<<");
        while let Some(c @ (' ' | '\t' | '\r')) = self.peek() {
            mark.push(c);
            self.at += 1;
        }
        mark
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            if c == '\'' {
                return Ok(if self.expander.raw_quotes { format!("'{out}'") } else { out });
            }
            out.push(c);
        }
        Err(ExpandError::Unterminated("single-quote"))
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        while let Some(c) = self.next() {
            if out.len() > LONGEST.max(self.text.len() * 4) {
                return Err(ExpandError::TooLong);
            }
            match c {
                '"' => return Ok(if self.expander.raw_quotes { format!("\"{out}\"") } else { out }),
                '$' => out.push_str(&self.dollar()?),
                _ if c == self.expander.escape => {
                    if self.raw_escapes {
                        out.push(c);
                    }
                    // In double quotes, only these three characters can be escaped. Before other characters
                    // the escape character is literal.
                    match self.peek() {
                        None => {}
                        Some(escaped) if matches!(escaped, '"' | '$') || escaped == c => {
                            out.push(escaped);
                            self.at += 1;
                        }
                        Some(_) if self.raw_escapes => {}
                        Some(_) => out.push(c),
                    }
                }
                _ => out.push(c),
            }
        }
        Err(ExpandError::Unterminated("double-quote"))
    }

    /// Reads a substitution, after the `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match (self.expander.lookup)(&name) {
                None if self.expander.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err(ExpandError::Missing('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandError::Missing('}')),
            Some('}') => Ok(match (self.expander.lookup)(&name) {
                None if self.expander.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, true),
                c => Err(ExpandError::UnsupportedModifier(c.map_or(":".into(), |c| format!(":{c}")))),
            },
            Some(c @ ('-' | '+' | '?')) => self.conditional(&name, c, false),
            Some(c @ ('#' | '%')) => self.trimmed(&name, c),
            Some('/') => self.replaced(&name),
            Some(c) => Err(ExpandError::UnsupportedModifier(c.into())),
        }
    }

    /// Evaluates `${name-word}`, `${name:+word}` and so on, after the operator.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), false)?.text;
        let value = (self.expander.lookup)(name);
        if value.is_none() && self.expander.skip_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, value) {
            ('+', value) => Ok(value.map(|_| word).unwrap_or_default()),
            ('-', value) => Ok(value.unwrap_or(word)),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let default = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// Evaluates `${name#pattern}` and `${name%%pattern}`, after the first operator character.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, ExpandError> {
        let word = self.until(Some('}'), true)?.text;
        let Some(value) = (self.expander.lookup)(name) else {
            return Ok(if self.expander.skip_unset {
                format!("${{{name}{operator}{word}}}")
            } else {
                String::new()
            });
        };
        let (pattern, longest) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let parsed = Self::pattern(pattern)?;
        Ok(match operator {
            '#' => parsed.trim_start(&value, longest),
            _ => parsed.trim_end(&value, longest),
        })
    }

    /// Evaluates `${name/pattern/replacement}` and `${name//pattern/replacement}`, after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.until(Some('/'), true)?.text;
        let replacement = self.until(Some('}'), true)?.text;
        match (self.expander.lookup)(name) {
            None if self.expander.skip_unset => {
                let slash = if all { "//" } else { "/" };
                Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"))
            }
            value => Ok(Self::pattern(&pattern)?.replace(&value.unwrap_or_default(), &replacement, all)),
        }
    }

    fn pattern(text: &str) -> Result<Pattern, ExpandError> {
        Pattern::parse(text).map_err(|source| ExpandError::Pattern { pattern: text.to_owned(), source })
    }

    /// Reads a name, or a parameter of the shell (`1`, `@`), which is never set here. May be empty.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_ascii_digit() => self.skip(|c| c.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => self.skip(|c| c.is_alphanumeric() || c == '_'),
        }
        self.text[start..self.at].iter().collect()
    }

    fn skip(&mut self, belongs: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests;
