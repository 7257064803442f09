use std::path::{Path, PathBuf};

use nix::errno::Errno;
use operation::{Condition, Scope, quote, words};
use serde::{Deserialize, Serialize};

use crate::{
    Group, Hierarchy,
    error::{Result, at},
    group::relative,
    limits::Setting,
};

/// The file with the controllers that the children of a cgroup get.
const CONTROL: &str = "cgroup.subtree_control";

/// A container's own cgroup in one hierarchy, with its limits: `cgroup-add`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "cgroup-add", rename_all = "camelCase")]
pub struct CgroupOperation {
    /// Its path in the hierarchy. The name is the container's id and instance, so no other container has it.
    pub path: PathBuf,
    /// The controllers of its version 1 hierarchy; empty for version 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    /// The controllers of version 2 that it needs. They are enabled in the cgroups above, and stay enabled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enable: Vec<String>,
    /// Its limits, in the order in which they are written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
}

impl CgroupOperation {
    /// The parent of the cgroups of all containers.
    pub const TOP: &str = "/stave";

    /// The cgroup at `path` in the hierarchy of version 2, without limits.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), controllers: Vec::new(), enable: Vec::new(), settings: Vec::new() }
    }

    /// Checks that the caller may create the cgroup. Without access to a hierarchy, a caller could not undo
    /// what it has begun there.
    ///
    /// # Errors
    /// When the caller may not, with the reason.
    pub fn may_apply(&self) -> Result<()> {
        self.hierarchy()?.admits(&self.path)
    }

    /// The hierarchy of the cgroup.
    pub(crate) fn hierarchy(&self) -> Result<Hierarchy> {
        match self.controllers.is_empty() {
            true => Hierarchy::open(),
            false => Hierarchy::open_separate(&self.controllers),
        }
    }

    /// The cgroups whose children get the controllers, from the top. Only cgroups above this one are among
    /// them: processes live in the cgroup itself ("No Internal Process Constraint").
    fn enabled_in(&self) -> Vec<&Path> {
        let mut above: Vec<_> = self.path.ancestors().skip(1).collect();
        above.reverse();
        if self.enable.is_empty() { Vec::new() } else { above }
    }

    /// The text that is written to [`CONTROL`] there.
    fn enabled(&self) -> String {
        self.enable.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ")
    }

    /// Enables the controllers in a cgroup above this one. A cgroup with processes cannot pass on
    /// controllers, unless it is the machine's first ("No Internal Process Constraint"). The kernel would
    /// accept some controllers and make the cgroup threaded, and a threaded cgroup cannot hold a container.
    fn enable_in(&self, above: &Group) -> Result<()> {
        let enabled = above.read(CONTROL)?;
        if self.enable.iter().all(|name| enabled.split_whitespace().any(|found| found == name)) {
            return Ok(());
        }
        if !above.is_first()? && !above.read("cgroup.procs")?.trim().is_empty() {
            let object = format_args!("{} in cgroup {:?}", self.enable.join(", "), above.path());
            return Err(at("enable", object)("processes live in that cgroup itself")
                .with_hint("move them into a cgroup below it: only then can it pass on controllers"));
        }
        above.write(CONTROL, &self.enabled())
    }

    /// Enables the controllers above the cgroup, and writes its limits.
    pub(crate) fn set(&self, hierarchy: &Hierarchy, group: &Group) -> Result<()> {
        for above in self.enabled_in() {
            self.enable_in(&Group::at(hierarchy, above)?)?;
        }
        self.settings.iter().try_for_each(|setting| apply(group, setting))
    }

    pub(crate) fn make(&self) -> Result<()> {
        let hierarchy = self.hierarchy()?;
        let group = Group::create(&hierarchy, &self.path)?;
        self.set(&hierarchy, &group).inspect_err(|_| {
            // The first error counts.
            let _ = Group::remove(&hierarchy, &self.path);
        })
    }
}

/// The path of a container's cgroup, the same in every hierarchy.
pub fn path(id: &str, instance: Option<&str>) -> PathBuf {
    let name = [Some(id), instance].into_iter().flatten().collect::<Vec<_>>().join(".");
    PathBuf::from(CgroupOperation::TOP).join(name)
}

pub(crate) fn apply(group: &Group, setting: &Setting) -> Result<()> {
    let Setting { file, value, optional } = setting;
    match group.write(file, value) {
        Err(error) if error.errno() == Some(Errno::ENOENT) => match optional {
            true => Ok(()),
            false => Err(at("write", format_args!("{file} of cgroup {:?}", group.path()))(
                "this kernel has no such limit",
            )),
        },
        written => written,
    }
}

/// Kills every process in a container's cgroup. A missing cgroup is fine.
///
/// # Errors
/// When the cgroup does not belong to a container; ETIMEDOUT if a process has not ended after ten seconds.
pub fn end(path: &Path) -> Result<()> {
    is_of_container(path)?;
    match Group::open(&Hierarchy::open()?, path)? {
        Some(group) => group.end(),
        None => Ok(()),
    }
}

/// Checks that a cgroup may belong to a container: a document may name any cgroup, but those of containers
/// are right below [`CgroupOperation::TOP`].
fn is_of_container(path: &Path) -> Result<()> {
    match path.parent() == Some(Path::new(CgroupOperation::TOP)) && path.file_name().is_some() {
        true => Ok(()),
        false => Err(operation::Error::caused_by(Foreign(path.to_owned()))),
    }
}

/// A document names a cgroup that does not belong to a container.
#[derive(Debug, thiserror::Error)]
#[error("remove cgroup {0:?}: it is no container's, those are right below \"/stave\"")]
struct Foreign(PathBuf);

impl operation::Operation for CgroupOperation {
    fn explain(&self) -> Vec<String> {
        let top = Path::new("/sys/fs/cgroup").join(self.controllers.join(","));
        let directory = |path| top.join(relative(path));
        let write = |value: &str, file: PathBuf| {
            format!("{} > {}", words(["echo", value]), quote(&file.to_string_lossy()))
        };
        let path = directory(&self.path);
        let mut lines = vec![words(["mkdir", "-p", &path.to_string_lossy()])];
        let above = self.enabled_in().into_iter().map(directory);
        lines.extend(above.map(|directory| write(&self.enabled(), directory.join(CONTROL))));
        lines.extend(self.settings.iter().map(|setting| write(&setting.value, path.join(&setting.file))));
        lines
    }

    fn apply(&mut self, _: &Scope) -> std::result::Result<(), operation::Error> {
        self.make()
    }

    fn undo(&self, _: &Scope) -> std::result::Result<(), operation::Error> {
        is_of_container(&self.path)?;
        Group::remove(&self.hierarchy()?, &self.path)
    }

    fn check(&self, _: &Scope) -> std::result::Result<Condition, operation::Error> {
        let Some(group) = Group::open(&self.hierarchy()?, &self.path)? else {
            return Ok(Condition::Missing(format!("cgroup {:?}", self.path)));
        };
        // Values that the kernel rounds (memory, to pages) or rewrites are not compared.
        for setting in self.settings.iter().filter(|setting| setting.file == "pids.max") {
            let found = group.read(&setting.file)?;
            if found.trim() != setting.value {
                let what = format!("{} of cgroup {:?} is {}", setting.file, self.path, found.trim());
                return Ok(Condition::Different(what));
            }
        }
        Ok(Condition::Present)
    }
}
