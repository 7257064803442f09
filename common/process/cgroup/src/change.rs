//! Changes the limits of a container that exists.

use std::path::Path;

use crate::{
    CgroupOperation, Group, Hierarchy, Setting,
    error::{Result, at},
    operation::apply,
};

/// How often to look for processes that were forked while the others were moved.
const ROUNDS: usize = 100;

/// The cgroups of a change.
#[must_use = "the container's processes are not in the new cgroups yet"]
#[derive(Debug)]
pub struct Changed<'a>(Vec<Touched<'a>>);

/// A cgroup of a change.
#[derive(Debug)]
struct Touched<'a> {
    operation: &'a CgroupOperation,
    group: Group,
    /// What its files had. None if the change has made it.
    before: Option<Vec<Setting>>,
}

/// Sets the limits of a container's cgroups to those of `new`. Makes a cgroup that is missing in a hierarchy of
/// version 1. `Changed::fill` must follow. If a limit cannot be set, all files of the cgroups are as before.
///
/// # Errors
/// When the kernel does not take a limit, or the caller may not make a cgroup.
pub fn change(new: &[CgroupOperation]) -> Result<Changed<'_>> {
    let mut touched = Vec::new();
    for operation in new {
        if let Err(error) = set(operation, &mut touched) {
            // The first error is reported.
            touched.iter().rev().for_each(|touched| drop(touched.put_back()));
            return Err(error);
        }
    }
    Ok(Changed(touched))
}

impl Changed<'_> {
    /// Moves the container's processes into the new cgroups.
    ///
    /// # Errors
    /// When a process cannot be moved, or they fork too fast. The new cgroups stay.
    pub fn fill(self) -> Result<()> {
        let mut made = self.0.iter().filter(|touched| touched.before.is_none());
        made.try_for_each(|touched| fill(&touched.operation.path, &touched.group))
    }
}

impl Touched<'_> {
    fn put_back(&self) -> Result<()> {
        match &self.before {
            Some(values) => in_either_order(&self.group, values),
            None => Group::remove_unused(&self.operation.hierarchy()?, &self.operation.path),
        }
    }
}

/// Makes the cgroup of an operation, and sets its limits.
fn set<'a>(operation: &'a CgroupOperation, touched: &mut Vec<Touched<'a>>) -> Result<()> {
    let hierarchy = operation.hierarchy()?;
    let (group, is_new) = Group::ensure_new(&hierarchy, &operation.path)?;
    let value = |setting: &Setting| {
        let value = group.read(&setting.file).ok()?.trim().to_owned();
        Some(Setting { file: setting.file.clone(), value, optional: true })
    };
    let before = (!is_new).then(|| operation.settings.iter().filter_map(value).collect());
    let outcome = operation.set(&hierarchy, &group).or_else(|error| match operation.settings.len() {
        0 | 1 => Err(error),
        _ => in_either_order(&group, &operation.settings).map_err(|_| error),
    });
    touched.push(Touched { operation, group, before });
    outcome
}

/// Writes values of which some can only be set in one order: memory and swap, quota and period.
fn in_either_order(group: &Group, values: &[Setting]) -> Result<()> {
    let backwards = values.iter().rev().try_for_each(|value| apply(group, value));
    backwards.and_then(|()| values.iter().try_for_each(|value| apply(group, value)))
}

/// Moves the container's processes into a new cgroup.
fn fill(path: &Path, group: &Group) -> Result<()> {
    let Some(unified) = Group::open(&Hierarchy::open()?, path)? else { return Ok(()) };
    for _ in 0..ROUNDS {
        let inside = group.processes()?;
        let outside: Vec<i32> =
            unified.processes()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
        if outside.is_empty() {
            return Ok(());
        }
        for pid in outside {
            // A process may have ended meanwhile.
            operation::unless_gone(group.admit(pid))?;
        }
    }
    Err(at("move", format_args!("the processes of cgroup {path:?}"))("they fork too fast"))
}
