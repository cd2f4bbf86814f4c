//! Compares rows with offset ranges: every message in the range of a commit is in exactly one row.

use std::collections::BTreeMap;

use super::coordinates::{Mismatch, Place, Removed, Run, Surplus, Verdict, judge};
use super::files::{self, Looked, PlaceKey};
use super::history::History;
use super::ranges::{Reader, offsets};
use super::{Check, Findings};
use bellwether_base::Result;
use bellwether_lake::{Lake, RemovedRows};
use bellwether_tables::Table;

/// Number of findings about duplicates for which the files are looked up.
const LOCATED: usize = 5;

const LOST: &str = "read the topic under another `kafka.job` into fresh tables, and compare";
const DOUBLED: &str = "keep a copy of the tables and report it: two writers have committed the same messages";

/// The rows of all files.
#[derive(Default)]
pub(crate) struct Contents {
    /// Offsets of rows, by table.
    runs: BTreeMap<PlaceKey, BTreeMap<Table, Vec<Run>>>,
    /// Range of the offsets of each file.
    spans: Vec<(Table, String, PlaceKey, Run)>,
    astray: Findings,
}

// === impl Contents ===

impl Contents {
    /// Adds the rows of a file.
    pub(crate) fn take_in(&mut self, table: Table, path: &str, looked: Looked) {
        for what in looked.astray {
            self.astray.add(format!("{}/{path}", table.name()), what, DOUBLED);
        }
        for (place, runs) in looked.places {
            if let Some((first, last)) = runs.first().zip(runs.iter().map(|run| run.end).max()) {
                self.spans.push((table, path.to_owned(), place.clone(), Run { start: first.start, end: last }));
            }
            self.runs.entry(place).or_default().entry(table).or_default().extend(runs);
        }
    }

    /// Combines rows and commits for each partition.
    fn places(&mut self, events: &History, quarantine: &History) -> BTreeMap<PlaceKey, Place> {
        let mut places: BTreeMap<PlaceKey, Place> = BTreeMap::new();
        for (place, mut runs) in std::mem::take(&mut self.runs) {
            let of = places.entry(place).or_default();
            of.events = runs.remove(&Table::Events).unwrap_or_default();
            of.quarantine = runs.remove(&Table::Quarantine).unwrap_or_default();
        }
        for (reader, track) in &events.tracks.of {
            let of = places.entry(key(reader)).or_default();
            of.taken.extend(&track.taken);
            let begins = track.taken.first().map(|taken| taken.from).or(track.next);
            if !events.is_accounted {
                of.before.extend(begins.map(|end| Run { start: i64::MIN, end }));
            }
        }
        for removed in events.tracks.removed.iter().chain(&quarantine.tracks.removed) {
            let RemovedRows { topic, partition, from, next, rows } = removed;
            let of = places.entry((topic.as_str().into(), *partition)).or_default();
            of.removed.push(Removed { from: *from, next: *next, rows: *rows });
        }
        for (reader, track) in &quarantine.tracks.of {
            let next = events.tracks.of.get(reader).and_then(|track| track.next);
            let begins = next.or_else(|| track.taken.iter().map(|taken| taken.from).min());
            let of = places.entry(key(reader)).or_default();
            of.pending.extend(begins.zip(track.next).map(|(start, end)| Run { start, end }));
        }
        places
    }
}

fn key(reader: &Reader) -> PlaceKey {
    (reader.topic.as_str().into(), reader.partition)
}

/// Checks that each message is in exactly one row (L-1, L-2). Returns the checks `duplicates` and `rows`.
pub(crate) async fn check_rows(
    lake: &Lake,
    events: &History,
    quarantine: &History,
    mut contents: Contents,
) -> Result<[Check; 2]> {
    let (mut duplicates, mut rows) = (Check::new("duplicates"), Check::new("rows"));
    let mut totals = [0_i64; 6];
    let mut surplus_offsets = 0;
    for (place, known) in contents.places(events, quarantine) {
        let verdict = judge(&known);
        let Verdict { offsets, events: in_events, quarantined, passed_over, pending, removed, .. } = verdict;
        let counted = [offsets, in_events, quarantined, passed_over, pending, removed];
        totals.iter_mut().zip(counted).for_each(|(total, more)| *total += more);
        for surplus in &verdict.surplus {
            surplus_offsets += surplus.run.end - surplus.run.start;
            let mut what = describe_surplus(surplus);
            if duplicates.findings.total() < LOCATED {
                let tables = [(Table::Events, events), (Table::Quarantine, quarantine)];
                what.push_str(&located(lake, tables, &contents.spans, &place, surplus.run.start).await);
            }
            duplicates.findings.add(format!("{}/{}", place.0, place.1), what, DOUBLED);
        }
        for mismatch in &verdict.mismatches {
            rows.findings.add(format!("{}/{}", place.0, place.1), describe_mismatch(mismatch), LOST);
        }
    }
    duplicates.findings.append(&contents.astray);
    let [offsets, in_events, quarantined, passed_over, pending, removed] = totals;
    duplicates.count("events", in_events);
    duplicates.count("quarantined", quarantined + pending);
    duplicates.count("surplus_offsets", surplus_offsets);
    duplicates.summary = format!("{} rows without duplicates", in_events + quarantined + pending);
    rows.counts = vec![
        ("offsets", offsets),
        ("events", in_events),
        ("quarantined", quarantined),
        ("passed_over", passed_over),
        ("quarantined_ahead", pending),
    ];
    rows.summary =
        format!("{offsets} offsets = {in_events} events + {quarantined} quarantined + {passed_over} without a message");
    if removed > 0 {
        rows.counts.push(("removed", removed));
        rows.summary.push_str(&format!(" + {removed} removed"));
    }
    if pending > 0 {
        rows.notes.push(format!("{pending} rejected messages are in `quarantine` ahead of their commit to `events`"));
    }
    Ok([duplicates, rows])
}

fn describe_surplus(surplus: &Surplus) -> String {
    let Surplus { run, events, quarantine, taken } = surplus;
    let place = match (events, quarantine) {
        (0, n) => format!("in `quarantine` {n} times"),
        (n, 0) => format!("in `events` {n} times"),
        (1, 1) => "in `events` and in `quarantine`".to_owned(),
        (n, m) => format!("in `events` {n} times and in `quarantine` {m} times"),
    };
    let why = match taken {
        0 => "but in no commit".to_owned(),
        1 => "but only in one commit".to_owned(),
        n => format!("but only in {n} commits"),
    };
    format!("{}: {place}, {why}", offsets(run.start, run.end))
}

fn describe_mismatch(mismatch: &Mismatch) -> String {
    let Mismatch { run, versions: (first, last), offsets: taken, rows, passed_over, removed, empty } = mismatch;
    let commits = match first == last {
        true => format!("version {first} covers"),
        false => format!("versions {first} to {last} cover"),
    };
    let said = match passed_over {
        Some(passed_over) => format!("{passed_over} of them without a message"),
        None => "without stating how many held no message".to_owned(),
    };
    let said = if *removed > 0 { format!("{said} and {removed} removed") } else { said };
    let missing: Vec<String> = empty.iter().map(|run| offsets(run.start, run.end)).collect();
    let missing = if missing.is_empty() { String::new() } else { format!("; in no row: {}", missing.join(", ")) };
    format!(
        "{commits} {} ({taken}), {said}, but {rows} are in `events` or `quarantine`{missing}",
        offsets(run.start, run.end)
    )
}

/// Names the files that hold an offset, for people.
async fn located(
    lake: &Lake,
    tables: [(Table, &History); 2],
    spans: &[(Table, String, PlaceKey, Run)],
    place: &PlaceKey,
    offset: i64,
) -> String {
    let mut names = Vec::new();
    for (table, path, of, span) in spans {
        let history = tables.iter().find(|(other, _)| other == table).map(|(_, history)| history);
        let active = history.and_then(|history| history.active.get(path));
        let Some(active) = active.filter(|_| of == place && (span.start..span.end).contains(&offset)) else { continue };
        // A file that has become unreadable since it was checked is left out; the finding remains valid.
        match files::count_of(lake, *table, active, place, offset).await {
            Ok(0) | Err(_) => {}
            Ok(1) => names.push(format!("{}/{path}", table.name())),
            Ok(times) => names.push(format!("{}/{path} ({times} times)", table.name())),
        }
    }
    if names.is_empty() { String::new() } else { format!("; offset {offset} is in {}", names.join(" and ")) }
}
