//! Downloads one blob from a registry into the store. The blob can be read while it arrives.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use oci::{
    Digest, Layout,
    digest::Mismatch,
    layout::{BlobWriter, SealedBlob},
    spec::Descriptor,
};
use ureq::http::header;

use crate::{
    Error,
    http::Answer,
    progress::{Event, Progress},
    repository::Repository,
    sources::Sources,
    url::Url,
};

/// How many bytes are read from a connection before they are written.
const BUFFER: usize = 256 << 10;
/// An attempt that transferred this many bytes made progress; the retries are then counted anew.
const PROGRESS: u64 = 64 << 10;

/// A blob that is being downloaded. Its reader waits for bytes that have not arrived, and reaches the end
/// only after the whole blob has been checked. If the bytes were wrong and are downloaded again from another
/// place, the reader gets an error and must start again.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// The number of bytes that can be read.
    size: u64,
    end: Option<End>,
    /// How often the download was started.
    beginnings: u32,
    /// The start at which the blob was last opened.
    opened: u32,
    /// Whether the download will start again if the bytes turn out to be wrong.
    replaceable: bool,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Checked,
    Failed,
}

impl Growing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Starts the download, in the file of `writer`.
    fn begin(&self, writer: &BlobWriter) -> io::Result<()> {
        let file = Arc::new(writer.file()?);
        self.change(|state| {
            (state.file, state.size) = (Some(file), 0);
            state.beginnings += 1;
        });
        Ok(())
    }

    /// Whether the download was started again after the blob was opened. Waits while that may still happen.
    pub(crate) fn begun_again(&self) -> bool {
        let mut state = self.lock();
        while state.beginnings <= state.opened && state.end.is_none() && state.replaceable {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.beginnings > state.opened && !matches!(state.end, Some(End::Failed))
    }

    /// Opens a reader at the current start.
    pub(crate) fn follow(self: &Arc<Self>) -> Following {
        let mut state = self.lock();
        state.opened = state.beginnings.max(1);
        Following { blob: self.clone(), position: 0, beginning: state.opened }
    }

    /// Marks the download as failed: no more bytes will come.
    pub(crate) fn fail(&self) {
        self.change(|state| {
            state.end.get_or_insert(End::Failed);
        });
    }

    /// Waits for bytes after `position`. Returns the file, its readable size, and whether that is the whole
    /// blob.
    fn wait(&self, position: u64, beginning: u32) -> io::Result<(Arc<File>, u64, bool)> {
        let mut state = self.lock();
        loop {
            match (&state.file, state.end) {
                (_, Some(End::Failed)) => return Err(io::Error::other("the download failed")),
                _ if state.beginnings > beginning => {
                    return Err(io::Error::other("wrong bytes were replaced"));
                }
                (Some(file), Some(End::Checked)) => return Ok((file.clone(), state.size, true)),
                (Some(file), None) if state.size > position => return Ok((file.clone(), state.size, false)),
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Reads a [`Growing`] blob from its start.
#[derive(Debug)]
pub(crate) struct Following {
    blob: Arc<Growing>,
    position: u64,
    /// The start that is read.
    beginning: u32,
}

impl Read for Following {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, size, all) = self.blob.wait(self.position, self.beginning)?;
        if self.position == size && all {
            return Ok(0);
        }
        let wanted = usize::try_from(size - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The data that all downloads of a pull share.
#[derive(Clone, Copy)]
pub(crate) struct Downloads<'a> {
    pub(crate) sources: &'a Sources<'a>,
    pub(crate) layout: &'a Layout,
    pub(crate) progress: &'a dyn Progress,
    /// Set when another download failed.
    pub(crate) given_up: &'a AtomicBool,
}

impl Downloads<'_> {
    /// Downloads a blob into the store, with retries, from one source after the other.
    ///
    /// If a source fails, the next one continues. If the bytes are wrong, the next one starts again. If some
    /// of the wrong bytes came from an earlier source, that source may be at fault, so the same source starts
    /// again.
    pub(crate) fn fetch(&self, descriptor: &Descriptor, blob: &Growing) -> Result<(), Error> {
        let digest = Digest::try_from(descriptor.digest())?;
        let begin = || -> Result<BlobWriter, Error> {
            let writer = self.layout.writer_of(descriptor)?;
            blob.begin(&writer).map_err(failed("create", &digest))?;
            Ok(writer)
        };
        let mut writer = begin()?;
        let mut last = Error::GivenUp;
        for index in self.sources.remaining() {
            let is_last = self.sources.is_last(index);
            let outcome = self.sources.get(index).and_then(|source| {
                if writer.size() > 0 {
                    blob.change(|state| state.replaceable = true);
                    match self.receive_all(source, None, descriptor, &mut writer, blob) {
                        Err(error) if error.is_wrong_content() => writer = begin()?,
                        outcome => return outcome,
                    }
                    // From here on, all bytes come from this source.
                }
                blob.change(|state| state.replaceable = !is_last);
                self.receive_all(source, None, descriptor, &mut writer, blob)
            });
            match outcome {
                Ok(()) => return self.place(&digest, writer, blob),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    if !is_last {
                        self.sources.passed_over(index, &error);
                        if error.is_wrong_content() {
                            writer = begin()?;
                        }
                    }
                    last = error;
                }
            }
        }
        // Last, try the URLs in the descriptor (image-spec, descriptor.md, "urls"). No registry has the base
        // layers of Windows, because they must not be distributed.
        for url in descriptor.urls().iter().flatten() {
            let outcome = self.sources.elsewhere(url).and_then(|(source, url)| {
                if writer.size() > 0 {
                    writer = begin()?;
                }
                self.receive_all(&source, Some(&url), descriptor, &mut writer, blob)
            });
            match outcome {
                Ok(()) => return self.place(&digest, writer, blob),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Moves a checked blob into place.
    fn place(&self, digest: &Digest, writer: BlobWriter, blob: &Growing) -> Result<(), Error> {
        let sealed: SealedBlob = writer.seal()?;
        let size = sealed.size();
        self.progress.tell(digest, Event::Fetched);
        sealed.commit()?;
        blob.change(|state| {
            state.size = size;
            state.end = Some(End::Checked);
        });
        Ok(())
    }

    /// Downloads from one source, with retries, and checks the digest. Without `url`, the blob is one of the
    /// repository's blobs.
    fn receive_all(
        &self,
        source: &Repository,
        url: Option<&Url>,
        descriptor: &Descriptor,
        writer: &mut BlobWriter,
        blob: &Growing,
    ) -> Result<(), Error> {
        let (digest, size) = (Digest::try_from(descriptor.digest())?, descriptor.size());
        let mut attempts = source.attempts();
        loop {
            let before = writer.size();
            let url = match url {
                Some(url) => url.clone(),
                None => source.url(&format!("blobs/{digest}"))?,
            };
            let error = match self.receive(source, url, (&digest, size), writer, blob) {
                Ok(()) => return Ok(writer.check()?),
                Err(error @ (Error::Store(_) | Error::Blob { .. } | Error::GivenUp)) => return Err(error),
                Err(error) => error,
            };
            if writer.size() >= before + PROGRESS {
                attempts.progressed();
            }
            let tell = |error: &Error, pause| self.progress.tell(&digest, Event::Retrying(error, pause));
            attempts.wait(error, tell)?;
        }
    }

    /// Downloads the missing part of the blob over one connection.
    fn receive(
        &self,
        source: &Repository,
        url: Url,
        (digest, size): (&Digest, u64),
        writer: &mut BlobWriter,
        blob: &Growing,
    ) -> Result<(), Error> {
        let from = writer.size();
        if from == size {
            return Ok(());
        }
        let range = (from > 0).then(|| (header::RANGE.as_str(), format!("bytes={from}-")));
        let headers: Vec<_> = range.into_iter().collect();
        let mut answer = source.expect("GET", url.clone(), &headers, None, &[200, 206, 416])?;
        let continues = answer.status == 206 && begins_at(&answer, from)?;
        if from > 0 && !continues && answer.status != 200 {
            // This server says that it supports ranges, but cannot continue.
            answer = source.expect("GET", url, &[], None, &[200])?;
        }
        // Without support for ranges, the server starts from the beginning.
        let mut skip = if continues { 0 } else { from };
        let length = answer.length();
        if let Some(length) = length
            && length != size - from + skip
        {
            let (found, more) = (from - skip + length, length > size - from + skip);
            let found = if more { size } else { found };
            return Err(Mismatch::Size { digest: digest.clone(), expected: size, found, more }.into());
        }
        // Only an answer of known length can be too short. Any other may have been cut off.
        let framed = length.is_some() || answer.header(header::TRANSFER_ENCODING).is_some();
        let broken =
            Error::Connection { request: answer.request.clone(), cause: crate::error::Cause::Broken };
        let mut body = answer.into_body();
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.given_up.load(Ordering::Relaxed) {
                return Err(Error::GivenUp);
            }
            let (filled, outcome) = fill(&mut body, &mut buffer);
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(filled);
            skip -= skipped as u64;
            let new = &buffer[skipped..filled];
            writer.write_all(new).and_then(|()| writer.flush()).map_err(|error| written(digest, error))?;
            if !new.is_empty() {
                blob.change(|state| state.size = writer.size());
                self.progress.tell(digest, Event::Passed(writer.size()));
            }
            match outcome {
                Err(error) => return Err(error),
                Ok(false) => {}
                Ok(true) if writer.size() == size => return Ok(()),
                Ok(true) if framed => return Err(too_little(digest, size, writer.size())),
                Ok(true) => return Err(broken),
            }
        }
    }
}

/// Fills the buffer. Returns the number of bytes, and whether the end was reached or an error occurred.
fn fill(body: &mut crate::http::AnswerBody, buffer: &mut [u8]) -> (usize, Result<bool, Error>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match body.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, Ok(true)),
            Ok(count) => filled += count,
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(false))
}

/// Whether `Content-Range: bytes 5-9/10` begins at the requested offset (RFC 9110, section 14.4).
///
/// # Errors
/// When it begins elsewhere, although no part was asked for.
fn begins_at(answer: &Answer, from: u64) -> Result<bool, Error> {
    let range = answer.header(header::CONTENT_RANGE).unwrap_or_default();
    let start = range.trim().strip_prefix("bytes ").and_then(|range| range.split('-').next());
    match start.and_then(|start| start.trim().parse::<u64>().ok()) == Some(from) {
        false if from == 0 => {
            Err(answer.wrong(format!("asked for bytes from 0 on, got {:?}", crate::error::plain(range))))
        }
        begins => Ok(begins),
    }
}

/// Whether no other source can help: it is not the source that failed.
fn is_final(error: &Error) -> bool {
    matches!(error, Error::Store(_) | Error::Blob { .. } | Error::GivenUp) && !error.is_wrong_content()
}

fn too_little(digest: &Digest, expected: u64, found: u64) -> Error {
    Mismatch::Size { digest: digest.clone(), expected, found, more: false }.into()
}

pub(crate) fn failed(verb: &'static str, digest: &Digest) -> impl FnOnce(io::Error) -> Error {
    let digest = digest.to_string();
    move |source| Error::Blob { verb, digest, source }
}

/// Returns a mismatch found by the writer as itself, and any other error as an error of writing.
fn written(digest: &Digest, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Mismatch>()) {
        Some(mismatch) => mismatch.clone().into(),
        None => failed("write", digest)(error),
    }
}
