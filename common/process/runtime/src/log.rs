//! The log of a process in the background.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc;

/// Where output goes.
#[derive(Debug, Clone, Copy)]
pub struct Log<'a> {
    /// The file. Output is appended.
    pub path: &'a Path,
    /// At this many bytes the file gets the name `<path>.1`, in place of an older one with that name, and a new one is
    /// begun. So at most twice as much is kept. None for no limit.
    pub limit: Option<u64>,
}

impl Log<'_> {
    /// The name of the older half.
    pub fn older(path: &Path) -> PathBuf {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(".1");
        name.into()
    }
}

/// A log that is open.
#[derive(Debug)]
pub(crate) struct Open {
    file: File,
    path: PathBuf,
    limit: Option<u64>,
    written: u64,
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOCTTY | libc::O_CLOEXEC;
    File::options().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

impl Open {
    pub(crate) fn new(log: Log<'_>) -> io::Result<Self> {
        let file = open(log.path)?;
        let written = file.metadata()?.len();
        Ok(Self { file, path: log.path.to_owned(), limit: log.limit, written })
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Appends. A log that is full or gone must not block the process.
    pub(crate) fn append(&mut self, output: &[u8]) {
        if self.limit.is_some_and(|limit| self.written > 0 && self.written + output.len() as u64 > limit) {
            self.rotate();
        }
        if self.file.write_all(output).is_ok() {
            self.written += output.len() as u64;
        }
    }

    /// If there can be no second file, the one begins anew.
    fn rotate(&mut self) {
        let rotated = fs::rename(&self.path, Log::older(&self.path)).and_then(|()| open(&self.path));
        match rotated {
            Ok(file) => self.file = file,
            Err(_) => drop(self.file.set_len(0)),
        }
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_twice_the_limit_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Open::new(Log { path: &path, limit: Some(10) }).unwrap();
        for number in 0..9 {
            log.append(format!("line{number}").as_bytes());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line8");
        assert_eq!(fs::read_to_string(Log::older(&path)).unwrap(), "line6line7");
        // One that is there is continued.
        let mut again = Open::new(Log { path: &path, limit: None }).unwrap();
        again.append(b"0123456789");
        assert_eq!(fs::read_to_string(&path).unwrap(), "line80123456789");
        fs::remove_dir_all(dir.path()).unwrap();
        log.append(b"lost, but nothing fails");
    }
}
