//! union-mount on a kernel without `lowerdir+` (it came with Linux 6.7): Debian 12's 6.1, booted in an emulator.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A broken fixture is a failed test.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use archive::{Entry, Kind, Writer};
use oci::Digest;
use serde_json::json;
use testkit::{binaries, busybox, require_root};

/// Unpacks Debian's kernel, and makes a machine that boots into memory from it, the tools and busybox.
const MAKE: &str = r#"
set -eu
package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2 }')
[ -e "$CACHE/$package.deb" ] || { apt-get download -q "$package" && mv "$package"_*.deb "$CACHE/$package.deb"; }
dpkg-deb -x "$CACHE/$package.deb" kernel
mv kernel/boot/vmlinuz-* vmlinuz

mkdir -p root/bin root/tools root/dev root/proc root/sys root/tmp root/etc start/bin start/dev start/root
cp /bin/busybox root/bin; cp /bin/busybox start/bin
for tool in img-load layer-apply union-mount ns-exec unwind; do strip -o "root/tools/$tool" "$BINARIES/$tool"; done
for library in $(ldd root/tools/* | grep -o '/lib[^ ]*' | sort -u); do
    mkdir -p "root${library%/*}"; cp -L "$library" "root$library"
done
cp image.tar pipe init root
mke2fs -q -t ext4 -d root start/root.img 192m
find kernel/lib/modules \( -name overlay.ko -o -name loop.ko \) -exec cp {} start \;
cp start.sh start/init
cd start && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > ../initrd
"#;

/// Enters a file system on a disk: the root that a kernel starts with cannot be pivoted away, and no tmpfs of this age
/// has `user.*` attributes.
const START: &str = "#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox insmod /overlay.ko; busybox insmod /loop.ko
busybox losetup /dev/loop0 /root.img
busybox mount -t ext4 /dev/loop0 /root
exec busybox switch_root /root /init
";

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/tools:/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
echo root:x:0:0:root:/:/bin/sh > /etc/passwd; echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd
echo \"kernel $(uname -r)\"
sh /pipe root
mkdir /tmp/user && chown 65534:65534 /tmp/user
su -s /bin/sh nobody -c 'exec unshare --user --map-root-user --mount sh /pipe user'
echo end
poweroff -f
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

fn machine(directory: &Path) {
    fs::write(directory.join("image.tar"), image(200)).unwrap();
    for (name, text) in [("start.sh", START), ("init", INIT), ("pipe", PIPE)] {
        fs::write(directory.join(name), text).unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let made = Command::new("sh")
        .args(["-c", MAKE])
        .current_dir(directory)
        .env("BINARIES", binaries())
        .env("CACHE", cache)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
#[ignore = "boots a kernel in an emulator: half a minute (scripts/test --all)"]
fn two_hundred_layers_the_old_way_for_root_and_for_a_user() {
    require_root();
    let directory = tempfile::tempdir().unwrap();
    machine(directory.path());
    let output = Command::new("timeout")
        .args([
            "110",
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "1536",
            "-nographic",
            "-no-reboot",
        ])
        .args(["-net", "none", "-kernel", "vmlinuz", "-initrd", "initrd"])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .current_dir(directory.path())
        .output()
        .expect("qemu is missing: apt-get install qemu-system-x86");
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let kernel = said.lines().find_map(|line| line.split_once("kernel ").map(|(_, release)| release));
    assert!(
        kernel.is_some_and(|release| release.starts_with("6.1.")),
        "not a kernel without lowerdir+: {said}"
    );
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
    assert!(said.contains("\nend\n"), "{said}");
}
