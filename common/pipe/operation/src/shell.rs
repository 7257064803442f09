//! Shell words, for `--explain`.

/// Quotes `word` for a POSIX shell. A word without special characters stays as it is; others get single
/// quotes.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Joins the words to one command line, quoted where needed.
pub fn words<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_shell_would_read_otherwise() {
        assert_eq!(
            words(["ip", "link", "add", "a b", "", "it's", "$x"]),
            r"ip link add 'a b' '' 'it'\''s' '$x'"
        );
    }
}
