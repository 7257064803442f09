//! One blob from the store into a registry (OCI distribution-spec, "Pushing Blobs").

use std::{
    collections::HashMap,
    io::{self, Read},
    time::Duration,
};

use oci::{Digest, Layout, layout::BlobReader, spec::Descriptor};
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

/// The data that all uploads of a push share.
pub(crate) struct Uploads<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) layout: &'a Layout,
    pub(crate) progress: &'a dyn Progress,
    /// Digest → another repository of the registry that has the blob.
    pub(crate) origins: &'a HashMap<String, String>,
}

/// The result of a request for an upload.
enum Session {
    Mounted,
    At(Url),
}

impl Uploads<'_> {
    pub(crate) fn announce(&self, blobs: &[(Descriptor, bool)]) -> Result<(), Error> {
        for (blob, _) in blobs.iter().filter(|(_, is_layer)| *is_layer) {
            self.progress.tell(&Digest::try_from(blob.digest())?, Event::Planned(blob.size()));
        }
        Ok(())
    }

    /// Sends a blob, unless the registry has it. Progress of a layer is shown.
    pub(crate) fn send(&self, descriptor: &Descriptor, is_layer: bool) -> Result<Uploaded, Error> {
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

    /// Asks for an address to send to, or for the blob of another repository.
    fn begin(&self, digest: &Digest, from: Option<&str>) -> Result<Session, Error> {
        let url = self.repository.url("blobs/uploads/")?;
        if let Some(from) = from {
            let url = url.clone().with("mount", &digest.to_string()).with("from", from);
            // A registry that refuses to mount it accepts it in the ordinary way.
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

    /// Sends all of it in one request.
    fn put(
        &self,
        descriptor: &Descriptor,
        digest: &Digest,
        url: Url,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let size = descriptor.size();
        let mut body = || {
            let reader = self.layout.blob_reader(descriptor)?;
            let told = Told { reader, progress, digest: digest.clone(), passed: 0 };
            Ok((Box::new(told) as Box<dyn Read>, size))
        };
        let headers = [(header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned())];
        let url = url.with("digest", &digest.to_string());
        self.repository.expect("PUT", url, &headers, Some(&mut body), &[201, 204]).map(drop)
    }
}

/// Counts how much of a blob was read.
struct Told<'a> {
    reader: BlobReader,
    progress: &'a dyn Progress,
    digest: Digest,
    passed: u64,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.passed += count as u64;
        if count > 0 {
            self.progress.tell(&self.digest, Event::Passed(self.passed));
        }
        Ok(count)
    }
}
