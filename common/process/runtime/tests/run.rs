//! Processes in namespaces, on a small root file system. Needs root and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::{
    fs,
    io::Read,
    os::{fd::AsFd, unix::fs::symlink},
    path::Path,
};

use oci_spec::runtime::Spec;
use runtime::{
    Stdio, Streams,
    spec::{Network, Overrides, from_image},
};
use testkit::wait_for;

/// How long to wait for something that must happen.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

fn rootfs() -> tempfile::TempDir {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    for name in ["bin", "etc", "proc", "dev", "sys", "tmp"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("busybox-static");
    for applet in [
        "sh", "cat", "id", "ls", "grep", "true", "sleep", "hostname", "mount", "ip", "env", "touch", "mknod",
        "dd", "kill", "readlink", "pwd", "stat", "head", "echo", "umask",
    ] {
        symlink("busybox", dir.path().join("bin").join(applet)).unwrap();
    }
    fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:\nwww:x:33:34::/var/www:\n").unwrap();
    fs::write(dir.path().join("etc/group"), "web:x:34:\nextra:x:99:www\n").unwrap();
    dir
}

fn overrides(rootfs: &Path, script: &str) -> Overrides {
    Overrides {
        rootfs: rootfs.canonicalize().unwrap(),
        args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        hostname: Some("box".into()),
        ..Overrides::default()
    }
}

/// The exit status, and the output on standard output and standard error.
fn output(spec: &Spec) -> (i32, String) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let out = Stdio::Fd(writer.as_fd());
    let streams = Streams { stdin: Stdio::Null, stdout: out, stderr: out };
    let started = runtime::start(spec, streams).unwrap();
    drop(writer);
    let released = started.release();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    match released {
        Ok(mut running) => (running.wait().unwrap(), text),
        Err(error) => (error.status().into(), format!("{text}{error}")),
    }
}

#[track_caller]
fn run(overrides: &Overrides) -> (i32, String) {
    output(&from_image(None, overrides).unwrap())
}

#[track_caller]
fn sh(script: &str) -> String {
    let rootfs = rootfs();
    let (status, text) = run(&overrides(rootfs.path(), script));
    assert_eq!(status, 0, "{text}");
    text
}

#[test]
fn namespaces_are_its_own() {
    let kinds = ["pid", "mnt", "uts", "ipc", "net", "cgroup"];
    let script = kinds.map(|kind| format!("readlink /proc/self/ns/{kind}")).join(";");
    let inside = sh(&script);
    assert_eq!(inside.lines().count(), kinds.len());
    for (kind, inside) in kinds.iter().zip(inside.lines()) {
        assert_ne!(fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str(), Some(inside), "{kind}");
    }
    assert_eq!(sh("echo $$ $HOSTNAME; hostname; ls -d /proc/[0-9]* | head -1"), "1 box\nbox\n/proc/1\n");
    assert!(sh("ip addr show lo").contains("inet 127.0.0.1/8"));
    assert_eq!(sh("ls /"), "bin\ndev\netc\nproc\nsys\ntmp\n");
    assert_eq!(sh("ls /proc/self/fd | grep -v '^[012]$'; cat /proc/1/mounts | grep -c ' / '"), "3\n1\n");
}

#[test]
fn capabilities_are_dockers() {
    let status = sh("grep -E '^(Cap|NoNewPrivs)' /proc/self/status");
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n";
    assert_eq!(status, expected);
    let rootfs = rootfs();
    let user = Overrides {
        user: Some("www".into()),
        no_new_privileges: true,
        ..overrides(rootfs.path(), "id; echo $HOME; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status")
    };
    let expected = "uid=33(www) gid=34(web) groups=34(web),99(extra)\n/var/www\nCapEff:\t0000000000000000\n\
                    CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n";
    assert_eq!(run(&user), (0, expected.into()));
}

#[test]
fn dev_proc_and_sys_as_docker_has_them() {
    assert_eq!(
        sh("ls /dev"),
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    assert_eq!(
        sh("stat -c '%a %t:%T' /dev/null /dev/tty; echo x > /dev/null; head -c 3 /dev/zero | cat -v"),
        "666 1:3\n666 5:0\n^@^@^@"
    );
    assert_eq!(sh("cat /proc/interrupts /proc/keys /proc/timer_list /proc/kcore 2> /dev/null; ls -A /proc/scsi /sys/firmware 2> /dev/null | grep -v :$; true").trim(), "");
    for (script, error) in [
        ("echo 1 > /proc/sys/kernel/domainname", "Read-only file system"),
        ("touch /sys/x", "Read-only file system"),
        ("touch /sys/fs/cgroup/x", "Read-only file system"),
        ("mount -t tmpfs x /tmp", "permission denied"),
        ("mknod /tmp/null c 1 3 && cat /tmp/null", "Permission denied"),
        ("mknod /dev/disk b 7 0 && cat /dev/disk", "Permission denied"),
    ] {
        let rootfs = rootfs();
        let (status, text) = run(&overrides(rootfs.path(), script));
        assert!(status != 0 && text.contains(error), "{script}: {text}");
    }
    assert_eq!(sh("grep -c ' /sys/fs/cgroup' /proc/mounts > /dev/null && echo there"), "there\n");
}

#[test]
fn a_privileged_container_is_open() {
    let rootfs = rootfs();
    let open = Overrides {
        privileged: true,
        ..overrides(
            rootfs.path(),
            "mount -t tmpfs x /tmp && echo box > /proc/sys/kernel/hostname && ls /dev | grep -c . ",
        )
    };
    let (status, text) = run(&open);
    assert_eq!(status, 0, "{text}");
    assert!(text.trim().parse::<u32>().unwrap() >= 15, "{text}");
}

#[test]
fn volumes_and_a_read_only_root() {
    let rootfs = rootfs();
    let shared = tempfile::tempdir().unwrap();
    fs::write(shared.path().join("file"), "shared\n").unwrap();
    fs::write(shared.path().join("hosts"), "127.0.0.1 me\n").unwrap();
    let volume = |source: &str, target: &str, readonly| runtime::spec::Volume {
        source: shared.path().join(source),
        target: target.into(),
        readonly,
        idmap: false,
    };
    symlink("/../../../tmp/link", rootfs.path().join("etc/hosts")).unwrap();
    let mut with = Overrides {
        volumes: vec![
            volume("", "/new/dir", true),
            volume("", "/rw", false),
            volume("hosts", "/etc/hosts", false),
        ],
        ..overrides(
            rootfs.path(),
            "cat /new/dir/file /etc/hosts; touch /rw/made; touch /new/dir/x; touch /etc/x",
        )
    };
    let (status, text) = run(&with);
    assert_eq!(status, 0, "{text}");
    assert_eq!(text, "shared\n127.0.0.1 me\ntouch: /new/dir/x: Read-only file system\n");
    assert!(shared.path().join("made").exists() && rootfs.path().join("tmp/link").exists());
    with.readonly = true;
    let (status, text) = run(&with);
    assert!(status == 1 && text.contains("touch: /etc/x: Read-only file system"), "{text}");
    assert!(fs::read_dir(rootfs.path().join("proc")).unwrap().next().is_none(), "nothing is mounted outside");
}

#[test]
fn exit_statuses_of_a_shell() {
    let rootfs = rootfs();
    fs::write(rootfs.path().join("bin/data"), "not a program").unwrap();
    fs::write(rootfs.path().join("bin/script"), "#!/bin/missing\n").unwrap();
    for name in ["data", "script"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(rootfs.path().join("bin").join(name), mode).unwrap();
    }
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    for (args, status, error) in [
        (&["sh", "-c", "exit 3"][..], 3, String::new()),
        (&["sh", "-c", "kill -TERM $$; exit 4"], 4, String::new()),
        (&["sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137, "Killed\n".into()),
        (
            &["missing"],
            127,
            format!("find \"missing\" in PATH of the container ({path}): No such file or directory"),
        ),
        (&["/missing"], 127, "execute \"/missing\": No such file or directory".into()),
        (&["/etc/passwd"], 126, "execute \"/etc/passwd\": Permission denied".into()),
        (&["/etc"], 126, "execute \"/etc\": Is a directory".into()),
        (&["data"], 126, "execute \"/bin/data\": Exec format error".into()),
        (
            &["script"],
            127,
            "execute \"/bin/script\": its interpreter or loader: No such file or directory".into(),
        ),
    ] {
        let mut with = overrides(rootfs.path(), "");
        with.args = args.iter().map(|&word| word.to_owned()).collect();
        let (found, text) = run(&with);
        assert_eq!((found, text), (status, error), "{args:?}");
    }
}

#[test]
fn working_directory_is_made_inside() {
    let rootfs = rootfs();
    symlink("/../../etc", rootfs.path().join("link")).unwrap();
    let with = Overrides { cwd: Some("/link/a/b".into()), ..overrides(rootfs.path(), "pwd -P") };
    assert_eq!(run(&with), (0, "/etc/a/b\n".into()));
    let out = Overrides { cwd: Some("/proc/self/fd/3".into()), ..overrides(rootfs.path(), "pwd") };
    assert_eq!(run(&out).0, 125);
}

#[test]
fn an_unreleased_process_never_runs() {
    let rootfs = rootfs();
    let spec = from_image(None, &overrides(rootfs.path(), "touch /ran")).unwrap();
    let started = runtime::start(&spec, Streams::inherit()).unwrap();
    let identity = started.identity();
    assert!(identity.is_alive().unwrap() && identity.is_first_of_namespace().unwrap());
    drop(started);
    assert!(!identity.is_alive().unwrap() && identity.open().unwrap().is_none());
    assert!(!rootfs.path().join("ran").exists());
}

#[test]
fn killed_with_all_that_it_started() {
    let rootfs = rootfs();
    let spec = from_image(None, &overrides(rootfs.path(), "sleep 1000 & sleep 1000")).unwrap();
    let mut running = runtime::start(&spec, Streams::inherit()).unwrap().release().unwrap();
    running.identity().kill().unwrap();
    assert_eq!(running.wait().unwrap(), 137);
    running.identity().kill().unwrap();
}

#[test]
fn joined_as_docker_exec_does() {
    let rootfs = rootfs();
    let spec = from_image(None, &overrides(rootfs.path(), "sleep 1000")).unwrap();
    let mut running = runtime::start(&spec, Streams::inherit()).unwrap().release().unwrap();
    let mut process = spec.process().clone().unwrap();
    let script = "echo $HOSTNAME; hostname; ls -d /proc/1; grep CapEff /proc/self/status; readlink /proc/self/ns/net; readlink /proc/1/ns/net";
    process.set_args(Some(["sh", "-c", script].map(str::to_owned).into()));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let streams = Streams { stdin: Stdio::Null, stdout: Stdio::Fd(writer.as_fd()), stderr: Stdio::Inherit };
    let started = runtime::join(&spec, running.identity(), &process, streams).unwrap();
    drop(writer);
    let mut joined = started.release().unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(joined.wait().unwrap(), 0);
    running.identity().kill().unwrap();
    running.wait().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..3], ["box", "box", "/proc/1"]);
    assert_eq!(lines[3], "CapEff:\t00000000a80425fb");
    assert_eq!(lines[4].split(':').next(), Some("net"));
}

/// A process may hold the namespaces of several containers, and others that belong to no container.
#[test]
fn joined_is_the_one_that_is_named() {
    let rootfs = rootfs();
    let other = fs::File::open("/proc/self/ns/uts").unwrap();
    let begin = |name: &str| {
        let with = Overrides { hostname: Some(name.into()), ..overrides(rootfs.path(), "sleep 1000") };
        let spec = from_image(None, &with).unwrap();
        let running = runtime::start(&spec, Streams::inherit()).unwrap().release().unwrap();
        (spec, running, name.to_owned())
    };
    let mut all = ["first", "second", "third"].map(begin);
    for (spec, running, name) in &all {
        let mut process = spec.process().clone().unwrap();
        process.set_args(Some(["sh", "-c", "hostname"].map(str::to_owned).into()));
        let (mut reader, writer) = std::io::pipe().unwrap();
        let streams =
            Streams { stdin: Stdio::Null, stdout: Stdio::Fd(writer.as_fd()), stderr: Stdio::Inherit };
        let mut joined =
            runtime::join(spec, running.identity(), &process, streams).unwrap().release().unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((joined.wait().unwrap(), text.trim_end()), (0, name.as_str()));
    }
    for (_, running, _) in &mut all {
        running.identity().kill().unwrap();
        running.wait().unwrap();
    }
    drop(other);
}

#[test]
fn the_hosts_network_and_a_joined_one() {
    let rootfs = rootfs();
    let host = Overrides { network: Network::Host, ..overrides(rootfs.path(), "readlink /proc/self/ns/net") };
    let own = fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned();
    assert_eq!(run(&host), (0, format!("{own}\n")));
    let first = from_image(None, &overrides(rootfs.path(), "sleep 1000")).unwrap();
    let mut first = runtime::start(&first, Streams::inherit()).unwrap().release().unwrap();
    let path = format!("/proc/{}/ns/net", first.identity().pid);
    let expected = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
    let joined = Overrides { network: Network::Shared(path.into()), ..host };
    let found = run(&joined);
    first.identity().kill().unwrap();
    first.wait().unwrap();
    assert_eq!(found, (0, format!("{expected}\n")));
}

#[test]
fn supervised_and_released() {
    let rootfs = rootfs();
    let dir = tempfile::tempdir().unwrap();
    let status = dir.path().join("status");
    let nothing = Streams { stdin: Stdio::Null, stdout: Stdio::Null, stderr: Stdio::Null };
    let spec = from_image(None, &overrides(rootfs.path(), "exit 7")).unwrap();
    let supervised = runtime::supervise(&spec, nothing, &[], |mut running| {
        fs::write(&status, running.wait().unwrap().to_string()).unwrap();
    });
    let supervised = supervised.unwrap();
    assert!(supervised.identity().is_alive().unwrap());
    assert_eq!(supervised.release().unwrap(), Vec::<String>::new());
    wait_for("the exit status", LIMIT, || fs::read_to_string(&status).is_ok_and(|status| status == "7"));
    let missing = Overrides { args: vec!["/missing".into()], ..overrides(rootfs.path(), "") };
    let spec = from_image(None, &missing).unwrap();
    let supervised = runtime::supervise(&spec, nothing, &[], |_| {}).unwrap();
    // It ends before it is released; what it said is still heard.
    wait_for("its end", LIMIT, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", supervised.identity().pid));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    });
    let error = supervised.release().unwrap_err();
    assert_eq!(
        (error.status(), error.to_string().as_str()),
        (127, "execute \"/missing\": No such file or directory")
    );
    // By two sockets, and still a number.
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
}
