//! D11: nothing, or next to nothing, comes where much is usual at this hour: a producer is silent.
//!
//! This is the one detector for which a window without runs is news.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::drift::hour_of_week;
use bellwether_stats::liveness::{QUIET_PROBABILITY, QUIET_WINDOWS, ln_quiet};

use super::{DAY, HOUR, Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window};

/// Days learned from.
const DAYS: i64 = 28;

/// Fewest hours of the past.
const LEAST_HOURS: usize = 24;

/// Share of the usual runs up to which a slot is next to empty. Where few runs are usual, one slot without any says
/// little; several such slots in a row are judged together.
const NEXT_TO_NOTHING: f64 = 0.1;

/// How much more evidence slots in a row need than one slot: they are looked at again after each of them, and at low traffic
/// what is usual is known less well.
const OF_A_STRETCH: f64 = 1.5;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Silence {
    /// Minutes of a slot; two slots in a row have to be too quiet.
    pub minutes: i64,
}

impl Default for Silence {
    fn default() -> Self {
        Self { minutes: 15 }
    }
}

impl Silence {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.minutes >= 1 && HOUR % self.minutes == 0 {
            Ok(())
        } else {
            Err(Invalid::new("minutes", self.minutes, "a divisor of 60"))
        }
    }
}

/// Runs to expect, by hour of the week.
#[derive(Clone, Debug)]
struct Usual {
    a_slot: Vec<f64>,
    overdispersion: f64,
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Silence>,
    day: Option<i64>,
    usual: Option<Arc<Usual>>,
    /// The slot that fills: number and runs.
    open: Option<(i64, u64)>,
    /// Slots in a row that were next to empty.
    empty: Stretch,
    quiet: usize,
    last: Option<Judged>,
}

/// Slots in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    slots: i64,
    runs: u64,
    expected: f64,
}

/// What was judged last: a slot, or those before it along with it.
#[derive(Clone, Copy, Debug)]
struct Judged {
    slot: i64,
    stretch: Stretch,
    /// ln of the probability of so few runs, as far as it counts.
    chance: f64,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Silence>) -> Self {
        Self { settings, day: None, usual: None, open: None, empty: Stretch::default(), quiet: 0, last: None }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn learn(&mut self, day: i64, past: &Past<'_>) {
        if self.day == Some(day) || (self.quiet > 0 && self.usual.is_some()) {
            return;
        }
        self.day = Some(day);
        let hours = past.hours((day - DAYS) * 24, day * 24);
        let Some(first) = hours.first().map(|hour| hour.hour).filter(|_| hours.len() >= LEAST_HOURS) else {
            self.usual = None;
            return;
        };
        let of_day = |hour: i64| usize::try_from(hour.rem_euclid(24)).unwrap_or(0);
        let (mut week, mut days) = (vec![(0.0, 0.0); 168], vec![(0.0, 0.0); 24]);
        // An hour without a row had no runs.
        let known: std::collections::BTreeMap<i64, u64> = hours.iter().map(|hour| (hour.hour, hour.runs)).collect();
        let each = || {
            (first..day * 24)
                .filter(|hour| !past.incidents.iter().any(|(from, to)| *from < (hour + 1) * HOUR && hour * HOUR < *to))
        };
        for hour in each() {
            let runs = known.get(&hour).copied().unwrap_or(0) as f64;
            for slot in [&mut week[hour_of_week(hour)], &mut days[of_day(hour)]] {
                *slot = (slot.0 + runs, slot.1 + 1.0);
            }
        }
        let mean = |(sum, count): (f64, f64)| if count > 0.0 { sum / count } else { 0.0 };
        // An hour of the week seen once or twice leans on the hour of the day.
        let expected: Vec<f64> =
            (0..168).map(|hour| (week[hour].0 + 2.0 * mean(days[hour % 24])) / (week[hour].1 + 2.0)).collect();
        let (mut squares, mut count) = (0.0, 0.0);
        for hour in each() {
            let (runs, usual) = (known.get(&hour).copied().unwrap_or(0) as f64, expected[hour_of_week(hour)]);
            if usual > 0.0 {
                squares += (runs - usual).powi(2) / usual;
                count += 1.0;
            }
        }
        let overdispersion = if count > 0.0 { (squares / count).max(1.0) } else { 1.0 };
        let slots = (HOUR / self.settings.minutes) as f64;
        self.usual =
            Some(Arc::new(Usual { a_slot: expected.iter().map(|runs| runs / slots).collect(), overdispersion }));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn close(&mut self, slot: i64, runs: u64, past: &Past<'_>) {
        let start = slot * self.settings.minutes;
        self.learn(start.div_euclid(DAY), past);
        let Some(usual) = self.usual.clone() else { return };
        let expected = usual.a_slot[hour_of_week(start.div_euclid(HOUR))];
        self.empty = if runs as f64 <= NEXT_TO_NOTHING * expected {
            let before = self.empty;
            Stretch { slots: before.slots + 1, runs: before.runs + runs, expected: before.expected + expected }
        } else {
            Stretch::default()
        };
        let alone = Stretch { slots: 1, runs, expected };
        let chance = |stretch: Stretch| {
            let possible = (stretch.expected > 0.0).then_some(stretch.expected);
            let chance = possible
                .and_then(|expected| ln_quiet(stretch.runs, expected, usual.overdispersion).ok())
                .unwrap_or(0.0);
            if stretch.slots > 1 { chance / OF_A_STRETCH } else { chance }
        };
        let judged = [alone, self.empty].map(|stretch| Judged { slot, stretch, chance: chance(stretch) });
        let least = if judged[1].chance < judged[0].chance { judged[1] } else { judged[0] };
        self.quiet = if least.chance < QUIET_PROBABILITY.ln() { self.quiet + 1 } else { 0 };
        self.last = Some(least);
    }
}

impl Judge for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let slot = window.start.div_euclid(self.settings.minutes);
        if let Some((open, runs)) = self.open.take_if(|open| open.0 != slot) {
            self.close(open, runs, past);
        }
        let runs: u64 = window.rows.iter().map(|row| row.canary.pair().1).sum();
        self.open.get_or_insert((slot, 0)).1 += runs;
    }

    fn advance(&mut self, until: Minute, past: &Past<'_>) -> Option<Minute> {
        let (slot, runs) = self.open?;
        let end = (slot + 1) * self.settings.minutes;
        if end > until {
            return None;
        }
        self.close(slot, runs, past);
        // The next one is open and empty. Once it is certain that nothing comes, nothing more is learned from waiting on.
        self.open = if self.quiet > QUIET_WINDOWS { None } else { Some((slot + 1, 0)) };
        Some(end)
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let Some(Judged { chance, .. }) = self.last.filter(|_| self.usual.is_some()) else {
            return Verdict { signal: Signal::Unknown, statistic: 0.0, threshold: -QUIET_PROBABILITY.ln() };
        };
        let signal = match self.quiet {
            0 => Signal::Recovered,
            quiet if quiet >= QUIET_WINDOWS => Signal::Alarm,
            _ => Signal::Suspect,
        };
        Verdict { signal, statistic: -chance, threshold: -QUIET_PROBABILITY.ln() }
    }

    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("silence", Baseline::Past, "runs");
        let verdict = self.verdict(thresholds);
        (evidence.log_e, evidence.threshold) = (Some(verdict.statistic), Some(verdict.threshold));
        if let Some(Judged { slot, stretch: Stretch { slots, runs, expected }, .. }) = self.last {
            evidence.canary_counts = Some((0, runs));
            (evidence.baseline_value, evidence.canary_value) = (Some(expected), Some(runs as f64));
            let quiet = slots.max(i64::try_from(self.quiet).unwrap_or(0));
            evidence.since = Some((slot + 1 - quiet) * self.settings.minutes);
            evidence.notes.push(format!(
                "{runs} runs in {} minutes where {expected:.1} are usual at this time of the week",
                slots * self.settings.minutes
            ));
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
