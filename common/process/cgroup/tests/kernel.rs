//! Cgroups and device programs of the kernel. Needs root.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use cgroup::{CgroupOperation, DeviceProgram, Group, Hierarchy, Temporary, docker_devices, may_make};
use operation::{Condition, Operation, Scope};

/// A cgroup of the test's own name, removed at the end.
struct Own(PathBuf);

impl Own {
    fn new(name: &str) -> Self {
        Self(PathBuf::from(format!("/stave/test-{name}-{}", std::process::id())))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        Group::remove(&Hierarchy::open().unwrap(), &self.0).unwrap();
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("100").spawn().unwrap()
}

#[test]
fn what_is_removed_ends_with_all_its_processes() {
    let hierarchy = Hierarchy::open().unwrap();
    let own = Own::new("kill");
    let group = Group::create(&hierarchy, &own.0).unwrap();
    assert!(Group::create(&hierarchy, &own.0).unwrap_err().to_string().ends_with("File exists"));
    let below = Group::create(&hierarchy, &own.0.join("a/b")).unwrap();
    let mut children = [sleeper(), sleeper()];
    group.admit(children[0].id() as i32).unwrap();
    below.admit(children[1].id() as i32).unwrap();
    assert!(group.is_populated().unwrap());
    // The children must be reaped, or they stay in the cgroup.
    let reaper = std::thread::spawn(move || children.each_mut().map(|child| child.wait().unwrap().success()));
    Group::remove(&hierarchy, &own.0).unwrap();
    assert_eq!(reaper.join().unwrap(), [false; 2]);
    assert!(Group::open(&hierarchy, &own.0).unwrap().is_none());
    Group::remove(&hierarchy, &own.0).unwrap();
}

#[test]
fn the_operation_makes_and_removes_its_own_alone() {
    let scope = Scope { root: "/r".into(), run_dir: "/s".into() };
    let path = cgroup::path(&format!("test-op-{}", std::process::id()), Some("0123456789abcdef"));
    let mut operation = CgroupOperation::at(&path);
    assert!(matches!(operation.check(&scope).unwrap(), Condition::Missing(_)));
    operation.apply(&scope).unwrap();
    assert_eq!(operation.check(&scope).unwrap(), Condition::Present);
    assert!(operation.apply(&scope).is_err(), "one that is there is somebody's");
    operation.undo(&scope).unwrap();
    operation.undo(&scope).unwrap();
    for path in ["/", "/stave", "/user.slice/x", "/stave/a/b", "/stave/..", "stave/x"] {
        let error = CgroupOperation::at(Path::new(path)).undo(&scope).unwrap_err();
        assert!(error.to_string().starts_with("remove cgroup"), "{error}");
    }
}

/// Held by tests with temporary cgroups: each of these removes what a killed build has left, also what another test
/// is about to leave.
static SWEEPING: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn what_a_killed_build_left_goes_with_the_next() {
    let _sweeping = SWEEPING.lock();
    let hierarchy = Hierarchy::open().unwrap();
    let is_there = |path: &Path| Group::open(&hierarchy, path).unwrap().is_some();
    let left = PathBuf::from(format!("/stave/_step-test{}", std::process::id()));
    Group::create(&hierarchy, &left).unwrap();
    // A container with a similar name, whose process does not exist yet.
    let container = cgroup::path("step-test", Some(&std::process::id().to_string()));
    Group::create(&hierarchy, &container).unwrap();
    let (one, other) = (Temporary::new(true).unwrap(), Temporary::new(true).unwrap());
    assert!(!is_there(&left) && is_there(one.path()) && is_there(other.path()));
    let path = one.path().to_owned();
    drop(one);
    assert!(!is_there(&path) && is_there(other.path()));
    assert!(is_there(&container));
    Group::remove(&hierarchy, &container).unwrap();
}

#[test]
fn many_at_once_do_not_sweep_each_other_away() {
    let _sweeping = SWEEPING.lock();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let own = Temporary::new(true).unwrap();
                    assert!(Group::open(&Hierarchy::open().unwrap(), own.path()).unwrap().is_some());
                }
            });
        }
    });
}

#[test]
fn who_may_make_cgroups() {
    may_make(Path::new("/stave/x")).unwrap();
    may_make(Path::new("/none-above/x")).unwrap();
}

/// Whether a process in the cgroup can open the device for reading, and make a node of the same number.
fn uses(group: &Path, device: &str, kind: &str, major: u32, minor: u32) -> (bool, bool) {
    let top = tempfile::tempdir().unwrap();
    let node = top.path().join("node");
    let script = format!(
        "mount -t cgroup2 none {top} && echo $$ > {top}{group}/cgroup.procs && umount {top}
         o=0; m=0; head -c 0 {device} && o=1; mknod {node} {kind} {major} {minor} && m=1; rm -f {node}; echo $o $m",
        top = top.path().display(),
        group = group.display(),
        node = node.display(),
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().map(|word| word == "1");
    (words.next().unwrap(), words.next().unwrap())
}

#[test]
fn a_program_limits_devices() {
    assert!(File::open("/dev/null").is_ok());
    let hierarchy = Hierarchy::open().unwrap();
    let own = Own::new("devices");
    let group = Group::create(&hierarchy, &own.0).unwrap();
    // No container has kmsg.
    assert_eq!(uses(&own.0, "/dev/kmsg", "c", 1, 11), (true, true));
    DeviceProgram::compile(&docker_devices()).attach(&group).unwrap();
    assert_eq!(uses(&own.0, "/dev/kmsg", "c", 1, 11), (false, true));
    assert_eq!(uses(&own.0, "/dev/null", "c", 1, 3), (true, true));
    assert_eq!(uses(&own.0, "/dev/zero", "b", 7, 0), (true, true));
    // Another program cannot allow more.
    let open = r#"[{"allow":true,"access":"rwm"}]"#;
    DeviceProgram::compile(&serde_json::from_str::<Vec<_>>(open).unwrap()).attach(&group).unwrap();
    assert_eq!(uses(&own.0, "/dev/kmsg", "c", 1, 11), (false, true));
}

#[test]
fn a_list_is_attached_once_and_replaces_others() {
    let hierarchy = Hierarchy::open().unwrap();
    let own = Own::new("replace");
    let group = Group::create(&hierarchy, &own.0).unwrap();
    let attached = || bpf::Program::attached(&group, bpf::Attachment::Device, "stave_devices").unwrap().len();
    let docker = DeviceProgram::compile(&docker_devices());
    for _ in 0..3 {
        docker.replace(&group).unwrap();
        docker.attach(&group).unwrap();
    }
    assert_eq!(attached(), 1);
    let open = r#"[{"allow":true,"access":"rwm"}]"#;
    let open = DeviceProgram::compile(&serde_json::from_str::<Vec<_>>(open).unwrap());
    open.attach(&group).unwrap();
    assert_eq!((attached(), uses(&own.0, "/dev/kmsg", "c", 1, 11)), (2, (false, true)));
    open.replace(&group).unwrap();
    assert_eq!((attached(), uses(&own.0, "/dev/kmsg", "c", 1, 11)), (1, (true, true)));
}

#[test]
fn the_last_rule_decides() {
    let hierarchy = Hierarchy::open().unwrap();
    for (name, rules, expected) in [
        ("none", "[]", (false, false)),
        (
            "deny",
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":3,"access":"m"}]"#,
            (true, false),
        ),
        ("read", r#"[{"allow":true,"type":"c","major":1,"minor":3,"access":"r"}]"#, (true, false)),
        ("type", r#"[{"allow":true,"type":"b","access":"rwm"}]"#, (false, false)),
        (
            "any",
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"a","major":1,"minor":-1,"access":"rwm"}]"#,
            (true, true),
        ),
    ] {
        let own = Own::new(name);
        let group = Group::create(&hierarchy, &own.0).unwrap();
        let rules: Vec<_> = serde_json::from_str(rules).unwrap();
        DeviceProgram::compile(&rules).attach(&group).unwrap();
        assert_eq!(uses(&own.0, "/dev/null", "c", 1, 3), expected, "{name}");
    }
}
