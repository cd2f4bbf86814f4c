//! Statements and their answers: literals of time, times for people, and batches.

use arrow::array::RecordBatch;
use bellwether_base::Result;
use bellwether_queries::Session;

/// Greatest time that a literal may have: the end of the year 9999, seconds since the epoch.
const LAST_SECOND: u64 = 253_402_300_799;

/// Returns a time, microseconds since the epoch, as a SQL literal.
pub(crate) fn moment(micros: i64) -> String {
    format!("TIMESTAMP '{}'", humantime::format_rfc3339_micros(time(micros)))
}

/// Returns a time, microseconds since the epoch, for people.
pub(crate) fn shown(micros: i64) -> String {
    humantime::format_rfc3339_seconds(time(micros)).to_string()
}

fn time(micros: i64) -> std::time::SystemTime {
    let micros = u64::try_from(micros).unwrap_or(0).min(LAST_SECOND * 1_000_000);
    std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros)
}

/// Runs a statement and returns the batches of its answer.
pub(crate) async fn batches(session: &Session, sql: &str) -> Result<Vec<RecordBatch>> {
    Box::pin(session.execute(sql)).await?.collect().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_the_calendar_have_literals_and_are_shown() {
        assert_eq!(moment(1_795_543_200_000_001), "TIMESTAMP '2026-11-24T18:00:00.000001Z'");
        assert_eq!(moment(-1), "TIMESTAMP '1970-01-01T00:00:00.000000Z'");
        assert_eq!(shown(i64::MAX), "9999-12-31T23:59:59Z");
    }
}
