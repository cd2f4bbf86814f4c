//! Records the rolling metrics as they were known when event time passed a boundary of a span.
//!
//! Longer spans have rarer boundaries: every 1, 5, 15 and 60 minutes. If one step passes several, only the newest is written,
//! because the values at the others were not known at their time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{AsArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use bellwether_lake::{AddedFile, Lake, LogEntry};
use bellwether_tables::Table;
use datafusion::prelude::SessionContext;

use crate::sql;

const MINUTE_MICROS: i64 = 60_000_000;

/// Minutes between two boundaries of a span.
const CADENCE: [(&str, i64); 4] = [("5m", 1), ("1h", 5), ("24h", 15), ("7d", 60)];

/// The boundaries that have been written, and the newest event of each partition.
#[derive(Default)]
pub(crate) struct RollingHistory {
    written: BTreeMap<String, i64>,
    newest_event: BTreeMap<(String, i32), i64>,
    /// The definition of each span, planned when it is first due.
    definitions: BTreeMap<&'static str, sql::Definition>,
}

/// Spans that are due, each with the boundary that was passed.
pub(crate) type Due = Vec<(&'static str, i64)>;

// === impl RollingHistory ===

impl RollingHistory {
    pub(crate) async fn load(lake: &Lake) -> Result<Self> {
        let mut history = Self::default();
        let (_, files) = lake.active_files(Table::RollingHistory).await?;
        for file in &files {
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

    /// Returns the rows of the spans that are due.
    pub(crate) async fn rows(
        &mut self,
        lake: &Lake,
        context: &SessionContext,
        due: &Due,
        events_version: i64,
    ) -> Result<RecordBatch> {
        let start = |(span, boundary): &(&str, i64)| {
            let minutes = bellwether_metrics::SPANS.iter().find(|(name, _)| name == span).map_or(0, |(_, n)| *n);
            boundary - minutes * MINUTE_MICROS
        };
        let from = due.iter().map(start).min().unwrap_or(0);
        let to = due.iter().map(|(_, boundary)| *boundary).max().unwrap_or(0);
        // One read is enough: the longest span includes the rows of all others.
        let metrics = metrics_between(lake, from, to).await?;
        let mut batches = Vec::new();
        for (span, boundary) in due {
            let definition = match self.definitions.entry(span) {
                Entry::Occupied(planned) => planned.into_mut(),
                Entry::Vacant(none) => none.insert(definition(context, span).await?),
            };
            let answer = definition.run([metrics.clone(), vec![moment(*boundary)?]]).await?;
            let count = answer.iter().map(RecordBatch::num_rows).sum();
            let written_at = TimestampMicrosecondArray::from(vec![lake.clock().now_micros(); count]);
            let more: [(&str, arrow::array::ArrayRef); 3] = [
                ("events_version", sql::constant(events_version, count)),
                ("completeness", Arc::new(Float64Array::from(vec![self.completeness(*boundary); count]))),
                ("written_at", Arc::new(written_at.with_timezone("UTC"))),
            ];
            batches.push(sql::rows_of(Table::RollingHistory, &answer, &more)?);
        }
        Ok(arrow::compute::concat_batches(&Table::RollingHistory.arrow_schema(), &batches)?)
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

/// Plans the rolling metrics of a span up to the moment in relation `boundary`.
async fn definition(context: &SessionContext, span: &str) -> Result<sql::Definition> {
    let text = bellwether_metrics::rolling_spans_sql("(SELECT as_of FROM boundary)", [span]);
    let relations = [("metrics", Table::Metrics.arrow_schema()), ("boundary", boundary_schema())];
    sql::Definition::new(context, &relations, &text).await
}

fn boundary_schema() -> SchemaRef {
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![Field::new("as_of", moment, false)]))
}

/// Returns the one row of relation `boundary`.
fn moment(micros: i64) -> Result<RecordBatch> {
    let moment = TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC");
    Ok(RecordBatch::try_new(boundary_schema(), vec![Arc::new(moment)])?)
}

/// Reads the files of `metrics` that may have windows with a start in a range of time.
async fn metrics_between(lake: &Lake, from_micros: i64, to_micros: i64) -> Result<Vec<RecordBatch>> {
    let (_, files) = lake.active_files(Table::Metrics).await?;
    let mut rows = Vec::new();
    for file in files.iter().filter(|file| may_hold(file, from_micros, to_micros)) {
        rows.extend(lake.read(Table::Metrics, file, None).await?);
    }
    Ok(rows)
}

/// Returns false only if the statistics of a file rule out windows with a start in a range of time.
fn may_hold(file: &AddedFile, from_micros: i64, to_micros: i64) -> bool {
    let bound = |which: &str| -> Option<i64> {
        let stats: serde_json::Value = serde_json::from_str(file.stats.as_deref()?).ok()?;
        let text = stats.get(which)?.get("window_start")?.as_str()?;
        arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text).ok().map(|nanos| nanos.div_euclid(1000))
    };
    bound("maxValues").is_none_or(|newest| newest >= from_micros)
        && bound("minValues").is_none_or(|oldest| oldest < to_micros)
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
            [("5m", minute(61)), ("1h", minute(60)), ("24h", minute(60)), ("7d", minute(60))]
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
