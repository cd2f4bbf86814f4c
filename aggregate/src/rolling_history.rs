//! Records the rolling metrics as they were known when event time passed a boundary of a span.
//!
//! Longer spans have rarer boundaries. If one step passes several, only the newest is written, because the values at the
//! others were not known at their time.
//!
//! The values are those of view `rolling`, by the same SQL ([`bellwether_metrics::rolling_spans_sql`]): `stored_rows` runs it over
//! the tables, within a bound on memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray, new_empty_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Lake, LogEntry};
use bellwether_metrics::SPANS;
use bellwether_tables::Table;

use crate::sql;
use crate::stored_rows::StoredRows;

const MINUTE_MICROS: i64 = 60_000_000;

/// Minutes between two boundaries of a span.
const CADENCE: [(&str, i64); 6] = [("5m", 1), ("1h", 5), ("24h", 15), ("7d", 60), ("30d", 6 * 60), ("90d", 24 * 60)];

/// Longest span, in minutes, that is computed without roll-ups.
const MOST_MINUTES: i64 = 7 * 24 * 60;

/// The boundaries that have been written, and the newest event of each partition.
#[derive(Default)]
pub(crate) struct RollingHistory {
    written: BTreeMap<String, i64>,
    newest_event: BTreeMap<(String, i32), i64>,
}

/// Spans that are due, each with the boundary that was passed.
pub(crate) type Due = Vec<(&'static str, i64)>;

/// The rows of spans that are due.
pub(crate) struct DueRows {
    pub(crate) rows: RecordBatch,
    /// Sketch of the latencies of each row.
    pub(crate) latency_sketches: ArrayRef,
    /// The spans.
    pub(crate) written: Due,
}

// === impl RollingHistory ===

impl RollingHistory {
    /// Reads which boundaries have been written. The newest files say it: the table grows for as long as it is kept.
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let mut history = Self::default();
        let (_, files) = lake.active_files(Table::RollingHistory).await?;
        // A file without statistics is read first.
        let newest = |file: &AddedFile| file.bounds().newest("as_of").unwrap_or(i64::MAX);
        let mut by_age: Vec<(i64, AddedFile)> = files.into_iter().map(|file| (newest(&file), file)).collect();
        by_age.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.path.cmp(&other.path)));
        for (newest, file) in &by_age {
            let passed = |span: &str| history.written.get(span).is_some_and(|written| written >= newest);
            if CADENCE.iter().all(|(span, _)| passed(span)) {
                break;
            }
            for batch in lake.read(Table::RollingHistory, file, Some(&["span", "as_of"])).await? {
                let spans = batch.column(0).as_string_view();
                let moments = batch.column(1).as_primitive::<TimestampMicrosecondType>();
                for row in 0..batch.num_rows() {
                    let written = history.written.entry(spans.value(row).to_owned()).or_insert(i64::MIN);
                    *written = (*written).max(moments.value(row));
                }
            }
        }
        Ok(history)
    }

    /// Notes the newest event time of each partition in a commit, at most the time of the commit: a producer's clock may be
    /// ahead.
    pub(crate) fn note(&mut self, entry: &LogEntry) {
        let committed_at = entry.timestamp_ms.saturating_mul(1000);
        for range in &entry.ranges {
            if let Some(micros) = range.newest_event_micros.map(|micros| micros.min(committed_at)) {
                let newest = self.newest_event.entry((range.topic.clone(), range.partition)).or_insert(micros);
                *newest = (*newest).max(micros);
            }
        }
    }

    /// Returns the spans to write when windows are complete up to a time. A boundary in the future is not due: otherwise it
    /// would be written without the events until then, and the boundaries before it would never be written.
    pub(crate) fn due(&self, complete_micros: i64, now_micros: i64) -> Due {
        let newest_end_micros = complete_micros.min(now_micros);
        let boundary = |minutes: i64| newest_end_micros - newest_end_micros.rem_euclid(minutes * MINUTE_MICROS);
        CADENCE
            .iter()
            .map(|(span, minutes)| (*span, boundary(*minutes)))
            .filter(|(span, boundary)| self.written.get(*span).is_none_or(|written| boundary > written))
            .collect()
    }

    /// Returns the rows of the spans that are due, within a bound on memory. A span that takes more memory is
    /// left out: people can still ask for it in view `rolling`, and nothing else waits for it. The longest spans stay due until
    /// there are roll-ups: minutes of months cost too much.
    pub(crate) async fn rows(
        &self,
        lake: &Lake,
        due: &Due,
        events_version: i64,
        memory_bytes: usize,
    ) -> Result<DueRows> {
        let tables = StoredRows::open(lake, memory_bytes).await?;
        let (mut batches, mut sketches, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for (span, boundary) in due {
            let Some(length) = SPANS.into_iter().find(|(name, _)| name == span) else { continue };
            if length.1 > MOST_MINUTES && tables.rolled().hourly.is_none() {
                continue;
            }
            written.push((*span, *boundary));
            let answer = match tables.rolling(length, *boundary).await {
                Ok(answer) => answer,
                Err(error) if error.kind() == ErrorKind::Unavailable && StoredRows::is_out_of_memory(&error) => {
                    tracing::warn!(
                        span,
                        error = %error,
                        "a span is left out of `rolling_history`; hint: raise [aggregate].rolling_history_memory_bytes"
                    );
                    continue;
                }
                Err(error) => return Err(error),
            };
            let count = answer.iter().map(RecordBatch::num_rows).sum();
            let written_at = TimestampMicrosecondArray::from(vec![lake.clock().now_micros(); count]);
            let more: [(&str, ArrayRef); 3] = [
                ("events_version", sql::constant(events_version, count)),
                ("completeness", Arc::new(Float64Array::from(vec![self.completeness(*boundary); count]))),
                ("written_at", Arc::new(written_at.with_timezone("UTC"))),
            ];
            batches.push(sql::rows_of(Table::RollingHistory, &answer, &more)?);
            for part in &answer {
                let column = part.column_by_name("latency_sketch");
                let column = column.ok_or_else(|| Error::bug("the rolling metrics lack column `latency_sketch`"))?;
                sketches.push(cast(column, &DataType::Binary)?);
            }
        }
        let rows = arrow::compute::concat_batches(&Table::RollingHistory.arrow_schema(), &batches)?;
        let parts: Vec<&dyn Array> = sketches.iter().map(AsRef::as_ref).collect();
        let latency_sketches =
            if parts.is_empty() { new_empty_array(&DataType::Binary) } else { arrow::compute::concat(&parts)? };
        Ok(DueRows { rows, latency_sketches, written })
    }

    /// Notes spans whose rows are in the table now.
    pub(crate) fn written(&mut self, due: &Due) {
        for (span, boundary) in due {
            self.written.insert((*span).to_owned(), *boundary);
        }
    }

    /// Returns the share of partitions with an event after a moment, among those seen since this process started.
    #[expect(clippy::cast_precision_loss, reason = "there are few partitions")]
    fn completeness(&self, moment_micros: i64) -> f64 {
        let past = self.newest_event.values().filter(|newest| **newest >= moment_micros).count();
        if self.newest_event.is_empty() { 0.0 } else { past as f64 / self.newest_event.len() as f64 }
    }
}

/// Returns the end of the newest window in rows of `metrics`.
pub(crate) fn newest_end_micros(partials: &RecordBatch) -> Result<Option<i64>> {
    let column = partials
        .column_by_name("window_start")
        .ok_or_else(|| Error::bug("rows of metrics lack column `window_start`"))?;
    let starts = column.as_primitive::<TimestampMicrosecondType>();
    Ok(arrow::compute::max(starts).map(|start| start + MINUTE_MICROS))
}

#[cfg(test)]
mod tests {
    use bellwether_lake::PartitionRange;

    use super::*;

    #[test]
    fn a_span_is_due_when_its_boundary_is_passed_and_only_once() {
        let mut history = RollingHistory::default();
        let minute = |n: i64| n * MINUTE_MICROS;
        assert_eq!(
            history.due(minute(61), minute(70)),
            [
                ("5m", minute(61)),
                ("1h", minute(60)),
                ("24h", minute(60)),
                ("7d", minute(60)),
                ("30d", minute(0)),
                ("90d", minute(0))
            ]
        );
        history.written(&history.due(minute(61), minute(70)));
        assert_eq!(history.due(minute(61), minute(70)), []);
        assert_eq!(history.due(minute(65), minute(70)), [("5m", minute(65)), ("1h", minute(65))]);
    }

    #[test]
    fn a_boundary_in_the_future_is_not_due() {
        let mut history = RollingHistory::default();
        let minute = |n: i64| n * MINUTE_MICROS;
        history.written(&history.due(minute(61), minute(61)));
        // The producer's clock is five minutes ahead.
        let due = history.due(minute(67), minute(62) + 1);
        assert_eq!(due, [("5m", minute(62))]);
        history.written(&due);
        assert_eq!(history.due(minute(68), minute(63)), [("5m", minute(63))], "the next one is not skipped");
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from: 0,
            next: 1,
            end_offset: None,
            newest_event_micros: Some(minute(67)),
            passed_over: None,
        };
        history.note(&LogEntry { timestamp_ms: 62 * 60_000, ranges: vec![range], ..LogEntry::default() });
        assert!((history.completeness(minute(62)) - 1.0).abs() < f64::EPSILON);
        assert!(history.completeness(minute(63)).abs() < f64::EPSILON, "no partition is past a time in the future");
    }
}
