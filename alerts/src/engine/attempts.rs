//! The attempts to evaluate one rule: failures, when to try again, and the rows that wait meanwhile.
//!
//! A failed evaluation affects only the rows that it failed on. They are kept and tried again, after a pause that grows with
//! each failure and has jitter by the rule's name. Rows are signed sums, so that a late evaluation has the result of one in
//! time. If more rows wait than are kept, the rule is behind: once it works again, state is rebuilt from the tables.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;

/// A rule counts as failing after this many failed evaluations in a row: a single one may be chance.
pub const FAILING_AFTER: u32 = 3;

const FIRST_PAUSE_MICROS: i64 = 5_000_000;
const LONGEST_PAUSE_MICROS: i64 = 600_000_000;

/// Most bytes of rows that wait for one rule.
const WAITING_BYTES: usize = 16 << 20;

/// Most rows that are set apart for one rule, and the attempts for each.
const APART_ROWS: usize = 4096;
const ATTEMPTS: u32 = 8;

/// The failures of a rule, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Failed evaluations since the watcher opened.
    pub total: u64,
    /// Failed evaluations since the last one that worked.
    pub in_a_row: u32,
    /// Time of the first of these, microseconds since the epoch.
    pub since: Option<i64>,
    /// Time of the last failure, microseconds since the epoch; kept after the rule works again.
    pub last_failed: Option<i64>,
    /// The last error; kept after the rule works again.
    pub last_error: Option<String>,
    /// Rows that were given up after all attempts.
    pub given_up: u64,
    /// True once an evaluation worked.
    pub worked: bool,
}

impl Failures {
    /// Returns true if so many evaluations failed in a row that a person has to look.
    pub fn is_failing(&self) -> bool {
        self.in_a_row >= FAILING_AFTER
    }
}

/// Rows that failed while others of their evaluation were judged.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) rows: RecordBatch,
    /// The series, if all of its rows failed.
    pub(super) series: Option<String>,
    pub(super) attempts: u32,
    /// Time of the next attempt, microseconds since the epoch.
    pub(super) next: i64,
}

impl Apart {
    /// Sets rows apart that failed for the first time.
    pub(super) fn new(rule: &str, rows: RecordBatch, series: Option<String>, now: i64) -> Self {
        Self { rows, series, attempts: 0, next: now.saturating_add(pause_micros(rule, 1)) }
    }

    /// Returns the same rows after one more attempt.
    pub(super) fn again(self, rule: &str, now: i64) -> Self {
        let attempts = self.attempts + 1;
        Self { attempts, next: now.saturating_add(pause_micros(rule, attempts + 1)), ..self }
    }
}

/// The attempts to evaluate one rule.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) failures: Failures,
    /// Failures that are not in a metric yet.
    uncounted: u64,
    next_attempt: i64,
    /// The rule as a whole waits for the next attempt.
    pausing: bool,
    waiting: Vec<Vec<RecordBatch>>,
    waiting_bytes: usize,
    apart: Vec<Apart>,
    /// Series with rows that failed; true if none of its rows could be judged.
    pub(super) bad: BTreeMap<String, bool>,
    /// Rows that were not judged are no longer kept.
    behind: bool,
}

// === impl Attempts ===

impl Attempts {
    /// Notes that an evaluation worked.
    pub(super) fn succeeded(&mut self) {
        let failures = &mut self.failures;
        (failures.in_a_row, failures.since, failures.worked) = (0, None, true);
        // Rows that wait are tried at once.
        (self.pausing, self.next_attempt) = (false, i64::MIN);
    }

    /// Notes that an evaluation failed. With `pausing`, the rule as a whole waits for the next attempt.
    pub(super) fn failed(&mut self, rule: &str, why: String, now: i64, pausing: bool) {
        let failures = &mut self.failures;
        failures.total += 1;
        failures.in_a_row = failures.in_a_row.saturating_add(1);
        failures.since.get_or_insert(now);
        failures.last_failed = Some(now);
        if failures.in_a_row == 1 || failures.last_error.as_ref() != Some(&why) {
            tracing::warn!(rule, why, "a rule could not be evaluated and is tried again; other rules are not affected");
        }
        failures.last_error = Some(why);
        self.uncounted += 1;
        self.pausing = pausing;
        self.next_attempt = now.saturating_add(pause_micros(rule, failures.in_a_row));
    }

    /// Returns true while the rule as a whole waits for the next attempt.
    pub(super) fn pauses(&self, now: i64) -> bool {
        self.pausing && now < self.next_attempt
    }

    /// Returns true if rows wait and it is time for their next attempt.
    pub(super) fn is_due(&self, now: i64) -> bool {
        (now >= self.next_attempt && !self.waiting.is_empty()) || self.apart.iter().any(|apart| now >= apart.next)
    }

    /// Returns true if windows must not be judged because some of their rows wait.
    pub(super) fn holds(&self) -> bool {
        self.pausing || !self.waiting.is_empty()
    }

    /// Returns true if the windows of one series must not be judged.
    pub(super) fn holds_series(&self, series: &str) -> bool {
        self.apart.iter().any(|apart| apart.series.as_deref() == Some(series))
    }

    /// Returns true if rows of any series are set apart.
    pub(super) fn has_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    /// Keeps rows for the next attempt.
    pub(super) fn wait(&mut self, rows: Vec<RecordBatch>) {
        self.waiting_bytes += rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        self.waiting.push(rows);
        if self.waiting_bytes > WAITING_BYTES {
            self.fall_behind();
        }
    }

    /// Drops the rows that wait: they are in the tables.
    pub(super) fn fall_behind(&mut self) {
        (self.waiting, self.waiting_bytes, self.behind) = (Vec::new(), 0, true);
    }

    /// Returns true if rows were dropped and the rule works again: state must be rebuilt from the tables.
    pub(super) fn wants_rebuild(&self) -> bool {
        self.behind && self.failures.in_a_row == 0 && self.failures.worked
    }

    pub(super) fn take_waiting(&mut self, now: i64) -> Vec<Vec<RecordBatch>> {
        if now < self.next_attempt {
            return Vec::new();
        }
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn take_apart(&mut self, now: i64) -> Vec<Apart> {
        let (due, later) = std::mem::take(&mut self.apart).into_iter().partition(|apart| now >= apart.next);
        self.apart = later;
        due
    }

    /// Keeps rows that were set apart, or gives them up after all attempts.
    pub(super) fn put_apart(&mut self, apart: Apart) {
        if apart.attempts >= ATTEMPTS {
            return self.give_up(&apart);
        }
        self.apart.push(apart);
        while self.apart.len() > 1 && self.apart.iter().map(|apart| apart.rows.num_rows()).sum::<usize>() > APART_ROWS {
            let oldest = self.apart.remove(0);
            self.give_up(&oldest);
        }
    }

    fn give_up(&mut self, apart: &Apart) {
        self.failures.given_up += apart.rows.num_rows() as u64;
    }

    /// Returns the number of failures since the last call.
    pub(super) fn count(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }
}

/// Returns the pause before the next attempt: doubled with every failure up to ten minutes, with jitter, so that rules that
/// failed together are not tried together.
fn pause_micros(rule: &str, failures: u32) -> i64 {
    let doubled = FIRST_PAUSE_MICROS << failures.saturating_sub(1).min(7);
    // FNV-1a: jitter without a random generator, the same in every process.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in rule.bytes().chain(failures.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let spread = i64::try_from(hash % 1000).unwrap_or(0);
    (doubled / 4 * 3 + doubled / 2 / 1000 * spread).min(LONGEST_PAUSE_MICROS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(count: usize) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; count]));
        RecordBatch::try_from_iter([("n", column)]).expect("rows")
    }

    #[test]
    fn pauses_grow_within_bounds_and_have_jitter() {
        for failures in 1..40 {
            let (one, other) = (pause_micros("one", failures), pause_micros("other", failures));
            let doubled = FIRST_PAUSE_MICROS << (failures - 1).min(7);
            for pause in [one, other] {
                assert!(
                    (doubled / 4 * 3..=doubled / 4 * 5).contains(&pause.max(doubled / 4 * 3)),
                    "{failures}: {pause}"
                );
                assert!(pause <= LONGEST_PAUSE_MICROS);
            }
            if doubled / 4 * 5 < LONGEST_PAUSE_MICROS {
                assert_ne!(one, other, "{failures}");
            }
        }
    }

    #[test]
    fn waiting_rows_are_bounded_and_rows_set_apart_are_given_up() {
        let mut attempts = Attempts::default();
        attempts.failed("r", "no".to_owned(), 0, true);
        assert!(attempts.pauses(1) && attempts.holds() && !attempts.is_due(i64::MAX));
        attempts.wait(vec![rows(10)]);
        assert!(attempts.is_due(i64::MAX) && !attempts.is_due(1));
        attempts.wait(vec![rows(WAITING_BYTES / 8 + 1)]);
        assert!(attempts.take_waiting(i64::MAX).is_empty() && attempts.behind && !attempts.wants_rebuild());
        attempts.succeeded();
        assert!(attempts.wants_rebuild() && !attempts.holds());
        for _ in 0..3 {
            attempts.put_apart(Apart::new("r", rows(2000), Some("a".to_owned()), 0));
        }
        assert!(attempts.holds_series("a") && !attempts.holds_series("b"));
        assert_eq!(attempts.failures.given_up, 2000);
        assert!(!attempts.is_due(1) && attempts.take_apart(1).is_empty());
        assert_eq!(attempts.take_apart(i64::MAX).len(), 2);
        let mut apart = Apart::new("r", rows(1), None, 0);
        for _ in 0..ATTEMPTS {
            let next = apart.next;
            apart = apart.again("r", next);
            assert!(apart.next > next);
        }
        attempts.put_apart(apart);
        assert_eq!(attempts.failures.given_up, 2001);
        assert_eq!((attempts.count(), attempts.count()), (1, 0));
    }
}
