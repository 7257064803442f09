//! Variables from files: Docker's `--env-file`, and the form of `/proc/PID/environ`.

use std::{fs, path::Path};

use toolkit::prelude::*;

/// Reads Docker's form: `NAME=VALUE` or `NAME` a line, which takes its value from `own`. Blanks before the name, empty lines
/// and lines that begin with `#` are left out. A line may end as on Windows.
pub(crate) fn of_file(path: &Path, own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let text = fs::read(path).with_context(|| format!("read {path:?}"))?;
    parse(&text, own).with_context(|| format!("read {path:?}"))
}

fn parse(text: &[u8], own: impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut variables = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Ok(line) = str::from_utf8(line) else { bail!("line {}: it is not UTF-8", at + 1) };
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            bail!("line {}: there is no name before the =", at + 1);
        }
        if name.contains(char::is_whitespace) {
            bail!("line {}: the name {name:?} contains a blank", at + 1);
        }
        variables.extend(with_value(line, &own));
    }
    Ok(variables)
}

/// A variable with its value: `NAME` alone takes it from `own`.
pub(crate) fn with_value(variable: &str, own: impl Fn(&str) -> Option<String>) -> Option<String> {
    match variable.contains('=') {
        true => Some(variable.to_owned()),
        false => own(variable).map(|value| format!("{variable}={value}")),
    }
}

/// Reads `NAME=VALUE`, each ended by a NUL, as `/proc/PID/environ` has them. A value may hold anything else.
pub(crate) fn of_list(path: &Path) -> Result<Vec<String>> {
    let text = fs::read(path).with_context(|| format!("read {path:?}"))?;
    let entries = text.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    let variable = |entry: &[u8]| match String::from_utf8(entry.to_vec()) {
        Ok(variable) if variable.find('=').is_some_and(|at| at > 0) => Ok(variable),
        _ => Err(anyhow!("read {path:?}: an entry is not NAME=VALUE")),
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
            assert_eq!(parse(text, own).unwrap_err().to_string(), error);
        }
    }
}
