//! The user namespace that this process is in (user_namespaces(7)).
//!
//! In any namespace but the machine's first one, root is an ordinary user: files can belong only to ids that have a
//! mapping, device nodes cannot be made, and overlayfs keeps its marks in `user.overlay.*`, because `trusted.*` is only
//! for the first root.

mod made;
mod sys;
mod wanted;

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use operation::Error;
use serde::{Deserialize, Serialize};

pub use wanted::Wanted;

/// The inode of the first user namespace of every machine: `USER_NS_INIT_INO` of the kernel's `linux/nsfs.h`. The map
/// does not tell: a process that may map all ids can make another namespace with the same map.
const FIRST: u64 = 0xEFFF_FFFD;

/// One run of ids that the namespace maps, in the form of OCI runtime-spec's `uidMappings`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The first id inside.
    #[serde(rename = "containerID")]
    pub inside: u32,
    /// The first id in the namespace above.
    #[serde(rename = "hostID")]
    pub outside: u32,
    /// How many ids.
    pub size: u32,
}

/// A user namespace other than the first: which files can belong to which ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// Its users.
    pub uid_mappings: Vec<Mapping>,
    /// Its groups.
    pub gid_mappings: Vec<Mapping>,
}

impl Namespace {
    /// The caller's namespace; none in the machine's first one.
    ///
    /// # Errors
    /// When `/proc` does not tell.
    pub fn current() -> Result<Option<Self>, Error> {
        if is_first()? {
            return Ok(None);
        }
        let read = |name| parse(&fs::read_to_string(own(name)).map_err(at(name))?).map_err(at(name));
        Ok(Some(Self { uid_mappings: read("uid_map")?, gid_mappings: read("gid_map")? }))
    }

    /// Whether files can belong to the user `uid`.
    pub fn has_user(&self, uid: u32) -> bool {
        outside(&self.uid_mappings, uid).is_some()
    }

    /// Whether files can belong to the group `gid`.
    pub fn has_group(&self, gid: u32) -> bool {
        outside(&self.gid_mappings, gid).is_some()
    }

    /// The last group of the run that starts with 0.
    pub fn last_group(&self) -> Option<u32> {
        let first = self.gid_mappings.iter().find(|mapping| mapping.inside == 0)?;
        first.size.checked_sub(1)
    }

    /// Which user `uid` is in the namespace above.
    pub fn user_outside(&self, uid: u32) -> Option<u32> {
        outside(&self.uid_mappings, uid)
    }

    /// Which group `gid` is in the namespace above.
    pub fn group_outside(&self, gid: u32) -> Option<u32> {
        outside(&self.gid_mappings, gid)
    }

    /// User and group of its root in the namespace above; none if it has no root.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((self.user_outside(0)?, self.group_outside(0)?))
    }
}

/// Whether the caller is in the machine's first user namespace.
///
/// # Errors
/// When `/proc` does not tell.
pub fn is_first() -> Result<bool, Error> {
    Ok(fs::metadata(own("ns/user")).map_err(at("ns/user"))?.ino() == FIRST)
}

/// Whether the caller may write to the machine's own directories, as root does. That holds also in a user namespace
/// with its own root file system, as in a system container. It does not hold in a namespace that maps only the caller's
/// id.
pub fn is_system_root() -> bool {
    let ours = || fs::metadata("/").is_ok_and(|root| root.uid() == 0);
    rustix::process::geteuid().is_root() && (matches!(Namespace::current(), Ok(None)) || ours())
}

/// Whether processes of the namespace may not change their groups. `unshare --map-root-user` sets this, because a user
/// without privileges may not map a group otherwise.
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

/// Parses lines of three numbers.
fn parse(text: &str) -> io::Result<Vec<Mapping>> {
    let line = |line: &str| {
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, format!("{line:?} is not a mapping"));
        mapping(line.split_whitespace()).ok_or_else(wrong)
    };
    text.lines().map(line).collect()
}

/// Three numbers: the first id inside, the first outside, how many.
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
