//! Names with another meaning in a layer (OCI image-spec, layer.md, Whiteouts).

/// The beginning of a name that says that the rest of it was removed.
pub const WHITEOUT: &[u8] = b".wh.";

/// The name that says that all of its directory was removed.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
