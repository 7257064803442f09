//! Network namespaces in the kernel. Needs root: each test runs in its own mount namespace, with an
//! empty `/run`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use netns::NetnsOperation as Netns;
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, fork},
};
use operation::{Condition, Operation, Scope};

/// Runs `work` on a thread with its own mount namespace and a new tmpfs on `/run`.
fn sandbox(work: impl FnOnce(&Scope) + Send) {
    let scope = Scope { root: "/run/root".into(), run_dir: "/run/stave".into() };
    testkit::apart(CloneFlags::CLONE_NEWNS, || work(&scope));
}

fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
}

#[test]
fn made_entered_checked_and_removed() {
    sandbox(|scope| {
        let before = mounts();
        let mut netns = Netns::new("/run/netns/web", "web");
        assert!(matches!(netns.check(scope).unwrap(), Condition::Missing(_)));
        netns.undo(scope).unwrap();
        netns.apply(scope).unwrap();
        assert_eq!(netns.check(scope).unwrap(), Condition::Present);
        let inside = netns::enter(Path::new("/run/netns/web"), || {
            let up = std::net::TcpListener::bind("127.0.0.1:0").is_ok();
            (fs::metadata("/proc/thread-self/ns/net").unwrap(), up)
        })
        .unwrap();
        assert_eq!((Some(inside.0.ino()), inside.1), (netns.inode, true));
        assert_ne!(fs::metadata("/proc/thread-self/ns/net").unwrap().ino(), inside.0.ino());
        let error = Netns::new("/run/netns/web", "other").apply(scope).unwrap_err();
        assert_eq!(error.to_string(), r#"create network namespace "/run/netns/web": File exists"#);
        netns.undo(scope).unwrap();
        netns.undo(scope).unwrap();
        assert_eq!(mounts(), before);
        assert!(!Path::new("/run/netns/web").exists());
        let error = netns::enter(Path::new("/run/netns/web"), || ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"enter network namespace "/run/netns/web": No such file or directory"#
        );
    });
}

/// Root of a user namespace may enter network namespaces that it made, but may not return to the
/// original one.
#[test]
fn where_there_is_no_way_back() {
    // SAFETY: the child ends by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
        ForkResult::Child => {
            let result = std::panic::catch_unwind(|| {
                unshare(CloneFlags::CLONE_NEWUSER).unwrap();
                for (file, content) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
                    fs::write(format!("/proc/self/{file}"), content).unwrap();
                }
                let own = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
                let ours = fs::File::open("/proc/thread-self/ns/net").unwrap();
                assert_eq!(setns(&ours, CloneFlags::CLONE_NEWNET), Err(Errno::EPERM));
                sandbox(|scope| {
                    let before = own();
                    let mut netns = Netns::new("/run/netns/web", "web");
                    netns.apply(scope).unwrap();
                    let inside = netns::enter(Path::new("/run/netns/web"), own).unwrap();
                    assert_eq!((Some(inside), own()), (netns.inode, before));
                    netns.undo(scope).unwrap();
                });
            });
            // SAFETY: it ends the process.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
    }
}

#[test]
fn what_a_kill_leaves_half_made_is_removed() {
    sandbox(|scope| {
        let planned = Netns::new("/run/netns/web", "web");
        // An empty file: the tool was killed before the mount.
        fs::create_dir_all("/run/netns").unwrap();
        fs::write("/run/netns/web", "").unwrap();
        planned.undo(scope).unwrap();
        assert!(!Path::new("/run/netns").exists());
        // The mount without its inode in the record: the tool was killed after the mount.
        planned.clone().apply(scope).unwrap();
        planned.undo(scope).unwrap();
        assert!(!Path::new("/run/netns/web").exists());
    });
}

#[test]
fn what_others_made_stays() {
    sandbox(|scope| {
        let before = mounts();
        let mut other = Netns::new("/run/netns/web", "other");
        other.apply(scope).unwrap();
        let planned = Netns::new("/run/netns/web", "web");
        let stale = Netns { inode: Some(1), ..planned.clone() };
        // Another run directory has a container with the same id.
        let twin = Netns::new("/run/netns/web", "other").marked(netlink::Mark::new("other", Some("2")));
        for ours in [&planned, &stale, &twin] {
            ours.undo(scope).unwrap();
            assert!(matches!(ours.check(scope).unwrap(), Condition::Different(_)));
        }
        assert_eq!(other.check(scope).unwrap(), Condition::Present);
        other.undo(scope).unwrap();
        assert_eq!(mounts(), before);

        fs::create_dir_all("/run/netns").unwrap();
        fs::write("/run/netns/web", "text").unwrap();
        planned.undo(scope).unwrap();
        fs::remove_file("/run/netns/web").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", "/run/netns/web").unwrap();
        planned.undo(scope).unwrap();
        assert!(Path::new("/run/netns/web").is_symlink());
        let outside = Netns::new("/etc/passwd", "web");
        assert!(outside.undo(scope).unwrap_err().to_string().contains("is outside"));
    });
}

/// The first `ip netns add` mounts `/run/netns` on itself, over the existing namespaces.
#[test]
fn removed_also_after_ip_netns_add() {
    sandbox(|scope| {
        let before = mounts();
        let mut netns = Netns::new("/run/netns/web", "web");
        netns.apply(scope).unwrap();
        let ip = |arguments: &[&str]| {
            let status = std::process::Command::new("ip").arg("netns").args(arguments).status().unwrap();
            assert!(status.success(), "{arguments:?}");
        };
        ip(&["add", "other"]);
        assert_eq!(netns.check(scope).unwrap(), Condition::Present);
        netns.undo(scope).unwrap();
        netns.undo(scope).unwrap();
        assert!(
            !Path::new("/run/netns/web").exists() && !mounts().contains("/run/netns/web"),
            "{}",
            mounts()
        );
        // The other namespace is unchanged.
        netns::enter(Path::new("/run/netns/other"), || ()).unwrap();
        let mut again = Netns::new("/run/netns/web", "web");
        again.apply(scope).unwrap();
        again.undo(scope).unwrap();
        ip(&["delete", "other"]);
        nix::mount::umount("/run/netns").unwrap();
        assert_eq!(mounts(), before);
    });
}

#[test]
fn twenty_at_once() {
    sandbox(|scope| {
        let before = mounts();
        // The threads share this mount namespace, as processes on a host do.
        std::thread::scope(|threads| {
            for at in 0..20 {
                threads.spawn(move || {
                    let id = format!("c{at}");
                    let mut netns = Netns::new(Path::new("/run/netns").join(&id), &id);
                    netns.apply(scope).unwrap();
                    netns.undo(scope).unwrap();
                });
            }
        });
        assert_eq!(mounts(), before);
    });
}

#[test]
fn explained_as_a_person_would_type_it() {
    for (path, lines) in [
        (
            "/run/netns/web",
            vec![
                "mkdir -p /run/netns",
                "ip netns add web",
                "ip -n web link set lo up alias 'stave web'",
                "ip netns exec web sysctl -w net.ipv6.conf.default.disable_ipv6=1",
            ],
        ),
        (
            "/run/stave/ns/web",
            vec![
                "mkdir -p /run/stave/ns",
                "touch /run/stave/ns/web",
                "unshare --net=/run/stave/ns/web ip link set lo up alias 'stave web'",
                "nsenter --net=/run/stave/ns/web sysctl -w net.ipv6.conf.default.disable_ipv6=1",
            ],
        ),
    ] {
        assert_eq!(Netns::new(path, "web").explain(), lines);
    }
    assert_eq!(
        serde_json::to_string(&Netns::new("/run/netns/web", "web")).unwrap(),
        r#"{"op":"netns-add","path":"/run/netns/web","holder":"web"}"#
    );
}
