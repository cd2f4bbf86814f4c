//! Weeks: from Monday, 00:00 UTC, for seven days.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, Weekday};

/// Days of a week, and microseconds of a day.
const DAYS: i64 = 7;
const DAY_MICROS: i64 = 86_400_000_000;

/// Days from a Monday to the epoch, a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

/// A week, by the day of its Monday since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Week(i64);

// === impl Week ===

impl Week {
    /// Returns the week of a time in microseconds since the epoch.
    pub const fn of(micros: i64) -> Self {
        let day = micros.div_euclid(DAY_MICROS);
        Self(day - (day + EPOCH_WEEKDAY).rem_euclid(DAYS))
    }

    /// Returns its start, microseconds since the epoch.
    pub const fn start(self) -> i64 {
        self.0 * DAY_MICROS
    }

    /// Returns its end, microseconds since the epoch; exclusive.
    pub const fn end(self) -> i64 {
        (self.0 + DAYS) * DAY_MICROS
    }

    /// Returns its name by ISO 8601, such as `2026-W49`.
    pub fn name(self) -> String {
        let monday = DateTime::from_timestamp_micros(self.start()).unwrap_or_default().iso_week();
        format!("{:04}-W{:02}", monday.year(), monday.week())
    }

    /// Returns the week with a name as [`Week::name`] writes it, or `None` if there is no such week.
    pub fn named(name: &str) -> Option<Self> {
        let (year, week) = name.split_once("-W")?;
        let monday = NaiveDate::from_isoywd_opt(year.parse().ok()?, week.parse().ok()?, Weekday::Mon)?;
        Some(Self::of(monday.and_time(NaiveTime::MIN).and_utc().timestamp_micros())).filter(|week| week.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
    }

    #[test]
    fn a_week_begins_on_monday_and_is_named_as_in_iso_8601() {
        for (time, name) in [
            ("2026-11-30T00:00:00Z", "2026-W49"),
            ("2026-11-29T23:59:59Z", "2026-W48"),
            ("2026-01-01T12:00:00Z", "2026-W01"),
            ("2027-01-03T12:00:00Z", "2026-W53"),
            ("1969-12-31T12:00:00Z", "1970-W01"),
        ] {
            let week = Week::of(micros(time));
            assert_eq!(week.name(), name, "{time}");
            assert!(week.start() <= micros(time) && micros(time) < week.end());
            assert_eq!(Week::of(week.start()), week);
            assert_eq!(Week::of(week.end() - 1), week);
            assert_ne!(Week::of(week.end()), week);
            assert_eq!(Week::named(name), Some(week));
        }
        for wrong in ["", "2026", "2026-W", "2026-W00", "2026-W54", "2026-W7", "26-W07", "2026-W07 ", "2026-Wxx"] {
            assert_eq!(Week::named(wrong), None, "{wrong}");
        }
    }
}
