//! Reads earlier statements back, from the positions that the index holds, and from files that only have filters.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bellwether_base::Result;
use bellwether_lake::Lake;
use bellwether_tables::Table;

use super::{BatchRow, Runs, picked};
use crate::sql;
use crate::statement::Statements;

/// Earlier statements in files that the index does not hold.
#[derive(Default)]
pub(super) struct Found {
    batches: Vec<RecordBatch>,
    pub(super) by_run: BTreeMap<u64, Vec<Earlier>>,
}

/// An earlier statement: its hash and its row.
pub(super) struct Earlier {
    pub(super) statement: u64,
    row: BatchRow,
}

// === impl Runs ===

impl Runs {
    /// Finds the statements about runs, given by segment of the index, in the files of these segments.
    pub(super) async fn look_up(&self, lake: &Lake, wanted: BTreeMap<usize, HashSet<String>>) -> Result<Found> {
        let mut by_file: BTreeMap<u32, Arc<HashSet<String>>> = BTreeMap::new();
        for (segment, runs) in wanted {
            let runs = Arc::new(runs);
            for file in self.index.files_of(segment) {
                match by_file.get_mut(&file) {
                    // A file is in two segments if its runs did not fit into the filter of one.
                    Some(others) => *others = Arc::new(others.union(&runs).cloned().collect()),
                    None => drop(by_file.insert(file, Arc::clone(&runs))),
                }
            }
        }
        let mut found = Found::default();
        let columns = sql::events_columns();
        for (ordinal, runs) in by_file {
            let file = self.files.file(ordinal)?;
            let Some(rows) = lake.find_rows(Table::Events, &file, &columns, "run_id", &runs).await? else { continue };
            let statements = Statements::of(&rows)?;
            for (row, n) in (0_u32..).zip(0..statements.rows()) {
                let (run, statement) = (statements.run(n), statements.hash(n));
                let known = found.by_run.entry(run).or_default();
                if !known.iter().any(|earlier| earlier.statement == statement) {
                    known.push(Earlier { statement, row: (found.batches.len(), row) });
                }
            }
            found.batches.push(rows);
        }
        Ok(found)
    }

    /// Reads all earlier statements about some runs: those in files before `first_new`, and those that were looked up.
    pub(super) async fn read_back(
        &self,
        lake: &Lake,
        runs: &HashSet<u64>,
        first_new: u32,
        found: &Found,
    ) -> Result<Vec<RecordBatch>> {
        let mut places: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (_, place) in runs.iter().flat_map(|run| self.index.about(*run)).filter(|(_, place)| place.file < first_new)
        {
            places.entry(place.file).or_default().push(place.row);
        }
        let mut before: Vec<RecordBatch> = Vec::new();
        let columns = sql::events_columns();
        for (ordinal, mut rows) in places {
            rows.sort_unstable();
            let file = self.files.file(ordinal)?;
            before.push(lake.read_rows(Table::Events, &file, &columns, rows).await?);
        }
        let also = runs.iter().filter_map(|run| found.by_run.get(run)).flatten();
        before.extend(picked(&found.batches, also.map(|earlier| earlier.row).collect())?);
        Ok(before)
    }
}
