//! `--depfile`: which files a build has read, as a rule for Make or Ninja, in the form of `gcc -MD -MP`.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use toolkit::prelude::*;

#[derive(Debug, Clone, Args)]
pub(crate) struct Dependencies {
    /// Write a rule of Make: STAMP depends on every file that this build read
    #[arg(long, value_name = "FILE", requires = "deptarget")]
    depfile: Option<PathBuf>,
    /// The file that the rule is for; it is made, or gets the time of now
    #[arg(long, value_name = "STAMP", requires = "depfile")]
    deptarget: Option<PathBuf>,
}

impl Dependencies {
    /// Whether it has to be known what is read.
    pub(crate) fn are_wanted(&self) -> bool {
        self.depfile.is_some()
    }

    /// What is written.
    pub(crate) fn files(&self) -> [(&str, &Option<PathBuf>); 2] {
        [("RULE", &self.depfile), ("", &self.deptarget)]
    }

    /// Writes the rule, and then renews the stamp: it is newer than all that was made.
    pub(crate) fn write(&self, read: &[PathBuf]) -> Result<()> {
        let (Some(file), Some(stamp)) = (&self.depfile, &self.deptarget) else { return Ok(()) };
        let here = std::env::current_dir().unwrap_or_default();
        let read = read.iter().map(|path| path.strip_prefix(&here).unwrap_or(path));
        let read: Vec<Vec<u8>> = read.filter(|path| *path != stamp).map(escaped).collect::<Result<_>>()?;
        let mut rule = [escaped(stamp)?, b":".to_vec()].concat();
        for path in &read {
            rule.extend_from_slice(b" \\\n  ");
            rule.extend_from_slice(path);
        }
        rule.push(b'\n');
        // A file that goes must not stop Make.
        for path in &read {
            rule.extend_from_slice(&[b"\n", path.as_slice(), b":\n"].concat());
        }
        let failed = |verb, path: &Path| {
            let path = path.to_owned();
            move |error| {
                operation::Error::new(verb, format_args!("{path:?}"), error).of(operation::Place::File)
            }
        };
        fs::write(file, rule).map_err(failed("write", file))?;
        let stamped = File::options().write(true).create(true).truncate(false).open(stamp);
        let stamped = stamped.map_err(failed("write", stamp))?;
        Ok(stamped.set_modified(SystemTime::now()).map_err(failed("set time of", stamp))?)
    }
}

/// A name as Make and Ninja read it.
fn escaped(path: &Path) -> Result<Vec<u8>> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'\n' => bail!("write rule: {path:?}: no rule can name a file with a line break"),
            b' ' | b'#' => escaped.extend_from_slice(&[b'\\', byte]),
            b'$' => escaped.extend_from_slice(b"$$"),
            byte => escaped.push(byte),
        }
    }
    Ok(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_rules() {
        for (name, expected) in [("a b", "a\\ b"), ("$x#", "$$x\\#"), ("", "."), ("a\\b:c", "a\\b:c")] {
            assert_eq!(String::from_utf8(escaped(Path::new(name)).unwrap()).unwrap(), expected);
        }
        assert!(escaped(Path::new("a\nb")).is_err());
    }
}
