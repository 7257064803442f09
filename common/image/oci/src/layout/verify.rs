//! Verifies the store: reads every blob and follows every name.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs::{self, File},
    io::{self, Read},
    num::NonZero,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use oci_spec::image::Descriptor;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Entry, Error, Layout,
    blob::{open_regular, temporary_name},
    index::entries,
};
use crate::{
    digest::{Algorithm, Digest, Hasher},
    image::MAX_NESTING,
    media_type::{Kind, kind},
    reference::Reference,
    shape,
};

/// A blob whose content does not match its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DamagedBlob {
    /// The blob.
    pub digest: Digest,
    /// The size of the file, in bytes.
    pub size: u64,
    /// What is wrong with the blob.
    pub problem: String,
    /// The device and inode of the checked file. Another file may have replaced it since.
    #[serde(skip)]
    inode: Option<(u64, u64)>,
}

/// An entry of `index.json` whose image is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostName {
    /// The entry's name; None if it has none.
    pub reference: Option<Reference>,
    /// The entry's digest, as written in the file.
    pub digest: String,
    /// What is missing or wrong.
    pub problem: String,
}

/// The result of [`Layout::verify`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The number of blobs read.
    pub blobs: usize,
    /// Their total size in bytes.
    pub bytes: u64,
    /// The blobs that do not match their digests.
    pub damaged: Vec<DamagedBlob>,
    /// The names whose images are not complete.
    pub lost: Vec<LostName>,
}

/// Why an image is not complete: a blob, and what is wrong with it.
type Fault = (String, String);

impl Layout {
    /// Reads every blob of the store, or of `images` if there are any, and follows every name.
    ///
    /// # Errors
    /// When an image does not exist, or the store cannot be read for another reason than a damaged blob.
    pub fn verify(&self, images: &[String]) -> Result<Findings, Error> {
        let named = images.iter().map(|text| self.find_listed(text)).collect::<Result<Vec<_>, _>>()?;
        let blobs = match images.is_empty() {
            true => self.all_blobs()?,
            false => {
                let mut blobs = BTreeSet::new();
                named.iter().for_each(|found| self.reach(&found.image, 0, &mut blobs));
                blobs
            }
        };
        let (sizes, damaged) = self.read_all(blobs)?;
        let index = self.read_index()?;
        let is_named = |digest: &str| {
            named.iter().flat_map(|found| &found.entries).any(|entry| entry.digest().as_ref() == digest)
        };
        let wanted = |lost: &LostName, blob: &str| {
            images.is_empty()
                || is_named(&lost.digest)
                || damaged.iter().any(|damaged| damaged.digest.to_string() == blob)
        };
        let lost = entries(&index).iter().filter_map(|entry| self.lost(entry, &damaged));
        let lost = lost.filter(|(lost, blob)| wanted(lost, blob)).map(|(lost, _)| lost).collect();
        Ok(Findings { blobs: sizes.len(), bytes: sizes.iter().sum(), damaged, lost })
    }

    /// Reads a blob to its end and compares it with its descriptor.
    ///
    /// # Errors
    /// When the blob is missing, cannot be read, or is something else.
    pub fn check_blob(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        let read = self.blob_reader(descriptor)?.finish();
        read.map(drop).map_err(|source| Error::Read { digest, source })
    }

    /// Removes the findings: first the damaged blobs, then the names whose images are not complete. A later
    /// pull or load then gets the whole image.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_findings(&self, findings: &Findings) -> Result<(), Error> {
        for blob in &findings.damaged {
            self.remove_damaged(blob)?;
        }
        if findings.lost.is_empty() {
            return Ok(());
        }
        let mut edit = self.edit()?;
        // Check again: an image may have been repaired meanwhile.
        edit.retain(|entry| {
            self.lost(entry, &[]).is_none_or(|(lost, _)| {
                let same =
                    |found: &LostName| found.reference == lost.reference && found.digest == lost.digest;
                !findings.lost.iter().any(same)
            })
        });
        edit.commit()
    }

    /// All blobs in the store.
    fn all_blobs(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut blobs = BTreeSet::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let directory = self.path.join("blobs").join(algorithm.as_str());
            let names = match fs::read_dir(&directory) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read directory", directory)(error)),
            };
            for name in names {
                let name = name.map_err(Error::io("read directory", &directory))?.file_name();
                // A file with another name is not a blob of ours.
                blobs.extend(format!("{}:{}", algorithm.as_str(), name.to_string_lossy()).parse::<Digest>());
            }
        }
        Ok(blobs)
    }

    /// Collects the blobs below a descriptor, as far as its manifests can be read.
    pub(super) fn reach(&self, descriptor: &Descriptor, depth: u32, blobs: &mut BTreeSet<Digest>) {
        let Ok(digest) = Digest::try_from(descriptor.digest()) else { return };
        blobs.insert(digest);
        match kind(descriptor) {
            Kind::Index if depth < MAX_NESTING => {
                let index = self.index(descriptor);
                let children = index.iter().flat_map(|index| index.manifests());
                children.for_each(|child| self.reach(child, depth + 1, blobs));
            }
            Kind::Manifest => {
                let Ok(manifest) = self.manifest(descriptor) else { return };
                let parts = manifest.layers().iter().chain([manifest.config()]);
                blobs.extend(parts.filter_map(|part| Digest::try_from(part.digest()).ok()));
            }
            _ => {}
        }
    }

    /// Reads blobs in several threads. Returns the sizes of the blobs that exist, and the damaged ones.
    fn read_all(&self, blobs: BTreeSet<Digest>) -> Result<(Vec<u64>, Vec<DamagedBlob>), Error> {
        let queue = Mutex::new(VecDeque::from_iter(blobs));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let work = || -> Result<(Vec<u64>, Vec<DamagedBlob>), Error> {
            let (mut sizes, mut damaged) = (Vec::new(), Vec::new());
            while let Some(digest) = next() {
                if let Some((size, problem)) = self.read_whole(&digest)? {
                    sizes.push(size);
                    damaged.extend(problem);
                }
            }
            Ok((sizes, damaged))
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let outcomes: Vec<_> = thread::scope(|scope| {
            // If no thread can be started, this one does all the work.
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let threads: Vec<_> = (1..threads).map_while(start).collect();
            let own = Ok(work());
            [own].into_iter().chain(threads.into_iter().map(|thread| thread.join())).collect()
        });
        let (mut sizes, mut damaged) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            let (own_sizes, own_damaged) = match outcome {
                Ok(outcome) => outcome?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            sizes.extend(own_sizes);
            damaged.extend(own_damaged);
        }
        damaged.sort_by(|one, other| one.digest.cmp(&other.digest));
        Ok((sizes, damaged))
    }

    /// The digest of a blob's content; None if the blob is missing.
    pub(super) fn digest_of(&self, digest: &Digest) -> Result<Option<Digest>, Error> {
        let path = self.blob_path(digest);
        let read = open_regular(&path).and_then(|file| hash(file, digest.algorithm()));
        match read {
            Ok((found, _)) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Reads a blob to its end. Returns its size, and what is wrong with it. None if the blob does not exist.
    fn read_whole(&self, digest: &Digest) -> Result<Option<(u64, Option<DamagedBlob>)>, Error> {
        let path = self.blob_path(digest);
        let damaged = |size, inode, problem: String| {
            Ok(Some((size, Some(DamagedBlob { digest: digest.clone(), size, problem, inode }))))
        };
        let file = match open_regular(&path) {
            Ok(file) => file,
            // img-gc removed the blob, or it was never here. The name that needs it is reported instead.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if is_damage(&error) || error.kind() == io::ErrorKind::InvalidInput => {
                return damaged(0, inode_of(&path), words(&error));
            }
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        let metadata = file.metadata().map_err(Error::io("look at", &path))?;
        let inode = Some((metadata.dev(), metadata.ino()));
        match hash(file, digest.algorithm()) {
            Ok((found, size)) if found == *digest => Ok(Some((size, None))),
            Ok((found, size)) => damaged(size, inode, format!("its content has digest {found}")),
            Err(error) if is_damage(&error) => damaged(metadata.len(), inode, words(&error)),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// The finding for an entry of `index.json` whose image is not complete, and the digest of the blob at
    /// fault.
    fn lost(&self, entry: &Value, damaged: &[DamagedBlob]) -> Option<(LostName, String)> {
        let damaged: BTreeMap<String, &str> =
            damaged.iter().map(|blob| (blob.digest.to_string(), blob.problem.as_str())).collect();
        let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
        let descriptor = match shape::descriptor(entry) {
            Ok(descriptor) => descriptor,
            Err(error) => {
                let name = entry["annotations"][super::REF_NAME].as_str();
                let reference = name.and_then(|name| name.parse().ok());
                let problem = format!("its entry in index.json is no descriptor: {error}");
                return Some((LostName { reference, digest: digest.clone(), problem }, digest));
            }
        };
        let (blob, problem) = self.fault(&descriptor, 0, &damaged)?;
        let reference = Entry::new(descriptor).reference;
        Some((LostName { reference, digest, problem }, blob))
    }

    /// What is missing or damaged below a descriptor. An index need not have images for all its platforms.
    pub(super) fn fault(
        &self,
        descriptor: &Descriptor,
        depth: u32,
        damaged: &BTreeMap<String, &str>,
    ) -> Option<Fault> {
        if let Some(fault) = self.blob_fault(descriptor, damaged) {
            return Some(fault);
        }
        let own = |error: Error| (descriptor.digest().to_string(), error.to_string());
        match kind(descriptor) {
            Kind::Index if depth < MAX_NESTING => {
                let index = match self.index(descriptor) {
                    Ok(index) => index,
                    Err(error) => return Some(own(error)),
                };
                let mut first = None;
                for child in index.manifests() {
                    let fault = self.fault(child, depth + 1, damaged)?;
                    first.get_or_insert(fault);
                }
                first
            }
            Kind::Manifest => match self.manifest(descriptor) {
                Ok(manifest) => {
                    let here = |layer: &&Descriptor| layer.urls().as_ref().is_none_or(Vec::is_empty);
                    let parts = [manifest.config()].into_iter().chain(manifest.layers().iter().filter(here));
                    parts.into_iter().find_map(|part| self.blob_fault(part, damaged))
                }
                Err(error) => Some(own(error)),
            },
            _ => None,
        }
    }

    fn blob_fault(&self, descriptor: &Descriptor, damaged: &BTreeMap<String, &str>) -> Option<Fault> {
        let digest = descriptor.digest().to_string();
        if let Some(problem) = damaged.get(&digest) {
            return Some((digest.clone(), format!("{digest} is damaged: {problem}")));
        }
        let size =
            Digest::try_from(descriptor.digest()).map_err(Error::from).and_then(|d| self.blob_size(&d));
        let problem = match size {
            Ok(Some(size)) if size == descriptor.size() => return None,
            Ok(Some(size)) => {
                format!("{digest} has {size} bytes, its descriptor says {}", descriptor.size())
            }
            Ok(None) => format!("{digest} is not in the image store"),
            Err(error) => error.to_string(),
        };
        Some((digest, problem))
    }

    /// Removes the file that was found damaged, and no other: a pull may have replaced it with a good one.
    fn remove_damaged(&self, blob: &DamagedBlob) -> Result<(), Error> {
        let (path, aside) = (self.blob_path(&blob.digest), temporary_name(self));
        let moved = renameat_with(CWD, &path, CWD, &aside, RenameFlags::NOREPLACE);
        match moved {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io("remove", path)(error.into())),
        }
        if inode_of(&aside) != blob.inode {
            let back = renameat_with(CWD, &aside, CWD, &path, RenameFlags::NOREPLACE);
            return match back {
                // Another good file is there by now.
                Err(Errno::EXIST) => fs::remove_file(&aside).map_err(Error::io("remove", aside)),
                back => back.map_err(|error| Error::io("put back", path)(error.into())),
            };
        }
        match fs::symlink_metadata(&aside).is_ok_and(|metadata| metadata.is_dir()) {
            true => fs::remove_dir_all(&aside).map_err(Error::io("remove", aside)),
            false => fs::remove_file(&aside).map_err(Error::io("remove", aside)),
        }
    }
}

fn inode_of(path: &PathBuf) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Whether the error means that content is lost. Other errors, such as a lack of descriptors, say nothing
/// about the content.
fn is_damage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::LOOP))
}

/// The error's text without the number that the standard library appends.
fn words(error: &io::Error) -> String {
    let words = error.to_string();
    words.split(" (os error ").next().unwrap_or(&words).to_owned()
}

/// The digest of a file's content, and its size.
fn hash(mut file: File, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential);
    let (mut hasher, mut size) = (Hasher::new(algorithm), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
