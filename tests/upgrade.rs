//! The tools are replaced while containers of 0.1.0 run, and keep using its store. `golden/0.1.0/host.tar.gz`
//! holds `/run/root` and `/run/stave` as the tools of 0.1.0 left them: an image of one program that waits, in
//! both forms of a layer; the containers `base` and `web`, which run it in a network; and `fs`, which is only
//! mounted. `state.sh` makes their state in the kernel.
#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use serde_json::{Value, json};
use testkit::{Sandbox, repository};

/// Starts the process of a container, and puts it into 0.1.0's record.
const PROCESS: &str = r#"
nsenter --net=/run/netns/$id unshare --pid --mount --ipc --uts --fork --kill-child sh -c '
    cd /run/root/containers/'$id'/rootfs && mount --bind . . && cd "$PWD" && mount --move . / && exec chroot . /bin/pause
' > /dev/null 2>&1 < /dev/null &
parent=$!
until pid=$(cat /proc/$parent/task/$parent/children) && [ "$pid" ] && [ "$(cat /proc/$((pid))/comm)" = pause ]; do sleep 0.02; done
pid=$((pid)) start=$(cut -d' ' -f22 /proc/$((pid))/stat)
sed -E -i "s/\"pid\":[0-9]+/\"pid\":$pid/g; s/\"startTime\":[0-9]+/\"startTime\":$start/g" /run/stave/$id.json
"#;

/// Pretends that the machine was not restarted in between.
const BOOT: &str = r#"sed -E -i 's/("boot(ID)?": ?")[^"]*/\1'$(cat /proc/sys/kernel/random/boot_id)/ /run/stave/*.json /run/root/layers/*.json"#;

struct Host(Sandbox);

impl Host {
    fn new() -> Self {
        let host = Self(Sandbox::new());
        let golden = repository().join("tests/golden/0.1.0");
        host.sh(&format!(
            "tar -C /run -xzf {0}/host.tar.gz; {BOOT}; . {0}/state.sh > /dev/null",
            golden.display()
        ));
        for id in ["base", "web"] {
            host.sh(&format!("id={id}; {PROCESS}"));
        }
        host
    }

    /// Runs a script that succeeds.
    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.0.sh(&format!("export STAVE_ROOT=/run/root; {script}")).ok()
    }

    /// Each container's state, from `container-ls`.
    #[track_caller]
    fn states(&self) -> Value {
        let list: Value = serde_json::from_str(&self.sh("container-ls")).unwrap();
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| (one["id"].as_str().unwrap().to_owned(), one["state"].clone()))
            .collect()
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        for (what, script) in [
            ("links", "ip -br link | grep -v '^lo\\|^out0' || true"),
            ("namespaces", "ls /run/netns 2> /dev/null || true"),
            ("mounts", "grep ' /run/root' /proc/self/mounts || true"),
            ("rules", "nft list tables"),
            ("processes", "pidof pause || true"),
            (
                "files",
                "find /run/stave -type f -not -path '*/locks/*'; ls /run/root/containers 2> /dev/null || true",
            ),
        ] {
            assert_eq!(self.sh(script), "", "{what}");
        }
        assert_eq!(self.sh("cat /proc/sys/net/ipv4/ip_forward"), "0\n");
    }
}

#[test]
fn containers_of_0_1_0_are_unwound() {
    let host = Host::new();
    assert_eq!(host.states(), json!({"base": "running", "fs": "created", "web": "running"}));
    host.sh("unwind < /run/stave/web.json > /dev/null; unwind base fs > /dev/null");
    host.assert_nothing_left();
}

#[test]
fn containers_of_0_1_0_go_on() {
    let host = Host::new();
    host.sh("cp /run/stave/web.json web.json; cp /run/stave/fs.json fs.json");
    // Make what only later versions have. Then everything is as listed.
    host.sh(
        "for tool in netns-bridge veth-pair portmap; do $tool --repair < web.json > /dev/null || exit; done",
    );
    for tool in
        ["layer-apply", "union-mount", "netns-bridge", "veth-pair", "portmap", "link-hosts", "ns-exec"]
    {
        host.sh(&format!("{tool} --check < web.json > /dev/null"));
    }
    // A process joins, and runs until it is killed.
    assert_eq!(host.sh("timeout 0.5 ns-exec --join web -- /bin/pause || echo $?"), "124\n");
    host.sh("img-commit -q -t committed < web.json > /dev/null");
    // The container is stopped and started again.
    host.sh("ns-exec --undo < web.json | ns-exec -d -- /bin/pause > again.json");
    assert_eq!(host.states()["web"], "running");
    host.sh("ns-exec -d -- /bin/pause < fs.json > fs-runs.json");
    assert_eq!(host.states(), json!({"base": "running", "fs": "running", "web": "running"}));
    host.sh("unwind < again.json > /dev/null; unwind base fs > /dev/null");
    host.assert_nothing_left();
}

#[test]
fn a_store_of_0_1_0_is_used() {
    let host = Host::new();
    let damaged: Value = serde_json::from_str(&host.sh("img-verify")).unwrap();
    assert_eq!((&damaged["damaged"], &damaged["lost"]), (&json!([]), &json!([])));
    assert!(host.sh("img-ls").contains("tiny"));
    // Layers of both forms are not unpacked again while containers use them.
    host.sh("ls -i --time-style=+ /run/root/layers > before");
    for (id, form) in [("one", "directory"), ("other", "erofs")] {
        let pipe = format!(
            "img-inspect tiny | layer-apply --id {id} --format {form} | union-mount | netns-bridge | veth-pair"
        );
        host.sh(&format!("{pipe} | link-hosts --link base:db | ns-exec -d -- /bin/pause > /dev/null"));
    }
    host.sh("ls -i --time-style=+ /run/root/layers | cmp - before");
    assert_eq!(host.states()["other"], "running");
    host.sh("unwind one other base web fs > /dev/null");
    host.assert_nothing_left();
    host.sh("img-rm tiny && img-gc --grace 0s > /dev/null");
    assert_eq!(host.sh("ls /run/root/layers; find /run/root/images/blobs -type f"), "");
}
