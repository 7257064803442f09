use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    Group, Hierarchy,
    error::{Result, at},
};

/// The kernel's controllers and their hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Controllers {
    /// The controllers of version 2.
    unified: BTreeSet<String>,
    /// The controllers of version 1: one set for each hierarchy.
    separate: Vec<Vec<String>>,
}

/// The prefix of the core files of version 2.
pub(crate) const CORE: &str = "cgroup";

/// The hierarchy of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In the hierarchy of version 2.
    Unified,
    /// In the hierarchy of version 1 with these controllers.
    Separate(&'a [String]),
}

impl Controllers {
    /// The controllers of this machine, as the caller's cgroup namespace shows them.
    ///
    /// # Errors
    /// When `/proc/self/cgroup` cannot be read, or the hierarchy of version 2 cannot be mounted.
    pub(crate) fn of_this_machine() -> Result<Self> {
        const OWN: &str = "/proc/self/cgroup";
        let own = fs::read_to_string(OWN).map_err(at("read", format_args!("{OWN:?}")))?;
        let top = Group::at(&Hierarchy::open()?, Path::new("/"))?;
        Ok(Self::parse(&own, &top.read("cgroup.controllers")?))
    }

    /// Parses `own`, the text of `/proc/self/cgroup` (cgroups(7)), and `unified`, the text of
    /// `cgroup.controllers` at the top of version 2.
    pub(crate) fn parse(own: &str, unified: &str) -> Self {
        let set = |line: &str| {
            let (number, rest) = line.split_once(':')?;
            let (names, _) = rest.split_once(':')?;
            // A named hierarchy has no controllers.
            let is_set = number != "0" && !names.is_empty() && !names.starts_with("name=");
            is_set.then(|| names.split(',').map(str::to_owned).collect())
        };
        Self {
            unified: unified.split_whitespace().map(str::to_owned).collect(),
            separate: own.lines().filter_map(set).collect(),
        }
    }

    /// The hierarchy of a controller; none if the kernel lacks the controller. Version 1 calls `io` `blkio`.
    pub(crate) fn place(&self, controller: &str) -> Option<Place<'_>> {
        // Every cgroup of version 2 has the core files.
        if controller == CORE || self.unified.contains(controller) {
            return Some(Place::Unified);
        }
        let old = if controller == "io" { "blkio" } else { controller };
        let mut separate = self.separate.iter();
        separate.find(|set| set.iter().any(|name| name == old)).map(|set| Place::Separate(set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_in_one_version_or_in_none() {
        let hybrid = "9:name=systemd:/\n4:memory:/a\n1:cpu,cpuacct:/\n7:blkio:/\n0::/\n";
        let found = Controllers::parse(hybrid, "hugetlb misc\n");
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found.place("hugetlb"), Some(Place::Unified));
        assert_eq!(found.place("cpu"), Some(Place::Separate(&set(&["cpu", "cpuacct"]))));
        assert_eq!(found.place("io"), Some(Place::Separate(&set(&["blkio"]))));
        assert_eq!(found.place("pids"), None);
        assert_eq!(found.separate.len(), 3);
        let pure = Controllers::parse("0::/user.slice\n", "cpuset cpu io memory pids\n");
        assert_eq!(pure.place("io"), Some(Place::Unified));
        assert_eq!(pure.place("hugetlb"), None);
    }
}
