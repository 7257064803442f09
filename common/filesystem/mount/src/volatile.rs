//! The mark of a volatile top. overlayfs makes `work/incompat/volatile` in its own directory, and refuses a top that has it:
//! what was written there may never have reached the disk (kernel, Documentation/filesystems/overlayfs.rst, "Volatile
//! mount"). While the machine runs on, it is all in the page cache, and the mark may be removed; but not while the top is
//! mounted somewhere else, where it says the same.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags, statx},
    io::Errno,
};

use crate::{Error, Overlay, Result, table, tree};

/// Where [`boot`] looks.
pub const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's name for the time since the machine was started.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot() -> Result<String> {
    let read = fs::read_to_string(BOOT).map_err(|error| {
        Error::new(format_args!("read {BOOT:?}"), Errno::from_io_error(&error).unwrap_or(Errno::IO))
    });
    Ok(read?.trim().to_owned())
}

/// Removes the mark of a top that was mounted before, where nothing can have been lost of it.
pub(crate) fn release(overlay: &Overlay) -> Result<()> {
    let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) else { return Ok(()) };
    let mark = work.join("work/incompat/volatile");
    match statx(CWD, &mark, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found.map_err(Error::on("look at", &mark))?,
    };
    let refused = |errno, cause| {
        let action = format_args!("mount overlay on {:?}", overlay.target).to_string();
        Error::with_cause(action, errno, cause)
    };
    if overlay.boot.as_ref() != Some(&boot()?) {
        let cause =
            format!("{upper:?} was mounted before the machine was started anew, and may be half written");
        return Err(refused(Errno::UCLEAN, cause));
    }
    if let Some(process) = holder(overlay, upper) {
        return Err(refused(Errno::BUSY, format!("process {process} still has it mounted")));
    }
    tree::remove(&mark)
}

/// A process in whose mount namespace the overlay is mounted. A process that cannot be looked at is none of this container's,
/// or has ended.
fn holder(overlay: &Overlay, upper: &Path) -> Option<String> {
    let upper = upper.to_string_lossy();
    let is_it = |entry: &table::Entry| {
        let shown = entry.options.split(',').find_map(|option| option.strip_prefix("upperdir="));
        // One that was mounted by a descriptor shows that instead of its path.
        let shown = shown.filter(|path| path.starts_with('/') && !path.starts_with("/proc/"));
        entry.kind == "overlay"
            && entry.source == overlay.source
            && shown.is_none_or(|shown| until_escaped(shown) == until_escaped(&upper))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let mut numbers = numbers.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    numbers.find(|number| {
        let path = PathBuf::from("/proc").join(number).join("mountinfo");
        table::read_from(&path).is_ok_and(|entries| entries.iter().any(is_it))
    })
}

/// A path up to where overlayfs puts a backslash into it.
fn until_escaped(path: &str) -> &str {
    path.split([',', ':', '\\']).next().unwrap_or_default()
}
