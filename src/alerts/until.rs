//! Times that commands take: a moment, or a while from now.

use std::time::Duration;

use bellwether_base::{Error, Result};

/// Longest time until the end of a silence or an acknowledgement: a year.
const LONGEST_MICROS: i64 = 366 * 86_400 * 1_000_000;

/// A moment, as a person gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Microseconds since the epoch.
    At(i64),
    /// After the present.
    In(Duration),
}

// === impl Until ===

impl Until {
    /// Parses a duration such as `2h`, a date, or a date and time.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        if let Ok(duration) = humantime::parse_duration(text) {
            return Ok(Self::In(duration));
        }
        let whole = if text.len() == 10 { format!("{text} 00:00:00") } else { text.to_owned() };
        let time = humantime::parse_rfc3339_weak(&whole)
            .map_err(|_| "give a duration such as 2h, or a time in UTC such as 2026-12-24T08:00:00Z".to_owned())?;
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| "give a time after 1970".to_owned())?;
        Ok(Self::At(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Returns the moment.
    pub(super) fn from(self, now: i64) -> i64 {
        match self {
            Self::At(at) => at,
            Self::In(duration) => now.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)),
        }
    }

    /// Returns the moment as the end of something.
    ///
    /// # Errors
    /// `Config` if it has passed, or is more than a year away.
    pub(super) fn end(self, now: i64) -> Result<i64> {
        let end = self.from(now);
        if end <= now {
            return Err(
                Error::config("the end has passed already").with_hint("give a later time, or a duration such as 2h")
            );
        }
        if end > now.saturating_add(LONGEST_MICROS) {
            return Err(Error::config("the end is more than a year away")
                .with_hint("give an earlier one; to turn a rule off for good, list it in `alerts.disabled`"));
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_a_date_and_a_time_are_understood() {
        let day = 86_400_000_000;
        assert_eq!(Until::parse("2h").map(|until| until.from(5)), Ok(7_200_000_005));
        assert_eq!(Until::parse("1970-01-02").map(|until| until.from(5)), Ok(day));
        assert_eq!(Until::parse("1970-01-02T00:00:01Z").map(|until| until.from(5)), Ok(day + 1_000_000));
        assert!(Until::parse("tomorrow").is_err() && Until::parse("").is_err());
    }

    #[test]
    fn an_end_lies_ahead_and_within_a_year() {
        assert!(Until::At(5).end(5).is_err() && Until::In(Duration::ZERO).end(5).is_err());
        assert_eq!(Until::At(6).end(5).expect("ahead"), 6);
        assert!(Until::In(Duration::from_secs(400 * 86_400)).end(5).is_err());
    }
}
