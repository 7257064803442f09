//! The files of a built image, as one archive or in a directory.

use std::{
    fs::{self, File},
    io::{self, BufReader, Seek, Write},
    path::Path,
    sync::Arc,
};

use archive::{Entry, Kind, Reader, Writer};
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
    operation::make_directories(directory, 0o777).map_err(Cause::system("create", directory))?;
    let root = open_readable(directory)?;
    copy::unpack_tree(file, directory, root)
        .map_err(|source| Cause::Output { path: directory.to_owned(), source })?;
    Ok(())
}

/// Writes the files of several images into one tar file, each below a directory of its own.
///
/// # Errors
/// When a file cannot be read or written.
pub fn join_trees(trees: &[(String, &File)], target: &mut dyn Write) -> io::Result<()> {
    let mut writer = Writer::new(target);
    for (directory, tree) in trees {
        let below = |path: &[u8]| [directory.as_bytes(), b"/", path].concat();
        let mut file = tree.try_clone()?;
        file.rewind()?;
        let mut reader = Reader::new(BufReader::new(file));
        writer.entry(&Entry { mode: 0o755, ..Entry::new(Kind::Directory, directory.as_str()) })?;
        while let Some(mut entry) = reader.next()? {
            entry.path = below(&entry.path);
            if entry.kind == Kind::HardLink {
                entry.link = below(&entry.link);
            }
            writer.entry(&entry)?;
            loop {
                let length = {
                    let data = reader.data()?;
                    writer.data(data)?;
                    data.len()
                };
                if length == 0 {
                    break;
                }
                reader.consume(length);
            }
        }
    }
    writer.finish()?.flush()
}
