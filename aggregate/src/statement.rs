//! Statements: each row of `events` states something about a run. This module identifies the run, and finds repeated
//! statements.
//!
//! Which of several statements about a run counts is a function of their content, never of their arrival: `runs.sql` in the
//! metrics crate decides it. Here statements are only distinguished, by hashes, to find those about one run. If two runs share a
//! hash, both are looked at and nothing else changes: `runs.sql` compares the ids themselves.

use std::cell::Cell;

use arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// The kinds of statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatementKind {
    /// A completed run: contributes to its window.
    Completed,
    /// A score or a review of a run: may decide its outcome.
    Verdict,
    /// A run was handed to a person, or a policy exception was raised. Each event is a fact of its own, identified by its id.
    Happening,
}

impl StatementKind {
    /// Returns the kind of an event type.
    pub(crate) fn of(event_type: &str) -> Self {
        match event_type {
            "run.completed" => Self::Completed,
            "run.score" | "run.review" => Self::Verdict,
            // run.escalated, run.policy_exception.
            _ => Self::Happening,
        }
    }
}

/// Columns of `events` that distinguish statements, except `event_id`.
pub(crate) const COLUMNS: [&str; 8] =
    ["event_type", "source", "tenant", "run_id", "attempt", "revision", "event_time", "content_hash"];

/// [`COLUMNS`] with `event_id`, which is a long text and which only escalations and policy exceptions need.
pub(crate) const COLUMNS_WITH_ID: [&str; 9] =
    ["event_type", "source", "tenant", "run_id", "attempt", "revision", "event_time", "content_hash", "event_id"];

/// Returns the hash of a run id. Sources and tenants may have runs of one id, and a statement need not name the tenant, so
/// that all runs of an id are looked at together: `runs.sql` decides which of them a statement is about.
pub(crate) fn run_of(run_id: &str) -> u64 {
    xxh3_64(run_id.as_bytes())
}

/// Returns the shard of a run.
pub(crate) fn shard_of(run: u64, shards: u32) -> u32 {
    // Mixed first, because the index divides runs among its tables by the bits of the same hash.
    let mixed = (run ^ (run >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let share = (u128::from(mixed) * u128::from(shards.max(1))) >> 64;
    u32::try_from(share).unwrap_or(0)
}

/// The statements in the rows of a batch.
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
    /// Buffer for the bytes to hash: hashing them at once is faster, because the parts have a few bytes each.
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

    pub(crate) fn kind(&self, row: usize) -> StatementKind {
        StatementKind::of(self.event_type.value(row))
    }

    pub(crate) fn run_id(&self, row: usize) -> &'a str {
        self.run_id.value(row)
    }

    pub(crate) fn source(&self, row: usize) -> &'a str {
        self.source.value(row)
    }

    /// Returns the tenant of a row; empty if it names none.
    pub(crate) fn tenant(&self, row: usize) -> &'a str {
        self.tenant.value(row)
    }

    /// Returns the hash of the run id that a row is about.
    pub(crate) fn run(&self, row: usize) -> u64 {
        run_of(self.run_id.value(row))
    }

    pub(crate) fn event_micros(&self, row: usize) -> i64 {
        self.event_micros[row]
    }

    /// Returns true if rows can only be distinguished by their event ids, and the batch lacks these.
    pub(crate) fn want_ids(&self) -> bool {
        self.event_id.is_none() && (0..self.rows()).any(|row| self.kind(row) == StatementKind::Happening)
    }

    /// Returns a hash of everything that distinguishes a statement from others about the same run. Together with the hash of
    /// the run, it has 128 bits: among 10^12 statements, the probability that two share both is 10^-15.
    pub(crate) fn hash(&self, row: usize) -> u64 {
        let mut hashed = self.hashed.take();
        hashed.clear();
        let id = match (self.kind(row), self.event_id) {
            (StatementKind::Happening, Some(ids)) => ids.value(row),
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
        let hash = xxh3_64(&hashed);
        self.hashed.set(hashed);
        hash
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
