//! `.dockerignore`: which files of the context a build does not see.

use crate::{
    copy::cleaned,
    glob::{BadPattern, DoubleStar, Glob},
};

/// The name of the file.
pub const IGNORE_FILE: &str = ".dockerignore";

/// A list of patterns. The last pattern that matches decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
    /// Whether a rule includes files again. Only then must excluded directories be searched.
    exceptions: bool,
    /// Whether a rule excludes the whole context.
    everything: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    exception: bool,
}

/// Why a line is not a valid pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// The line has only a `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    BareException,
    /// The pattern is invalid.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
}

impl Ignore {
    /// Parses a `.dockerignore`.
    ///
    /// # Errors
    /// [`IgnoreError`].
    pub fn parse(file: &[u8]) -> Result<Self, IgnoreError> {
        let text = String::from_utf8_lossy(file);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        Self::new(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Parses the patterns of `--exclude`.
    ///
    /// # Errors
    /// [`IgnoreError`].
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let (mut rules, mut everything) = (Vec::new(), false);
        for pattern in patterns {
            let pattern = pattern.trim();
            let (exception, pattern) = match pattern.strip_prefix('!') {
                Some("") => return Err(IgnoreError::BareException),
                Some(rest) => (true, rest.trim()),
                None => (false, pattern),
            };
            // Docker cleans a pattern, and then removes one slash at its beginning. So `../a` stays what it is,
            // and fits nothing in the context.
            let pattern = if pattern.is_empty() { String::new() } else { cleaned(pattern) };
            let pattern = pattern.strip_prefix('/').unwrap_or(&pattern).to_owned();
            // "." is the context itself, which is never ignored.
            if matches!(pattern.as_str(), "" | ".") {
                continue;
            }
            everything |= !exception && matches!(pattern.as_str(), "*" | "**" | "**/*");
            rules.push(Rule { glob: Glob::parse(&pattern, DoubleStar::Deep)?, exception });
        }
        let exceptions = rules.iter().any(|rule| rule.exception);
        Ok(Self { rules, exceptions, everything })
    }

    /// Whether nothing is ignored.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether something in an excluded directory may be included again.
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether the whole context is excluded.
    pub fn takes_all(&self) -> bool {
        self.everything
    }

    /// Whether `path` (relative, without `.` and `..`) is excluded, by itself or because of a parent
    /// directory.
    pub fn ignores(&self, path: &str) -> bool {
        self.verdict(path).ignored
    }

    /// The verdict on a path, from those on all directories above it.
    pub fn verdict(&self, path: &str) -> Verdict {
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        above.chain([path]).fold(Verdict::default(), |above, path| self.verdict_below(&above, path))
    }

    /// The verdict on a path, from that on its directory.
    ///
    /// A rule that fits a directory fits everything below it. But a rule that could not change the verdict on the
    /// directory counts as one that does not fit it (moby/patternmatcher): `!dir` takes nothing back in that is below
    /// `dir` if `dir` itself was not excluded.
    pub fn verdict_below(&self, above: &Verdict, path: &str) -> Verdict {
        let mut verdict = Verdict { ignored: false, fitting: Vec::with_capacity(self.rules.len()) };
        for (at, rule) in self.rules.iter().enumerate() {
            let inherited = above.fitting.get(at).copied().unwrap_or_default();
            let fits = inherited || (rule.exception == verdict.ignored && rule.glob.matches(path));
            verdict.fitting.push(fits);
            if fits {
                verdict.ignored = !rule.exception;
            }
        }
        verdict
    }
}

/// What the patterns say about a path. The default is that of the whole tree, which no pattern fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path is excluded.
    pub ignored: bool,
    /// For each rule, whether it fits the path or a directory above it.
    fitting: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored() {
        for (file, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a", true),
            ("./a", "a", true),
            ("x/../a", "a", true),
            ("/../a", "a", true),
            ("../a", "a", false),
            ("../*", "a", false),
            ("x/../../*", "a", false),
            ("..", "a", false),
            ("*\n!../a", "a", true),
            ("**/a", "b/a", true),
            ("*/a", "b/a", true),
            ("*/a", "b/b/a", false),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("README-secret.md\n!README*.md", "README-secret.md", false),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/b/c", false),
            ("a\n!a/b", "a/c", true),
            ("*", "x/y", true),
            ("**\n!x", "x/y", false),
            ("# a", "# a", false),
            (" # a", "# a", true),
            (".", "x", false),
            ("\n \n", "x", false),
            ("a?", "ab", true),
            ("  a  ", "a", true),
            ("\u{feff}a", "a", true),
            // An exception for a directory that is not excluded takes back nothing below it.
            ("**/*.key\n!config", "config/private.key", true),
            ("**/*.key\n!config/*.key", "config/private.key", false),
            ("b/*\n!b", "b/x", true),
            ("b\nb/*\n!b", "b/x", false),
            ("a\n!a/x\na*", "a/x", false),
            ("a\n!a/x\na*", "a/y", true),
            ("a\n!a/b\na/b/c", "a/b/c/d", true),
        ] {
            assert_eq!(Ignore::parse(file.as_bytes()).unwrap().ignores(path), expected, "{file:?} {path}");
        }
        assert_eq!(Ignore::parse(b"!").unwrap_err().to_string(), "illegal exclusion pattern: \"!\"");
        assert!(Ignore::parse(b"a[").is_err());
    }
}
