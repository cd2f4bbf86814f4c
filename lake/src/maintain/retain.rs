//! Retention: whole files go once all their rows were kept for long enough.
//!
//! Age is judged against the newest row of the table as well as against the clock, so that a clock that is ahead removes nothing;
//! and the moment from which on everything is kept ([`AppId::KeptFrom`]) moves by a week at most at a time, unless a person
//! confirms more. So neither a clock that jumps together with all producers, nor a setting with a typing error, removes a history.
//!
//! Rows stay as long as something is still to be made of them: events that no aggregator has read, minutes that are not in
//! `metrics_hourly`, hours that are not in `metrics_daily`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};
use serde_json::{Map, json};

use super::erase::count_by_partition;
use super::{Act, Maintained};
use crate::commit::{Advance, Commit, CommitLog, Outcome};
use crate::log::{AddedFile, RemovedRows};
use crate::rollup::Rolled;
use crate::root::Lake;

const DAY_MICROS: i64 = 86_400_000_000;

/// Days by which a table's history may become shorter at once without being confirmed.
const MOST_DAYS: i64 = 7;

/// The time for which the rows of each table are kept; none means for ever. Tables that are not listed are kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events, by the time of the statement and the end of the run.
    pub events: Option<Duration>,
    /// Rejected messages, by the time of the rejection.
    pub quarantine: Option<Duration>,
    /// Metrics by minute.
    pub metrics: Option<Duration>,
    /// Metrics by hour.
    pub metrics_hourly: Option<Duration>,
    /// Metrics by day.
    pub metrics_daily: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        Self {
            events: days(90),
            quarantine: days(90),
            metrics: days(45),
            metrics_hourly: days(400),
            metrics_daily: None,
        }
    }
}

// === impl Retention ===

impl Retention {
    /// Returns how long the rows of a table are kept.
    pub fn of(&self, table: Table) -> Option<Duration> {
        match table {
            Table::Events => self.events,
            Table::Quarantine => self.quarantine,
            Table::Metrics => self.metrics,
            Table::MetricsHourly => self.metrics_hourly,
            Table::MetricsDaily => self.metrics_daily,
            Table::Releases
            | Table::RollingHistory
            | Table::Alerts
            | Table::Deliveries
            | Table::AlertActions
            | Table::Candidates => None,
        }
    }
}

/// Bounds of a file's times, by its statistics.
struct Times {
    least: i64,
    greatest: i64,
}

// === impl Lake ===

impl Lake {
    /// Removes the files of a table whose rows were all kept for as long as `keep` says. More than a week at once is refused
    /// unless it is `confirmed`.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Config` if `delta.appendOnly` forbids it; `Data` if a file is unreadable.
    pub async fn retain(&self, table: Table, keep: Duration, confirmed: bool, act: Act) -> Result<Maintained> {
        let log = self.log(table);
        let on = log.load().await?;
        let (version, files) = self.active_files(table).await?;
        if version < on.version {
            return Err(Error::unavailable(format!("a listing of table `{}` is behind its log", table.name())));
        }
        let mut done = Maintained::default();
        let times: Vec<(&AddedFile, Option<Times>)> = files.iter().map(|file| (file, times(table, file))).collect();
        let Some((oldest, newest)) = span(times.iter().filter_map(|(_, times)| times.as_ref())) else {
            return Ok(done);
        };
        let reference = self.clock().now_micros().min(newest);
        let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
        let cutoff = reference.saturating_sub(keep).div_euclid(DAY_MICROS) * DAY_MICROS;
        let kept_from = AppId::KeptFrom.to_string();
        let known = on.next(&kept_from);
        let days = days_of(cutoff.saturating_sub(known.unwrap_or(oldest).min(cutoff)));
        if days > MOST_DAYS && !confirmed {
            done.refused_days = days;
            return Ok(done);
        }
        let old = times.into_iter().filter(|(_, times)| times.as_ref().is_some_and(|times| times.greatest < cutoff));
        let old: Vec<AddedFile> = old.map(|(file, _)| file.clone()).collect();
        let old = self.without_needed(table, old).await?;
        for file in &old {
            done.expired.add(u64::try_from(file.size).unwrap_or(0));
            done.expired_rows += file.rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        }
        if act == Act::Plan || old.is_empty() && known.is_some_and(|known| known >= cutoff) {
            return Ok(done);
        }
        let removed = self.coordinates_of(table, &old).await?;
        let next = known.map_or(cutoff, |known| known.max(cutoff));
        let commit = Commit {
            uuid: self.clock().unique_id(),
            advances: vec![Advance { app_id: kept_from, expected: known, next }],
            files: Vec::new(),
            operation: "DELETE",
            ranges: Vec::new(),
            facts: Map::from_iter((!removed.is_empty()).then(|| ("removed".to_owned(), json!(removed)))),
        };
        match log.try_replace(&on, &commit, &old).await? {
            Outcome::Committed(_) => Ok(done),
            // Another process has rewritten or removed some of the files: the next round looks again.
            Outcome::Fenced { .. } => Ok(Maintained::default()),
            Outcome::Unknown { reason } => {
                let name = table.name();
                Err(Error::unavailable(format!("whether rows of table `{name}` were removed is unclear: {reason}")))
            }
        }
    }

    /// Leaves out files with rows that something is still to be made of.
    async fn without_needed(&self, table: Table, mut files: Vec<AddedFile>) -> Result<Vec<AddedFile>> {
        if files.is_empty() {
            return Ok(files);
        }
        match table {
            Table::Events => {
                let read = match self.needed(table).await?.map_or(0, |needed| needed.version) {
                    0 => BTreeSet::new(),
                    next => self.files_at(table, next - 1).await?.into_iter().map(|file| file.path).collect(),
                };
                files.retain(|file| read.contains(&file.path));
            }
            Table::Metrics | Table::MetricsHourly => {
                let rolled = Rolled::load(self).await?;
                let to = if table == Table::Metrics { rolled.hours } else { rolled.days };
                files.retain(|file| file.bounds().greatest_number("events_to").is_some_and(|greatest| greatest <= to));
            }
            _ => {}
        }
        Ok(files)
    }

    /// Counts the rows of files by partition, for the audit. Empty for a table whose rows do not say where they came from.
    async fn coordinates_of(&self, table: Table, files: &[AddedFile]) -> Result<Vec<RemovedRows>> {
        if !matches!(table, Table::Events | Table::Quarantine) {
            return Ok(Vec::new());
        }
        let mut found = BTreeMap::new();
        for file in files {
            for batch in self.read(table, file, Some(&["topic", "partition", "offset"])).await? {
                count_by_partition(&batch, &mut found)?;
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Returns a time as days, rounded up.
fn days_of(micros: i64) -> i64 {
    micros.div_euclid(DAY_MICROS) + i64::from(micros.rem_euclid(DAY_MICROS) > 0)
}

/// Returns the oldest and the newest of some times.
fn span<'a>(times: impl Iterator<Item = &'a Times>) -> Option<(i64, i64)> {
    times.map(|times| (times.least, times.greatest)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// Returns the times by which a file's rows age; none if its statistics do not say.
fn times(table: Table, file: &AddedFile) -> Option<Times> {
    let stated = file.bounds();
    let column = match table {
        Table::Events => "event_time",
        Table::Quarantine => "quarantined_at",
        Table::Metrics | Table::MetricsHourly | Table::MetricsDaily => "window_start",
        Table::Releases
        | Table::RollingHistory
        | Table::Alerts
        | Table::Deliveries
        | Table::AlertActions
        | Table::Candidates => {
            return None;
        }
    };
    let (least, greatest) = stated.times(column)?;
    let mut times = Times { least, greatest };
    if table == Table::Events {
        // A run belongs to the window in which it ended, whenever that was stated. Other statements have no end.
        let nulls = stated.nulls("ended_at")?;
        if Some(nulls) != file.rows {
            times.greatest = times.greatest.max(stated.newest("ended_at")?);
        }
    }
    Some(times)
}
