//! The allocator, which counts large allocations and ends the process at a limit.
//!
//! Large allocations are nearly all that a query holds: columns, hash tables, buffers. `bellwether_queries` stops a query that
//! holds too much at its next await point. A query that allocates too much between two of them cannot be stopped: the process
//! prints an error and exits, before the kernel kills it, and possibly other processes, without a message.
//!
//! The same happens in any process if the system refuses memory, as under `ulimit -v`: an exit code and a hint instead of an
//! abort. No command minds ending at any moment; nothing is committed in part.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwether_queries::Gauge;
use tikv_jemallocator::Jemalloc;

use crate::exit;

/// Smallest allocation that is counted, bytes. Counting smaller ones would cost time; the resident size includes them.
const LARGE: usize = 16 << 10;

/// Bytes in large allocations.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes in large allocations at which the process exits.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

const GIVEN_UP: &[u8] = b"error: the query needs more memory than this session may use\n  \
                          hint: narrow it by time or columns, or raise --memory-limit\n  \
                          because: one operation allocated past the limit, so the whole process was stopped\n";

const REFUSED: &[u8] = b"error: the system refused more memory\n  \
                         hint: lower `memory.budget_bytes` in the configuration, or let the process use more memory\n  \
                         because: the limit of the process (`ulimit -v`) or of the machine is reached\n";

/// The memory gauge of a process that only runs statements.
pub(crate) const GAUGE: Gauge = Gauge { used_bytes, give_up_at, give_up: || give_up() };

/// Returns the memory of the process, bytes: the allocator's count or the kernel's, whichever is larger.
fn used_bytes() -> usize {
    HELD.load(Ordering::Relaxed).max(anonymous_bytes().unwrap_or(0))
}

fn give_up_at(bytes: Option<usize>) {
    LIMIT.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
}

/// Returns resident memory without mapped files, bytes.
fn anonymous_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(|pages| pages.parse::<usize>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    // The page size of every platform that has this file and that we build for.
    Some(resident.saturating_sub(shared) * 4096)
}

/// Returns the resident memory of the process in bytes, for the demo's status line.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// jemalloc, with large allocations counted.
pub(crate) struct Counted;

fn take(bytes: usize) {
    if bytes >= LARGE {
        let held = HELD.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if held > LIMIT.load(Ordering::Relaxed) {
            give_up();
        }
    }
}

fn give_back(bytes: usize) {
    if bytes >= LARGE {
        HELD.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Prints the reason and ends the process. Must not allocate. Nothing is left half-written: statements cannot write tables.
#[cold]
fn give_up() -> ! {
    end(GIVEN_UP)
}

/// Returns allocated memory, or ends the process if the system refused it. A table is never left half-written: the log names a
/// file only once it is whole.
fn granted(place: *mut u8) -> *mut u8 {
    if place.is_null() {
        end(REFUSED);
    }
    place
}

#[cold]
fn end(why: &[u8]) -> ! {
    // Not through `std::io::stderr`: its lock may be held by a thread that waits for memory. If standard error is closed, the
    // exit code still reports the failure.
    #[expect(unsafe_code, reason = "writes without a lock and without allocating")]
    // SAFETY: the bytes live for the whole call, and the length is theirs.
    unsafe {
        nix::libc::write(nix::libc::STDERR_FILENO, why.as_ptr().cast(), why.len());
    }
    exit::at_once(exit::UNAVAILABLE)
}

// Unwinding out of an allocator is forbidden; `take` never does.
#[expect(unsafe_code, reason = "the trait is unsafe; every call is passed to jemalloc unchanged")]
// SAFETY: every call goes to jemalloc with the caller's arguments, for which the caller upholds the contract.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: upheld by the caller.
        granted(unsafe { Jemalloc.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: upheld by the caller.
        granted(unsafe { Jemalloc.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        give_back(layout.size());
        // SAFETY: upheld by the caller.
        unsafe { Jemalloc.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size);
        // SAFETY: upheld by the caller.
        let moved = granted(unsafe { Jemalloc.realloc(place, layout, size) });
        give_back(layout.size());
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_allocations_are_counted_until_they_are_freed() {
        const SIZE: usize = 64 << 20;
        let before = used_bytes();
        let mut held = vec![1_u8; SIZE];
        assert!(used_bytes() >= before.max(SIZE), "{} after {before}", used_bytes());
        held.resize(2 * SIZE, 1);
        let grown = HELD.load(Ordering::Relaxed);
        assert!(grown >= 2 * SIZE, "{grown}");
        drop(held);
        // Tests that run at the same time hold memory too, but less than this.
        assert!(HELD.load(Ordering::Relaxed) < grown - SIZE, "{}", HELD.load(Ordering::Relaxed));
    }
}
