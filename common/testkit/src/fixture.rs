//! Root file systems to make images from.

use std::{fs, process::Command};

/// A tar under construction. Entries belong to root and are dated 2001-09-09, so that the same calls give the same
/// bytes.
pub type Tree = tar::Builder<Vec<u8>>;

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header
}

/// Adds a regular file.
pub fn file(tree: &mut Tree, path: &str, mode: u32, content: &[u8]) {
    let mut header = header(tar::EntryType::Regular, mode, content.len() as u64);
    tree.append_data(&mut header, path, content).unwrap();
}

/// Adds a directory of mode 0755.
pub fn directory(tree: &mut Tree, path: &str) {
    tree.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, std::io::empty()).unwrap();
}

/// Adds a symbolic link.
pub fn symlink(tree: &mut Tree, path: &str, target: &str) {
    tree.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target).unwrap();
}

/// A tar of a root file system; `fill` adds its content.
pub fn rootfs(fill: impl FnOnce(&mut Tree)) -> Vec<u8> {
    let mut tree = Tree::new(Vec::new());
    fill(&mut tree);
    tree.into_inner().unwrap()
}

/// A small Linux: busybox (Debian's busybox-static) with all its applets in `/bin`, users `root` and `nobody`, and a
/// page in `/www` that `httpd -f -p 80 -h /www` serves.
///
/// # Panics
/// If busybox is missing: `apt-get install busybox-static`.
pub fn busybox() -> Vec<u8> {
    let binary = fs::read("/bin/busybox").expect("/bin/busybox is missing: apt-get install busybox-static");
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap().stdout;
    rootfs(|tree| {
        for path in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "www"] {
            directory(tree, path);
        }
        file(tree, "bin/busybox", 0o755, &binary);
        for applet in String::from_utf8_lossy(&applets).lines().filter(|applet| *applet != "busybox") {
            symlink(tree, &format!("bin/{applet}"), "busybox");
        }
        file(tree, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n");
        file(tree, "etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
        file(tree, "www/index.html", 0o644, b"a page of the image\n");
    })
}
