//! User namespaces (user_namespaces(7)): the caller's own, and those for containers.
//!
//! Outside the machine's first user namespace, root has fewer rights. Files can only belong to ids that are
//! mapped. Root cannot make device nodes. overlayfs keeps its marks in `user.overlay.*`, because only root of
//! the first namespace can write `trusted.*`.

mod made;
mod sys;
mod wanted;

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use operation::Error;
use serde::{Deserialize, Serialize};

pub use wanted::Wanted;

/// The inode of the first user namespace on every machine: `USER_NS_INIT_INO` of the kernel's `linux/nsfs.h`.
/// The id map does not tell, because a process that may map all ids can make another namespace with the same
/// map.
const FIRST: u64 = 0xEFFF_FFFD;

/// A range of mapped ids, in the form of `uidMappings` of OCI runtime-spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The first id inside the namespace.
    #[serde(rename = "containerID")]
    pub inside: u32,
    /// The first id outside, in the parent namespace.
    #[serde(rename = "hostID")]
    pub outside: u32,
    /// The number of ids.
    pub size: u32,
}

/// The mappings of a user namespace other than the first. They say which ids can own files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The mappings of user ids.
    pub uid_mappings: Vec<Mapping>,
    /// The mappings of group ids.
    pub gid_mappings: Vec<Mapping>,
}

impl Namespace {
    /// The caller's namespace. `None` if it is the machine's first one.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn current() -> Result<Option<Self>, Error> {
        if is_first()? {
            return Ok(None);
        }
        let read = |name| parse(&fs::read_to_string(own(name)).map_err(at(name))?).map_err(at(name));
        Ok(Some(Self { uid_mappings: read("uid_map")?, gid_mappings: read("gid_map")? }))
    }

    /// Whether the user `uid` is mapped, and so can own files.
    pub fn has_user(&self, uid: u32) -> bool {
        outside(&self.uid_mappings, uid).is_some()
    }

    /// Whether the group `gid` is mapped, and so can own files.
    pub fn has_group(&self, gid: u32) -> bool {
        outside(&self.gid_mappings, gid).is_some()
    }

    /// The last group id of the range that starts with 0.
    pub fn last_group(&self) -> Option<u32> {
        let first = self.gid_mappings.iter().find(|mapping| mapping.inside == 0)?;
        first.size.checked_sub(1)
    }

    /// The id of the user `uid` in the parent namespace. `None` if it is not mapped.
    pub fn user_outside(&self, uid: u32) -> Option<u32> {
        outside(&self.uid_mappings, uid)
    }

    /// The id of the group `gid` in the parent namespace. `None` if it is not mapped.
    pub fn group_outside(&self, gid: u32) -> Option<u32> {
        outside(&self.gid_mappings, gid)
    }

    /// User and group of this namespace's root in the parent namespace. `None` if root is not mapped.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((self.user_outside(0)?, self.group_outside(0)?))
    }
}

/// Whether the caller is in the machine's first user namespace.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn is_first() -> Result<bool, Error> {
    Ok(fs::metadata(own("ns/user")).map_err(at("ns/user"))?.ino() == FIRST)
}

/// Whether the caller can write to the machine's own directories, as root does. This is also true in a user
/// namespace with its own root file system, as in a system container. It is false in a namespace that maps
/// only the caller's id.
pub fn is_system_root() -> bool {
    let ours = || fs::metadata("/").is_ok_and(|root| root.uid() == 0);
    rustix::process::geteuid().is_root() && (matches!(Namespace::current(), Ok(None)) || ours())
}

/// Whether processes of the namespace cannot change their groups. `unshare --map-root-user` denies that,
/// because otherwise a user without privileges cannot map a group.
pub fn denies_setgroups() -> bool {
    fs::read_to_string(own("setgroups")).is_ok_and(|text| text.trim_end() == "deny")
}

fn own(name: &str) -> std::path::PathBuf {
    Path::new("/proc/self").join(name)
}

fn at(name: &'static str) -> impl FnOnce(io::Error) -> Error {
    Error::on("read", format!("{:?}", own(name)))
}

fn outside(mappings: &[Mapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.inside).filter(|&offset| offset < mapping.size)?;
        mapping.outside.checked_add(offset)
    })
}

/// Parses `/proc/<pid>/uid_map` or `gid_map`: lines of three numbers.
fn parse(text: &str) -> io::Result<Vec<Mapping>> {
    let line = |line: &str| {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} is not a mapping"));
        mapping(line.split_whitespace()).ok_or_else(wrong)
    };
    text.lines().map(line).collect()
}

/// Parses three numbers: the first id inside, the first id outside, and the number of ids.
fn mapping<'a>(numbers: impl Iterator<Item = &'a str>) -> Option<Mapping> {
    let numbers: Vec<u32> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let &[inside, outside, size] = numbers.as_slice() else { return None };
    Some(Mapping { inside, outside, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_ids_found_in_them() {
        let text = "         0       1000          1\n         1     100000      65536\n";
        let mappings = parse(text).unwrap();
        for (id, found) in
            [(0, Some(1000)), (1, Some(100_000)), (65536, Some(165_535)), (65537, None), (u32::MAX, None)]
        {
            assert_eq!(outside(&mappings, id), found, "{id}");
        }
        assert_eq!(parse("").unwrap(), []);
        for text in ["0 1000\n", "0 1000 x\n", "0 1000 1 1\n"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn written_as_the_runtime_spec_does() {
        let all = parse("0 0 4294967295\n").unwrap();
        let namespace = Namespace { uid_mappings: all, gid_mappings: Vec::new() };
        let text = r#"{"uidMappings":[{"containerID":0,"hostID":0,"size":4294967295}],"gidMappings":[]}"#;
        assert_eq!(serde_json::to_string(&namespace).unwrap(), text);
        assert!(namespace.has_user(4_000_000_000) && !namespace.has_group(0));
    }
}
