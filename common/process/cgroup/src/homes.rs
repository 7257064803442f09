//! The cgroups of a container of OCI runtime-spec (config-linux.md, "Cgroups Path"): one in every hierarchy
//! of the machine, so that no process of the container stays in its caller's cgroup.

use std::{
    fs,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxResources};
use operation::unless_gone;
use serde::{Deserialize, Serialize};

use crate::{
    CgroupOperation, DeviceProgram, Group, Hierarchy,
    controllers::Controllers,
    device_list,
    error::{Result, at},
    exact,
    limits::arrange,
    operation::apply,
};

/// A cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Home {
    /// The controllers of its version 1 hierarchy, or `name=NAME`; empty for version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// Its path in the hierarchy, as the caller's cgroup namespace shows it.
    pub path: PathBuf,
}

/// All cgroups of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Homes(Vec<Home>);

const OWN: &str = "/proc/self/cgroup";

impl Homes {
    /// The cgroups for `cgroupsPath` of the specification. An absolute path is a path in each hierarchy. A
    /// relative path is below the caller's cgroup in version 1. In version 2 it is beside the caller's
    /// cgroup, because no cgroup with processes has others below it there.
    ///
    /// # Errors
    /// When `/proc/self/cgroup` cannot be read.
    pub fn at(path: &Path) -> Result<Self> {
        let own = fs::read_to_string(OWN).map_err(at("read", format_args!("{OWN:?}")))?;
        Ok(Self(own.lines().filter_map(|line| home(line, path)).collect()))
    }

    /// Creates the missing cgroups, and opens all. With `tolerates`, a cgroup that the caller may not create
    /// is left out. `made` gets the cgroups that this call has created, even if an error follows: the others
    /// belong to somebody else.
    ///
    /// # Errors
    /// EACCES and EPERM if the caller may not create cgroups.
    pub fn make(&mut self, tolerates: bool, made: &mut Self) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        let mut opened = Vec::new();
        for home in &self.0 {
            match home.hierarchy().and_then(|hierarchy| Group::ensure_new(&hierarchy, &home.path)) {
                Err(error) if tolerates && crate::is_refusal(&error) => {}
                Err(error) => return Err(error),
                Ok((group, is_new)) => {
                    groups.push(group);
                    opened.push(home.clone());
                    made.0.extend(is_new.then(|| home.clone()));
                }
            }
        }
        self.0 = opened;
        Ok(groups)
    }

    /// The cgroups that do not exist. A cgroup that cannot be looked up is not among them.
    pub fn missing(&self) -> Self {
        Self(self.0.iter().filter(|home| matches!(home.open(), Ok(None))).cloned().collect())
    }

    /// Opens the cgroups that exist.
    ///
    /// # Errors
    /// When a cgroup cannot be looked up.
    pub fn open(&self) -> Result<Vec<Group>> {
        let mut groups = Vec::new();
        for home in &self.0 {
            groups.extend(home.open()?);
        }
        Ok(groups)
    }

    /// Sets the limits, but not the device list ([`Homes::set_devices`]). A limit that no cgroup can keep is
    /// an error.
    ///
    /// # Errors
    /// When the kernel cannot keep a limit, which the error names.
    pub fn set(&self, resources: &LinuxResources) -> Result<()> {
        let limits = exact::limits(resources)?;
        if !limits.is_empty() {
            for operation in arrange(Path::new("/"), limits, &Controllers::of_this_machine()?)? {
                self.set_in(operation, resources)?;
            }
        }
        Ok(())
    }

    fn set_in(&self, operation: CgroupOperation, resources: &LinuxResources) -> Result<()> {
        if operation.settings.is_empty() {
            return Ok(());
        }
        let names =
            operation.settings.iter().map(|setting| setting.file.as_str()).collect::<Vec<_>>().join(", ");
        let missing = || at("set", names.clone())("the container has no cgroup for that");
        let home = self.of(&operation.controllers).ok_or_else(missing)?;
        let hierarchy = home.hierarchy()?;
        let group = Group::open(&hierarchy, &home.path)?.ok_or_else(missing)?;
        let memory = resources.memory().as_ref();
        if memory.is_some_and(|memory| memory.check_before_update().unwrap_or_default()) {
            leaves_room(&group, memory.and_then(|memory| memory.limit()))?;
        }
        let operation = CgroupOperation { path: home.path.clone(), ..operation };
        match operation.set(&hierarchy, &group) {
            // Some limits can only be set in one order: memory and swap, quota and period. Try the reverse
            // order first.
            Err(_) if operation.settings.len() > 1 => {
                let set = |setting| apply(&group, setting);
                operation.settings.iter().rev().try_for_each(set)?;
                operation.settings.iter().try_for_each(set)
            }
            result => result,
        }
    }

    /// Limits the devices to those that the rules allow.
    ///
    /// # Errors
    /// When the kernel cannot limit devices, or the container has no cgroup for that.
    pub fn set_devices(&self, rules: &[LinuxDeviceCgroup]) -> Result<()> {
        let missing = || at("limit", "devices")("the container has no cgroup for that");
        match device_list::plan(Path::new("/"), rules)? {
            None => {
                let group = self.of(&[]).map(Home::open).transpose()?.flatten().ok_or_else(missing)?;
                DeviceProgram::compile(rules).replace(&group)
            }
            Some(operation) => {
                let home = self.of(&operation.controllers).ok_or_else(missing)?;
                let group = home.open()?.ok_or_else(missing)?;
                operation.settings.iter().try_for_each(|setting| apply(&group, setting))
            }
        }
    }

    /// Kills all processes, and removes the cgroups. A missing cgroup is fine.
    ///
    /// # Errors
    /// EBUSY if a process has not ended after ten seconds.
    pub fn remove(&self) -> Result<()> {
        self.0
            .iter()
            .filter(|home| home.path != Path::new("/"))
            .try_for_each(|home| Group::remove(&home.hierarchy()?, &home.path))
    }

    /// Removes the cgroups in which no process lives, and kills no process. A missing cgroup is fine.
    ///
    /// # Errors
    /// EBUSY if a process lives in a cgroup; the others are removed.
    pub fn remove_unused(&self) -> Result<()> {
        let one = |home: &Home| Group::remove_unused(&home.hierarchy()?, &home.path);
        self.0.iter().map(one).fold(Ok(()), Result::and)
    }

    /// The cgroup that finds and stops the container's processes: the one of version 2, or else the one of
    /// the freezer.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn freezer(&self) -> Result<Option<Group>> {
        let of_old = |home: &&Home| home.controllers.iter().any(|name| name == "freezer");
        match self.of(&[]).or_else(|| self.0.iter().find(of_old)).or_else(|| self.0.first()) {
            Some(home) => home.open(),
            None => Ok(None),
        }
    }

    /// The cgroup in the hierarchy with these controllers; none of them for version 2.
    pub fn of(&self, controllers: &[String]) -> Option<&Home> {
        self.0.iter().find(|home| {
            home.controllers.is_empty() == controllers.is_empty()
                && controllers.iter().all(|name| home.controllers.contains(name))
        })
    }

    /// The cgroup with this controller, or else the one of version 2.
    pub fn with(&self, controller: &str) -> Option<&Home> {
        let has = |home: &&Home| home.controllers.iter().any(|name| name == controller);
        self.0.iter().find(has).or_else(|| self.of(&[]))
    }

    /// All cgroups of the container.
    pub fn all(&self) -> &[Home] {
        &self.0
    }
}

impl Home {
    fn hierarchy(&self) -> Result<Hierarchy> {
        match self.controllers.is_empty() {
            true => Hierarchy::open(),
            false => Hierarchy::open_separate_of_host(&self.controllers),
        }
    }

    /// Opens the cgroup; none if it does not exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> Result<Option<Group>> {
        if self.path == Path::new("/") {
            return Group::at(&self.hierarchy()?, &self.path).map(Some);
        }
        Group::open(&self.hierarchy()?, &self.path)
    }

    /// Reads one of its files; none if the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<String>> {
        let Some(group) = self.open()? else { return Ok(None) };
        unless_gone(group.read(file))
    }
}

/// Parses a line of `/proc/self/cgroup` (cgroups(7)).
fn home(line: &str, path: &Path) -> Option<Home> {
    let (names, own) = line.split_once(':')?.1.split_once(':')?;
    let controllers: Vec<String> =
        names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let own = Path::new(own);
    let above = if controllers.is_empty() { own.parent().unwrap_or(own) } else { own };
    // An absolute `path` replaces `above`.
    Some(Home { controllers, path: above.join(path) })
}

/// For `checkBeforeUpdate`: a limit below the current use would kill processes.
fn leaves_room(group: &Group, limit: Option<i64>) -> Result<()> {
    let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(()) };
    for file in ["memory.current", "memory.usage_in_bytes"] {
        let used = unless_gone(group.read(file))?.and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(used) = used.filter(|used| *used > limit) {
            return Err(at("set", "the memory limit")(format!(
                "{used} bytes are in use, and {limit} is less"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_in_each_hierarchy() {
        let found = |line, path: &str| {
            let home = home(line, Path::new(path)).unwrap();
            (home.controllers.join(","), home.path.to_str().unwrap().to_owned())
        };
        for (line, path, expected) in [
            ("4:memory:/user", "/pod/web", ("memory", "/pod/web")),
            ("4:memory:/user", "web", ("memory", "/user/web")),
            ("1:cpu,cpuacct:/", "web", ("cpu,cpuacct", "/web")),
            ("9:name=systemd:/user", "web", ("name=systemd", "/user/web")),
            ("0::/user/shell", "web", ("", "/user/web")),
            ("0::/", "web", ("", "/web")),
        ] {
            assert_eq!(found(line, path), (expected.0.to_owned(), expected.1.to_owned()), "{line} {path}");
        }
    }
}
