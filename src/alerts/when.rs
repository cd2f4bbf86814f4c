//! Times for people.

use bellwether_stats::figure;

use crate::rules::time;

/// Formats a time with its age: `2026-11-29 06:10:00 UTC (2 h 21 min ago)`. Both in microseconds.
pub(super) fn with_age(micros: i64, now: i64) -> String {
    let ago = now.saturating_sub(micros);
    let long = figure::duration(ago.unsigned_abs() as f64);
    let relative = if ago < 0 { format!("in {long}") } else { format!("{long} ago") };
    format!("{} ({relative})", at(micros))
}

/// Formats a time: `2026-11-29 06:10:00 UTC`.
pub(super) fn at(micros: i64) -> String {
    time(micros).replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_with_its_age() {
        let now = 1_700_000_000_000_000;
        assert_eq!(with_age(now - 8_460_000_000, now), "2023-11-14 19:52:20 UTC (2 h 21 min ago)");
        assert_eq!(with_age(now + 5_000_000, now), "2023-11-14 22:13:25 UTC (in 5 s)");
    }
}
