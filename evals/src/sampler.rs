//! The role: follows `events` by version, and keeps the sample of each week in `candidates`.
//!
//! New rows of `events` say which weeks they are about. The sample of each such week, and of the later weeks whose releases are compared
//! with it, is drawn again from all its runs, and only the difference from the candidates in the table is appended. All state is in the
//! tables, so the process can end at any moment.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use bellwether_base::{Error, ErrorKind, Result, Week};
use bellwether_follow::{Append, Cursor, FollowHealth, FollowMetrics, Follower, Runner, Step, Until};
use bellwether_lake::{Advance, CommitLog, Lake, LogEntry, Snapshot};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::{AppId, Table};
use prometheus::Registry;
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use crate::evaluate::{all_weeks, changes, compared_to, known, sample, sampled_weeks, weeks_of};
use crate::row::{CandidateRow, batch};
use crate::settings::EvalsSettings;

/// Most log entries of `events` that one step reads.
const MOST_VERSIONS: usize = 256;

/// Most run ids of late statements that are kept while their weeks are not known. With more, all weeks are drawn again.
const MOST_IDS: usize = 100_000;

/// Columns that say which weeks a row is about.
const COLUMNS: [&str; 4] = ["event_type", "run_id", "ended_at", "revision"];

/// Pause after an evaluation, as a multiple of its duration: the role takes at most a tenth of a core and of the store.
const REST: i64 = 9;

/// Everything that the role works with.
#[derive(Clone)]
pub struct Sample {
    pub settings: EvalsSettings,
    pub lake: Lake,
    /// Condition of the role, for the process's health report.
    pub health: FollowHealth,
}

/// The setup that samplers are opened from, one after another.
pub struct SampleSetup {
    sample: Sample,
    metrics: FollowMetrics,
}

/// The sampler and its state.
pub struct Sampler {
    sample: Sample,
    metrics: FollowMetrics,
    events: Cursor,
    /// `candidates` as of the last commit.
    on: Snapshot,
    pending: Pending,
    /// Time before which there is no further evaluation, microseconds since the epoch.
    rests_until: i64,
}

/// Changes since the last evaluation.
#[derive(Default)]
struct Pending {
    weeks: BTreeSet<Week>,
    /// Runs of late statements.
    run_ids: BTreeSet<String>,
    /// All weeks are to be drawn again.
    everything: bool,
    /// Runs were erased.
    erased: bool,
}

/// Runs the role until it is stopped, or until `until` says.
///
/// # Errors
/// `Data` or `Bug` if no waiting can help. Unavailable storage is waited for.
pub async fn run(sample: Sample, registry: Registry, until: Until, stop: CancellationToken) -> Result<()> {
    let setup = SampleSetup::new(sample, &registry)?;
    let sample = &setup.sample;
    let runner = Runner {
        health: sample.health.clone(),
        lease: Some(sample.lake.lease(&AppId::Evals.to_string())),
        interval: sample.settings.interval.min(Duration::from_secs(1)),
        until,
        stop,
        ..Runner::new("evals", sample.lake.clock(), setup.metrics.clone())
    };
    runner.run::<Sampler>(&setup).await
}

/// Draws the samples of all weeks again, in one run. Returns the number of rows that were added: none if the table was right.
///
/// # Errors
/// `Fenced` if a running role has committed in the meantime; `Unavailable` if storage does not answer.
pub async fn resample(sample: Sample, registry: &Registry) -> Result<u64> {
    let setup = SampleSetup::new(sample, registry)?;
    let mut sampler = Sampler::open(&setup).await?;
    while sampler.read().await? {}
    sampler.pending.everything = true;
    sampler.evaluate().await
}

// === impl SampleSetup ===

impl SampleSetup {
    /// Makes a setup.
    ///
    /// # Errors
    /// `Bug` if its metrics are registered already.
    pub fn new(sample: Sample, registry: &Registry) -> Result<Self> {
        Ok(Self { metrics: FollowMetrics::register(registry, "evals", Table::Events, None)?, sample })
    }
}

// === impl Sampler ===

#[async_trait]
impl Follower for Sampler {
    type Setup = SampleSetup;

    async fn open(setup: &SampleSetup) -> Result<Self> {
        let sample = setup.sample.clone();
        let on = sample.lake.log(Table::Candidates).load().await?;
        let read = on.next(&AppId::EvalsEvents.to_string());
        let mut pending = Pending::default();
        let next = match read {
            Some(next) => next,
            None => {
                // The versions before this one are covered by drawing every week.
                pending.everything = true;
                sample.lake.log(Table::Events).load().await?.version + 1
            }
        };
        let events = Cursor::new(sample.lake.log(Table::Events), next);
        Ok(Self { metrics: setup.metrics.clone(), events, on, pending, rests_until: i64::MIN, sample })
    }

    async fn step(&mut self) -> Result<Step> {
        if self.read().await? {
            return Ok(Step::More);
        }
        if self.sample.lake.clock().now_micros() < self.rests_until {
            return Ok(Step::CaughtUp);
        }
        Box::pin(self.evaluate()).await?;
        Ok(Step::CaughtUp)
    }

    async fn finish(&mut self) -> Result<()> {
        Box::pin(self.evaluate()).await.map(|_| ())
    }

    fn next_version(&self) -> i64 {
        match self.pending.is_empty() {
            true => self.events.next_version(),
            // Read, but not evaluated yet.
            false => self.on.next(&AppId::EvalsEvents.to_string()).unwrap_or(0),
        }
    }
}

impl Sampler {
    /// Reads which weeks new rows of `events` are about. Returns true if there may be more.
    async fn read(&mut self) -> Result<bool> {
        let entries = match self.events.entries(0, MOST_VERSIONS).await {
            // The role was off for longer than the log is kept.
            Err(error) if error.kind() == ErrorKind::Data => {
                tracing::warn!(reason = %error.chain(), "drawing the samples of all weeks again");
                self.pending.everything = true;
                let newest = self.sample.lake.log(Table::Events).load().await?.version;
                self.events.advance_to(newest + 1);
                return Ok(true);
            }
            entries => entries?,
        };
        for entry in &entries {
            self.note(entry).await?;
            self.events.advance_to(entry.version + 1);
        }
        Ok(entries.len() == MOST_VERSIONS)
    }

    async fn note(&mut self, entry: &LogEntry) -> Result<()> {
        self.pending.everything |= entry.erases();
        self.pending.erased |= entry.erases();
        if !entry.brings_rows() {
            return Ok(());
        }
        for file in entry.added.iter().filter(|file| file.data_change) {
            for rows in self.sample.lake.read(Table::Events, file, Some(&COLUMNS)).await? {
                let column = |name: &str| {
                    rows.column_by_name(name)
                        .ok_or_else(|| Error::bug(format!("rows of `events` lack column `{name}`")))
                };
                let types = column("event_type")?.as_string_view();
                let run_ids = column("run_id")?.as_string_view();
                let revisions = column("revision")?.as_primitive::<Int64Type>();
                let ends = column("ended_at")?.as_primitive::<TimestampMicrosecondType>();
                for row in 0..rows.num_rows() {
                    match types.value(row) {
                        "run.completed" if !ends.is_null(row) => {
                            self.pending.weeks.insert(Week::of(ends.value(row)));
                            // A correction may move a run to another week.
                            if revisions.value(row) > 0 {
                                self.pending.add_run(run_ids.value(row));
                            }
                        }
                        "run.review" => {}
                        _ => self.pending.add_run(run_ids.value(row)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Draws the samples of the weeks that have changed, and commits the differences. Returns the number of rows.
    async fn evaluate(&mut self) -> Result<u64> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let clock = self.sample.lake.clock();
        let started = clock.now_micros();
        let (read, pending) = (self.events.next_version(), std::mem::take(&mut self.pending));
        let written = match self.draw_and_commit(&pending, read).await {
            Ok(written) => written,
            Err(error) => {
                self.pending.add(pending);
                return Err(error);
            }
        };
        let ended = clock.now_micros();
        let rest = (ended - started).saturating_mul(REST);
        let interval = i64::try_from(self.sample.settings.interval.as_micros()).unwrap_or(i64::MAX);
        self.rests_until = ended.saturating_add(rest.max(interval));
        Ok(written)
    }

    /// Draws the samples of the weeks that `pending` names, from events at least up to version `read`.
    async fn draw_and_commit(&mut self, pending: &Pending, read: i64) -> Result<u64> {
        let settings = SessionSettings {
            memory_limit_bytes: self.sample.settings.memory_bytes,
            threads: Some(1),
            ..SessionSettings::default()
        };
        let session = Session::open(&self.sample.lake, settings).await?;
        let weeks = self.weeks(&session, pending).await?;
        let mut rows = Vec::new();
        for week in weeks {
            let before = known(&session, week).await?;
            let (_, drawn) = sample(&session, week, &self.sample.settings).await?;
            rows.extend(changes(week, before, drawn));
        }
        // The rows may name runs that were erased in the meantime. Of an erasure that is not seen here, the last commit to `candidates`
        // takes the number of the next commit, so that this one is fenced or, if it comes first, edited.
        while self.read().await? {}
        if self.pending.erased {
            return Err(Error::unavailable("runs were erased while the sample was drawn"));
        }
        let written = rows.len() as u64;
        self.commit(rows, read).await?;
        Ok(written)
    }

    /// Returns the weeks to draw again: only those of which all events are kept.
    async fn weeks(&self, session: &Session, pending: &Pending) -> Result<BTreeSet<Week>> {
        let mut weeks = pending.weeks.clone();
        if pending.everything {
            weeks.extend(all_weeks(session).await?);
            weeks.extend(sampled_weeks(session).await?);
        } else {
            weeks.extend(weeks_of(session, &pending.run_ids).await?);
            // A release that ran in these weeks is not new in later ones.
            weeks.extend(compared_to(session, &weeks).await?);
        }
        let kept_from = self.sample.lake.log(Table::Events).load().await?.next(&AppId::KeptFrom.to_string());
        weeks.retain(|week| kept_from.is_none_or(|kept| week.start() >= kept));
        Ok(weeks)
    }

    /// Commits rows, and that events before version `next` have been read.
    async fn commit(&mut self, mut rows: Vec<CandidateRow>, next: i64) -> Result<()> {
        let lake = &self.sample.lake;
        let newest = lake.log(Table::Candidates).catch_up(self.on.clone()).await?;
        if newest.version != self.on.version
            && newest.next(&AppId::Evals.to_string()) != self.on.next(&AppId::Evals.to_string())
        {
            return Err(Error::fenced("another process has committed to `candidates`"));
        }
        let (app_id, read_id) = (AppId::Evals.to_string(), AppId::EvalsEvents.to_string());
        let number = self.on.next(&app_id).unwrap_or(0) + 1;
        let now = lake.clock().now_micros();
        for row in &mut rows {
            (row.number, row.events_version, row.written_at) = (number, next - 1, now);
        }
        let batch = batch(&rows)?;
        let append = Append {
            table: Table::Candidates,
            on: &self.on,
            rows: (!rows.is_empty()).then_some(&batch),
            advances: vec![
                Advance { expected: self.on.next(&app_id), app_id, next: number },
                Advance { expected: self.on.next(&read_id), app_id: read_id, next },
            ],
            operation: "sample",
            facts: Map::from_iter([("events_version".to_owned(), (next - 1).into())]),
        };
        self.on = append.commit(lake, &self.metrics).await?;
        Ok(())
    }
}

// === impl Pending ===

impl Pending {
    fn is_empty(&self) -> bool {
        self.weeks.is_empty() && self.run_ids.is_empty() && !self.everything
    }

    /// Adds what another one names. An erasure is noted once: it makes everything pending.
    fn add(&mut self, other: Self) {
        self.weeks.extend(other.weeks);
        self.everything |= other.everything || self.erased;
        self.erased = false;
        for run_id in &other.run_ids {
            self.add_run(run_id);
        }
    }

    fn add_run(&mut self, run_id: &str) {
        if self.everything || self.run_ids.len() >= MOST_IDS {
            self.everything = true;
            self.run_ids.clear();
        } else if !self.run_ids.contains(run_id) {
            self.run_ids.insert(run_id.to_owned());
        }
    }
}
