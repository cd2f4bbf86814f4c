//! ISO weeks in UTC.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDate, Weekday};

use crate::{Error, Result};

const DAY_MICROS: i64 = 86_400_000_000;

/// Days from a Monday to the epoch, a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

/// A week from Monday, 00:00 UTC, for seven days. Its name is that of ISO 8601, such as `2026-W48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Week {
    /// Days from the epoch to its Monday.
    monday: i64,
}

// === impl Week ===

impl Week {
    /// Days of a week.
    pub const DAYS: i64 = 7;

    /// Returns the week of a time in microseconds since the epoch.
    pub const fn of(micros: i64) -> Self {
        let day = micros.div_euclid(DAY_MICROS);
        Self { monday: day - (day + EPOCH_WEEKDAY).rem_euclid(Self::DAYS) }
    }

    /// Returns its start, microseconds since the epoch.
    pub const fn start(self) -> i64 {
        self.monday * DAY_MICROS
    }

    /// Returns its end, microseconds since the epoch; exclusive.
    pub const fn end(self) -> i64 {
        self.start() + Self::DAYS * DAY_MICROS
    }

    /// Returns the start and the end of one of its days, counted from Monday; negative days are before it.
    pub const fn day(self, day: i64) -> (i64, i64) {
        let start = self.start() + day * DAY_MICROS;
        (start, start + DAY_MICROS)
    }

    /// Returns the week before.
    #[must_use]
    pub const fn before(self) -> Self {
        Self { monday: self.monday - Self::DAYS }
    }

    /// Returns the week that is this many weeks later, or earlier if the number is negative.
    #[must_use]
    pub const fn later(self, weeks: i64) -> Self {
        Self { monday: self.monday + weeks * Self::DAYS }
    }

    /// Returns the number of weeks from an earlier one to this one.
    pub const fn since(self, earlier: Self) -> i64 {
        (self.monday - earlier.monday) / Self::DAYS
    }
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let week = DateTime::from_timestamp_micros(self.start()).unwrap_or_default().iso_week();
        write!(f, "{:04}-W{:02}", week.year(), week.week())
    }
}

impl FromStr for Week {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let parsed = name.split_once("-W").and_then(|(year, week)| {
            let monday = NaiveDate::from_isoywd_opt(year.parse().ok()?, week.parse().ok()?, Weekday::Mon)?;
            Some(Self::of(monday.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros()))
        });
        // A name is the one that is displayed: `2026-W7` is none, and no year before the year 0 has one.
        parsed.filter(|week| !name.starts_with('-') && week.to_string() == name).ok_or_else(|| {
            Error::config(format!("`{name}` is not a week")).with_hint("write year and ISO week, as in 2026-W48")
        })
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
            assert_eq!(week.to_string(), name, "{time}");
            assert!(week.start() <= micros(time) && micros(time) < week.end());
            assert_eq!(Week::of(week.start()), week);
            assert_eq!(Week::of(week.end() - 1), week);
            assert_eq!(Week::of(week.start() - 1), week.before());
            assert_eq!(name.parse::<Week>().expect("a week"), week);
        }
    }

    #[test]
    fn days_and_weeks_are_counted() {
        let week = Week::of(micros("2026-12-30T12:00:00Z"));
        assert_eq!(week.before().end(), week.start());
        assert_eq!(week.day(-1).1, week.start());
        assert_eq!(week.day(6).1, week.end());
        assert_eq!(week.since(week.before().before()), 2);
        assert_eq!((week.later(-2), week.later(-2).later(2)), (week.before().before(), week));
    }

    #[test]
    fn other_texts_are_refused() {
        let wrong = ["", "last", "2026", "2026-48", "2026-W", "2026-W00", "2026-W54", "2027-W53", "2026-W7", "26-W07"];
        for text in wrong.into_iter().chain(["2026-W07 ", "2026-Wxx", "-2026-W10"]) {
            assert!(text.parse::<Week>().is_err(), "{text}");
        }
    }
}
