//! OCI layers (image-spec, layer.md): unpacking layer tars into directories in overlayfs's form, and writing
//! directories as layers.
//!
//! * [`apply`]: unpacks a layer's blob into a directory or an EROFS image. All names in a layer are
//!   untrusted: every call works on a directory descriptor, and a path is only opened below the layer's root,
//!   without following symbolic links.
//! * [`diff`]: writes a layer from an upper directory of overlayfs, or from the difference of two
//!   directories.
//! * [`store`]: the unpacked layers in `$STAVE_ROOT/layers`. Each is unpacked once. After a restart it is
//!   trusted only if it was synced.

pub mod apply;
pub mod compression;
pub mod diff;
mod operation;
mod overlay;
mod pipeline;
mod removal;
pub mod store;

pub use operation::{Apply, Layer, Tell};
pub use overlay::is_opaque;
pub use removal::remove_tree;
