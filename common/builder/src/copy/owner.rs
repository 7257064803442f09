//! The owners of `--chown` and USER: numbers, or names that are looked up in the image's own `/etc/passwd`
//! and `/etc/group`.

use std::os::fd::OwnedFd;

use runtime::user::{account_named, group_named, id};
use rustix::{
    fs::{Gid, Uid},
    io::Errno,
};

/// A user and a group, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Why an owner cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The image has no such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// The image has no such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// `/etc/passwd` or `/etc/group` cannot be read.
    #[error(transparent)]
    Unreadable(#[from] runtime::Error),
}

impl Owner {
    /// Resolves `user[:group]` in the image below `root`. Without a group, the group of a name comes from
    /// `/etc/passwd`, and the group of a number is the same number. (A process of that user gets another
    /// group, see [`runtime::user::resolve`]: Docker has two rules.)
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
            None => account_named(root, user)?.ok_or_else(|| OwnerError::NoUser(user.to_owned()))?,
        };
        let gid = match group {
            None => own_group,
            Some(group) => match id(group) {
                Some(gid) => gid,
                None => group_named(root, group)?.ok_or_else(|| OwnerError::NoGroup(group.to_owned()))?,
            },
        };
        Ok(Self { uid, gid })
    }
}

/// Why a file cannot get its owner.
#[derive(Debug, thiserror::Error)]
pub enum NotOwned {
    /// The owner has no mapping in the user namespace (chown(2), EINVAL).
    #[error("owner {}:{} has no mapping in this user namespace", .0.uid, .0.gid)]
    Unmapped(Owner),
    /// Another cause.
    #[error(transparent)]
    System(Errno),
}

impl Owner {
    /// Gives a file to the owner: `set` is the call of chown(2). If `rootless`, a user or group without a mapping in the
    /// user namespace is left as it is. Returns the bits that the file's mode may then have: a program with a set-id bit
    /// would run as an owner that nobody named.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn give(
        self,
        rootless: bool,
        set: impl Fn(Option<Uid>, Option<Gid>) -> Result<(), Errno>,
    ) -> Result<u32, NotOwned> {
        let (user, group) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
        match set(user, group) {
            Ok(()) => return Ok(0o7777),
            Err(Errno::INVAL) if rootless => {}
            Err(Errno::INVAL) => return Err(NotOwned::Unmapped(self)),
            Err(error) => return Err(NotOwned::System(error)),
        }
        let mut bits = 0o7777;
        for (user, group, bit) in [(user, None, 0o4000), (None, group, 0o2000)] {
            match set(user, group) {
                Ok(()) => {}
                Err(Errno::INVAL) => bits &= !bit,
                Err(error) => return Err(NotOwned::System(error)),
            }
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

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

    #[test]
    fn owners_without_a_mapping() {
        use std::cell::RefCell;
        let set = RefCell::new(Vec::new());
        // Of the users and groups, only 0 is mapped.
        let chown = |user: Option<Uid>, group: Option<Gid>| {
            let (user, group) = (user.map(Uid::as_raw), group.map(Gid::as_raw));
            if user.unwrap_or(0) != 0 || group.unwrap_or(0) != 0 {
                return Err(Errno::INVAL);
            }
            set.borrow_mut().push((user, group));
            Ok(())
        };
        let give = |uid, gid, rootless| Owner { uid, gid }.give(rootless, chown).map_err(|e| e.to_string());
        assert_eq!(give(0, 0, false), Ok(0o7777));
        assert_eq!(give(7, 0, false), Err("owner 7:0 has no mapping in this user namespace".to_owned()));
        assert_eq!(give(7, 0, true), Ok(0o3777));
        assert_eq!(give(0, 7, true), Ok(0o5777));
        assert_eq!(give(7, 7, true), Ok(0o1777));
        assert_eq!(*set.borrow(), [(Some(0), Some(0)), (None, Some(0)), (Some(0), None)]);
        let denied = Owner { uid: 1, gid: 1 }.give(true, |_, _| Err(Errno::PERM)).unwrap_err();
        assert_eq!(denied.to_string(), Errno::PERM.to_string());
    }
}
