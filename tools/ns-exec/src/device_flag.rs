//! `--device` and `--device-cgroup-rule`, with Docker's syntax.

use std::{path::PathBuf, str::FromStr};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType as Type};
use runtime::spec::Device;
use toolkit::prelude::*;

/// A device of the host, or a directory of devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceFlag {
    source: PathBuf,
    target: PathBuf,
    access: String,
}

/// Whether `text` consists of access letters, each at most once.
fn is_access(text: &str) -> bool {
    let once = |letter: char| "rwm".contains(letter) && text.matches(letter).count() == 1;
    !text.is_empty() && text.chars().all(once)
}

impl FromStr for DeviceFlag {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, access) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, access] if is_access(access) => (source, source, access),
            [source, target] => (source, target, "rwm"),
            [source, target, access] if is_access(access) => (source, target, access),
            [_, _, access] => return Err(format!("{access:?} is not made of the letters r, w and m")),
            _ => {
                return Err(
                    "it is HOST[:CONTAINER[:rwm]], such as /dev/fuse or /dev/sdc:/dev/xvdc:r".to_owned()
                );
            }
        };
        let plain = |path: &str| {
            mount::plain(path.as_ref()).ok_or_else(|| format!("{path:?} is not an absolute path below /"))
        };
        Ok(Self { source: plain(source)?, target: plain(target)?, access: access.to_owned() })
    }
}

impl DeviceFlag {
    /// Returns the devices that the flag names.
    pub(crate) fn devices(&self) -> Result<Vec<Device>> {
        Ok(Device::find(&self.source, &self.target, &self.access)?)
    }
}

/// A rule for the device list of the container's cgroup, such as `c 188:* rwm`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeviceRule(pub(crate) LinuxDeviceCgroup);

impl FromStr for DeviceRule {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "it is TYPE MAJOR:MINOR ACCESS, such as \"c 188:* rwm\"".to_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let &[kind, numbers, access] = words.as_slice() else { return Err(form()) };
        let kind = match kind {
            "a" => Type::A,
            "b" => Type::B,
            "c" => Type::C,
            _ => return Err(form()),
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            _ => text.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| form()),
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(form)?;
        if !is_access(access) {
            return Err(form());
        }
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).access(access);
        if let Some(major) = number(major)? {
            rule = rule.major(major);
        }
        if let Some(minor) = number(minor)? {
            rule = rule.minor(minor);
        }
        rule.build().map(Self).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_rules_as_docker_takes_them() {
        for (text, source, target, access) in [
            ("/dev/fuse", "/dev/fuse", "/dev/fuse", "rwm"),
            ("/dev/fuse:r", "/dev/fuse", "/dev/fuse", "r"),
            ("/dev/sdc:/dev/xvdc", "/dev/sdc", "/dev/xvdc", "rwm"),
            ("/dev/sdc:/dev//xvdc:mr", "/dev/sdc", "/dev/xvdc", "mr"),
        ] {
            let expected =
                DeviceFlag { source: source.into(), target: target.into(), access: access.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for (text, error) in [
            ("fuse", "\"fuse\" is not an absolute path below /"),
            ("vendor.com/class=name", "\"vendor.com/class=name\" is not an absolute path below /"),
            ("/dev/fuse:x", "\"x\" is not an absolute path below /"),
            ("/dev/fuse:/dev/fuse:rr", "\"rr\" is not made of the letters r, w and m"),
            ("/dev/fuse:/dev/..", "\"/dev/..\" is not an absolute path below /"),
        ] {
            assert_eq!(text.parse::<DeviceFlag>(), Err(error.to_owned()), "{text}");
        }
        let rule: DeviceRule = "c 188:* rwm".parse().unwrap();
        assert_eq!((rule.0.typ(), rule.0.major(), rule.0.minor()), (Some(Type::C), Some(188), None));
        for text in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 rq", "c 1:3 r w", "c -1:3 r"] {
            assert!(text.parse::<DeviceRule>().is_err(), "{text}");
        }
    }
}
