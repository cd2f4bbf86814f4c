//! The bounds of a file's columns, by its statistics in the log.

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use bellwether_lake::AddedFile;
use serde_json::Value;

/// Statistics of a file, read once.
pub(crate) struct Bounds(Value);

// === impl Bounds ===

impl Bounds {
    /// Of a file without statistics, every bound is unknown.
    pub(crate) fn of(file: &AddedFile) -> Self {
        Self(file.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default())
    }

    /// Returns the least and the greatest value of a column of numbers.
    pub(crate) fn numbers(&self, column: &str) -> Option<(i64, i64)> {
        Some((self.bound("minValues", column)?.as_i64()?, self.bound("maxValues", column)?.as_i64()?))
    }

    /// Returns the least and the greatest value of a column of times, microseconds since the epoch. They are rounded outwards.
    pub(crate) fn times(&self, column: &str) -> Option<(i64, i64)> {
        let micros = |text: &Value| Some(string_to_timestamp_nanos(text.as_str()?).ok()?.div_euclid(1000));
        Some((micros(self.bound("minValues", column)?)?, micros(self.bound("maxValues", column)?)?))
    }

    fn bound(&self, which: &str, column: &str) -> Option<&Value> {
        self.0.get(which)?.get(column)
    }
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
        let bounds = Bounds::of(&file);
        assert_eq!(bounds.numbers("events_to"), Some((3, 9)));
        assert_eq!(bounds.times("window_start"), Some((1_795_543_200_000_000, 1_795_543_500_001_000)));
        assert_eq!(bounds.numbers("events_from"), None);
        file.stats = None;
        assert_eq!(Bounds::of(&file).numbers("events_to"), None);
    }
}
