//! Which of several statements about one run counts: a function of their content, never of their arrival.

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bellwether_lake::{Error, Result};
use xxhash_rust::xxh3::Xxh3;

/// What a row of `events` states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run was completed: contributes to its window.
    Completed,
    /// Kept in `events`; the outcome it may set is not applied to the run's window.
    Late,
}

impl Kind {
    /// The kind of an event type.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "run.completed" => Self::Completed,
            // run.score, run.review, run.escalated, run.policy_exception.
            _ => Self::Late,
        }
    }
}

/// The rank of a statement: of two about one run the greater counts. Revision, then event time, then a hash of the
/// content, so that any two different statements differ in rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Stated revision.
    pub revision: i64,
    /// Time of the statement, microseconds since the epoch.
    pub event_micros: i64,
    /// Hash of the message body.
    pub content_hash: i64,
}

/// Columns of `events` that identify and rank statements.
pub(crate) const COLUMNS: [&str; 7] =
    ["event_type", "source", "run_id", "attempt", "revision", "event_time", "content_hash"];

/// Reads identity and rank of rows.
pub(crate) struct Statements<'a> {
    event_type: &'a StringViewArray,
    source: &'a StringViewArray,
    run_id: &'a StringViewArray,
    attempt: &'a [i32],
    revision: &'a [i64],
    event_micros: &'a [i64],
    content_hash: &'a [i64],
}

// === impl Statements ===

impl<'a> Statements<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Result<Self> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| Error::bug(format!("rows of events lack column `{name}`")))
        };
        Ok(Self {
            event_type: column("event_type")?.as_string_view(),
            source: column("source")?.as_string_view(),
            run_id: column("run_id")?.as_string_view(),
            attempt: column("attempt")?.as_primitive::<Int32Type>().values(),
            revision: column("revision")?.as_primitive::<Int64Type>().values(),
            event_micros: column("event_time")?.as_primitive::<TimestampMicrosecondType>().values(),
            content_hash: column("content_hash")?.as_primitive::<Int64Type>().values(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.event_type.len()
    }

    pub(crate) fn kind(&self, row: usize) -> Kind {
        Kind::of(self.event_type.value(row))
    }

    /// The run a row is about: a hash of source, run id and attempt. 128 bits: of a million million runs, two share a
    /// hash with a probability of 1 in 10^15.
    pub(crate) fn run(&self, row: usize) -> u128 {
        let mut hash = Xxh3::new();
        for part in [self.source.value(row), self.run_id.value(row)] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(&self.attempt[row].to_le_bytes());
        hash.digest128()
    }

    pub(crate) fn rank(&self, row: usize) -> Rank {
        Rank {
            revision: self.revision[row],
            event_micros: self.event_micros[row],
            content_hash: self.content_hash[row],
        }
    }
}
