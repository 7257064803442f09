//! A layer as one file: an EROFS image.

use std::{os::fd::AsFd, path::Path};

use rustix::{fs::OFlags, mount::MountAttrFlags};

use crate::{
    Detached, FileSystem, Result,
    detached::LONGEST_STRING,
    loops::{by_loop, open},
    resolve,
};

/// The type of the file system.
pub(crate) const KIND: &str = "erofs";

/// Makes a detached mount of the image in the file `path`, read-only and without devices.
///
/// # Errors
/// When the file is not an image, or the caller may not mount.
pub fn image(path: &Path) -> Result<Detached> {
    let file = open(path, OFlags::RDONLY | OFlags::NOFOLLOW)?;
    // The source in the mount table shows which layer is in use. If the path is too long, the descriptor's
    // path is used.
    let source = match path.as_os_str().len() {
        0..=LONGEST_STRING => path.to_owned(),
        _ => resolve::proc_path(file.as_fd()),
    };
    match mount(&source) {
        // Before Linux 6.12 only block devices can be mounted.
        Err(error) if error.errno() == Some(nix::errno::Errno::ENOTBLK) => by_loop(path, &file, true, mount),
        result => result.map_err(|error| error.instead("mount", format_args!("image {path:?}"))),
    }
}

fn mount(source: &Path) -> Result<Detached> {
    let file_system = FileSystem::open(KIND)?;
    file_system.set("source", source)?;
    file_system.set_data(["ro"])?;
    file_system.mount(MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        path::PathBuf,
    };

    use erofs::{Attributes, Directory, Writer};

    use super::*;

    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image.erofs");
        let mut writer = Writer::new(File::create_new(&path).unwrap().into());
        let mut open = writer.file(&Attributes { mode: 0o644, ..Attributes::default() }, 7).unwrap();
        writer.write(&mut open, 0, b"content").unwrap();
        let file = writer.close(open).unwrap();
        writer.name(Directory::ROOT, b"file", file).unwrap();
        writer.finish([1; 16]).unwrap();
        (dir, path)
    }

    /// The number of loop devices of the file.
    fn loops(path: &Path) -> usize {
        let devices = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        let backing = devices.filter_map(|device| fs::read_to_string(device.join("loop/backing_file")).ok());
        backing.filter(|backing| Path::new(backing.trim_end()) == path).count()
    }

    #[test]
    fn from_the_file_itself() {
        crate::apart(|| {
            let (_dir, path) = fixture();
            let mount = image(&path).unwrap();
            let root = resolve::proc_path(mount.as_fd());
            assert_eq!(fs::read(root.join("file")).unwrap(), b"content");
            assert_eq!(fs::write(root.join("new"), "").unwrap_err().raw_os_error(), Some(30));
            assert_eq!(loops(&path), 0);
        });
    }

    /// As on a kernel that only mounts block devices.
    #[test]
    fn by_a_loop_device_that_goes_with_the_mount() {
        crate::apart(|| {
            let (_dir, path) = fixture();
            let file = open(&path, OFlags::RDONLY).unwrap();
            let mount = by_loop(&path, &file, true, mount).unwrap();
            let root = resolve::proc_path(mount.as_fd());
            assert_eq!(fs::read(root.join("file")).unwrap(), b"content");
            assert_eq!(fs::write(root.join("new"), "").unwrap_err().raw_os_error(), Some(30));
            assert_eq!(loops(&path), 1);
            drop((mount, file));
            // The kernel releases the device a moment after the mount.
            let gone = (0..100).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                loops(&path) == 0
            });
            assert!(gone, "{path:?} is still a loop device");
        });
    }

    #[test]
    fn what_is_no_image() {
        crate::apart(|| {
            let dir = tempfile::tempdir().unwrap();
            let (path, link) = (dir.path().join("file"), dir.path().join("link"));
            fs::write(&path, [0; 8192]).unwrap();
            std::os::unix::fs::symlink(&path, &link).unwrap();
            let said = |path: &Path| image(path).unwrap_err().to_string();
            assert_eq!(said(&path), format!("mount image {path:?}: Invalid argument"));
            assert_eq!(said(&link), format!("open {link:?}: Too many symbolic links encountered"));
        });
    }
}
