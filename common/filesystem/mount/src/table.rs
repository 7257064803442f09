//! The mount table of this thread (`/proc/thread-self/mountinfo`).

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    io::Errno,
};

use crate::{Error, Result, error::on};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's id of the mount.
    pub id: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// The type of the file system, such as `overlay` or `tmpfs`.
    pub kind: String,
    /// The source of the mount.
    pub source: String,
    /// The options of the file system, separated by commas.
    pub options: String,
    /// Whether mounts below it propagate to its peers (mount_namespaces(7)).
    pub shared: bool,
    /// Whether mounts below its master propagate to it.
    pub slave: bool,
}

/// Returns all mounts in the mount namespace of the calling thread.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn read() -> Result<Vec<Entry>> {
    read_from(Path::new("/proc/thread-self/mountinfo"))
}

/// Returns all mounts of the mountinfo file at `path`, which may be another process's.
///
/// # Errors
/// When the process is gone, or belongs to another user.
pub(crate) fn read_from(path: &Path) -> Result<Vec<Entry>> {
    // The file's size is unknown. std would start with a small buffer and grow it each time.
    let mut text = Vec::with_capacity(16 << 10);
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut text))
        .map_err(Error::on("read", format_args!("{path:?}")))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Returns the topmost mount at `path`, if `path` is a mount point.
///
/// # Errors
/// When `path` or the mount table cannot be read. A missing path is not an error.
pub fn at(path: &Path) -> Result<Option<Entry>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = match statx(CWD, path, flags, StatxFlags::MNT_ID) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        result => result.map_err(on("look at", path))?,
    };
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(None);
    }
    Ok(read()?.into_iter().find(|entry| entry.id == found.stx_mnt_id))
}

/// Returns the mount that contains `path`; `None` if this process does not see that mount.
///
/// # Errors
/// When the path is missing, or the mount table cannot be read.
pub fn holding(path: &Path) -> Result<Option<Entry>> {
    let found = statx(CWD, path, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID).map_err(on("look at", path))?;
    Ok(read()?.into_iter().find(|entry| entry.id == found.stx_mnt_id))
}

/// Parses a line of /proc/pid/mountinfo (proc(5)):
/// `36 35 98:0 /root /target rw,noatime master:1 - ext3 /dev/root rw`.
fn parse(line: &[u8]) -> Option<Entry> {
    let mut words = line.split(|byte| *byte == b' ');
    let id = str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let device = words.nth(1)?;
    let (major, minor) = str::from_utf8(device).ok()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    let root = unescape(words.next()?).into();
    let target = unescape(words.next()?).into();
    let (mut shared, mut slave) = (false, false);
    for word in words.by_ref().take_while(|word| *word != b"-") {
        shared |= word.starts_with(b"shared:");
        slave |= word.starts_with(b"master:");
    }
    let mut text = || Some(unescape(words.next()?).to_string_lossy().into_owned());
    Some(Entry { id, device, root, target, kind: text()?, source: text()?, options: text()?, shared, slave })
}

/// Decodes `\ooo`: space, tab, newline and backslash are written as three octal digits.
fn unescape(word: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|d| matches!(d, b'0'..=b'7')));
        match digits {
            Some(digits) => {
                out.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8) + (digit - b'0')));
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_writes() {
        let line =
            br"36 35 98:0 / /a\040b\134 rw,noatime master:1 shared:2 - overlay stave:web rw,lowerdir=/x";
        let entry = parse(line).unwrap();
        assert_eq!((entry.id, entry.device), (36, (98, 0)));
        assert_eq!(entry.target, Path::new(r"/a b\"));
        assert_eq!((entry.kind.as_str(), entry.source.as_str()), ("overlay", "stave:web"));
        assert!(entry.shared && entry.slave);
        assert!(!parse(b"1 2 0:3 / / rw - ext4 x rw").unwrap().shared);
        assert_eq!(holding(Path::new("/proc/self/status")).unwrap().unwrap().target, Path::new("/proc"));
        assert_eq!(at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
        assert_eq!(at(Path::new("/proc/self")).unwrap(), None);
        assert_eq!(at(Path::new("/nonexistent/x")).unwrap(), None);
    }
}
