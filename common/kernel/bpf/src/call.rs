use std::{
    ffi::c_int,
    os::fd::{FromRawFd, OwnedFd},
};

use nix::libc;
use rustix::io::Errno;

/// Commands of bpf(2) (linux/bpf.h).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    MapCreate = 0,
    MapLookUp = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgramLoad = 5,
    Attach = 8,
    Detach = 9,
    ProgramById = 13,
    MapById = 14,
    Information = 15,
    Query = 16,
}

/// bpf(2). `attributes` is the beginning of `union bpf_attr`; the kernel takes the rest as zero.
///
/// # Safety
/// Each pointer in `attributes` must point to memory of the size that the command reads or writes there.
pub(crate) unsafe fn call<T>(command: Command, attributes: &mut T) -> Result<c_int, Errno> {
    // SAFETY: the kernel uses `attributes`, of the given size, and the memory it points to, for which the
    // caller vouches.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command as c_int, std::ptr::from_mut(attributes), size_of::<T>())
    };
    match c_int::try_from(answer) {
        Ok(answer) if answer >= 0 => Ok(answer),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

/// Makes a call that returns a new descriptor.
///
/// # Safety
/// As [`call`]. The command must return a new descriptor.
pub(crate) unsafe fn open<T>(command: Command, attributes: &mut T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller vouches for it.
    let descriptor = unsafe { call(command, attributes) }?;
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The attributes of the commands that open an object by its id.
#[repr(C)]
pub(crate) struct ById {
    pub(crate) id: u32,
    pub(crate) next: u32,
    pub(crate) flags: u32,
}
