//! `--chown` and USER: names and numbers, resolved in the image's own `/etc/passwd` and `/etc/group`.

use std::{io::Read, os::fd::OwnedFd};

use runtime::user::id;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A user and a group, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A name that the image does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
}

impl Owner {
    /// Resolves `user[:group]` in the image below `root`. Without a group, a name gets its group from `/etc/passwd`,
    /// and a number gets the same number as group.
    ///
    /// # Errors
    /// [`OwnerError`].
    pub fn resolve(text: &str, root: &OwnedFd) -> Result<Self, OwnerError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let (uid, own_group) = match id(user) {
            Some(uid) => (uid, uid),
            None if user.is_empty() => (0, 0),
            None => by_name(&file(root, "etc/passwd"), user)
                .and_then(|fields| Some((id(fields.get(2)?)?, id(fields.get(3)?)?)))
                .ok_or_else(|| OwnerError::NoUser(user.to_owned()))?,
        };
        let gid = match group {
            None => own_group,
            Some(group) => match id(group) {
                Some(gid) => gid,
                None => by_name(&file(root, "etc/group"), group)
                    .and_then(|fields| id(fields.get(2)?))
                    .ok_or_else(|| OwnerError::NoGroup(group.to_owned()))?,
            },
        };
        Ok(Self { uid, gid })
    }
}

/// The fields of the line that begins with `name:`.
fn by_name<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))
}

/// The text of a file in the image; empty if it does not exist.
fn file(root: &OwnedFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    // A larger file is not a passwd file.
    let _ = std::fs::File::from(file).take(16 << 20).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0::/:\nweb:x:33:34:w:/:/bin/sh\nbad:x\nall:x:4294967295:0::/:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nstaff:x:50:\n").unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        for (text, expected) in [
            ("web", Ok((33, 34))),
            ("web:staff", Ok((33, 50))),
            ("web:7", Ok((33, 7))),
            ("5", Ok((5, 5))),
            ("5:staff", Ok((5, 50))),
            ("5:6", Ok((5, 6))),
            ("web:", Ok((33, 34))),
            (":staff", Ok((0, 50))),
            ("4294967295", Err("unable to find user 4294967295: no matching entries in passwd file")),
            ("all", Err("unable to find user all: no matching entries in passwd file")),
            ("5:4294967295", Err("unable to find group 4294967295: no matching entries in group file")),
            ("nobody", Err("unable to find user nobody: no matching entries in passwd file")),
            ("bad", Err("unable to find user bad: no matching entries in passwd file")),
            ("web:x", Err("unable to find group x: no matching entries in group file")),
        ] {
            let found =
                Owner::resolve(text, &root).map(|owner| (owner.uid, owner.gid)).map_err(|e| e.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
