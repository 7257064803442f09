//! Users and groups from the container's own `/etc/passwd` and `/etc/group`. These files are not trusted:
//! they are opened inside its root, read up to a limit, and need not be well-formed.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, OFlags},
    io::Errno,
};

use crate::Error;

/// How much of a file is read, in bytes.
const MOST: u64 = 16 << 20;

/// A user, in the form that a process needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Supplementary groups, sorted, including `gid`. Without `gid`, a program with a set-group-id bit would run
    /// without that group, and could do what a file forbids the group (CVE-2022-36109).
    pub groups: Vec<u32>,
    /// The home directory; `/` if none is known.
    pub home: String,
}

/// One line of `/etc/passwd`.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Where users and groups are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Users {
    /// On the root file system.
    #[default]
    Rootfs,
    /// In another directory, which has the same `/etc`: a layer of a root file system that is not mounted yet.
    Directory(std::path::PathBuf),
    /// Nowhere: only numbers are accepted.
    None,
}

/// Resolves `user` as [`resolve`] does, with the accounts of `users`. `groups`, names or numbers, are added
/// to the user's.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_by(users: &Users, rootfs: &Path, user: &str, groups: &[String]) -> Result<User, Error> {
    let place =
        |path: &Path| mount::resolve::place(path).map_err(Error::at("open", format_args!("{path:?}")));
    let root = match users {
        Users::Rootfs => Some(place(rootfs)?),
        Users::Directory(directory) => Some(place(directory)?),
        Users::None => None,
    };
    let mut user = resolve_in(root.as_ref(), user)?;
    for group in groups {
        user.groups.push(resolve_group(root.as_ref(), group)?);
    }
    user.groups.sort_unstable();
    user.groups.dedup();
    Ok(user)
}

/// Resolves `user` on the root file system `rootfs`. It has the form of Docker's `USER` and `--user`: `name`,
/// `uid`, `name:group`, `uid:gid`, or empty for root. Digits are always a number, which needs no entry.
/// Without a group, the user gets the account's group, or 0, and all groups that list the account by name.
///
/// # Errors
/// When a name has no entry, or a number is too large.
pub fn resolve(rootfs: &Path, user: &str) -> Result<User, Error> {
    let root = mount::resolve::place(rootfs).map_err(Error::at("open", format_args!("{rootfs:?}")))?;
    resolve_in(Some(&root), user)
}

/// The highest user or group id that Docker and runc accept.
const HIGHEST: u64 = i32::MAX as u64;

/// Resolves a user. Without `root` there are no accounts.
fn resolve_in(root: Option<&OwnedFd>, user: &str) -> Result<User, Error> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    for given in [Some(name), group].into_iter().flatten() {
        if given.parse::<u64>().is_ok_and(|number| number > HIGHEST) {
            return Err(Error::new(format_args!("user {user:?}: a number is from 0 to {HIGHEST}")));
        }
    }
    let number = id(name);
    // Digits are a number even if an account has this name: what runs must not depend on who wrote the
    // image's list.
    let account = match number {
        Some(uid) => find(root, "/etc/passwd", account, |account: &Account| account.uid == uid)?,
        None => match account_of(root, name)? {
            Some(account) => Some(account),
            None => {
                return Err(Error::new(format_args!(
                    "find user {name:?} in /etc/passwd of the container: no such user"
                )));
            }
        },
    };
    let uid = account.as_ref().map(|account| account.uid).or(number).unwrap_or_default();
    let gid = match group {
        Some(group) => resolve_group(root, group)?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = vec![gid];
    if let (Some(account), None) = (&account, group) {
        visit(root, "/etc/group", |line| {
            if let Some((_, number, members)) = group_of(line)
                && members.split(',').any(|member| member == account.name)
            {
                groups.push(number);
            }
            false
        })?;
    }
    groups.sort_unstable();
    groups.dedup();
    let home = account.map(|account| account.home).filter(|home| home.starts_with('/'));
    Ok(User { uid, gid, groups, home: home.unwrap_or_else(|| "/".into()) })
}

fn resolve_group(root: Option<&OwnedFd>, group: &str) -> Result<u32, Error> {
    if let Some(gid) = id(group) {
        return Ok(gid);
    }
    match group_of_name(root, group)? {
        Some(gid) => Ok(gid),
        None => Err(Error::new(format_args!(
            "find group {group:?} in /etc/group of the container: no such group"
        ))),
    }
}

/// The ids of the account with this name, and of its group, in the `/etc/passwd` below `root`.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn account_named(root: &OwnedFd, name: &str) -> Result<Option<(u32, u32)>, Error> {
    Ok(account_of(Some(root), name)?.map(|account| (account.uid, account.gid)))
}

/// The id of the group with this name, in the `/etc/group` below `root`.
///
/// # Errors
/// As [`account_named`].
pub fn group_named(root: &OwnedFd, name: &str) -> Result<Option<u32>, Error> {
    group_of_name(Some(root), name)
}

fn account_of(root: Option<&OwnedFd>, name: &str) -> Result<Option<Account>, Error> {
    find(root, "/etc/passwd", account, |account: &Account| account.name == name)
}

/// The home directory of the user with this id; `/` if it is unknown.
pub(crate) fn home(root: &OwnedFd, uid: u32) -> String {
    let account = find(Some(root), "/etc/passwd", account, |account| account.uid == uid);
    let home = account.ok().flatten().map(|account| account.home).unwrap_or_default();
    if home.is_empty() { "/".to_owned() } else { home }
}

fn group_of_name(root: Option<&OwnedFd>, name: &str) -> Result<Option<u32>, Error> {
    let entry = find(root, "/etc/group", group_entry, |(entry, _): &(String, u32)| entry == name)?;
    Ok(entry.map(|(_, gid)| gid))
}

/// Parses an id that the kernel accepts. The highest id is excluded: setresuid(2) and chown(2) take it as
/// "unchanged", which is root.
pub fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = id(fields.nth(1)?)?;
    let gid = id(fields.next()?)?;
    Some(Account { name, uid, gid, home: fields.nth(1).unwrap_or_default().to_owned() })
}

fn group_of(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((name, id(fields.nth(1)?)?, fields.next().unwrap_or_default()))
}

fn group_entry(line: &str) -> Option<(String, u32)> {
    group_of(line).map(|(name, gid, _)| (name.to_owned(), gid))
}

fn find<T>(
    root: Option<&OwnedFd>,
    path: &str,
    parse: impl Fn(&str) -> Option<T>,
    wanted: impl Fn(&T) -> bool,
) -> Result<Option<T>, Error> {
    let mut found = None;
    visit(root, path, |line| {
        found = parse(line).filter(|entry| wanted(entry));
        found.is_some()
    })?;
    Ok(found)
}

/// Calls `each` with every line until it returns true. A missing file has no lines.
fn visit(root: Option<&OwnedFd>, path: &str, mut each: impl FnMut(&str) -> bool) -> Result<(), Error> {
    let Some(root) = root else { return Ok(()) };
    let object = || format!("{path:?} of the container");
    // Do not wait for the other end of a FIFO.
    let file = match mount::resolve::open_in(
        root,
        Path::new(path),
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    ) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.map_err(Error::at("read", object()))?,
    };
    let stat = rustix::fs::fstat(file.as_fd()).map_err(Error::at("read", object()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::system("read", object(), "not a regular file"));
    }
    let mut lines = BufReader::new(File::from(file).take(MOST));
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line).map_err(Error::at("read", object()))?;
        if length == 0 || each(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn rootfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        let passwd = "broken\nroot:x:0:0:root:/root:/bin/sh\nwww:x:33:34:w:/var/www:/bin/false\n7:x:70:71::/seven:\n\
             all:x:4294967295:0::/:\n";
        fs::write(dir.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nweb:x:34:\nadm:x:4:root,www\nssl:x:9:www\nall:x:4294967295:root\n",
        )
        .unwrap();
        dir
    }

    #[test]
    fn as_docker_reads_it() {
        let dir = rootfs();
        let user = |uid, gid, groups: &[u32], home: &str| User {
            uid,
            gid,
            groups: groups.into(),
            home: home.into(),
        };
        for (text, expected) in [
            ("", Ok(user(0, 0, &[0, 4], "/root"))),
            ("www", Ok(user(33, 34, &[4, 9, 34], "/var/www"))),
            ("33", Ok(user(33, 34, &[4, 9, 34], "/var/www"))),
            ("www:ssl", Ok(user(33, 9, &[9], "/var/www"))),
            ("www:", Ok(user(33, 34, &[4, 9, 34], "/var/www"))),
            ("1000", Ok(user(1000, 0, &[0], "/"))),
            ("1000:1001", Ok(user(1000, 1001, &[1001], "/"))),
            // The account named 7 has the number 70.
            ("7", Ok(user(7, 0, &[0], "/"))),
            ("70", Ok(user(70, 71, &[71], "/seven"))),
            ("nobody", Err("find user \"nobody\" in /etc/passwd of the container: no such user")),
            ("root:nogroup", Err("find group \"nogroup\" in /etc/group of the container: no such group")),
            ("-1", Err("find user \"-1\" in /etc/passwd of the container: no such user")),
            ("2147483647:2147483647", Ok(user(2_147_483_647, 2_147_483_647, &[2_147_483_647], "/"))),
            ("2147483648", Err("user \"2147483648\": a number is from 0 to 2147483647")),
            ("all", Err("find user \"all\" in /etc/passwd of the container: no such user")),
            ("0:4294967295", Err("user \"0:4294967295\": a number is from 0 to 2147483647")),
            ("0:all", Err("find group \"all\" in /etc/group of the container: no such group")),
            ("4294967296", Err("user \"4294967296\": a number is from 0 to 2147483647")),
        ] {
            let found = resolve(dir.path(), text).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{text:?}");
        }
    }

    #[test]
    fn no_file_and_hostile_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve(dir.path(), "").unwrap().uid, 0);
        fs::create_dir(dir.path().join("etc")).unwrap();
        let outside = rootfs();
        symlink(outside.path().join("etc/passwd"), dir.path().join("etc/passwd")).unwrap();
        assert!(resolve(dir.path(), "www").is_err(), "a link out of the root leads nowhere");
        fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let message = resolve(dir.path(), "www").unwrap_err().to_string();
        assert_eq!(message, "read \"/etc/passwd\" of the container: not a regular file");
    }
}
