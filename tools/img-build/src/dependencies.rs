//! `--depfile`: writes which files a build read, as a rule for Make or Ninja, in the form of `gcc -MD -MP`.

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
    /// Write a Make rule: STAMP depends on every file that this build read
    #[arg(long, value_name = "FILE", requires = "deptarget")]
    depfile: Option<PathBuf>,
    /// The target of the rule; the file is created, or gets the current time
    #[arg(long, value_name = "STAMP", requires = "depfile")]
    deptarget: Option<PathBuf>,
}

impl Dependencies {
    /// Whether the build must track which files it reads.
    pub(crate) fn are_wanted(&self) -> bool {
        self.depfile.is_some()
    }

    /// The files that the build writes besides the image, each with the word for it in the explanation.
    pub(crate) fn files(&self) -> [(&str, &Option<PathBuf>); 2] {
        [("RULE", &self.depfile), ("", &self.deptarget)]
    }

    /// Writes the rule, and then updates the stamp, so that the stamp is newer than everything the build
    /// made.
    pub(crate) fn write(&self, read: &[PathBuf]) -> Result<()> {
        let (Some(file), Some(stamp)) = (&self.depfile, &self.deptarget) else { return Ok(()) };
        let here = std::env::current_dir().unwrap_or_default();
        let read = read.iter().map(|path| path.strip_prefix(&here).unwrap_or(path));
        let rule = rule(stamp, read.filter(|path| *path != stamp))?;
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

/// The rule, in the form that both Make and Ninja read. Each is more liberal than the other somewhere, so this
/// was tried with both.
fn rule<'a>(stamp: &Path, read: impl Iterator<Item = &'a Path>) -> Result<Vec<u8>> {
    if has(stamp, b'%') || has(stamp, b'=') {
        bail!("write rule: {stamp:?}: no rule can make a file with % or = in its name");
    }
    let mut read: Vec<&Path> = read.collect();
    // Make reads `stamp: a=b` as a variable of the stamp.
    match read.iter().position(|path| !has(path, b'=')) {
        Some(first) => {
            let path = read.remove(first);
            read.insert(0, path);
        }
        None if read.is_empty() => {}
        None => bail!("write rule: {:?}: no rule can begin with a file with = in its name", read[0]),
    }
    let mut rule = [escaped(stamp)?, b":".to_vec()].concat();
    for path in &read {
        rule.extend_from_slice(b" \\\n  ");
        rule.extend_from_slice(&escaped(path)?);
    }
    rule.push(b'\n');
    // A rule without prerequisites for each file: Make goes on if a file is removed later. Make has no such
    // rule for `a=b`, and for `a%b` only one that Ninja does not understand.
    for path in read.iter().filter(|path| !has(path, b'%') && !has(path, b'=')) {
        rule.extend_from_slice(&[b"\n", escaped(path)?.as_slice(), b":\n"].concat());
    }
    Ok(rule)
}

fn has(path: &Path, byte: u8) -> bool {
    path.as_os_str().as_bytes().contains(&byte)
}

/// A path, escaped for Make and Ninja.
fn escaped(path: &Path) -> Result<Vec<u8>> {
    let name = path.as_os_str().as_bytes();
    let refused = |what: &str| anyhow!("write rule: {path:?}: no rule can name a file with {what}");
    let mut escaped = Vec::new();
    match name {
        b"" => escaped.push(b'.'),
        // To Make it is the home of a user.
        [b'~', ..] => escaped.extend_from_slice(b"./"),
        _ => {}
    }
    let mut backslashes = 0;
    for &byte in name {
        match byte {
            b'\n' => return Err(refused("a line break")),
            // Ninja ends a name at each of these.
            0..=b'\x1f' | b'\x7f' => return Err(refused("a tab or another control character")),
            b';' | b'|' | b'*' | b'<' | b'>' | b'^' | b'`' => {
                return Err(refused(&format!("a {}", char::from(byte))));
            }
            // Make takes backslashes before these away in pairs, and Ninja does not.
            b'#' | b':' | b'$' if backslashes > 0 => {
                return Err(refused(&format!("a backslash before a {}", char::from(byte))));
            }
            b'#' | b':' => escaped.extend_from_slice(&[b'\\', byte]),
            b'$' => escaped.extend_from_slice(b"$$"),
            b' ' => {
                escaped.extend(std::iter::repeat_n(b'\\', backslashes + 1));
                escaped.push(b' ');
            }
            byte => escaped.push(byte),
        }
        backslashes = if byte == b'\\' { backslashes + 1 } else { 0 };
    }
    match name.last() {
        Some(b'\\') => Err(refused("a backslash at the end")),
        Some(b':') => Err(refused("a : at the end")),
        _ => Ok(escaped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(read: &[&str]) -> Result<String> {
        Ok(String::from_utf8(rule(Path::new("s"), read.iter().map(Path::new))?)?)
    }

    #[test]
    fn names_in_rules() {
        for (name, expected) in [
            ("a b", r"a\ b"),
            ("$x#", r"$$x\#"),
            ("", "."),
            (r"a\b:c", r"a\b\:c"),
            (r"a\ b", r"a\\\ b"),
            (r"\\ ", r"\\\\\ "),
            ("~a", "./~a"),
            ("a[b]?", "a[b]?"),
        ] {
            assert_eq!(String::from_utf8(escaped(Path::new(name)).unwrap()).unwrap(), expected);
        }
        for (name, why) in [
            ("a\nb", "a line break"),
            ("a\tb", "a tab or another control character"),
            ("a*", "a *"),
            (r"a\#", "a backslash before a #"),
            (r"a\", "a backslash at the end"),
            ("a:", "a : at the end"),
        ] {
            let expected = format!("write rule: {name:?}: no rule can name a file with {why}");
            assert_eq!(escaped(Path::new(name)).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn names_that_would_be_variables_or_patterns() {
        assert_eq!(text(&[]).unwrap(), "s:\n");
        assert_eq!(text(&["a=b", "c%d", "e"]).unwrap(), "s: \\\n  c%d \\\n  a=b \\\n  e\n\ne:\n");
        let first = "write rule: \"a=b\": no rule can begin with a file with = in its name";
        assert_eq!(text(&["a=b"]).unwrap_err().to_string(), first);
        let stamp = "write rule: \"a%\": no rule can make a file with % or = in its name";
        assert_eq!(rule(Path::new("a%"), std::iter::empty()).unwrap_err().to_string(), stamp);
    }
}
