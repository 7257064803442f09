use std::{
    fs::{self, DirBuilder, File},
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Record, Result, Status, of_container};

/// The directory of all containers. Each container has a directory in it.
#[derive(Debug, Clone)]
pub struct Store(PathBuf);

/// The directory of one container.
#[derive(Debug)]
pub struct Container {
    id: String,
    directory: PathBuf,
}

/// The file of the record, and the socket on which the process waits to be started.
const RECORD: &str = "state.json";
pub(crate) const START: &str = "start.sock";

/// The longest id in bytes. The id is the name of a directory.
const LONGEST_ID: usize = 255;

impl Store {
    /// The store in this directory. The directory need not exist yet.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The default store. It is in `runtime_directory` (`$XDG_RUNTIME_DIR`) for an ordinary user and for root
    /// in a user namespace, otherwise in `/run`.
    ///
    /// # Errors
    /// When an ordinary user has no runtime directory.
    pub fn find(runtime_directory: Option<PathBuf>) -> Result<Self> {
        const NAME: &str = "stave-oci";
        let user = !rustix::process::geteuid().is_root() || !userns::is_system_root();
        match (user, runtime_directory) {
            (true, Some(directory)) => Ok(Self(directory.join(NAME))),
            (true, None) if !rustix::process::geteuid().is_root() => {
                Err(Error::new("find", "a directory for states", "XDG_RUNTIME_DIR is not set")
                    .with_hint("--root names one"))
            }
            _ => Ok(Self(Path::new("/run").join(NAME))),
        }
    }

    /// Makes the directory of a new container. It is locked until the descriptor is dropped.
    ///
    /// # Errors
    /// For an invalid id, and for an id that is in use.
    pub(crate) fn add(&self, id: &str) -> Result<(Container, OwnedFd)> {
        let container = self.named(id)?;
        let on = |path: &Path| Error::on::<std::io::Error>("create", format!("{path:?}"));
        operation::make_directories(&self.0, 0o711).map_err(on(&self.0))?;
        match DirBuilder::new().mode(0o700).create(&container.directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(of_container("create", id)("container with given ID already exists"))
            }
            made => {
                made.map_err(on(&self.0.join(id)))?;
                let removed = || of_container("create", id)("its directory was removed in the meantime");
                let held = container.hold()?.ok_or_else(removed)?;
                Ok((container, held))
            }
        }
    }

    /// Returns an existing container.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn get(&self, id: &str) -> Result<Container> {
        self.find_one(id)?.ok_or_else(|| missing(id))
    }

    /// Returns the container, or `None` if it does not exist.
    ///
    /// # Errors
    /// For an invalid id, and when the directory cannot be read.
    pub fn find_one(&self, id: &str) -> Result<Option<Container>> {
        let container = self.named(id)?;
        match container.directory.join(RECORD).symlink_metadata() {
            Ok(_) => Ok(Some(container)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(of_container("find", id)(error)),
        }
    }

    /// Returns all containers, sorted by id.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn all(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::on("list", format_args!("{:?}", self.0)))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut all: Vec<Container> = names.filter_map(|id| self.get(&id).ok()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// Removes the directory of a container without a record, left by a creation that was killed at once. A
    /// missing directory is not an error. If the container has been created in the meantime, it is returned
    /// and not removed.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn forget(&self, id: &str) -> Result<Option<Container>> {
        let container = self.named(id)?;
        let Some(_held) = container.hold()? else { return Ok(None) };
        let found = self.find_one(id)?;
        if found.is_none() {
            container.remove()?;
        }
        Ok(found)
    }

    fn named(&self, id: &str) -> Result<Container> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let is_fit = !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(is_plain);
        match is_fit && ![".", ".."].contains(&id) {
            true => Ok(Container { id: id.to_owned(), directory: self.0.join(id) }),
            false => Err(Error::new(
                "read",
                format_args!("container id {id:?}"),
                "it has other characters than letters, digits and _+-.",
            )),
        }
    }
}

/// Writes the file at `path` atomically.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Error::on("write", format_args!("{path:?}")))
}

/// Callers search the message for these words.
fn missing(id: &str) -> Error {
    of_container("find", id)("container does not exist")
}

impl Container {
    /// The id of the container.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory of the container.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the record.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn record(&self) -> Result<Record> {
        let path = self.directory.join(RECORD);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => missing(&self.id),
            _ => of_container("read", &self.id)(error),
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::new("read", format_args!("{path:?}"), error.to_string()))
    }

    /// Writes the record atomically.
    pub(crate) fn write(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record)
            .map_err(|error| Error::new("write", format_args!("{RECORD}"), error.to_string()))?;
        replace(&self.directory.join(RECORD), &text)
    }

    /// Locks the container for a change, until the result is dropped.
    ///
    /// # Errors
    /// When the container does not exist, or is being created. The creation waits for its hooks, and a hook
    /// that waited for the lock would block both.
    pub(crate) fn lock(&self) -> Result<OwnedFd> {
        if self.record()?.status()? == Status::Creating {
            return Err(of_container("change", &self.id)("it is being created"));
        }
        self.hold()?.ok_or_else(|| missing(&self.id))
    }

    /// Locks the directory until the result is dropped. `None` if the container does not exist.
    pub(crate) fn hold(&self) -> Result<Option<OwnedFd>> {
        let directory = match File::open(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(of_container("open", &self.id))?,
        };
        flock(&directory, FlockOperation::LockExclusive).map_err(of_container("lock", &self.id))?;
        // The last holder may have removed the directory, and a new container may have its name.
        let held = directory.metadata().map_err(of_container("open", &self.id))?;
        let is_there = fs::symlink_metadata(&self.directory)
            .is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()));
        Ok(is_there.then(|| directory.into()))
    }

    /// Removes the directory.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::on("remove", format_args!("{:?}", self.directory))),
        }
    }
}
