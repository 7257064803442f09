//! Descriptors of a process of ours that stays.

use nix::libc;

/// Closes the descriptors from `first` to `last`, both included. Those that are not open are left out.
///
/// # Safety
/// Nothing in this process may use these descriptors any more.
pub unsafe fn close_descriptors(first: u32, last: u32) {
    // SAFETY: the caller's promise. By its number, because not every C library has a function for it.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
