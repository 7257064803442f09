//! Lists changes in the form of `docker diff`.

use std::{
    ffi::OsStr,
    io::{self, BufReader},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    thread,
};

use archive::{OPAQUE, Reader, Shown, WHITEOUT};
use layer::{compression::Compression, diff};
use toolkit::prelude::*;

use super::trees::Trees;

/// A line for each change: `A` for added, `C` for changed, `D` for removed.
pub(crate) fn lines(trees: &Trees, lower: &[PathBuf]) -> Result<String> {
    let (reader, writer) = io::pipe().context("create a pipe")?;
    thread::scope(|scope| {
        let write = || trees.write(writer, Compression::None).map(drop);
        let written = thread::Builder::new().spawn_scoped(scope, write).context("start a thread")?;
        let read = read(BufReader::new(reader), lower);
        // If the reader fails, the writer ends with an error as well. The writer's own error says more.
        written.join().unwrap_or_else(|_| Err(anyhow!("the writing thread panicked")))?;
        read
    })
}

fn read(input: impl io::BufRead, lower: &[PathBuf]) -> Result<String> {
    let mut reader = Reader::of_content(input);
    let mut text = String::new();
    while let Some(entry) = reader.next().context("read the changes")? {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let Some(name) = path.file_name().map(OsStrExt::as_bytes).filter(|name| *name != OPAQUE) else {
            continue;
        };
        let (kind, path) = match name.strip_prefix(WHITEOUT) {
            Some(name) => ('D', path.with_file_name(OsStr::from_bytes(name))),
            None => {
                let is_below = diff::has(lower, path).with_context(|| format!("look below {path:?}"))?;
                (if is_below { 'C' } else { 'A' }, path.components().collect())
            }
        };
        text += &format!("{kind} /{}\n", plain(&path));
    }
    Ok(text)
}

/// The path as text on one line, whatever characters it has.
fn plain(path: &Path) -> String {
    match path.to_str().filter(|text| !text.contains(char::is_control)) {
        Some(text) => text.to_owned(),
        None => Shown::new(path.as_os_str().as_bytes()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_on_a_line_of_its_own() {
        assert_eq!(plain(Path::new("a b")), "a b");
        assert!(!plain(Path::new("a\nb")).contains('\n'));
    }
}
