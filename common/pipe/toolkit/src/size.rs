//! Sizes as a person writes them.

/// A number of bytes with an optional unit, each 1024 times the one before: `64G`.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err("a number, with K, M, G or T".into()),
    };
    let number = digits.parse::<u64>().map_err(|error| error.to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, size) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("3k", Some(3 << 10)),
            ("2GiB", Some(2 << 30)),
            ("1T", Some(1 << 40)),
        ] {
            assert_eq!(parse_size(text).ok(), size, "{text}");
        }
        for text in ["", "k", "-1", "1.5G", "1X", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
