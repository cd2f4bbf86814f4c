//! Times in words and in the formats of services.

use chrono::{DateTime, SecondsFormat, Utc};

/// Returns a time for people, in UTC to the second.
pub(crate) fn words(micros: i64) -> String {
    at(micros).map_or_else(|| "an unknown time".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// Returns a time as RFC 3339 demands, to the millisecond; of a time out of range, the nearest that it can state.
pub(crate) fn rfc3339(micros: i64) -> String {
    // Years beyond 9999 have no form.
    const LAST: i64 = 253_402_300_799_999_000;
    let time = at(micros.clamp(0, LAST)).unwrap_or(DateTime::UNIX_EPOCH);
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn at(micros: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_two_forms() {
        assert_eq!(words(1_790_000_000_123_456), "2026-09-21 14:13:20 UTC");
        assert_eq!(rfc3339(1_790_000_000_123_456), "2026-09-21T14:13:20.123Z");
        assert_eq!(words(i64::MAX), "an unknown time");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(i64::MIN), "1970-01-01T00:00:00.000Z");
    }
}
