//! OCI images: digests, references, descriptors, and the image layout that stores them.
//!
//! [`layout::Layout`] is the store at `$STAVE_ROOT/images`. It is an OCI image layout. skopeo, umoci, podman
//! and crane can read and write it directly, also while our tools run.

pub mod digest;
pub mod embedded;
pub mod gc;
pub mod image;
pub mod index;
pub mod json;
pub mod layout;
pub mod load;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod save;
mod shape;
pub mod summary;
pub mod table;
pub mod timestamp;

pub use digest::Digest;
pub use image::Image;
pub use layout::Layout;
pub use oci_spec::image as spec;
pub use platform::Platform;
pub use reference::Reference;
