//! Sizes, times and truth values, as arguments and a Dockerfile have them.

use std::{ops::RangeInclusive, time::Duration};

/// Parses a number of bytes with an optional unit: `64G`, `1 gib`, `512kb`, `1.5g`. Each unit is 1024 times the one
/// before. A part of a byte is left out.
///
/// # Errors
/// What is wrong, in words.
pub fn size(text: &str) -> Result<u64, String> {
    let number = leading(text, |c| c.is_ascii_digit() || c == '.');
    let unit = &text[number.len()..];
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("a number, with K, M, G or T".into()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return Err("a number, with K, M, G or T".into());
    }
    times(number, 1 << shift).ok_or_else(|| "too large".into())
}

/// Parses a truth value, with the words of Go's `strconv.ParseBool`. None for another word.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Units of time, in nanoseconds.
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
    ("d", 24 * 3600 * SECOND),
];
const SECOND: u64 = 1_000_000_000;
/// The longest `time.Duration` of Go, in nanoseconds.
const LONGEST: u64 = i64::MAX as u64;

/// Parses a time in the form of Go's `time.ParseDuration`, which Dockerfiles use: `30s`, `1m30s`, `1.5h`.
/// There is no unit for days, and no sign but `+`.
///
/// # Errors
/// What is wrong, in Go's words.
pub fn duration(text: &str) -> Result<Duration, String> {
    sum(text, |unit| unit != "d")
}

/// Parses a time in an argument. The form is that of [`duration`], and also takes days (`7d`) and a plain
/// number of seconds.
///
/// # Errors
/// What is wrong, in words.
pub fn age(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    sum(text, |_| true).map_err(|_| "a number with s, m, h or d".into())
}

fn sum(text: &str, known: impl Fn(&str) -> bool) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let number = leading(rest, |c| c.is_ascii_digit() || c == '.');
        rest = &rest[number.len()..];
        if rest.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let unit = leading(rest, |c| !c.is_ascii_digit() && c != '.');
        rest = &rest[unit.len()..];
        let nanoseconds = UNITS.iter().find(|(name, _)| *name == unit && known(unit)).map(|(_, size)| *size);
        let nanoseconds =
            nanoseconds.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        let part = times(number, nanoseconds).ok_or_else(invalid)?;
        total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or_else(invalid)?;
    }
    Ok(Duration::from_nanos(total))
}

/// The longest prefix of `text` whose characters all match.
fn leading(text: &str, matches: impl Fn(char) -> bool) -> &str {
    &text[..text.find(|c| !matches(c)).unwrap_or(text.len())]
}

/// A decimal number times a whole number, rounded down.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // More digits would change less than a nanosecond, even of a day.
    let fraction = &fraction[..fraction.len().min(17)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part =
        if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? * u128::from(unit) / scale };
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// The ranges in a list of numbers such as `0-2,4` (cpuset(7), "List format"). None if it is no such list.
pub fn ranges(list: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some(first..=last)
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("3k", Some(3 << 10)),
            ("64mb", Some(64 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1 T", Some(1 << 40)),
            ("12b", Some(12)),
            ("", None),
            ("k", None),
            ("-1", None),
            ("+1", None),
            ("1.5G", Some(3 << 29)),
            ("0.5k", Some(512)),
            ("1.9", Some(1)),
            ("1.0000000000000000000000000k", Some(1024)),
            (".5g", None),
            ("1.g", None),
            ("1.2.3g", None),
            ("99999999999999999999", None),
            ("1X", None),
            ("99999999999T", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn truth_values() {
        for (words, value) in [
            (["1", "t", "T", "true", "TRUE", "True"], Some(true)),
            (["0", "f", "F", "false", "FALSE", "False"], Some(false)),
            (["", "yes", "on", "tRUE", " 1", "2"], None),
        ] {
            words.iter().for_each(|word| assert_eq!(truth(word), value, "{word}"));
        }
    }

    #[test]
    fn times() {
        for (text, in_a_dockerfile, as_an_argument) in [
            ("30s", Some(30_000_000_000), Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000), Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000), Some(5_400_000_000_000)),
            (".5s", Some(500_000_000), Some(500_000_000)),
            ("1.s", Some(1_000_000_000), Some(1_000_000_000)),
            ("0.1s", Some(100_000_000), Some(100_000_000)),
            ("0.333333333333333333333s", Some(333_333_333), Some(333_333_333)),
            ("100ms", Some(100_000_000), Some(100_000_000)),
            ("1µs", Some(1000), Some(1000)),
            ("+1s", Some(1_000_000_000), Some(1_000_000_000)),
            ("0", Some(0), Some(0)),
            ("5", None, Some(5_000_000_000)),
            ("2d", None, Some(172_800_000_000_000)),
            ("", None, None),
            ("s", None, None),
            (".s", None, None),
            ("-1s", None, None),
            ("1w", None, None),
            ("99999999999h", None, None),
            ("1.2.3s", None, None),
            ("1 s", None, None),
        ] {
            let nanoseconds = |time: Result<Duration, String>| time.ok().map(|time| time.as_nanos());
            assert_eq!(nanoseconds(duration(text)), in_a_dockerfile, "{text}");
            assert_eq!(nanoseconds(age(text)), as_an_argument, "{text}");
        }
        for (text, problem) in [
            ("5", "time: missing unit in duration \"5\""),
            ("5d", "time: unknown unit \"d\" in duration \"5d\""),
            ("s", "time: invalid duration \"s\""),
        ] {
            assert_eq!(duration(text), Err(problem.to_owned()));
        }
    }
}
