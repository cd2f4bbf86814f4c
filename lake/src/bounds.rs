//! The bounds of a file's columns, as its log entry states them.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde_json::Value;

use crate::log::AddedFile;

/// Statistics of a file, parsed once. A bound that is not stated is `None`. Times are microseconds since the epoch; the log
/// rounds them outwards to milliseconds.
pub struct StatedBounds(Value);

// === impl AddedFile ===

impl AddedFile {
    /// Parses the statistics.
    pub fn bounds(&self) -> StatedBounds {
        StatedBounds(self.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default())
    }
}

// === impl StatedBounds ===

impl StatedBounds {
    /// Returns the least value of a column of numbers.
    pub fn least_number(&self, column: &str) -> Option<i64> {
        self.0["minValues"][column].as_i64()
    }

    /// Returns the greatest value of a column of numbers.
    pub fn greatest_number(&self, column: &str) -> Option<i64> {
        self.0["maxValues"][column].as_i64()
    }

    /// Returns the least value of a column of times.
    pub fn oldest(&self, column: &str) -> Option<i64> {
        micros(&self.0["minValues"][column])
    }

    /// Returns the greatest value of a column of times.
    pub fn newest(&self, column: &str) -> Option<i64> {
        micros(&self.0["maxValues"][column])
    }

    /// Returns the least and the greatest value of a column of numbers.
    pub fn numbers(&self, column: &str) -> Option<(i64, i64)> {
        Some((self.least_number(column)?, self.greatest_number(column)?))
    }

    /// Returns the least and the greatest value of a column of times.
    pub fn times(&self, column: &str) -> Option<(i64, i64)> {
        Some((self.oldest(column)?, self.newest(column)?))
    }

    /// Returns the number of rows in which a column is null.
    pub fn nulls(&self, column: &str) -> Option<i64> {
        self.0["nullCount"][column].as_i64()
    }
}

fn micros(text: &Value) -> Option<i64> {
    string_to_timestamp_nanos(text.as_str()?).ok().map(|nanos| nanos.div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn bounds_are_read_from_the_statistics_and_unknown_without_them() {
        let stats = r#"{"numRecords":2,"minValues":{"events_to":3,"window_start":"2026-11-24T18:00:00.000Z"},
            "maxValues":{"events_to":9,"window_start":"2026-11-24T18:05:00.001Z"}}"#;
        let mut file = AddedFile {
            path: "x".to_owned(),
            size: 1,
            rows: Some(2),
            partition_values: BTreeMap::new(),
            data_change: true,
            stats: Some(stats.to_owned()),
        };
        let bounds = file.bounds();
        assert_eq!(bounds.numbers("events_to"), Some((3, 9)));
        assert_eq!(bounds.times("window_start"), Some((1_795_543_200_000_000, 1_795_543_500_001_000)));
        assert_eq!(bounds.numbers("events_from"), None);
        file.stats = None;
        assert_eq!(file.bounds().numbers("events_to"), None);
    }
}
