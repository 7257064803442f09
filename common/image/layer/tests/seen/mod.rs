//! Everything visible of a tree, read with system calls and none of our code.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Everything visible of a tree, by path.
pub(crate) fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    let mut links: BTreeMap<u64, PathBuf> = BTreeMap::new();
    while let Some(path) = left.pop() {
        // The path ends with a slash for the root, because the root is a link in /proc.
        let name = path.strip_prefix(root).unwrap().to_owned();
        let status = if name.as_os_str().is_empty() { path.metadata() } else { path.symlink_metadata() };
        let status = status.unwrap();
        let kind = status.file_type();
        let whiteout = status.mode() & 0o170_000 == 0o020_000 && status.rdev() == 0;
        let mut line = format!("{:o} {}:{} {:x}", status.mode(), status.uid(), status.gid(), status.rdev());
        // The time of a whiteout is not visible.
        if !whiteout {
            line += &format!(" {}.{:09}", status.mtime(), status.mtime_nsec());
        }
        for (name, value) in xattrs(&path, kind.is_dir()) {
            line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
        }
        if kind.is_dir() {
            let mut below: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            left.extend(below.into_iter().rev());
        } else {
            let first = links.entry(status.ino()).or_insert_with(|| name.clone());
            line += &format!(" {} links, {first:?}, {} bytes", status.nlink(), status.size());
        }
        if kind.is_symlink() {
            line += &format!(" -> {:?}", fs::read_link(&path).unwrap());
        } else if kind.is_file() && status.size() < 1 << 20 {
            line += &format!(" {}", oci::Digest::of(&fs::read(&path).unwrap()).hex());
        }
        found.insert(name, line);
    }
    found
}

fn xattrs(path: &Path, follow: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 1 << 16];
    let length = match follow {
        true => rustix::fs::listxattr(path, &mut list[..]),
        false => rustix::fs::llistxattr(path, &mut list[..]),
    };
    list.truncate(length.unwrap());
    let mut names: Vec<Vec<u8>> =
        list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    let value = |name: &Vec<u8>| {
        let mut value = vec![0; 1 << 16];
        let length = match follow {
            true => rustix::fs::getxattr(path, &name[..], &mut value[..]),
            false => rustix::fs::lgetxattr(path, &name[..], &mut value[..]),
        };
        value.truncate(length.unwrap());
        value
    };
    names.into_iter().map(|name| (name.clone(), value(&name))).collect()
}
