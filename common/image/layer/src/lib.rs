//! Layers: what an OCI layer tar says (image-spec, layer.md), and the directory in overlayfs's own form that it becomes.
//!
//! * [`apply`]: a layer's blob → a directory. Every name in a layer is taken for hostile: all work goes through directory
//!   descriptors, a path is only ever opened below the layer's root with symbolic links refused.
//! * [`diff`]: an upper directory of overlayfs, or two directories → a layer.
//! * [`store`]: the unpacked layers below `$STAVE_ROOT/layers`, each made once and trusted only as far as the disk is.

pub mod apply;
pub mod compression;
pub mod diff;
mod operation;
mod overlay;
mod pipeline;
mod removal;
pub mod store;
pub mod whiteout;

pub use operation::{Apply, Layer, Tell};
pub use overlay::is_opaque;
pub use removal::remove_tree;
