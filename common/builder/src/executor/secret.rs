//! `RUN --mount=type=secret`: a file or variable that only the command sees. Its content is on no disk, and
//! in no layer, history or cache key.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::mount::MountFlags;

use super::{
    Builder,
    mounts::{Held, Prepared, Wanted},
    process::Bind,
};
use crate::{copy::clean, error::Cause};

/// The largest size of a secret, in bytes. BuildKit has the same limit.
const MOST: u64 = 500 << 10;

/// The source of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl Secret {
    pub(super) fn read(&self) -> Result<Vec<u8>, Cause> {
        match self {
            Self::File(path) => {
                let mut content = Vec::new();
                let read =
                    fs::File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut content));
                let read = read.and_then(|_| match content.len() as u64 > MOST {
                    true => Err(io::ErrorKind::FileTooLarge.into()),
                    false => Ok(content),
                });
                read.map_err(Cause::system("read secret", path))
            }
            Self::Variable(name) => {
                let value = std::env::var_os(name).ok_or_else(|| Cause::NoVariable(name.clone()))?;
                Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
        }
    }
}

/// A tmpfs with one secret. It is unmounted when this value is dropped.
#[derive(Debug)]
pub(super) struct SecretFile {
    directory: PathBuf,
}

impl SecretFile {
    fn path(&self) -> PathBuf {
        self.directory.join("secret")
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        // The mount namespace ends with the build, so nothing can be left.
        let _ = mount::unmount(&self.directory);
    }
}

impl Builder<'_> {
    /// Gives a command the secret that a mount asks for.
    pub(super) fn secret(
        &self,
        wanted: &Wanted,
        working_dir: &str,
        held: &mut Held,
        prepared: &mut Prepared,
    ) -> Result<(), Cause> {
        let mount = &wanted.mount;
        let last = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
        let id = match (&mount.source, &mount.id) {
            (Some(id), _) | (None, Some(id)) => id.clone(),
            (None, None) => last(&mount.target).unwrap_or_default(),
        };
        let Some(secret) = self.options.secrets.get(&id) else {
            return match mount.required {
                true => Err(Cause::NoSecret { text: wanted.text().to_owned(), id }),
                false => Ok(()),
            };
        };
        let content = secret.read()?;
        if let Some(name) = &mount.env {
            let value = String::from_utf8(content.clone());
            let value = value
                .map_err(|_| wanted.wrong(format!("secret {id:?} is no text, as a variable must be")))?;
            prepared.environment.push((name.clone(), value));
            if mount.target.is_empty() {
                return Ok(());
            }
        }
        let target = match mount.target.as_str() {
            "" => format!("/run/secrets/{}", last(&id).unwrap_or_default()),
            target => target.to_owned(),
        };
        let file = self.secret_file(&content)?;
        let path = file.path();
        self.hand_over(wanted, &path, (0, 0), 0o400)?;
        held.secrets.push(file);
        prepared.binds.push(Bind {
            target: clean(working_dir, &target),
            source: Some(path),
            options: ["bind", mount.access(), "nosuid", "nodev", "noexec"].map(String::from).to_vec(),
            lasting: None,
        });
        Ok(())
    }

    /// Writes a secret to a new tmpfs.
    fn secret_file(&self, content: &[u8]) -> Result<SecretFile, Cause> {
        self.store.isolate()?;
        let directory = self.store.workspace()?.step()?.upper;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("stave:secret", &directory, "tmpfs", flags, Some(c"mode=0700"))
            .map_err(Cause::system("mount tmpfs on", &directory))?;
        let file = SecretFile { directory };
        fs::write(file.path(), content).map_err(Cause::system("write", &file.path()))?;
        Ok(file)
    }
}
