//! A document as text. The functions here work on the text that was read, so that numbers keep their
//! spelling.

use indexmap::IndexMap;
use serde_json::value::RawValue;

/// The members on one line. Values keep their text, except for line breaks between tokens.
pub(crate) fn line(members: &IndexMap<String, Box<RawValue>>) -> String {
    let mut out = String::from("{");
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(name.as_str()).to_string());
        out.push(':');
        tokens(value.get(), |token| out.push_str(token));
    }
    out.push('}');
    out
}

/// JSON text indented like the output of `jq`, by two spaces for each level.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut opened = false;
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        // Nobody reads such deep nesting, and the indentation would grow with the square of the depth.
        out.push_str(&"  ".repeat(depth.min(100)));
    };
    tokens(json, |token| {
        let closes = matches!(token, "}" | "]");
        if opened && !closes {
            new_line(&mut out, depth);
        }
        match token {
            "{" | "[" => depth += 1,
            "}" | "]" => {
                depth = depth.saturating_sub(1);
                if !opened {
                    new_line(&mut out, depth);
                }
            }
            _ => {}
        }
        out.push_str(token);
        match token {
            "," => new_line(&mut out, depth),
            ":" => out.push(' '),
            _ => {}
        }
        opened = matches!(token, "{" | "[");
    });
    out
}

/// Calls `each` with every token of a valid JSON text: a punctuation character, a string with its quotes, or
/// another literal.
fn tokens(json: &str, mut each: impl FnMut(&str)) {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b' ' | b'\t' | b'\r' | b'\n' => {
                at += 1;
                continue;
            }
            b'"' => string_end(bytes, at),
            b'{' | b'}' | b'[' | b']' | b',' | b':' => at + 1,
            _ => {
                let stop = |b: &u8| b" \t\r\n{}[],:\"".contains(b);
                bytes[at..].iter().position(stop).map_or(bytes.len(), |length| at + length)
            }
        };
        each(&json[at..end]);
        at = end;
    }
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    #[test]
    fn indents_as_jq_does() {
        let indented = super::indent(r#"{"a":1,"b":[],"c":{"d":["x,\"{",null]}}"#);
        assert_eq!(
            indented,
            "{\n  \"a\": 1,\n  \"b\": [],\n  \"c\": {\n    \"d\": [\n      \"x,\\\"{\",\n      null\n    ]\n  }\n}"
        );
    }
}
