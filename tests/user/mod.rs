//! An ordinary user with a home, images, and namespaces of their own.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, chown},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use archive::{Entry, Kind, Writer};
use oci::Digest;
use serde_json::json;
use testkit::{binaries, busybox, require_root};

/// Debian's `nobody`: a user without rights on this machine.
pub(crate) const USER: u32 = 65534;
/// The first subordinate id; a namespace maps it to 1.
pub(crate) const SUBORDINATE: u32 = 300_000;

/// `$STAVE_ROOT` and `$STAVE_RUN` of an ordinary user.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

/// The ids of the user's namespace.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ids {
    /// None: the machine's own namespace.
    Outside,
    /// Only 0: the user's own id, as with `unshare --map-root-user`.
    Own,
    /// 0, and 65536 more from 1 on, as newuidmap makes it from `/etc/subuid`.
    Subordinate,
}

impl Home {
    pub(crate) fn new() -> Self {
        require_root();
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        chown(home.path(), Some(USER), Some(USER)).unwrap();
        Self(home)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a script as the user, root of a new user namespace.
    pub(crate) fn namespace(&self, ids: Ids, script: &str) -> Output {
        // Only root may be able to enter the directory of the tools, so it is mounted where the user can
        // reach it.
        let start = "mount --bind \"$BINARIES\" bin && exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", start, "start"]);
        match ids {
            Ids::Outside => command.args(["sh", "-c", script]),
            Ids::Own => command.args(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]),
            Ids::Subordinate => {
                // Mount namespaces and others are made after the maps.
                let wait = "echo $$; read mapped && exec setpriv --clear-groups unshare --mount sh -c \"$1\"";
                command.args(["unshare", "--user", "sh", "-c", wait, "wait", script])
            }
        };
        command.env("BINARIES", binaries()).current_dir(self.0.path());
        command.env("STAVE_ROOT", self.path("root")).env("STAVE_RUN", self.path("run"));
        command.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare or setpriv is missing: apt-get install util-linux");
        let mut input = child.stdin.take().unwrap();
        let mut first = Vec::new();
        if ids == Ids::Subordinate {
            let output = child.stdout.as_mut().unwrap();
            let mut byte = [0];
            while std::io::Read::read(output, &mut byte).unwrap() == 1 && byte != *b"\n" {
                first.extend(byte);
            }
            let pid = String::from_utf8(first).unwrap();
            for map in ["uid_map", "gid_map"] {
                let text = format!("0 {USER} 1\n1 {SUBORDINATE} 65536\n");
                fs::write(format!("/proc/{pid}/{map}"), text).unwrap();
            }
            input.write_all(b"mapped\n").unwrap();
        }
        drop(input);
        child.wait_with_output().unwrap()
    }

    /// Like [`Home::namespace`], but the script must succeed and print nothing on standard error. Returns its
    /// standard output.
    #[track_caller]
    pub(crate) fn says(&self, ids: Ids, script: &str) -> String {
        let output = self.namespace(ids, script);
        let stderr = without_cgroup(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{script}: {}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes an image of these layers, as `docker save` does; returns the file's name.
    pub(crate) fn image(&self, layers: &[Vec<u8>]) -> &'static str {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Volumes": {"/data": {}}},
            "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let manifest = json!([{"Config": "config.json", "RepoTags": ["t"], "Layers": names}]);
        let tar = testkit::rootfs(|tree| {
            testkit::file(tree, "manifest.json", 0o644, manifest.to_string().as_bytes());
            testkit::file(tree, "config.json", 0o644, config.to_string().as_bytes());
            for (name, layer) in names.iter().zip(layers) {
                testkit::file(tree, name, 0o644, layer);
            }
        });
        fs::write(self.path("image.tar"), tar).unwrap();
        "image.tar"
    }

    /// The names of the layers' directories.
    pub(crate) fn layers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("root/layers")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> =
            names.filter(|name| !name.starts_with('.') && !name.ends_with(".json")).collect();
        names.sort();
        names
    }
}

pub(crate) fn entry(kind: Kind, name: &str, mode: u32, owner: (u32, u32)) -> Entry {
    Entry { mode, uid: owner.0, gid: owner.1, ..Entry::new(kind, name) }
}

pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
    }
    writer.finish().unwrap()
}

/// Two layers: one with files and directories, and one that removes some of them. Root owns everything.
pub(crate) fn plain() -> Vec<Vec<u8>> {
    let root = (0, 0);
    let below = archive(&[
        entry(Kind::Directory, "data/", 0o1777, root),
        entry(Kind::File, "data/seed", 0o644, root),
        entry(Kind::Directory, "opaque/", 0o755, root),
        entry(Kind::File, "opaque/old", 0o644, root),
        entry(Kind::File, "gone", 0o644, root),
    ]);
    let above = archive(&[
        entry(Kind::File, ".wh.gone", 0, root),
        entry(Kind::Directory, "opaque/", 0o700, root),
        entry(Kind::File, "opaque/.wh..wh..opq", 0, root),
        entry(Kind::File, "opaque/new", 0o644, root),
    ]);
    vec![busybox(), below, above]
}

/// A layer with owners, a set-id program, and a device.
pub(crate) fn owned() -> Vec<u8> {
    archive(&[
        entry(Kind::File, "suid", 0o6755, (8, 12)),
        entry(Kind::File, "shadow", 0o640, (0, 42)),
        entry(Kind::Directory, "home/", 0o2750, (1000, 1000)),
        Entry { device: (1, 3), ..entry(Kind::CharDevice, "home/null", 0o666, (0, 0)) },
    ])
}

pub(crate) const PIPE: &str = "img-load -q image.tar | layer-apply --id web | union-mount";

/// Standard error without the line about cgroups, which a user may not make.
pub(crate) fn without_cgroup(stderr: &[u8]) -> String {
    let stderr = String::from_utf8_lossy(stderr);
    stderr.split_inclusive('\n').filter(|line| !line.contains("no cgroup of")).collect()
}
