//! The aggregated files of `events`. Each has a permanent ordinal, its newest event time, whether the index holds its
//! statements, and, if it was rewritten, the file that has its rows now.

use std::collections::{BTreeSet, HashMap};

use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, LogEntry};

/// Checks for files past the horizon while one horizon passes.
const CHECKS_A_HORIZON: i64 = 16;

#[derive(Debug)]
struct Taken {
    path: String,
    size: i64,
    newest_micros: i64,
    statements: usize,
    held: bool,
    /// The file that has its rows, if it was rewritten.
    moved_to: Option<u32>,
}

/// Files by ordinal.
#[derive(Debug, Default)]
pub(crate) struct Files {
    taken: Vec<Taken>,
    by_path: HashMap<String, u32>,
    newest_micros: i64,
    /// The newest event time when files were last checked against the horizon.
    checked_micros: i64,
}

// === impl Taken ===

impl Taken {
    /// Drops the path once nothing needs it.
    fn forget(&mut self) {
        if self.moved_to.is_some() && !self.held {
            self.path = String::new();
        }
    }
}

// === impl Files ===

impl Files {
    /// Adds a file; `held` if the index holds its statements.
    pub(crate) fn add(&mut self, file: &AddedFile, held: bool) -> Result<u32> {
        let ordinal = u32::try_from(self.taken.len())
            .map_err(|source| Error::bug("the run index cannot number more files").with_source(source))?;
        self.by_path.insert(file.path.clone(), ordinal);
        let (path, size) = (file.path.clone(), file.size);
        self.taken.push(Taken { path, size, newest_micros: i64::MIN, statements: 0, held, moved_to: None });
        Ok(ordinal)
    }

    /// Returns the ordinal of the next file.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.taken.len()).unwrap_or(u32::MAX)
    }

    /// Notes how many statements of a file are held, and its newest event time.
    pub(crate) fn note(&mut self, ordinal: u32, statements: usize, newest_micros: i64) {
        self.newest_micros = self.newest_micros.max(newest_micros);
        if let Some(taken) = self.taken.get_mut(ordinal as usize) {
            taken.statements += statements;
            taken.newest_micros = taken.newest_micros.max(newest_micros);
        }
    }

    /// Returns a file in the form that readers need. The values of partition columns are left out.
    pub(crate) fn file(&self, ordinal: u32) -> Result<AddedFile> {
        let taken =
            self.taken.get(ordinal as usize).ok_or_else(|| Error::bug("the run index names an unknown file"))?;
        Ok(AddedFile {
            path: taken.path.clone(),
            size: taken.size,
            rows: None,
            partition_values: std::collections::BTreeMap::new(),
            data_change: true,
            stats: None,
        })
    }

    /// Returns the file that now has the rows of a file.
    pub(crate) fn now(&self, mut ordinal: u32) -> u32 {
        while let Some(next) = self.taken.get(ordinal as usize).and_then(|taken| taken.moved_to) {
            ordinal = next;
        }
        ordinal
    }

    /// Chooses the files to drop from the index: the oldest until `coming` statements fit in addition to the rest within
    /// `limit`, and those past the horizon, unless they are few.
    pub(crate) fn let_go(&mut self, held: usize, coming: usize, limit: usize, horizon_micros: i64) -> BTreeSet<u32> {
        let moved_on = self.newest_micros.saturating_sub(self.checked_micros) >= horizon_micros / CHECKS_A_HORIZON;
        if held + coming <= limit && !moved_on {
            return BTreeSet::new();
        }
        self.checked_micros = self.newest_micros;
        let cutoff = self.newest_micros.saturating_sub(horizon_micros);
        let mut all: Vec<(i64, u32)> = (0_u32..)
            .zip(&self.taken)
            .filter(|(_, taken)| taken.held)
            .map(|(ordinal, taken)| (taken.newest_micros, ordinal))
            .collect();
        all.sort_unstable();
        let statements = |ordinal: u32| self.taken.get(ordinal as usize).map_or(0, |taken| taken.statements);
        let old: usize =
            all.iter().filter(|(newest, _)| *newest < cutoff).map(|(_, ordinal)| statements(*ordinal)).sum();
        let by_age = old > 0 && old * 8 >= held;
        // Drops to half of the limit, so that this is rare.
        let stay = if held + coming > limit { limit.saturating_sub(coming).min(limit / 2) } else { held };
        let (mut left, mut gone) = (held, BTreeSet::new());
        for (newest, ordinal) in all {
            if left <= stay && !(by_age && newest < cutoff) {
                break;
            }
            left -= statements(ordinal).min(left);
            gone.insert(ordinal);
        }
        for ordinal in &gone {
            if let Some(taken) = self.taken.get_mut(*ordinal as usize) {
                taken.held = false;
                taken.forget();
            }
        }
        gone
    }

    /// Notes that files were removed for good, if a log entry did so, even if other files now have some of their rows. Returns the
    /// ordinals of those that are known.
    pub(crate) fn removed(&mut self, entry: &LogEntry) -> BTreeSet<u32> {
        if !entry.takes_rows() {
            return BTreeSet::new();
        }
        let gone: BTreeSet<u32> = entry.removed.iter().filter_map(|path| self.by_path.remove(path)).collect();
        // Statements may have been read from files that were rewritten into these.
        let mut all = gone.clone();
        for ordinal in (0_u32..).take(self.taken.len()) {
            if gone.contains(&self.now(ordinal)) {
                all.insert(ordinal);
            }
        }
        for ordinal in &all {
            if let Some(taken) = self.taken.get_mut(*ordinal as usize) {
                taken.held = false;
                taken.path = String::new();
            }
        }
        all
    }

    /// Notes that rows moved to another file, if a log entry did so. Returns the files before and the file now.
    pub(crate) fn rewritten(&mut self, entry: &LogEntry) -> Result<Option<(Vec<u32>, u32)>> {
        let [added] = entry.added.as_slice() else { return Ok(None) };
        if added.data_change || entry.removed.is_empty() || entry.takes_rows() {
            return Ok(None);
        }
        let from: Vec<u32> = entry.removed.iter().filter_map(|path| self.by_path.remove(path)).collect();
        let to = self.add(added, false)?;
        for ordinal in &from {
            if let Some(taken) = self.taken.get_mut(*ordinal as usize) {
                taken.moved_to = Some(to);
                taken.forget();
            }
        }
        Ok(Some((from, to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(path: &str, data_change: bool) -> AddedFile {
        AddedFile {
            path: path.to_owned(),
            size: 1,
            rows: None,
            partition_values: std::collections::BTreeMap::new(),
            data_change,
            stats: None,
        }
    }

    fn files(newest: &[i64]) -> Files {
        let mut files = Files::default();
        for (n, newest) in newest.iter().enumerate() {
            let ordinal = files.add(&added(&n.to_string(), true), true).expect("adds");
            files.note(ordinal, 10, *newest);
        }
        files
    }

    #[test]
    fn the_oldest_go_first_down_to_half_of_the_limit() {
        let mut files = files(&[40, 10, 30, 20]);
        assert_eq!(files.let_go(40, 10, 100, i64::MAX), BTreeSet::new());
        assert_eq!(files.let_go(40, 10, 44, i64::MAX), BTreeSet::from([1, 3]));
        assert_eq!(files.let_go(20, 100, 44, i64::MAX), BTreeSet::from([0, 2]), "nothing else fits");
    }

    #[test]
    fn files_past_the_horizon_go() {
        let mut files = files(&[100, 10, 200, 20]);
        assert_eq!(files.let_go(40, 0, 100, 150), BTreeSet::from([1, 3]));
        assert_eq!(files.let_go(20, 0, 100, 150), BTreeSet::new());
    }

    #[test]
    fn files_that_were_removed_for_good_are_forgotten_with_those_that_they_were_made_of() {
        let mut files = files(&[1, 2, 3]);
        let mut entry = LogEntry { removed: vec!["0".to_owned(), "1".to_owned()], ..LogEntry::default() };
        entry.added.push(added("one", false));
        assert_eq!(files.removed(&entry), BTreeSet::new(), "a rewrite");
        files.rewritten(&entry).expect("notes");
        let entry = LogEntry { removed: vec!["one".to_owned(), "unknown".to_owned()], ..LogEntry::default() };
        assert_eq!(files.removed(&entry), BTreeSet::from([0, 1, 3]));
        assert_eq!(files.removed(&entry), BTreeSet::new(), "only once");
        assert_eq!(files.let_go(10, 100, 44, i64::MAX), BTreeSet::from([2]), "the others are no longer held");
    }

    #[test]
    fn rows_are_found_in_the_file_they_moved_to() {
        let mut files = files(&[1, 2, 3]);
        let mut entry = LogEntry { removed: vec!["0".to_owned(), "1".to_owned()], ..LogEntry::default() };
        entry.added.push(added("one", false));
        assert_eq!(files.rewritten(&entry).expect("notes"), Some((vec![0, 1], 3)));
        entry.removed = vec!["one".to_owned(), "2".to_owned()];
        entry.added = vec![added("all", false)];
        assert_eq!(files.rewritten(&entry).expect("notes"), Some((vec![3, 2], 4)));
        assert_eq!((files.now(0), files.now(2), files.now(4)), (4, 4, 4));
        assert_eq!(files.file(files.now(1)).expect("a known file").path, "all");
        entry.added[0].data_change = true;
        assert_eq!(files.rewritten(&entry).expect("notes"), None);
    }
}
