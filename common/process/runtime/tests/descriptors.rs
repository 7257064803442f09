//! A process that cannot be looked at is not gone. In a file of its own: the limit is the whole test program's.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::process::{Command, Stdio};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use runtime::Identity;

#[test]
fn without_descriptors_nothing_is_known() {
    let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
    let identity = Identity::of(child.id() as i32).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let answers = [
        identity.is_alive().map(drop),
        identity.open().map(drop),
        identity.is_first_of_namespace().map(drop),
        identity.kill(),
        Identity::of(identity.pid).map(drop),
    ];
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let alive = identity.is_alive();
    child.kill().unwrap();
    child.wait().unwrap();
    for answer in answers {
        assert_eq!(answer.unwrap_err().errno(), Some(Errno::EMFILE));
    }
    assert!(alive.unwrap() && !identity.is_alive().unwrap());
}
