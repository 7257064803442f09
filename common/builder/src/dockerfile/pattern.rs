//! Patterns in substitutions: `?` matches any one character, `*` any number of characters. A backslash makes
//! either literal.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Char(char),
    Any,
    Many,
}

/// A backslash stands before a character that needs none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid escape '\\{0}'")]
pub struct PatternError(String);

impl Pattern {
    /// Parses the pattern between `${x#` and `}`. `\}` and `\/` stand for `}` and `/`.
    ///
    /// # Errors
    /// [`PatternError`].
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => Part::Many,
                '?' => Part::Any,
                '\\' => match chars.next() {
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Part::Char(c),
                    other => return Err(PatternError(other.map(String::from).unwrap_or_default())),
                },
                c => Part::Char(c),
            });
        }
        Ok(Self(parts))
    }

    /// `value` without the shortest or longest match at its start.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        chars[self.prefix(&chars, longest).unwrap_or(0)..].iter().collect()
    }

    /// `value` without the shortest or longest match at its end.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let reversed = Self(self.0.iter().rev().copied().collect());
        chars[reversed.prefix(&chars, longest).unwrap_or(0)..].iter().rev().collect()
    }

    /// `value` with the first match, or all matches, replaced. Matches are as long as possible. An empty match
    /// replaces nothing, as in bash.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < chars.len() {
            match self.prefix(&chars[at..], true) {
                Some(length) if length > 0 => {
                    out.push_str(replacement);
                    at += length;
                    if !all {
                        break;
                    }
                }
                _ => {
                    out.push(chars[at]);
                    at += 1;
                }
            }
        }
        out.extend(&chars[at..]);
        out
    }

    /// The length of the shortest or longest match at the start of `chars`. All positions in the pattern are
    /// followed at once, so the time is at most proportional to the product of both lengths.
    fn prefix(&self, chars: &[char], longest: bool) -> Option<usize> {
        let mut at = vec![false; self.0.len() + 1];
        self.enter(&mut at, 0);
        let mut found = None;
        for length in 0..=chars.len() {
            if at[self.0.len()] {
                found = Some(length);
                if !longest {
                    break;
                }
            }
            let Some(&c) = chars.get(length) else { break };
            let mut next = vec![false; at.len()];
            for (position, part) in self.0.iter().enumerate().filter(|(position, _)| at[*position]) {
                match part {
                    Part::Many => self.enter(&mut next, position),
                    Part::Any => self.enter(&mut next, position + 1),
                    Part::Char(own) if *own == c => self.enter(&mut next, position + 1),
                    Part::Char(_) => {}
                }
            }
            if !next.contains(&true) {
                break;
            }
            at = next;
        }
        found
    }

    /// Marks a position, and the positions after it that are reachable without a character because of `*`.
    fn enter(&self, at: &mut [bool], mut position: usize) {
        while !std::mem::replace(&mut at[position], true) && self.0.get(position) == Some(&Part::Many) {
            position += 1;
        }
    }
}
