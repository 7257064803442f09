//! Comma-separated values on one line (RFC 4180), as Docker reads flags with several fields.

/// Splits a line into fields. A field in double quotes may contain commas, and double quotes written twice.
///
/// # Errors
/// A description of the problem.
pub(crate) fn record(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(fields),
        }
    }
}

/// Returns the field up to the next comma, and the text after the comma.
fn plain_field(text: &str) -> Result<(String, Option<&str>), String> {
    let (field, behind) = match text.split_once(',') {
        Some((field, behind)) => (field, Some(behind)),
        None => (text, None),
    };
    match field.contains('"') {
        true => Err(format!("{field:?}: a double quote may only be at the beginning and the end of a field")),
        false => Ok((field.to_owned(), behind)),
    }
}

/// As [`plain_field`], for the text after an opening quote.
fn quoted_field(text: &str) -> Result<(String, Option<&str>), String> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((part, behind)) = rest.split_once('"') else {
            return Err("a double quote is not closed".to_owned());
        };
        field += part;
        match behind.chars().next() {
            Some('"') => {
                field.push('"');
                rest = &behind[1..];
            }
            Some(',') => return Ok((field, Some(&behind[1..]))),
            None => return Ok((field, None)),
            Some(_) => return Err("a comma is missing after a closing double quote".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_and_without_quotes() {
        for (line, fields) in [
            ("a,b=c", &["a", "b=c"][..]),
            ("", &[""]),
            ("a,,", &["a", "", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("\"\",x", &["", "x"]),
        ] {
            assert_eq!(record(line).unwrap(), fields, "{line}");
        }
        for (line, error) in [
            ("a\"b", "\"a\\\"b\": a double quote may only be at the beginning and the end of a field"),
            ("\"a", "a double quote is not closed"),
            ("\"a\"b,c", "a comma is missing after a closing double quote"),
        ] {
            assert_eq!(record(line), Err(error.to_owned()));
        }
    }
}
