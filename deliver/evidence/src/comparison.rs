//! The two sides of an alert as conditions on rows, and the span of time in which its runs are examined.
//!
//! A release is compared with its baseline in the same windows. A series without a concurrent baseline is compared with the same
//! hours one week earlier or, if it had no runs then, one day earlier. The conditions hold for `metrics` and for view `runs`.

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use serde::Deserialize;

use crate::ask::moment;
use crate::record::AlertRecord;

/// The value by which a rule names all series of a level.
const ALL: &str = "(all)";

/// Most runs that one page examines. Their number bounds its time and memory.
pub(crate) const MOST_RUNS: i64 = 20_000;

/// Longest span that is examined, microseconds.
const LONGEST: i64 = 7 * DAY;

/// Span that is examined if the start of the change is not known, microseconds.
const USUAL: i64 = DAY;

/// Distances of the earlier span of a series without a concurrent baseline, microseconds.
const EARLIER: [i64; 2] = [7 * DAY, DAY];

const DAY: i64 = 86_400_000_000;

/// Length of the pieces in which runs are counted, microseconds.
const PIECE: i64 = 300_000_000;

/// Random groups by which runs are sampled, as in the SQL function `random_group`.
const GROUPS: i64 = 32;

/// The two sides of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Condition of both sides: the series.
    pub(crate) series: String,
    /// Condition of the release or series under judgement.
    own: String,
    /// Condition of what it is compared with.
    other: String,
    /// The span, microseconds since the epoch; the end is excluded.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// How much earlier the other side is, microseconds; 0 if it is concurrent.
    pub(crate) earlier: i64,
    /// Random groups of runs that are examined, of [`GROUPS`].
    groups: i64,
}

/// Runs of one piece of time.
#[derive(Debug, Deserialize)]
struct Counted {
    at: i64,
    own: i64,
    other: i64,
}

// === impl Comparison ===

impl Comparison {
    /// Returns both sides of an alert, over the whole time since the change.
    pub(crate) fn of(record: &AlertRecord) -> Self {
        let mut series = Vec::new();
        let model = record.labels.get("model").map(String::as_str);
        for (column, value) in [("tenant", tenant(record)), ("task", task(record)), ("model", model)] {
            // Not `tenant = …`: of a view that partitions by a column with one value, the query engine plans no window.
            series.extend(value.map(|value| format!("concat({column}, '') = {}", quoted(value))));
        }
        let stages = if record.baseline == "set" { "stage IN ('canary', 'full')" } else { "stage = 'full'" };
        let (own, other) = match &record.release_id {
            Some(release) => {
                let other = match &record.baseline_release {
                    Some(baseline) => format!("release_id = {}", quoted(baseline)),
                    None => format!("release_id <> {} AND stage = 'full'", quoted(release)),
                };
                (format!("release_id = {} AND stage IN ('canary', 'full')", quoted(release)), other)
            }
            None => (stages.to_owned(), stages.to_owned()),
        };
        let to = record.at;
        let from = record.since.filter(|since| *since < to).unwrap_or(to.saturating_sub(USUAL));
        Self {
            series: if series.is_empty() { "true".to_owned() } else { series.join(" AND ") },
            own,
            other,
            from,
            to,
            earlier: if record.baseline == "concurrent" { 0 } else { EARLIER[0] },
            groups: GROUPS,
        }
    }

    /// Returns the comparison over a span that is short enough to examine its runs, and an earlier span that has runs.
    pub(crate) async fn narrowed(&self, session: &Session) -> Result<Self> {
        let distances: &[i64] = if self.earlier == 0 { &[0] } else { &EARLIER };
        let mut narrow = self.clone();
        for earlier in distances {
            narrow = Self { earlier: *earlier, from: self.from.max(self.to.saturating_sub(LONGEST)), ..self.clone() };
            let counted = session.rows::<Counted>(&narrow.counting()).await?;
            narrow.keep_newest(&counted);
            if counted.iter().any(|piece| piece.other > 0) {
                break;
            }
        }
        Ok(narrow)
    }

    /// Returns the comparison over its own span, with what a narrower one is compared with.
    pub(crate) fn at_distance_of(&self, narrow: &Self) -> Self {
        Self { earlier: narrow.earlier, ..self.clone() }
    }

    /// Returns the query that counts the runs of both sides by pieces of time, the newest first.
    fn counting(&self) -> String {
        let side = |condition: &str, earlier: i64, counts: &str| {
            format!(
                "SELECT date_bin(INTERVAL '{} seconds', window_start + INTERVAL '{} seconds', TIMESTAMP '1970-01-01T00:00:00Z') AS at, {counts} \
                 FROM metrics WHERE {} AND {condition} AND {}",
                PIECE / 1_000_000,
                earlier / 1_000_000,
                self.series,
                span("window_start", self.from.saturating_sub(earlier), self.to.saturating_sub(earlier)),
            )
        };
        format!(
            "SELECT at, CAST(sum(own) AS BIGINT) AS own, CAST(sum(other) AS BIGINT) AS other FROM ({} UNION ALL {}) AS counted GROUP BY at ORDER BY at DESC",
            side(&self.own, 0, "runs AS own, 0 AS other"),
            side(&self.other, self.earlier, "0 AS own, runs AS other"),
        )
    }

    /// Shortens the span to the newest pieces that together have at most [`MOST_RUNS`]. If the newest piece alone has more, its
    /// runs are sampled.
    fn keep_newest(&mut self, counted: &[Counted]) {
        let mut sum = 0;
        for (place, piece) in counted.iter().enumerate() {
            let runs = piece.own.max(0) + piece.other.max(0);
            if sum + runs > MOST_RUNS {
                if place == 0 {
                    self.from = self.from.max(piece.at);
                    self.groups = (GROUPS * MOST_RUNS / runs).max(1);
                } else {
                    self.from = self.from.max(piece.at + PIECE);
                }
                return;
            }
            sum += runs;
        }
    }

    /// Returns the SQL condition that a row belongs to the side under judgement, in the span.
    pub(crate) fn is_own(&self, time: &str) -> String {
        format!("({} AND {} AND {})", self.series, self.own, span(time, self.from, self.to))
    }

    /// Returns the SQL condition that a row belongs to the side that it is compared with, in its span.
    pub(crate) fn is_other(&self, time: &str) -> String {
        let (from, to) = self.other_span();
        format!("({} AND {} AND {})", self.series, self.other, span(time, from, to))
    }

    /// Returns the span of the side that it is compared with.
    pub(crate) fn other_span(&self) -> (i64, i64) {
        (self.from.saturating_sub(self.earlier), self.to.saturating_sub(self.earlier))
    }

    /// Returns the SQL condition that a run is in the sample; `true` if all are.
    pub(crate) fn sampled(&self) -> String {
        if self.groups < GROUPS { format!("random_group(run_id) < {}", self.groups) } else { "true".to_owned() }
    }

    /// Returns true if not all runs are examined.
    pub(crate) fn is_sampled(&self) -> bool {
        self.groups < GROUPS
    }

    /// Says what the examined runs are compared with.
    pub(crate) fn against(&self) -> &'static str {
        match self.earlier {
            0 => "the baseline at the same time",
            DAY => "the same hours one day earlier",
            _ => "the same hours one week earlier",
        }
    }
}

/// Returns the tenant of an alert; `None` if it is about several.
pub(crate) fn tenant(record: &AlertRecord) -> Option<&str> {
    record.tenant.as_deref().filter(|value| *value != ALL)
}

/// Returns the task of an alert; `None` if it is about several.
pub(crate) fn task(record: &AlertRecord) -> Option<&str> {
    record.task.as_deref().filter(|value| *value != ALL)
}

fn span(time: &str, from: i64, to: i64) -> String {
    format!("{time} >= {} AND {time} < {}", moment(from), moment(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AlertRecord {
        AlertRecord {
            task: Some("refund's".to_owned()),
            tenant: Some(String::new()),
            release_id: Some("r2".to_owned()),
            baseline_release: Some("r1".to_owned()),
            baseline: "concurrent".to_owned(),
            at: 100 * DAY,
            ..AlertRecord::default()
        }
    }

    #[test]
    fn a_release_is_compared_with_its_baseline_at_the_same_time() {
        let comparison = Comparison::of(&record());
        assert_eq!(comparison.series, "concat(tenant, '') = '' AND concat(task, '') = 'refund''s'");
        assert_eq!((comparison.from, comparison.to, comparison.earlier), (99 * DAY, 100 * DAY, 0));
        assert_eq!(comparison.other_span(), (99 * DAY, 100 * DAY));
        assert!(comparison.is_own("t").contains("release_id = 'r2' AND stage IN ('canary', 'full')"));
        assert!(comparison.is_other("t").contains("release_id = 'r1'"));
        let several = Comparison::of(&AlertRecord { baseline_release: None, ..record() });
        assert!(several.is_other("t").contains("release_id <> 'r2' AND stage = 'full'"));
    }

    #[test]
    fn a_series_is_compared_with_its_own_past_and_all_series_have_no_condition() {
        let drift = AlertRecord {
            release_id: None,
            baseline: "past".to_owned(),
            task: Some(ALL.to_owned()),
            tenant: None,
            since: Some(99 * DAY + 1),
            ..record()
        };
        let comparison = Comparison::of(&drift);
        assert_eq!(comparison.series, "true");
        assert_eq!(comparison.other_span(), (92 * DAY + 1, 93 * DAY));
        assert_eq!(comparison.against(), "the same hours one week earlier");
    }

    #[test]
    fn the_newest_runs_are_kept_and_too_many_are_sampled() {
        let piece = |number: i64, runs| Counted { at: 99 * DAY + number * PIECE, own: runs, other: 1 };
        let mut comparison = Comparison::of(&record());
        comparison.keep_newest(&[piece(3, 10_000), piece(2, 9_000), piece(1, 5_000), piece(0, 1)]);
        assert_eq!((comparison.from, comparison.sampled().as_str()), (99 * DAY + 2 * PIECE, "true"));
        let mut comparison = Comparison::of(&record());
        comparison.keep_newest(&[piece(3, 79_999), piece(2, 1)]);
        assert_eq!(
            (comparison.from, comparison.sampled().as_str()),
            (99 * DAY + 3 * PIECE, "random_group(run_id) < 8")
        );
        let mut comparison = Comparison::of(&record());
        comparison.keep_newest(&[piece(3, 7), piece(2, 1)]);
        assert_eq!(comparison.from, 99 * DAY);
    }
}
