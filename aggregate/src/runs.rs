//! The runs of a shard: turns new rows of `events` into signed contributions.
//!
//! A run that is new and completed, as nearly all are, contributes as its row states it. For any other run that has a new
//! statement, all its earlier statements are read back; its earlier contribution is subtracted and its present one added, both
//! by the same definition (`runs.sql`). So the order of arrival cannot matter.
//!
//! * `runs/new_rows.rs` finds the new statements in new rows.
//! * `runs/earlier.rs` reads earlier statements back.
//! * `runs/correction.rs` turns earlier and present statements into contributions.

mod correction;
mod earlier;
mod new_rows;

pub(crate) use correction::without_common_rows;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, Lake, LogEntry};
use bellwether_tables::Table;
use futures::{StreamExt, TryStreamExt};

use crate::files::Files;
use crate::run_index::{Held, RowPlace, RunIndex};
use crate::settings::AggregatorSettings;
use crate::sql;
use crate::statement::{COLUMNS, COLUMNS_WITH_ID, StatementKind, Statements, run_of, shard_of};
use crate::sums::{Definitions, Sums, Written};
use crate::tail::FileRows;
use new_rows::{NewRows, NewStatement};

/// Number of files that are read at once while the index is loaded.
const FILES_AT_ONCE: usize = 4;

/// Number of contributions that are summed at once, for each run that is corrected at once: the earlier one, the present one,
/// and as many of new runs.
const SUMMED_A_CORRECTED: usize = 3;

/// A row: the index of its batch, and its number there.
type BatchRow = (usize, u32);

/// Counts of new statements and of the runs that they change.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// New runs.
    pub(crate) runs: u64,
    /// Known statements, which changed nothing.
    pub(crate) duplicates: u64,
    /// Runs with a corrected contribution.
    pub(crate) corrected: u64,
    /// Statements of other kinds than a completed run.
    pub(crate) late: u64,
    /// Statements that started to wait, mostly because they arrived before their run.
    pub(crate) waiting: u64,
    /// Statements that had waited until their run arrived.
    pub(crate) waited: u64,
    /// Runs that were looked up in files that the index does not hold.
    pub(crate) looked_up: u64,
}

/// The runs of an aggregator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

/// Runs, and the files that hold their statements.
pub(crate) struct Runs {
    pub(crate) index: RunIndex,
    files: Files,
    shard: Shard,
    horizon_micros: i64,
    corrected_at_once: usize,
    /// Windows that start before this, microseconds since the epoch, are not summed.
    from_micros: i64,
}

/// The parts of a row that the index needs.
struct IndexRow {
    run: u64,
    statement: u64,
    micros: i64,
}

// === impl Shard ===

impl Shard {
    pub(crate) fn has(self, run: u64) -> bool {
        self.of == 1 || shard_of(run, self.of) == self.number
    }
}

// === impl Runs ===

impl Runs {
    /// Starts without runs, within the bounds of the settings.
    pub(crate) fn new(settings: &AggregatorSettings, shard: Shard) -> Self {
        Self {
            index: RunIndex::new(settings.index_memory_bytes),
            files: Files::default(),
            shard,
            horizon_micros: i64::try_from(settings.horizon.as_micros()).unwrap_or(i64::MAX),
            corrected_at_once: settings.corrected_at_once.max(1),
            from_micros: i64::MIN,
        }
    }

    /// Sums only windows that start at a moment, microseconds since the epoch, or later.
    pub(crate) fn summing_from(self, from_micros: i64) -> Self {
        Self { from_micros, ..self }
    }

    /// Loads the statements of files that have been aggregated already. As far as the bounds allow, the newest are held in the
    /// index; older ones go into its filters, and of the oldest only the file names are kept.
    pub(crate) async fn load(&mut self, lake: &Lake, files: Vec<AddedFile>) -> Result<()> {
        let mut by_age: Vec<(i64, AddedFile)> =
            files.into_iter().map(|file| (file.bounds().newest("event_time").unwrap_or(i64::MAX), file)).collect();
        by_age.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| other.path.cmp(&one.path)));
        let known = by_age.iter().map(|(newest, _)| *newest).find(|newest| *newest < i64::MAX);
        let cutoff = known.unwrap_or(0).saturating_sub(self.horizon_micros);
        let (mut held, mut filtered, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut room, mut room_in_filters) = (self.index.limit(), self.index.room_in_filters());
        for (newest, file) in by_age {
            let rows = usize::try_from(file.rows.unwrap_or(0)).unwrap_or(0);
            if newest >= cutoff && rows <= room && filtered.is_empty() && named.is_empty() {
                room -= rows;
                held.push(file);
            } else if rows <= room_in_filters && named.is_empty() {
                room_in_filters -= rows;
                filtered.push(file);
            } else {
                named.insert(self.files.add(&file, false)?);
            }
        }
        self.index.remember_unfiltered(named);
        // The oldest filter is dropped first if there is no room.
        filtered.reverse();
        for (file, runs) in runs_in(lake, filtered).await? {
            let ordinal = self.files.add(&file, false)?;
            let runs: Vec<u64> = runs.into_iter().filter(|run| self.shard.has(*run)).collect();
            self.index.remember(&runs, &BTreeSet::from([ordinal]));
        }
        held.reverse();
        self.hold(lake, held).await
    }

    /// Reads the statements of files into the index.
    pub(crate) async fn hold(&mut self, lake: &Lake, files: Vec<AddedFile>) -> Result<()> {
        let shard = self.shard;
        let mut reading =
            std::pin::pin!(futures::stream::iter(files).map(|file| index_rows(lake, file)).buffered(FILES_AT_ONCE));
        while let Some((file, rows)) = reading.try_next().await? {
            self.make_room(rows.len());
            let ordinal = self.files.add(&file, true)?;
            let newest = rows.iter().map(|row| row.micros).max().unwrap_or(i64::MIN);
            let mut taken = 0;
            for (number, row) in (0_u32..).zip(rows).filter(|(_, row)| shard.has(row.run)) {
                let place = RowPlace { file: ordinal, row: number };
                taken += usize::from(self.index.insert(row.run, row.statement, place) != Held::Statement);
            }
            self.files.note(ordinal, taken, newest);
        }
        Ok(())
    }

    /// Lets go of statements to make room for new ones, and of those older than the horizon.
    fn make_room(&mut self, coming: usize) {
        let gone = self.files.let_go(self.index.held(), coming, self.index.limit(), self.horizon_micros);
        if gone.is_empty() {
            return;
        }
        let statements = self.index.let_go(&gone);
        for file in gone {
            let now = self.files.now(file);
            if now != file {
                self.index.rewritten(file, now);
            }
        }
        tracing::info!(
            statements,
            held = self.index.held(),
            "statements left the run index; their runs are looked up in `events`"
        );
    }

    /// Forgets files of which a log entry removed rows for good, before later rows are taken in. The rows that stay are in new
    /// files, and are read from there.
    pub(crate) async fn forget(&mut self, lake: &Lake, entry: &LogEntry) -> Result<()> {
        if !entry.takes_rows() {
            return Ok(());
        }
        let removed = self.files.removed(entry);
        if !removed.is_empty() {
            self.index.removed(&removed);
        }
        self.hold(lake, entry.added.clone()).await
    }

    /// Notes that rows moved to other files.
    pub(crate) fn note(&mut self, entry: &LogEntry) -> Result<()> {
        if let Some((from, to)) = self.files.rewritten(entry)? {
            from.into_iter().for_each(|file| self.index.rewritten(file, to));
        }
        Ok(())
    }

    /// Aggregates the new rows of some versions of `events`. Returns their rows of `metrics`, in storage.
    pub(crate) async fn take(
        &mut self,
        lake: &Lake,
        definitions: &Definitions,
        new: &[FileRows],
        versions: Range<i64>,
    ) -> Result<(Written, Counts)> {
        // Makes room before the look-up: a statement that left the index later would be found in neither place.
        self.make_room(new.iter().map(FileRows::count).sum());
        let first_new = self.files.next();
        let mut rows = NewRows::default();
        for file in new {
            self.take_file(file, &mut rows)?;
        }
        let NewRows { batches, mut statements, wanted, mut again, duplicates } = rows;
        let mut counts = Counts { duplicates, ..Counts::default() };
        counts.looked_up = wanted.values().map(|runs: &HashSet<String>| runs.len() as u64).sum();
        let mut found = self.look_up(lake, wanted).await?;
        let repeated = self.without_known(&mut found, first_new);
        let all = statements.len();
        statements.retain(|new: &NewStatement| !repeated.contains(&(new.run, new.statement)));
        counts.duplicates += (all - statements.len()) as u64;
        again.extend(found.by_run.keys());
        counts.late = statements.iter().filter(|new| new.kind != StatementKind::Completed).count() as u64;
        let (changed, simple): (Vec<&NewStatement>, Vec<&NewStatement>) =
            statements.iter().partition(|new| again.contains(&new.run));
        counts.runs += simple.len() as u64;
        let mut sums = Sums::new(lake, &definitions.metrics, self.corrected_at_once * SUMMED_A_CORRECTED, versions)
            .since(self.from_micros);
        for rows in picked(&batches, simple.into_iter().map(NewStatement::row).collect())? {
            sums.add(sql::with_sign(&sql::runs_as_they_stand(&rows)?, 1)?).await?;
        }
        for part in self.in_parts(changed, first_new) {
            let before = self.read_back(lake, &part.runs, first_new, &found).await?;
            let mut now = before.clone();
            now.extend(picked(&batches, part.rows)?);
            correction::correct(&definitions.runs, before, now, &mut sums, &mut counts).await?;
        }
        Ok((sums.finish().await?, counts))
    }

    /// Removes, from the statements looked up, those that the index held before the new rows: they are in a file that was
    /// rewritten. Returns those that the new rows repeat, which change nothing.
    fn without_known(&self, found: &mut earlier::Found, first_new: u32) -> HashSet<(u64, u64)> {
        let mut repeated = HashSet::new();
        for (run, statements) in &mut found.by_run {
            let about: HashMap<u64, RowPlace> = self.index.about(*run).collect();
            statements.retain(|earlier| match about.get(&earlier.statement) {
                Some(place) if place.file < first_new => false,
                Some(_) => {
                    repeated.insert((*run, earlier.statement));
                    true
                }
                None => true,
            });
        }
        found.by_run.retain(|_, statements| !statements.is_empty());
        repeated
    }
}

async fn index_rows(lake: &Lake, file: AddedFile) -> Result<(AddedFile, Vec<IndexRow>)> {
    let mut batches = lake.read(Table::Events, &file, Some(&COLUMNS)).await?;
    let mut ids = false;
    for batch in &batches {
        ids |= Statements::of(batch)?.want_ids();
    }
    if ids {
        batches = lake.read(Table::Events, &file, Some(&COLUMNS_WITH_ID)).await?;
    }
    let mut all = Vec::new();
    for batch in &batches {
        let statements = Statements::of(batch)?;
        all.extend((0..statements.rows()).map(|n| IndexRow {
            run: statements.run(n),
            statement: statements.hash(n),
            micros: statements.event_micros(n),
        }));
    }
    Ok((file, all))
}

/// Reads the ids of the runs that files have statements about.
async fn runs_in(lake: &Lake, files: Vec<AddedFile>) -> Result<Vec<(AddedFile, Vec<u64>)>> {
    let read = |file: AddedFile| async move {
        let mut runs = Vec::new();
        for batch in lake.read(Table::Events, &file, Some(&["run_id"])).await? {
            runs.extend(batch.column(0).as_string_view().iter().flatten().map(run_of));
        }
        Ok::<_, Error>((file, runs))
    };
    futures::stream::iter(files).map(read).buffered(FILES_AT_ONCE).try_collect().await
}

/// Returns the rows at these positions, in one batch for each original batch.
fn picked(batches: &[RecordBatch], mut rows: Vec<BatchRow>) -> Result<Vec<RecordBatch>> {
    rows.sort_unstable();
    let parts = rows.chunk_by(|one, other| one.0 == other.0);
    parts.map(|part| take_rows(&batches[part[0].0], part.iter().map(|(_, row)| *row).collect())).collect()
}

fn take_rows(rows: &RecordBatch, places: Vec<u32>) -> Result<RecordBatch> {
    let whole = places.len() == rows.num_rows() && places.is_sorted();
    Ok(if whole { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(places))? })
}
