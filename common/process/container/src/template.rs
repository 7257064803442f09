//! A template for `config.json`, as `runc spec` writes it.

use serde_json::{Value, json};

use crate::VERSION;

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Returns the configuration of a shell on a read-only root file system. With `rootless`, it uses a user
/// namespace for this user and group of the machine.
pub fn configuration(rootless: Option<(u32, u32)>) -> Value {
    let mut config = json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "stave",
        "mounts": mounts(rootless.is_some()),
        "linux": {
            "namespaces": namespaces(rootless.is_some()),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    if let Some((uid, gid)) = rootless {
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
        if let Some(linux) = config["linux"].as_object_mut() {
            linux.shift_remove("resources");
        }
    }
    config
}

fn mounts(is_rootless: bool) -> Value {
    let sys = match is_rootless {
        false => {
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]})
        }
        true => {
            json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]})
        }
    };
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if !is_rootless {
        pts.push("gid=5");
    }
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ])
}

fn namespaces(is_rootless: bool) -> Vec<Value> {
    let mut kinds = match is_rootless {
        false => vec!["pid", "network", "ipc", "uts", "mount"],
        true => vec!["pid", "ipc", "uts", "mount"],
    };
    // As in runc and crun. In version 1 some programs look for their cgroup by its path on the host.
    let found = rustix::fs::statfs("/sys/fs/cgroup").map(|found| found.f_type);
    if matches!(found, Ok(nix::libc::CGROUP2_SUPER_MAGIC)) {
        kinds.push("cgroup");
    }
    if is_rootless {
        kinds.push("user");
    }
    kinds.into_iter().map(|kind| json!({"type": kind})).collect()
}
