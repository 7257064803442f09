//! Times as images write them (RFC 3339), in seconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::{
    SignedDuration,
    civil::{DateTime, date},
    fmt::temporal::Pieces,
};

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The variable with the time of everything in an image (reproducible-builds.org).
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The value of this variable that stands for the time of a build's context.
pub const CONTEXT: &str = "context";

/// The last second of the year 9999. RFC 3339 has no later one.
const LAST: i64 = 253_402_300_799;

/// A value of `SOURCE_DATE_EPOCH` that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read SOURCE_DATE_EPOCH {0:?}: it is not a number of seconds since 1970")]
pub struct InvalidEpoch(String);

/// The time in `SOURCE_DATE_EPOCH` of the environment, for reproducible builds; None if it is not set or empty.
///
/// # Errors
/// [`InvalidEpoch`].
pub fn source_date_epoch() -> Result<Option<i64>, InvalidEpoch> {
    std::env::var_os(SOURCE_DATE_EPOCH).map_or(Ok(None), |text| epoch(&text.to_string_lossy()))
}

/// Parses a value of `SOURCE_DATE_EPOCH`: a whole number of seconds since 1970, until the year 9999. None if it
/// is empty.
///
/// # Errors
/// [`InvalidEpoch`].
pub fn epoch(text: &str) -> Result<Option<i64>, InvalidEpoch> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = text.parse().ok().filter(|seconds| is_number && (0..=LAST).contains(seconds));
    seconds.map(Some).ok_or_else(|| InvalidEpoch(text.to_owned()))
}

/// The current time, or the time in `SOURCE_DATE_EPOCH` (reproducible-builds.org).
pub fn now() -> i64 {
    source_date_epoch().ok().flatten().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// Formats a time as `2024-02-29T12:00:00Z`.
pub fn format(seconds: i64) -> String {
    // RFC 3339 allows only years of four digits.
    let (first, last) = (date(0, 1, 1).at(0, 0, 0, 0), date(9999, 12, 31).at(23, 59, 59, 0));
    let time = EPOCH.saturating_add(SignedDuration::from_secs(seconds)).clamp(first, last);
    format!("{time}Z")
}

/// Parses a time such as `2024-02-29T12:00:00.5+01:00`. Fractions of a second are dropped. None if `text` is
/// not such a time.
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    // ISO 8601 also allows years of six digits, and dates without `-`.
    if text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.date().to_datetime(pieces.time()?), pieces.to_numeric_offset()?);
    // Only a point in time is accepted, without a time zone or calendar.
    if pieces.time_zone_annotation().is_some() {
        return None;
    }
    let whole = time.with().subsec_nanosecond(0).build().ok()?;
    Some(whole.duration_since(EPOCH).as_secs() - i64::from(offset.seconds()))
}

/// The age of `then`, in Docker's words: `3 weeks ago`.
pub fn ago(then: i64, now: i64) -> String {
    let seconds = (now - then).max(0);
    let (count, unit) = match seconds {
        0 => return "Less than a second ago".to_owned(),
        1 => (1, "second"),
        2..60 => (seconds, "second"),
        60..120 => return "About a minute ago".to_owned(),
        120..3600 => (seconds / 60, "minute"),
        3600..5400 => return "About an hour ago".to_owned(),
        5400..172_800 => ((seconds + 1800) / 3600, "hour"),
        172_800..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2001-09-09T01:46:40Z", 1_000_000_000),
            ("1969-12-31T23:59:59Z", -1),
            ("0000-01-01T00:00:00Z", -62_167_219_200),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
        ] {
            assert_eq!(format(seconds), text);
            assert_eq!(parse(text), Some(seconds));
        }
        assert_eq!(parse("2024-01-01T01:00:00.123456789+01:00"), parse("2024-01-01T00:00:00Z"));
        assert_eq!(parse("2023-12-31T19:00:00-05:00"), parse("2024-01-01T00:00:00Z"));
        for wrong in [
            "",
            "x",
            "2024-01-01",
            "2024-13-01T00:00:00Z",
            "2024-02-31T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00[UTC]",
            "2024-01-01T0:0Z",
            "-000001-01-01T00:00:00Z",
            "20240101T000000Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(format(i64::MIN), "0000-01-01T00:00:00Z");
        assert_eq!(format(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn times_of_reproducible_builds() {
        for (text, time) in [("", None), (" \n", None), ("0", Some(0)), ("1700000000\n", Some(1_700_000_000))]
        {
            assert_eq!(epoch(text), Ok(time), "{text:?}");
        }
        for text in ["soon", "1.5", "-1", "+1", "1e9", "253402300800", "99999999999999999999"] {
            assert_eq!(epoch(text), Err(InvalidEpoch(text.to_owned())));
        }
    }

    #[test]
    fn in_words() {
        for (seconds, words) in [
            (0, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (90, "About a minute ago"),
            (3600, "About an hour ago"),
            (7200, "2 hours ago"),
            (3 * 86_400, "3 days ago"),
            (21 * 86_400, "3 weeks ago"),
            (90 * 86_400, "3 months ago"),
            (800 * 86_400, "2 years ago"),
        ] {
            assert_eq!(ago(0, seconds), words);
        }
    }
}
