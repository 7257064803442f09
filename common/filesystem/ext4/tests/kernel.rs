//! What e2fsck and the kernel say about the file systems that are made. Needs root.

#![allow(clippy::unwrap_used)] // A broken fixture is a failed test.

use std::{fs::File, os::unix::fs::MetadataExt, path::Path, process::Command};

use ext4::{LARGEST, Shape, make};

fn made(path: &Path, room: u64, journal: bool) -> std::io::Result<()> {
    make(&File::create_new(path)?, &Shape { room, journal, uuid: *b"0123456789abcdef" })
}

#[test]
fn the_checker_finds_nothing_to_mend() {
    let directory = tempfile::tempdir().unwrap();
    for (number, room) in [4096, 64 << 20, 112 << 20, 128 << 20, 1 << 30, 100 << 30].into_iter().enumerate() {
        for journal in [false, true] {
            let path = directory.path().join(format!("{number}{journal}"));
            made(&path, room, journal).unwrap();
            let checked = Command::new("/usr/sbin/e2fsck").args(["-f", "-n"]).arg(&path).output().unwrap();
            let said = String::from_utf8_lossy(&checked.stdout);
            assert_eq!(checked.status.code(), Some(0), "{room} {journal}: {said}");
            let taken = path.metadata().unwrap().blocks() * 512;
            assert!(taken < 1 << 20, "{room}: {taken} bytes of the disk");
        }
    }
    let error = made(&directory.path().join("large"), LARGEST + 1, false).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(27));
}

/// The file system takes a file with as many bytes as were asked for, and many small files. e2fsck checks it
/// after use.
#[test]
fn the_kernel_fills_it() {
    let directory = tempfile::tempdir().unwrap();
    for (room, journal) in [(8 << 20, false), (8 << 20, true), (300 << 20, true)] {
        let path = directory.path().join(format!("{room}{journal}"));
        made(&path, room, journal).unwrap();
        let script = "set -e
            mkdir -p \"$1.d\"; mount -o loop \"$1\" \"$1.d\"; cd \"$1.d\"
            dd if=/dev/zero of=full bs=1M 2> /dev/null || true
            stat -c %s full
            rm full; mkdir many; i=0; while [ $i -lt 1000 ]; do echo $i > many/$i; i=$((i + 1)); done
            setfattr -n trusted.overlay.opaque -v y many
            cd /; umount \"$1.d\"; e2fsck -f -n \"$1\" >&2";
        let output =
            Command::new("unshare").args(["-m", "sh", "-c", script, "sh"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let size: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
        assert!((room - (128 << 10)..room + (4 << 20)).contains(&size), "{room} {journal}: {size}");
    }
}
