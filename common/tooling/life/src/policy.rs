use std::{fmt, str::FromStr, time::Duration};

/// The restart policy of a container, in Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never restart.
    #[default]
    No,
    /// Restart after a failure. The number limits the restarts.
    OnFailure(Option<u32>),
    /// Restart whenever the process has ended, unless somebody stopped it. Always start after a restart of
    /// the machine.
    Always,
    /// As `Always`, but not after a restart of the machine if somebody stopped the container before.
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

/// The first pause before a restart. Each pause is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// After a process that ran this long, the pause is the shortest again.
const STEADY: Duration = Duration::from_secs(10);

impl Restart {
    /// Whether to restart a process that nobody stopped. `status`: its exit status, if it is known.
    /// `restarts`: how often it was restarted before.
    pub(crate) fn wants(self, status: Option<i32>, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always | Self::UnlessStopped => true,
            Self::OnFailure(most) => status != Some(0) && most.is_none_or(|most| restarts < most),
        }
    }

    /// Whether to start a container after a restart of the machine. `ran`: whether it was running. `stopped`:
    /// whether somebody stopped it.
    pub(crate) fn outlives_machine(self, ran: bool, stopped: bool) -> bool {
        match self {
            Self::Always => true,
            Self::UnlessStopped => !stopped,
            Self::OnFailure(_) => ran && !stopped,
            Self::No => false,
        }
    }
}

/// The pause before the next restart. `ran`: how long the process ran. `before`: the pause before it.
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
