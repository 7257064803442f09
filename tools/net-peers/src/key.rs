//! A host's WireGuard key.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use netlink::wireguard::Key;
use operation::Place;
use toolkit::prelude::*;

/// Parses a key in Base64, as `wg genkey` and `wg pubkey` print it.
pub(crate) fn parse(text: &str) -> Result<Key, String> {
    let bytes = STANDARD.decode(text.trim()).map_err(|error| error.to_string())?;
    bytes.try_into().map_err(|_| "a key has 32 bytes".to_owned())
}

/// A key in Base64.
pub(crate) fn written(key: &Key) -> String {
    STANDARD.encode(key)
}

/// Reads the private key from a file.
pub(crate) fn read(path: &Path) -> Result<Key> {
    let text = std::fs::read_to_string(path);
    let text =
        text.map_err(|cause| operation::Error::new("read", format_args!("{path:?}"), cause).of(Place::File))?;
    parse(&text).map_err(|wrong| hint(anyhow!("read key {path:?}: {wrong}"), "wg genkey prints one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_written() {
        assert_eq!(parse(&format!("{}\n", written(&[7; 32]))), Ok([7; 32]));
        for text in ["", "AAAA", "not a key"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
