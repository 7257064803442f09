//! `--format` and `--filter` of tools that list something: what Docker and podman take there, and our own `{member}`.

use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};
use template::{Mode, Template};

use crate::{hint, rows};

/// The flags of a tool that lists things with names. A tool flattens them into its own, and gives `format` and `filter` help.
#[derive(Debug, Clone, clap::Args)]
pub struct Listing {
    /// Print a table instead of JSON
    #[arg(long)]
    table: bool,
    /// Print only names, one a line
    #[arg(long, conflicts_with = "table")]
    ids: bool,
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["table", "ids"])]
    format: Option<Format>,
    #[arg(long, value_name = "KEY=VALUE", value_parser = crate::pair)]
    filter: Vec<(String, String)>,
}

impl Listing {
    /// The filters of the command line. `keys` are the keys that the tool has.
    ///
    /// # Errors
    /// When there is another key.
    pub fn filters(&self, keys: &[&str]) -> Result<Filters<'_>> {
        Filters::new(&self.filter, keys)
    }

    /// [`Report::text`](crate::Report::text): the names, or the tool's own table.
    pub fn text(&self, report: &Value, table: impl FnOnce() -> Option<String>) -> Option<String> {
        if self.ids {
            return Some(rows::lines("{name}", report));
        }
        self.table.then(table).flatten()
    }

    /// [`Report::formatted`](crate::Report::formatted): the rows by `--format`, as [`Format::rows`] has them.
    ///
    /// # Errors
    /// When the template does not fit the rows.
    pub fn formatted(
        &self,
        report: &Value,
        headings: &[(&str, &str)],
        docker: impl Fn(&Value) -> Row,
        table: impl FnOnce() -> Option<String>,
    ) -> Result<Option<String>> {
        let Some(format) = &self.format else { return Ok(None) };
        let text = format.rows(&rows::good(report).collect::<Vec<_>>(), headings, docker)?;
        Ok(text.or_else(table))
    }
}

/// `--format`: how rows are printed.
#[derive(Debug, Clone)]
pub enum Format {
    /// `json`: an object a line, in Docker's form.
    Json,
    /// `table`: the tool's own table.
    Table,
    /// A text with `{member}`: the members of the tool's own JSON.
    Members(String),
    /// A template with `{{.Field}}`: the fields of Docker's form.
    Template {
        /// Whether it is a table with headings: `table {{.ID}}\t{{.Names}}`.
        is_table: bool,
        /// The template of a row.
        template: Template,
    },
}

/// A row in Docker's form.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The fields, by Docker's names.
    pub fields: Value,
    /// What `.Label "name"` finds.
    pub labels: Map<String, Value>,
}

impl FromStr for Format {
    type Err = template::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (is_table, body) = match text.trim_matches(' ').strip_prefix("table ") {
            Some(rest) => (true, rest.trim_matches(' ')),
            None => (false, text),
        };
        match text.trim_matches(' ') {
            "json" => Ok(Self::Json),
            // Docker's own default is an empty text.
            "table" | "" => Ok(Self::Table),
            _ if body.contains("{{") => {
                Ok(Self::Template { is_table, template: body.parse::<Template>()?.unescaped() })
            }
            _ => Ok(Self::Members(text.to_owned())),
        }
    }
}

impl Format {
    /// The rows in this format, one line each. `None` for the tool's own table. `docker` gives Docker's form of a row, and
    /// `headings` has the heading of each of its fields.
    ///
    /// # Errors
    /// When the template does not fit the rows.
    pub fn rows(
        &self,
        rows: &[&Value],
        headings: &[(&str, &str)],
        docker: impl Fn(&Value) -> Row,
    ) -> Result<Option<String>> {
        Ok(Some(match self {
            Self::Table => return Ok(None),
            Self::Members(text) => {
                if let Some((row, name)) = rows.first().and_then(|row| Some((row, unknown(text, row)?))) {
                    return Err(hint(anyhow!("--format: there is no member {{{name}}}"), members(row)));
                }
                rows.iter().map(|row| rows::fill(text, row) + "\n").collect()
            }
            Self::Json => rows.iter().map(|row| format!("{}\n", docker(row).fields)).collect(),
            Self::Template { is_table, template } => {
                let mut text = String::new();
                if *is_table {
                    text += &heads(template, headings)?;
                }
                for row in rows {
                    let Row { fields, labels } = docker(row);
                    let label = |name: &str, arguments: &[Value]| match (name, arguments) {
                        ("Label", [Value::String(key)]) => {
                            Some(labels.get(key).cloned().unwrap_or_else(|| "".into()))
                        }
                        _ => None,
                    };
                    text += &template.fill(&fields, Mode::Values, &label)?;
                    text.push('\n');
                }
                if *is_table { template::align(&text) } else { text }
            }
        }))
    }
}

/// The first `{member}` of a text that a row does not have. Braces around anything else are text.
fn unknown<'a>(text: &'a str, row: &Value) -> Option<&'a str> {
    let names = text.split('{').skip(1).filter_map(|part| Some(part.split_once('}')?.0));
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphabetic());
    names.filter(is_name).find(|name| row.get(name).is_none())
}

/// The members of a row, for a hint.
fn members(row: &Value) -> String {
    let names: Vec<_> =
        row.as_object().into_iter().flatten().map(|(name, _)| format!("{{{name}}}")).collect();
    format!("there are {}", names.join(", "))
}

/// The line of headings.
fn heads(template: &Template, headings: &[(&str, &str)]) -> Result<String> {
    let fields: Map<String, Value> =
        headings.iter().map(|(field, heading)| ((*field).into(), json!(heading))).collect();
    // The last part of the label's name, as Docker has it.
    let label = |name: &str, arguments: &[Value]| match (name, arguments) {
        ("Label", [Value::String(key)]) => {
            Some(key.rsplit('.').next().unwrap_or_default().replace(['-', '_'], " ").into())
        }
        _ => None,
    };
    Ok(template.fill(&Value::Object(fields), Mode::Headings, &label)? + "\n")
}

/// `--filter`: what is listed. Filters of one key are alternatives, except for labels; those of several keys all count.
#[derive(Debug, Clone, Copy)]
pub struct Filters<'a>(&'a [(String, String)]);

impl<'a> Filters<'a> {
    /// The filters of a command line. `keys` are the keys that the tool has.
    ///
    /// # Errors
    /// When there is another key.
    pub fn new(filters: &'a [(String, String)], keys: &[&str]) -> Result<Self> {
        match filters.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            Some((key, _)) => {
                Err(hint(anyhow!("unknown filter {key:?}"), format!("there are {}", keys.join(", "))))
            }
            None => Ok(Self(filters)),
        }
    }

    /// The values of a key.
    pub fn of(&self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Whether one of the key's values fits, or there is none.
    pub fn any(&self, key: &str, fits: impl FnMut(&str) -> bool) -> bool {
        self.of(key).next().is_none() || self.of(key).any(fits)
    }

    /// Whether the name has one of the wanted texts in it. `^` and `$` stand for its start and its end.
    ///
    /// # Errors
    /// When a text is a regular expression.
    pub fn name(&self, key: &str, name: &str) -> Result<bool> {
        for pattern in self.of(key) {
            let text = pattern.strip_prefix('^').unwrap_or(pattern);
            // Docker's names begin with a slash.
            let text = text.strip_prefix('/').unwrap_or(text);
            if text
                .strip_suffix('$')
                .unwrap_or(text)
                .contains(['*', '+', '?', '[', ']', '(', ')', '{', '}', '|', '\\', '^', '$'])
            {
                bail!(
                    "filter {key}={pattern}: it is a text, with ^ at its start and $ at its end, and no other expression"
                );
            }
        }
        Ok(self.any(key, |pattern| {
            let (text, is_start) = pattern.strip_prefix('^').map_or((pattern, false), |text| (text, true));
            let text = text.strip_prefix('/').unwrap_or(text);
            let (text, is_end) = text.strip_suffix('$').map_or((text, false), |text| (text, true));
            match (is_start, is_end) {
                (true, true) => name == text,
                (true, false) => name.starts_with(text),
                (false, true) => name.ends_with(text),
                (false, false) => name.contains(text),
            }
        }))
    }

    /// Whether the labels are those of `label=NAME` and `label=NAME=VALUE`.
    pub fn labels(&self, labels: &Map<String, Value>) -> bool {
        self.of("label").all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        })
    }

    /// Whether `is` is what the truth values of the key say.
    ///
    /// # Errors
    /// When a value is none.
    pub fn truth(&self, key: &str, is: bool) -> Result<bool> {
        for value in self.of(key) {
            if !["true", "false", "1", "0"].contains(&value) {
                bail!("filter {key}={value}: it is true or false");
            }
        }
        Ok(self.any(key, |value| ["true", "1"].contains(&value) == is))
    }
}

/// When things must have been made: the filters `before` and `since`.
#[derive(Debug)]
pub struct Bounds<T>(Vec<(bool, T)>);

impl<T: PartialOrd> Bounds<T> {
    /// The bounds of the filters. `born` says when the thing that a filter names was made:
    /// it gets the filter's key and value.
    ///
    /// # Errors
    /// Those of `born`.
    pub fn new(filters: Filters<'_>, born: impl Fn(&str, &str) -> Result<T>) -> Result<Self> {
        let mut bounds = Vec::new();
        for (key, is_before) in [("before", true), ("since", false)] {
            for name in filters.of(key) {
                bounds.push((is_before, born(key, name)?));
            }
        }
        Ok(Self(bounds))
    }

    /// Whether what was made then is in the bounds. What was made nobody knows when is in none.
    pub fn hold(&self, born: impl Fn() -> Option<T>) -> bool {
        self.0.iter().all(|(is_before, time)| {
            born().is_some_and(|born| if *is_before { born < *time } else { born > *time })
        })
    }
}

/// Labels as Docker's lists print them: `a=1,b=2`.
pub fn labels_in_a_line(labels: &Map<String, Value>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={}", rows::word(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: &str) -> Result<Option<String>> {
        let rows = [json!({"id": "web", "n": 1}), json!({"id": "a-long-name", "n": 2})];
        let docker = |row: &Value| Row {
            fields: json!({"ID": row["id"], "N": row["n"]}),
            labels: Map::from_iter([("a.b".to_owned(), row["n"].clone())]),
        };
        let rows: Vec<_> = rows.iter().collect();
        format.parse::<Format>().unwrap().rows(&rows, &[("ID", "CONTAINER ID"), ("N", "NUMBER")], docker)
    }

    #[test]
    fn formats_of_all_kinds() {
        for (format, text) in [
            ("{id}-{n} {", "web-1 {\na-long-name-2 {\n"),
            ("{id} {a b} {}", "web {a b} {}\na-long-name {a b} {}\n"),
            ("{{.ID}}\\t{{.Label \"a.b\"}}", "web\t1\na-long-name\t2\n"),
            ("json", "{\"ID\":\"web\",\"N\":1}\n{\"ID\":\"a-long-name\",\"N\":2}\n"),
            (
                "table {{.ID}}\\t{{.N}}\\t{{.Label \"a.b\"}}",
                "CONTAINER ID   NUMBER    b\nweb            1         1\na-long-name    2         2\n",
            ),
        ] {
            assert_eq!(printed(format).unwrap().as_deref(), Some(text), "{format}");
        }
        assert_eq!(printed("table").unwrap(), None);
        let error = printed("{id} {no}").unwrap_err();
        assert_eq!(error.to_string(), "--format: there is no member {no}");
        assert!("{{".parse::<Format>().is_err());
    }

    #[test]
    fn filters_are_alternatives() {
        let all = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let keys = ["name", "label", "dangling"];
        let wrong = all(&[("color", "red")]);
        assert_eq!(Filters::new(&wrong, &keys).unwrap_err().to_string(), "unknown filter \"color\"");
        for (pairs, name, is) in [
            (&[("name", "we")][..], "web", true),
            (&[("name", "^we")], "web", true),
            (&[("name", "^/web$")], "web", true),
            (&[("name", "eb$")], "web", true),
            (&[("name", "^eb$")], "web", false),
            (&[("name", "a"), ("name", "b")], "web", true),
            (&[("name", "a")], "web", false),
            (&[], "web", true),
        ] {
            let pairs = all(pairs);
            assert_eq!(Filters::new(&pairs, &keys).unwrap().name("name", name).unwrap(), is, "{pairs:?}");
        }
        let regular = all(&[("name", "w.*")]);
        assert!(Filters::new(&regular, &keys).unwrap().name("name", "web").is_err());
        let labels = Map::from_iter([("a".to_owned(), json!("1")), ("b".to_owned(), json!(""))]);
        for (pairs, is) in [
            (&[("label", "a"), ("label", "b=")][..], true),
            (&[("label", "a=2")], false),
            (&[("label", "c")], false),
        ] {
            let pairs = all(pairs);
            assert_eq!(Filters::new(&pairs, &keys).unwrap().labels(&labels), is, "{pairs:?}");
        }
        let truth = all(&[("dangling", "true")]);
        assert!(Filters::new(&truth, &keys).unwrap().truth("dangling", true).unwrap());
        assert!(!Filters::new(&truth, &keys).unwrap().truth("dangling", false).unwrap());
        let maybe = all(&[("dangling", "maybe")]);
        assert!(Filters::new(&maybe, &keys).unwrap().truth("dangling", true).is_err());
    }
}
