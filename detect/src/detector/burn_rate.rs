//! D8: does an objective's error budget burn too fast? Long and short windows of [`bellwether_stats::burn_rate`], beyond
//! chance; windows that could never fire are refused.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_stats::burn_rate::{Counts, GATE_PROBABILITY, Objective, Verdict as Said, Windows};

use super::{HOUR, Judge, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window};
use crate::weights::{Arm, Factor, Scheme};

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
    /// Slots with runs, by number.
    slots: VecDeque<(i64, Arm)>,
    /// How bad and good runs are sampled.
    scheme: Scheme,
    open: Option<i64>,
    judged: Option<Judged>,
}

/// What the last slot brought.
#[derive(Clone, Copy, Debug)]
struct Judged {
    said: Said,
    windows: Windows,
    long: Arm,
    short: Arm,
    factor: Factor,
    end: Minute,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<BurnRate>) -> Self {
        Self { settings, slots: VecDeque::new(), scheme: Scheme::default(), open: None, judged: None }
    }

    /// Runs of the minutes before an end.
    fn arm(&self, end: Minute, minutes: i64, past: &Past<'_>) -> Arm {
        let mut arm = Arm::default();
        let from = (end - minutes).div_euclid(SLOT);
        let near = from.max(end.div_euclid(SLOT) - SLOTS);
        let slots = self.slots.iter().filter(|slot| slot.0 >= near && slot.0 * SLOT < end);
        slots.for_each(|(_, more)| arm.add(more));
        if near > from {
            // Whole hours before the slots that are kept; an hour that both have counts once.
            let (first, last) = ((end - minutes).div_euclid(HOUR), (near * SLOT).div_euclid(HOUR));
            past.hours.arms(first, last).for_each(|(_, more)| arm.add(&more));
        }
        arm
    }

    fn judge(&mut self, end: Minute, past: &Past<'_>) {
        let Ok(objective) = Objective::new(self.settings.objective) else { return };
        let mut worst: Option<Judged> = None;
        for windows in &self.settings.windows {
            let long = self.arm(end, i64::from(windows.long_minutes), past);
            let short = self.arm(end, i64::from(windows.short_minutes), past);
            // A window without good runs, or without bad ones, does not say how these are sampled.
            let mut scheme = self.scheme;
            scheme.note(&long);
            let factor = scheme.factor();
            let rates = [&long, &short].map(|arm| arm.rate().unwrap_or(0.0));
            let counts = [counts(&long, factor), counts(&short, factor)];
            let Ok(said) = objective.judge_sampled(counts, rates, factor.odds, windows.factor) else { continue };
            let judged = Judged { said, windows: *windows, long, short, factor, end };
            if said == Said::Fires {
                worst = Some(judged);
                break;
            }
            worst.get_or_insert(judged);
        }
        self.judged = worst;
    }

    /// The weighted error rate of the long window as a multiple of the budget.
    fn burns(&self, judged: &Judged) -> Option<f64> {
        let objective = Objective::new(self.settings.objective).ok()?;
        judged.long.rate().map(|rate| rate / objective.budget())
    }
}

/// What was seen, as far as uneven weights leave it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53"
)]
fn counts(arm: &Arm, factor: Factor) -> Counts {
    let (events, runs) = arm.seen();
    if factor.tempering == 1.0 {
        return Counts { events, runs };
    }
    let part = |count: u64| (count as f64 * factor.tempering) as u64;
    Counts { events: part(events), runs: part(runs).max(u64::from(runs > 0)) }
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
            self.slots.push_back((slot, Arm::default()));
        }
        for row in &window.rows {
            let arm = Arm::of(&row.canary);
            self.scheme.note(&arm);
            if let Some(last) = self.slots.back_mut() {
                last.1.add(&arm);
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
        Verdict { signal, statistic: self.burns(judged).unwrap_or(0.0), threshold: judged.windows.factor }
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("burn_rate", Baseline::Set, "burn_rate");
        let Some(judged) = &self.judged else { return evidence };
        evidence = evidence.with_arms(None, &judged.long, judged.factor.tempering);
        evidence.baseline_value = Some(1.0 - self.settings.objective);
        if let Ok(objective) = Objective::new(self.settings.objective) {
            let seen = counts(&judged.long, judged.factor);
            evidence.effect = self.burns(judged);
            evidence.log_e = Some(-objective.ln_chance_sampled(seen, judged.factor.odds, judged.windows.factor));
            evidence.threshold = Some(-GATE_PROBABILITY.ln());
        }
        evidence.since = Some(judged.end - i64::from(judged.windows.long_minutes));
        let (long, short) = (judged.long.stands_for(), judged.short.stands_for());
        evidence.notes.push(format!(
            "{} of {} runs in {} min and {} of {} in {} min, against a burn rate of {}; log_e is minus the log of the chance of so many within twice the budget",
            long.0,
            long.1,
            judged.windows.long_minutes,
            short.0,
            short.1,
            judged.windows.short_minutes,
            judged.windows.factor
        ));
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
