//! The run index: for each run the rank and place of the statement that counts.
//!
//! Bounded in bytes. Beyond the bound the older half leaves; what left is remembered in a Bloom filter, so that a run
//! that may have been seen is looked up in `events`, and one that cannot have been is known to be new. Slower, never
//! wrong.

use std::hash::{BuildHasherDefault, Hasher};

use fastbloom::BloomFilter;
use hashbrown::HashMap;

use crate::statement::Rank;

/// Bytes of an entry with its key, and of a table's control byte, at the load factor after growth (7/16 to 7/8).
const ENTRY_BYTES: usize = size_of::<(u128, Entry)>() + 1;

/// Least number of runs that are held, whatever the bound: an index that holds nothing would look up everything.
const LEAST_RUNS: usize = 1024;

/// Share of the memory that the filter of runs that left may take.
const FILTER_SHARE: usize = 8;

/// A row of `events`: an ordinal of a file, and the row in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: u32,
    pub(crate) row: u32,
}

/// The statement that counts for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) rank: Rank,
    pub(crate) place: Place,
}

/// What a statement means for its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The first about it.
    New,
    /// Greater than the one that counted so far, which stands at this place.
    Supersedes(Place),
    /// Not greater: it changes nothing.
    Duplicate,
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        let mut eight = [0; 8];
        let length = bytes.len().min(8);
        eight[..length].copy_from_slice(&bytes[..length]);
        self.0 = u64::from_le_bytes(eight);
    }
}

/// Runs by hash.
pub(crate) struct RunIndex {
    held: HashMap<u128, Entry, BuildHasherDefault<Identity>>,
    limit: usize,
    left: Option<BloomFilter>,
    filter_bits: usize,
}

// === impl RunIndex ===

impl RunIndex {
    /// Holds as many runs as fit into a number of bytes.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let filter_bits = (limit_bytes / FILTER_SHARE * 8).max(1 << 16);
        // A table has a power of two of places and doubles when seven eighths of them are taken: what counts is the
        // largest that fits beside the filter, not the number of entries. While it doubles, the old one is there too.
        let places = (limit_bytes.saturating_sub(filter_bits / 8) / ENTRY_BYTES).max(1).ilog2();
        let limit = ((1_usize << places) / 8 * 7).max(LEAST_RUNS);
        Self { held: HashMap::default(), limit, left: None, filter_bits }
    }

    pub(crate) fn runs(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.held.capacity() * 8 / 7 * ENTRY_BYTES + self.left.as_ref().map_or(0, |_| self.filter_bits / 8)
    }

    /// True where a run is not held but may have been: it must be looked up.
    pub(crate) fn may_have_left(&self, run: u128) -> bool {
        self.left.as_ref().is_some_and(|left| left.contains(&run)) && !self.held.contains_key(&run)
    }

    /// Puts back what was looked up.
    pub(crate) fn restore(&mut self, run: u128, entry: Entry) {
        let held = self.held.entry(run).or_insert(entry);
        if entry.rank > held.rank {
            *held = entry;
        }
    }

    /// Takes in a statement.
    pub(crate) fn state(&mut self, run: u128, rank: Rank, place: Place) -> Verdict {
        match self.held.get_mut(&run) {
            None => {
                self.held.insert(run, Entry { rank, place });
                Verdict::New
            }
            Some(held) if rank > held.rank => {
                let old = std::mem::replace(held, Entry { rank, place });
                Verdict::Supersedes(old.place)
            }
            Some(_) => Verdict::Duplicate,
        }
    }

    /// Makes room for a number of runs more, before they come: lets the older half go, as often as it takes.
    pub(crate) fn make_room(&mut self, coming: usize) {
        let limit = self.limit.saturating_sub(coming).max(LEAST_RUNS);
        while self.held.len() > limit {
            self.let_go();
        }
    }

    /// Lets the older half go where the bound is passed.
    pub(crate) fn shrink(&mut self) {
        if self.held.len() > self.limit {
            self.let_go();
        }
    }

    /// Lets the older half go: all that is not newer than the median, which is at least half.
    fn let_go(&mut self) {
        let mut times: Vec<i64> = self.held.values().map(|entry| entry.rank.event_micros).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        let bits = self.filter_bits;
        let expected = self.limit * 8;
        let left = self.left.get_or_insert_with(|| BloomFilter::with_num_bits(bits).expected_items(expected));
        let before = self.held.len();
        self.held.retain(|run, entry| {
            let stays = entry.rank.event_micros > median;
            if !stays {
                left.insert(run);
            }
            stays
        });
        self.held.shrink_to_fit();
        tracing::info!(
            runs = before,
            left = before - self.held.len(),
            "the run index is full: older runs are looked up"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(revision: i64, event_micros: i64) -> Rank {
        Rank { revision, event_micros, content_hash: 0 }
    }

    #[test]
    fn a_run_takes_at_most_64_bytes() {
        const { assert!(ENTRY_BYTES <= 64) };
    }

    #[test]
    fn the_greatest_statement_counts_in_any_order() {
        let (a, b) = (Place { file: 0, row: 0 }, Place { file: 0, row: 1 });
        let mut index = RunIndex::new(1 << 20);
        assert_eq!(index.state(1, rank(0, 5), a), Verdict::New);
        assert_eq!(index.state(1, rank(0, 5), b), Verdict::Duplicate);
        assert_eq!(index.state(1, rank(1, 0), b), Verdict::Supersedes(a));
        assert_eq!(index.state(1, rank(0, 9), a), Verdict::Duplicate);
        assert_eq!(index.runs(), 1);
    }

    #[test]
    fn the_bound_holds_whatever_it_is_and_however_many_come() {
        for bound in [200_000, 352_800, 409_600, 1 << 20] {
            let mut index = RunIndex::new(bound);
            for run in 0..40_000_u64 {
                if run % 500 == 0 {
                    index.make_room(500);
                }
                index.state(u128::from(run), rank(0, i64::try_from(run).expect("small")), Place { file: 0, row: 0 });
                assert!(index.bytes() <= bound, "{} bytes of {bound} after {run} runs", index.bytes());
            }
        }
    }

    #[test]
    fn what_leaves_is_remembered_and_the_newest_stay() {
        let mut index = RunIndex::new(0);
        for run in 0..4000_u64 {
            index.state(u128::from(run), rank(0, i64::try_from(run).expect("small")), Place { file: 0, row: 0 });
        }
        index.shrink();
        assert!(index.runs() < 4000 && index.runs() > 0);
        assert!(!index.may_have_left(3999), "still held");
        assert!((0..1900).all(|run| index.may_have_left(run)));
        let wrongly = (10_000..20_000).filter(|run| index.may_have_left(*run)).count();
        assert!(wrongly < 1000, "{wrongly} of 10,000 new runs would be looked up");
    }
}
