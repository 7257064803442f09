//! Reads variables from files: Docker's `--env-file`, and the format of `/proc/PID/environ`.

use std::{fs, path::Path};

use operation::Error;

use crate::Result;

/// Reads Docker's format: a line is `NAME=VALUE`, or `NAME` with the value from `own`. Skips blanks before
/// the name, empty lines, and lines that begin with `#`. Accepts CRLF line ends.
///
/// # Errors
/// When the file cannot be read, or a line has another form.
pub fn of_file(path: &Path, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    parse(&read(path)?, own).map_err(|problem| Error::new("read", format_args!("{path:?}"), problem))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| Error::new("read", format_args!("{path:?}"), error))
}

fn parse(text: &[u8], own: impl Fn(&str) -> Option<String>) -> std::result::Result<Vec<String>, String> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut variables = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(line) = str::from_utf8(line) else {
            return Err(format!("line {}: it is not UTF-8", at + 1));
        };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(format!("line {}: there is no name before the =", at + 1));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("line {}: the name {name:?} contains a blank", at + 1));
        }
        variables.extend(with_value(line, &own));
    }
    Ok(variables)
}

/// Returns a variable with its value. `NAME` alone takes the value from `own`.
pub fn with_value(variable: &str, own: impl Fn(&str) -> Option<String>) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable.to_owned()),
        false => own(variable).map(|value| format!("{variable}={value}")),
    }
}

/// Reads NUL-terminated `NAME=VALUE`, as in `/proc/PID/environ`. A value may contain any other byte.
///
/// # Errors
/// When the file cannot be read, or an entry has another form.
pub fn of_list(path: &Path) -> Result<Vec<String>> {
    let text = read(path)?;
    let entries = text.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let variable = |entry: &[u8]| {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        if name.is_empty() || name.len() == entry.len() {
            return Err(Error::new("read", format_args!("{path:?}"), "an entry is not NAME=VALUE"));
        }
        let name = String::from_utf8_lossy(name);
        // The specification of a container is JSON.
        String::from_utf8(entry.to_vec())
            .map_err(|_| Error::new("set", format_args!("variable {name:?}"), "it is not UTF-8"))
    };
    entries.map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_docker_reads_them() {
        let own = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        for (text, variables) in [
            ("A=1\r\n  B=2\n", &["A=1", "B=2"][..]),
            ("\u{feff}A= 1 \n#B=2\n\n\t# c\nHOME\nNONE\nC=\nD=a=b", &["A= 1 ", "HOME=/root", "C=", "D=a=b"]),
            ("", &[]),
        ] {
            assert_eq!(parse(text.as_bytes(), own).unwrap(), variables, "{text:?}");
        }
        for (text, error) in [
            (&b"bad name=1"[..], "line 1: the name \"bad name\" contains a blank"),
            (b"A=1\nB =2", "line 2: the name \"B \" contains a blank"),
            (b"=1", "line 1: there is no name before the ="),
            (b"A=\xff", "line 1: it is not UTF-8"),
        ] {
            assert_eq!(parse(text, own).unwrap_err(), error);
        }
    }
}
