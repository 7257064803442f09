//! Writes a change as a patch in the format of `git diff` (git-diff(1), "Generating patch text with -p").

use std::io::{self, Read, Write};

use layer::diff::{Change, Side};
use rustix::fs::FileType;
use similar::TextDiff;
use toolkit::prelude::*;

/// Larger files, in bytes, are not read; the patch only says that they differ.
const LARGEST: u64 = 16 << 20;

/// git treats a file as text if its first bytes, this many, contain no zero byte.
const LOOKED_AT: usize = 8000;

/// A version of a file, as git stores it.
struct Version {
    /// The mode: `100644`, `100755` or `120000`.
    mode: &'static str,
    /// The content. None if it is not text.
    text: Option<Vec<u8>>,
}

/// Writes a change. Directories are implied by the files in them. A change that a patch cannot express
/// becomes a comment line, which programs skip.
pub(crate) fn write(out: &mut impl Write, change: &Change) -> Result<()> {
    let kinds = [&change.old, &change.new].map(|side| side.as_ref().map(Side::kind));
    if kinds.iter().flatten().all(|kind| *kind == FileType::Directory) {
        return Ok(());
    }
    let read = |side: &Option<Side>| side.as_ref().map(version).transpose().map(Option::flatten);
    let (old, new) = (read(&change.old)?, read(&change.new)?);
    let (a, b) = (quoted(b"a/", &change.path), quoted(b"b/", &change.path));
    match (&old, &new) {
        (None, None) => {
            out.write_all(b"# not in this patch: ")?;
            out.write_all(&quoted(b"", &change.path))?;
            return Ok(out.write_all(b"\n")?);
        }
        (Some(old), Some(new)) if old.mode == new.mode && old.text.is_some() && old.text == new.text => {
            return Ok(());
        }
        // git writes a change of the file type as a deletion and a creation.
        (Some(old), Some(new)) if old.mode[..2] != new.mode[..2] => {
            one(out, (&a, &b), (Some(old), None))?;
            return one(out, (&a, &b), (None, Some(new)));
        }
        _ => {}
    }
    one(out, (&a, &b), (old.as_ref(), new.as_ref()))
}

fn one(
    out: &mut impl Write,
    (a, b): (&[u8], &[u8]),
    sides: (Option<&Version>, Option<&Version>),
) -> Result<()> {
    let line = |out: &mut dyn Write, parts: &[&[u8]]| -> io::Result<()> {
        parts.iter().try_for_each(|part| out.write_all(part))?;
        out.write_all(b"\n")
    };
    line(out, &[b"diff --git ", a, b" ", b])?;
    match sides {
        (None, Some(new)) => line(out, &[b"new file mode ", new.mode.as_bytes()])?,
        (Some(old), None) => line(out, &[b"deleted file mode ", old.mode.as_bytes()])?,
        (Some(old), Some(new)) if old.mode != new.mode => {
            line(out, &[b"old mode ", old.mode.as_bytes()])?;
            line(out, &[b"new mode ", new.mode.as_bytes()])?;
        }
        _ => {}
    }
    let name =
        |side: Option<&Version>, name: &[u8]| side.map_or_else(|| b"/dev/null".to_vec(), |_| name.to_vec());
    let (old_name, new_name) = (name(sides.0, a), name(sides.1, b));
    let text = |side: Option<&Version>| side.map_or_else(|| Some(Vec::new()), |version| version.text.clone());
    let (Some(old), Some(new)) = (text(sides.0), text(sides.1)) else {
        return Ok(line(out, &[b"Binary files ", &old_name, b" and ", &new_name, b" differ"])?);
    };
    if old == new {
        return Ok(());
    }
    // patch(1) ends a name at its first space, unless a tab is behind it; git writes one, too.
    let end = |name: &[u8]| if name.contains(&b' ') { &b"\t"[..] } else { b"" };
    line(out, &[b"--- ", &old_name, end(&old_name)])?;
    line(out, &[b"+++ ", &new_name, end(&new_name)])?;
    let diff = TextDiff::configure().diff_lines(&old[..], &new[..]);
    diff.unified_diff().context_radius(3).to_writer(out)?;
    Ok(())
}

/// Reads one side of a change. None if git has no mode for the file type.
fn version(side: &Side) -> Result<Option<Version>> {
    Ok(match side.kind() {
        FileType::Symlink => Some(Version { mode: "120000", text: Some(side.target()?) }),
        FileType::RegularFile => {
            let mode = if side.stat.st_mode & 0o100 == 0 { "100644" } else { "100755" };
            Some(Version { mode, text: text(side)? })
        }
        _ => None,
    })
}

fn text(side: &Side) -> Result<Option<Vec<u8>>> {
    if u64::try_from(side.stat.st_size).unwrap_or(u64::MAX) > LARGEST {
        return Ok(None);
    }
    let mut text = Vec::new();
    side.open()?.take(LARGEST).read_to_end(&mut text)?;
    Ok((!text[..text.len().min(LOOKED_AT)].contains(&0)).then_some(text))
}

/// A name as git writes it: if it contains unusual bytes, in quotes with octal escapes.
fn quoted(before: &[u8], path: &[u8]) -> Vec<u8> {
    let whole = [before, path].concat();
    let is_usual = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'"' && *byte != b'\\';
    if whole.iter().all(is_usual) {
        return whole;
    }
    let mut text = vec![b'"'];
    for byte in whole {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', byte]),
            byte if is_usual(&byte) => text.push(byte),
            byte => text.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_git_writes_them() {
        assert_eq!(quoted(b"a/", b"etc/x y"), b"a/etc/x y");
        assert_eq!(quoted(b"a/", b"x\"\n\xff"), b"\"a/x\\\"\\012\\377\"");
    }
}
