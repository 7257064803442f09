use std::{fmt, str::FromStr, time::Duration};

/// When a container's process is started again by itself, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, at most so often if that is told.
    OnFailure(Option<u32>),
    /// Whenever it has ended, unless somebody stopped it; and after a restart of the machine in any case.
    Always,
    /// The same, but not after a restart of the machine if it was stopped before.
    UnlessStopped,
}

impl FromStr for Restart {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("on-failure:")) {
            ("no" | "", _) => Ok(Self::No),
            ("always", _) => Ok(Self::Always),
            ("unless-stopped", _) => Ok(Self::UnlessStopped),
            ("on-failure", _) => Ok(Self::OnFailure(None)),
            (_, Some(most)) => match most.parse() {
                // As with Docker, 0 is no limit.
                Ok(0) => Ok(Self::OnFailure(None)),
                Ok(most) => Ok(Self::OnFailure(Some(most))),
                Err(_) => Err(format!("{most:?} is not a number of restarts")),
            },
            _ => Err("it is no, on-failure[:N], always or unless-stopped".to_owned()),
        }
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => formatter.write_str("no"),
            Self::OnFailure(None) => formatter.write_str("on-failure"),
            Self::OnFailure(Some(most)) => write!(formatter, "on-failure:{most}"),
            Self::Always => formatter.write_str("always"),
            Self::UnlessStopped => formatter.write_str("unless-stopped"),
        }
    }
}

/// The first pause before a process is started again; each one is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// A process that ran so long begins with the shortest pause again.
const STEADY: Duration = Duration::from_secs(10);

impl Restart {
    /// Whether a process that nobody stopped is started again, after it has ended with this status, if that is known, and was
    /// started again so often before.
    pub(crate) fn wants(self, status: Option<i32>, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(most) => status != Some(0) && most.is_none_or(|most| restarts < most),
        }
    }

    /// Whether a container runs after a restart of the machine, which was running before or not, and was stopped or not.
    pub(crate) fn outlives_machine(self, ran: bool, stopped: bool) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStopped => !stopped,
            Self::OnFailure(_) => ran && !stopped,
            Self::No => false,
        }
    }
}

/// The next pause, after a process that ran so long, and the pause before it.
pub(crate) fn pause(ran: Duration, before: Option<Duration>) -> Duration {
    match before {
        Some(before) if ran < STEADY => (before * 2).min(LONGEST),
        _ => SHORTEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_what_they_mean() {
        for (text, status, restarts, again) in [
            ("no", Some(1), 0, false),
            ("always", Some(0), 9, true),
            ("unless-stopped", None, 9, true),
            ("on-failure", Some(0), 0, false),
            ("on-failure", Some(1), 9, true),
            ("on-failure", None, 0, true),
            ("on-failure:3", Some(1), 2, true),
            ("on-failure:3", Some(1), 3, false),
        ] {
            let policy: Restart = text.parse().unwrap();
            assert_eq!(policy.wants(status, restarts), again, "{text} {status:?} {restarts}");
            assert_eq!(policy.to_string(), text);
        }
        for text in ["never", "on-failure:", "on-failure:-1", "always:3"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
    }

    #[test]
    fn pauses_grow() {
        let short = Duration::from_millis(5);
        assert_eq!(pause(short, None), SHORTEST);
        assert_eq!(pause(short, Some(SHORTEST)), 2 * SHORTEST);
        assert_eq!(pause(short, Some(Duration::from_secs(50))), LONGEST);
        assert_eq!(pause(STEADY, Some(LONGEST)), SHORTEST);
    }
}
