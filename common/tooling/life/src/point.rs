use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// A point in time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(i128);

impl Point {
    /// The point this many nanoseconds after the beginning of 1970.
    pub fn from_nanoseconds(nanoseconds: i128) -> Self {
        Self(nanoseconds)
    }

    /// This moment.
    pub fn now() -> Self {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into()
    }

    /// The nanoseconds since the beginning of 1970.
    pub fn nanoseconds(self) -> i128 {
        self.0
    }

    /// The time from now until this point. Zero if the point has passed.
    pub fn from_now(self) -> Duration {
        u64::try_from(self.0 - Self::now().0).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// The point in the form of RFC 3339. Empty if it is outside the calendar.
    pub fn text(self) -> String {
        Timestamp::from_nanosecond(self.0).map(|time| format!("{time:.9}")).unwrap_or_default()
    }
}

impl From<Duration> for Point {
    /// The point this long after the beginning of 1970.
    fn from(since: Duration) -> Self {
        Self(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
    }
}

impl FromStr for Point {
    type Err = String;

    /// Parses a time of RFC 3339, a date or time of the machine's time zone (`2026-01-02T15:04`), seconds since
    /// 1970, or a duration before now (`10m`).
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, &TimeZone::system())
    }
}

impl Point {
    fn parse(text: &str, zone: &TimeZone) -> Result<Self, String> {
        if let Ok(seconds) = text.parse::<f64>() {
            return Ok(Self((seconds * 1e9) as i128));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time.as_nanosecond()));
        }
        if let Ok(time) = text.parse::<DateTime>() {
            let time = zone.to_timestamp(time).map_err(|error| error.to_string())?;
            return Ok(Self(time.as_nanosecond()));
        }
        let ago = operation::quantity::age(text).map_err(|_| {
            "it is a time such as 2026-01-02T15:04:05Z or 2026-01-02T15:04, seconds since 1970, or 10m for ten minutes ago"
                .to_owned()
        })?;
        Ok(Self(Self::now().0 - Self::from(ago).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_four_forms() {
        assert_eq!("1.5".parse(), Ok(Point(1_500_000_000)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Point(1_000_000_000)));
        assert!("10m".parse::<Point>().unwrap() > Point(0));
        let east = TimeZone::fixed(jiff::tz::offset(2));
        let hour = 3_600 * 1_000_000_000;
        for (text, nanoseconds) in [
            ("1970-01-02", 22 * hour),
            ("1970-01-01T03:00", hour),
            ("1970-01-01T03:00:01", hour + 1_000_000_000),
            ("1970-01-01T03:00:00+01:00", 2 * hour),
        ] {
            assert_eq!(Point::parse(text, &east), Ok(Point(nanoseconds)), "{text}");
        }
        assert!("yesterday".parse::<Point>().is_err());
        assert_eq!(Point(1_500_000_000).text(), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(Point(0).from_now(), Duration::ZERO);
    }
}
