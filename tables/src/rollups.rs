//! `metrics_hourly` and `metrics_daily`: the partials of `metrics`, folded by hour and by UTC day.
//!
//! Both have the columns of `metrics`, with the same names and types, so that every definition that reads `metrics` also
//! reads them, and any span is days, hours and minutes together. `bellwether_lake::Rolled` says which rows of one table the
//! next one holds.

use super::{Column, metrics};

/// What a row of `metrics_hourly` is.
pub const HOURLY_DOC: &str = "The partials of `metrics`, folded by hour: the same columns, signed, additive and exact. There \
                              may be several rows of one window and group. The log's `rollup/to` says which rows of \
                              `metrics` it holds: those with `events_to` up to that number.";

/// What a row of `metrics_daily` is.
pub const DAILY_DOC: &str = "The partials of `metrics_hourly`, folded by UTC day: the same columns, signed, additive and exact. \
                             There may be several rows of one window and group. The log's `rollup/to` says which rows of \
                             `metrics_hourly` it holds: those with `events_to` up to that number.";

/// Columns of `metrics_hourly`, in order.
pub const HOURLY_COLUMNS: &[Column] = &with_window("start of the hour in which the runs ended");

/// Columns of `metrics_daily`, in order.
pub const DAILY_COLUMNS: &[Column] = &with_window("start of the UTC day on which the runs ended");

/// Place of `window_start` among the columns of `metrics`.
const WINDOW: usize = 2;

/// The columns of `metrics`, with another documentation of `window_start`.
const fn with_window(doc: &'static str) -> [Column; metrics::COLUMNS.len()] {
    let mut columns = [metrics::COLUMNS[0]; metrics::COLUMNS.len()];
    let mut place = 0;
    while place < columns.len() {
        columns[place] = metrics::COLUMNS[place];
        place += 1;
    }
    columns[WINDOW].doc = doc;
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollups_have_the_columns_of_metrics_and_say_what_their_windows_are() {
        for columns in [HOURLY_COLUMNS, DAILY_COLUMNS] {
            assert_eq!(columns.len(), metrics::COLUMNS.len());
            for (own, minute) in columns.iter().zip(metrics::COLUMNS) {
                assert_eq!(crate::arrow_field(own), crate::arrow_field(minute));
                assert_eq!(own.storage, minute.storage);
                assert_eq!(own.doc == minute.doc, own.name != "window_start", "{}", own.name);
            }
        }
    }
}
