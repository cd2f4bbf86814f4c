//! Verifies that no event was lost or duplicated, from storage alone.
//!
//! * `history` reads each table's log, entry by entry, for its files and the numbers of its applications.
//! * `ranges` compares the offset ranges of consecutive commits (L-3).
//! * `files` reads every file that a log names.
//! * `rows` compares rows with offset ranges: none is missing (L-1) or duplicated (L-2). `coordinates` has the arithmetic.
//!
//! Rules: an audit writes nothing, not even a missing folder. It reads one version of each table and ignores later commits.
//! Derived tables come first (`alerts`, `metrics`, `events`, `quarantine`), so that a table read later can only be ahead of
//! the earlier ones. Each violation is a finding with its place; only storage that does not answer is an error.

mod coordinates;
mod files;
mod history;
mod ranges;
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};

use bellwether_base::{Error, Result};
use bellwether_lake::inspect::LOG_FOLDER;
use bellwether_lake::inspect::NAME_THE_ROOT;
use bellwether_lake::rollup::{rolled_generation, rolled_to};
use bellwether_lake::{AddedFile, Stored};
use bellwether_lake::{Lake, RollUp, Snapshot};
use bellwether_tables::{AppId, Table};
use history::{ActiveFile, Found, History};
use ranges::Reader;
use rows::{Contents, check_rows};

/// Most findings of one check that are reported in full.
const FINDINGS_KEPT: usize = 20;

/// Number of data files read at once. Bounds memory.
const FILES_AT_ONCE: usize = 4;

/// The order in which tables are read.
const ORDER: [Table; Table::ALL.len()] = [
    Table::AlertActions,
    Table::Deliveries,
    Table::Candidates,
    Table::Alerts,
    Table::MetricsDaily,
    Table::MetricsHourly,
    Table::Metrics,
    Table::Releases,
    Table::RollingHistory,
    Table::Events,
    Table::Quarantine,
];

const BRING_BACK: &str = "restore the file from a backup; no commit removed it";

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, partition or log that it is in.
    pub place: String,
    /// Description for people.
    pub what: String,
    /// Remedy.
    pub hint: &'static str,
}

/// The findings of a check. Only the first ones are kept in full.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub kept: Vec<Finding>,
    /// Number of further findings.
    pub left_off: usize,
}

/// The result of one check.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Name, for programs; it never changes.
    pub name: &'static str,
    /// Result, for people.
    pub summary: String,
    /// Numbers, for programs.
    pub counts: Vec<(&'static str, i64)>,
    /// Limitations of the result.
    pub notes: Vec<String>,
    pub findings: Findings,
    /// The reason if the check could not run.
    pub skipped: Option<String>,
}

/// The progress of one job in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// Job; `replay` for files.
    pub job: String,
    /// Topic, or `file:NAME`.
    pub topic: String,
    pub partition: i32,
    /// First offset in the log.
    pub from: i64,
    /// Offset to read next.
    pub next: i64,
    /// Number of commits with a range of the partition.
    pub commits: usize,
    /// Number of offsets without a message.
    pub passed_over: i64,
}

/// The input for recomputing `metrics`.
#[derive(Clone, Debug, Default)]
pub struct Basis {
    /// Version of `events` that is read into `metrics` next.
    pub next: i64,
    /// Numbers of the applications of `metrics`.
    pub applications: BTreeMap<String, i64>,
    /// Files of `events` just before that version.
    pub events: Vec<AddedFile>,
    /// Files of `metrics`.
    pub metrics: Vec<AddedFile>,
    /// Numbers of the applications of `events`.
    pub events_applications: BTreeMap<String, i64>,
    /// Number of the erased contributions that the version of these files names.
    pub erased: Option<i64>,
    /// The roll-ups.
    pub rollups: BTreeMap<Table, RollUpBasis>,
}

/// The input for comparing a roll-up with its source.
#[derive(Clone, Debug, Default)]
pub struct RollUpBasis {
    /// Numbers of the applications of the roll-up.
    pub applications: BTreeMap<String, i64>,
    /// Files of the roll-up.
    pub files: Vec<AddedFile>,
}

/// The result of an audit.
#[derive(Clone, Debug, Default)]
pub struct Audited {
    /// Every check; each builds on the ones before it.
    pub checks: Vec<Check>,
    /// False if a table cannot be checked at all.
    pub auditable: bool,
    /// Every partition of every job.
    pub partitions: Vec<PartitionState>,
    /// The version of each table that was read.
    pub versions: Vec<(&'static str, i64)>,
    /// Input for comparing `metrics` with `events`; `None` if one of them cannot be read.
    pub basis: Option<Basis>,
}

/// The progress of an audit.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Number of files read.
    pub files: usize,
    /// Number of all files.
    pub of: usize,
}

/// Tables that can be checked.
type Histories = BTreeMap<Table, History>;

// === impl Findings ===

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, place: impl Into<String>, what: impl Into<String>, hint: &'static str) {
        if self.kept.len() < FINDINGS_KEPT {
            self.kept.push(Finding { place: place.into(), what: what.into(), hint });
        } else {
            self.left_off += 1;
        }
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Returns the number of findings.
    pub fn total(&self) -> usize {
        self.kept.len() + self.left_off
    }

    fn append(&mut self, other: &Self) {
        for finding in &other.kept {
            self.add(finding.place.clone(), finding.what.clone(), finding.hint);
        }
        self.left_off += other.left_off;
    }
}

// === impl Check ===

impl Check {
    /// Creates a check without findings.
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Creates a check that could not run.
    pub fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { skipped: Some(why.into()), ..Self::new(name) }
    }

    /// Returns true if the check ran and found nothing.
    pub fn ok(&self) -> bool {
        self.findings.is_empty() && self.skipped.is_none()
    }

    fn count(&mut self, name: &'static str, number: impl TryInto<i64>) -> i64 {
        let number = number.try_into().unwrap_or(i64::MAX);
        self.counts.push((name, number));
        number
    }
}

/// Runs all checks. `follower` is the application of `metrics` with the version of `events` as its number.
///
/// # Errors
/// `Config` if there is no table under the root; `Unavailable` if storage does not answer.
pub async fn audit(lake: &Lake, follower: &str, mut progress: impl FnMut(Progress)) -> Result<Audited> {
    let mut found: BTreeMap<Table, Found> = BTreeMap::new();
    for table in ORDER {
        let keep = match (table, found.get(&Table::Metrics)) {
            (Table::Events, Some(Found::Whole(metrics))) => metrics.tracks.others.get(follower).map(|next| next - 1),
            _ => None,
        };
        found.insert(table, Box::pin(history::read(lake, table, keep)).await?);
    }
    if found.values().all(|found| matches!(found, Found::Missing)) {
        return Err(no_tables(lake).await?);
    }
    let (tables, histories) = check_tables(found);
    let mut audited = Audited { auditable: tables.ok(), ..Audited::default() };
    audited.checks.push(tables);
    audited.versions =
        Table::ALL.iter().filter_map(|table| Some((table.name(), histories.get(table)?.version))).collect();
    audited.checks.push(check_log(&histories));
    audited.checks.push(check_offsets(&histories));
    let (files, contents) = check_files(lake, &histories, &mut progress).await?;
    audited.checks.push(files);
    match (histories.get(&Table::Events), histories.get(&Table::Quarantine)) {
        (Some(events), Some(quarantine)) => {
            audited.checks.extend(check_rows(lake, events, quarantine, contents).await?);
            audited.partitions = partitions(events);
        }
        _ => {
            let why = "it needs `events` and `quarantine`, and one of them cannot be checked";
            audited.checks.extend(["duplicates", "rows"].map(|name| Check::skipped(name, why)));
        }
    }
    audited.checks.push(check_progress(&histories, follower));
    audited.basis = basis(&histories, follower);
    Ok(audited)
}

/// Returns the error for a root without tables.
async fn no_tables(lake: &Lake) -> Result<Error> {
    let root = lake.root_display();
    let log = lake.objects().list(Some(&lake.base().join(LOG_FOLDER))).next().await.transpose().stored()?;
    Ok(match log {
        Some(_) => Error::config(format!("`{root}` is a Delta table itself, not a root of bellwether's tables"))
            .with_hint("use the folder that contains `events`, `metrics` and the other tables, usually its parent"),
        None => Error::config(format!("there are no tables under `{root}`")).with_hint(NAME_THE_ROOT),
    })
}

/// Checks that the tables exist and were written by bellwether.
fn check_tables(found: BTreeMap<Table, Found>) -> (Check, Histories) {
    // An interrupted first start has created some tables and written no rows.
    let made = found.values().all(|found| match found {
        Found::Missing => true,
        Found::Broken(..) => false,
        Found::Whole(history) => history.version == 0,
    });
    let mut check = Check::new("tables");
    let mut histories = Histories::new();
    let derivable: Vec<Table> =
        RollUp::ALL.into_iter().filter(|each| can_be_made(*each, &found)).map(RollUp::table).collect();
    for (table, found) in found {
        match found {
            Found::Whole(history) => {
                histories.insert(table, *history);
            }
            Found::Missing if made || derivable.contains(&table) => {
                check.notes.push(format!("`{}` does not exist yet; the next start creates it", table.name()));
                histories.insert(table, history::empty(0));
            }
            Found::Missing => {
                check.findings.add(table.name(), "the table does not exist", "restore its folder from a backup");
            }
            Found::Broken(what, hint) => check.findings.add(table.name(), what, hint),
        }
    }
    let there = check.count("tables", histories.len());
    check.summary = format!("{there} of {} tables exist and have complete logs", Table::ALL.len());
    (check, histories)
}

/// Returns true if a missing roll-up can be made from its source as it was, because nothing of the source was removed. A root of
/// a version without roll-ups has none.
fn can_be_made(rollup: RollUp, found: &BTreeMap<Table, Found>) -> bool {
    let kept_from = AppId::KeptFrom.to_string();
    match found.get(&rollup.source()) {
        Some(Found::Whole(source)) => !source.tracks.others.contains_key(&kept_from),
        Some(Found::Missing) => rollup == RollUp::Days && can_be_made(RollUp::Hours, found),
        _ => false,
    }
}

/// Checks the logs, by the findings of their readers.
fn check_log(histories: &Histories) -> Check {
    let mut check = Check::new("log");
    let entries = histories.values().map(|history| history.entries).sum::<i64>();
    check.count("entries", entries);
    for (table, history) in histories {
        check.findings.append(&history.checkpoint_findings);
        let (name, first) = (table.name(), history.first);
        match (first, history.is_accounted) {
            (0, _) => {}
            (_, true) => {
                let note =
                    format!("`{name}`: entries before {first} have been cleaned up; their offsets are on record");
                check.notes.push(note);
            }
            (_, false) => {
                let note = format!("`{name}`: entries before {first} have been cleaned up; the audit starts there");
                check.notes.push(note);
            }
        }
    }
    check.summary = format!("{entries} log entries are consecutive and match the log checkpoints");
    check
}

/// Checks that the offset ranges of commits are contiguous (L-3).
fn check_offsets(histories: &Histories) -> Check {
    let mut check = Check::new("offsets");
    for table in Table::ALL {
        if let Some(history) = histories.get(&table) {
            for finding in &history.findings.kept {
                check.findings.add(format!("{}: {}", table.name(), finding.place), finding.what.clone(), finding.hint);
            }
            check.findings.left_off += history.findings.left_off;
        }
    }
    let Some(events) = histories.get(&Table::Events) else {
        return Check { skipped: Some("`events` cannot be checked".to_owned()), ..check };
    };
    let tracks = &events.tracks.of;
    let jobs: BTreeSet<&str> = tracks.keys().map(|reader| reader.job.as_str()).collect();
    let partitions = check.count("partitions", tracks.len());
    let jobs = check.count("jobs", jobs.len());
    let commits = check.count("ranges", tracks.values().map(|track| track.taken.len()).sum::<usize>());
    let taken = tracks.values().flat_map(|track| &track.taken).map(|taken| taken.next - taken.from).sum::<i64>();
    check.count("offsets", taken);
    check.notes.extend(starts(events));
    check.summary =
        format!("{taken} offsets of {partitions} partitions ({jobs} jobs) in {commits} ranges without a gap");
    check
}

/// Lists the topics that were started at their ends. Earlier messages of these are not in the tables; all later ones must be.
fn starts(events: &History) -> Vec<String> {
    let mut found: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for (reader, track) in &events.tracks.of {
        if let Some(start) = track.start {
            found.entry((&reader.job, &reader.topic)).or_default().push(format!("{} at {start}", reader.partition));
        }
    }
    let describe = |((job, topic), starts): ((&str, &str), Vec<String>)| {
        format!("job `{job}` started topic `{topic}` at its end: partition {}", starts.join(", "))
    };
    found.into_iter().map(describe).collect()
}

/// Checks that every file that a log names exists, is readable and matches the log.
async fn check_files(
    lake: &Lake,
    histories: &Histories,
    progress: &mut impl FnMut(Progress),
) -> Result<(Check, Contents)> {
    let mut check = Check::new("files");
    let mut contents = Contents::default();
    let all: Vec<(Table, ActiveFile)> = histories
        .iter()
        .flat_map(|(table, history)| history.active.values().map(|active| (*table, active.clone())))
        .collect();
    let of = check.count("files", all.len());
    let (mut bytes, mut rows, mut files) = (0, 0, 0);
    let mut looks = futures::stream::iter(all)
        .map(|(table, active)| async move {
            let looked = files::look(lake, table, &active).await?;
            Ok::<_, Error>((table, active.file.path, looked))
        })
        .buffered(FILES_AT_ONCE);
    while let Some((table, path, looked)) = looks.try_next().await? {
        files += 1;
        progress(Progress { files, of: usize::try_from(of).unwrap_or(usize::MAX) });
        for what in &looked.wrong {
            check.findings.add(format!("{}/{path}", table.name()), what.clone(), BRING_BACK);
        }
        bytes += looked.bytes;
        rows += looked.rows;
        contents.take_in(table, &path, looked);
    }
    check.count("bytes", bytes);
    check.count("rows", rows);
    check.summary = format!("{of} files with {rows} rows exist and are fully readable");
    Ok((check, contents))
}

/// Checks that `metrics` has not read more of `events` than exists.
fn check_progress(histories: &Histories, follower: &str) -> Check {
    let (Some(metrics), Some(events)) = (histories.get(&Table::Metrics), histories.get(&Table::Events)) else {
        return Check::skipped("progress", "it needs `metrics` and `events`, and one of them cannot be checked");
    };
    let mut check = Check::new("progress");
    let next = metrics.tracks.others.get(follower).copied().unwrap_or(0);
    check.count("next_version", next);
    check.count("events_version", events.version);
    if next > events.version + 1 {
        let what = format!("it has read `events` up to version {}, which ends at version {}", next - 1, events.version);
        check.findings.add(
            "metrics",
            what,
            "the newest log entries of `events` are missing: restore them from a backup",
        );
    }
    check_rollups(histories, &mut check);
    check.summary = match next {
        0 => "`metrics` has not read any `events` yet".to_owned(),
        _ => format!("`metrics` has read `events` up to version {} of {}", next - 1, events.version),
    };
    check
}

/// Checks that no roll-up is further than its source.
fn check_rollups(histories: &Histories, check: &mut Check) {
    for rollup in RollUp::ALL {
        let at =
            |table| histories.get(&table).map(|history| Snapshot::new(history.version, history.tracks.others.clone()));
        let (Some(on), Some(source)) = (at(rollup.table()), at(rollup.source())) else { continue };
        let (rolled, end) = (rolled_to(&on), rollup.source_end(&source));
        if rolled > end && rolled_generation(&on) >= rollup.source_generation(&source) {
            let what =
                format!("it holds rows up to {rolled}, but its source `{}` ends at {end}", rollup.source().name());
            check.findings.add(
                rollup.table().name(),
                what,
                "restore both tables from backups of the same time, or run `bellwether rebuild`",
            );
        }
    }
}

fn basis(histories: &Histories, follower: &str) -> Option<Basis> {
    let (metrics, events) = (histories.get(&Table::Metrics)?, histories.get(&Table::Events)?);
    let next = metrics.tracks.others.get(follower).copied().unwrap_or(0);
    let erased = if next == 0 { None } else { events.kept_erased };
    let events = if next == 0 { Vec::new() } else { events.kept.clone()? };
    let rollup = |table: Table| {
        let history = histories.get(&table)?;
        let applications = history.tracks.others.clone();
        Some((table, RollUpBasis { applications, files: history.files() }))
    };
    Some(Basis {
        next,
        applications: metrics.tracks.others.clone(),
        events,
        metrics: metrics.files(),
        erased,
        events_applications: histories.get(&Table::Events)?.tracks.others.clone(),
        rollups: RollUp::ALL.into_iter().filter_map(|each| rollup(each.table())).collect(),
    })
}

fn partitions(events: &History) -> Vec<PartitionState> {
    let state = |(reader, track): (&Reader, &ranges::Track)| {
        let next = track.next?;
        Some(PartitionState {
            job: reader.job.clone(),
            topic: reader.topic.clone(),
            partition: reader.partition,
            from: track.taken.first().map_or(next, |taken| taken.from),
            next,
            commits: track.taken.len() + track.more_commits,
            passed_over: track.taken.iter().filter_map(|taken| taken.passed_over).sum(),
        })
    };
    events.tracks.of.iter().filter_map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::files::has_coordinates;
    use super::*;

    #[test]
    fn the_tables_that_are_held_against_offsets_are_those_with_coordinates() {
        let with: Vec<Table> = Table::ALL.into_iter().filter(|table| has_coordinates(*table)).collect();
        assert_eq!(with, [Table::Events, Table::Quarantine]);
    }

    #[test]
    fn findings_are_bounded_and_counted() {
        let mut findings = Findings::default();
        (0..FINDINGS_KEPT + 5).for_each(|n| findings.add(n.to_string(), "x", ""));
        assert_eq!((findings.kept.len(), findings.total()), (FINDINGS_KEPT, FINDINGS_KEPT + 5));
        let mut sum = Findings::default();
        sum.append(&findings);
        sum.append(&findings);
        assert_eq!(sum.total(), 2 * (FINDINGS_KEPT + 5));
    }
}
