//! The time zone of a season: hours of the week follow the wall clock of the people who send the traffic.
//!
//! Counts are kept by UTC hour, which never jumps. A UTC hour is named after the local hour at its start, so that
//! office hours stay in place when daylight saving time begins or ends. The hour repeated in autumn is two hours with
//! the same name; the hour skipped in spring does not exist.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// A time zone of the IANA database, which is compiled in; UTC by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Season(Option<Tz>);

// === impl Season ===

impl Season {
    /// Returns the zone with a name such as `Europe/Berlin`.
    ///
    /// # Errors
    /// Fails if the database has no such zone.
    pub fn from_name(name: &str) -> Result<Self, String> {
        match name.parse::<Tz>() {
            Ok(Tz::UTC) => Ok(Self(None)),
            Ok(zone) => Ok(Self(Some(zone))),
            Err(_) => Err(format!(
                "unknown time zone `{name}`; it must be a name of the IANA database, such as \"Europe/Berlin\""
            )),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &'static str {
        self.0.map_or("UTC", |zone| zone.name())
    }

    /// Returns the local hour since the epoch on the wall clock for a UTC hour since the epoch.
    pub fn local_hour(&self, hour: i64) -> i64 {
        let Some(zone) = self.0 else { return hour };
        // Hours outside the calendar are returned unchanged.
        let Some(moment) = DateTime::from_timestamp(hour.saturating_mul(3600), 0) else { return hour };
        let offset = zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc();
        (hour * 3600 + i64::from(offset)).div_euclid(3600)
    }

    /// Returns the UTC hour in which the wall clock showed the same hour of the week `weeks` weeks before.
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
    fn office_hours_stay_in_place_when_daylight_saving_time_ends() {
        let berlin = Season::from_name("Europe/Berlin").expect("a zone");
        // Nine o'clock on the Mondays before and after 25 October 2026.
        let (before, after) = (hour("2026-10-19T07:00:00Z"), hour("2026-10-26T08:00:00Z"));
        assert_eq!(berlin.local_hour(after) - berlin.local_hour(before), 168);
        assert_eq!(berlin.weeks_before(after, 1), before);
        assert_eq!(Season::default().weeks_before(after, 1), before + 1);
        // Two o'clock occurs twice; in spring it does not occur.
        let twice = [hour("2026-10-25T00:00:00Z"), hour("2026-10-25T01:00:00Z")].map(|hour| berlin.local_hour(hour));
        assert_eq!(twice[0], twice[1]);
        let spring = [hour("2026-03-29T00:00:00Z"), hour("2026-03-29T01:00:00Z")].map(|hour| berlin.local_hour(hour));
        assert_eq!(spring[1] - spring[0], 2);
        let kolkata = Season::from_name("Asia/Kolkata").expect("a zone");
        assert_eq!(kolkata.local_hour(0), 5);
    }

    #[test]
    fn zones_have_names_and_unknown_names_are_rejected() {
        assert_eq!(Season::from_name("UTC"), Ok(Season::default()));
        assert_eq!(Season::from_name("Europe/Berlin").expect("a zone").name(), "Europe/Berlin");
        assert!(Season::from_name("Berlin").expect_err("none").contains("unknown time zone `Berlin`"));
        assert_eq!(Season::from_name("Europe/Berlin").expect("a zone").local_hour(i64::MAX / 4000), i64::MAX / 4000);
    }
}
