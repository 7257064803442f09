//! Device lists for kernels that take no device program: the controller `devices` of version 1
//! (Documentation/admin-guide/cgroup-v1/devices.rst).

use std::path::Path;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType as Type};

use crate::{
    CgroupOperation, Hierarchy, Setting,
    controllers::{Controllers, Place},
    devices::{conditions, takes_programs},
    error::{Result, at},
};

const CONTROLLER: &str = "devices";

/// The cgroup of version 1, at `path`, that a device list needs. None if the kernel takes a program, as
/// nearly every kernel does.
///
/// # Errors
/// When the kernel has neither, or version 1 cannot express the list.
pub fn plan(path: &Path, rules: &[LinuxDeviceCgroup]) -> Result<Option<CgroupOperation>> {
    let Some((_, controllers)) = open()? else { return Ok(None) };
    let settings = settings(rules)?;
    Ok(Some(CgroupOperation { controllers, settings, ..CgroupOperation::at(path) }))
}

/// The hierarchy of version 1 with such a cgroup; none if the kernel takes a program.
///
/// # Errors
/// As [`plan`].
pub fn hierarchy() -> Result<Option<Hierarchy>> {
    Ok(open()?.map(|(hierarchy, _)| hierarchy))
}

/// The hierarchy and its controllers.
fn open() -> Result<Option<(Hierarchy, Vec<String>)>> {
    if takes_programs()? {
        return Ok(None);
    }
    let controllers = match Controllers::of_this_machine()?.place(CONTROLLER) {
        Some(Place::Separate(controllers)) => controllers.to_vec(),
        // Version 2 does not have the controller, so version 1 can mount it even if nobody uses it yet.
        _ => vec![CONTROLLER.to_owned()],
    };
    let hierarchy = Hierarchy::open_separate(&controllers).map_err(|error| {
        let cause = format!("bpf(2) takes no program for a cgroup, and version 1 has no list: {error}");
        at("limit", CONTROLLER)(cause).with_hint("`--privileged` starts the container without a list")
    })?;
    Ok(Some((hierarchy, controllers)))
}

/// The rules as settings of the controller, after one that denies everything.
///
/// The controller keeps a list of what is allowed. Denying a part of an entry afterwards has no effect, so
/// such a rule is rejected.
fn settings(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Setting>> {
    let mut settings = vec![setting("devices.deny", "a")];
    for rule in rules {
        let access = rule.access().as_deref().unwrap_or_default();
        let number = |number: Option<i64>| number.filter(|number| *number >= 0);
        let numbers = (number(rule.major()), number(rule.minor()));
        let kind = rule.typ().unwrap_or(Type::A);
        let is_all = conditions(rule).is_empty();
        match (rule.allow(), is_all) {
            (false, true) => settings = vec![setting("devices.deny", "a")],
            (true, true) => settings.push(setting("devices.allow", "a")),
            (false, false) if settings.len() == 1 => {}
            (false, false) => {
                return Err(at("limit", CONTROLLER)(
                    "on cgroup version 1, no device can be denied after others were allowed: name it first",
                ));
            }
            (true, false) => {
                let text = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
                let what = format!("{}:{} {access}", text(numbers.0), text(numbers.1));
                let kinds: &[&str] = match kind {
                    Type::B => &["b"],
                    Type::C | Type::U => &["c"],
                    // "a" means everything, whatever numbers follow.
                    _ => &["b", "c"],
                };
                settings.extend(kinds.iter().map(|kind| setting("devices.allow", &format!("{kind} {what}"))));
            }
        }
    }
    Ok(settings)
}

fn setting(file: &str, value: &str) -> Setting {
    Setting { file: file.to_owned(), value: value.to_owned(), optional: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rules: &str) -> Result<Vec<String>> {
        let rules: Vec<_> = serde_json::from_str(rules).unwrap();
        let line = |set: Setting| format!("{} {}", set.file.trim_start_matches("devices."), set.value);
        Ok(settings(&rules)?.into_iter().map(line).collect())
    }

    #[test]
    fn rules_in_the_form_of_version_1() {
        for (rules, expected) in [
            ("[]", &["deny a"][..]),
            (r#"[{"allow":true,"access":"rwm"}]"#, &["deny a", "allow a"]),
            (
                r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"a","access":"mrw"},
                    {"allow":true,"type":"c","major":136,"access":"rw"},
                    {"allow":true,"type":"b","major":8,"minor":1,"access":"r"}]"#,
                &["deny a", "allow c 136:* rw", "allow b 8:1 r"],
            ),
            (
                r#"[{"allow":false,"type":"c","major":1,"access":"w"},{"allow":true,"type":"a","major":1,"minor":-1,"access":"m"}]"#,
                &["deny a", "allow b 1:* m", "allow c 1:* m"],
            ),
        ] {
            assert_eq!(lines(rules).unwrap(), expected, "{rules}");
        }
        let late =
            r#"[{"allow":true,"type":"c","access":"rwm"},{"allow":false,"type":"c","major":1,"access":"w"}]"#;
        assert_eq!(
            lines(late).unwrap_err().to_string(),
            "limit devices: on cgroup version 1, no device can be denied after others were allowed: name it first"
        );
    }
}
