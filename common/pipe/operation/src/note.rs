//! What a person should know.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

/// Prints one line on standard error, as the tool that runs: `netns-bridge: net.ipv4.ip_forward stays 1: …`.
pub fn note(text: &str) {
    let tool = std::env::args_os().next().unwrap_or_default();
    let tool = Path::new(&tool).file_name().unwrap_or_default().to_string_lossy().into_owned();
    crate::tell!("{tool}: {text}");
}

/// Prints one line on standard error, as [`eprintln!`] does. A line that cannot be written stops nothing: the work, and above all
/// undoing it, goes on.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::tell_line(format_args!($($words)*)) };
}

/// As [`tell!`]: in one piece, so that the lines of tools that run at the same time stay apart.
pub fn tell_line(words: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
}
