//! Profiles in Docker's JSON form ("Seccomp security profiles for Docker").

use nix::{errno::Errno, libc, sys::utsname::uname};
use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompBuilder,
    LinuxSeccompFilterFlag, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::{Deserialize, Deserializer};

use crate::{Arch, Error};

/// Docker's default policy.
const DOCKER: &str = include_str!("docker.json");

/// A policy with conditions. Members that are not listed here are errors: what is not carried out must not be
/// ignored.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    /// `defaultErrnoRet` as a name, as podman writes it. The name counts.
    default_errno: Option<String>,
    #[serde(default, deserialize_with = "list")]
    architectures: Vec<OciArch>,
    #[serde(default, deserialize_with = "list")]
    arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<LinuxSeccompFilterFlag>,
    listener_path: Option<std::path::PathBuf>,
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "list")]
    syscalls: Vec<Rule>,
}

/// An architecture, and others whose calls such a machine can make.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Family {
    architecture: OciArch,
    #[serde(default, deserialize_with = "list")]
    sub_architectures: Vec<OciArch>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// The form before Docker 1.12, for one call.
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "list")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    /// `errno_ret` as a name. The name counts.
    errno: Option<String>,
    #[serde(default, deserialize_with = "list")]
    args: Vec<LinuxSeccompArg>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default, deserialize_with = "absent")]
    includes: Filter,
    #[serde(default, deserialize_with = "absent")]
    excludes: Filter,
}

/// The conditions of a rule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    #[serde(default, deserialize_with = "list")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Reads a list. Go writes an empty one as `null`.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn absent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What decides the conditions of a profile.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// The machine's architecture.
    pub arch: Arch,
    /// The major and minor version of the kernel.
    pub kernel: (u32, u32),
    /// The capabilities that the process may have: its bounding set. The names begin with `CAP_`.
    pub capabilities: Vec<String>,
}

impl Conditions {
    /// This machine and its kernel, with these capabilities.
    pub fn of_this_machine<C: Into<String>>(capabilities: impl IntoIterator<Item = C>) -> Self {
        let release = uname().ok().and_then(|system| version(&system.release().to_string_lossy()));
        Self {
            arch: Arch::NATIVE,
            // A kernel with an unknown version counts as old: less is allowed.
            kernel: release.unwrap_or_default(),
            capabilities: capabilities.into_iter().map(Into::into).collect(),
        }
    }
}

/// Reads `6.1.0-18-cloud-amd64` as (6, 1).
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Both`], [`Error::NoNames`].
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let profile: Self = serde_json::from_slice(text)?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return Err(Error::Both("architectures", "archMap"));
        }
        for (at, rule) in profile.syscalls.iter().enumerate() {
            match (rule.name.is_empty(), rule.names.is_empty()) {
                (true, true) => return Err(Error::NoNames(at)),
                (false, false) => return Err(Error::Both("name", "names")),
                _ => {}
            }
        }
        Ok(profile)
    }

    /// Docker's default policy. It denies what a container does not need, with EPERM.
    ///
    /// # Errors
    /// None: the policy is part of the program, and a test parses it.
    pub fn docker() -> Result<Self, Error> {
        Self::parse(DOCKER.as_bytes())
    }

    /// The policy for a container, in the form of OCI runtime-spec: the rules whose conditions hold.
    ///
    /// # Errors
    /// When a condition names an invalid kernel version.
    pub fn resolve(&self, conditions: &Conditions) -> Result<LinuxSeccomp, Error> {
        let mut rules = Vec::new();
        for rule in &self.syscalls {
            if rule.holds(conditions)? {
                rules.push(rule.resolved()?);
            }
        }
        let mut builder = LinuxSeccompBuilder::default()
            .default_action(self.default_action)
            .architectures(self.architectures(conditions.arch))
            .syscalls(rules);
        if let Some(errno) = number(self.default_errno.as_deref(), self.default_errno_ret)? {
            builder = builder.default_errno_ret(errno);
        }
        if !self.flags.is_empty() {
            builder = builder.flags(self.flags.clone());
        }
        if let Some(path) = &self.listener_path {
            builder = builder.listener_path(path.clone());
        }
        if let Some(metadata) = &self.listener_metadata {
            builder = builder.listener_metadata(metadata.clone());
        }
        builder.build().map_err(serde::de::Error::custom).map_err(Error::Malformed)
    }

    /// The architectures of a machine with this one.
    fn architectures(&self, arch: Arch) -> Vec<OciArch> {
        let family = self.arch_map.iter().find(|family| Arch::of(family.architecture) == Some(arch));
        match family {
            Some(family) => [family.architecture].iter().chain(&family.sub_architectures).copied().collect(),
            None if self.architectures.is_empty() => vec![OciArch::ScmpArchNative],
            None => self.architectures.clone(),
        }
    }
}

impl Rule {
    /// Whether the rule applies to this container: everything that it includes is present, and nothing that
    /// it excludes.
    fn holds(&self, conditions: &Conditions) -> Result<bool, Error> {
        let has = |capability: &String| conditions.capabilities.contains(capability);
        let is_here = |arch: &String| arch == conditions.arch.docker_name();
        let (included, excluded) = (&self.includes, &self.excludes);
        let is_old = |least: &Option<String>| -> Result<bool, Error> {
            let Some(text) = least else { return Ok(false) };
            let least = version(text).ok_or_else(|| {
                Error::Malformed(serde::de::Error::custom(format!("minKernel {text:?} is no version")))
            })?;
            Ok(conditions.kernel < least)
        };
        Ok(included.caps.iter().all(has)
            && (included.arches.is_empty() || included.arches.iter().any(is_here))
            && !is_old(&included.min_kernel)?
            && !excluded.caps.iter().any(has)
            && !excluded.arches.iter().any(is_here)
            && (excluded.min_kernel.is_none() || is_old(&excluded.min_kernel)?))
    }

    fn resolved(&self) -> Result<LinuxSyscall, Error> {
        let names = match self.names.is_empty() {
            true => vec![self.name.clone()],
            false => self.names.clone(),
        };
        let mut rule = LinuxSyscallBuilder::default().names(names).action(self.action);
        if let Some(errno) = number(self.errno.as_deref(), self.errno_ret)? {
            rule = rule.errno_ret(errno);
        }
        if !self.args.is_empty() {
            rule = rule.args(self.args.clone());
        }
        // All required members are set, and the builder has defaults for the others.
        Ok(rule.build().unwrap_or_default())
    }
}

/// An error's number by its name, such as `ENOSYS`, or by the number in its place; without a name, `number`.
fn number(name: Option<&str>, number: Option<u32>) -> Result<Option<u32>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(number) };
    let is_it = |errno: &i32| format!("{:?}", Errno::from_raw(*errno)) == name;
    let found = match name {
        "EWOULDBLOCK" => Some(libc::EWOULDBLOCK),
        "EDEADLOCK" => Some(libc::EDEADLOCK),
        "ENOTSUP" => Some(libc::ENOTSUP),
        "UnknownErrno" => None,
        _ => (1..=133).find(is_it),
    };
    let found = found.and_then(|errno| u32::try_from(errno).ok()).or(name.parse().ok());
    found.map(Some).ok_or_else(|| Error::NoErrno(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxSeccompAction as Action;

    fn conditions(capabilities: &[&str]) -> Conditions {
        let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
        Conditions { arch: Arch::X86_64, kernel: (6, 1), capabilities }
    }

    /// The action of the rules for a call without conditions on arguments.
    fn action(policy: &LinuxSeccomp, name: &str) -> Option<(Action, Option<u32>)> {
        let rules = policy.syscalls().iter().flatten();
        let mut of_call =
            rules.filter(|rule| rule.args().is_none() && rule.names().iter().any(|n| n == name));
        of_call.next().map(|rule| (rule.action(), rule.errno_ret()))
    }

    #[test]
    fn rules_depend_on_capabilities_architecture_and_kernel() {
        let docker = Profile::docker().unwrap();
        let plain = docker.resolve(&conditions(&[])).unwrap();
        let admin = docker.resolve(&conditions(&["CAP_SYS_ADMIN"])).unwrap();
        let allowed = Some((Action::ScmpActAllow, None));
        assert_eq!(action(&plain, "mount"), None);
        assert_eq!(action(&admin, "mount"), allowed);
        assert_eq!(action(&plain, "clone3"), Some((Action::ScmpActErrno, Some(38))));
        assert_eq!(action(&admin, "clone3"), allowed);
        assert_eq!(action(&plain, "arch_prctl"), allowed);
        assert_eq!(action(&plain, "riscv_flush_icache"), None);
        assert_eq!(action(&plain, "ptrace"), allowed);
        let old = Conditions { kernel: (4, 7), ..conditions(&[]) };
        assert_eq!(action(&docker.resolve(&old).unwrap(), "ptrace"), None);
        let arm = Conditions { arch: Arch::Aarch64, ..conditions(&[]) };
        let arm = docker.resolve(&arm).unwrap();
        assert_eq!(arm.architectures(), &Some(vec![OciArch::ScmpArchAarch64, OciArch::ScmpArchArm]));
        assert_eq!(action(&arm, "arch_prctl"), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("", "read seccomp profile: EOF while parsing a value at line 1 column 0"),
            ("{}", "read seccomp profile: missing field `defaultAction` at line 1 column 2"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
                "seccomp profile: use `architectures` or `archMap`, not both",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_ERRNO"}]}"#,
                "seccomp profile: rule 0 names no system call",
            ),
        ] {
            assert_eq!(Profile::parse(text.as_bytes()).unwrap_err().to_string(), error, "{text}");
        }
        let unknown = r#"{"defaultAction":"SCMP_ACT_ALLOW","sycalls":[]}"#;
        let error = Profile::parse(unknown.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field `sycalls`"), "{error}");
    }

    #[test]
    fn lists_that_are_null_are_empty() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":null,"syscalls":[{"name":"mkdir",
            "action":"SCMP_ACT_ERRNO","args":null,"includes":{},"excludes":null}]}"#;
        let policy = Profile::parse(text.as_bytes()).unwrap().resolve(&conditions(&[])).unwrap();
        assert_eq!(action(&policy, "mkdir"), Some((Action::ScmpActErrno, None)));
        assert_eq!(policy.architectures(), &Some(vec![OciArch::ScmpArchNative]));
    }

    #[test]
    fn errors_by_their_names() {
        for (errno, expected) in [
            ("ENOSYS", Some(38)),
            ("EWOULDBLOCK", Some(11)),
            ("ENOTSUP", Some(95)),
            ("7", Some(7)),
            ("ENONE", None),
        ] {
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrno":"{errno}","defaultErrnoRet":1,
                "syscalls":[{{"name":"mkdir","action":"SCMP_ACT_ERRNO","errno":"{errno}","errnoRet":1}}]}}"#
            );
            let policy = Profile::parse(text.as_bytes()).unwrap().resolve(&conditions(&[]));
            let found = policy.as_ref().ok().map(|policy| {
                assert_eq!(action(policy, "mkdir"), Some((Action::ScmpActErrno, policy.default_errno_ret())));
                policy.default_errno_ret()
            });
            assert_eq!(found.flatten(), expected, "{errno}");
        }
    }

    #[test]
    fn versions_of_kernels() {
        assert_eq!(version("6.1.0-18-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("4.8"), Some((4, 8)));
        assert_eq!(version("six"), None);
    }
}
