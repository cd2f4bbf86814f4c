//! From new rows of `events` to signed contributions, and from these to rows of `metrics`.
//!
//! A run that is new and completed, as nearly all are, contributes as it stands. Of any other run that something new is
//! said about, everything that was said before is read back: what it came to before is taken back, and what it comes to
//! now is added, both by the one definition (`runs.sql`). So the order of arrival cannot matter.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use bellwether_lake::{AddedFile, Error, Lake, LogEntry, Result, Table};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};

use crate::files::{Files, newest_micros};
use crate::run_index::{Known, Place, RunIndex};
use crate::sql;
use crate::statement::{COLUMNS, COLUMNS_WITH_ID, Kind, Statements, run_of, shard_of};
use crate::tail_loop::Settings;
use crate::waiting::waiting;

/// Files that are read at a time while the index is rebuilt.
const FILES_AT_ONCE: usize = 4;

/// Contributions that are summed at a time, for each run that is corrected at a time: what was, what is, and as many that
/// are new.
const SUMMED_A_CORRECTED: usize = 3;

/// A file of `events` with its rows in their order, as they came: copied into one batch they would be there twice. They have
/// [`sql::event_columns`].
pub(crate) struct FileRows {
    pub(crate) file: AddedFile,
    pub(crate) rows: Vec<RecordBatch>,
}

/// What new rows were.
#[derive(Debug, Default)]
pub(crate) struct Contributions {
    /// Runs that were new.
    pub(crate) runs: u64,
    /// Statements that changed nothing, because they had been there.
    pub(crate) duplicates: u64,
    /// Runs about which something more was said.
    pub(crate) corrected: u64,
    /// Statements of other kinds than a completed run.
    pub(crate) late: u64,
    /// Statements that wait from now on: mostly, those that came before their run.
    pub(crate) waiting: u64,
    /// Statements that had waited, and whose run has come.
    pub(crate) waited: u64,
    /// Runs that were looked for in files that are not held.
    pub(crate) looked_up: u64,
}

/// Which runs an aggregator has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) number: u32,
    pub(crate) of: u32,
}

// === impl Shard ===

impl Shard {
    pub(crate) fn has(self, run: u64) -> bool {
        self.of == 1 || shard_of(run, self.of) == self.number
    }
}

/// Runs, and the files in which the statements about them stand.
pub(crate) struct Runs {
    pub(crate) index: RunIndex,
    files: Files,
    shard: Shard,
    horizon_micros: i64,
    corrected_at_once: usize,
}

/// The definitions that contributions are made by, planned.
pub(crate) struct Definitions {
    runs: sql::Definition,
    metrics: sql::Definition,
}

/// Rows of `metrics` for contributions out of some versions of `events`.
struct Sums<'a> {
    definition: &'a sql::Definition,
    at_once: usize,
    from: i64,
    to: i64,
    /// Rows of the relation `contributions`.
    rows: Vec<RecordBatch>,
    partials: Vec<RecordBatch>,
}

/// A row of some batches: which of them, and where in it.
type RowAt = (usize, u32);

/// Some of the runs about which more is known, and what is new about them.
struct Part {
    runs: HashSet<u64>,
    news: Vec<RowAt>,
}

/// What one pass over new rows finds.
#[derive(Default)]
struct News {
    /// The rows, with the columns that the definitions read.
    batches: Vec<RecordBatch>,
    /// Statements that were not there.
    said: Vec<New>,
    /// Runs that must be looked up, by segment of the index.
    wanted: BTreeMap<usize, HashSet<String>>,
    /// Runs about which more is known than one completed run.
    again: HashSet<u64>,
    /// Statements that were there.
    duplicates: u64,
}

/// A new statement.
struct New {
    batch: usize,
    row: u32,
    run: u64,
    said: u64,
    kind: Kind,
}

// === impl FileRows ===

impl FileRows {
    /// Number of rows.
    pub(crate) fn count(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }
}

// === impl New ===

impl New {
    fn row(&self) -> RowAt {
        (self.batch, self.row)
    }
}

// === impl Definitions ===

impl Definitions {
    pub(crate) async fn plan(context: &SessionContext) -> Result<Self> {
        let relation = ("contributions", sql::contributions_schema());
        let metrics = sql::Definition::new(context, &[relation], bellwether_metrics::metrics_sql()).await?;
        Ok(Self { runs: sql::runs_definition(context).await?, metrics })
    }
}

// === impl Sums ===

impl Sums<'_> {
    async fn add(&mut self, contributions: RecordBatch) -> Result<()> {
        if contributions.num_rows() > 0 {
            self.rows.push(contributions);
        }
        if self.rows.iter().map(RecordBatch::num_rows).sum::<usize>() >= self.at_once {
            self.sum().await?;
        }
        Ok(())
    }

    async fn sum(&mut self) -> Result<()> {
        let answer = self.definition.run([std::mem::take(&mut self.rows)]).await?;
        let rows = answer.iter().map(RecordBatch::num_rows).sum();
        let provenance = [("events_from", sql::constant(self.from, rows)), ("events_to", sql::constant(self.to, rows))];
        self.partials.push(sql::rows_of(Table::Metrics, &answer, &provenance)?);
        Ok(())
    }

    async fn finish(mut self) -> Result<RecordBatch> {
        if !self.rows.is_empty() {
            self.sum().await?;
        }
        Ok(concat_batches(&Table::Metrics.arrow_schema(), &self.partials)?)
    }
}

// === impl Runs ===

impl Runs {
    /// Runs of a shard, within the bounds of the settings.
    pub(crate) fn new(settings: &Settings, shard: Shard) -> Self {
        Self {
            index: RunIndex::new(settings.index_memory_bytes),
            files: Files::default(),
            shard,
            horizon_micros: i64::try_from(settings.horizon.as_micros()).unwrap_or(i64::MAX),
            corrected_at_once: settings.corrected_at_once.max(1),
        }
    }

    /// Takes in the statements of files whose contributions are in `metrics` already: the newest are held as far as the
    /// bounds allow, older ones noted in filters, and the oldest only by name.
    pub(crate) async fn rebuild(&mut self, lake: &Lake, files: Vec<AddedFile>) -> Result<()> {
        let mut by_age: Vec<(i64, AddedFile)> =
            files.into_iter().map(|file| (newest_micros(&file).unwrap_or(i64::MAX), file)).collect();
        by_age.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| other.path.cmp(&one.path)));
        let known = by_age.iter().map(|(newest, _)| *newest).find(|newest| *newest < i64::MAX);
        let cutoff = known.unwrap_or(0).saturating_sub(self.horizon_micros);
        let (mut held, mut noted, mut named) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut room, mut room_in_filters) = (self.index.limit(), self.index.room_in_filters());
        for (newest, file) in by_age {
            let rows = usize::try_from(file.rows.unwrap_or(0)).unwrap_or(0);
            if newest >= cutoff && rows <= room && noted.is_empty() && named.is_empty() {
                room -= rows;
                held.push(file);
            } else if rows <= room_in_filters && named.is_empty() {
                room_in_filters -= rows;
                noted.push(file);
            } else {
                named.insert(self.files.add(&file, false)?);
            }
        }
        self.index.remember_unfiltered(named);
        // The oldest filter is the first to go when there is no more room.
        noted.reverse();
        for (file, statements) in read_ahead(lake, noted, &["run_id", "event_time"]).await? {
            let ordinal = self.files.add(&file, false)?;
            let runs: Vec<u64> =
                statements.into_iter().map(|said| said.run).filter(|run| self.shard.has(*run)).collect();
            self.index.remember(&runs, &BTreeSet::from([ordinal]));
        }
        held.reverse();
        self.hold(lake, held).await
    }

    /// Takes in the statements of files, to be held.
    pub(crate) async fn hold(&mut self, lake: &Lake, files: Vec<AddedFile>) -> Result<()> {
        let shard = self.shard;
        let mut reading =
            std::pin::pin!(futures::stream::iter(files).map(|file| said_in(lake, file)).buffered(FILES_AT_ONCE));
        while let Some((file, statements)) = reading.try_next().await? {
            self.make_room(statements.len());
            let ordinal = self.files.add(&file, true)?;
            let newest = statements.iter().map(|said| said.micros).max().unwrap_or(i64::MIN);
            let mut taken = 0;
            for (row, said) in (0_u32..).zip(statements) {
                if shard.has(said.run) {
                    taken +=
                        usize::from(self.state(said.run, said.said, Place { file: ordinal, row }) != Known::Statement);
                }
            }
            self.files.note(ordinal, taken, newest);
        }
        Ok(())
    }

    fn state(&mut self, run: u64, said: u64, place: Place) -> Known {
        self.index.state(run, said, place)
    }

    /// Lets go what does not fit beside what comes, or is older than the horizon.
    fn make_room(&mut self, coming: usize) {
        let gone = self.files.let_go(self.index.held(), coming, self.index.limit(), self.horizon_micros);
        if gone.is_empty() {
            return;
        }
        let runs = self.index.let_go(&gone);
        for file in gone {
            let now = self.files.now(file);
            if now != file {
                self.index.rewritten(file, now);
            }
        }
        tracing::info!(left = runs, held = self.index.held(), "older runs have left the run index: they are looked up");
    }

    /// Notes that rows moved to other files.
    pub(crate) fn note(&mut self, entry: &LogEntry) -> Result<()> {
        if let Some((from, to)) = self.files.rewritten(entry)? {
            from.into_iter().for_each(|file| self.index.rewritten(file, to));
        }
        Ok(())
    }

    /// Takes in new rows, which are those of versions [from, to) of `events`. Returns the rows of `metrics` that they come to.
    pub(crate) async fn take(
        &mut self,
        lake: &Lake,
        definitions: &Definitions,
        new: &[FileRows],
        from: i64,
        to: i64,
    ) -> Result<(RecordBatch, Contributions)> {
        // Before the look-up: what leaves later would be in neither place.
        self.make_room(new.iter().map(FileRows::count).sum());
        let first_new = self.files.next();
        let mut news = News::default();
        for file in new {
            self.take_file(file, &mut news)?;
        }
        let News { batches, mut said, wanted, mut again, duplicates } = news;
        let mut contributions = Contributions { duplicates, ..Contributions::default() };
        contributions.looked_up = wanted.values().map(|runs: &HashSet<String>| runs.len() as u64).sum();
        let mut found = self.look_up(lake, wanted).await?;
        // What is held too stands in a file that was rewritten; what has come again now changes nothing.
        let mut repeated: HashSet<(u64, u64)> = HashSet::new();
        for (run, before) in &mut found.by_run {
            let about: HashMap<u64, Place> = self.index.about(*run).collect();
            before.retain(|before| match about.get(&before.said) {
                Some(place) if place.file < first_new => false,
                Some(_) => {
                    repeated.insert((*run, before.said));
                    true
                }
                None => true,
            });
        }
        found.by_run.retain(|_, before| !before.is_empty());
        let all = said.len();
        said.retain(|new: &New| !repeated.contains(&(new.run, new.said)));
        contributions.duplicates += (all - said.len()) as u64;
        again.extend(found.by_run.keys());
        contributions.late = said.iter().filter(|new| new.kind != Kind::Completed).count() as u64;
        let (changed, simple): (Vec<&New>, Vec<&New>) = said.iter().partition(|new| again.contains(&new.run));
        contributions.runs += simple.len() as u64;
        let mut sums = Sums {
            definition: &definitions.metrics,
            at_once: self.corrected_at_once * SUMMED_A_CORRECTED,
            from,
            to,
            rows: Vec::new(),
            partials: Vec::new(),
        };
        for rows in picked(&batches, simple.into_iter().map(New::row).collect())? {
            sums.add(sql::with_sign(&sql::runs_as_they_stand(&rows)?, 1)?).await?;
        }
        for part in self.in_parts(changed, first_new) {
            let before = self.read_back(lake, &part.runs, first_new, &found).await?;
            let mut now = before.clone();
            now.extend(picked(&batches, part.news)?);
            Self::correct(&definitions.runs, before, now, &mut sums, &mut contributions).await?;
        }
        Ok((sums.finish().await?, contributions))
    }

    /// What is new about runs of which more is known, some runs at a time: those that stand in one file together, so that
    /// it is read back once.
    fn in_parts(&self, news: Vec<&New>, first_new: u32) -> Vec<Part> {
        let file = |run: u64| {
            let files = self.index.about(run).map(|(_, place)| place.file).filter(|file| *file < first_new);
            files.min().unwrap_or(u32::MAX)
        };
        let mut news: Vec<(u32, u64, RowAt)> =
            news.into_iter().map(|new| (file(new.run), new.run, new.row())).collect();
        news.sort_unstable();
        let mut parts: Vec<Part> = Vec::new();
        for (_, run, row) in news {
            match parts.last_mut() {
                Some(part) if part.runs.len() < self.corrected_at_once || part.runs.contains(&run) => {
                    part.runs.insert(run);
                    part.news.push(row);
                }
                _ => parts.push(Part { runs: HashSet::from([run]), news: vec![row] }),
            }
        }
        parts
    }

    /// Takes in the statements of one file: which are new, for which runs more must be looked up, and about which runs
    /// more than one thing is said.
    fn take_file(&mut self, FileRows { file, rows }: &FileRows, news: &mut News) -> Result<()> {
        let ordinal = self.files.add(file, true)?;
        let columns = sql::events_columns();
        let (mut row, mut taken, mut newest) = (0_u32, 0, i64::MIN);
        for rows in rows {
            let batch = news.batches.len();
            news.batches.push(sql::columns_of(rows, &columns)?);
            let statements = Statements::of(rows)?;
            for (n, at) in (0..statements.rows()).zip(0_u32..) {
                let place = Place { file: ordinal, row };
                row += 1;
                let run = statements.run(n);
                newest = newest.max(statements.event_micros(n));
                if !self.shard.has(run) {
                    continue;
                }
                let (said, kind) = (statements.said(n), statements.kind(n));
                let known = self.index.state(run, said, place);
                if known == Known::Statement {
                    news.duplicates += 1;
                    continue;
                }
                taken += 1;
                if known == Known::Run || kind != Kind::Completed {
                    news.again.insert(run);
                }
                for segment in self.index.may_be_in(run) {
                    let runs = news.wanted.entry(segment).or_default();
                    if !runs.contains(statements.run_id(n)) {
                        runs.insert(statements.run_id(n).to_owned());
                    }
                }
                news.said.push(New { batch, row: at, run, said, kind });
            }
        }
        self.files.note(ordinal, taken, newest);
        Ok(())
    }

    /// Statements about runs in files that are not held, by run.
    async fn look_up(&self, lake: &Lake, wanted: BTreeMap<usize, HashSet<String>>) -> Result<Found> {
        let mut by_file: BTreeMap<u32, Arc<HashSet<String>>> = BTreeMap::new();
        for (segment, runs) in wanted {
            let runs = Arc::new(runs);
            for file in self.index.files_of(segment) {
                match by_file.get_mut(&file) {
                    // A file is in two segments where its runs did not fit into the filter of one.
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
                let (run, said) = (statements.run(n), statements.said(n));
                let known = found.by_run.entry(run).or_default();
                if !known.iter().any(|before| before.said == said) {
                    known.push(Before { said, row: (found.batches.len(), row) });
                }
            }
            found.batches.push(rows);
        }
        Ok(found)
    }

    /// All that was said of some runs before.
    async fn read_back(
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
        before.extend(picked(&found.batches, also.map(|before| before.row).collect())?);
        Ok(before)
    }

    /// Takes back what runs came to, and adds what they come to now.
    async fn correct(
        definition: &sql::Definition,
        before: Vec<RecordBatch>,
        now: Vec<RecordBatch>,
        sums: &mut Sums<'_>,
        contributions: &mut Contributions,
    ) -> Result<()> {
        let (waited_before, wait_now) = (waiting(&before)?, waiting(&now)?);
        contributions.waited += waited_before.difference(&wait_now).count() as u64;
        contributions.waiting += wait_now.difference(&waited_before).count() as u64;
        let old = runs_before(definition, before).await?;
        let new = sql::runs(definition, now).await?;
        contributions.runs += (new.num_rows() - old.num_rows().min(new.num_rows())) as u64;
        let (old, new) = without_what_is_the_same(&old, &new)?;
        contributions.corrected += old.num_rows() as u64;
        sums.add(sql::with_sign(&old, -1)?).await?;
        sums.add(sql::with_sign(&new, 1)?).await
    }
}

/// Runs as they counted before. Of most, nothing was said but that they are completed: these stand as they are.
async fn runs_before(definition: &sql::Definition, before: Vec<RecordBatch>) -> Result<RecordBatch> {
    let mut said: HashMap<u64, u32> = HashMap::new();
    for batch in &before {
        let statements = Statements::of(batch)?;
        for n in 0..statements.rows() {
            *said.entry(statements.run(n)).or_default() += 1;
        }
    }
    let (mut alone, mut others) = (Vec::new(), Vec::new());
    for batch in &before {
        let statements = Statements::of(batch)?;
        let stands = |n: usize| said.get(&statements.run(n)) == Some(&1) && statements.kind(n) == Kind::Completed;
        let (one, other): (Vec<u32>, Vec<u32>) =
            (0_u32..).take(statements.rows()).partition(|n| usize::try_from(*n).is_ok_and(stands));
        alone.push(sql::runs_as_they_stand(&take_rows(batch, one)?)?);
        if !other.is_empty() {
            others.push(take_rows(batch, other)?);
        }
    }
    alone.push(sql::runs(definition, others).await?);
    let schema = alone[0].schema();
    Ok(concat_batches(&schema, &alone)?)
}

/// Statements that were made before and stand in files that are not held.
#[derive(Default)]
struct Found {
    batches: Vec<RecordBatch>,
    by_run: BTreeMap<u64, Vec<Before>>,
}

/// A statement that was made before: a batch and a row of it.
struct Before {
    said: u64,
    row: RowAt,
}

/// What the index wants to know of a row.
struct Said {
    run: u64,
    said: u64,
    micros: i64,
}

async fn said_in(lake: &Lake, file: AddedFile) -> Result<(AddedFile, Vec<Said>)> {
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
        all.extend((0..statements.rows()).map(|n| Said {
            run: statements.run(n),
            said: statements.said(n),
            micros: statements.event_micros(n),
        }));
    }
    Ok((file, all))
}

/// The runs that files have something about, some files at a time.
async fn read_ahead(lake: &Lake, files: Vec<AddedFile>, columns: &[&str; 2]) -> Result<Vec<(AddedFile, Vec<Said>)>> {
    let read = |file: AddedFile| async move {
        let mut all = Vec::new();
        for batch in lake.read(Table::Events, &file, Some(columns)).await? {
            all.extend(batch.column(0).as_string_view().iter().flatten().map(run_of));
        }
        let said = |run| Said { run, said: 0, micros: 0 };
        Ok::<_, Error>((file, all.into_iter().map(said).collect()))
    };
    futures::stream::iter(files).map(read).buffered(FILES_AT_ONCE).try_collect().await
}

/// Rows of batches, each named by its batch and its place there.
fn picked(batches: &[RecordBatch], mut rows: Vec<RowAt>) -> Result<Vec<RecordBatch>> {
    rows.sort_unstable();
    let parts = rows.chunk_by(|one, other| one.0 == other.0);
    parts.map(|part| take_rows(&batches[part[0].0], part.iter().map(|(_, row)| *row).collect())).collect()
}

fn take_rows(rows: &RecordBatch, places: Vec<u32>) -> Result<RecordBatch> {
    let whole = places.len() == rows.num_rows() && places.is_sorted();
    Ok(if whole { rows.clone() } else { take_record_batch(rows, &UInt32Array::from(places))? })
}

/// Rows without those that are in both: these would be taken back and added again.
fn without_what_is_the_same(old: &RecordBatch, new: &RecordBatch) -> Result<(RecordBatch, RecordBatch)> {
    let fields = new.schema().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let (olds, news) = (converter.convert_columns(old.columns())?, converter.convert_columns(new.columns())?);
    let mut left: HashMap<&[u8], Vec<u32>> = HashMap::new();
    for (n, row) in (0_u32..).zip(olds.iter()) {
        left.entry(row.data()).or_default().push(n);
    }
    let mut added = Vec::new();
    for (n, row) in (0_u32..).zip(news.iter()) {
        match left.get_mut(row.data()).and_then(Vec::pop) {
            Some(_) => {}
            None => added.push(n),
        }
    }
    let mut taken: Vec<u32> = left.into_values().flatten().collect();
    taken.sort_unstable();
    Ok((take_rows(old, taken)?, take_rows(new, added)?))
}
