//! Reports with one row for each of several things. They are printed as JSON, as a table for people, or as
//! lines for scripts.

use document::{Id, record};
use operation::{Scope, printable_word};
use serde_json::{Value, json};

use crate::{Exit, failure, failure::Ended};

/// A value as text. The elements of an array are joined by spaces. A missing value is empty.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(word).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Fills each `{member}` of the row into `format`. Other braces stay as they are. Control characters of a value
/// become `?`: it may come from a container, and each row is one line.
pub fn fill(format: &str, row: &Value) -> String {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        text += before;
        let member = after.split_once('}').and_then(|(name, behind)| Some((row.get(name)?, behind)));
        match member {
            Some((value, behind)) => {
                text += &printable_word(&word(value));
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

/// Formats lines of cells as columns. Each column is as wide as its widest cell. The first line has the
/// headings. Control characters become `?`.
pub fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let lines: Vec<[String; N]> =
        lines.iter().map(|line| line.each_ref().map(|cell| printable_word(cell).into_owned())).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let pad = |line: &[String; N]| -> String {
        line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect()
    };
    lines.iter().map(|line| pad(line).trim_end().to_owned() + "\n").collect()
}

/// Calls `act` for each container, and continues after errors. Each error is printed, and is the member
/// `error` of its row.
pub fn each(tool: &str, ids: &[Id], mut act: impl FnMut(&Id) -> anyhow::Result<Value>) -> Value {
    let one = |id: &Id| match act(id) {
        Ok(row) => row,
        Err(error) => {
            failure::print(tool, &error);
            json!({"id": id, "error": failure::report_line(&error)})
        }
    };
    Value::Array(ids.iter().map(one).collect())
}

/// The row that `act` gives for a container, with what the container is called.
///
/// # Errors
/// Those of `act`.
pub fn called(scope: &Scope, id: &Id, act: impl FnOnce() -> anyhow::Result<Value>) -> anyhow::Result<Value> {
    let name = || record::read(&scope.run_dir, id).ok().flatten()?.called(id).ok();
    // A container may remove itself at its end. After a restart of the machine, it has no record before its start.
    let before = name();
    let mut row = act()?;
    row["name"] = json!(before.or_else(name).as_ref().unwrap_or(id));
    Ok(row)
}

/// Whether it is the row of an error of [`each`]. The member `error` of a document is an object.
fn has_failed(row: &Value) -> bool {
    row.get("error").is_some_and(Value::is_string)
}

/// [`Report::verdict`](crate::Report::verdict) for the rows of [`each`].
///
/// # Errors
/// When a row has an `error`. It was printed already.
pub fn verdict(rows: &Value) -> anyhow::Result<()> {
    match rows.as_array().into_iter().flatten().any(has_failed) {
        true => Err(Ended(Exit::Failed).into()),
        false => Ok(()),
    }
}

/// The rows of [`each`] without those that have an `error`.
pub fn good(rows: &Value) -> impl Iterator<Item = &Value> {
    rows.as_array().into_iter().flatten().filter(|row| !has_failed(row))
}

/// The rows of [`each`] in this format, one line each. Rows with an `error` are left out.
pub fn lines(format: &str, rows: &Value) -> String {
    good(rows).map(|row| fill(format, row) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_as_text() {
        let row = json!({"id": "web", "command": ["a", "b"], "pid": null});
        assert_eq!(fill("{id} {command}|{pid}|{no} {", &row), "web a b||{no} {");
        assert_eq!(fill("{a}\t{a}", &json!({"a": "x\u{1b}[31m\ny"})), "x?[31m?y\tx?[31m?y");
        assert_eq!(table(&[["x\u{7}\ny".to_owned()]]), "x??y\n");
        let lines = [["A", "B"], ["long", "x"]].map(|line| line.map(str::to_owned));
        assert_eq!(table(&lines), "A      B\nlong   x\n");
    }

    #[test]
    fn an_error_of_one_is_none_of_the_others() {
        let ids: Vec<Id> = ["a", "b"].map(|id| id.parse().unwrap()).into();
        let rows = each("tool", &ids, |id| match id.as_str() {
            // Its text names its cause, which is in the chain as well.
            "a" => Err(operation::Error::new("open", "x", nix::errno::Errno::EIO).into()),
            _ => Ok(json!({"id": id})),
        });
        assert_eq!(rows, json!([{"id": "a", "error": "open x: I/O error"}, {"id": "b"}]));
        assert!(verdict(&rows).is_err());
        assert_eq!(lines("{id}", &rows), "b\n");
        assert!(verdict(&json!([{"id": "b"}])).is_ok());
    }
}
