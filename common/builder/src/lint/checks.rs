//! `# check=skip=…;error=true`: which checks to skip, and whether findings are errors.

use std::collections::BTreeSet;

use operation::quantity::truth;

/// The option is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid check option {0:?}")]
pub struct BadChecks(String);

/// A set of checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    some: BTreeSet<String>,
}

impl Names {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, some: BTreeSet::new() },
            list => Self { all: false, some: list.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.some.contains(name)
    }
}

/// Which checks are skipped, and whether findings are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    skip: Names,
    experimental: Names,
    /// Whether a finding is an error.
    pub is_error: bool,
}

impl Checks {
    /// Parses the value of the directive, or of `--build-arg BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// [`BadChecks`].
    pub fn parse(text: &str) -> Result<Self, BadChecks> {
        let mut checks = Self::default();
        for part in text.split(';').filter(|_| !text.trim().is_empty()) {
            let bad = || BadChecks(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            match name.trim() {
                "skip" => checks.skip = Names::parse(value),
                "experimental" => checks.experimental = Names::parse(value),
                "error" => checks.is_error = truth(value.trim()).ok_or_else(bad)?,
                _ => return Err(BadChecks(name.trim().to_owned())),
            }
        }
        Ok(checks)
    }

    /// Parses a comment before an instruction: `check=skip=…`, without the `#`.
    pub(super) fn in_comment(comment: &str) -> Option<Self> {
        let (name, value) = comment.split_once('=')?;
        let is_meant = name.trim().eq_ignore_ascii_case("check");
        is_meant.then(|| Self::parse(value.trim().split(' ').next().unwrap_or_default()).ok()).flatten()
    }

    pub(super) fn skips(&self, rule: &str) -> bool {
        self.skip.has(rule)
    }

    pub(super) fn has_experimental(&self, rule: &str) -> bool {
        self.experimental.has(rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let checks = Checks::parse("skip=A, B;error=true").unwrap();
        assert!(checks.skips("A") && checks.skips("B") && !checks.skips("C") && checks.is_error);
        assert!(Checks::parse("skip=all").unwrap().skips("X"));
        assert!(Checks::parse("experimental=X").unwrap().has_experimental("X"));
        assert_eq!(Checks::parse(" ").unwrap(), Checks::default());
        assert_eq!(Checks::parse("x=1").unwrap_err().to_string(), "invalid check option \"x\"");
        assert!(Checks::parse("skip").is_err() && Checks::parse("error=maybe").is_err());
        assert!(Checks::in_comment(" check = skip=A trailing").unwrap().skips("A"));
        assert_eq!(Checks::in_comment("no check"), None);
    }
}
