//! Says what a process waits for, if it waits long.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use operation::printable_word;
use rustix::fs::{major, minor};

/// After this time people want to know.
const LONG: Duration = Duration::from_secs(2);

/// Waits by `wait`. If that takes long, says once on standard error that it waits for this lock, and who has it.
pub(crate) fn told<T>(lock: &str, holder: impl Fn() -> Option<i32> + Send, wait: impl FnOnce() -> T) -> T {
    let (waits, ends) = channel::<()>();
    let tell = move || {
        if ends.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            let holder = holder().and_then(described).map(|holder| format!(", which {holder} has"));
            operation::note(&format!("waits for lock {lock}{}", holder.unwrap_or_default()));
        }
    };
    thread::scope(|scope| {
        // Without a thread it waits silently.
        let teller = thread::Builder::new().spawn_scoped(scope, tell);
        let result = wait();
        drop(waits);
        // The end of the scope does not wait until the thread itself is gone, and the caller may fork next.
        let _ = teller.map(|teller| teller.join());
        result
    })
}

/// The process as people know it. None if it has ended.
fn described(pid: i32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("process {pid} ({})", printable_word(name.trim_end())))
}

/// The process that has locked the file by flock(2), from `/proc/locks`. None if it cannot be seen from here.
pub(crate) fn holder(file: &File) -> Option<i32> {
    let found = file.metadata().ok()?;
    let file = format!("{:02x}:{:02x}:{}", major(found.dev()), minor(found.dev()), found.ino());
    fs::read_to_string("/proc/locks").ok()?.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            // One that waits has an arrow before the kind.
            [_, "FLOCK", _, _, pid, of, ..] if of == file => pid.parse().ok().filter(|pid| *pid > 0),
            _ => None,
        }
    })
}
