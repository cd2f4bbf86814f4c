//! D8: does an objective's error budget burn too fast? Long and short windows of [`bellwether_stats::burn_rate`], beyond
//! chance; windows that could never fire are refused.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_stats::burn_rate::{Counts, GATE_PROBABILITY, Objective, Verdict as Said, Windows};

use super::{HOUR, Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window};

/// Minutes of a slot of the short windows.
pub(super) const SLOT: i64 = 5;

/// Slots kept: six hours. Longer windows are made of whole hours.
const SLOTS: i64 = 72;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct BurnRate {
    /// Share of good runs.
    pub objective: f64,
    /// Windows, any of which fires.
    pub windows: Vec<Windows>,
}

impl BurnRate {
    /// Refuses what could never fire.
    pub(super) fn validate(&self) -> Result<(), String> {
        let objective = Objective::new(self.objective).map_err(|invalid| invalid.to_string())?;
        if self.windows.is_empty() {
            return Err("no window is left that could fire".to_owned());
        }
        for windows in &self.windows {
            objective.threshold(windows.factor).map_err(|impossible| impossible.to_string())?;
            if windows.short_minutes >= windows.long_minutes || i64::from(windows.short_minutes) % SLOT != 0 {
                return Err(format!(
                    "windows of {} and {} minutes; the short one must be shorter, and both whole five minutes",
                    windows.long_minutes, windows.short_minutes
                ));
            }
        }
        Ok(())
    }
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<BurnRate>,
    /// Slots with runs: number, bad runs, runs.
    slots: VecDeque<(i64, u32, u32)>,
    open: Option<i64>,
    judged: Option<Judged>,
}

/// What the last slot brought.
#[derive(Clone, Copy, Debug)]
struct Judged {
    said: Said,
    windows: Windows,
    long: Counts,
    short: Counts,
    end: Minute,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<BurnRate>) -> Self {
        Self { settings, slots: VecDeque::new(), open: None, judged: None }
    }

    /// Bad runs and runs of the minutes before an end.
    fn counts(&self, end: Minute, minutes: i64, past: &Past<'_>) -> Counts {
        let mut counts = Counts { events: 0, runs: 0 };
        let from = (end - minutes).div_euclid(SLOT);
        let near = from.max(end.div_euclid(SLOT) - SLOTS);
        for (_, events, runs) in self.slots.iter().filter(|slot| slot.0 >= near && slot.0 * SLOT < end) {
            counts.events += u64::from(*events);
            counts.runs += u64::from(*runs);
        }
        if near > from {
            // Whole hours before the slots that are kept; an hour that both have counts once.
            let (first, last) = ((end - minutes).div_euclid(HOUR), (near * SLOT).div_euclid(HOUR));
            for (_, events, runs) in past.hours.range(first, last) {
                counts.events += crate::observation::count(events.min(runs));
                counts.runs += crate::observation::count(runs);
            }
        }
        counts
    }

    fn judge(&mut self, end: Minute, past: &Past<'_>) {
        let Ok(objective) = Objective::new(self.settings.objective) else { return };
        let mut worst: Option<Judged> = None;
        for windows in &self.settings.windows {
            let long = self.counts(end, i64::from(windows.long_minutes), past);
            let short = self.counts(end, i64::from(windows.short_minutes), past);
            let Ok(said) = objective.judge(long, short, windows.factor) else { continue };
            let judged = Judged { said, windows: *windows, long, short, end };
            if said == Said::Fires {
                worst = Some(judged);
                break;
            }
            worst.get_or_insert(judged);
        }
        self.judged = worst;
    }
}

impl Judge for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let slot = window.start.div_euclid(SLOT);
        if let Some(open) = self.open.replace(slot)
            && open != slot
        {
            self.judge((open + 1) * SLOT, past);
        }
        while self.slots.front().is_some_and(|first| first.0 <= slot - SLOTS) {
            self.slots.pop_front();
        }
        if self.slots.back().is_none_or(|last| last.0 != slot) {
            self.slots.push_back((slot, 0, 0));
        }
        for row in &window.rows {
            let (events, runs) = row.canary.pair();
            if let Some(last) = self.slots.back_mut() {
                last.1 = last.1.saturating_add(u32::try_from(events).unwrap_or(u32::MAX));
                last.2 = last.2.saturating_add(u32::try_from(runs).unwrap_or(u32::MAX));
            }
        }
    }

    fn advance(&mut self, until: Minute, past: &Past<'_>) -> Option<Minute> {
        let end = self.open.map(|slot| (slot + 1) * SLOT).filter(|end| *end <= until)?;
        self.open = None;
        self.judge(end, past);
        Some(end)
    }

    fn verdict(&self, _: &Thresholds) -> Verdict {
        let Some(judged) = &self.judged else {
            return Verdict { signal: Signal::Unknown, statistic: 0.0, threshold: 0.0 };
        };
        let signal = match judged.said {
            Said::Fires => Signal::Alarm,
            Said::NoRuns => Signal::Unknown,
            Said::Slow | Said::Over | Said::Chance => Signal::Clear,
        };
        let burns = Objective::new(self.settings.objective).ok().and_then(|objective| objective.burn_rate(judged.long));
        Verdict { signal, statistic: burns.unwrap_or(0.0), threshold: judged.windows.factor }
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("burn_rate", Baseline::Set, "burn_rate");
        let Some(judged) = &self.judged else { return evidence };
        evidence = evidence.with_counts(None, Some((judged.long.events, judged.long.runs)));
        evidence.baseline_value = Some(1.0 - self.settings.objective);
        if let Ok(objective) = Objective::new(self.settings.objective) {
            evidence.effect = objective.burn_rate(judged.long);
            evidence.log_e = Some(-objective.ln_chance(judged.long, judged.windows.factor));
            evidence.threshold = Some(-GATE_PROBABILITY.ln());
        }
        evidence.since = Some(judged.end - i64::from(judged.windows.long_minutes));
        evidence.notes.push(format!(
            "{} of {} runs in {} min and {} of {} in {} min, against a burn rate of {}; log_e is minus the log of the chance of so many within twice the budget",
            judged.long.events, judged.long.runs, judged.windows.long_minutes, judged.short.events, judged.short.runs,
            judged.windows.short_minutes, judged.windows.factor
        ));
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
