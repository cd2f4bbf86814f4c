//! What a row of `events` states, about which run, and when two rows state the same.
//!
//! Which of several statements about one run counts is a function of their content, never of their arrival: `runs.sql` in
//! the metrics room decides it. Here statements are only told apart, by hashes, so that what is known of a run is found.
//! A hash that two runs share costs a look at both, and no more: `runs.sql` looks at the ids themselves.

use std::cell::Cell;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bellwether_lake::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// What a row of `events` states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A run was completed: contributes to its window.
    Completed,
    /// A score or a review of a run: may decide its outcome.
    Verdict,
    /// A run was handed to a person, or a policy exception was raised: a fact by the id of its event.
    Happening,
}

impl Kind {
    /// The kind of an event type.
    pub fn of(event_type: &str) -> Self {
        match event_type {
            "run.completed" => Self::Completed,
            "run.score" | "run.review" => Self::Verdict,
            // run.escalated, run.policy_exception.
            _ => Self::Happening,
        }
    }
}

/// Columns of `events` by which statements are told apart, but for `event_id`.
pub(crate) const COLUMNS: [&str; 8] =
    ["event_type", "source", "tenant", "run_id", "attempt", "revision", "event_time", "content_hash"];

/// As [`COLUMNS`], with `event_id`: only happenings need it, and it is long.
pub(crate) const COLUMNS_WITH_ID: [&str; 9] =
    ["event_type", "source", "tenant", "run_id", "attempt", "revision", "event_time", "content_hash", "event_id"];

/// The runs of a run id, which are looked at together: sources and tenants may have runs of one id, and a statement need
/// not name the tenant. Which of them a statement is about is for `runs.sql` to decide.
pub(crate) fn run_of(run_id: &str) -> u64 {
    xxh3_64(run_id.as_bytes())
}

/// The shard of a run, of so many.
pub fn shard_of(run: u64, shards: u32) -> u32 {
    // Not by the hash's own low or high bits: tables are laid out by these.
    let mixed = (run ^ (run >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let share = (u128::from(mixed) * u128::from(shards.max(1))) >> 64;
    u32::try_from(share).unwrap_or(0)
}

/// Reads which statements rows are.
pub(crate) struct Statements<'a> {
    event_type: &'a StringViewArray,
    source: &'a StringViewArray,
    tenant: &'a StringViewArray,
    run_id: &'a StringViewArray,
    event_id: Option<&'a StringViewArray>,
    attempt: &'a [i32],
    revision: &'a [i64],
    event_micros: &'a [i64],
    content_hash: &'a [i64],
    /// Room for what is hashed, which is hashed at once: its parts are a few bytes each.
    hashed: Cell<Vec<u8>>,
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
            tenant: column("tenant")?.as_string_view(),
            run_id: column("run_id")?.as_string_view(),
            event_id: batch.column_by_name("event_id").map(|column| column.as_string_view()),
            attempt: column("attempt")?.as_primitive::<Int32Type>().values(),
            revision: column("revision")?.as_primitive::<Int64Type>().values(),
            event_micros: column("event_time")?.as_primitive::<TimestampMicrosecondType>().values(),
            content_hash: column("content_hash")?.as_primitive::<Int64Type>().values(),
            hashed: Cell::default(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.event_type.len()
    }

    pub(crate) fn kind(&self, row: usize) -> Kind {
        Kind::of(self.event_type.value(row))
    }

    pub(crate) fn run_id(&self, row: usize) -> &'a str {
        self.run_id.value(row)
    }

    pub(crate) fn source(&self, row: usize) -> &'a str {
        self.source.value(row)
    }

    /// Empty where none is named.
    pub(crate) fn tenant(&self, row: usize) -> &'a str {
        self.tenant.value(row)
    }

    /// The run a row is about.
    pub(crate) fn run(&self, row: usize) -> u64 {
        run_of(self.run_id.value(row))
    }

    pub(crate) fn event_micros(&self, row: usize) -> i64 {
        self.event_micros[row]
    }

    /// True where rows cannot be told apart without their event ids, and have none.
    pub(crate) fn want_ids(&self) -> bool {
        self.event_id.is_none() && (0..self.rows()).any(|row| self.kind(row) == Kind::Happening)
    }

    /// A hash of all that tells a statement about a run from another: with the run's own, 128 bits. Of a million million
    /// statements, two share both with a probability of 1 in 10^15.
    pub(crate) fn said(&self, row: usize) -> u64 {
        let mut hashed = self.hashed.take();
        hashed.clear();
        let id = match (self.kind(row), self.event_id) {
            (Kind::Happening, Some(ids)) => ids.value(row),
            _ => "",
        };
        for part in [self.event_type.value(row), self.source.value(row), self.tenant.value(row), id] {
            hashed.extend_from_slice(&(part.len() as u64).to_le_bytes());
            hashed.extend_from_slice(part.as_bytes());
        }
        hashed.extend_from_slice(&self.attempt[row].to_le_bytes());
        for number in [self.revision[row], self.event_micros[row], self.content_hash[row]] {
            hashed.extend_from_slice(&number.to_le_bytes());
        }
        let said = xxh3_64(&hashed);
        self.hashed.set(hashed);
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_its_share() {
        for shards in [1, 2, 3, 8, 13] {
            let mut runs = vec![0_u32; shards as usize];
            for n in 0..13_000 {
                runs[shard_of(run_of(&format!("run-{n}")), shards) as usize] += 1;
            }
            let fair = 13_000 / shards;
            assert!(runs.iter().all(|runs| runs.abs_diff(fair) < fair / 5), "{shards}: {runs:?}");
        }
    }
}
