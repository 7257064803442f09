//! `--security-opt`, with Docker's syntax.

use std::{fs, path::PathBuf, str::FromStr};

use runtime::spec::Seccomp;
use toolkit::prelude::*;

/// One option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    /// The seccomp policy in this file; `None` for no policy.
    Seccomp(Option<PathBuf>),
    /// Docker's default seccomp policy, by its name.
    SeccompBuiltin,
    NoNewPrivileges(bool),
    /// Mask no path of `/proc` and `/sys`, and make none read-only.
    OpenSystemPaths,
    /// No profile of a security module, which is always the case.
    NoProfile,
}

/// All options together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Security {
    pub(crate) seccomp: Seccomp,
    pub(crate) no_new_privileges: bool,
    pub(crate) open_system_paths: bool,
}

const KNOWN: &str =
    "the options are seccomp=FILE|unconfined|builtin, no-new-privileges, systempaths=unconfined";

impl FromStr for SecurityOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        // Docker accepts a colon too, its earlier syntax.
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("seccomp", Some("unconfined")) => Ok(Self::Seccomp(None)),
            ("seccomp", Some("builtin")) => Ok(Self::SeccompBuiltin),
            ("seccomp", Some(file)) if !file.is_empty() => Ok(Self::Seccomp(Some(file.into()))),
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("systempaths", Some("unconfined")) => Ok(Self::OpenSystemPaths),
            ("apparmor", Some("unconfined")) | ("label", Some("disable")) => Ok(Self::NoProfile),
            ("apparmor", Some(_)) => Err(without("AppArmor", "apparmor")),
            ("label", Some(_)) => Err(without("SELinux", "selinux")),
            _ => Err(KNOWN.to_owned()),
        }
    }
}

/// Says why an option of a security module has no effect.
fn without(module: &str, name: &str) -> String {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    match modules.trim().split(',').any(|loaded| loaded == name) {
        true => format!("ns-exec sets no profile of {module}; leave the option out"),
        false => format!("the kernel has no {module}"),
    }
}

impl Security {
    /// Reads the files that the options name. Later options override earlier ones.
    pub(crate) fn of(options: &[SecurityOption], no_new_privileges: bool) -> Result<Self> {
        let mut security = Self { no_new_privileges, ..Self::default() };
        for option in options {
            match option {
                SecurityOption::Seccomp(None) => security.seccomp = Seccomp::Unconfined,
                SecurityOption::SeccompBuiltin => security.seccomp = Seccomp::Default,
                SecurityOption::Seccomp(Some(path)) => {
                    let text = fs::read(path).with_context(|| format!("read seccomp profile {path:?}"))?;
                    let profile = seccomp::Profile::parse(&text)
                        .with_context(|| format!("read seccomp profile {path:?}"))?;
                    security.seccomp = Seccomp::Profile(Box::new(profile));
                }
                SecurityOption::NoNewPrivileges(set) => security.no_new_privileges = *set,
                SecurityOption::OpenSystemPaths => security.open_system_paths = true,
                SecurityOption::NoProfile => {}
            }
        }
        Ok(security)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_as_docker_takes_them() {
        for (text, option) in [
            ("seccomp=unconfined", SecurityOption::Seccomp(None)),
            ("seccomp:unconfined", SecurityOption::Seccomp(None)),
            ("seccomp=builtin", SecurityOption::SeccompBuiltin),
            ("seccomp=a=b", SecurityOption::Seccomp(Some("a=b".into()))),
            ("no-new-privileges", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges:true", SecurityOption::NoNewPrivileges(true)),
            ("no-new-privileges=false", SecurityOption::NoNewPrivileges(false)),
            ("systempaths=unconfined", SecurityOption::OpenSystemPaths),
            ("label=disable", SecurityOption::NoProfile),
        ] {
            assert_eq!(text.parse(), Ok(option), "{text}");
        }
        for text in ["seccomp", "seccomp=", "no-new-privileges=maybe", "systempaths=all", "x=y", ""] {
            assert_eq!(text.parse::<SecurityOption>(), Err(KNOWN.to_owned()), "{text}");
        }
        assert!("label=type:x".parse::<SecurityOption>().unwrap_err().contains("SELinux"));
    }
}
