//! Finds the input and output of the document on a command line with wrong arguments.

use std::{ffi::OsString, path::PathBuf};

/// The flags that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Salvaged {
    pub(crate) detach: bool,
    pub(crate) null_input: bool,
    pub(crate) from: Option<PathBuf>,
    pub(crate) document: Option<PathBuf>,
}

/// Looks at the tool's own arguments, not at the command's.
pub(crate) fn salvage(arguments: &[OsString]) -> Salvaged {
    let words = arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let own: Vec<String> = words.take_while(|word| word != "--").collect();
    let has = |names: [&str; 2]| own.iter().any(|word| names.contains(&word.as_str()));
    Salvaged {
        detach: has(["-d", "--detach"]),
        null_input: has(["-n", "--null-input"]),
        from: value(&own, "--from").map(PathBuf::from),
        document: value(&own, "--document").map(PathBuf::from),
    }
}

/// Returns the value of an option, from the next word or after `=`.
fn value<'a>(words: &'a [String], option: &str) -> Option<&'a str> {
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(option) {
        Some("") => words.get(at + 1).map(String::as_str),
        Some(rest) => rest.strip_prefix('='),
        None => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_both_spellings() {
        for (line, from, document, detach) in [
            ("--document-x --from=a=b --document c --from", Some("a=b"), Some("c"), false),
            ("--from", None, None, false),
            ("-d --bad -- --from x", None, None, true),
        ] {
            let arguments: Vec<OsString> =
                "ns-exec ".split(' ').take(1).chain(line.split(' ')).map(Into::into).collect();
            let told = Salvaged {
                detach,
                null_input: false,
                from: from.map(Into::into),
                document: document.map(Into::into),
            };
            assert_eq!(salvage(&arguments), told, "{line}");
        }
    }
}
