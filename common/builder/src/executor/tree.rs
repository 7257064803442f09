//! The files of a built image, as one archive or in a directory.

use std::{
    fs::{self, File},
    io::{self, Seek},
    os::fd::AsFd,
    path::Path,
    sync::Arc,
};

use super::{Builder, stage::State};
use crate::{
    copy,
    error::{Cause, Error},
};

impl Builder<'_> {
    /// All files of the image in a tar file, which has no name any more.
    pub(super) fn tree(&self, state: &State) -> Result<Arc<File>, Cause> {
        let mounted = self.store.readable(&state.layers)?;
        let root = mounted.open()?;
        let path = self.store.workspace()?.path().join("tree.tar");
        let mut file = File::create_new(&path).map_err(Cause::system("create", &path))?;
        fs::remove_file(&path).map_err(Cause::system("remove", &path))?;
        let root = rustix::fs::openat(
            &root,
            ".",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(Cause::system("open", &mounted.rootfs))?;
        let options = layer::diff::Options {
            compression: layer::compression::Compression::None,
            ..layer::diff::Options::default()
        };
        layer::diff::upper(root.as_fd(), &mut file, &options).map_err(Cause::Tree)?;
        file.rewind().map_err(Cause::system("read", &path))?;
        Ok(Arc::new(file))
    }
}

/// Writes the files of an image into a directory, which may be there already. Files of the same names are replaced, others stay.
///
/// # Errors
/// When one of them cannot be written.
pub fn write_tree(tree: &File, directory: &Path) -> Result<(), Error> {
    let rewound: io::Result<File> = tree.try_clone().and_then(|mut file| file.rewind().map(|()| file));
    let file = rewound.map_err(Cause::system("read", directory))?;
    fs::create_dir_all(directory).map_err(Cause::system("create", directory))?;
    let root = super::input::open_directory(directory)?;
    copy::unpack_tree(file, directory, root)
        .map_err(|source| Cause::Output { path: directory.to_owned(), source })?;
    Ok(())
}
