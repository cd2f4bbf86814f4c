//! Times of the week, by the wall clock of a time zone.

use chrono::{DateTime, Datelike, NaiveTime, Timelike, Weekday};
use chrono_tz::Tz;

/// Minutes of a day.
const DAY: u32 = 1440;

/// Hours of some weekdays. Hours that end before they begin reach into the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    days: [bool; 7],
    /// Minutes of the day: the first one, and the one after the last.
    from: u32,
    to: u32,
    zone: Tz,
}

// === impl Hours ===

impl Hours {
    /// Reads hours such as `08:00-18:30`, weekdays such as `mon` or `mon-fri`, and the name of a time zone. What is missing is no
    /// restriction; none if nothing restricts.
    ///
    /// # Errors
    /// Every problem in one sentence that begins with the key.
    pub(crate) fn parse(
        hours: Option<&str>,
        weekdays: Option<&[String]>,
        zone: Option<&str>,
    ) -> Result<Option<Self>, Vec<String>> {
        let mut problems = Vec::new();
        let (from, to) = match hours.map(times) {
            None => (0, DAY),
            Some(Some((from, to))) if from != to => (from, to),
            Some(_) => {
                let text = hours.unwrap_or_default();
                problems.push(format!("`hours` is `{text}`; it must be two different times, as in \"08:00-18:00\""));
                (0, DAY)
            }
        };
        let mut days = [weekdays.is_none(); 7];
        for text in weekdays.unwrap_or_default() {
            match span(text) {
                Some(named) => named.for_each(|day| days[day % 7] = true),
                None => problems
                    .push(format!("`weekdays` has `{text}`; it must be a day or days, as in \"mon\" or \"mon-fri\"")),
            }
        }
        if weekdays.is_some_and(<[String]>::is_empty) {
            problems.push("`weekdays` is empty, so that no time matches; name a day or leave it out".to_owned());
        }
        let zone = zone.unwrap_or("UTC").parse::<Tz>().unwrap_or_else(|_| {
            let text = zone.unwrap_or_default();
            problems.push(format!("`time_zone` is `{text}`; it must be an IANA time zone such as \"Europe/Berlin\""));
            Tz::UTC
        });
        match problems.is_empty() {
            false => Err(problems),
            true if hours.is_none() && weekdays.is_none() => Ok(None),
            true => Ok(Some(Self { days, from, to, zone })),
        }
    }

    /// Returns true if a moment, microseconds since the epoch, is within the hours.
    pub fn contains(&self, at: i64) -> bool {
        let Some(moment) = DateTime::from_timestamp_micros(at) else { return false };
        let local = moment.with_timezone(&self.zone);
        let minute = local.hour() * 60 + local.minute();
        let today = local.weekday().num_days_from_monday() as usize;
        if self.from < self.to {
            return self.days[today] && (self.from..self.to).contains(&minute);
        }
        let yesterday = (today + 6) % 7;
        self.days[today] && minute >= self.from || self.days[yesterday] && minute < self.to
    }
}

/// Reads two times as minutes of the day.
fn times(text: &str) -> Option<(u32, u32)> {
    let minute = |text: &str| match text.trim() {
        "24:00" => Some(DAY),
        text => NaiveTime::parse_from_str(text, "%H:%M").ok().map(|time| time.hour() * 60 + time.minute()),
    };
    let (from, to) = text.split_once('-')?;
    Some((minute(from)?, minute(to)?))
}

/// Reads a weekday or a span of them, as days from Monday; Sunday to Monday is 6 to 7.
fn span(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let day = |text: &str| text.trim().parse::<Weekday>().ok().map(|day| day.num_days_from_monday() as usize);
    match text.split_once('-') {
        None => day(text).map(|day| day..=day),
        Some((from, to)) => {
            let (from, to) = (day(from)?, day(to)?);
            Some(from..=if to < from { to + 7 } else { to })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(hours: Option<&str>, days: Option<&[&str]>, zone: Option<&str>) -> Hours {
        let days: Option<Vec<String>> = days.map(|days| days.iter().map(|day| (*day).to_owned()).collect());
        Hours::parse(hours, days.as_deref(), zone).expect("valid").expect("a restriction")
    }

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("a moment").timestamp_micros()
    }

    #[test]
    fn office_hours_follow_the_wall_clock_of_their_zone() {
        let office = hours(Some("08:00-18:00"), Some(&["mon-fri"]), Some("Europe/Berlin"));
        // 2026-07-06 is a Monday; Berlin is two hours ahead then, and one in January.
        assert!(office.contains(at("2026-07-06T06:00:00Z")) && !office.contains(at("2026-07-06T05:59:59Z")));
        assert!(!office.contains(at("2026-01-05T06:30:00Z")) && office.contains(at("2026-01-05T07:00:00Z")));
        assert!(!office.contains(at("2026-07-06T16:00:00Z")), "the end is exclusive");
        assert!(!office.contains(at("2026-07-05T10:00:00Z")), "a Sunday");
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let night = hours(Some("22:00-06:00"), Some(&["fri"]), None);
        assert!(night.contains(at("2026-07-10T23:00:00Z")) && night.contains(at("2026-07-11T05:00:00Z")));
        assert!(!night.contains(at("2026-07-10T05:00:00Z")) && !night.contains(at("2026-07-11T06:00:00Z")));
        let weekend = hours(None, Some(&["sat-sun"]), None);
        assert!(weekend.contains(at("2026-07-12T00:00:00Z")) && !weekend.contains(at("2026-07-13T00:00:00Z")));
        let around = hours(None, Some(&["sun-mon"]), None);
        assert!(around.contains(at("2026-07-12T00:00:00Z")) && around.contains(at("2026-07-13T00:00:00Z")));
    }

    #[test]
    fn every_problem_is_one_sentence() {
        let problems = Hours::parse(Some("9-5pm"), Some(&["someday".to_owned()]), Some("Berlin")).expect_err("refused");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(Hours::parse(Some("08:00-08:00"), None, None).is_err(), "it would match nothing");
        assert!(Hours::parse(None, Some(&[]), None).is_err());
        assert_eq!(Hours::parse(None, None, None), Ok(None));
    }
}
