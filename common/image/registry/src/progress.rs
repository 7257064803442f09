//! Events about the blobs of an image.

use std::time::Duration;

use oci::Digest;

use crate::Error;

/// An event about a blob.
#[derive(Debug)]
pub enum Event<'a> {
    /// The blob will be downloaded or sent; its size in bytes.
    Planned(u64),
    /// The blob is in its place already.
    Exists,
    /// This many bytes of the blob have been transferred so far.
    Passed(u64),
    /// An error occurred; the next attempt follows after this pause.
    Retrying(&'a Error, Duration),
    /// The whole blob has arrived and is checked.
    Fetched,
    /// The blob is in its place.
    Done,
    /// The registry mounted the blob from another of its repositories.
    Mounted(&'a str),
}

/// A receiver of events. Several threads call it at the same time.
pub trait Progress: Sync {
    /// Reports an event about the blob with this digest.
    fn tell(&self, digest: &Digest, event: Event);
    /// Reports a line that is not about a blob.
    fn note(&self, line: &str);
}

/// Ignores all events.
impl Progress for () {
    fn tell(&self, _: &Digest, _: Event) {}
    fn note(&self, _: &str) {}
}
