//! The clock that a season goes by: hours of the week are those on the wall of the people who send the traffic.
//!
//! Counts are kept by hours of UTC, which never jump. An hour of UTC is named by the hour that the zone's wall clock showed
//! at its start, so that office hours stay where they are when summer time begins or ends. The hour that a change to
//! winter time repeats is two hours of the same name; the one that a change to summer time leaves out has none.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// A time zone of the IANA database, which is compiled in; UTC by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Season(Option<Tz>);

// === impl Season ===

impl Season {
    /// The zone of a name such as `Europe/Berlin`.
    ///
    /// # Errors
    /// Where the database has no such zone.
    pub fn of(name: &str) -> Result<Self, String> {
        match name.parse::<Tz>() {
            Ok(Tz::UTC) => Ok(Self(None)),
            Ok(zone) => Ok(Self(Some(zone))),
            Err(_) => {
                Err(format!("`{name}` is no time zone; it must be one of the IANA database, as \"Europe/Berlin\""))
            }
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.0.map_or("UTC", |zone| zone.name())
    }

    /// Hours since the epoch that the wall clock shows in an hour of UTC, which is given as hours since the epoch.
    pub fn local_hour(&self, hour: i64) -> i64 {
        let Some(zone) = self.0 else { return hour };
        // What no calendar holds has no wall clock either.
        let Some(moment) = DateTime::from_timestamp(hour.saturating_mul(3600), 0) else { return hour };
        let offset = zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
        (hour * 3600 + i64::from(offset)).div_euclid(3600)
    }

    /// The hour of UTC in which the wall clock showed the same hour of the week so many weeks before.
    pub fn weeks_before(&self, hour: i64, weeks: i64) -> i64 {
        let before = hour - 168 * weeks;
        before + (self.local_hour(hour) - 168 * weeks) - self.local_hour(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours since the epoch of a moment.
    fn hour(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a moment").timestamp().div_euclid(3600)
    }

    #[test]
    fn office_hours_stay_where_they_are_over_a_change_to_winter_time() {
        let berlin = Season::of("Europe/Berlin").expect("a zone");
        // Nine o'clock on the Mondays before and after 25 October 2026.
        let (before, after) = (hour("2026-10-19T07:00:00Z"), hour("2026-10-26T08:00:00Z"));
        assert_eq!(berlin.local_hour(after) - berlin.local_hour(before), 168);
        assert_eq!(berlin.weeks_before(after, 1), before);
        assert_eq!(Season::default().weeks_before(after, 1), before + 1);
        // Two o'clock comes twice; in spring it does not come.
        let twice = [hour("2026-10-25T00:00:00Z"), hour("2026-10-25T01:00:00Z")].map(|hour| berlin.local_hour(hour));
        assert_eq!(twice[0], twice[1]);
        let spring = [hour("2026-03-29T00:00:00Z"), hour("2026-03-29T01:00:00Z")].map(|hour| berlin.local_hour(hour));
        assert_eq!(spring[1] - spring[0], 2);
        let kolkata = Season::of("Asia/Kolkata").expect("a zone");
        assert_eq!(kolkata.local_hour(0), 5);
    }

    #[test]
    fn zones_have_names_and_what_is_none_is_told() {
        assert_eq!(Season::of("UTC"), Ok(Season::default()));
        assert_eq!(Season::of("Europe/Berlin").expect("a zone").name(), "Europe/Berlin");
        assert!(Season::of("Berlin").expect_err("none").contains("`Berlin` is no time zone"));
        assert_eq!(Season::of("Europe/Berlin").expect("a zone").local_hour(i64::MAX / 4000), i64::MAX / 4000);
    }
}
