//! Bounds and labels of axes.

use std::time::{Duration, UNIX_EPOCH};

/// The unit of a column, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    /// A length of time; one is so many nanoseconds.
    Time(u64),
    Bytes,
    /// Billionths of a currency.
    Nanos,
}

/// An axis of values: its bounds, and labels at even distances from the first to the last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scale {
    pub(super) bounds: [f64; 2],
    pub(super) labels: Vec<String>,
}

/// An axis of times: its bounds in microseconds since the epoch, and labels with their times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    pub(super) bounds: [f64; 2],
    pub(super) labels: Vec<(f64, String)>,
}

/// A size, and how it is written.
type Suffix = (f64, &'static str);

const TIMES: [Suffix; 6] = [(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s"), (60e9, "min"), (3600e9, "h")];
const SIZES: [Suffix; 5] =
    [(1.0, "B"), (1024.0, "KiB"), (1048576.0, "MiB"), (1073741824.0, "GiB"), (1099511627776.0, "TiB")];
const COUNTS: [Suffix; 5] = [(1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T")];

/// Counts below this are written in full.
const SHORT: f64 = 10_000.0;

/// Steps between labels of times, seconds.
const STEPS: [u64; 21] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800,
    1_209_600,
];

const MICROS: f64 = 1e6;
const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;

// === impl Unit ===

impl Unit {
    /// Returns the unit that a column's name says, as in `latency_ms_p95` and `size_bytes`.
    pub(super) fn of(name: &str) -> Self {
        for part in name.split('_').rev() {
            match part {
                "ms" | "millis" => return Self::Time(1_000_000),
                "micros" => return Self::Time(1_000),
                "seconds" => return Self::Time(1_000_000_000),
                "bytes" => return Self::Bytes,
                "nanos" => return Self::Nanos,
                _ => {}
            }
        }
        Self::Plain
    }

    /// Returns the value of one, in the unit of the suffixes, and the suffix for values of a size.
    fn suffix(self, largest: f64) -> (f64, Suffix) {
        let (one, suffixes, least): (f64, &[Suffix], f64) = match self {
            Self::Plain => (1.0, &COUNTS, SHORT),
            Self::Time(nanos) => (nanos as f64, &TIMES, 0.0),
            Self::Bytes => (1.0, &SIZES, 0.0),
            Self::Nanos => (1e-9, &COUNTS, SHORT),
        };
        let largest = largest * one;
        let fits = suffixes.iter().rev().find(|(size, _)| largest >= *size).filter(|_| largest >= least);
        (one, fits.copied().unwrap_or(suffixes[0]))
    }

    /// Returns a value with its unit, for a legend.
    pub(super) fn written(self, value: f64) -> String {
        let (one, (size, suffix)) = self.suffix(value.abs());
        let value = value * one / size;
        let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 9) };
        with_suffix(&trimmed(value, digits.unsigned_abs() as usize), suffix)
    }
}

/// Returns the scale of values between two, with about so many labels.
pub(super) fn values(least: f64, largest: f64, labels: usize, unit: Unit) -> Scale {
    let (mut least, mut largest) = (least, largest);
    if least == largest {
        // A constant line lies in the middle.
        let room = if least == 0.0 { 1.0 } else { least.abs() * 0.1 };
        (least, largest) = (if least == 0.0 { 0.0 } else { least - room }, largest + room);
    } else if least > 0.0 && least < largest * 0.5 {
        least = 0.0;
    } else if largest < 0.0 && largest > least * 0.5 {
        largest = 0.0;
    }
    let (one, (size, suffix)) = unit.suffix(least.abs().max(largest.abs()));
    let factor = one / size;
    let (least, largest) = (least * factor, largest * factor);
    let step = step((largest - least) / labels.saturating_sub(1).max(1) as f64);
    let (first, last) = ((least / step + 1e-9).floor(), (largest / step - 1e-9).ceil());
    let count = (last - first).round().max(1.0) as usize;
    // One decimal more for steps of 2.5.
    let decimals = (0..=12).find(|decimals| {
        let scaled = step * 10_f64.powi(*decimals);
        (scaled - scaled.round()).abs() < scaled * 1e-6
    });
    let decimals = decimals.unwrap_or(12).unsigned_abs() as usize;
    let labels = (0..=count).map(|place| {
        let value = (first + place as f64) * step;
        with_suffix(&format!("{:.decimals$}", if value == 0.0 { 0.0 } else { value }), suffix)
    });
    Scale { bounds: [first * step / factor, (first + count as f64) * step / factor], labels: labels.collect() }
}

/// Returns the least of 1, 2, 2.5 and 5 times a power of ten that is no less than a distance.
fn step(distance: f64) -> f64 {
    let power = 10_f64.powf(distance.log10().floor());
    let fits = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|step| step * power >= distance * (1.0 - 1e-9));
    fits.unwrap_or(10.0) * power
}

fn with_suffix(number: &str, suffix: &str) -> String {
    if suffix.is_empty() { number.to_owned() } else { format!("{number} {suffix}") }
}

/// Returns a number without zeros at the end of its decimals.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Returns the scale of times, in microseconds since the epoch, with at most so many labels.
pub(super) fn times(first: f64, last: f64, labels: usize) -> Times {
    if first >= last {
        // A single time lies in the middle of a minute.
        let half = MINUTE * MICROS / 2.0;
        return Times { bounds: [first - half, first + half], labels: vec![(first, time(first, 0.0))] };
    }
    let span = last - first;
    let most = labels.max(2) as f64 - 1.0;
    let step = STEPS.iter().map(|step| *step as f64).find(|step| span / MICROS / step <= most);
    // Beyond two weeks a step, whole days.
    let step = step.unwrap_or_else(|| (span / MICROS / most / DAY).ceil() * DAY) * MICROS;
    // Days need no time of day.
    let exact = if step < DAY * MICROS { span } else { f64::MAX };
    let (from, to) = ((first / step).ceil() as i64, (last / step).floor() as i64);
    let round = (from..=to).map(|place| place as f64 * step).map(|micros| (micros, time(micros, exact)));
    let mut labels: Vec<(f64, String)> = round.collect();
    if labels.len() < 2 {
        labels = vec![(first, time(first, span)), (last, time(last, span))];
    }
    Times { bounds: [first, last], labels }
}

/// Returns a time, as exactly as a span of time needs it; both in microseconds.
fn time(micros: f64, span: f64) -> String {
    let since = Duration::from_micros(micros.max(0.0) as u64);
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string();
    let (date, clock) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    let short = date.get(5..).unwrap_or_default();
    let minutes = clock.get(..5).unwrap_or_default();
    match span / MICROS {
        seconds if seconds < 5.0 * MINUTE && seconds > 0.0 => clock.to_owned(),
        seconds if seconds < DAY && seconds > 0.0 => minutes.to_owned(),
        0.0 => format!("{date} {clock}"),
        seconds if seconds < 21.0 * DAY => format!("{short} {minutes}"),
        _ => date.to_owned(),
    }
}

/// Returns the first and the last time in full, for the end of a chart; in UTC.
pub(super) fn between(first: f64, last: f64) -> String {
    let (first, last) = (time(first, 0.0), time(last, 0.0));
    if first == last { format!("{first} UTC") } else { format!("{first} to {last} UTC") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(least: f64, largest: f64, unit: Unit) -> String {
        values(least, largest, 5, unit).labels.join(" ")
    }

    #[test]
    fn labels_of_values_are_round_and_have_a_unit() {
        assert_eq!(labels(0.0, 1.0, Unit::Plain), "0.00 0.25 0.50 0.75 1.00");
        assert_eq!(labels(0.91, 0.95, Unit::Plain), "0.91 0.92 0.93 0.94 0.95");
        assert_eq!(labels(3.0, 97.0, Unit::Plain), "0 25 50 75 100");
        assert_eq!(labels(-40.0, 60.0, Unit::Plain), "-50 -25 0 25 50 75");
        assert_eq!(labels(0.0, 123_456.0, Unit::Plain), "0 k 50 k 100 k 150 k");
        assert_eq!(labels(0.0, 900.0, Unit::of("latency_ms_p95")), "0 ms 250 ms 500 ms 750 ms 1000 ms");
        assert_eq!(labels(0.0, 4_000_000.0, Unit::of("latency_micros_sum")), "0 s 1 s 2 s 3 s 4 s");
        assert_eq!(labels(0.0, 3_145_728.0, Unit::of("used_bytes")), "0 MiB 1 MiB 2 MiB 3 MiB");
        assert_eq!(labels(0.0, 2e9, Unit::of("cost_nanos_sum")), "0.0 0.5 1.0 1.5 2.0");
        assert_eq!(labels(7.0, 7.0, Unit::Plain), "6.0 6.5 7.0 7.5 8.0");
        assert_eq!(labels(0.0, 0.0, Unit::Plain), "0.00 0.25 0.50 0.75 1.00");
    }

    #[test]
    fn labels_of_times_are_round_and_as_exact_as_needed() {
        let at = |text: &str| {
            humantime::parse_rfc3339_weak(text).expect("a time").duration_since(UNIX_EPOCH).expect("later").as_micros()
                as f64
        };
        let labels = |first: &str, last: &str| {
            let labels = times(at(first), at(last), 5).labels.into_iter();
            labels.map(|(_, label)| label).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(labels("2026-11-30 10:00:00", "2026-11-30 11:00:00"), "10:00 | 10:15 | 10:30 | 10:45 | 11:00");
        assert_eq!(labels("2026-11-30 10:07:00", "2026-11-30 10:22:00"), "10:10 | 10:15 | 10:20");
        assert_eq!(labels("2026-11-30 10:00:05", "2026-11-30 10:00:40"), "10:00:10 | 10:00:20 | 10:00:30 | 10:00:40");
        assert_eq!(labels("2026-11-30 20:00:00", "2026-12-01 22:00:00"), "12-01 00:00 | 12-01 12:00");
        assert_eq!(
            labels("2026-11-20 00:00:00", "2026-11-23 05:00:00"),
            "2026-11-20 | 2026-11-21 | 2026-11-22 | 2026-11-23"
        );
        assert_eq!(labels("2026-11-30 10:00:00.1", "2026-11-30 10:00:00.9"), "10:00:00 | 10:00:00");
        assert_eq!(labels("2026-11-30 10:00:00", "2026-11-30 10:00:00"), "2026-11-30 10:00:00");
        assert_eq!(
            between(at("2026-11-30 10:00:00"), at("2026-11-30 10:22:00")),
            "2026-11-30 10:00:00 to 2026-11-30 10:22:00 UTC"
        );
    }

    #[test]
    fn values_of_a_legend_have_three_digits() {
        let shown = |value: f64, unit: Unit| unit.written(value);
        assert_eq!(shown(0.931_23, Unit::Plain), "0.931");
        assert_eq!(shown(1234.0, Unit::Plain), "1234");
        assert_eq!(shown(45_600.0, Unit::Plain), "45.6 k");
        assert_eq!(shown(-0.5, Unit::Plain), "-0.5");
        assert_eq!(shown(1250.0, Unit::of("latency_ms")), "1.25 s");
        assert_eq!(shown(0.0, Unit::of("latency_ms")), "0 ns");
    }

    proptest! {
        #[test]
        fn bounds_hold_all_values(one in -1e12_f64..1e12, other in -1e12_f64..1e12, labels in 2_usize..9) {
            let (least, largest) = (one.min(other), one.max(other));
            let scale = values(least, largest, labels, Unit::Plain);
            let room = (scale.bounds[1] - scale.bounds[0]).abs() * 1e-6;
            prop_assert!(scale.bounds[0] <= least + room && scale.bounds[1] >= largest - room, "{scale:?}");
            prop_assert!((2..=labels + 3).contains(&scale.labels.len()), "{scale:?}");
        }

        #[test]
        fn bounds_hold_all_times(first in 0_i64..4_000_000_000, seconds in 0_i64..400_000_000, labels in 2_usize..9) {
            let (first, last) = (first as f64 * MICROS, (first + seconds) as f64 * MICROS);
            let scale = times(first, last, labels);
            prop_assert!(scale.bounds[0] <= first && scale.bounds[1] >= last && scale.bounds[0] < scale.bounds[1]);
            prop_assert!((1..=labels).contains(&scale.labels.len()), "{scale:?}");
            prop_assert!(scale.labels.iter().all(|(at, _)| *at >= first && *at <= last), "{scale:?}");
        }
    }
}
