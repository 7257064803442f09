//! The power is cut while the store is written. Afterwards, everything that was reported as done is there,
//! and what was not reported has changed nothing that existed before (docs/store.md).
//!
//! The store is on a file system in a file, and that file is on btrfs. An instant clone of the file is what
//! the disk holds at that moment: data that are only in the kernel's memory are not in it.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use testkit::{Sandbox, directory, file, rootfs};

/// A command that writes to the store, or to a file that the user names.
struct Writer {
    /// The command line, in `sh`.
    command: &'static str,
    /// A condition in `sh` that holds once the command has reported success, and whenever it runs again.
    done: &'static str,
    /// A condition that holds at any time.
    always: &'static str,
}

const NAMED: &str = "whole docker.io/library/new:latest";
const UNCHANGED: &str = "true";

const WRITERS: [Writer; 25] = [
    Writer { command: "img-tag one new", done: NAMED, always: UNCHANGED },
    Writer { command: "img-rm -q --force gone", done: "! named gone:latest", always: UNCHANGED },
    Writer { command: "img-load -q -t new new.tar", done: NAMED, always: UNCHANGED },
    Writer { command: "img-build -q --network none -t new context", done: NAMED, always: UNCHANGED },
    Writer { command: "img-commit -q -t new < web.json", done: NAMED, always: UNCHANGED },
    Writer {
        command: "img-edit -q --label a=b --append more.tar -t new one",
        done: NAMED,
        always: UNCHANGED,
    },
    Writer { command: "img-convert -q --compression zstd -t new two", done: NAMED, always: UNCHANGED },
    Writer { command: "img-index -q new one", done: NAMED, always: UNCHANGED },
    Writer {
        command: "img-copy -q store:two oci:m/copy:two",
        done: "rm -rf copied && skopeo copy -q oci:m/copy:two dir:copied",
        always: UNCHANGED,
    },
    Writer {
        command: "img-pull -q localhost:5000/new",
        done: "whole localhost:5000/new:latest",
        always: UNCHANGED,
    },
    Writer { command: "img-push -q one localhost:5000/one", done: UNCHANGED, always: UNCHANGED },
    Writer { command: "img-gc -q --grace 0s", done: UNCHANGED, always: UNCHANGED },
    Writer {
        command: "img-save -q one -o m/saved.tar",
        done: "test -e m/saved.tar",
        always: "test ! -e m/saved.tar || cmp m/saved.tar saved.tar",
    },
    Writer {
        command: "layer-diff -o m/diff.tar m/root/containers/web/upper",
        done: "test -e m/diff.tar",
        always: "test ! -e m/diff.tar || cmp m/diff.tar diff.tar",
    },
    Writer {
        command: "layer-diff m/root/containers/web/upper",
        done: "cmp m/root/images/blobs/sha256/$(sha256sum < diff.tar | cut -c 1-64) diff.tar",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c 'network-rm new; network-create new'",
        done: "network-ls | grep -q '\"new\"'",
        always: "test ! -e m/root/networks/new.json || jq -e .name m/root/networks/new.json",
    },
    Writer {
        command: "sh -c 'network-rm gone || test ! -e m/root/networks/gone.json'",
        done: "test ! -e m/root/networks/gone.json",
        always: "test ! -e m/root/networks/gone.json || jq -e .name m/root/networks/gone.json",
    },
    Writer {
        command: "volume-create new --label a=b",
        done: "test -d m/root/volumes/new/data",
        always: "test ! -e m/root/volumes/new || jq -e .created m/root/volumes/new/volume.json",
    },
    Writer {
        command: "volume-rm -f gone",
        done: "test ! -e m/root/volumes/gone",
        always: "test ! -e m/root/volumes/gone || cmp m/root/volumes/gone/data/file context/file",
    },
    Writer {
        command: "sh -c '. ./container; made --durable && wrote'",
        done: "grep -qx x m/root/containers/new/levels/1/upper/added && recorded",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c '. ./container; made --durable --size 8m && wrote && umount m/root/containers/new/top'",
        done: "mkdir -p top && mount -o loop m/root/containers/new/top.ext4 top && {
            grep -qx x top/levels/1/upper/added; found=$?; umount top; test $found = 0; } && recorded",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c '. ./container; made --durable && union-fork new --id try --durable < /dev/null && left'",
        done: "test -e m/root/containers/new/forks/1/try && test -e m/root/containers/try/record.json",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c '. ./container; made --durable && merged && left'",
        done: "grep -qx y m/root/containers/new/levels/1/upper/theirs && step_is union-merge",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c '. ./container; made --durable && merged && union-merge --undo < new.json && left'",
        done: "test ! -e m/root/containers/new/levels/1/upper/theirs && step_is union-snapshot",
        always: UNCHANGED,
    },
    Writer {
        command: "sh -c '. ./container; made --durable && unwind -q new'",
        done: "test ! -e m/root/containers/new",
        always: UNCHANGED,
    },
];

/// Makes a container with a snapshot, and writes a file that is synced.
const CONTAINER: &str = r#"
made() {
    rm -rf /run/stave/*.json* /run/stave/locks
    unwind -q try new > /dev/null
    layer-apply --id new < one.json | union-mount "$@" | union-snapshot > new.json
}
wrote() {
    cd m/root/containers/new/rootfs && echo x > added && sync added && cd - > /dev/null && umount m/root/containers/new/rootfs
}
merged() {
    union-fork new --id try --durable > /dev/null && echo y > m/root/containers/try/rootfs/theirs && union-merge try > new.json
}
left() { umount m/root/containers/new/rootfs m/root/containers/try/rootfs; }
"#;

/// Functions for the conditions.
const CONDITIONS: &str = r#"
step_is() { jq -e --arg tool "$1" '.document.steps[-1].tool == $tool' m/root/containers/new/record.json; }
named() { img-ls | jq -r '.images[].references[]' | grep -qx "$1"; }
recorded() { jq -e '.document.steps[-1] | .tool == "union-snapshot" and .state == "done"' m/root/containers/new/record.json; }
whole() { rm -rf copy && skopeo copy -q "oci:$STAVE_ROOT/images:$1" dir:copy && img-verify "$1" > /dev/null; }
"#;

/// The condition after each cut: everything from before is there, and every name leads to a complete image.
const KEPT: &str = "whole docker.io/library/one:latest && whole docker.io/library/two:latest &&
    img-verify $(img-ls | jq -r '.images[].references[]') > /dev/null";

const MAKE: &str = r#"
set -e
truncate -s 6G pool.img && mkfs.btrfs -q pool.img && mkdir pool m && mount -o loop pool.img pool
truncate -s 400M pool/disk.img && mkfs.$FS -q pool/disk.img && mount -o loop pool/disk.img m
mkdir m/root && echo > m/scratch
for name in one two gone; do img-load -q -t $name $name.tar > $name.json; done
img-load -q -t garbage garbage.tar > /dev/null && img-rm -q garbage > /dev/null
layer-apply --id web < one.json | union-mount --durable |
    ns-exec --network none --document web.json -- /bin/sh -c 'echo x > /added'
umount m/root/containers/web/rootfs
network-create gone > /dev/null && volume-create gone > /dev/null
cp context/file m/root/volumes/gone/data/file && sync m/root/volumes/gone/data/file
img-save -q one -o saved.tar > /dev/null
layer-diff -o diff.tar m/root/containers/web/upper > /dev/null
docker-registry serve registry.yml > registry.log 2>&1 &
for try in $(seq 100); do socat -u OPEN:/dev/null TCP:127.0.0.1:5000 2> /dev/null && break; sleep 0.05; done
img-load -q --root other -t localhost:5000/new new.tar > /dev/null && img-push -q --root other localhost:5000/new > /dev/null
umount m
mv pool/disk.img pool/start.img
"#;

/// The disk is as after a cut, and the machine has been restarted.
const START: &str = r#"
set -e
cat /proc/sys/kernel/random/uuid > boot
umount /proc/sys/kernel/random/boot_id 2> /dev/null || true
mount --bind boot /proc/sys/kernel/random/boot_id
for try in $(seq 50); do mountpoint -q m || break; umount m 2> /dev/null || sleep 0.1; done
rm -f pool/disk.img
cp --reflink=always pool/$1 pool/disk.img
mount -o loop pool/disk.img m
"#;

/// A machine with the store on its own disk.
struct Machine {
    sandbox: Sandbox,
    random: u64,
}

impl Machine {
    fn new(file_system: &str) -> Self {
        let sandbox = Sandbox::new();
        let write = |name: &str, content: &[u8]| fs::write(sandbox.directory().join(name), content).unwrap();
        let noise = |seed: u32| -> Vec<u8> {
            (seed..seed + 200_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
        };
        write("one.tar", &testkit::busybox());
        for (name, seed) in [("two", 1), ("gone", 2), ("new", 3), ("garbage", 4)] {
            write(
                &format!("{name}.tar"),
                &rootfs(|tree| {
                    directory(tree, "etc");
                    file(tree, "etc/noise", 0o644, &noise(seed));
                }),
            );
        }
        write("more.tar", &rootfs(|tree| file(tree, "more", 0o644, &noise(6))));
        fs::create_dir(sandbox.directory().join("context")).unwrap();
        write("context/Dockerfile", b"FROM one\nRUN echo x > /x\nCOPY file /file\nCMD [\"/bin/sh\"]\n");
        write("context/file", &noise(5));
        write("container", CONTAINER.as_bytes());
        let registry =
            "version: 0.1\nhttp: {addr: \"127.0.0.1:5000\"}\nstorage: {filesystem: {rootdirectory: data}}\n";
        write("registry.yml", registry.as_bytes());
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let machine = Self { sandbox, random: since.as_nanos() as u64 | 1 };
        machine.sh(&format!("FS={file_system}; {MAKE}"));
        machine
    }

    /// A path in the sandbox, as seen by the test.
    fn path(&self, name: &str) -> PathBuf {
        let directory = self.sandbox.directory().display().to_string();
        PathBuf::from(format!("/proc/{}/root{directory}/{name}", self.sandbox.pid()))
    }

    fn script(&self, script: &str) -> String {
        format!("export STAVE_ROOT=$PWD/m/root; {CONDITIONS}\n{script}")
    }

    #[track_caller]
    fn sh(&self, script: &str) -> String {
        self.sandbox.sh(&self.script(script)).ok()
    }

    /// Starts the machine with this disk.
    #[track_caller]
    fn start(&self, disk: &str) {
        self.sandbox.sh(&format!("set -- {disk}; {START}")).ok();
    }

    fn run(&self, command: &str) -> Child {
        let mut shell = self.sandbox.command("/bin/sh");
        // The tool replaces the shell, so that the process ends when the tool does.
        shell.args(["-c", &self.script(&format!("exec {command} > document 2> errors"))]);
        shell.stdin(Stdio::null()).spawn().unwrap()
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end.max(1)
    }

    /// Saves what the disk holds now as `pool/cut.img`.
    fn cut(&self) {
        let _ = fs::remove_file(self.path("pool/cut.img"));
        let cut = File::create(self.path("pool/cut.img")).unwrap();
        rustix::fs::ioctl_ficlone(cut, File::open(self.path("pool/disk.img")).unwrap()).unwrap();
    }

    /// Another program syncs its own file: the names of all files made so far reach the disk, but not their
    /// content.
    fn disturb(&self) {
        let mut scratch = File::options().append(true).open(self.path("m/scratch")).unwrap();
        scratch.write_all(b"x").unwrap();
        scratch.sync_all().unwrap();
    }

    /// Runs a writer once without a cut, and then cuts the power in each of `cuts` runs.
    fn cut_while_it_runs(&mut self, writer: &Writer, cuts: usize) {
        self.start("start.img");
        let begin = Instant::now();
        assert!(self.run(writer.command).wait().unwrap().success(), "{}", self.sh("cat errors"));
        let time = begin.elapsed().as_micros() as u64;
        let holds = self
            .sandbox
            .sh(&self.script(&format!("{KEPT} && {{ {}; }} && {{ {}; }}", writer.done, writer.always)));
        assert_eq!(holds.status, 0, "{}: {}", writer.command, holds.stderr);
        for cut in 0..cuts {
            // The last cut always comes after the end.
            let limit = if cut + 1 == cuts { 4 * time } else { time * 6 / 5 };
            self.one_cut(writer, limit, cut + 1 == cuts);
        }
    }

    fn one_cut(&mut self, writer: &Writer, limit: u64, after_the_end: bool) {
        self.start("start.img");
        let (one, other) = (self.below(limit), self.below(limit));
        let mut child = self.run(writer.command);
        thread::sleep(Duration::from_micros(one.min(other)));
        self.disturb();
        match after_the_end {
            true => drop(child.wait().unwrap()),
            false => thread::sleep(Duration::from_micros(one.max(other) - one.min(other))),
        }
        let status = child.try_wait().unwrap();
        self.cut();
        let context = format!("{}: cut after {} µs of {limit}, {status:?}", writer.command, one.max(other));
        let status = child.wait().map(|last| (last, status.is_some())).unwrap();
        assert!(status.0.success(), "{context}: {}", self.sh("cat errors"));
        self.start("cut.img");
        let holds = |what: &str, condition: &str| {
            let outcome = self.sandbox.sh(&self.script(condition));
            assert_eq!(outcome.status, 0, "{context}: {what}: {}{}", outcome.stdout, outcome.stderr);
        };
        holds("what was there before is there", KEPT);
        holds("nothing is half", writer.always);
        if status.1 {
            holds("what was reported is there", writer.done);
        }
        let again = self.run(writer.command).wait().unwrap();
        assert!(again.success(), "{context}: again: {}", self.sh("cat errors"));
        holds("what was there before is there still", KEPT);
        holds("it is done when it was done again", writer.done);
        holds("nothing is half then", writer.always);
    }
}

/// The number of cuts of each writer with `scripts/test --all`, unless `STAVE_CUTS` says otherwise.
fn many() -> usize {
    std::env::var("STAVE_CUTS").map_or(100, |cuts| cuts.parse().unwrap())
}

fn cut_all(file_system: &str, cuts: usize) {
    let mut machine = Machine::new(file_system);
    for writer in &WRITERS {
        machine.cut_while_it_runs(writer, cuts);
        eprintln!("{file_system}: {cuts} cuts of {}", writer.command);
    }
}

#[test]
fn every_writer_on_ext4() {
    cut_all("ext4", 2);
}

#[test]
fn every_writer_on_xfs() {
    cut_all("xfs", 1);
}

#[test]
fn every_writer_on_btrfs() {
    cut_all("btrfs", 1);
}

/// However much a command writes, it syncs once, and not at all if nothing changed.
#[test]
fn a_command_syncs_once() {
    let sandbox = Sandbox::with_busybox();
    let two = rootfs(|tree| file(tree, "two", 0o644, b"2"));
    sandbox.sh_with("img-load -q -t two - > two.json", &two).ok();
    sandbox.sh("mkdir context && echo x > context/file").ok();
    let dockerfile = "FROM busybox\nRUN echo x > /x\nCOPY file /file\nRUN echo y > /y\n";
    fs::write(sandbox.directory().join("context/Dockerfile"), dockerfile).unwrap();
    sandbox.sh("layer-apply --id web < busybox.json | union-mount > web.json && echo x > root/containers/web/upper/x").ok();
    let syncs = |command: &str| {
        let strace = "strace -f -qq -o trace -e trace=syncfs,fsync,fdatasync";
        sandbox.sh(&format!("{strace} {command} > document")).ok();
        let trace = sandbox.sh("cat trace").ok();
        ["syncfs(", "fsync("].map(|call| trace.lines().filter(|line| line.contains(call)).count())
    };
    for (command, syncfs, fsync) in [
        ("img-tag busybox new", 1, 1),
        ("img-tag busybox new", 0, 0),
        ("img-save -q -o both.tar busybox two", 0, 2),
        ("img-rm -q new two", 1, 1),
        ("img-load -q both.tar", 1, 1),
        ("img-load -q both.tar", 0, 0),
        ("img-build -q -t built -t again context", 1, 1),
        ("img-build -q -t built -t again context", 0, 0),
        ("img-build -q -t built -t again --iidfile id --metadata-file told context", 0, 4),
        ("img-commit -q -t one -t other web", 1, 1),
        ("layer-diff -o diff.tar root/containers/web/upper", 0, 2),
        // A blob without an image is written again, because it may not have reached the disk.
        ("layer-diff --compression none root/containers/web/upper", 1, 0),
        ("layer-diff --compression none root/containers/web/upper", 1, 0),
        ("img-gc -q", 0, 0),
        ("img-verify", 0, 0),
        ("img-tag --no-sync busybox third", 0, 0),
        ("img-save -q --no-sync -o both.tar busybox two", 0, 0),
    ] {
        assert_eq!(syncs(command), [syncfs, fsync], "{command}");
    }
}

/// Proves that a cut loses something: without syncs, names are lost.
#[test]
fn a_store_that_is_not_synced_loses_a_name() {
    let machine = Machine::new("ext4");
    for command in ["img-tag --no-sync one new", "env STAVE_SYNC=no img-tag one new"] {
        // Another program may sync the whole machine in the meantime.
        let lost = (0..5).any(|_| {
            machine.start("start.img");
            assert!(machine.run(command).wait().unwrap().success());
            machine.cut();
            machine.start("cut.img");
            machine.sandbox.sh(&machine.script("named new:latest")).status != 0
        });
        assert!(lost, "{command}");
    }
}

#[test]
#[ignore = "cuts the power 2100 times: half an hour (scripts/test --all)"]
fn a_hundred_cuts_of_every_writer_on_ext4() {
    cut_all("ext4", many());
}

#[test]
#[ignore = "cuts the power 2100 times: half an hour (scripts/test --all)"]
fn a_hundred_cuts_of_every_writer_on_xfs() {
    cut_all("xfs", many());
}

#[test]
#[ignore = "cuts the power 2100 times: half an hour (scripts/test --all)"]
fn a_hundred_cuts_of_every_writer_on_btrfs() {
    cut_all("btrfs", many());
}
