//! A template's words.

use crate::{Error, Result};

/// A word of an action, or the text between actions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// `.name`; the name is empty for `.` alone. Whether a space is before it: then it is no field of the word before.
    Field {
        name: String,
        is_apart: bool,
    },
    /// `$name`, with its `$`.
    Variable(String),
    /// A keyword or the name of a function.
    Name(String),
    Number(String),
    String(String),
    /// `(`, `)`, `|`, `,`, `=`; `:` stands for `:=`.
    Sign(char),
}

/// A word, and where it starts, in characters from 0.
pub(crate) type Placed = (usize, Token);

struct Lexer {
    text: Vec<char>,
    at: usize,
    tokens: Vec<Placed>,
}

/// The words of a template.
///
/// # Errors
/// When an action or a string has no end, or a character has no meaning.
pub(crate) fn tokens(text: &str) -> Result<Vec<Placed>> {
    let mut lexer = Lexer { text: text.chars().collect(), at: 0, tokens: Vec::new() };
    let mut trims = false;
    while lexer.at < lexer.text.len() {
        trims = lexer.text(trims)?;
    }
    Ok(lexer.tokens)
}

/// A character of the names of fields, variables and functions.
fn is_of_name(one: char) -> bool {
    one.is_alphanumeric() || one == '_'
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn starts(&self, with: &str) -> bool {
        with.chars().enumerate().all(|(index, one)| self.peek(index) == Some(one))
    }

    fn push(&mut self, at: usize, token: Token) {
        self.tokens.push((at, token));
    }

    /// The text up to the next action, and the action. Whether the action trims the text after it: `-}}`.
    fn text(&mut self, trims: bool) -> Result<bool> {
        let start = self.at;
        while self.at < self.text.len() && !self.starts("{{") {
            self.at += 1;
        }
        let mut text: String = self.text[start..self.at].iter().collect();
        if trims {
            text = text.trim_start().to_owned();
        }
        let has_action = self.at < self.text.len();
        let is_space = |ahead| self.peek(ahead).is_some_and(char::is_whitespace);
        let trims_before = has_action && self.peek(2) == Some('-') && is_space(3);
        if trims_before {
            text = text.trim_end().to_owned();
        }
        if !text.is_empty() {
            self.push(start, Token::Text(text));
        }
        if !has_action {
            return Ok(false);
        }
        let open = self.at;
        self.at += if trims_before { 3 } else { 2 };
        self.action(open)
    }

    /// The words of an action, behind its `{{`.
    fn action(&mut self, open: usize) -> Result<bool> {
        let spaces = self.spaces();
        if self.starts("/*") {
            return self.comment(open);
        }
        self.push(open, Token::Open);
        let mut is_apart = spaces;
        loop {
            let at = self.at;
            if self.starts("}}") {
                self.at += 2;
                self.push(at, Token::Close);
                return Ok(false);
            }
            if is_apart && self.starts("-}}") {
                self.at += 3;
                self.push(at, Token::Close);
                return Ok(true);
            }
            let Some(one) = self.peek(0) else { return Err(Error::new(open, "the action has no }}")) };
            self.word(one, is_apart)?;
            is_apart = self.spaces();
        }
    }

    /// A comment: it stands alone in its action.
    fn comment(&mut self, open: usize) -> Result<bool> {
        while self.at < self.text.len() && !self.starts("*/") {
            self.at += 1;
        }
        self.at += 2;
        let spaces = self.spaces();
        let trims = spaces && self.starts("-}}");
        if !trims && !self.starts("}}") {
            return Err(Error::new(open, "the comment has no */}}"));
        }
        self.at += if trims { 3 } else { 2 };
        Ok(trims)
    }

    fn spaces(&mut self) -> bool {
        let start = self.at;
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.at > start
    }

    /// One word of an action.
    fn word(&mut self, one: char, is_apart: bool) -> Result<()> {
        let at = self.at;
        let token = match one {
            '"' => Token::String(self.quoted()?),
            '`' => Token::String(self.raw()?),
            '.' if !self.peek(1).is_some_and(|next| next.is_ascii_digit()) => {
                self.at += 1;
                Token::Field { name: self.name(), is_apart }
            }
            '$' => {
                self.at += 1;
                Token::Variable(format!("${}", self.name()))
            }
            ':' if self.starts(":=") => {
                self.at += 2;
                Token::Sign(':')
            }
            '(' | ')' | '|' | ',' | '=' => {
                self.at += 1;
                Token::Sign(one)
            }
            '0'..='9' | '+' | '-' | '.' => {
                self.at += 1;
                while self.peek(0).is_some_and(|next| is_of_name(next) || next == '.') {
                    self.at += 1;
                }
                Token::Number(self.text[at..self.at].iter().collect())
            }
            '\'' => return Err(Error::new(at, "a character constant has no meaning here: write \"text\"")),
            one if is_of_name(one) => Token::Name(self.name()),
            one => return Err(Error::new(at, format!("{one:?} has no meaning here"))),
        };
        self.push(at, token);
        Ok(())
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(is_of_name) {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }

    fn raw(&mut self) -> Result<String> {
        let start = self.at;
        let rest = &self.text[start + 1..];
        let length = rest
            .iter()
            .position(|one| *one == '`')
            .ok_or_else(|| Error::new(start, "the text has no end"))?;
        self.at = start + length + 2;
        Ok(rest[..length].iter().collect())
    }

    /// A text in quotes, with the escapes of Go that occur in formats.
    fn quoted(&mut self) -> Result<String> {
        let start = self.at;
        let mut text = String::new();
        self.at += 1;
        loop {
            let one = self.peek(0).filter(|one| *one != '\n');
            let one = one.ok_or_else(|| Error::new(start, "the text has no end"))?;
            self.at += 1;
            match one {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                one => text.push(one),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let at = self.at;
        let one = self.peek(0);
        self.at += 1;
        let digits = match one {
            Some('n') => return Ok('\n'),
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some(one @ ('"' | '\\' | '\'')) => return Ok(one),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => {
                return Err(Error::new(
                    at,
                    "unknown escape: there are \\n, \\t, \\r, \\\", \\\\, \\x, \\u and \\U",
                ));
            }
        };
        let end = (self.at + digits).min(self.text.len());
        let hex: String = self.text[self.at..end].iter().collect();
        self.at = end;
        let code =
            u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits).and_then(char::from_u32);
        code.ok_or_else(|| Error::new(at, "the escape is no character"))
    }
}
