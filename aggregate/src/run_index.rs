//! The run index: the positions in `events` of the statements about each run.
//!
//! The index *holds* the statements of recent files, each with its position. Statements that are older than the horizon, or
//! that do not fit into the memory of the index, are *let go*, file by file, the oldest first. A Bloom filter for each group
//! of such files then decides which runs must be looked up in them. That is slower and never wrong: every statement is either
//! held, or in a file that is searched. If the filters do not fit either, the oldest files have none, and every run is looked
//! up in them.

use std::collections::BTreeSet;

use fastbloom::BloomFilter;
use hashbrown::HashTable;

/// Bytes of an entry, and of a table's control byte.
const ENTRY_BYTES: usize = size_of::<Entry>() + 1;

/// Most slots of one table. Many full tables waste less memory than one that has just doubled, and doubling a small one is
/// quick.
const TABLE_SLOTS: usize = 1 << 16;

/// Least number of statements that fit, whatever the bound: an empty index would look up every run.
const LEAST_HELD: usize = 1024;

/// Number of slots, out of 64, that stay free because tables fill unevenly.
const SPARE: usize = 3;

/// One part in so many of the memory is for filters, and the number of filters.
const FILTER_SHARE: usize = 4;
const FILTERS: usize = 8;

/// Bits of a filter for each run, and hash functions. One in a million runs is looked up in vain.
const BITS_A_RUN: usize = 29;
const HASHES: u32 = 20;

/// The position of a row of `events`: the ordinal of its file, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowPlace {
    pub(crate) file: u32,
    pub(crate) row: u32,
}

/// A statement: the hashes of its run and of itself, and its position.
#[derive(Clone, Copy, Debug)]
struct Entry {
    run: u64,
    statement: u64,
    place: RowPlace,
}

/// The knowledge of the index about a new statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It held nothing about the run.
    Nothing,
    /// It held other statements about the run.
    Run,
    /// It held the statement itself, which changes nothing.
    Statement,
}

/// Files that were let go together.
struct Segment {
    /// If `None`, every run is looked up in the files.
    filter: Option<BloomFilter>,
    runs: usize,
    files: BTreeSet<u32>,
}

/// Statements by run.
pub(crate) struct RunIndex {
    tables: Vec<HashTable<Entry>>,
    held: usize,
    limit: usize,
    filter_bits: usize,
    segments: Vec<Segment>,
}

// === impl RunIndex ===

impl RunIndex {
    /// Creates an index that holds as many statements as fit into a number of bytes.
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let filters = limit_bytes / FILTER_SHARE;
        let slots = ((limit_bytes - filters) / ENTRY_BYTES).max(1);
        // The number of slots of a table is a power of two. It doubles when seven eighths are taken, and needs the memory of
        // the old table until it has.
        let (tables, each) = match slots / TABLE_SLOTS {
            0 | 1 => (1, 1 << (slots * 2 / 3).max(1).ilog2()),
            tables => (tables - 1, TABLE_SLOTS),
        };
        let full = tables * (each / 8 * 7);
        let limit = (if tables == 1 { full } else { full / 64 * (64 - SPARE) }).max(LEAST_HELD);
        Self {
            tables: (0..tables).map(|_| HashTable::new()).collect(),
            held: 0,
            limit,
            filter_bits: (filters / FILTERS * 8).max(1 << 16),
            segments: Vec::new(),
        }
    }

    /// Returns the number of statements that are held.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Returns the number of statements that fit.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn bytes(&self) -> usize {
        let tables: usize = self.tables.iter().map(HashTable::allocation_size).sum();
        tables + self.segments.iter().filter(|segment| segment.filter.is_some()).count() * (self.filter_bits / 8)
    }

    fn table_of(&self, run: u64) -> usize {
        // Uses the middle bits, because a table distinguishes its entries by the low and the high ones.
        let middle = (run >> 20) & u64::from(u32::MAX);
        usize::try_from((middle * self.tables.len() as u64) >> 32).unwrap_or(0)
    }

    /// Inserts a statement unless it is held. Returns what was held before.
    pub(crate) fn insert(&mut self, run: u64, statement: u64, place: RowPlace) -> Held {
        let table = self.table_of(run);
        let mut held = Held::Nothing;
        for entry in self.tables[table].iter_hash(run).filter(|entry| entry.run == run) {
            if entry.statement == statement {
                return Held::Statement;
            }
            held = Held::Run;
        }
        self.tables[table].insert_unique(run, Entry { run, statement, place }, |entry| entry.run);
        self.held += 1;
        held
    }

    /// Returns the statements that are held about a run, with their positions.
    pub(crate) fn about(&self, run: u64) -> impl Iterator<Item = (u64, RowPlace)> {
        let table = &self.tables[self.table_of(run)];
        table.iter_hash(run).filter(move |entry| entry.run == run).map(|entry| (entry.statement, entry.place))
    }

    /// Returns the segments with files in which a run must be looked up.
    pub(crate) fn may_be_in(&self, run: u64) -> impl Iterator<Item = usize> {
        let may = move |segment: &Segment| segment.filter.as_ref().is_none_or(|filter| filter.contains(&run));
        self.segments.iter().enumerate().filter(move |(_, segment)| may(segment)).map(|(n, _)| n)
    }

    /// Returns the files of a segment.
    pub(crate) fn files_of(&self, segment: usize) -> impl Iterator<Item = u32> {
        self.segments.get(segment).into_iter().flat_map(|segment| segment.files.iter().copied())
    }

    /// Returns the number of files without a filter.
    #[cfg(test)]
    pub(crate) fn unfiltered_files(&self) -> usize {
        self.segments.iter().filter(|segment| segment.filter.is_none()).map(|segment| segment.files.len()).sum()
    }

    /// Lets go of the statements in some files. Returns their number.
    pub(crate) fn let_go(&mut self, files: &BTreeSet<u32>) -> usize {
        let mut runs = Vec::new();
        for table in &mut self.tables {
            table.retain(|entry| {
                let stays = !files.contains(&entry.place.file);
                if !stays {
                    runs.push(entry.run);
                }
                stays
            });
            table.shrink_to(0, |entry| entry.run);
        }
        self.held -= runs.len();
        self.remember(&runs, files);
        runs.len()
    }

    /// Adds runs to the filters of files that were let go.
    pub(crate) fn remember(&mut self, runs: &[u64], files: &BTreeSet<u32>) {
        if files.is_empty() {
            return;
        }
        let (bits, capacity) = (self.filter_bits, self.filter_bits / BITS_A_RUN);
        let mut rest = runs;
        loop {
            let full = |segment: &Segment| segment.filter.is_none() || segment.runs >= capacity;
            if self.segments.last().is_none_or(full) {
                let filter = BloomFilter::with_num_bits(bits).seed(&0).hashes(HASHES);
                self.segments.push(Segment { filter: Some(filter), runs: 0, files: BTreeSet::new() });
                self.drop_filters();
            }
            let Some(segment) = self.segments.last_mut() else { return };
            let (now, later) = rest.split_at(rest.len().min(capacity - segment.runs));
            if let Some(filter) = &mut segment.filter {
                for run in now {
                    filter.insert(run);
                }
            }
            segment.runs += now.len();
            segment.files.extend(files);
            rest = later;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Adds files in which every run is looked up, because there is no room for a filter.
    pub(crate) fn remember_unfiltered(&mut self, files: BTreeSet<u32>) {
        if !files.is_empty() {
            self.segments.insert(0, Segment { filter: None, runs: 0, files });
        }
    }

    /// Returns the number of runs for which the filters still have room.
    pub(crate) fn room_in_filters(&self) -> usize {
        let capacity = self.filter_bits / BITS_A_RUN;
        let filtered = self.segments.iter().filter(|segment| segment.filter.is_some());
        let used: usize = filtered.map(|segment| segment.runs).sum();
        (FILTERS * capacity).saturating_sub(used)
    }

    /// Forgets files that were removed for good, with the statements in them.
    pub(crate) fn removed(&mut self, files: &BTreeSet<u32>) {
        self.let_go(files);
        for segment in &mut self.segments {
            segment.files.retain(|file| !files.contains(file));
        }
    }

    /// Replaces a file by the one that now has its rows.
    pub(crate) fn rewritten(&mut self, from: u32, to: u32) {
        for segment in &mut self.segments {
            if segment.files.remove(&from) {
                segment.files.insert(to);
            }
        }
    }

    /// Drops the oldest filters if there are too many; their files join those without one.
    fn drop_filters(&mut self) {
        while self.segments.iter().filter(|segment| segment.filter.is_some()).count() > FILTERS {
            let Some(oldest) = self.segments.iter().position(|segment| segment.filter.is_some()) else { return };
            let dropped = self.segments.remove(oldest);
            tracing::warn!(
                files = dropped.files.len(),
                "old runs do not fit into the run index: every new run is looked up in their files; \
                 raise [aggregate].index_memory_bytes"
            );
            match self.segments.first_mut().filter(|segment| segment.filter.is_none()) {
                Some(unfiltered) => unfiltered.files.extend(dropped.files),
                None => self.segments.insert(0, Segment { filter: None, runs: 0, files: dropped.files }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u64) -> u64 {
        crate::statement::run_of(&n.to_string())
    }

    fn place(file: u32, row: u32) -> RowPlace {
        RowPlace { file, row }
    }

    #[test]
    fn a_statement_is_known_again_and_others_about_its_run_are_found() {
        let mut index = RunIndex::new(1 << 20);
        assert_eq!(index.insert(run(1), 5, place(0, 0)), Held::Nothing);
        assert_eq!(index.insert(run(1), 5, place(0, 1)), Held::Statement);
        assert_eq!(index.insert(run(1), 6, place(0, 2)), Held::Run);
        assert_eq!(index.insert(run(2), 5, place(0, 3)), Held::Nothing);
        let mut about: Vec<_> = index.about(run(1)).collect();
        about.sort_unstable();
        assert_eq!(about, [(5, place(0, 0)), (6, place(0, 2))]);
        assert_eq!(index.held(), 3);
    }

    #[test]
    fn the_bound_holds_whatever_it_is_and_a_run_takes_at_most_64_bytes() {
        for bound in [200_000, 352_800, 409_600, 1 << 20, 8 << 20, 12_345_678] {
            let mut index = RunIndex::new(bound);
            let (mut file, mut most) = (0, 0);
            for n in 0..300_000_u32 {
                if n % 500 == 0 {
                    file += 1;
                    if index.held() + 500 > index.limit() {
                        index.let_go(&(file / 2..file).collect());
                        index.let_go(&(0..file / 2).collect());
                    }
                }
                index.insert(run(u64::from(n)), 0, place(file, n % 500));
                assert!(index.bytes() <= bound, "{} bytes of {bound} after {n} runs", index.bytes());
                most = most.max(index.held());
                let tables: usize = index.tables.iter().map(HashTable::allocation_size).sum();
                assert!(index.held() < 20_000 || tables <= 64 * index.held(), "{tables} for {}", index.held());
            }
            assert!(most * 64 > bound / 3, "{most} held in {bound} bytes: too few");
        }
    }

    #[test]
    fn runs_that_were_let_go_are_looked_up_in_their_files_and_hardly_any_others_are() {
        let mut index = RunIndex::new(1 << 20);
        for n in 0..4000 {
            index.insert(run(n), 0, place(u32::try_from(n / 1000).expect("small"), 0));
        }
        assert_eq!(index.let_go(&BTreeSet::from([0, 1])), 2000);
        assert_eq!(index.held(), 2000);
        for n in 0..2000 {
            let files: BTreeSet<u32> =
                index.may_be_in(run(n)).flat_map(|segment| index.files_of(segment).collect::<Vec<_>>()).collect();
            assert_eq!(files, BTreeSet::from([0, 1]), "run {n}");
        }
        let in_vain = (2000..200_000).filter(|n| index.may_be_in(run(*n)).next().is_some()).count();
        assert!(in_vain < 5, "{in_vain} of 198,000 other runs would be looked up");
        index.removed(&BTreeSet::from([2]));
        assert_eq!(index.held(), 1000, "statements of a file that was removed are not held");
        let files: BTreeSet<u32> =
            index.may_be_in(run(2500)).flat_map(|segment| index.files_of(segment).collect::<Vec<_>>()).collect();
        assert!(!files.contains(&2), "nor looked up in it");
        index.rewritten(0, 9);
        assert_eq!(index.files_of(0).collect::<Vec<_>>(), [1, 9]);
    }

    #[test]
    fn without_room_for_filters_every_run_is_looked_up_in_the_oldest_files() {
        let mut index = RunIndex::new(0);
        let capacity = index.filter_bits / BITS_A_RUN;
        for file in 0..10 {
            let runs: Vec<u64> = (0..capacity as u64).map(|n| run(n + u64::from(file) * 1_000_000)).collect();
            index.remember(&runs, &BTreeSet::from([file]));
        }
        assert_eq!(index.unfiltered_files(), 2);
        assert_eq!(index.room_in_filters(), 0);
        let files: Vec<u32> = index.may_be_in(run(77_777_777)).flat_map(|segment| index.files_of(segment)).collect();
        assert_eq!(files, [0, 1], "an unknown run");
    }
}
