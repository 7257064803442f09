//! Events about the blobs of an image, as they happen.

use std::time::Duration;

use oci::Digest;

use crate::Error;

/// An event about a blob.
#[derive(Debug)]
pub enum Event<'a> {
    /// It will be downloaded or sent; its size in bytes.
    Planned(u64),
    /// It is in its place already.
    Exists,
    /// This many bytes of it have been transferred.
    Passed(u64),
    /// An error occurred; it is retried after a pause.
    Retrying(&'a Error, Duration),
    /// All of it has arrived, and is checked.
    Fetched,
    /// It is in its place.
    Done,
    /// The registry took it from another of its repositories.
    Mounted(&'a str),
}

/// A receiver of events. Several threads call it at the same time.
pub trait Progress: Sync {
    /// An event about the blob with this digest.
    fn tell(&self, digest: &Digest, event: Event);
    /// A line that is not about a blob.
    fn note(&self, line: &str);
}

/// Ignores all events.
impl Progress for () {
    fn tell(&self, _: &Digest, _: Event) {}
    fn note(&self, _: &str) {}
}
