//! Which rows of the tables make up a span of time.
//!
//! `metrics` has minutes; `metrics_hourly` and `metrics_daily` have the same rows added up by hour and day. A span is read as
//! its complete days, the complete hours of the rest, and the minutes that are left at its edges. A roll-up is behind the
//! table that it is made from, by the rows that it does not have yet: these are read from that table, whatever their window
//! ([`Rolled`]). So each run is counted once, and the sum is the one over the minutes alone. A roll-up that is ahead of its
//! number, because it was opened later, is read up to the number.

use crate::{GROUP, SATURATED, figure_columns};

/// Spans of the rolling metrics: name in SQL and length in minutes.
pub const SPANS: [(&str, i64); 6] =
    [("5m", 5), ("1h", 60), ("24h", 24 * 60), ("7d", 7 * 24 * 60), ("30d", 30 * 24 * 60), ("90d", 90 * 24 * 60)];

/// Tables of the metrics by hour and by day.
const HOURLY: &str = "metrics_hourly";
const DAILY: &str = "metrics_daily";

const EPOCH: &str = "TIMESTAMP '1970-01-01T00:00:00Z'";

/// The progress of the roll-ups that a query may use. By default there are none, and everything is read by the minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rolled {
    /// The rows of `metrics` with `events_to` up to this number are in `metrics_hourly`, and no others.
    pub hourly: Option<i64>,
    /// The rows of `metrics_hourly` with `events_to` up to this number are in `metrics_daily`, and no others. It means nothing
    /// without `hourly`.
    pub daily: Option<i64>,
}

/// Bounds of the rows of a file. Unknown bounds are the ends of the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileBounds {
    /// Least and greatest start of a window, microseconds since the epoch.
    pub windows: (i64, i64),
    /// Least and greatest `events_to`.
    pub events_to: (i64, i64),
}

const HOUR_MICROS: i64 = 3_600_000_000;

/// A half-open span of time between SQL expressions of timestamps; one that lacks an end goes on for ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
}

// === impl Rolled ===

impl Rolled {
    /// Takes the numbers from the logs of the roll-ups, in which zero means that nothing is in a roll-up.
    pub fn up_to(hours: i64, days: i64) -> Self {
        Self { hourly: (hours > 0).then_some(hours), daily: (days > 0).then_some(days) }
    }

    /// Returns false only if no row of a file of a table counts in a span of so many minutes that ends at a moment. These are
    /// the conditions of the span's SQL, for bounds instead of rows.
    pub fn may_count(self, table: &str, minutes: i64, to_micros: i64, file: &FileBounds) -> bool {
        let from_micros = to_micros.saturating_sub(minutes.saturating_mul(60_000_000));
        self.for_minutes(minutes).may_count_between(table, (from_micros, to_micros), file)
    }

    fn may_count_between(self, table: &str, span: (i64, i64), file: &FileBounds) -> bool {
        let floor = |at: i64, unit: i64| at - at.rem_euclid(unit);
        let whole = |unit: i64| (floor(span.0 + unit - 1, unit), floor(span.1, unit));
        let (hours, days) = (whole(HOUR_MICROS), whole(24 * HOUR_MICROS));
        let (part, known, rolled) = match (table, self.hourly, self.daily) {
            ("metrics", hourly, _) => (span, i64::MAX, hourly.map(|to| (hours, to))),
            (HOURLY, Some(hourly), daily) => (hours, hourly, daily.map(|to| (days, to))),
            (DAILY, Some(_), Some(daily)) => (days, daily, None),
            _ => return false,
        };
        let (oldest, newest) = file.windows;
        let left = |(whole, to): ((i64, i64), i64)| oldest < whole.0 || newest >= whole.1 || file.events_to.1 > to;
        newest >= part.0 && oldest < part.1 && file.events_to.0 <= known && rolled.is_none_or(left)
    }

    /// Returns the roll-ups that are worth reading for a span. One that holds no complete hour, or hardly one, is cheaper
    /// without.
    fn for_minutes(self, minutes: i64) -> Self {
        match minutes {
            ..=60 => Self::default(),
            61..=1440 => Self { daily: None, ..self },
            _ => self,
        }
    }
}

// === impl Bounds ===

impl Bounds {
    /// Returns the tables that make up the span, each with the condition on its rows.
    fn parts(&self, rolled: Rolled) -> Vec<(&'static str, String)> {
        let mut parts = vec![("metrics", self.condition(None, rolled.hourly.map(|to| ("hour", to))))];
        if let Some(hourly) = rolled.hourly {
            let whole = self.whole("hour");
            parts.push((HOURLY, whole.condition(Some(hourly), rolled.daily.map(|to| ("day", to)))));
            if let Some(daily) = rolled.daily {
                parts.push((DAILY, self.whole("day").condition(Some(daily), None)));
            }
        }
        parts
    }

    /// Returns the condition on the rows of one table: those in the span with `events_to` up to a number, but for those that
    /// the roll-up by a longer unit has.
    fn condition(&self, known: Option<i64>, rolled: Option<(&str, i64)>) -> String {
        let mut all: Vec<String> = Vec::new();
        all.extend(self.from.as_ref().map(|from| format!("window_start >= {from}")));
        all.extend(self.to.as_ref().map(|to| format!("window_start < {to}")));
        all.extend(known.map(|known| format!("events_to <= {known}")));
        if let Some((unit, to)) = rolled {
            let whole = self.whole(unit);
            let mut any: Vec<String> = Vec::new();
            any.extend(whole.from.map(|from| format!("window_start < {from}")));
            any.extend(whole.to.map(|to| format!("window_start >= {to}")));
            any.push(format!("events_to > {to}"));
            all.push(format!("({})", any.join(" OR ")));
        }
        if all.is_empty() { "TRUE".to_owned() } else { all.join(" AND ") }
    }

    /// Returns the complete hours or days of the span. If there are none, it ends before it begins.
    fn whole(&self, unit: &str) -> Self {
        let floor = |at: &str| format!("date_bin(INTERVAL '1 {unit}', {at}, {EPOCH})");
        Self {
            from: self
                .from
                .as_ref()
                .map(|from| floor(&format!("{from} + INTERVAL '1 {unit}' - INTERVAL '1 microsecond'"))),
            to: self.to.as_ref().map(|to| floor(to)),
        }
    }
}

/// Returns SQL of the rows of a span with columns `columns`, with `before`, a list of further columns, in front.
fn rows(before: &str, columns: &[&str], bounds: &Bounds, rolled: Rolled) -> Vec<String> {
    let columns = columns.join(", ");
    let select = |(table, condition)| format!("SELECT {before}{columns} FROM {table} WHERE {condition}");
    bounds.parts(rolled).into_iter().map(select).collect()
}

/// Returns the columns of `metrics` that figures follow from.
fn columns() -> Vec<&'static str> {
    GROUP.into_iter().chain(figure_columns().iter().copied()).chain([SATURATED]).collect()
}

/// Returns relation `source` of the rows of some spans that end at one moment, an SQL expression that the engine can fold to
/// a constant: so that it skips files.
pub(crate) fn spans_to(moment: &str, spans: &[(&str, i64)], rolled: Rolled) -> String {
    let columns = columns();
    let all = spans.iter().flat_map(|(name, minutes)| {
        let bounds =
            Bounds { from: Some(format!("({moment} - INTERVAL '{minutes} minutes')")), to: Some(moment.to_owned()) };
        rows(&format!("'{name}' AS span, {moment} AS as_of, "), &columns, &bounds, rolled.for_minutes(*minutes))
    });
    union("source", &all.collect::<Vec<_>>())
}

/// As [`spans_to`], for a moment that only the rows themselves tell: everything is read, by the minute.
pub(crate) fn spans_to_found(moment: &str, spans: &[(&str, i64)]) -> String {
    let spans: Vec<String> =
        spans.iter().map(|(name, minutes)| format!("('{name}', INTERVAL '{minutes} minutes')")).collect();
    let columns: Vec<String> = columns().iter().map(|name| format!("m.{name}")).collect();
    format!(
        "span AS (SELECT column1 AS span, column2 AS length FROM (VALUES {})),\n\
         moment AS (SELECT {moment} AS as_of),\n\
         source AS (\n    \
             SELECT span.span, moment.as_of, {}\n    \
             FROM metrics AS m CROSS JOIN span CROSS JOIN moment\n    \
             WHERE m.window_start >= moment.as_of - span.length AND m.window_start < moment.as_of\n\
         )",
        spans.join(", "),
        columns.join(", ")
    )
}

/// Returns relation `source` of all rows, with their day.
pub(crate) fn all_days(rolled: Rolled) -> String {
    let day = format!("date_bin(INTERVAL '1 day', window_start, {EPOCH}) AS day, ");
    union("source", &rows(&day, &columns(), &Bounds::default(), rolled))
}

/// Returns relation `source` of all minutes.
pub(crate) fn all_minutes() -> String {
    union("source", &rows("window_start, ", &columns(), &Bounds::default(), Rolled::default()))
}

/// Returns relation `source` of the canaries and full rollouts of the last `minutes`. Windows of a producer whose clock is
/// ahead are included.
pub(crate) fn last_minutes(minutes: i64, rolled: Rolled) -> String {
    live(&Bounds { from: Some(format!("(now() - INTERVAL '{minutes} minutes')")), to: None }, minutes, rolled)
}

/// Returns relation `source` of the canaries and full rollouts between two moments, which are SQL expressions; `minutes` is
/// the time between them.
pub(crate) fn live_between(from: &str, to: &str, minutes: i64, rolled: Rolled) -> String {
    live(&Bounds { from: Some(from.to_owned()), to: Some(to.to_owned()) }, minutes, rolled)
}

fn live(bounds: &Bounds, minutes: i64, rolled: Rolled) -> String {
    let live = |row: String| format!("{row} AND stage IN ('canary', 'full')");
    let all = rows("", &columns(), bounds, rolled.for_minutes(minutes)).into_iter().map(live);
    union("source", &all.collect::<Vec<_>>())
}

fn union(name: &str, selects: &[String]) -> String {
    format!("{name} AS (\n    {}\n)", selects.join("\n    UNION ALL "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Returns how many tables count each row of `metrics`, given by its minute and its `events_to`.
    async fn counts(span: (i64, i64), rolled: Rolled, rows: &[(i64, i64)]) -> BTreeMap<(i64, i64), usize> {
        let context = SessionContext::new();
        let at = |minute: i64| format!("to_timestamp_micros({})", minute * 60_000_000);
        let bounds = Bounds { from: Some(at(span.0)), to: Some(at(span.1)) };
        let mut counts = BTreeMap::new();
        for (table, condition) in bounds.parts(rolled) {
            let (unit, rolled_to) = match table {
                HOURLY => (60, rolled.hourly),
                DAILY => (1440, rolled.daily),
                _ => (1, Some(i64::MAX)),
            };
            let start = |minute: i64| (minute - minute.rem_euclid(unit)) * 60_000_000;
            let has: Vec<(i64, i64)> =
                rows.iter().copied().filter(|(_, events_to)| rolled_to.is_some_and(|to| *events_to <= to)).collect();
            let values: Vec<String> =
                has.iter().map(|(minute, to)| format!("({minute}, {to}, {})", start(*minute))).collect();
            // The same conditions on the bounds of a file with this one row.
            let micros = (span.0 * 60_000_000, span.1 * 60_000_000);
            let mut by_bounds: Vec<(i64, i64)> = has
                .into_iter()
                .filter(|(minute, to)| {
                    let file = FileBounds { windows: (start(*minute), start(*minute)), events_to: (*to, *to) };
                    rolled.may_count_between(table, micros, &file)
                })
                .collect();
            let sql = format!(
                "SELECT minute, events_to FROM (SELECT column1 AS minute, column2 AS events_to, \
                 to_timestamp_micros(column3) AS window_start FROM (VALUES {})) WHERE {condition}",
                values.join(", ")
            );
            let mut by_rows = Vec::new();
            for rows in context.sql(&sql).await.expect("plans").collect().await.expect("runs") {
                let column = |place: usize| rows.column(place).as_primitive::<Int64Type>().values();
                for row in column(0).iter().copied().zip(column(1).iter().copied()) {
                    *counts.entry(row).or_default() += 1;
                    by_rows.push(row);
                }
            }
            by_bounds.sort_unstable();
            by_rows.sort_unstable();
            assert_eq!(by_bounds, by_rows, "{table}: {span:?} {rolled:?}");
        }
        counts
    }

    #[tokio::test]
    async fn each_row_of_a_span_is_counted_by_exactly_one_table() {
        let rolls = [
            Rolled::default(),
            Rolled { hourly: Some(5), daily: None },
            Rolled { hourly: Some(5), daily: Some(3) },
            Rolled { hourly: None, daily: Some(3) },
        ];
        let inner = [-1, 0, 1, 60, 119, 120, 1439, 1440, 1500, 2879, 2880, 4319, 4320];
        for rolled in rolls {
            for span in [(0, 2880), (1, 2879), (61, 119), (59, 60), (1439, 1441), (1380, 4380), (700, 4321)] {
                let edges = [span.0 - 1, span.0, span.0 + 1, span.1 - 1, span.1, span.1 + 1];
                let minutes = edges.into_iter().chain(inner);
                let mut rows: Vec<(i64, i64)> = minutes.flat_map(|minute| [3, 5, 6].map(|to| (minute, to))).collect();
                rows.sort_unstable();
                rows.dedup();
                let inside = rows.iter().filter(|(minute, _)| (span.0..span.1).contains(minute));
                let wanted: BTreeMap<(i64, i64), usize> = inside.map(|row| (*row, 1)).collect();
                assert_eq!(counts(span, rolled, &rows).await, wanted, "{span:?} {rolled:?}");
            }
        }
    }
}
