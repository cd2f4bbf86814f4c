//! From new rows of `events` to signed contributions, and from these to rows of `metrics`.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use bellwether_lake::{AddedFile, Error, Lake, Result, Table};
use datafusion::prelude::SessionContext;

use crate::run_index::{Entry, Place, RunIndex, Verdict};
use crate::sql;
use crate::statement::{COLUMNS, Kind, Statements};

/// A file of `events` with its rows, of which it has [`sql::EVENT_COLUMNS`].
pub(crate) struct FileRows {
    pub(crate) file: AddedFile,
    pub(crate) rows: RecordBatch,
}

/// What new rows came to.
#[derive(Debug, Default)]
pub(crate) struct Contributions {
    /// Rows of the relation `contributions`.
    pub(crate) rows: Vec<RecordBatch>,
    /// Runs that were new.
    pub(crate) runs: u64,
    /// Statements that changed nothing.
    pub(crate) duplicates: u64,
    /// Statements that took back another.
    pub(crate) superseded: u64,
    /// Statements of other kinds than a completed run.
    pub(crate) late: u64,
}

/// Runs, and the files in which their statements stand.
pub(crate) struct Runs {
    pub(crate) index: RunIndex,
    files: Vec<AddedFile>,
}

// === impl Runs ===

impl Runs {
    pub(crate) fn new(index_memory_bytes: usize) -> Self {
        Self { index: RunIndex::new(index_memory_bytes), files: Vec::new() }
    }

    /// Takes in the statements of files whose contributions are in `metrics` already.
    pub(crate) async fn rebuild(&mut self, lake: &Lake, files: Vec<AddedFile>) -> Result<()> {
        for file in files {
            let batches = lake.read(Table::Events, &file, Some(&COLUMNS)).await?;
            let ordinal = self.add_file(file)?;
            let mut row = 0;
            for batch in &batches {
                let statements = Statements::of(batch)?;
                for n in 0..statements.rows() {
                    if statements.kind(n) == Kind::Completed {
                        let place = Place { file: ordinal, row };
                        self.index.state(statements.run(n), statements.rank(n), place);
                    }
                    row += 1;
                }
            }
            self.index.shrink();
        }
        Ok(())
    }

    fn add_file(&mut self, file: AddedFile) -> Result<u32> {
        let ordinal = u32::try_from(self.files.len())
            .map_err(|source| Error::bug("there are more files than an index can name").with_source(source))?;
        // Statistics would be the larger part, and are not needed again.
        self.files.push(AddedFile { stats: None, ..file });
        Ok(ordinal)
    }

    /// Takes in new rows, in their order.
    pub(crate) async fn take(&mut self, lake: &Lake, new: &[FileRows]) -> Result<Contributions> {
        // Before the look-up: what leaves during it would be taken for new.
        self.index.make_room(new.iter().map(|file| file.rows.num_rows()).sum());
        self.look_up(lake, new).await?;
        let mut contributions = Contributions::default();
        let mut taken_back: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut here: HashMap<u32, &RecordBatch> = HashMap::new();
        for FileRows { file, rows } in new {
            let ordinal = self.add_file(file.clone())?;
            here.insert(ordinal, rows);
            let statements = Statements::of(rows)?;
            let mut counted = Vec::new();
            for (row, n) in (0_u32..).zip(0..statements.rows()) {
                match statements.kind(n) {
                    Kind::Late => contributions.late += 1,
                    Kind::Completed => {
                        let place = Place { file: ordinal, row };
                        match self.index.state(statements.run(n), statements.rank(n), place) {
                            Verdict::New => {
                                contributions.runs += 1;
                                counted.push(row);
                            }
                            Verdict::Supersedes(old) => {
                                contributions.superseded += 1;
                                counted.push(row);
                                taken_back.entry(old.file).or_default().push(old.row);
                            }
                            Verdict::Duplicate => contributions.duplicates += 1,
                        }
                    }
                }
            }
            push_rows(&mut contributions.rows, rows, counted, 1)?;
        }
        for (ordinal, places) in taken_back {
            match here.get(&ordinal) {
                Some(rows) => push_rows(&mut contributions.rows, rows, places, -1)?,
                None => {
                    let rows = self.read_whole(lake, ordinal).await?;
                    push_rows(&mut contributions.rows, &rows, places, -1)?;
                }
            }
        }
        self.index.shrink();
        Ok(contributions)
    }

    async fn read_whole(&self, lake: &Lake, ordinal: u32) -> Result<RecordBatch> {
        let file = self.files.get(ordinal as usize).ok_or_else(|| Error::bug("the index names a file it never saw"))?;
        let batches = lake.read(Table::Events, file, Some(sql::EVENT_COLUMNS)).await?;
        Ok(concat_batches(&sql::events_schema(), &batches)?)
    }

    /// Finds runs that are not held any more but may be in `events`.
    async fn look_up(&mut self, lake: &Lake, new: &[FileRows]) -> Result<()> {
        let mut wanted = HashSet::new();
        for FileRows { rows, .. } in new {
            let statements = Statements::of(rows)?;
            let completed = (0..statements.rows()).filter(|n| statements.kind(*n) == Kind::Completed);
            wanted.extend(completed.map(|n| statements.run(n)).filter(|run| self.index.may_have_left(*run)));
        }
        if wanted.is_empty() {
            return Ok(());
        }
        for (ordinal, file) in (0_u32..).zip(&self.files) {
            let mut row = 0;
            for batch in lake.read(Table::Events, file, Some(&COLUMNS)).await? {
                let statements = Statements::of(&batch)?;
                for n in 0..statements.rows() {
                    if statements.kind(n) == Kind::Completed && wanted.contains(&statements.run(n)) {
                        let entry = Entry { rank: statements.rank(n), place: Place { file: ordinal, row } };
                        self.index.restore(statements.run(n), entry);
                    }
                    row += 1;
                }
            }
        }
        Ok(())
    }
}

fn push_rows(all: &mut Vec<RecordBatch>, rows: &RecordBatch, places: Vec<u32>, sign: i64) -> Result<()> {
    if places.is_empty() {
        return Ok(());
    }
    let whole = places.len() == rows.num_rows() && places.is_sorted();
    let chosen = if whole { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(places))? };
    all.push(sql::with_sign(&chosen, sign)?);
    Ok(())
}

/// Rows of `metrics` for contributions out of versions [from, to) of `events`.
pub(crate) async fn partials(
    context: &SessionContext,
    contributions: Vec<RecordBatch>,
    from: i64,
    to: i64,
) -> Result<RecordBatch> {
    let answer = sql::over(
        context,
        "contributions",
        sql::contributions_schema(),
        contributions,
        bellwether_metrics::METRICS_SQL,
    )
    .await?;
    let rows = answer.iter().map(RecordBatch::num_rows).sum();
    let provenance = [("events_from", sql::constant(from, rows)), ("events_to", sql::constant(to, rows))];
    sql::rows_of(Table::Metrics, &answer, &provenance)
}
