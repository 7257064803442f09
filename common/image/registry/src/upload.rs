//! Uploads a blob into a registry, from the store or from another registry (OCI distribution-spec, "Pushing
//! Blobs").

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use oci::{Digest, Layout, spec::Descriptor};
use ureq::http::header;

use crate::{
    Error,
    progress::{Event, Progress},
    repository::Repository,
    url::Url,
};

/// How a blob got into the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uploaded {
    Existed,
    Mounted,
    Sent,
}

/// A source of blobs.
pub(crate) trait Blobs: Sync {
    /// Opens a blob. The reader reaches the end only if the content matches the descriptor.
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, Error>;
}

impl Blobs for Layout {
    fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        Ok(Box::new(self.blob_reader(descriptor)?))
    }
}

/// The data that all uploads of a push share.
pub(crate) struct Uploads<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) source: &'a dyn Blobs,
    pub(crate) progress: &'a dyn Progress,
    /// Maps a digest to another repository of the registry that has the blob.
    pub(crate) origins: &'a HashMap<String, String>,
}

/// The answer to the start of an upload.
enum Session {
    Mounted,
    At(Url),
}

impl Uploads<'_> {
    /// Sends blobs, `jobs` at once. Each comes with whether it is a layer.
    pub(crate) fn send_all(
        &self,
        blobs: Vec<(Descriptor, bool)>,
        jobs: usize,
    ) -> Result<Vec<Uploaded>, Error> {
        self.announce(&blobs)?;
        let jobs = jobs.min(blobs.len());
        let queue = Mutex::new(VecDeque::from(blobs));
        let (given_up, done) = (AtomicBool::new(false), Mutex::new(Ok(Vec::new())));
        let work = || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            while let Some((blob, is_layer)) = next() {
                if given_up.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = self.send(&blob, is_layer);
                given_up.fetch_or(outcome.is_err(), Ordering::Relaxed);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match (outcome, done.as_mut()) {
                    (Ok(uploaded), Ok(counts)) => counts.push(uploaded),
                    (Err(error), Ok(_)) => *done = Err(error),
                    (_, Err(_)) => {}
                }
            }
        };
        thread::scope(|scope| {
            // If no thread can be started, this one does all the work.
            for _ in 1..jobs {
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, blobs: &[(Descriptor, bool)]) -> Result<(), Error> {
        for (blob, _) in blobs.iter().filter(|(_, is_layer)| *is_layer) {
            self.progress.tell(&Digest::try_from(blob.digest())?, Event::Planned(blob.size()));
        }
        Ok(())
    }

    /// Sends a blob, unless the registry has it. Progress is shown only for layers.
    fn send(&self, descriptor: &Descriptor, is_layer: bool) -> Result<Uploaded, Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        let progress = if is_layer { self.progress } else { &() };
        let tell = |error: &Error, pause: Duration| progress.tell(&digest, Event::Retrying(error, pause));
        let there = self.repository.patiently(&tell, || {
            let url = self.repository.url(&format!("blobs/{digest}"))?;
            let answer = self.repository.expect("HEAD", url, &[], None, &[200, 404])?;
            Ok(answer.status == 200)
        })?;
        if there {
            progress.tell(&digest, Event::Exists);
            return Ok(Uploaded::Existed);
        }
        let from = self.origins.get(&digest.to_string()).map(String::as_str);
        self.repository.patiently(&tell, || match self.begin(&digest, from)? {
            Session::Mounted => {
                progress.tell(&digest, Event::Mounted(from.unwrap_or_default()));
                Ok(Uploaded::Mounted)
            }
            Session::At(url) => {
                self.put(descriptor, &digest, url, progress)?;
                progress.tell(&digest, Event::Done);
                Ok(Uploaded::Sent)
            }
        })
    }

    /// Asks for an upload address, or for mounting the blob from repository `from`.
    fn begin(&self, digest: &Digest, from: Option<&str>) -> Result<Session, Error> {
        let url = self.repository.url("blobs/uploads/")?;
        if let Some(from) = from {
            let url = url.clone().with("mount", &digest.to_string()).with("from", from);
            // A registry that refuses to mount the blob accepts an ordinary upload.
            if let Ok(answer) = self.repository.expect("POST", url, &[], None, &[201, 202]) {
                return Ok(match answer.status.as_u16() {
                    201 => Session::Mounted,
                    _ => Session::At(answer.location()?),
                });
            }
        }
        let answer = self.repository.expect("POST", url, &[], None, &[202])?;
        Ok(Session::At(answer.location()?))
    }

    /// Sends the whole blob in one request.
    fn put(
        &self,
        descriptor: &Descriptor,
        digest: &Digest,
        url: Url,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let (size, failure) = (descriptor.size(), Mutex::new(None));
        let mut body = || {
            let reader = self.source.open(descriptor)?;
            let told = Told { reader, progress, digest: digest.clone(), passed: 0, size, failure: &failure };
            Ok((Box::new(told) as Box<dyn Read>, size))
        };
        let headers = [(header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned())];
        let url = url.with("digest", &digest.to_string());
        let answer = self.repository.expect("PUT", url, &headers, Some(&mut body), &[201, 204]);
        // The error of the source is the cause. The error of the connection only follows from it.
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(source) => Err(match source.downcast() {
                Ok(error) => error,
                Err(source) => Error::Blob { verb: "read", digest: digest.to_string(), source },
            }),
            None => answer.map(drop),
        }
    }
}

/// A reader that reports how much of a blob has been read, and keeps the error. It returns the last bytes
/// only after the whole blob has been checked, so no registry gets all of a wrong blob.
struct Told<'a> {
    reader: Box<dyn Read + 'a>,
    progress: &'a dyn Progress,
    digest: Digest,
    passed: u64,
    size: u64,
    failure: &'a Mutex<Option<io::Error>>,
}

impl Told<'_> {
    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count > 0 && self.passed + count as u64 == self.size {
            while self.reader.read(&mut [0])? > 0 {}
        }
        Ok(count)
    }
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.next(buffer).map_err(|error| {
            let shown = io::Error::from(error.kind());
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            shown
        })?;
        self.passed += count as u64;
        if count > 0 {
            self.progress.tell(&self.digest, Event::Passed(self.passed));
        }
        Ok(count)
    }
}
