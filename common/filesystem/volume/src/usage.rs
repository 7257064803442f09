//! The operation of a container that uses a volume.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use operation::{Condition, Error, Operation, Scope, words};
use serde::{Deserialize, Serialize};

use crate::{Labels, Locked, create, directory, failed, fill, parse_name};

/// A container's use of a volume. Makes the volume if it is missing, and fills an empty one with the image's
/// files. Undo takes back the claim; the volume and its files stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename = "volume-use", rename_all = "camelCase")]
pub struct VolumeUse {
    /// The volume's name.
    pub volume: String,
    /// The container's id.
    pub holder: String,
    /// The container's root file system.
    pub within: PathBuf,
    /// The directory in it whose files an empty volume gets. None: it stays empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PathBuf>,
    /// User and group that an empty volume gets: the root of the container's user namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(u32, u32)>,
    /// Whether the claim must survive a power cut, as the container's own files do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
}

impl VolumeUse {
    /// The path of the claim. A document may name anything, so both must be names.
    fn claim(&self, scope: &Scope) -> Result<PathBuf, Error> {
        let is_name = |text: &str| !text.is_empty() && !text.contains('/') && !text.starts_with('.');
        match parse_name(&self.volume).is_ok() && is_name(&self.holder) {
            true => Ok(directory(scope).join(&self.volume).join("users").join(&self.holder)),
            false => Err(failed("find", &self.volume)(format!("{:?} is no user of a volume", self.holder))),
        }
    }

    fn make(&self, scope: &Scope) -> Result<(), Error> {
        let claim = self.claim(scope)?;
        let volume = loop {
            create(scope, &self.volume, &Labels::new(), true)?;
            // None if it was removed in between.
            if let Some(volume) = Locked::open(scope, &self.volume)? {
                break volume;
            }
        };
        fill::fill(&volume, self)?;
        // A claim by this name is of a container that is gone, or our own in a repair.
        File::create(&claim).map_err(failed("claim", &self.volume))?;
        if self.durable {
            let users = claim.parent().unwrap_or(Path::new("/"));
            File::open(users).and_then(|users| users.sync_all()).map_err(failed("claim", &self.volume))?;
        }
        Ok(())
    }
}

impl Operation for VolumeUse {
    fn explain(&self) -> Vec<String> {
        let mut lines = vec![words(["volume-create", &self.volume])];
        if let Some(source) = &self.source {
            let from = self.within.join(source.strip_prefix("/").unwrap_or(source));
            let path = format!("volumes/{}/data", self.volume);
            lines.push(format!(
                "{} # if it is empty",
                words(["cp", "--archive", &format!("{}/.", from.display()), &path])
            ));
        }
        lines
    }

    fn apply(&mut self, scope: &Scope) -> Result<(), Error> {
        self.make(scope)
    }

    fn undo(&self, scope: &Scope) -> Result<(), Error> {
        let claim = self.claim(scope)?;
        // Through no link: a volume's own directory is root's, but what a document names may be anything.
        let removed = match mount::resolve::parent(&claim) {
            Ok((users, id)) => rustix::fs::unlinkat(users, id, rustix::fs::AtFlags::empty()),
            Err(errno) => Err(errno),
        };
        operation::unless_gone(removed).map(drop).map_err(failed("release", &self.volume))
    }

    fn check(&self, scope: &Scope) -> Result<Condition, Error> {
        let claim = self.claim(scope)?;
        let found = operation::unless_gone(fs::symlink_metadata(&claim));
        Ok(match found.map_err(failed("look at", &self.volume))? {
            Some(_) => Condition::Present,
            None => Condition::Missing(format!("claim {claim:?}")),
        })
    }
}
