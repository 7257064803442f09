//! Names with a special meaning in a layer (OCI image-spec, layer.md, "Whiteouts").

/// The prefix of a whiteout. The rest of the name was deleted.
pub const WHITEOUT: &[u8] = b".wh.";

/// The name of an opaque whiteout. Everything that lower layers have in its directory was deleted.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
