//! Which properties of a configuration work, and which are rejected by their JSON path. Needs root.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

mod common;

use common::{assert_error, bundle, run, set, start, told};
use serde_json::{Value, json};

#[test]
fn properties_of_the_process() {
    let sandbox = bundle();
    let cases: [(&str, Value, &str, &str); 8] = [
        ("/process/oomScoreAdj", json!(77), "cat /proc/self/oom_score_adj", "77\n"),
        (
            "/process/user",
            json!({"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o77}),
            "id -u; id -g; id -G; umask",
            "5\n6\n6 7\n0077\n",
        ),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]), "ulimit -n", "50\n"),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_BE", "priority": 6}),
            "ionice -p $$",
            "best-effort: prio 6\n",
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            "cut -d' ' -f19,41 /proc/$$/stat",
            "5 3\n",
        ),
        ("/linux/personality", json!({"domain": "LINUX32"}), "uname -m", "i686\n"),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "4242"}),
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax",
            "1\n4242\n",
        ),
        // The machine's own architecture is always there.
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]}),
            "mkdir /x 2>&1",
            "mkdir: can't create directory '/x': No space left on device\n",
        ),
    ];
    for (path, value, script, expected) in cases {
        let shown = run(&sandbox, script, |config| set(config, path, value));
        assert_eq!(shown.stdout, expected, "{path}: {}", shown.stderr);
    }
}

/// A bind mount of the host's `/proc` gets the same masks as the container's own, and nothing else is mounted
/// over it, as with runc.
#[test]
fn what_is_mounted_over_proc() {
    let sandbox = bundle();
    sandbox.sh("mkdir /run/own && ln -s / b/rootfs/link").ok();
    let mounted = |target: &str, kind: &str, source: &str, script: &str| {
        run(&sandbox, script, |config| {
            let options = if kind == "bind" { json!(["rbind"]) } else { json!([]) };
            let mount = json!({"destination": target, "type": kind, "source": source, "options": options});
            config["mounts"].as_array_mut().unwrap().push(mount);
        })
    };
    for target in ["/proc", "/link/proc"] {
        let shown =
            mounted(target, "bind", "/proc", "cat /proc/keys; echo x > /proc/sys/kernel/core_pattern");
        assert!(
            shown.stderr.ends_with("core_pattern: Read-only file system\n"),
            "{target}: {}",
            shown.stderr
        );
        assert_eq!(shown.stdout, "", "{target}");
    }
    for (target, kind, source, cause) in [
        ("/proc", "bind", "/run/own", "only a whole procfs can be mounted on \"/proc\""),
        ("/proc", "tmpfs", "tmpfs", "only a whole procfs can be mounted on \"/proc\""),
        (
            "/link/proc/sys",
            "bind",
            "/run/own",
            "it is inside of \"/proc\", where the kernel's own files stay",
        ),
        ("/proc/irq", "cgroup", "cgroup", "it is inside of \"/proc\", where the kernel's own files stay"),
    ] {
        let refused = mounted(target, kind, source, "true");
        assert_error(&refused, &format!("mount {kind} on {target:?}: {cause}"));
    }
}

fn add_namespace(config: &mut Value, namespace: Value) {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
}

#[test]
fn clocks_of_a_time_namespace() {
    let sandbox = bundle();
    let shown = run(&sandbox, "cat /proc/self/timens_offsets", |config| {
        add_namespace(config, json!({"type": "time"}));
        config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 5}});
    });
    let words: Vec<String> = shown.ok().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["monotonic", "0", "0", "boottime", "1000000", "5"]);
}

#[test]
fn a_user_namespace_owns_the_others() {
    let sandbox = bundle();
    let script = "cat /proc/self/uid_map; mount -t tmpfs none /mnt && echo mounted; ip link set lo down && echo linked; echo > /dev/null && stat -c %u /etc";
    let shown = run(&sandbox, &format!("mkdir -p /mnt; {script}"), |config| {
        add_namespace(config, json!({"type": "user"}));
        for name in ["uidMappings", "gidMappings"] {
            config["linux"][name] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        }
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
        }
        config["process"]["noNewPrivileges"] = json!(false);
    });
    let told = shown.stdout.split_whitespace().collect::<Vec<_>>();
    assert_eq!(told, ["0", "0", "65536", "mounted", "linked", "0"], "{}", shown.stderr);
}

/// What such a container shares with the host is not its own to enter.
#[test]
fn a_command_in_a_user_namespace_beside_the_hosts_others() {
    let sandbox = bundle();
    common::start(&sandbox, |config| {
        config["linux"]["namespaces"] = json!([{"type": "user"}, {"type": "mount"}, {"type": "pid"}]);
        for name in ["uidMappings", "gidMappings"] {
            config["linux"][name] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        }
        config["hostname"] = Value::Null;
        let only = ["/proc", "/dev", "/dev/shm"];
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| only.contains(&mount["destination"].as_str().unwrap()));
    });
    let shown = sandbox.sh("oci-runtime exec one sh -c 'id -u; cat /proc/self/uid_map'").ok();
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["0", "0", "100000", "65536"]);
    sandbox.sh("oci-runtime delete -f one").ok();
}

#[test]
fn a_user_namespace_without_mappings_has_all_ids() {
    let sandbox = bundle();
    // Only the machine's root can reach the source of the mount.
    sandbox
        .sh("mkdir -m 700 closed && mkdir closed/open && echo text > closed/open/file && chown 5:5 closed")
        .ok();
    let source = sandbox.directory().join("closed/open");
    let mapped = |config: &mut Value, mappings: Value| {
        add_namespace(config, json!({"type": "user"}));
        config["linux"]["uidMappings"] = mappings.clone();
        config["linux"]["gidMappings"] = mappings;
        let mount = json!({"destination": "/data", "source": source, "options": ["bind", "ro"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    };
    let script =
        "cat /data/file; touch /data/x 2> /dev/null; echo $?; cut -c1-10 /proc/self/uid_map | tr -d ' '";
    for (mappings, first) in
        [(json!([]), "0"), (json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]), "0")]
    {
        let shown = run(&sandbox, script, |config| mapped(config, mappings));
        assert_eq!(shown.stdout, format!("text\n1\n{first}\n"), "{}", shown.stderr);
    }
}

#[test]
fn what_a_command_finds_in_its_surroundings() {
    let sandbox = bundle();
    sandbox.sh("echo 'me:x:7:7::/home/me:/bin/sh' >> b/rootfs/etc/passwd").ok();
    for (user, home) in [(7, "/home/me"), (4242, "/")] {
        let shown =
            run(&sandbox, "echo $HOME", |config| config["process"]["user"] = json!({"uid": user, "gid": 0}));
        assert_eq!(shown.stdout, format!("{home}\n"), "{}", shown.stderr);
    }
    // Requested descriptors are passed if they are open, and no others.
    common::write(
        &sandbox,
        &common::configuration(&sandbox, "cat <&4; for fd in /proc/self/fd/*; do echo ${fd##*/}; done"),
    );
    let kept = sandbox
        .sh("echo four > four; oci-runtime run --preserve-fds 2 -b b one < /dev/null 4< four 6< four")
        .ok();
    assert_eq!(
        kept.lines().filter(|line| !["0", "1", "2", "3"].contains(line)).collect::<Vec<_>>(),
        ["four", "4"]
    );
    common::start(&sandbox, |config| config["linux"]["personality"] = json!({"domain": "LINUX32"}));
    assert_eq!(sandbox.sh("oci-runtime exec one uname -m").ok(), "i686\n");
    sandbox.sh("oci-runtime delete -f one").ok();
}

/// If the policy hands a system call to another program, the call waits for that program. It fails with
/// ENOSYS when the program has ended.
#[test]
fn system_calls_that_another_program_answers() {
    let sandbox = bundle();
    let listener = sandbox.directory().join("agent");
    let mut config = common::configuration(&sandbox, "mkdir /x 2>&1");
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener, "listenerMetadata": "colour=red",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    common::write(&sandbox, &config);
    let agent = r#"
import array, json, os, socket, subprocess
server = socket.socket(socket.AF_UNIX)
server.bind("agent")
server.listen()
started = subprocess.Popen(["oci-runtime", "run", "-b", "b", "one"], stdin=subprocess.DEVNULL)
connection, _ = server.accept()
text, control, _, _ = connection.recvmsg(65536, 1024)
state = json.loads(text)
print(state["fds"], state["metadata"], state["state"]["id"], state["state"]["status"], state["pid"] == state["state"]["pid"], flush=True)
os.close(array.array("i", control[0][2])[0])
started.wait()
"#;
    std::fs::write(sandbox.directory().join("agent.py"), agent).unwrap();
    assert_eq!(
        sandbox.sh("timeout 20 python3 agent.py").ok(),
        "['seccompFd'] colour=red one creating True\nmkdir: can't create directory '/x': Function not implemented\n"
    );
}

#[test]
fn propagation_of_the_root_file_system() {
    let sandbox = bundle();
    for (propagation, expected) in [
        ("shared", "/ shared:"),
        ("rshared", "/ shared:"),
        ("unbindable", "/ unbindable"),
        ("private", "/ -"),
    ] {
        // Print the mount point and the first optional field, the propagation (proc_pid_mountinfo(5)).
        let script = "grep ' / / \\| /[^ ]* / ' /proc/self/mountinfo | head -n 1 | cut -d' ' -f5,7";
        let shown =
            run(&sandbox, script, |config| config["linux"]["rootfsPropagation"] = json!(propagation)).ok();
        assert!(shown.starts_with(expected), "{propagation}: {shown}");
    }
}

#[test]
fn namespaces_by_their_paths() {
    let sandbox = bundle();
    start(&sandbox, |config| config["hostname"] = json!("first"));
    let pid = sandbox.sh("oci-runtime state one").json()["pid"].to_string();
    let config = common::configuration(&sandbox, "hostname; echo $$");
    let mut second = config;
    second["linux"]["cgroupsPath"] = json!(format!("/oci-test-{}-second", sandbox.pid()));
    second["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "uts", "path": format!("/proc/{pid}/ns/uts")}, {"type": "pid", "path": format!("/proc/{pid}/ns/pid")}]);
    second.as_object_mut().unwrap().remove("hostname");
    common::write(&sandbox, &second);
    let shown = sandbox.sh("oci-runtime run -b b two < /dev/null").ok();
    let (name, number) = shown.split_once('\n').unwrap();
    assert!(name == "first" && number.trim() != "1", "{shown}");
    sandbox.sh("oci-runtime delete -f one").ok();
}

/// A path may lead to the caller's own namespace. Settings there would be the machine's.
#[test]
fn what_is_the_callers_is_not_set_by_a_path() {
    let sandbox = bundle();
    let cases = [
        (
            "network",
            "net",
            "/linux/sysctl/net.ipv4.ip_forward",
            "sysctl",
            json!({"net.ipv4.ip_forward": "1"}),
        ),
        ("ipc", "ipc", "/linux/sysctl/kernel.msgmax", "sysctl", json!({"kernel.msgmax": "9999"})),
        ("uts", "uts", "/linux/sysctl/kernel.domainname", "sysctl", json!({"kernel.domainname": "a"})),
        ("uts", "uts", "/hostname", "hostname", json!("a")),
        ("uts", "uts", "/domainname", "domainname", json!("a")),
    ];
    for (kind, file, at, member, value) in cases {
        sandbox.sh(&format!("touch ns && mount --bind /proc/self/ns/{file} ns")).ok();
        for path in [json!(format!("/proc/self/ns/{file}")), json!(sandbox.directory().join("ns"))] {
            let refused = run(&sandbox, "true", |config| {
                config.as_object_mut().unwrap().remove("hostname");
                let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|one| one["type"] != kind);
                namespaces.push(json!({"type": kind, "path": path}));
                let parent = if member == "sysctl" { &mut config["linux"] } else { &mut *config };
                parent[member] = value.clone();
            });
            assert_error(
                &refused.exits(1),
                &format!("carry out {at}: the container has no {kind} namespace of its own"),
            );
        }
        sandbox.sh("umount ns").ok();
    }
}

#[test]
fn mounts_with_their_options() {
    let sandbox = bundle();
    sandbox.sh("mkdir -p data/below && mount -t tmpfs none data/below && echo text > data/file && chown 7:8 data/file").ok();
    let data = sandbox.directory().join("data");
    let mount = |options: &[&str], more: Value| {
        let mut mount = json!({"destination": "data", "type": "none", "source": data, "options": options});
        mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mount
    };
    let none = json!({});
    let mappings = json!([{"containerID": 0, "hostID": 1000, "size": 100}]);
    let maps = json!({"uidMappings": mappings, "gidMappings": mappings});
    let write = "touch /data/x /data/below/x 2>/dev/null; cd /data; ls -d x below/x 2>/dev/null; rm -f x below/x; echo ran";
    let cases: [(Value, &str, &str); 6] = [
        (mount(&["rbind"], none.clone()), write, "below/x\nx\nran\n"),
        (mount(&["rbind", "ro"], none.clone()), write, "below/x\nran\n"),
        (mount(&["rbind", "rro"], none.clone()), write, "ran\n"),
        (mount(&["bind"], none.clone()), "ls /data/below; cat /data/file", "text\n"),
        (mount(&["bind", "idmap"], maps), "stat -c %u:%g /data/file", "1007:1008\n"),
        (
            json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid"]}),
            "test -e /etc/passwd && grep -c ' /etc tmpfs' /proc/mounts",
            "1\n",
        ),
    ];
    for (mount, script, expected) in cases {
        let options = mount["options"].to_string();
        let shown = run(&sandbox, script, |config| config["mounts"].as_array_mut().unwrap().push(mount));
        assert_eq!(shown.ok(), expected, "{options}");
    }
    // Flags of a whole file system change nothing for a bind mount.
    let flags = mount(&["bind", "sync", "async", "dirsync", "mand", "lazytime", "iversion"], json!({}));
    let shown =
        run(&sandbox, "cat /data/file", |config| config["mounts"].as_array_mut().unwrap().push(flags));
    assert_eq!(shown.ok(), "text\n");
    // In a user namespace the creator maps the owners, also those of a mount that others share.
    let shared = mount(&["rbind", "idmap", "rshared"], json!({"type": "bind"}));
    let shown = run(&sandbox, "stat -c %u:%g /data/file", |config| {
        add_namespace(config, json!({"type": "user"}));
        for name in ["uidMappings", "gidMappings"] {
            config["linux"][name] = mappings.clone();
        }
        config["mounts"].as_array_mut().unwrap().push(shared);
    });
    assert_eq!(shown.stdout, "7:8\n", "{}", shown.stderr);
    let strange = mount(&["rbind", "size=5"], none);
    let refused =
        run(&sandbox, "true", |config| config["mounts"].as_array_mut().unwrap().push(strange)).exits(1);
    assert_error(&refused, "mount bind on \"/data\": a bind mount has no option \"size=5\"");
    sandbox.sh("umount data/below").ok();
}

#[test]
fn what_is_read_only_and_what_is_in_memory() {
    let sandbox = bundle();
    sandbox.sh("mkdir b/rootfs/own && chmod 712 b/rootfs/own").ok();
    let script = "pwd; stat -c %a /own /new; touch /own/x 2> /dev/null || echo refused; touch /x 2> /dev/null || echo refused";
    let shown = run(&sandbox, script, |config| {
        config["root"]["readonly"] = json!(true);
        config["process"]["cwd"] = json!("/srv/missing");
        let mount = |target: &str, options: Value| json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options});
        let mounts = [mount("/own", json!(["rro"])), mount("/new", json!(["mode=700"]))];
        config["mounts"].as_array_mut().unwrap().extend(mounts);
    });
    assert_eq!(shown.ok(), "/srv/missing\n712\n700\nrefused\nrefused\n");
}

/// Without pivot_root(2), the host's `/proc` stays in the container's mount namespace. With it, the kernel would let a
/// user namespace mount another one without masks.
#[test]
fn without_a_pivot_the_masks_of_proc_stay() {
    let sandbox = bundle();
    let script = "unshare -rm sh -c 'mount -t proc none /mnt 2>&1'; unshare -rmpf sh -c 'mount -t proc none /mnt 2>&1'; ls /proc/1/status";
    let mut config = common::configuration(&sandbox, &format!("mkdir -p /mnt; {script}"));
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(["CAP_SETFCAP", "CAP_SYS_ADMIN"]);
    }
    common::write(&sandbox, &config);
    for flag in ["", "--no-pivot"] {
        let shown = sandbox.sh(&format!("oci-runtime run {flag} -b b one < /dev/null")).ok();
        let refused = "mount: permission denied (are you root?)\n";
        assert_eq!(shown, format!("{refused}{refused}/proc/1/status\n"), "{flag:?}");
    }
}

#[test]
fn the_last_variable_of_a_name_counts() {
    let sandbox = bundle();
    let shown = run(&sandbox, "env | grep -c ^ONE=; echo $ONE $HOME", |config| {
        let variables = ["PATH=/nowhere", "ONE=two", "HOME=/override", "ONE=three", "HOME=", "PATH=/bin"];
        config["process"]["env"] = json!(variables);
    });
    assert_eq!(shown.ok(), "1\nthree /root\n");
}

#[test]
fn what_is_masked_is_one_empty_directory() {
    let sandbox = bundle();
    sandbox.sh("mkdir b/rootfs/a b/rootfs/b && touch b/rootfs/a/x b/rootfs/f").ok();
    let script = "ls -A /a /b; touch /a/x 2> /dev/null || echo refused; [ $(stat -c %d /a) = $(stat -c %d /b) ] && grep -c ' /[ab] ' /proc/mounts; wc -c < /f";
    let shown = run(&sandbox, script, |config| {
        let masked = config["linux"]["maskedPaths"].as_array_mut().unwrap();
        masked.extend(["/a", "/b", "/f", "/a", "/f", "/missing"].map(|path| json!(path)));
    });
    assert_eq!(shown.ok(), "/a:\n\n/b:\nrefused\n2\n0\n");
}

#[test]
fn a_read_only_dev_has_its_devices_and_mounts() {
    let sandbox = bundle();
    let script = "echo x > /dev/null && stat -c %t:%T /dev/null; ls -d /dev/pts/ptmx /dev/shm; touch /dev/x 2> /dev/null || echo refused";
    let shown = run(&sandbox, script, |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").unwrap();
        dev["options"] = json!(["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]);
        let up = json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]});
        mounts.push(up);
    });
    assert_eq!(shown.ok(), "1:3\n/dev/pts/ptmx\n/dev/shm\nrefused\n");
}

#[test]
fn memory_is_on_the_nodes_that_are_named() {
    let sandbox = bundle();
    let policy = |policy: Value| {
        run(&sandbox, "cut -d' ' -f2 /proc/self/numa_maps | head -n 1", |config| {
            config["linux"]["memoryPolicy"] = policy;
        })
    };
    for (wanted, shown) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0\n"),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
            "prefer=static:0\n",
        ),
        (json!({"mode": "MPOL_LOCAL"}), "local\n"),
        (json!({"mode": "MPOL_DEFAULT"}), "default\n"),
    ] {
        assert_eq!(policy(wanted).ok(), shown);
    }
    for (wanted, error) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0-"}), "MPOL_BIND: \"0-\" is no list of NUMA nodes"),
        (json!({"mode": "MPOL_BIND", "nodes": "9999"}), "MPOL_BIND: \"9999\" is no list of NUMA nodes"),
        (json!({"mode": "MPOL_INTERLEAVE"}), "MPOL_INTERLEAVE: Invalid argument"),
    ] {
        assert_error(&policy(wanted).exits(1), &format!("set the memory policy {error}"));
    }
    // The policy applies to each process of the container.
    start(&sandbox, |config| config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"}));
    let shown = sandbox.sh("oci-runtime exec one sh -c 'head -n 1 /proc/self/numa_maps' < /dev/null");
    assert!(shown.ok().contains(" bind:0 "));
    sandbox.sh("oci-runtime delete -f one").ok();
}

#[test]
fn what_is_unknown_is_told_and_left_out() {
    let sandbox = bundle();
    let shown = run(&sandbox, "echo ran", |config| {
        config["linux"]["colour"] = json!("red");
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_COLOUR"]);
    });
    assert_eq!(shown.stdout, "ran\n");
    let warnings = [
        "ignore /linux/colour: OCI runtime-spec 1.2 has no such property",
        "ignore \"CAP_COLOUR\" in /process/capabilities/bounding: there is no such capability",
    ];
    assert_eq!(told(&shown), warnings.map(|text| ("warning".to_owned(), text.to_owned())));
}

/// Other runtimes accept the specification in a document unchanged.
#[test]
fn the_specification_of_a_document_runs_under_others() {
    let sandbox = bundle();
    let rootfs = sandbox.directory().join("b/rootfs");
    let flags = "--network none --hostname web -- sh -c 'echo > /dev/null && hostname'";
    sandbox
        .sh(&format!(
            "ns-exec -n --id web --rootfs {} -d {flags} > web.json && unwind web < /dev/null > /dev/null",
            rootfs.display()
        ))
        .ok();
    sandbox.sh("mkdir own && jq '[.steps[].operations[] | select(.op == \"process-start\") | .spec][0]' web.json > own/config.json").ok();
    // crun 1.8 looks for either version of cgroups, not for both.
    sandbox.sh("umount /sys/fs/cgroup/unified 2> /dev/null || true").ok();
    for runtime in ["runc", "crun", "oci-runtime"] {
        let shown = sandbox.sh(&format!("{runtime} --root /run/theirs run -b own own < /dev/null"));
        assert_eq!(shown.stdout, "web\n", "{runtime}: {}", shown.stderr);
    }
    sandbox.sh("rm -rf /run/theirs").ok();
}
