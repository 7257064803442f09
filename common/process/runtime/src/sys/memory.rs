//! Clears from memory what this program has read.

use nix::libc;

/// The start and the end of the heap, without the part that the C library needs.
pub(crate) fn own_heap() -> Option<(usize, usize)> {
    // SAFETY: asks for the end of the heap, and moves nothing.
    let end = unsafe { libc::sbrk(0) } as usize;
    let start = super::own_stat().ok()?(47);
    // In a static program, the variables of the thread, such as `errno`, come first on the heap. Behind them
    // is the C library's data about the thread, less than 4 KiB.
    // SAFETY: the address of a variable of this thread.
    let errno = unsafe { libc::__errno_location() } as usize;
    let start = if (start..end).contains(&errno) { errno + 4096 } else { start };
    (start < end).then_some((start, end))
}

fn page() -> usize {
    // SAFETY: reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10)
}

/// How much of the stack below the caller is cleared, in bytes: more than was ever used, and less than the
/// gap that the kernel keeps free below a stack.
const STACK: usize = 1 << 20;

/// Clears the heap, and the unused part of the stack.
///
/// Afterwards the process must not allocate, and must not drop what it has allocated.
#[inline(never)]
pub(crate) fn forget_memory(heap: Option<(usize, usize)>) {
    let here = std::ptr::from_ref(&heap) as usize;
    // This call uses some of the stack below.
    let top = (here - (64 << 10)) / page() * page();
    if let Some((start, end)) = heap {
        // The kernel drops whole pages only.
        let rest = start.next_multiple_of(page()).min(end) - start;
        // SAFETY: a part of the heap, which is mapped, and on which nothing is used any more.
        unsafe { std::ptr::write_bytes(start as *mut u8, 0, rest) };
    }
    let heap =
        heap.map(|(start, end)| (start.next_multiple_of(page()), end)).filter(|(start, end)| start < end);
    for (start, end) in heap.into_iter().chain([(top - STACK, top)]) {
        // SAFETY: nothing on the heap is used any more, and nothing below the stack pointer is in use. Parts of the range
        // without memory are left out by the kernel.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Gives back memory that a process which stays does not need: free parts of the heap, and the pages of its
/// program. These are read again when they are used.
pub fn settle_memory() {
    // SAFETY: gives free parts of the heap back, and moves nothing.
    unsafe { libc::malloc_trim(0) };
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
