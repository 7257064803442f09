//! Limits on a machine with only cgroup version 2: Debian 12's Linux 6.1, booted in an emulator. Most
//! machines are like that. The machines of the other tests may also have hierarchies of version 1.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::{Machine, busybox};

/// The beginning of every part. The cgroups are laid out as by systemd: only the kernel's processes are at
/// the top.
const BEGIN: &str = r#"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run /mnt /sys/fs/cgroup/init.scope /sys/fs/cgroup/system.slice
echo $$ > /sys/fs/cgroup/init.scope/cgroup.procs
export STAVE_ROOT=/stave STAVE_RUN=/run/stave
img-load -q -t busybox /busybox.tar > /image.json
mounted() { layer-apply --id "$1" < /image.json | union-mount; }
tagged() { while read -r line; do echo "$1: $line"; done; }
list() { ls -d "$1"/*/ 2> /dev/null; }
"#;

const FILES: &str = r#"
mounted files | cgroup-limit --memory 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 --pids 20 \
    --cpuset-cpus 1 --device-read-bps /dev/loop0:1m --device-write-iops /dev/loop0:100 > /files.json
cd /sys/fs/cgroup/stave/files.*
for file in memory.max memory.swap.max memory.low cpu.max cpu.weight pids.max cpuset.cpus io.max; do
    echo "$file $(cat $file)"
done | tagged files
cd /
dd if=/dev/urandom of=/stave/containers/files/upper/big bs=1M count=3 2> /dev/null; sync
echo 3 > /proc/sys/vm/drop_caches
ns-exec --from /files.json --document /end.json -- sh -c '
    cat /proc/self/cgroup
    grep Cpus_allowed_list /proc/self/status
    echo "memory.max $(cat /sys/fs/cgroup/memory.max)"
    ls -d /sys/fs/cgroup/stave /sys/fs/cgroup/init.scope
    mkdir /sys/fs/cgroup/mine
    echo 1 > /sys/fs/cgroup/cgroup.kill
    begin=$(cut -d. -f1 /proc/uptime); cat /big > /dev/null; took=$(($(cut -d. -f1 /proc/uptime) - begin))
    [ $took -ge 2 ] && echo slow || echo "three seconds of reading took $took"
    timeout 2 sh -c "while :; do :; done"
    n=0; while [ $n -lt 40 ]; do sleep 2 & n=$((n + 1)); done' 2>&1 | sort -u | tagged inside
echo "throttled: $(sed -n 's/nr_throttled //p' /sys/fs/cgroup/stave/files.*/cpu.stat)"
echo "usage: $(cat /end.json)"
cgroup-limit --check < /files.json > /dev/null; echo "checked: $?"
unwind files > /dev/null; echo "unwound: $? $(list /sys/fs/cgroup/stave)"
"#;

const OUT_OF_MEMORY: &str = r#"
mounted oom | cgroup-limit -m 16m --memory-swap 16m | ns-exec --document /oom.json -- tail /dev/zero
echo "oom: $(cat /oom.json)"
unwind oom > /dev/null
"#;

const DEVICES: &str = r#"
mounted devices | ns-exec --cap-add SYS_ADMIN --document /dev/null -- sh -c '
    mount -t tmpfs none /tmp && mknod /tmp/kmsg c 1 11 && echo made
    true < /tmp/kmsg
    true < /dev/null && echo null' 2>&1 | tagged device
unwind devices > /dev/null
"#;

const UNDO: &str = r#"
mounted ended | cgroup-limit --pids 20 | ns-exec -d -- sh -c 'setsid sleep 1000 & exec sleep 1000' > /ended.json
sleep 1; echo "running: $(cat /sys/fs/cgroup/stave/ended.*/pids.current)"
unwind ended > /dev/null; echo "ended: $? $(list /sys/fs/cgroup/stave) $(pidof sleep)"
"#;

/// In a cgroup namespace whose topmost cgroup has processes, as in a container of another engine, and after
/// moving these processes below it.
const INSIDE: &str = r#"
mkdir /sys/fs/cgroup/box
sh -c 'echo $$ > /sys/fs/cgroup/box/cgroup.procs; exec /tools/unshare --cgroup --mount sh /inside'
rmdir /sys/fs/cgroup/box/self /sys/fs/cgroup/box/stave /sys/fs/cgroup/box; echo "box: $?"
"#;

const INSIDE_SCRIPT: &str = r#"
. /begin
mounted inner | ns-exec --document /dev/null -- cat /proc/self/cgroup 2>&1 | tagged unlimited
unwind inner > /dev/null
cgroup-limit -n --id inner --pids 9 2>&1 > /dev/null | tagged refused
mount -t cgroup2 none /mnt && mkdir /mnt/self && for pid in $(cat /mnt/cgroup.procs); do echo $pid > /mnt/self/cgroup.procs; done
mounted inner | cgroup-limit --pids 9 | ns-exec --document /dev/null -- cat /sys/fs/cgroup/pids.max 2>&1 | tagged limited
unwind inner > /dev/null; echo "inner: $? $(list /mnt/stave)"
"#;

/// A user with an own cgroup, as systemd delegates it.
const USER: &str = r#"
mkdir -p /sys/fs/cgroup/user/self /user; chown 65534:65534 /user
cd /sys/fs/cgroup; chown 65534:65534 user user/self user/*.procs user/*/*.procs user/cgroup.subtree_control
echo '+memory +pids' > cgroup.subtree_control; cd /
sh -c 'echo $$ > /sys/fs/cgroup/user/cgroup.procs
    exec su -s /bin/sh nobody -c "exec /tools/unshare --user --map-root-user --cgroup --mount sh /user-script"'
"#;

const USER_SCRIPT: &str = r#"
. /begin
export STAVE_ROOT=/user/stave STAVE_RUN=/user/run
img-load -q -t busybox /busybox.tar > /user/image.json
mount -t cgroup2 none /mnt && for pid in $(cat /mnt/cgroup.procs); do echo $pid > /mnt/self/cgroup.procs; done
layer-apply --id mine < /user/image.json | union-mount | cgroup-limit --pids 9 --memory 32m |
    ns-exec --document /dev/null -- sh -c 'cat /proc/self/cgroup /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max' 2>&1 | tagged user
unwind mine > /dev/null; echo "user-unwound: $? $(list /mnt/stave)"
"#;

/// The lines of the output, by the tag before them.
fn by_tag(said: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut lines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tag, line) in said.lines().filter_map(|line| line.split_once(": ")) {
        lines.entry(tag).or_default().push(line);
    }
    lines
}

/// The lines of each tag.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "files",
        &[
            "memory.max 67108864",
            "memory.swap.max 33554432",
            "memory.low 33554432",
            "cpu.max 50000 100000",
            "cpu.weight 20",
            "pids.max 20",
            "cpuset.cpus 1",
            "io.max 7:0 rbps=1048576 wbps=max riops=max wiops=100",
        ],
    ),
    (
        "inside",
        &[
            "0::/",
            "Cpus_allowed_list:\t1",
            "Terminated",
            "ls: /sys/fs/cgroup/init.scope: No such file or directory",
            "ls: /sys/fs/cgroup/stave: No such file or directory",
            "memory.max 67108864",
            "mkdir: can't create directory '/sys/fs/cgroup/mine': Read-only file system",
            "sh: can't create /sys/fs/cgroup/cgroup.kill: Read-only file system",
            "sh: can't fork: Resource temporarily unavailable",
            "slow",
        ],
    ),
    ("checked", &["0"]),
    ("unwound", &["0 "]),
    ("device", &["made", "sh: can't open /tmp/kmsg: Operation not permitted", "null"]),
    ("running", &["2"]),
    ("ended", &["0  "]),
    ("unlimited", &["0::/"]),
    (
        "refused",
        &[
            "cgroup-limit: enable pids in cgroup \"/\": processes live in that cgroup itself",
            "hint: move them into a cgroup below it: only then can it pass on controllers",
        ],
    ),
    ("limited", &["9"]),
    ("inner", &["0 "]),
    ("box", &["0"]),
    ("user", &["0::/", "9", "33554432"]),
    ("user-unwound", &["0 "]),
];

#[test]
#[ignore = "boots a kernel in an emulator: half a minute (scripts/test --all)"]
fn limits_on_version_2_alone() {
    let machine = Machine::new();
    machine.file("busybox.tar", busybox());
    let functions = BEGIN.lines().filter(|line| line.contains("() {")).collect::<Vec<_>>().join("\n");
    machine.file("begin", functions);
    machine.file("inside", INSIDE_SCRIPT);
    machine.file("user-script", USER_SCRIPT);
    let script = [BEGIN, FILES, OUT_OF_MEMORY, DEVICES, UNDO, INSIDE, USER].concat();
    let tools =
        ["img-load", "layer-apply", "union-mount", "cgroup-limit", "ns-exec", "unwind", "/usr/bin/unshare"];
    let said = machine.boot(&tools, &script);
    let lines = by_tag(&said);
    for (tag, expected) in EXPECTED {
        assert_eq!(lines.get(tag).map(Vec::as_slice), Some(*expected), "{tag}: {said}");
    }
    let number = |tag: &str| lines[tag][0].parse::<u64>().unwrap();
    assert!(number("throttled") > 10, "{said}");
    let process = |tag: &str| serde_json::from_str::<Value>(lines[tag][0]).unwrap()["process"].clone();
    let used = &process("usage")["usage"];
    assert!(used["cpuTime"].as_u64().unwrap() > 500_000, "{used}");
    assert!((3 << 20..64 << 20).contains(&used["memoryPeak"].as_u64().unwrap()), "{used}");
    assert_eq!(used["pidsPeak"], 20);
    let ended = process("oom");
    assert_eq!((&ended["oomKilled"], &ended["exitStatus"]), (&json!(true), &json!(137)), "{ended}");
    assert_eq!(process("usage")["oomKilled"], false);
}
