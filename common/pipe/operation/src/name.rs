use std::{fs::File, io::Read};

use crate::Error;

/// Whether a text can name a container, a network or a volume, as in Docker: a letter or digit, then letters, digits,
/// `_`, `.` and `-`, at most `longest` in all. Such a name is safe as a file name.
pub fn is_name(text: &str, longest: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts && text.len() <= longest && text.chars().all(allowed)
}

/// A name for a thing that nobody has named: 64 random hexadecimal digits, as Docker's ids.
///
/// # Errors
/// Those of [`draw`].
pub fn random_name() -> Result<String, Error> {
    Ok(draw::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Random bytes.
///
/// # Errors
/// When the system has no `/dev/urandom`.
pub fn draw<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let drawn = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    drawn.map_err(Error::on("read", "/dev/urandom"))?;
    Ok(bytes)
}
