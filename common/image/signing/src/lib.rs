//! Signatures of images by key, as cosign makes them: keys in files ([`PrivateKey`], [`PublicKey`]), and the text that is
//! signed ([`Payload`], containers/image's signature format "simple signing").

mod key;
mod payload;

pub use key::{Error, PrivateKey, PublicKey};
pub use payload::Payload;

/// The media type of a layer that is a [`Payload`].
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of that layer with the signature, in base64.
pub const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
