//! How far ingest has read each partition, as the log of `events` says it: whoever follows that table reads here whether
//! there are no rows because nothing was sent, or because nothing was read.
//!
//! Numbers under applications of their own, beside the offset `JOB/TOPIC/PARTITION`:
//!
//! * `…/end`: the offset after the last message that the broker holds, as far as it has been asked. A negative one:
//!   nobody reads the partition any more (its topic was taken out of the configuration, or is gone).
//! * `…/read`: a moment, microseconds since the epoch. All that the broker held then is in the tables.
//! * `JOB/TOPIC#start`: the topic was begun at its end (`kafka.start = "latest"`), in the commit that has this number. A
//!   partition that had no offset after that commit was added later, and is read from its beginning.
//!
//! They state facts, which stay true whoever writes them: nothing is fenced by them.

use std::collections::BTreeMap;

use crate::commit::Snapshot;

/// The operation of a commit that fixes where the partitions of a topic begin: it moves them without having taken anything.
pub const START: &str = "start";

/// Under `…/end`: nobody reads the partition any more.
pub const NOT_READ: i64 = -1;

/// What the log says of one partition, as one job reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Job; `replay` for files.
    pub job: String,
    /// Topic, or `file:NAME`.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset to be read next; none where nothing was taken yet.
    pub next: Option<i64>,
    /// Offset after the last message that the broker held when it was asked last; none where it never was.
    pub end: Option<i64>,
    /// All that the partition held at this moment is in the tables, microseconds since the epoch; none: not yet so.
    pub read_to_micros: Option<i64>,
}

/// A number of a partition, by what it says.
enum Number {
    Next,
    End,
    Read,
}

/// The application of the end of a partition, by the partition's own.
pub fn end_app(partition_app: &str) -> String {
    format!("{partition_app}/end")
}

/// The application of the moment up to which a partition has been read, by the partition's own.
pub fn read_app(partition_app: &str) -> String {
    format!("{partition_app}/read")
}

/// The application that says that a topic was begun at its end.
pub fn start_app(job: &str, topic: &str) -> String {
    format!("{job}/{topic}#start")
}

/// True for an application whose number is a fact about a broker, and may become smaller.
pub fn is_fact(app_id: &str) -> bool {
    matches!(split(app_id), Some((_, Number::End | Number::Read)))
}

/// The application of the partition, and what the number says of it.
fn split(app_id: &str) -> Option<(&str, Number)> {
    let (app, number) = match (app_id.strip_suffix("/end"), app_id.strip_suffix("/read")) {
        (Some(app), _) => (app, Number::End),
        (_, Some(app)) => (app, Number::Read),
        _ => (app_id, Number::Next),
    };
    partition_of(app).map(|_| (app, number))
}

/// Job, topic and partition of the application `JOB/TOPIC/PARTITION`.
pub fn partition_of(app_id: &str) -> Option<(&str, &str, i32)> {
    let (head, partition) = app_id.rsplit_once('/')?;
    let (job, topic) = head.split_once('/')?;
    Some((job, topic, partition.parse().ok()?))
}

/// What some applications' numbers say of partitions, by the partition's application.
pub fn readings<'a>(apps: impl IntoIterator<Item = (&'a str, i64)>) -> BTreeMap<String, Reading> {
    let mut found: BTreeMap<String, Reading> = BTreeMap::new();
    for (app_id, number) in apps {
        let Some((app, what)) = split(app_id) else { continue };
        let Some((job, topic, partition)) = partition_of(app) else { continue };
        let reading = found.entry(app.to_owned()).or_insert_with(|| Reading {
            job: job.to_owned(),
            topic: topic.to_owned(),
            partition,
            next: None,
            end: None,
            read_to_micros: None,
        });
        match what {
            Number::Next => reading.next = Some(number),
            Number::End => reading.end = Some(number),
            Number::Read => reading.read_to_micros = Some(number),
        }
    }
    found
}

// === impl Reading ===

impl Reading {
    /// Every partition that a version of `events` knows.
    pub fn all(events: &Snapshot) -> Vec<Self> {
        readings(events.apps()).into_values().collect()
    }

    /// True where a worker reads the partition and says how far, or did so until it stopped.
    pub fn is_followed(&self) -> bool {
        self.end.is_some_and(|end| end >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_s_numbers_are_put_together_and_others_are_left_out() {
        let apps = [
            ("main/runs/0", 9),
            ("main/runs/0/end", 12),
            ("main/runs/0/read", 77),
            ("main/runs/0/claim", 3),
            ("main/runs#id", 5),
            ("main/runs#start", 1),
            ("main/old/1/end", NOT_READ),
            ("replay/file:a.ndjson@12/0", 4),
            ("aggregate/0", 8),
        ];
        let found = readings(apps);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["main/old/1", "main/runs/0", "replay/file:a.ndjson@12/0"]);
        let runs = &found["main/runs/0"];
        assert_eq!((runs.next, runs.end, runs.read_to_micros), (Some(9), Some(12), Some(77)));
        assert!(runs.is_followed());
        assert!(!found["main/old/1"].is_followed() && !found["replay/file:a.ndjson@12/0"].is_followed());
        assert!(is_fact("main/runs/0/end") && is_fact("main/runs/0/read"));
        assert!(!is_fact("main/runs/0") && !is_fact("main/runs/0/claim") && !is_fact("aggregate/0"));
    }
}
