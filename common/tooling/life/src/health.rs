//! Docker's health checks: `Healthcheck` of the image, and flags that replace parts of it.

use std::time::Duration;

use document::members::{Checked, Health};
use monitor::{Outcome, Probe};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Point;

/// A health check, in the form of an image's configuration. Times are in nanoseconds; 0 means the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Check {
    #[serde(default)]
    test: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    interval: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    timeout: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    start_period: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    start_interval: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    retries: u64,
}

/// How many checks are kept, as with Docker.
const KEPT: usize = 5;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Flags that replace parts of the image's health check.
#[derive(Debug, Clone, Default)]
pub struct CheckFlags {
    /// Whether there is no check.
    pub none: bool,
    /// The command, for the image's shell.
    pub command: Option<String>,
    /// The time between two checks.
    pub interval: Option<Duration>,
    /// The longest time that a check may take.
    pub timeout: Option<Duration>,
    /// How long the container counts as starting. Failures do not count meanwhile.
    pub start_period: Option<Duration>,
    /// The time between two checks while the container is starting.
    pub start_interval: Option<Duration>,
    /// The number of consecutive failures that make the container unhealthy.
    pub retries: Option<u64>,
}

/// The health check of an image's configuration, with the flags applied. `None` if there is no check.
///
/// # Errors
/// When the image's `Healthcheck` does not have Docker's form.
pub fn of_image(configuration: Option<&Value>, flags: &CheckFlags) -> Result<Option<Value>, String> {
    let own = configuration.map(|whole| &whole["config"]["Healthcheck"]).filter(|value| !value.is_null());
    let mut check: Check = own
        .map(Check::deserialize)
        .transpose()
        .map_err(|error| format!("read Healthcheck of the image: {error}"))?
        .unwrap_or_default();
    if flags.none {
        return Ok(None);
    }
    if let Some(command) = &flags.command {
        check.test = vec!["CMD-SHELL".to_owned(), command.clone()];
    }
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    for (flag, field) in [
        (flags.interval, &mut check.interval),
        (flags.timeout, &mut check.timeout),
        (flags.start_period, &mut check.start_period),
        (flags.start_interval, &mut check.start_interval),
    ] {
        if let Some(time) = flag {
            *field = nanoseconds(time);
        }
    }
    check.retries = flags.retries.unwrap_or(check.retries);
    if check.command(None).is_none() {
        return Ok(None);
    }
    Ok(serde_json::to_value(check).ok())
}

impl Check {
    pub(crate) fn of(value: Option<&Value>) -> Option<Self> {
        Self::deserialize(value?).ok()
    }

    /// The command of the check. `None` if there is no check. `shell`: the image's `Shell`, which Docker uses for the
    /// check as well.
    pub(crate) fn command(&self, shell: Option<&Value>) -> Option<Vec<String>> {
        match self.test.split_first() {
            Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
            Some((kind, words)) if kind == "CMD-SHELL" && !words.is_empty() => {
                let of_image = shell.and_then(|shell| Vec::<String>::deserialize(shell).ok());
                let shell = of_image.filter(|shell| !shell.is_empty());
                let shell = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                Some([shell, vec![words.join(" ")]].concat())
            }
            _ => None,
        }
    }

    /// The times of the check, with Docker's defaults.
    pub(crate) fn probe(&self) -> Probe {
        let or = |nanoseconds: u64, seconds: u64| match nanoseconds {
            0 => Duration::from_secs(seconds),
            time => Duration::from_nanos(time),
        };
        let interval = or(self.interval, 30);
        Probe {
            interval,
            start_interval: or(self.start_interval, 5),
            start_period: or(self.start_period, 0),
            timeout: or(self.timeout, 30),
        }
    }

    /// The health after another check, whose outcome is `outcome`.
    pub(crate) fn after(&self, before: &Health, outcome: &Outcome) -> Health {
        let retries = if self.retries == 0 { 3 } else { self.retries };
        let (exit_status, output) = (outcome.status, outcome.output.clone());
        let (status, failing_streak) = match outcome.status {
            Some(0) => ("healthy", 0),
            _ if outcome.is_starting => (before.status.as_str(), before.failing_streak),
            _ if u64::from(before.failing_streak) + 1 >= retries => ("unhealthy", before.failing_streak + 1),
            _ => (before.status.as_str(), before.failing_streak + 1),
        };
        let checked = Checked {
            started: Point::from(outcome.began).text(),
            finished: Point::now().text(),
            exit_status,
            output: output.clone(),
        };
        let earlier = before.log.iter().skip((before.log.len() + 1).saturating_sub(KEPT));
        let log = earlier.cloned().chain([checked]).collect();
        Health { status: status.to_owned(), failing_streak, exit_status, output, log }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn flags_replace_parts_of_the_images_check() {
        let image =
            json!({"config": {"Healthcheck": {"Test": ["CMD", "a", "b"], "Interval": 5_000_000_000_u64}}});
        let check = |flags: &CheckFlags| {
            of_image(Some(&image), flags).unwrap().map(|value| Check::of(Some(&value)).unwrap())
        };
        let own = check(&CheckFlags::default()).unwrap();
        assert_eq!(own.command(None).unwrap(), ["a", "b"]);
        assert_eq!((own.probe().interval.as_secs(), own.probe().timeout.as_secs()), (5, 30));
        let flags = CheckFlags { command: Some("x y".into()), retries: Some(1), ..CheckFlags::default() };
        assert_eq!(check(&flags).unwrap().command(None).unwrap(), ["/bin/sh", "-c", "x y"]);
        let shell = json!(["/bin/bash", "-o", "pipefail", "-c"]);
        let command = check(&flags).unwrap().command(Some(&shell)).unwrap();
        assert_eq!(command, ["/bin/bash", "-o", "pipefail", "-c", "x y"]);
        assert_eq!(own.command(Some(&shell)).unwrap(), ["a", "b"]);
        assert_eq!(check(&CheckFlags { none: true, ..CheckFlags::default() }), None);
        assert_eq!(
            of_image(Some(&json!({"config": {"Healthcheck": {"Test": ["NONE"]}}})), &CheckFlags::default()),
            Ok(None)
        );
        assert_eq!(of_image(None, &CheckFlags::default()), Ok(None));
    }

    #[test]
    fn failures_count_once_it_has_started() {
        let check = Check { retries: 2, ..Check::default() };
        let outcome = |status, is_starting| Outcome {
            status,
            began: Duration::ZERO,
            output: String::new(),
            is_starting,
        };
        let mut health: Health = Health::starting();
        for (outcome, status, streak) in [
            (outcome(Some(1), true), "starting", 0),
            (outcome(Some(0), false), "healthy", 0),
            (outcome(None, false), "healthy", 1),
            (outcome(Some(1), false), "unhealthy", 2),
            (outcome(Some(0), false), "healthy", 0),
        ] {
            health = check.after(&health, &outcome);
            assert_eq!((health.status.as_str(), health.failing_streak), (status, streak));
        }
        let kept: Vec<_> = health.log.iter().map(|checked| checked.exit_status).collect();
        assert_eq!(kept, [Some(1), Some(0), None, Some(1), Some(0)]);
        assert_eq!(check.after(&health, &outcome(Some(9), false)).log.len(), 5);
    }
}
