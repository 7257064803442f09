//! The two kinds of path patterns in Docker: Go's `filepath.Match` for sources of COPY and ADD, and the
//! patterns of `.dockerignore`, which also have `**`.

/// The pattern is invalid: a `[` without `]`, or a backslash at the end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(String);

/// Whether `**` crosses directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubleStar {
    /// `**` is the same as `*`. Used for sources of COPY and ADD.
    Plain,
    /// `**/` matches any number of directories, and `**` at the end everything. `**.log`, where nothing else is
    /// special, matches every path that ends with `.log`. Used for `.dockerignore`, `--exclude` and `--parents`
    /// (moby/patternmatcher).
    Deep,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Many,
    /// `**/`: nothing, or anything that ends with a slash.
    Directories,
    /// `**` at the end, and at the begin of `**.log`.
    All,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Part {
    /// Whether the class contains a character.
    fn holds(&self, c: char) -> bool {
        let Self::Class { negated, ranges } = self else { return false };
        ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
    }
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
    /// What every path that it matches begins and ends with: all of the pattern, if it has no wildcard.
    prefix: String,
    suffix: String,
}

/// Whether `text` contains special characters of a pattern.
pub fn has_wildcards(text: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Removes the backslashes that make characters literal.
pub fn unescape(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// A pattern that matches only `text`.
pub fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`BadPattern`].
    pub fn parse(text: &str, stars: DoubleStar) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.to_owned());
        let mut parts = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' if stars == DoubleStar::Deep && chars.peek() == Some(&'*') => {
                    chars.next();
                    let is_first = parts.is_empty();
                    let is_whole_part = chars.next_if_eq(&'/').is_some();
                    match chars.clone().any(|c| matches!(c, '*' | '?' | '[' | ']' | '\\')) {
                        _ if chars.peek().is_none() => Part::All,
                        // What ends so, as with a `*` that crosses directories.
                        false if is_first && !is_whole_part => Part::All,
                        _ => Part::Directories,
                    }
                }
                '*' => Part::Many,
                '?' => Part::Any,
                '[' => class(&mut chars).ok_or_else(bad)?,
                '\\' => Part::Char(chars.next().ok_or_else(bad)?),
                c => Part::Char(c),
            });
        }
        let plain = |part: &Part| match part {
            Part::Char(c) => Some(*c),
            _ => None,
        };
        let prefix = parts.iter().map_while(plain).collect();
        let suffix: String = parts.iter().rev().map_while(plain).collect();
        Ok(Self { prefix, suffix: suffix.chars().rev().collect(), parts })
    }

    /// Whether the pattern matches the whole of `path`. All positions in the pattern are followed at once, so
    /// the time is at most proportional to the product of both lengths.
    pub fn matches(&self, path: &str) -> bool {
        // Nearly all paths end here, without a look at each character.
        if !path.starts_with(&self.prefix) || !path.ends_with(&self.suffix) {
            return false;
        }
        let mut at = vec![false; self.parts.len() + 1];
        self.enter(&mut at, 0);
        for c in path.chars() {
            let mut next = vec![false; at.len()];
            for (position, part) in self.parts.iter().enumerate().filter(|(position, _)| at[*position]) {
                match part {
                    Part::Many if c != '/' => self.enter(&mut next, position),
                    Part::All => self.enter(&mut next, position),
                    Part::Directories => {
                        next[position] = true;
                        if c == '/' {
                            self.enter(&mut next, position + 1);
                        }
                    }
                    Part::Any if c != '/' => self.enter(&mut next, position + 1),
                    Part::Char(own) if *own == c => self.enter(&mut next, position + 1),
                    Part::Class { .. } if c != '/' && part.holds(c) => self.enter(&mut next, position + 1),
                    _ => {}
                }
            }
            at = next;
        }
        at[self.parts.len()]
    }

    /// Marks a position, and the positions after it that are reachable without a character.
    fn enter(&self, at: &mut [bool], mut position: usize) {
        loop {
            at[position] = true;
            match self.parts.get(position) {
                Some(Part::Many | Part::All | Part::Directories) => position += 1,
                _ => return,
            }
        }
    }
}

/// Parses a character class, after the `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars>) -> Option<Part> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars>| match chars.next()? {
        '\\' => chars.next(),
        '-' | ']' => None,
        c => Some(c),
    };
    while ranges.is_empty() || chars.peek() != Some(&']') {
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
    chars.next();
    Some(Part::Class { negated, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        use DoubleStar::{Deep, Plain};
        for (pattern, stars, path, expected) in [
            ("abc", Plain, "abc", true),
            ("*", Plain, "abc", true),
            ("*c", Plain, "abc", true),
            ("a*/b", Plain, "abc/b", true),
            ("a*/b", Plain, "a/c/b", false),
            ("a*b*c*d*e*/f", Plain, "axbxcxdxexxx/f", true),
            ("a*b?c*x", Plain, "abxbbxdbxebxczzx", true),
            ("ab[c]", Plain, "abc", true),
            ("ab[b-d]", Plain, "abc", true),
            ("ab[^c]", Plain, "abc", false),
            ("a\\*b", Plain, "a*b", true),
            ("a\\*b", Plain, "ab", false),
            ("a?b", Plain, "a☺b", true),
            ("a?b", Plain, "a/b", false),
            ("a[^a]b", Plain, "a/b", false),
            ("[\\]a]", Plain, "]", true),
            ("[\\-x]", Plain, "-", true),
            ("arr[[]0].txt", Plain, "arr[0].txt", true),
            ("**/b", Plain, "a/b", true),
            ("**/b", Plain, "a/a/b", false),
            ("**/b", Deep, "b", true),
            ("**/b", Deep, "a/a/b", true),
            ("**/b", Deep, "ab", false),
            ("**", Deep, "a/b", true),
            ("a/**", Deep, "a/b/c", true),
            ("a/**/c", Deep, "a/c", true),
            ("a/**/c", Deep, "a/b/b/c", true),
            ("a/**/c", Deep, "ac", false),
            ("**/*.go", Deep, "a/b.go", true),
            ("a**/b", Deep, "axx/b", true),
            ("**.log", Deep, "app.log", true),
            ("**.log", Deep, "a/b.log", true),
            ("**.log", Deep, "a/b.log/c", false),
            ("**foo", Deep, "xfoo", true),
            ("**foo", Deep, "a/foo", true),
            ("**foo/bar", Deep, "a/xfoo/bar", true),
            ("**.lo?", Deep, "app.log", false),
            ("**.lo?", Deep, "a/.log", true),
        ] {
            assert_eq!(Glob::parse(pattern, stars).unwrap().matches(path), expected, "{pattern} {path}");
        }
        for pattern in ["[", "[a", "[]a]", "[-]", "[x-]", "a\\", "[^"] {
            assert!(Glob::parse(pattern, Plain).is_err(), "{pattern}");
        }
    }

    #[test]
    fn wildcards_are_told_from_plain_paths() {
        assert!(has_wildcards("a*") && has_wildcards("a[b]") && has_wildcards("?"));
        assert!(!has_wildcards("a\\*") && !has_wildcards("a/b"));
        assert_eq!(unescape("a\\*b\\\\"), "a*b\\");
        for text in ["a*b", "[a]?", "a\\b", "plain"] {
            assert!(!has_wildcards(&escape(text)));
            assert_eq!(unescape(&escape(text)), text);
            assert!(Glob::parse(&escape(text), DoubleStar::Plain).unwrap().matches(text));
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in r"[a-c*?\[\]\\^/\-é]{0,20}", path in "[a-cé/]{0,20}") {
            for stars in [DoubleStar::Plain, DoubleStar::Deep] {
                let _ = Glob::parse(&pattern, stars).map(|glob| glob.matches(&path));
            }
        }
    }
}
