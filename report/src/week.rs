//! An ISO week in UTC.

use std::fmt;
use std::str::FromStr;

use bellwether_base::{Error, Result};
use chrono::{DateTime, Datelike, Days, IsoWeek, NaiveDate, Weekday};

const DAY_MICROS: i64 = 86_400_000_000;

/// Days of a week.
pub(crate) const DAYS: i64 = 7;

/// A week from Monday to Sunday, UTC, named as in `2026-W48`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Week {
    monday: NaiveDate,
}

// === impl Week ===

impl Week {
    /// Returns the week of a time, microseconds since the epoch.
    pub fn containing(micros: i64) -> Self {
        let date = DateTime::from_timestamp_micros(micros).unwrap_or_default().date_naive();
        Self { monday: date - Days::new(u64::from(date.weekday().num_days_from_monday())) }
    }

    /// Returns the week before.
    #[must_use]
    pub fn before(self) -> Self {
        Self { monday: self.monday - Days::new(7) }
    }

    /// Returns the number of weeks from an earlier one to this one.
    pub(crate) fn since(self, earlier: Self) -> i64 {
        (self.monday - earlier.monday).num_weeks()
    }

    /// Returns its first moment, microseconds since the epoch.
    pub fn from(self) -> i64 {
        self.monday.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros()
    }

    /// Returns the first moment after it, microseconds since the epoch.
    pub fn to(self) -> i64 {
        self.from() + DAYS * DAY_MICROS
    }

    /// Returns the bounds of one of its days, counted from Monday; negative days are before it.
    pub(crate) fn day(self, day: i64) -> (i64, i64) {
        let from = self.from() + day * DAY_MICROS;
        (from, from + DAY_MICROS)
    }

    /// Returns the dates of its Monday and its Sunday.
    pub(crate) fn dates(self) -> (String, String) {
        let sunday = self.monday + Days::new(6);
        (self.monday.format("%-d %B").to_string(), sunday.format("%-d %B %Y").to_string())
    }

    fn iso(self) -> IsoWeek {
        self.monday.iso_week()
    }
}

impl fmt::Display for Week {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-W{:02}", self.iso().year(), self.iso().week())
    }
}

impl FromStr for Week {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once("-W").and_then(|(year, week)| {
            let year = Some(year).filter(|year| year.len() == 4)?.parse().ok()?;
            let week = Some(week).filter(|week| week.len() == 2)?.parse().ok()?;
            NaiveDate::from_isoywd_opt(year, week, Weekday::Mon)
        });
        parsed.map(|monday| Self { monday }).ok_or_else(|| {
            Error::config(format!("`{text}` is not a week")).with_hint("write year and ISO week, as in 2026-W48")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_monday_and_are_named_by_iso() {
        // Friday, 1 January 2027, belongs to the last week of 2026.
        let week = Week::containing(1_798_761_600_000_000);
        assert_eq!(week.to_string(), "2026-W53");
        assert_eq!(week.dates(), ("28 December".to_owned(), "3 January 2027".to_owned()));
        assert_eq!(week.before().to_string(), "2026-W52");
        assert_eq!(week.before().to(), week.from());
        assert_eq!(Week::containing(week.from()), week);
        assert_eq!(Week::containing(week.to() - 1), week);
        assert_eq!(Week::containing(week.from() - 1), week.before());
        assert_eq!("2026-W53".parse::<Week>().expect("a week"), week);
        assert_eq!(week.day(-1).1, week.from());
        assert_eq!(week.since(week.before().before()), 2);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "2026", "2026-W54", "2026-W00", "2027-W53", "2026-48", "2026-W4", "last", "-2026-W10"] {
            assert!(text.parse::<Week>().is_err(), "{text}");
        }
    }
}
