//! What a person should know although nothing failed.

use std::path::Path;

/// Prints one line on standard error, as the tool that runs: `netns-bridge: net.ipv4.ip_forward stays 1: …`.
pub fn note(text: &str) {
    let tool = std::env::args_os().next().unwrap_or_default();
    let tool = Path::new(&tool).file_name().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!("{tool}: {text}");
}
