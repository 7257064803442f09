//! Lets go of what this program has read.

use nix::libc;

/// From where to where the heap is, without the part that the C library needs.
pub(crate) fn own_heap() -> Option<(usize, usize)> {
    // SAFETY: asks for the end of the heap, and moves nothing.
    let end = unsafe { libc::sbrk(0) } as usize;
    let start = super::own_stat().ok()?(47);
    // In a static program the variables of the thread, `errno` among them, are the first thing on the heap. Behind them
    // is what the C library knows of the thread, less than 4 KiB.
    // SAFETY: the address of a variable of this thread.
    let errno = unsafe { libc::__errno_location() } as usize;
    let start = if (start..end).contains(&errno) { errno + 4096 } else { start };
    (start < end).then_some((start, end))
}

fn page() -> usize {
    // SAFETY: reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 << 10)
}

/// How much of the stack below the caller is forgotten: more than was ever used, and less than the gap that the kernel keeps free
/// below a stack.
const STACK: usize = 1 << 20;

/// Empties the heap, and the unused part of the stack.
///
/// Afterwards the process must not allocate, and must not drop what it has allocated.
#[inline(never)]
pub(crate) fn forget_memory(heap: Option<(usize, usize)>) {
    let here = std::ptr::from_ref(&heap) as usize;
    // Some of what is below belongs to this call.
    let top = (here - (64 << 10)) / page() * page();
    if let Some((start, end)) = heap {
        // The kernel lets go of whole pages.
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
