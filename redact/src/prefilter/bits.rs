//! Sets of the bytes of a block, and queues of places.

use crate::classes::BLOCK;

/// Most places in a queue, and most that one block adds to it.
pub(super) const PLACES: usize = 16;
pub(super) const OF_BLOCK: usize = 2;

/// A set of the bytes of a block, and of those of the block before it.
#[derive(Clone, Copy, Default)]
pub(super) struct Bits {
    pub(super) now: u64,
    pub(super) before: u64,
}

/// Places that wait for a closer look, each by the byte at which it was noticed. A processor cannot predict whether a block has one, so
/// places are collected and looked at together.
pub(super) struct Queue {
    pub(super) places: [usize; PLACES],
    pub(super) count: usize,
}

// === impl Bits ===

impl Bits {
    pub(super) fn of([before, now]: [u64; 2]) -> Self {
        Self { now, before }
    }

    /// Returns the bytes of the block that have a byte of the set `by` bytes before them. `by` is less than a block.
    pub(super) fn back(self, by: usize) -> u64 {
        self.now << by | self.before >> (BLOCK - by)
    }

    /// Returns the bytes of the set that have a byte of the other set `by` bytes before them. The first `by` bytes of the block before
    /// are left out, because the bytes before them are not known.
    pub(super) fn after(self, other: Self, by: usize) -> Self {
        Self { now: self.now & other.back(by), before: self.before & other.before << by }
    }

    /// Returns the set moved by `by` bytes towards the end.
    pub(super) fn later(self, by: usize) -> Self {
        Self { now: self.back(by), before: self.before << by }
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self { now: self.now | other.now, before: self.before | other.before }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self { now: self.now & other.now, before: self.before & other.before }
    }

    /// Returns the first bytes of each run.
    pub(super) fn first(self) -> u64 {
        self.now & !self.back(1)
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn new() -> Self {
        Self { places: [0; PLACES], count: 0 }
    }

    /// Adds the first places of a block, without asking whether there are any. Returns the others.
    pub(super) fn push(&mut self, start: usize, mut places: u64) -> u64 {
        for _ in 0..OF_BLOCK {
            if let Some(place) = self.places.get_mut(self.count) {
                *place = start + places.trailing_zeros() as usize;
            }
            self.count += usize::from(places != 0);
            places &= places.wrapping_sub(1);
        }
        places
    }
}
