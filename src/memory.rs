//! The memory of the process: how much it holds, and a bound beyond which it rather ends.
//!
//! The allocator counts what is asked for in large pieces, which is nearly all that a query holds: columns, hash tables,
//! buffers. A query is stopped once it holds too much, at its next pause (`bellwether_queries`). One that asks for more in a
//! single piece makes no pause: the process says so and ends, before the system would end it without a word, and whatever
//! else runs beside it.

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwether_queries::Gauge;
use tikv_jemallocator::Jemalloc;

use crate::exit;

/// Pieces of this size are counted. Smaller ones are many, and seen in what the system says of the process.
const LARGE: usize = 16 << 10;

/// Bytes that are held in large pieces.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes at which the process gives up.
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

const GIVEN_UP: &[u8] = b"error: the query needs more memory than this session may use\n  \
                          hint: narrow it by time or columns, or raise --memory-limit\n  \
                          because: it asked for too much without a pause, so that only the whole process could be stopped\n";

/// The gauge of a process that does nothing but run statements.
pub(crate) const GAUGE: Gauge = Gauge { used_bytes, give_up_at, give_up: || give_up() };

/// Bytes that the process holds: as the allocator knows it, or as the system sees it, whichever is more.
fn used_bytes() -> usize {
    HELD.load(Ordering::Relaxed).max(anonymous_bytes().unwrap_or(0))
}

fn give_up_at(bytes: Option<usize>) {
    MOST.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// Resident memory that is no file's.
fn anonymous_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(|pages| pages.parse::<usize>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    // Of all systems that have this file and that we build for.
    Some(resident.saturating_sub(shared) * 4096)
}

/// Returns the resident memory of the process in bytes, for the demo's status line.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The allocator of the program: jemalloc, counted.
pub(crate) struct Counted;

fn take(bytes: usize) {
    if bytes >= LARGE {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > MOST.load(Ordering::Relaxed) {
            give_up();
        }
    }
}

fn give_back(bytes: usize) {
    if bytes >= LARGE {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Says why, and ends the process as it stands: nothing here may ask for memory. What it was writing was no table.
#[cold]
fn give_up() -> ! {
    // Where standard error is closed there is nobody to tell.
    drop(std::io::stderr().write_all(GIVEN_UP));
    exit::at_once(exit::OUT_OF_REACH)
}

// Unwinding out of an allocator is forbidden; `take` never does.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; every call is handed on as it came")]
// SAFETY: all is done by jemalloc, with the arguments that the caller answers for.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller's.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as the caller's.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: as the caller's.
        unsafe { Jemalloc.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        // SAFETY: as the caller's.
        let moved = unsafe { Jemalloc.realloc(place, layout, size) };
        // Where there is no room the old piece is still held.
        give_back(if moved.is_null() { size } else { layout.size() });
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_in_large_pieces_is_counted_until_it_is_given_back() {
        const SIZE: usize = 64 << 20;
        let before = used_bytes();
        let mut held = vec![1_u8; SIZE];
        assert!(used_bytes() >= before.max(SIZE), "{} after {before}", used_bytes());
        held.resize(2 * SIZE, 1);
        let grown = HELD.load(Ordering::Relaxed);
        assert!(grown >= 2 * SIZE, "{grown}");
        drop(held);
        // Other tests hold memory of their own meanwhile, but not so much.
        assert!(HELD.load(Ordering::Relaxed) < grown - SIZE, "{}", HELD.load(Ordering::Relaxed));
    }
}
