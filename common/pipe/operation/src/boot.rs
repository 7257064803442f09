use std::fs;

use crate::Error;

/// The file that [`boot`] reads: `/proc/sys/kernel/random/boot_id`.
pub const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's id of the current boot. It changes with every restart of the machine.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot() -> Result<String, Error> {
    let read = fs::read_to_string(BOOT).map_err(Error::on("read", format_args!("{BOOT:?}")))?;
    Ok(read.trim().to_owned())
}
