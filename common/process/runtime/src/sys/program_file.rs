//! Lets go of the program's own file, so that nothing in a container can reach it (CVE-2019-5736).
//!
//! Until a process executes its command it runs this program, and `/proc/self/exe` leads to the program's file on the
//! host. A container whose command is a script for the interpreter `/proc/self/exe` would run it, and could open it for
//! writing. Others execute themselves again from a copy. Here the process maps the same file by another mount, which is
//! read-only and attached nowhere, and puts an empty, sealed file where `/proc/self/exe` leads: that costs a hundredth.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use mount::{Detached, Options};
use nix::libc;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};

/// A mapping of the program's file: a line of `/proc/self/maps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    protection: libc::c_int,
    offset: libc::off_t,
}

/// The program's file, through a mount of its own. Its owner drops it when there is time: to end a mount, the
/// kernel waits for all processors.
#[derive(Debug)]
pub(crate) struct ProgramFile {
    file: OwnedFd,
    _mount: Detached,
}

impl ProgramFile {
    /// Returns none if the caller may not mount, or not this file. A process then copies its mappings.
    pub(crate) fn open() -> Option<Self> {
        let own = Path::new("/proc/self/exe");
        // If the mount namespace is newer than the process, this link leads to a mount of the old namespace,
        // which cannot be copied. The path leads to the same file.
        Self::of(own).or_else(|| Self::of(&fs::read_link(own).ok()?).filter(|program| program.is_at(own)))
    }

    fn of(path: &Path) -> Option<Self> {
        let mount = Detached::copy(path, false).ok()?;
        mount.change(&Options::parse(["ro", "nosuid", "nodev"]), false).ok()?;
        let mut options = fs::File::options();
        // The path may lead to another file by now. Opening that must not wait.
        let open = options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = open.open(mount::resolve::proc_path(mount.as_fd())).ok()?;
        Some(Self { file: file.into(), _mount: mount })
    }

    /// Whether this is the file at `path`.
    fn is_at(&self, path: &Path) -> bool {
        let (Ok(own), Ok(other)) = (rustix::fs::fstat(&self.file), rustix::fs::stat(path)) else {
            return false;
        };
        (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino)
    }
}

impl AsFd for ProgramFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Lets go of the program's file. The process must have one thread. `program` is the same file through
/// another mount. `/proc/self/exe` then leads to `stand_in`, or by default to an empty file.
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE, and in a user namespace on a kernel before 5.9; then the process goes on as before.
pub(crate) fn leave_program_file(
    program: Option<BorrowedFd<'_>>,
    stand_in: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let changed = changed_segments();
    for mapping in of_file_at(&maps, leave_program_file as *const () as usize) {
        let is_changed = changed.iter().any(|(start, end)| mapping.start < *end && *start < mapping.end);
        match program.filter(|_| !is_changed) {
            Some(program) => map_again(mapping, program)?,
            None => move_to_memory(mapping)?,
        }
    }
    let empty = match stand_in {
        Some(_) => None,
        None => Some(empty_file()?),
    };
    let file =
        stand_in.map_or_else(|| empty.as_ref().map_or(-1, OwnedFd::as_raw_fd), |file| file.as_raw_fd());
    replace(file)
}

/// The addresses of the program's segments that are writable, at least when it starts.
pub(super) fn changed_segments() -> Vec<(usize, usize)> {
    unsafe extern "C" fn note(
        info: *mut libc::dl_phdr_info,
        _: usize,
        list: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the C library gives a valid entry with its headers, and the list of the caller below.
        unsafe {
            let (info, list) = (&*info, &mut *list.cast::<Vec<(usize, usize)>>());
            for number in 0..usize::from(info.dlpi_phnum) {
                let header = &*info.dlpi_phdr.add(number);
                if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0 {
                    let start = info.dlpi_addr as usize + header.p_vaddr as usize;
                    list.push((start, start + header.p_memsz as usize));
                }
            }
        }
        0
    }
    let mut list: Vec<(usize, usize)> = Vec::new();
    // SAFETY: the function is called before this returns, with the list.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut list).cast()) };
    list
}

/// Replaces the mapping by the same part of the same file, through the other mount.
fn map_again(mapping: Mapping, program: BorrowedFd<'_>) -> io::Result<()> {
    let Mapping { start, end, protection, offset } = mapping;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
    // SAFETY: the exchange is one step of the kernel's, and afterwards the same bytes are at the same place with the same
    // protection: nobody has changed what was mapped before.
    let mapped = unsafe {
        libc::mmap(start as *mut libc::c_void, end - start, protection, flags, program.as_raw_fd(), offset)
    };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The mappings of the file that is mapped at `address`.
fn of_file_at(maps: &str, address: usize) -> Vec<Mapping> {
    let lines = || maps.lines().filter_map(parse);
    let file = lines().find(|(mapping, _)| (mapping.start..mapping.end).contains(&address));
    let Some((_, file)) = file else { return Vec::new() };
    lines().filter(|(_, other)| *other == file).map(|(mapping, _)| mapping).collect()
}

/// Parses `start-end rwxp offset device inode path`: the mapping, and device and inode.
fn parse(line: &str) -> Option<(Mapping, (&str, &str))> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let allowed = words.next()?.as_bytes();
    let bits = [(b'r', libc::PROT_READ), (b'w', libc::PROT_WRITE), (b'x', libc::PROT_EXEC)];
    let protection =
        bits.iter().filter(|(letter, _)| allowed.contains(letter)).fold(0, |all, (_, bit)| all | bit);
    let number = |text| usize::from_str_radix(text, 16).ok();
    let offset = libc::off_t::from_str_radix(words.next()?, 16).ok()?;
    let (device, inode) = (words.next()?, words.next()?);
    Some((Mapping { start: number(start)?, end: number(end)?, protection, offset }, (device, inode)))
}

/// Replaces the mapping by a copy in memory. The content must not change meanwhile: no call between the copy
/// and the exchange allocates memory.
fn move_to_memory(mapping: Mapping) -> io::Result<()> {
    let Mapping { start, end, protection, .. } = mapping;
    let length = end - start;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new mapping that nobody knows of. The copy reads a mapping of this program that is there, and is readable
    // where it is copied. The exchange is one step of the kernel's, and afterwards the same bytes are at the same place
    // with the same protection: for code, constants and variables nothing changes.
    unsafe {
        let copy = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if copy == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if protection & libc::PROT_READ != 0 {
            std::ptr::copy_nonoverlapping(start as *const u8, copy.cast(), length);
        }
        if libc::mprotect(copy, length, protection) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        if libc::mremap(copy, length, length, flags, start as *mut libc::c_void) == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// An empty file that stays empty. It is executable, as the kernel requires.
fn empty_file() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // A kernel before 6.3 does not know the flag, and makes every such file executable.
    let file = match memfd_create("ns-exec", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => memfd_create("ns-exec", flags),
        made => made,
    }?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Makes `/proc/self/exe` lead to the file.
fn replace(file: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel takes a number, and refuses it while the program's file is mapped.
    let replaced =
        unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file as libc::c_ulong, 0, 0) };
    if replaced == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EPERM) => replace_in_user_namespace(file),
        error => Err(error),
    }
}

/// `struct prctl_mm_map` of linux/prctl.h.
#[repr(C)]
struct Layout {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end.
    places: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// As [`replace`], by the call that root of a user namespace may make. All places stay as they are.
fn replace_in_user_namespace(file: libc::c_int) -> io::Result<()> {
    let field = super::own_stat()?;
    let field = |number| field(number) as u64;
    // SAFETY: asks for the end of the heap, and moves nothing.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let places = [
        field(26),
        field(27),
        field(45),
        field(46),
        field(47),
        brk,
        field(28),
        field(48),
        field(49),
        field(50),
        field(51),
    ];
    let layout = Layout { places, auxv: 0, auxv_size: 0, exe_fd: file as u32 };
    // SAFETY: the kernel reads the layout, which outlives the call.
    let replaced = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            libc::PR_SET_MM_MAP,
            &raw const layout,
            size_of::<Layout>() as libc::c_ulong,
            0,
        )
    };
    if replaced == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_mappings_of_one_file() {
        let maps = "00400000-00401000 r--p 00000000 08:01 12 /bin/a b\n00401000-00403000 r-xp 00001000 08:01 12 /bin/a b\n\
                    00403000-00404000 rw-p 00000000 00:00 0\n7f0000000000-7f0000001000 r--p 00000000 08:01 13 /lib/c\n";
        let found = of_file_at(maps, 0x40_1800);
        let expected = [
            Mapping { start: 0x40_0000, end: 0x40_1000, protection: libc::PROT_READ, offset: 0 },
            Mapping {
                start: 0x40_1000,
                end: 0x40_3000,
                protection: libc::PROT_READ | libc::PROT_EXEC,
                offset: 0x1000,
            },
        ];
        assert_eq!(found, expected);
        assert_eq!(of_file_at(maps, 0x9000), []);
    }

    #[test]
    fn a_process_goes_on_without_its_file() {
        testkit::require_root();
        let program = ProgramFile::open().unwrap();
        for program in [None, Some(&program)] {
            let child = crate::sys::fork(|| {
                let before = fs::metadata("/proc/self/exe").unwrap();
                leave_program_file(program.map(AsFd::as_fd), None).unwrap();
                let after = fs::read_link("/proc/self/exe").unwrap();
                let exe = fs::metadata("/proc/self/exe").unwrap();
                let written = fs::File::options()
                    .write(true)
                    .open("/proc/self/exe")
                    .is_ok_and(|mut file| io::Write::write_all(&mut file, b"x").is_ok());
                let is_left = after.to_string_lossy().contains("memfd:ns-exec") && exe.ino() != before.ino();
                u8::from(!is_left || written)
            })
            .unwrap();
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }

    #[test]
    fn the_file_is_found_in_a_new_mount_namespace() {
        testkit::require_root();
        let child = crate::sys::fork(|| {
            let own = fs::metadata("/proc/self/exe").unwrap();
            crate::sys::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
            let program = ProgramFile::open().map(|program| fs::File::from(program.file).metadata().unwrap());
            u8::from(program.is_none_or(|file| (file.dev(), file.ino()) != (own.dev(), own.ino())))
        })
        .unwrap();
        let status = nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
    }
}
