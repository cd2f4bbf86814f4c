//! One pass over new rows of `events`, which finds new statements, and the runs that have other statements.

use std::collections::{BTreeMap, HashSet};

use arrow::array::RecordBatch;
use bellwether_base::Result;

use super::{BatchRow, Runs};
use crate::run_index::{Held, RowPlace};
use crate::sql;
use crate::statement::{StatementKind, Statements};
use crate::tail::FileRows;

/// The outcome of the pass.
#[derive(Default)]
pub(super) struct NewRows {
    /// The rows, with the columns that the definitions read.
    pub(super) batches: Vec<RecordBatch>,
    /// New statements.
    pub(super) statements: Vec<NewStatement>,
    /// Ids of runs to look up, by segment of the index.
    pub(super) wanted: BTreeMap<usize, HashSet<String>>,
    /// Runs that have other statements than one completed run.
    pub(super) again: HashSet<u64>,
    /// Number of known statements.
    pub(super) duplicates: u64,
}

/// A new statement: its row, the run that it is about, and its hash.
pub(super) struct NewStatement {
    batch: usize,
    row: u32,
    pub(super) run: u64,
    pub(super) statement: u64,
    pub(super) kind: StatementKind,
}

/// Some of the runs that have other statements, and their new rows.
pub(super) struct Part {
    pub(super) runs: HashSet<u64>,
    pub(super) rows: Vec<BatchRow>,
}

// === impl NewStatement ===

impl NewStatement {
    pub(super) fn row(&self) -> BatchRow {
        (self.batch, self.row)
    }
}

// === impl Runs ===

impl Runs {
    /// Adds the statements of one file.
    pub(super) fn take_file(&mut self, FileRows { file, rows }: &FileRows, new: &mut NewRows) -> Result<()> {
        let ordinal = self.files.add(file, true)?;
        let columns = sql::events_columns();
        let (mut row, mut taken, mut newest) = (0_u32, 0, i64::MIN);
        for rows in rows {
            let batch = new.batches.len();
            new.batches.push(sql::columns_of(rows, &columns)?);
            let statements = Statements::of(rows)?;
            for (n, at) in (0..statements.rows()).zip(0_u32..) {
                let place = RowPlace { file: ordinal, row };
                row += 1;
                let run = statements.run(n);
                newest = newest.max(statements.event_micros(n));
                if !self.shard.has(run) {
                    continue;
                }
                let (statement, kind) = (statements.hash(n), statements.kind(n));
                let held = self.index.insert(run, statement, place);
                if held == Held::Statement {
                    new.duplicates += 1;
                    continue;
                }
                taken += 1;
                if held == Held::Run || kind != StatementKind::Completed {
                    new.again.insert(run);
                }
                for segment in self.index.may_be_in(run) {
                    let runs = new.wanted.entry(segment).or_default();
                    if !runs.contains(statements.run_id(n)) {
                        runs.insert(statements.run_id(n).to_owned());
                    }
                }
                new.statements.push(NewStatement { batch, row: at, run, statement, kind });
            }
        }
        self.files.note(ordinal, taken, newest);
        Ok(())
    }

    /// Divides new statements about runs that have others into parts of some runs each. Runs that are in one file are in one
    /// part, so that it is read back once.
    pub(super) fn in_parts(&self, changed: Vec<&NewStatement>, first_new: u32) -> Vec<Part> {
        let file = |run: u64| {
            let files = self.index.about(run).map(|(_, place)| place.file).filter(|file| *file < first_new);
            files.min().unwrap_or(u32::MAX)
        };
        let mut ordered: Vec<(u32, u64, BatchRow)> =
            changed.into_iter().map(|new| (file(new.run), new.run, new.row())).collect();
        ordered.sort_unstable();
        let mut parts: Vec<Part> = Vec::new();
        for (_, run, row) in ordered {
            match parts.last_mut() {
                Some(part) if part.runs.len() < self.corrected_at_once || part.runs.contains(&run) => {
                    part.runs.insert(run);
                    part.rows.push(row);
                }
                _ => parts.push(Part { runs: HashSet::from([run]), rows: vec![row] }),
            }
        }
        parts
    }
}
