//! Lines on standard error for people.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Write},
    path::Path,
};

/// Prints one line on standard error, with the name of the running tool: `netns-bridge: net.ipv4.ip_forward
/// stays 1: …`.
pub fn note(text: &str) {
    let tool = std::env::args_os().next().unwrap_or_default();
    let tool = Path::new(&tool).file_name().unwrap_or_default().to_string_lossy().into_owned();
    crate::tell!("{tool}: {text}");
}

/// Prints one line on standard error, as [`eprintln!`] does. Ignores an error of writing, so that the tool's
/// work, and above all an undo, goes on.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => { $crate::tell_line(format_args!($($words)*)) };
}

/// Prints the line of [`tell!`] with a single write, so that lines of tools that run at the same time do not
/// mix.
pub fn tell_line(words: fmt::Arguments<'_>) {
    let before = crate::status::before_a_line();
    let _ = io::stderr().write_all(format!("{before}{}\n", printable(&words.to_string())).as_bytes());
}

/// Text for people, which may come from a container or an image: a terminal must not carry it out. Control
/// characters other than the ends of lines and tabs become `?`.
pub fn printable(text: &str) -> Cow<'_, str> {
    without(text, |c| c.is_control() && c != '\n' && c != '\t')
}

/// Text for one cell of a table or one word of a line: also the ends of lines become `?`.
pub fn printable_word(text: &str) -> Cow<'_, str> {
    without(text, char::is_control)
}

fn without(text: &str, is_dangerous: fn(char) -> bool) -> Cow<'_, str> {
    if text.contains(is_dangerous) { text.replace(is_dangerous, "?").into() } else { text.into() }
}
