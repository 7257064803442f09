//! `CONTAINER[:ALIAS]`.

use std::str::FromStr;

use document::Id;

/// The value of a `--link`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) container: Id,
    pub(crate) alias: String,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (container, alias) = text.split_once(':').unwrap_or((text, text));
        let container = container.parse::<Id>().map_err(|error| error.to_string())?;
        // The alias is written to /etc/hosts, and is part of the names of variables.
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if alias.is_empty()
            || !alias.chars().all(plain)
            || !alias.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(format!(
                "{alias:?} cannot be the name of a host: use letters, digits, `_`, `.` and `-`"
            ));
        }
        Ok(Self { container, alias: alias.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_and_its_alias() {
        for (text, parsed) in [
            ("db:database", "db database"),
            ("db", "db db"),
            ("db:", "\"\" cannot be the name of a host: use letters, digits, `_`, `.` and `-`"),
            ("db:a b", "\"a b\" cannot be the name of a host: use letters, digits, `_`, `.` and `-`"),
            (
                "db:a\n1.2.3.4 x",
                "\"a\\n1.2.3.4 x\" cannot be the name of a host: use letters, digits, `_`, `.` and `-`",
            ),
            (
                "../x:db",
                "\"../x\" cannot be an id: it takes letters, digits, `_`, `.` and `-`, a letter or digit first, 64 at most",
            ),
        ] {
            let shown = match text.parse::<Link>() {
                Ok(link) => format!("{} {}", link.container, link.alias),
                Err(error) => error,
            };
            assert_eq!(shown, parsed);
        }
    }
}
