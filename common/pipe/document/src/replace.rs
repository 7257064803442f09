//! Replaces the content of a file, even on a full file system.
//!
//! A spare file of the same size stands beside the file. The new content is written to the spare file. Then
//! both files exchange their names. So the file always has either the old content or the new one, and content
//! that does not grow needs no new room.
//!
//! The spare file was the file before, so somebody may still read it. It is then not written to: a lease
//! tells whether another process has it open, and blocks processes that are about to open it (fcntl(2),
//! "Leases"). Our own readers also hold a lock, for file systems without leases.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::libc;
use rustix::{
    fs::{CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, renameat_with},
    io::{Errno, retry_on_intr},
};

/// Room to reserve beyond the content, in bytes: `unwind` adds `error` to a record.
const BEYOND: u64 = 1024;

/// From include/uapi/asm-generic/fcntl.h. The crate libc does not have it.
const F_SETSIG: i32 = 10;

/// Reads the file at `path`. The result is the whole content at some moment.
///
/// # Errors
/// When the file cannot be opened, locked or read, or is a link or no regular file; when somebody else than root and
/// this user may have written it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    loop {
        // Opening a FIFO would wait for a writer. `O_NONBLOCK` would not help: with it, opening does not wait for
        // the end of a lease either.
        if !fs::symlink_metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        retry_on_intr(|| flock(&file, FlockOperation::LockShared))?;
        // The file may have become the spare file meanwhile.
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let opened = file.metadata()?;
        if fs::symlink_metadata(path).map(inode).ok() == Some(inode(opened.clone())) {
            let own = rustix::process::geteuid().as_raw();
            if ![0, own].contains(&opened.uid()) {
                return Err(io::Error::other(format!("it belongs to user {}", opened.uid())));
            }
            if opened.mode() & 0o022 != 0 {
                return Err(io::Error::other("others may write to it"));
            }
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return Ok(content);
        }
    }
}

/// Replaces the content of the file at `path`. `spare` is the path of the spare file. Only root can read both
/// files.
///
/// # Errors
/// When there is no room for both files, or one of them cannot be written. The file then keeps its content.
pub(crate) fn replace(path: &Path, spare: &Path, content: &[u8]) -> io::Result<()> {
    let old = match File::options().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        old => Some(old?),
    };
    let new = write(spare, content).and_then(|new| match &old {
        Some(old) => exchange(path, spare, (&new, old), content.len() as u64),
        None => place(path, spare, &new, content.len() as u64),
    });
    if new.is_err() && old.is_none() {
        let _ = fs::remove_file(spare);
    }
    new
}

/// Writes `content` over the spare file. It does not make a new file, which may not have room.
fn write(spare: &Path, content: &[u8]) -> io::Result<File> {
    let open = || File::options().create(true).truncate(false).write(true).mode(0o600).open(spare);
    let mut file = open()?;
    if !is_ours_alone(&file)? {
        // Somebody opened this file when it still had the other name, and is reading it.
        fs::remove_file(spare)?;
        file = open()?;
    }
    let written = file.write_all_at(content, 0).and_then(|()| file.set_len(content.len() as u64));
    lease(&file, libc::F_UNLCK);
    written.map(|()| file)
}

/// Whether nobody else has the file open. If so, takes a lease: another process that opens the file waits
/// until the lease is given back.
fn is_ours_alone(file: &File) -> io::Result<bool> {
    match retry_on_intr(|| flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked?,
    }
    // The kernel announces a waiting process by a signal. The default, SIGIO, would end this process; SIGURG
    // is ignored.
    // SAFETY: F_SETSIG takes a number, and touches no memory of this process.
    unsafe { libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) };
    Ok(lease(file, libc::F_WRLCK) || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock)
}

/// Takes a lease, or gives it back. Returns whether that worked. Some file systems have no leases.
fn lease(file: &File, kind: i32) -> bool {
    // SAFETY: F_SETLEASE takes a number, and touches no memory of this process.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
}

/// Puts the first version of a file in its place, and makes a spare file beside it.
fn place(path: &Path, spare: &Path, new: &File, length: u64) -> io::Result<()> {
    reserve(new, length)?;
    fs::rename(spare, path)?;
    let spared = write(spare, b"").and_then(|spare| reserve(&spare, length));
    if spared.is_err() {
        fs::remove_file(path)?;
    }
    spared
}

/// Exchanges the names of both files. The old file becomes the spare file.
fn exchange(path: &Path, spare: &Path, (new, old): (&File, &File), length: u64) -> io::Result<()> {
    let grows = length > old.metadata()?.len();
    for file in [new, old] {
        match reserve(file, length) {
            // Content that does not grow has its room already.
            Err(_) if !grows => {}
            reserved => reserved?,
        }
    }
    match renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE) {
        // The file system cannot exchange names.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(spare, path),
        exchanged => Ok(exchanged?),
    }
}

/// Reserves room for content of this length and [`BEYOND`]. Does nothing on file systems that cannot reserve
/// room.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length + BEYOND) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        reserved => Ok(reserved?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_gets_a_whole_content_and_writes_do_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let (path, spare) = (dir.path().join("file"), dir.path().join("file.new"));
        let content = |n: usize| vec![b'a' + u8::try_from(n % 20).unwrap(); 5000 + n * 7];
        replace(&path, &spare, &content(0)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let read = read(&path).unwrap();
                        assert!(read.len() >= 5000 && read.iter().all(|byte| *byte == read[0]));
                        assert_eq!(usize::from(read[0] - b'a'), (read.len() - 5000) / 7 % 20);
                    }
                });
            }
            (0..2000).for_each(|n| replace(&path, &spare, &content(n)).unwrap());
        });
        let reader = File::open(&path).unwrap();
        flock(&reader, FlockOperation::LockShared).unwrap();
        (0..3).for_each(|n| replace(&path, &spare, &content(n)).unwrap());
        assert_eq!(read(&path).unwrap(), content(2));
    }

    /// Programs such as jq take no lock.
    #[test]
    fn who_takes_no_lock_and_reads_slowly_gets_a_whole_content_too() {
        let dir = tempfile::tempdir().unwrap();
        let (path, spare) = (dir.path().join("file"), dir.path().join("file.new"));
        let content = |n: usize| vec![b'a' + u8::try_from(n % 20).unwrap(); 50_000];
        replace(&path, &spare, &content(0)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let mut file = File::open(&path).unwrap();
                        let mut read = [0; 50_000];
                        let (begin, end) = read.split_at_mut(20_000);
                        file.read_exact(begin).unwrap();
                        std::thread::sleep(std::time::Duration::from_micros(200));
                        file.read_exact(end).unwrap();
                        assert!(read.iter().all(|byte| *byte == read[0]));
                    }
                });
            }
            (0..2000).for_each(|n| replace(&path, &spare, &content(n)).unwrap());
        });
    }

    #[test]
    fn what_is_not_longer_finds_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let (path, spare) = (dir.path().join("file"), dir.path().join("file.new"));
        let allocated = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
        replace(&path, &spare, &[1; 10_000]).unwrap();
        assert!(allocated(&spare) >= 10_000 + BEYOND);
        replace(&path, &spare, &[2; 20_000]).unwrap();
        assert!(allocated(&spare) >= 20_000 + BEYOND);
        assert_eq!(fs::metadata(&path).unwrap().len(), 20_000);
    }
}
