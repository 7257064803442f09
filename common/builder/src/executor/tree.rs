//! The files of a built image, as one archive or in a directory.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use layer::compression::Compression;

use super::{Builder, stage::State, store::open_readable, whole};
use crate::{
    copy,
    error::{Cause, Error},
};

impl Builder<'_> {
    /// Writes all files of the image to a tar file. The file has no name any more.
    pub(super) fn tree(&self, state: &State) -> Result<Arc<File>, Cause> {
        let path = self.store.workspace()?.path().join("tree.tar");
        let mut file = File::create_new(&path).map_err(Cause::system("create", &path))?;
        fs::remove_file(&path).map_err(Cause::system("remove", &path))?;
        whole::write(&self.store, &state.layers, &mut file, Compression::None)?;
        Ok(Arc::new(file))
    }
}

/// Writes the files of an image to a directory, which may exist. `tree` is read from its current position.
/// Files of the same names are replaced; others stay.
///
/// # Errors
/// When a file cannot be written.
pub fn write_tree(tree: &File, directory: &Path) -> Result<(), Error> {
    let file = tree.try_clone().map_err(Cause::system("read", directory))?;
    fs::create_dir_all(directory).map_err(Cause::system("create", directory))?;
    let root = open_readable(directory)?;
    copy::unpack_tree(file, directory, root)
        .map_err(|source| Cause::Output { path: directory.to_owned(), source })?;
    Ok(())
}
