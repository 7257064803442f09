//! What happens to the blobs of an image, as it happens.

use std::time::Duration;

use oci::Digest;

use crate::Error;

/// What happened to a blob.
#[derive(Debug)]
pub enum Event<'a> {
    /// It will be fetched or sent; its size in bytes.
    Planned(u64),
    /// It is where it should go already.
    Exists,
    /// So many bytes of it have passed.
    Passed(u64),
    /// Something went wrong; it is tried again after a pause.
    Retrying(&'a Error, Duration),
    /// All of it is here, and checked.
    Fetched,
    /// It is in its place.
    Done,
    /// The registry took it from another of its repositories.
    Mounted(&'a str),
}

/// Who wants to know. Called by several threads at once.
pub trait Progress: Sync {
    /// What happened to the blob of this digest.
    fn tell(&self, digest: &Digest, event: Event);
    /// Something that concerns no blob, in a line.
    fn note(&self, line: &str);
}

/// Nobody does.
impl Progress for () {
    fn tell(&self, _: &Digest, _: Event) {}
    fn note(&self, _: &str) {}
}
