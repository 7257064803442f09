//! union-mount on a kernel without `lowerdir+` (it came with Linux 6.7): Debian 12's 6.1, booted in an emulator.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use archive::{Entry, Kind, Writer};
use oci::Digest;
use serde_json::json;
use testkit::{Machine, busybox};

const SCRIPT: &str = "
sh /pipe root
mkdir /tmp/user && chown 65534:65534 /tmp/user
su -s /bin/sh nobody -c 'exec unshare --user --map-root-user --mount sh /pipe user'
";

const PIPE: &str = "
mkdir -p /tmp/$1
export STAVE_ROOT=/tmp/$1/root STAVE_RUN=/tmp/$1/run
img-load -q /image.tar | layer-apply --id web | union-mount > /tmp/$1/json; echo \"$1: mounted $?\"
grep ^stave:web /proc/self/mounts | grep -o 'lowerdir=5:6:7\\|userxattr' | while read word; do echo \"$1: $word\"; done
cd $STAVE_ROOT/containers/web/rootfs
echo \"$1: $(cat which) $(ls -d f* | wc -l) $(ls d)\"; [ -e gone ] || echo \"$1: gone\"
mv d e && echo \"$1: moved $(ls e)\"
cd /
ns-exec -- sh -c 'exit 7' < /tmp/$1/json; echo \"$1: ran $?\"
unwind web > /dev/null; echo \"$1: unwound $? $(echo $(ls $STAVE_ROOT))\"
";

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, content) in files {
        let kind = if name.ends_with('/') { Kind::Directory } else { Kind::File };
        let size = content.len() as u64;
        writer.entry(&Entry { mode: 0o755, size, stored: size, ..Entry::new(kind, *name) }).unwrap();
        writer.data(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// An image of `count` layers, as `docker save` writes it.
fn image(count: usize) -> Vec<u8> {
    let mut layers = vec![busybox(), archive(&[("d/", ""), ("d/old", ""), ("gone", "")])];
    while layers.len() < count - 1 {
        let number = layers.len().to_string();
        layers.push(archive(&[(&format!("f{number}"), ""), ("which", &number)]));
    }
    layers.push(archive(&[(".wh.gone", ""), ("d/", ""), ("d/.wh..wh..opq", ""), ("d/new", "")]));
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let names: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let manifest = json!([{"Config": "config.json", "RepoTags": ["t"], "Layers": names}]);
    testkit::rootfs(|tree| {
        testkit::file(tree, "manifest.json", 0o644, manifest.to_string().as_bytes());
        testkit::file(tree, "config.json", 0o644, config.to_string().as_bytes());
        for (name, layer) in names.iter().zip(&layers) {
            testkit::file(tree, name, 0o644, layer);
        }
    })
}

#[test]
#[ignore = "boots a kernel in an emulator: half a minute (scripts/test --all)"]
fn two_hundred_layers_the_old_way_for_root_and_for_a_user() {
    let machine = Machine::new();
    machine.file("image.tar", image(200));
    machine.file("pipe", PIPE);
    let said = machine.boot(&["img-load", "layer-apply", "union-mount", "ns-exec", "unwind"], SCRIPT);
    for who in ["root", "user"] {
        let lines: Vec<&str> =
            said.lines().filter_map(|line| line.strip_prefix(&format!("{who}: "))).collect();
        let mut expected = vec![
            "mounted 0",
            "lowerdir=5:6:7",
            "198 197 new",
            "gone",
            "moved new",
            "ran 7",
            "unwound 0 images layers mount-points",
        ];
        if who == "user" {
            expected.insert(2, "userxattr");
        }
        assert_eq!(lines, expected, "{said}");
    }
}
