//! Clears from memory what this program has read.

use std::io;

use nix::libc;

/// The most parts that the memory of this program may have here. It is small: it read a document, and has one thread.
const PARTS: usize = 128;

/// What this program has allocated: the start and the end of each part of its memory.
pub(crate) struct OwnMemory {
    parts: [(usize, usize); PARTS],
    count: usize,
}

/// What this program has allocated, without its variables and the part that the C library needs.
///
/// # Errors
/// When `/proc/self/maps` cannot be read, or the memory has too many parts (`E2BIG`).
pub(crate) fn own_memory() -> io::Result<OwnMemory> {
    // SAFETY: the address of a variable of this thread.
    let errno = unsafe { libc::__errno_location() } as usize;
    let variables = super::program_file::changed_segments();
    let mut memory = OwnMemory { parts: [(0, 0); PARTS], count: 0 };
    // The heap may grow until the file is read. What is read here is what may be cleared, not what must be kept.
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, end) in maps.lines().filter_map(allocated) {
        if variables.iter().any(|(from, to)| start < *to && *from < end) {
            continue;
        }
        // The variables of the thread, such as `errno`, lie on the heap or in memory of their own, which the kernel may show
        // as one with other memory. They and the C library's data about the thread take less than 4 KiB on either side.
        let parts = match (start..end).contains(&errno) {
            true => [(start, errno.saturating_sub(4096)), (errno + 4096, end)],
            false => [(start, end), (0, 0)],
        };
        for part in parts.into_iter().filter(|(start, end)| start < end) {
            *memory.parts.get_mut(memory.count).ok_or(io::ErrorKind::ArgumentListTooLong)? = part;
            memory.count += 1;
        }
    }
    Ok(memory)
}

/// The start and the end of memory that belongs to no file and can be written, if the line shows such (proc(5),
/// /proc/pid/maps).
fn allocated(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (rights, inode, name) = (words.next()?, words.nth(2)?, words.next());
    let number = |text| usize::from_str_radix(text, 16).ok();
    let is_own = rights == "rw-p" && inode == "0" && matches!(name, None | Some("[heap]"));
    is_own.then_some((number(start)?, number(end)?))
}

fn page() -> usize {
    // SAFETY: reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10)
}

/// How much of the stack below the caller is cleared, in bytes: more than was ever used, and less than the
/// gap that the kernel keeps free below a stack.
const STACK: usize = 1 << 20;

/// Clears this memory, and the unused part of the stack.
///
/// Afterwards the process must not allocate, and must not drop what it has allocated.
#[inline(never)]
pub(crate) fn forget_memory(memory: &OwnMemory) {
    let here = std::ptr::from_ref(&memory) as usize;
    // This call uses some of the stack below.
    let top = (here - (64 << 10)) / page() * page();
    for (start, end) in memory.parts.iter().take(memory.count).copied().chain([(top - STACK, top)]) {
        // The kernel drops whole pages only.
        let whole = start.next_multiple_of(page()).min(end);
        // SAFETY: allocated memory, which is mapped, and in which nothing is used any more.
        unsafe { std::ptr::write_bytes(start as *mut u8, 0, whole - start) };
        if whole < end {
            // SAFETY: nothing that was allocated is used any more, and nothing below the stack pointer is in use. Parts of
            // the range without memory are left out by the kernel.
            unsafe { libc::madvise(whole as *mut libc::c_void, end - whole, libc::MADV_DONTNEED) };
        }
    }
}

/// Gives back memory that a process which stays does not need: free parts of the heap, and the pages of its
/// program. These are read again when they are used.
pub fn settle_memory() {
    // Other C libraries give free memory back by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free parts of the heap back, and moves nothing.
    unsafe {
        libc::malloc_trim(0)
    };
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut mapping = None;
    for line in maps.lines() {
        mapping = match (line.strip_prefix("Anonymous:"), mapping) {
            (Some(size), Some((from, to))) if size.trim() == "0 kB" => {
                // SAFETY: these pages belong to a file and were not written to, so the kernel reads them again.
                unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED) };
                None
            }
            (Some(_), _) => None,
            (None, known) => file_mapping(line).or(known),
        };
    }
}

/// The start and the end of a file mapping that cannot be written to, if this is the first line of one
/// (proc(5), /proc/pid/smaps).
fn file_mapping(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (from, to) = words.next()?.split_once('-')?;
    let (rights, inode) = (words.next()?, words.nth(2)?);
    let number = |text| usize::from_str_radix(text, 16).ok();
    (["r-xp", "r--p"].contains(&rights) && inode != "0").then_some((number(from)?, number(to)?))
}
