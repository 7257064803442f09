//! The objects of a repository, on disk.

use std::{
    fs,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use gix_hash::{Kind, ObjectId};
use gix_object::{Data, Find};

use crate::{Error, remote::Dumb};

/// The maximum size of an object, in bytes. Objects are held in memory.
const LARGEST: usize = 256 << 20;

/// The maximum size of a pack, in bytes. It is that of an archive.
const PACKED: u64 = 64 << 30;

/// A directory of objects, in git's format. Missing objects are fetched from a dumb server, where each is a
/// file.
pub(crate) struct Objects<'a> {
    pub(crate) remote: String,
    pub(crate) directory: PathBuf,
    pub(crate) kind: Kind,
    handle: gix_odb::Handle,
    dumb: Option<Dumb<'a>>,
}

impl<'a> Objects<'a> {
    /// Makes an empty directory of objects.
    pub(crate) fn create(
        directory: &Path,
        kind: Kind,
        remote: &str,
        dumb: Option<Dumb<'a>>,
    ) -> Result<Self, Error> {
        let packs = directory.join("pack");
        operation::make_directories(&packs, 0o777).map_err(Error::system("create directory", &packs))?;
        Ok(Self {
            remote: remote.to_owned(),
            directory: directory.to_owned(),
            kind,
            handle: open(directory, kind)?,
            dumb,
        })
    }

    /// Stores a pack and checks it.
    pub(crate) fn take(&mut self, pack: &mut dyn Read) -> Result<(), Error> {
        let options = gix_pack::bundle::write::Options {
            thread_limit: Some(1),
            alloc_limit_bytes: Some(LARGEST),
            ..Default::default()
        };
        let written = gix_pack::Bundle::write_to_directory(
            &mut BufReader::new(pack.take(PACKED)),
            Some(&self.directory.join("pack")),
            &mut gix_utils::progress::Discard,
            &AtomicBool::new(false),
            None::<gix_odb::Handle>,
            self.kind,
            options,
        );
        let written = written.map_err(|error| self.wrong(format!("its pack: {error}")))?;
        if let Some(keep) = written.keep_path {
            let _ = fs::remove_file(keep);
        }
        self.reopen()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.handle = open(&self.directory, self.kind)?;
        Ok(())
    }

    /// The content of an object. It must exist and be of this kind.
    pub(crate) fn get(&mut self, id: &ObjectId, kind: gix_object::Kind) -> Result<Vec<u8>, Error> {
        let (found, content) = self.any(id)?;
        match found == kind {
            true => Ok(content),
            false => Err(self.bad(id, format!("it is a {found}, not a {kind}"))),
        }
    }

    /// The kind and content of an object.
    pub(crate) fn any(&mut self, id: &ObjectId) -> Result<(gix_object::Kind, Vec<u8>), Error> {
        let mut content = Vec::new();
        if let Some(kind) = self.look(id, &mut content)? {
            return Ok((kind, content));
        }
        let fetched = match self.dumb.take() {
            Some(mut dumb) => {
                let fetched = dumb.fetch(id, self);
                self.dumb = Some(dumb);
                fetched?
            }
            None => false,
        };
        if fetched {
            self.reopen()?;
        }
        match self.look(id, &mut content)? {
            Some(kind) => Ok((kind, content)),
            None => Err(self.bad(id, "the server does not have it".to_owned())),
        }
    }

    /// Looks for an object on disk. A packed object was checked when its pack was stored; an object in its
    /// own file is checked here.
    fn look(&self, id: &ObjectId, content: &mut Vec<u8>) -> Result<Option<gix_object::Kind>, Error> {
        let found = self.handle.try_find(id, content).map_err(|error| self.bad(id, error.to_string()))?;
        let Some(Data { kind, data, .. }) = found else { return Ok(None) };
        let hash = gix_object::compute_hash(self.kind, kind, data)
            .map_err(|error| self.bad(id, error.to_string()))?;
        match hash == *id {
            true => Ok(Some(kind)),
            false => Err(self.bad(id, format!("it is {hash}"))),
        }
    }

    pub(crate) fn wrong(&self, problem: String) -> Error {
        Error::Protocol { remote: self.remote.clone(), problem }
    }

    pub(crate) fn bad(&self, id: &ObjectId, problem: String) -> Error {
        Error::Object { remote: self.remote.clone(), id: id.to_string(), problem }
    }

    /// Gives access to the object database.
    pub(crate) fn handle(&self) -> &gix_odb::Handle {
        &self.handle
    }
}

fn open(directory: &Path, kind: Kind) -> Result<gix_odb::Handle, Error> {
    let options = gix_odb::store::init::Options { alloc_limit_bytes: Some(LARGEST), ..Default::default() };
    gix_odb::at_opts(directory, kind, None, options).map_err(Error::system("open", directory))
}
