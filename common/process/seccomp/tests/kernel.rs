//! Runs the program in the kernel.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use nix::{
    errno::Errno,
    libc,
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use seccomp::{Conditions, Profile, Program, unknown_names};

/// Makes these system calls without arguments, in a process of its own under Docker's policy. Returns 0 if
/// their error numbers are as expected.
fn answers(calls: [libc::c_long; 4]) -> i32 {
    let policy = Profile::docker().unwrap().resolve(&Conditions::of_this_machine(["CAP_CHOWN"])).unwrap();
    let program = Program::compile(&policy).unwrap();
    // SAFETY: the child makes system calls only.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: plain system calls.
            let wrong = unsafe {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                let installed = program.install().is_ok_and(|listener| listener.is_none());
                let of = |call| {
                    let answer = libc::syscall(call, -1_i64, 0, 0, 0, 0);
                    if answer == -1 { Errno::last_raw() } else { 0 }
                };
                let found = calls.map(of);
                i32::from(!installed)
                    + 2 * i32::from(found[0] != libc::EPERM)
                    + 4 * i32::from(found[1] != libc::EPERM)
                    + 8 * i32::from(found[2] != libc::ENOSYS)
                    + 16 * i32::from(found[3] != libc::EBADF)
            };
            // SAFETY: ends the process.
            unsafe { libc::_exit(wrong) }
        }
        ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, status) => status,
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn what_is_denied_fails_and_the_rest_works() {
    // A call that no kernel has yet fails as on an old kernel.
    assert_eq!(answers([libc::SYS_keyctl, libc::SYS_userfaultfd, 1000, libc::SYS_close]), 0);
}

#[test]
fn names_that_no_architecture_has_are_told() {
    let conditions = Conditions::of_this_machine(["CAP_CHOWN"]);
    assert_eq!(unknown_names(&Profile::docker().unwrap().resolve(&conditions).unwrap()), [""; 0]);
    let text = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdri"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let policy = Profile::parse(text).unwrap().resolve(&conditions).unwrap();
    assert_eq!(unknown_names(&policy), ["mkdri"]);
}

#[test]
fn a_program_is_the_same_after_it_was_bytes() {
    let policy = Profile::docker().unwrap().resolve(&Conditions::of_this_machine(["CAP_CHOWN"])).unwrap();
    let program = Program::compile(&policy).unwrap();
    let bytes = program.to_bytes();
    assert!(bytes.len() <= Program::MOST_BYTES);
    assert_eq!(Program::from_bytes(&bytes), Some(program));
    for length in [0, 1, 8, 9, bytes.len() - 1] {
        assert_eq!(Program::from_bytes(&bytes[..length]), None, "{length}");
    }
    assert_eq!(Program::from_bytes(&vec![0; Program::MOST_BYTES + 8]), None);
}
