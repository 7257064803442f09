//! Namespaces for a part of a test, and a shell in them.

use std::process::Command;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `work` on a thread with these namespaces of its own. In a mount namespace, `/run` is empty.
///
/// # Panics
/// When the namespaces cannot be made, and when `work` panics.
pub fn apart(namespaces: CloneFlags, work: impl FnOnce() + Send) {
    std::thread::scope(|threads| {
        let started = threads.spawn(|| {
            unshare(namespaces).expect("this test needs root");
            if namespaces.contains(CloneFlags::CLONE_NEWNS) {
                let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            }
            work();
        });
        if let Err(panic) = started.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a script in the namespaces of this thread. Returns its output.
///
/// # Panics
/// When one of its commands fails.
#[track_caller]
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
