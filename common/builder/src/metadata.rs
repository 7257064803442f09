//! Instructions that change an image's configuration and no files.

use crate::{
    config::{Config, Empty, Image},
    dockerfile::{
        Instruction,
        expand::{ExpandError, Expander},
        instruction::{CommandLine, Healthcheck, Pair},
    },
};

/// Why an instruction that changes the configuration failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A variable cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// EXPOSE names something other than a port.
    #[error("invalid containerPort: {0}")]
    Port(String),
    /// EXPOSE names an unknown protocol.
    #[error("invalid proto: {0}")]
    Protocol(String),
    /// STOPSIGNAL names something other than a signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A name is empty.
    #[error("{0} names can not be blank")]
    Blank(&'static str),
    /// The path of a VOLUME is empty.
    #[error("VOLUME specified can not be an empty string")]
    Volume,
}

/// A list of words in the form of the history, `["/bin/bash" "-c"]`.
fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

fn words_of(command: &CommandLine, config: &Config) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words.clone(),
        CommandLine::Shell(text) => {
            let mut words = config.shell();
            words.push(text.clone());
            words
        }
    }
}

/// The effect of an instruction on a configuration.
pub struct Change {
    /// The text of the instruction for the history.
    pub text: String,
    apply: Box<dyn FnOnce(&mut Image)>,
}

impl Change {
    fn of(text: String, apply: impl FnOnce(&mut Config) + 'static) -> Self {
        Self { text, apply: Box::new(|image| apply(&mut image.config)) }
    }

    /// Changes the configuration. The history stays as it is.
    pub fn apply(self, image: &mut Image) {
        (self.apply)(image);
    }
}

/// The effect of an instruction on the configuration of `image`, which is not changed so far. `command_is_set` says
/// whether this stage has had a CMD, because an ENTRYPOINT removes an inherited CMD only. Returns `None` for
/// instructions that do more than change the configuration.
///
/// # Errors
/// [`MetadataError`].
pub fn change(
    instruction: &Instruction,
    image: &Image,
    expander: &Expander,
    command_is_set: bool,
) -> Result<Option<Change>, MetadataError> {
    let change = match instruction {
        Instruction::Cmd(command) => cmd(command, &image.config),
        Instruction::Entrypoint(command) => entrypoint(command, &image.config, command_is_set),
        Instruction::Env(pairs) => {
            let pairs = expanded(pairs, expander, "ENV")?;
            Change::of(text_of("ENV", &pairs), move |config| {
                pairs.iter().for_each(|(name, value)| config.set_variable(name, value));
            })
        }
        Instruction::Label(pairs) => {
            let pairs = expanded(pairs, expander, "LABEL")?;
            Change::of(text_of("LABEL", &pairs), |config| config.labels.extend(pairs))
        }
        Instruction::Expose(ports) => expose(ports, expander)?,
        Instruction::Healthcheck(check) => healthcheck(check),
        Instruction::Maintainer(author) => {
            let author = author.clone();
            let text = format!("MAINTAINER {author}");
            Change { text, apply: Box::new(|image| image.author = Some(author)) }
        }
        Instruction::Onbuild(trigger) => {
            let trigger = trigger.clone();
            Change::of(format!("ONBUILD {trigger}"), |config| config.on_build.push(trigger))
        }
        Instruction::Shell(shell) => {
            let shell = shell.clone();
            Change::of(format!("SHELL [{}]", shell.join(" ")), |config| config.shell = Some(shell))
        }
        Instruction::StopSignal(signal) => stop_signal(expander.word(signal)?)?,
        Instruction::User(user) => {
            let user = expander.word(user)?;
            Change::of(format!("USER {user}"), |config| config.user = user)
        }
        Instruction::Volume(paths) => volume(paths, expander)?,
        Instruction::Add(_)
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => return Ok(None),
    };
    Ok(Some(change))
}

fn cmd(command: &CommandLine, config: &Config) -> Change {
    let words = words_of(command, config);
    Change::of(format!("CMD {}", quoted(&words)), |config| {
        config.cmd = Some(words).filter(|words| !words.is_empty());
    })
}

fn entrypoint(command: &CommandLine, config: &Config, command_is_set: bool) -> Change {
    let words = words_of(command, config);
    Change::of(format!("ENTRYPOINT {}", quoted(&words)), move |config| {
        config.entrypoint = Some(words).filter(|words| !words.is_empty());
        if !command_is_set {
            config.cmd = None;
        }
    })
}

fn stop_signal(signal: String) -> Result<Change, MetadataError> {
    match is_signal(&signal) {
        true => Ok(Change::of(format!("STOPSIGNAL {signal}"), |config| config.stop_signal = Some(signal))),
        false => Err(MetadataError::Signal(signal)),
    }
}

fn volume(paths: &[String], expander: &Expander) -> Result<Change, MetadataError> {
    let volumes = paths.iter().map(|path| expander.word(path)).collect::<Result<Vec<_>, _>>()?;
    if volumes.iter().any(String::is_empty) {
        return Err(MetadataError::Volume);
    }
    Ok(Change::of(format!("VOLUME [{}]", volumes.join(" ")), |config| {
        config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
    }))
}

/// Expands names and values. All of them see the variables as they were before the instruction.
pub(crate) fn expanded(
    pairs: &[Pair],
    expander: &Expander,
    of: &'static str,
) -> Result<Vec<(String, String)>, MetadataError> {
    let both = |pair: &Pair| Ok((expander.word(&pair.name)?, expander.word(&pair.value)?));
    let pairs = pairs.iter().map(both).collect::<Result<Vec<_>, ExpandError>>()?;
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        return Err(MetadataError::Blank(of));
    }
    Ok(pairs)
}

/// Pairs in the form of the history: `ENV a=b c=d`.
fn text_of(instruction: &str, pairs: &[(String, String)]) -> String {
    let text = instruction.to_owned();
    pairs.iter().fold(text, |text, (name, value)| text + " " + name + "=" + value)
}

fn expose(ports: &[String], expander: &Expander) -> Result<Change, MetadataError> {
    let exposed = exposed(ports, expander)?;
    Ok(Change::of(format!("EXPOSE [{}]", exposed.join(" ")), |config| {
        config.exposed_ports.extend(exposed.into_iter().map(|port| (port, Empty {})));
    }))
}

/// The ports of an EXPOSE, each with its protocol.
pub(crate) fn exposed(ports: &[String], expander: &Expander) -> Result<Vec<String>, MetadataError> {
    let mut exposed = Vec::new();
    for port in ports {
        for word in expander.words(port)? {
            exposed.extend(port_range(&word)?);
        }
    }
    Ok(exposed)
}

/// Parses `80`, `53/udp` or `8000-8010/tcp`. Of `8080:80`, the last part is the container's port.
fn port_range(word: &str) -> Result<Vec<String>, MetadataError> {
    let (ports, protocol) = word.split_once('/').unwrap_or((word, ""));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(MetadataError::Protocol(protocol));
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let number = |text: &str| text.parse::<u16>().map_err(|_| MetadataError::Port(ports.to_owned()));
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(ports)?, number(ports)?),
    };
    if first > last {
        return Err(MetadataError::Port(ports.to_owned()));
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn healthcheck(check: &Healthcheck) -> Change {
    let mut value = serde_json::json!({ "Test": check.test });
    let times = [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", i64::from(check.retries)),
    ];
    for (name, number) in times.into_iter().filter(|(_, number)| *number != 0) {
        value[name] = number.into();
    }
    // As BuildKit has it in the history.
    let text = format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    );
    Change::of(text, |config| config.healthcheck = Some(value))
}

/// A time in nanoseconds as Go prints it: `0s`, `1.5ms`, `1m0s`.
pub(crate) fn duration(time: i64) -> String {
    let second = 1_000_000_000;
    let of = |unit: i64, name: &str| {
        // Minutes and hours are printed apart.
        let whole = time / unit % if unit == second { 60 } else { 1000 };
        let digits = format!("{:09}", time % unit * (second / unit));
        match digits.trim_end_matches('0') {
            "" => format!("{whole}{name}"),
            digits => format!("{whole}.{digits}{name}"),
        }
    };
    let (hours, minutes) = (time / second / 3600, time / second / 60 % 60);
    match time {
        0 => "0s".to_owned(),
        1..1_000 => format!("{time}ns"),
        1_000..1_000_000 => of(1_000, "µs"),
        1_000_000..1_000_000_000 => of(1_000_000, "ms"),
        _ if hours > 0 => format!("{hours}h{minutes}m{}", of(second, "s")),
        _ if minutes > 0 => format!("{minutes}m{}", of(second, "s")),
        _ => of(second, "s"),
    }
}

/// Whether the text is a signal: a number, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: Option<&str>, sign: &str| {
        rest.is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(sign)
                    .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| (1..=15).contains(&n)))
        })
    };
    const NAMES: &str = " ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP \
                         SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ ";
    (!name.contains(' ') && !name.is_empty() && NAMES.contains(&format!(" {name} ")))
        || real_time(name.strip_prefix("RTMIN"), "+")
        || real_time(name.strip_prefix("RTMAX"), "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile;

    /// The text for the history, and the new configuration.
    fn follow(text: &str, image: &Image) -> Result<(String, Image), MetadataError> {
        let file = dockerfile::parse(format!("FROM a\n{text}").as_bytes()).unwrap();
        let variables = |name: &str| match name {
            "ports" => Some("80 443/udp".to_owned()),
            "x" => Some("y".to_owned()),
            name => image.config.variable(name).map(str::to_owned),
        };
        let expander = Expander::new('\\', &variables);
        let change = change(&file.stages[0].statements[0].instruction, image, &expander, false)?.unwrap();
        let (text, mut image) = (change.text.clone(), image.clone());
        change.apply(&mut image);
        Ok((text, image))
    }

    #[test]
    fn times_as_go_prints_them() {
        for (time, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (200_000_000, "200ms"),
            (5_000_000_000, "5s"),
            (61_250_000_000, "1m1.25s"),
            (5_400_000_000_000, "1h30m0s"),
        ] {
            assert_eq!(duration(time), expected);
        }
    }

    #[test]
    fn the_configuration_and_the_history() {
        let base = Image::scratch(None);
        for (text, history, pointer, expected) in [
            ("CMD [\"/bin/bash\"]", "CMD [\"/bin/bash\"]", "/config/Cmd", r#"["/bin/bash"]"#),
            ("CMD a $x", "CMD [\"/bin/sh\" \"-c\" \"a $x\"]", "/config/Cmd", r#"["/bin/sh","-c","a $x"]"#),
            ("ENTRYPOINT [\"a\"]", "ENTRYPOINT [\"a\"]", "/config/Entrypoint", r#"["a"]"#),
            ("ENV a=$x b='c d'", "ENV a=y b=c d", "/config/Env/1", r#""a=y""#),
            ("LABEL \"a b\"=\"$x\"", "LABEL a b=y", "/config/Labels", r#"{"a b":"y"}"#),
            (
                "EXPOSE $ports",
                "EXPOSE [80/tcp 443/udp]",
                "/config/ExposedPorts",
                r#"{"443/udp":{},"80/tcp":{}}"#,
            ),
            (
                "EXPOSE 81-82/UDP",
                "EXPOSE [81/udp 82/udp]",
                "/config/ExposedPorts",
                r#"{"81/udp":{},"82/udp":{}}"#,
            ),
            ("USER $x:7", "USER y:7", "/config/User", r#""y:7""#),
            ("VOLUME /a \"/b\"", "VOLUME [/a /b]", "/config/Volumes", r#"{"/a":{},"/b":{}}"#),
            ("STOPSIGNAL sigterm", "STOPSIGNAL sigterm", "/config/StopSignal", r#""sigterm""#),
            (
                "SHELL [\"/bin/bash\", \"-c\"]",
                "SHELL [/bin/bash -c]",
                "/config/Shell",
                r#"["/bin/bash","-c"]"#,
            ),
            ("MAINTAINER me", "MAINTAINER me", "/author", r#""me""#),
            ("ONBUILD RUN $x", "ONBUILD RUN $x", "/config/OnBuild", r#"["RUN $x"]"#),
            (
                "HEALTHCHECK --interval=1s CMD a",
                "HEALTHCHECK {Test:[CMD-SHELL a] Interval:1s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
                "/config/Healthcheck/Interval",
                "1000000000",
            ),
        ] {
            let (shown, image) = follow(text, &base).unwrap();
            assert_eq!(shown, history, "{text}");
            let json = serde_json::to_value(&image).unwrap();
            assert_eq!(json.pointer(pointer).map(ToString::to_string).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn values_are_those_before_the_instruction() {
        let base = follow("ENV abc=hello", &Image::scratch(None)).unwrap().1;
        let image = follow("ENV abc=bye def=$abc", &base).unwrap().1;
        assert_eq!(
            (image.config.variable("abc"), image.config.variable("def")),
            (Some("bye"), Some("hello"))
        );
    }

    #[test]
    fn an_entrypoint_drops_the_command_of_the_base() {
        let base = follow("CMD [\"a\"]", &Image::scratch(None)).unwrap().1;
        let image = follow("ENTRYPOINT b", &base).unwrap().1;
        assert_eq!(image.config.cmd, None);
        assert_eq!(image.config.entrypoint.unwrap(), ["/bin/sh", "-c", "b"]);
    }

    #[test]
    fn wrong_values() {
        for (text, error) in [
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 70000", "invalid containerPort: 70000"),
            ("EXPOSE 9-8", "invalid containerPort: 9-8"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
            ("STOPSIGNAL 99", "invalid signal: 99"),
            ("ENV $none=x", "ENV names can not be blank"),
            ("VOLUME $none", "VOLUME specified can not be an empty string"),
            ("USER ${none:?who}", "none: who"),
        ] {
            assert_eq!(follow(text, &Image::scratch(None)).unwrap_err().to_string(), error, "{text}");
        }
        for signal in ["9", "KILL", "SIGRTMIN+3", "RTMAX-1", "SIGRTMIN"] {
            assert!(is_signal(signal), "{signal}");
        }
        for signal in ["", "0", "SIG", "RTMIN+99", "TERM KILL"] {
            assert!(!is_signal(signal), "{signal}");
        }
    }
}
