//! Splits an instruction into its name, flags and words, or reads a JSON array.

/// Splits the text of an instruction into its name, its flags (`--from=x`, with quotes and escapes resolved)
/// and the rest.
pub(super) fn split_instruction(text: &str, escape: char) -> (&str, Vec<String>, &str) {
    let text = text.trim();
    let Some(end) = text.find([' ', '\t', '\u{b}', '\u{c}', '\r']) else { return (text, Vec::new(), "") };
    let (flags, rest) = flags(&text[end..], escape);
    (&text[..end], flags, rest.trim())
}

fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = unquoted_word(rest, escape);
        rest = after.trim_start();
        if word == "--" {
            break;
        }
        flags.push(word);
    }
    (flags, rest)
}

/// Splits the first word off `text`. Quotes and escapes in the word are resolved.
fn unquoted_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Splits the words of an ENV, LABEL or ARG at white space that is neither quoted nor escaped. Quotes and
/// escapes stay.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut begun = false;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if std::mem::take(&mut begun) || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                begun = true;
            }
            Some(open) if c == open => quote = None,
            _ => {}
        }
        // There are no escapes in single quotes.
        if c == escape && quote != Some('\'') {
            // An escape character at the very end is ignored.
            let Some(escaped) = chars.next() else { break };
            word.extend([c, escaped]);
        } else {
            word.push(c);
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The result of [`json`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings only.
    Strings(Vec<String>),
    /// An array with other elements.
    Mixed,
    /// Not a JSON array, so it is the shell form or plain words.
    None,
}

/// Reads the text as a JSON array.
pub(super) fn json(text: &str) -> Json {
    if !text.trim_start().starts_with('[') {
        return Json::None;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Json::None };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<_>>().map_or(Json::Mixed, Json::Strings)
}

pub(super) fn is_json(text: &str) -> bool {
    json(text) != Json::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_split() {
        for (text, name, flags, rest) in [
            ("RUN", "RUN", vec![], ""),
            ("RUN  ls -l ", "RUN", vec![], "ls -l"),
            ("COPY --from=a --chown=b c d", "COPY", vec!["--from=a", "--chown=b"], "c d"),
            ("COPY --from='a b' c d", "COPY", vec!["--from=a b"], "c d"),
            ("COPY --from=a\\ b c", "COPY", vec!["--from=a b"], "c"),
            ("RUN -- --x", "RUN", vec![], "--x"),
            ("RUN -x", "RUN", vec![], "-x"),
            ("COPY\t--link\ta b", "COPY", vec!["--link"], "a b"),
            ("COPY --ä=ö x", "COPY", vec!["--ä=ö"], "x"),
            ("RUN --x=\"a", "RUN", vec!["--x=a"], ""),
        ] {
            assert_eq!(
                split_instruction(text, '\\'),
                (name, flags.into_iter().map(String::from).collect(), rest)
            );
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (text, expected) in [
            ("a=b c='d e' f=\"g\\\" h\"", vec!["a=b", "c='d e'", "f=\"g\\\" h\""]),
            ("a=b\\ c d", vec!["a=b\\ c", "d"]),
            ("''", vec!["''"]),
            ("a='\\' b", vec!["a='\\'", "b"]),
            ("a=b\\", vec!["a=b"]),
            ("a=\"b c", vec!["a=\"b c"]),
            ("", vec![]),
        ] {
            assert_eq!(quoted_words(text, '\\'), expected, "{text}");
        }
    }

    #[test]
    fn json_arrays() {
        let strings = |list: &[&str]| Json::Strings(list.iter().map(|s| (*s).to_owned()).collect());
        for (text, expected) in [
            (r#"["a","b c"]"#, strings(&["a", "b c"])),
            (r#"  [ "a\u00e9" ]  "#, strings(&["aé"])),
            ("[]", strings(&[])),
            ("['a']", Json::None),
            (r#"["a""#, Json::None),
            (r#"["a"] b"#, Json::None),
            ("[1]", Json::Mixed),
            (r#"["a",["b"]]"#, Json::Mixed),
            ("echo [a]", Json::None),
        ] {
            assert_eq!(json(text), expected, "{text}");
        }
        assert_eq!(json(&"[".repeat(100_000)), Json::None);
    }
}
