//! Content inside of its descriptor (OCI image-spec, descriptor.md, `data`).

use base64::{Engine, prelude::BASE64_STANDARD};
use oci_spec::image::Descriptor;

use crate::digest::{Digest, Verifying};

/// The content in a descriptor. `None` if there is none, or if it has another digest or size than the descriptor says:
/// such content must not be used, and the blob may be elsewhere.
pub fn content(descriptor: &Descriptor) -> Option<Vec<u8>> {
    let content = BASE64_STANDARD.decode(descriptor.data().as_ref()?).ok()?;
    let digest = Digest::try_from(descriptor.digest()).ok()?;
    let found = Verifying::new(&content[..], digest, descriptor.size()).finish();
    found.is_ok().then_some(content)
}
