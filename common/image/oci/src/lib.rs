//! Images as the OCI defines them: digests, references, descriptors, and the image layout that they are stored in.
//!
//! [`layout::Layout`] is the store at `$STAVE_ROOT/images`: an OCI image layout that skopeo, umoci, podman and crane read
//! and write as it is, also while we do.

pub mod digest;
pub mod gc;
pub mod image;
pub mod json;
pub mod layout;
pub mod load;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod save;
pub mod summary;
pub mod table;
pub mod timestamp;

pub use digest::Digest;
pub use image::Image;
pub use layout::Layout;
pub use oci_spec::image as spec;
pub use platform::Platform;
pub use reference::Reference;
