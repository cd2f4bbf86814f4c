//! Reads from the logs of the tables how far the roll-ups of `metrics` go.
//!
//! `metrics_hourly` is made of `metrics`, and `metrics_daily` of `metrics_hourly`. In the commit that adds its rows, a
//! roll-up records a number R (`rollup/to`): it holds exactly the rows of its source with `events_to` up to R. R never
//! exceeds the version of `events` that the slowest shard reads next, so that every later row of any shard has a greater
//! `events_to`, and the set of rows is complete. A roll-up also records which rebuild of `metrics` it was made from
//! (`rollup/generation`).
//!
//! # How to read a span exactly
//!
//! Load the snapshots of `metrics_daily`, `metrics_hourly` and `metrics` **in this order**, then take [`Rolled::of`] them. The
//! span is the union of these rows, which must be folded exactly before anything is weighted or rounded:
//!
//! * of `metrics_daily`, the rows of the days that are entirely in the span, with `events_to <= days`;
//! * of `metrics_hourly`, the rows of the other hours that are entirely in the span, with `events_to <= hours`; and in those
//!   days, the rows with `days < events_to <= hours`;
//! * of `metrics`, the rows of the other minutes; and in those days and hours, the rows with `events_to > hours`.
//!
//! The upper bounds hold for every row of a valid roll-up. They rule out all rows of one that is not valid, whose numbers are
//! zero here, so that the same query then reads minutes only.

use bellwether_tables::{AppId, Table};

use bellwether_base::Result;

use crate::commit::{CommitLog, Snapshot};
use crate::layout::Layout;
use crate::root::Lake;

const HOUR_MICROS: i64 = 3_600_000_000;

/// A roll-up of `metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RollUp {
    /// `metrics_hourly`, made of `metrics`.
    Hours,
    /// `metrics_daily`, made of `metrics_hourly`.
    Days,
}

/// The progress of both roll-ups. The default, zero, means that a roll-up holds no usable rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rolled {
    /// `metrics_hourly` holds exactly the rows of `metrics` with `events_to` up to this.
    pub hours: i64,
    /// `metrics_daily` holds exactly the rows of `metrics_hourly` with `events_to` up to this; at most `hours`.
    pub days: i64,
}

// === impl RollUp ===

impl RollUp {
    /// Both, in the order in which data flows through them.
    pub const ALL: [Self; 2] = [Self::Hours, Self::Days];

    /// Returns the table that it is made of.
    pub const fn source(self) -> Table {
        match self {
            Self::Hours => Table::Metrics,
            Self::Days => Table::MetricsHourly,
        }
    }

    /// Returns its table.
    pub const fn table(self) -> Table {
        match self {
            Self::Hours => Table::MetricsHourly,
            Self::Days => Table::MetricsDaily,
        }
    }

    /// Returns the length of its windows, microseconds.
    pub const fn window_micros(self) -> i64 {
        match self {
            Self::Hours => HOUR_MICROS,
            Self::Days => 24 * HOUR_MICROS,
        }
    }

    /// Returns the greatest number up to which it can hold the rows of a snapshot of its source.
    pub fn source_end(self, source: &Snapshot) -> i64 {
        match self {
            Self::Hours => Layout::reads_next(source),
            Self::Days => rolled_to(source),
        }
    }

    /// Returns the rebuild of `metrics` that a snapshot of its source belongs to; none if nothing is in the source yet.
    pub fn source_generation(self, source: &Snapshot) -> Option<i64> {
        match self {
            Self::Hours => Layout::of(source).map(|layout| layout.generation),
            Self::Days => rolled_generation(source),
        }
    }
}

// === impl Rolled ===

impl Rolled {
    /// Loads how far the roll-ups of a lake go at present. A reader loads it before and after it opens the tables of metrics, and
    /// opens them again if it has changed: maintenance folds only rows that are rolled up by then, so that no row of the
    /// opened tables is on both sides of the numbers.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub async fn load(lake: &Lake) -> Result<Self> {
        let daily = lake.log(Table::MetricsDaily).load().await?;
        let hourly = lake.log(Table::MetricsHourly).load().await?;
        Ok(Self::of(&daily, &hourly, &lake.log(Table::Metrics).load().await?))
    }

    /// Returns how far the roll-ups go. The snapshots must have been loaded in the order of the arguments: a row that moves
    /// on between two loads is then seen once, in the table that was loaded later.
    pub fn of(daily: &Snapshot, hourly: &Snapshot, metrics: &Snapshot) -> Self {
        let generation = Layout::of(metrics).map(|layout| layout.generation);
        if generation.is_none() || rolled_generation(hourly) != generation {
            return Self::default();
        }
        let days = if rolled_generation(daily) == generation { rolled_to(daily) } else { 0 };
        Self { hours: rolled_to(hourly), days }
    }
}

/// Returns the number up to which a roll-up holds the rows of its source, by a snapshot of the roll-up.
pub fn rolled_to(on: &Snapshot) -> i64 {
    on.next(&AppId::RolledTo.to_string()).unwrap_or(0)
}

/// Returns the rebuild of `metrics` that a roll-up was made from; none if it holds nothing yet.
pub fn rolled_generation(on: &Snapshot) -> Option<i64> {
    on.next(&AppId::RolledGeneration.to_string())
}

/// Returns the time, microseconds since the epoch, from which on a table holds everything: older rows may have been removed
/// because they were kept for long enough. `i64::MIN` if nothing was removed.
pub fn kept_from(on: &Snapshot) -> i64 {
    on.next(&AppId::KeptFrom.to_string()).unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::app_of;

    fn metrics(generation: i64, shards: &[i64]) -> Snapshot {
        let empty = Snapshot::default();
        let layout = Layout { generation, shards: u32::try_from(shards.len()).expect("few") }.advance(&empty);
        let stands = (0..).zip(shards).map(|(shard, next)| (app_of(shard), *next));
        empty.after(1, stands.chain([(layout.app_id, layout.next)]))
    }

    fn rolled(generation: i64, to: i64) -> Snapshot {
        let numbers = [(AppId::RolledTo, to), (AppId::RolledGeneration, generation)];
        Snapshot::default().after(1, numbers.map(|(id, number)| (id.to_string(), number)))
    }

    #[test]
    fn a_rollup_counts_only_if_it_was_made_from_the_present_rebuild() {
        let none = Snapshot::default();
        assert_eq!(Rolled::of(&none, &none, &none), Rolled::default());
        assert_eq!(Rolled::of(&none, &none, &metrics(0, &[7])), Rolled::default());
        assert_eq!(Rolled::of(&none, &rolled(0, 5), &metrics(0, &[7])), Rolled { hours: 5, days: 0 });
        assert_eq!(Rolled::of(&rolled(0, 3), &rolled(0, 5), &metrics(0, &[7])), Rolled { hours: 5, days: 3 });
        assert_eq!(Rolled::of(&rolled(0, 3), &rolled(0, 5), &metrics(1, &[7])), Rolled::default());
        assert_eq!(Rolled::of(&rolled(0, 3), &rolled(1, 7), &metrics(1, &[7])), Rolled { hours: 7, days: 0 });
        assert_eq!(Rolled::of(&rolled(1, 3), &rolled(0, 5), &metrics(1, &[7])), Rolled::default());
    }

    #[test]
    fn a_rollup_reaches_as_far_as_the_slowest_shard() {
        let source = metrics(2, &[9, 4, 6]);
        assert_eq!((RollUp::Hours.source_end(&source), RollUp::Hours.source_generation(&source)), (4, Some(2)));
        assert_eq!(RollUp::Days.source_end(&rolled(2, 3)), 3);
        assert_eq!(RollUp::Hours.source_generation(&Snapshot::default()), None);
    }
}
