//! Compares the offset ranges of commits: for each application they are contiguous and only grow (L-3).
//!
//! Pure: its only input is the log, entry by entry.

use std::collections::BTreeMap;

use super::Findings;
use super::coordinates::Taken;
use bellwether_lake::LogEntry;
use bellwether_lake::PartitionRange;
use bellwether_lake::reading::START;
use bellwether_lake::{CleanedLog, CleanedPartition, CleanedRange, RemovedRows};
use bellwether_tables::{AppId, PartitionId};

/// A partition, as one job reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reader {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) job: String,
}

/// The rule for the ranges of an application's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `events`: each range starts at the end of the one before.
    Contiguous,
    /// `quarantine`: batches without a rejected message are not committed, so there are gaps; numbers only grow.
    Growing,
}

/// The commits of one job in one partition so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    /// Ranges of its commits, oldest first.
    pub(crate) taken: Vec<Taken>,
    /// Commits of which only the sum is known, less one for each range: their log entries were cleaned up.
    pub(crate) more_commits: usize,
    /// Its next offset.
    pub(crate) next: Option<i64>,
    /// Its first offset, if a commit fixed it before anything was read.
    pub(crate) start: Option<i64>,
}

/// The progress of all applications of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracks {
    pub(crate) of: BTreeMap<Reader, Track>,
    /// Numbers of applications that are not partitions: rewrites, readers of other tables, ids of topics.
    pub(crate) others: BTreeMap<String, i64>,
    /// Rows that were removed on purpose, by topic and partition.
    pub(crate) removed: Vec<RemovedRows>,
}

/// Returns the partition that an application's id names: `JOB/TOPIC/PARTITION`.
pub(crate) fn reader(app_id: &str) -> Option<Reader> {
    let PartitionId { job, topic, partition } = app_id.parse().ok()?;
    Some(Reader { topic, partition, job })
}

/// Describes the offsets [from, next), for people.
pub(crate) fn offsets(from: i64, next: i64) -> String {
    match next.saturating_sub(from) {
        1 => format!("offset {from}"),
        _ => format!("offsets {from} to {}", next.saturating_sub(1)),
    }
}

// === impl Tracks ===

impl Tracks {
    /// Takes in the record of log entries that were cleaned up.
    pub(crate) fn begin_with(&mut self, record: CleanedLog) {
        self.removed = record.removed;
        for CleanedPartition { job, topic, partition, start, taken } in record.partitions {
            let commits = taken.iter().map(|range| usize::try_from(range.commits).unwrap_or(1)).sum::<usize>();
            let track = Track {
                more_commits: commits.saturating_sub(taken.len()),
                next: taken.last().map(|range| range.next).or(start),
                start,
                taken: taken
                    .into_iter()
                    .map(|CleanedRange { from, next, passed_over, .. }| Taken {
                        from,
                        next,
                        passed_over,
                        version: record.version,
                    })
                    .collect(),
            };
            self.of.insert(Reader { topic, partition, job }, track);
        }
    }

    /// Sets the numbers of the applications before the first remaining log entry.
    pub(crate) fn begin(&mut self, apps: impl IntoIterator<Item = (String, i64)>) {
        for (app_id, number) in apps {
            match reader(&app_id) {
                Some(reader) => self.of.entry(reader).or_default().next = Some(number),
                None => {
                    self.others.insert(app_id, number);
                }
            }
        }
    }

    /// Adds the numbers of applications that no remaining log entry mentions.
    pub(crate) fn add_unseen(&mut self, apps: impl IntoIterator<Item = (String, i64)>) {
        let seen = self.numbers();
        self.begin(apps.into_iter().filter(|(app_id, _)| !seen.contains_key(app_id)));
    }

    /// Returns the number of every application.
    pub(crate) fn numbers(&self) -> BTreeMap<String, i64> {
        let of = self.of.iter().filter_map(|(reader, track)| Some((reader.app_id(), track.next?)));
        of.chain(self.others.iter().map(|(app, number)| (app.clone(), *number))).collect()
    }

    /// Adds an entry, and reports its violations.
    pub(crate) fn follow(&mut self, entry: &LogEntry, rule: Rule, findings: &mut Findings) {
        self.removed.extend(entry.removed_rows.iter().cloned());
        let mut moved: Vec<(Reader, i64)> = Vec::new();
        for (app_id, number) in &entry.txns {
            match reader(app_id) {
                Some(reader) => moved.push((reader, *number)),
                None => self.follow_other(app_id, *number, entry.version, findings),
            }
        }
        for range in &entry.ranges {
            let of_range = |reader: &Reader| reader.topic == range.topic && reader.partition == range.partition;
            let Some(index) = moved.iter().position(|(reader, _)| of_range(reader)) else {
                let what = format!(
                    "version {} covers {}, but advances no job past them",
                    entry.version,
                    offsets(range.from, range.next)
                );
                findings.add(format!("{}/{}", range.topic, range.partition), what, EDITED);
                continue;
            };
            let (reader, number) = moved.swap_remove(index);
            self.follow_range(reader, number, range, entry.version, rule, findings);
        }
        for (reader, number) in moved {
            let track = self.of.entry(reader.clone()).or_default();
            if entry.operation == START && track.next.is_none() {
                (track.start, track.next) = (Some(number), Some(number));
                continue;
            }
            let what = format!("version {} advances it to {number} without stating an offset range", entry.version);
            findings.add(reader.to_string(), what, EDITED);
            track.next = Some(number);
        }
    }

    fn follow_other(&mut self, app_id: &str, number: i64, version: i64, findings: &mut Findings) {
        let before = self.others.insert(app_id.to_owned(), number);
        let known = app_id.parse::<AppId>().ok();
        if known.as_ref().is_some_and(AppId::is_fact) {
            return;
        }
        // The id of a topic, and the record that it was started at its end, never change. All other numbers only grow.
        let topic_id = matches!(known, Some(AppId::TopicId { .. } | AppId::TopicStart { .. }));
        if before.is_some_and(|before| if topic_id { number != before } else { number < before }) {
            let before = before.unwrap_or_default();
            findings.add(app_id.to_owned(), format!("version {version} changes it from {before} to {number}"), EDITED);
        }
    }

    fn follow_range(
        &mut self,
        reader: Reader,
        number: i64,
        range: &PartitionRange,
        version: i64,
        rule: Rule,
        findings: &mut Findings,
    ) {
        let name = reader.to_string();
        let PartitionRange { from, next, passed_over, .. } = *range;
        if next != number {
            let what = format!("version {version} covers {}, but records {number} as next offset", offsets(from, next));
            findings.add(name.clone(), what, EDITED);
        }
        let track = self.of.entry(reader).or_default();
        let before = track.next.replace(number);
        if next <= from || from < 0 {
            findings.add(name, format!("version {version} states the empty or invalid range [{from}, {next})"), EDITED);
            return;
        }
        if passed_over.is_some_and(|passed_over| !(0..=next - from).contains(&passed_over)) {
            let passed_over = passed_over.unwrap_or_default();
            let what =
                format!("version {version} states that {passed_over} of {} held no message", offsets(from, next));
            findings.add(name.clone(), what, EDITED);
        }
        match (rule, before) {
            (Rule::Contiguous, Some(before)) if from > before => {
                let what = format!("no commit covers {}: version {version} starts at {from}", offsets(before, from));
                findings.add(name, what, SKIPPED);
            }
            (Rule::Contiguous, Some(before)) if from < before => {
                let end = before.min(next);
                let what = format!("version {version} covers {} again", offsets(from, end));
                findings.add(name, what, TWICE);
            }
            (Rule::Growing, Some(before)) if next <= before => {
                let what = format!("version {version} changes it from {before} to {next}");
                findings.add(name, what, EDITED);
            }
            _ => {}
        }
        track.taken.push(Taken { from, next, passed_over, version });
    }
}

const EDITED: &str = "ingest never writes this: the log entry was changed; restore it from a backup";
const SKIPPED: &str = "to recover all messages, read the topic into new tables under another `kafka.job`";
const TWICE: &str = "two writers have overwritten each other's commits: check that the store supports conditional puts";

// === impl Reader ===

impl Reader {
    /// Returns the application's id.
    fn app_id(&self) -> String {
        AppId::partition(&self.job, &self.topic, self.partition).to_string()
    }
}

impl std::fmt::Display for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} (job `{}`)", self.topic, self.partition, self.job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: i64, app: i64, from: i64, next: i64, passed_over: Option<i64>) -> LogEntry {
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from,
            next,
            end_offset: None,
            newest_event_micros: None,
            passed_over,
        };
        LogEntry { version, txns: vec![("j/t/0".to_owned(), app)], ranges: vec![range], ..LogEntry::default() }
    }

    fn follow(rule: Rule, entries: &[LogEntry]) -> (Tracks, Vec<String>) {
        let (mut tracks, mut findings) = (Tracks::default(), Findings::default());
        for entry in entries {
            tracks.follow(entry, rule, &mut findings);
        }
        (tracks, findings.kept.into_iter().map(|finding| format!("{}: {}", finding.place, finding.what)).collect())
    }

    #[test]
    fn ids_of_applications_are_distinguished() {
        let reader_of = |job: &str, topic: &str, partition| {
            Some(Reader { job: job.to_owned(), topic: topic.to_owned(), partition })
        };
        assert_eq!(reader("prod/llm.runs/3"), reader_of("prod", "llm.runs", 3));
        assert_eq!(reader("replay/file:a.ndjson@12/0"), reader_of("replay", "file:a.ndjson@12", 0));
        for other in ["aggregate/0", "maintain/rewrites", "prod/llm.runs#id"] {
            assert_eq!(reader(other), None, "{other}");
        }
    }

    #[test]
    fn commits_that_join_are_right_wherever_they_begin() {
        let (tracks, findings) = follow(Rule::Contiguous, &[entry(1, 9, 5, 9, Some(0)), entry(2, 10, 9, 10, None)]);
        assert_eq!(findings, Vec::<String>::new());
        let track = tracks.of.values().next().expect("one partition");
        assert_eq!((track.next, track.taken.len()), (Some(10), 2));
    }

    #[test]
    fn a_gap_and_an_overlap_are_reported_with_their_offsets() {
        let (_, hole) = follow(Rule::Contiguous, &[entry(1, 5, 0, 5, None), entry(2, 9, 6, 9, None)]);
        assert_eq!(hole, ["t/0 (job `j`): no commit covers offset 5: version 2 starts at 6"]);
        let (_, overlap) = follow(Rule::Contiguous, &[entry(1, 5, 0, 5, None), entry(2, 9, 3, 9, None)]);
        assert_eq!(overlap, ["t/0 (job `j`): version 2 covers offsets 3 to 4 again"]);
    }

    #[test]
    fn a_number_that_is_not_the_end_of_its_range_is_found() {
        let (_, findings) = follow(Rule::Contiguous, &[entry(1, 6, 0, 5, None)]);
        assert_eq!(findings, ["t/0 (job `j`): version 1 covers offsets 0 to 4, but records 6 as next offset"]);
        let (_, findings) = follow(Rule::Contiguous, &[entry(1, 5, 5, 5, None)]);
        assert_eq!(findings.len(), 1);
        let (_, findings) = follow(Rule::Contiguous, &[entry(1, 5, 0, 5, Some(6))]);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn quarantine_may_leave_offsets_out_and_begin_again_but_only_grows() {
        let (_, findings) =
            follow(Rule::Growing, &[entry(1, 5, 0, 5, None), entry(2, 30, 20, 30, None), entry(3, 40, 25, 40, None)]);
        assert_eq!(findings, Vec::<String>::new());
        let (_, findings) = follow(Rule::Growing, &[entry(1, 5, 0, 5, None), entry(2, 5, 0, 5, None)]);
        assert_eq!(findings, ["t/0 (job `j`): version 2 changes it from 5 to 5"]);
    }

    #[test]
    fn a_range_without_its_number_and_a_number_without_its_range_are_found() {
        let bare = LogEntry { txns: Vec::new(), ..entry(1, 5, 0, 5, None) };
        let (_, findings) = follow(Rule::Contiguous, &[bare]);
        assert_eq!(findings, ["t/0: version 1 covers offsets 0 to 4, but advances no job past them"]);
        let bare = LogEntry { ranges: Vec::new(), ..entry(1, 5, 0, 5, None) };
        let (_, findings) = follow(Rule::Contiguous, &[bare]);
        assert_eq!(findings, ["t/0 (job `j`): version 1 advances it to 5 without stating an offset range"]);
    }

    #[test]
    fn a_start_that_was_recorded_is_where_the_first_commit_must_begin() {
        let start = LogEntry { ranges: Vec::new(), operation: START.to_owned(), ..entry(1, 5, 0, 0, None) };
        let (tracks, findings) = follow(Rule::Contiguous, &[start.clone(), entry(2, 9, 5, 9, None)]);
        assert_eq!(findings, Vec::<String>::new());
        assert_eq!(tracks.of.values().next().map(|track| track.start), Some(Some(5)));
        let (_, findings) = follow(Rule::Contiguous, &[start.clone(), entry(2, 9, 7, 9, None)]);
        assert_eq!(findings, ["t/0 (job `j`): no commit covers offsets 5 to 6: version 2 starts at 7"]);
        let (_, findings) = follow(Rule::Contiguous, &[start.clone(), entry(2, 9, 3, 9, None)]);
        assert_eq!(findings, ["t/0 (job `j`): version 2 covers offsets 3 to 4 again"]);
        // A topic cannot be started twice.
        let (_, findings) = follow(Rule::Contiguous, &[start.clone(), LogEntry { version: 2, ..start }]);
        assert_eq!(findings, ["t/0 (job `j`): version 2 advances it to 5 without stating an offset range"]);
    }

    #[test]
    fn what_is_said_of_a_broker_may_become_less() {
        let says = |version, number| LogEntry {
            version,
            txns: vec![("j/t/0/end".to_owned(), number), ("j/t/0/read".to_owned(), number)],
            ..LogEntry::default()
        };
        let (tracks, findings) = follow(Rule::Contiguous, &[says(1, 7), says(2, -1)]);
        assert_eq!((tracks.of.len(), findings), (0, Vec::new()));
    }

    #[test]
    fn a_topic_keeps_its_id_and_other_numbers_only_grow() {
        let says = |version, app: &str, number| LogEntry {
            version,
            txns: vec![(app.to_owned(), number)],
            ..LogEntry::default()
        };
        let (_, findings) = follow(Rule::Contiguous, &[says(1, "j/t#id", 7), says(2, "j/t#id", 8)]);
        assert_eq!(findings, ["j/t#id: version 2 changes it from 7 to 8"]);
        let (_, findings) = follow(Rule::Contiguous, &[says(1, "aggregate/0", 7), says(2, "aggregate/0", 6)]);
        assert_eq!(findings, ["aggregate/0: version 2 changes it from 7 to 6"]);
    }
}
