//! Reports with a row for each of several things: as JSON, as a table for people, and as lines for scripts.

use document::Id;
use serde_json::{Value, json};

use crate::{Exit, failure, failure::Ended};

/// A value as a word: lists are joined, and a missing value is empty.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(word).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// `format` with each `{member}` of the row filled in. Other braces stay as they are.
pub fn fill(format: &str, row: &Value) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let member = after.split_once('}').and_then(|(name, behind)| Some((row.get(name)?, behind)));
        match member {
            Some((value, behind)) => {
                text += &word(value);
                rest = behind;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text + rest
}

/// Lines of cells in columns as wide as their content. The first line has the headings.
pub fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let pad = |line: &[String; N]| -> String {
        line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect()
    };
    lines.iter().map(|line| pad(line).trim_end().to_owned() + "\n").collect()
}

/// Does something for each of these containers, also after errors. Each error is printed, and stands in its row as `error`.
pub fn each(tool: &str, ids: &[Id], mut act: impl FnMut(&Id) -> anyhow::Result<Value>) -> Value {
    let one = |id: &Id| match act(id) {
        Ok(row) => row,
        Err(error) => {
            failure::print(tool, &error);
            json!({"id": id, "error": format!("{error:#}")})
        }
    };
    Value::Array(ids.iter().map(one).collect())
}

/// What [`Report::verdict`](crate::Report::verdict) says of the rows of [`each`].
///
/// # Errors
/// When one of them has an `error`, which was printed.
pub fn verdict(rows: &Value) -> anyhow::Result<()> {
    match rows.as_array().into_iter().flatten().any(|row| row.get("error").is_some()) {
        true => Err(Ended(Exit::Failed).into()),
        false => Ok(()),
    }
}

/// The rows of [`each`] as lines of this format, without those that have an `error`.
pub fn lines(format: &str, rows: &Value) -> String {
    let good = rows.as_array().into_iter().flatten().filter(|row| row.get("error").is_none());
    good.map(|row| fill(format, row) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_text() {
        let row = json!({"id": "web", "command": ["a", "b"], "pid": null});
        assert_eq!(fill("{id} {command}|{pid}|{no} {", &row), "web a b||{no} {");
        let lines = [["A", "B"], ["long", "x"]].map(|line| line.map(str::to_owned));
        assert_eq!(table(&lines), "A      B\nlong   x\n");
    }

    #[test]
    fn an_error_of_one_is_none_of_the_others() {
        let ids: Vec<Id> = ["a", "b"].map(|id| id.parse().unwrap()).into();
        let rows = each("tool", &ids, |id| match id.as_str() {
            "a" => anyhow::bail!("no"),
            _ => Ok(json!({"id": id})),
        });
        assert_eq!(rows, json!([{"id": "a", "error": "no"}, {"id": "b"}]));
        assert!(verdict(&rows).is_err());
        assert_eq!(lines("{id}", &rows), "b\n");
        assert!(verdict(&json!([{"id": "b"}])).is_ok());
    }
}
