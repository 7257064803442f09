use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

/// A point in time, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point(i128);

impl Point {
    /// The one so many nanoseconds after the beginning of 1970.
    pub fn from_nanoseconds(nanoseconds: i128) -> Self {
        Self(nanoseconds)
    }

    /// This moment.
    pub fn now() -> Self {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into()
    }

    /// How long it is from now on; nothing for one that has passed.
    pub fn from_now(self) -> Duration {
        u64::try_from(self.0 - Self::now().0).map_or(Duration::ZERO, Duration::from_nanos)
    }

    /// As RFC 3339 writes it; empty for one that no calendar has.
    pub fn text(self) -> String {
        Timestamp::from_nanosecond(self.0).map(|time| format!("{time:.9}")).unwrap_or_default()
    }
}

impl From<Duration> for Point {
    /// The one so long after the beginning of 1970.
    fn from(since: Duration) -> Self {
        Self(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX))
    }
}

impl FromStr for Point {
    type Err = String;

    /// A time of RFC 3339, seconds since 1970, or how long ago.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(seconds) = text.parse::<f64>() {
            return Ok(Self((seconds * 1e9) as i128));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self(time.as_nanosecond()));
        }
        let ago = operation::quantity::age(text).map_err(|_| {
            "it is a time such as 2026-01-02T15:04:05Z, seconds since 1970, or 10m for ten minutes ago"
                .to_owned()
        })?;
        Ok(Self(Self::now().0 - Self::from(ago).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_three_forms() {
        assert_eq!("1.5".parse(), Ok(Point(1_500_000_000)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Point(1_000_000_000)));
        assert!("10m".parse::<Point>().unwrap() > Point(0));
        assert!("yesterday".parse::<Point>().is_err());
        assert_eq!(Point(1_500_000_000).text(), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(Point(0).from_now(), Duration::ZERO);
    }
}
