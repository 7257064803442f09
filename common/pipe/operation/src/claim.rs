//! Claims: which containers use a shared thing.
//!
//! Each shared thing has a directory `$STAVE_RUN/shared/<name>/`. It holds one empty file for each container
//! that uses the thing, named after the container's id. A tool that changes the directory holds its own lock
//! (see `toolkit::Filter::LOCK`).

use std::{
    fs, io,
    mem::MaybeUninit,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, RawDir},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{Condition, Error, Operation, Place, Scope, words};

/// A container's claim on a shared thing: one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "claim")]
pub struct Claim {
    /// The shared thing's directory: `$STAVE_RUN/shared/<name>`.
    pub directory: PathBuf,
    /// The container's id.
    pub holder: String,
    /// Whether no other container may have a claim on the thing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
}

impl Claim {
    /// The claim of the container `holder` on the shared thing `name`. `name` must be valid as a file name.
    pub fn new(scope: &Scope, name: &str, holder: &str) -> Self {
        Self { directory: scope.claims(name), holder: holder.to_owned(), exclusive: false }
    }

    /// A claim on a thing that only one container may have. If two containers claim it at the same moment, at
    /// most one succeeds.
    pub fn exclusive(scope: &Scope, name: &str, holder: &str) -> Self {
        Self { exclusive: true, ..Self::new(scope, name, holder) }
    }

    /// Checks that holder and shared thing are names, not paths.
    fn validate(&self, scope: &Scope) -> Result<(), Error> {
        validate(scope, &self.directory, &self.holder)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.holder)
    }

    fn error(&self, verb: &'static str) -> impl FnOnce(io::Error) -> Error {
        failed(verb, self.path())
    }
}

/// Checks a claim from a document, which may name any path: the directory must be the shared thing's own, and
/// the holder a plain file name.
fn validate(scope: &Scope, claims: &Path, holder: &str) -> Result<(), Error> {
    let name = claims.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_name = |text: &str| !text.is_empty() && !text.contains('/') && !text.starts_with('.');
    match is_name(name) && is_name(holder) && *claims == scope.claims(name) {
        true => Ok(()),
        false => Err(Error::new(
            "find",
            format_args!("claim {holder:?} in {claims:?}"),
            "it is no claim of a container",
        )),
    }
}

fn failed(verb: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::new(verb, format_args!("claim {path:?}"), source).of(Place::RunDir)
}

/// Whether `directory` has an entry other than `own`. A missing directory has none.
///
/// Reads a few entries at a time. The answer is usually yes, and should not take longer when there are more
/// entries.
///
/// # Errors
/// When the directory cannot be read. The caller must then assume that the shared thing is in use.
pub fn holds_another(directory: &Path, own: &str) -> io::Result<bool> {
    // A name has at most 255 bytes, so this holds three of the longest.
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match rustix::fs::open(directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        opened => opened?,
    };
    let mut entries = RawDir::new(opened, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            // Somebody has just removed the directory.
            Err(Errno::NOENT) => return Ok(false),
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && name != own.as_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Operation for Claim {
    fn explain(&self) -> Vec<String> {
        vec![words(["install", "-D", "/dev/null", &self.path().to_string_lossy()])]
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        self.validate(scope)?;
        crate::make_directories(&self.directory, 0o777).map_err(self.error("create"))?;
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(self.path())
            .map_err(self.error("create"))?;
        if !self.exclusive || !holds_another(&self.directory, &self.holder).map_err(self.error("read"))? {
            return Ok(());
        }
        self.undo(scope)?;
        let object = format_args!("claim {:?}", self.path());
        Err(Error::new("create", object, "another container got it at the same moment: run it again"))
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        self.validate(scope)?;
        // Undo of the last claim removes the directories as well.
        scope.remove_file(&self.path()).map_err(|errno| self.error("remove")(errno.into()))
    }

    fn check(&self, _: &Scope) -> Result<Condition, Error> {
        Ok(match self.path().try_exists().map_err(self.error("look for"))? {
            true => Condition::Present,
            false => Condition::Missing(format!("claim {:?}", self.path())),
        })
    }
}

/// An operation on a shared thing. `apply` makes sure that the thing exists. `undo` does nothing while
/// another container has a claim on the thing. In a list of operations, the [`Claim`] comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared<O> {
    /// The directory of the claims.
    pub claims: PathBuf,
    /// The container that the operation was applied for.
    pub holder: String,
    /// The operation. Its `apply` succeeds when the thing exists already.
    #[serde(flatten)]
    pub operation: O,
}

impl<O> Shared<O> {
    /// Wraps `operation`, so that `claim` guards it.
    pub fn new(claim: &Claim, operation: O) -> Self {
        Self { claims: claim.directory.clone(), holder: claim.holder.clone(), operation }
    }
}

impl<O: Operation> Operation for Shared<O> {
    fn explain(&self) -> Vec<String> {
        self.operation.explain()
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        self.operation.apply(scope)
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        validate(scope, &self.claims, &self.holder)?;
        let used = holds_another(&self.claims, &self.holder).map_err(failed("read", self.claims.clone()))?;
        if used {
            return Ok(());
        }
        self.operation.undo(scope)
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        self.operation.check(scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "op", rename = "touch")]
    struct Touch {
        path: PathBuf,
    }

    impl Operation for Touch {
        fn explain(&self) -> Vec<String> {
            vec![format!("touch {}", self.path.display())]
        }
        fn apply(&mut self, _: &Scope) -> Result<(), Error> {
            fs::write(&self.path, "").map_err(Error::on("write", self.path.display()))
        }
        fn undo(&self, _: &Scope) -> Result<(), Error> {
            fs::remove_file(&self.path).map_err(Error::on("remove", self.path.display()))
        }
        fn check(&self, _: &Scope) -> Result<Condition, Error> {
            Ok(Condition::Present)
        }
    }

    #[test]
    fn a_shared_thing_goes_with_its_last_claim() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().join("root"), run_dir: dir.path().join("run") };
        let path = dir.path().join("bridge");
        let mut claims = ["a", "b"].map(|id| Claim::new(&scope, "bridge-stave0", id));
        for claim in &mut claims {
            claim.apply(&scope).unwrap();
            Shared::new(claim, Touch { path: path.clone() }).apply(&scope).unwrap();
        }
        assert!(claims[0].apply(&scope).is_err(), "a claim is held once");
        for (claim, stays) in claims.iter().zip([true, false]) {
            Shared::new(claim, Touch { path: path.clone() }).undo(&scope).unwrap();
            assert_eq!(path.exists(), stays);
            claim.undo(&scope).unwrap();
            claim.undo(&scope).unwrap();
        }
        assert!(!claims[0].directory.exists());
    }

    #[test]
    fn another_is_found_among_any_number() {
        let dir = tempfile::tempdir().unwrap();
        let own = "o".repeat(255);
        assert!(!holds_another(&dir.path().join("missing"), &own).unwrap());
        assert!(!holds_another(dir.path(), &own).unwrap());
        fs::write(dir.path().join(&own), "").unwrap();
        assert!(!holds_another(dir.path(), &own).unwrap());
        for n in 0..100 {
            fs::write(dir.path().join(format!("{n:0>255}")), "").unwrap();
            assert!(holds_another(dir.path(), &own).unwrap());
        }
        let file = dir.path().join(&own);
        assert_eq!(holds_another(&file, &own).unwrap_err().raw_os_error(), Some(20), "ENOTDIR");
    }

    #[test]
    fn json_is_flat() {
        let scope = Scope { root: "/r".into(), run_dir: "/s".into() };
        let shared = Shared::new(&Claim::new(&scope, "b", "web"), Touch { path: "/x".into() });
        let json = serde_json::to_string(&shared).unwrap();
        assert_eq!(json, r#"{"claims":"/s/shared/b","holder":"web","op":"touch","path":"/x"}"#);
        serde_json::from_str::<Shared<Touch>>(&json).unwrap();
    }

    #[test]
    fn what_is_exclusive_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let scope = Scope { root: dir.path().join("root"), run_dir: dir.path().join("run") };
        let [mut a, mut b] = ["a", "b"].map(|id| Claim::exclusive(&scope, "ids-1", id));
        a.apply(&scope).unwrap();
        let error = b.apply(&scope).unwrap_err().to_string();
        assert!(error.ends_with("at the same moment: run it again"), "{error}");
        assert!(!b.path().exists());
        assert_eq!(a.check(&scope).unwrap(), Condition::Present);
        a.undo(&scope).unwrap();
        b.apply(&scope).unwrap();
    }
}
