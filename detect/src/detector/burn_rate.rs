//! D8: an objective's error budget burns too fast. It uses the long and short windows of
//! [`bellwether_stats::burn_rate`] with their significance test, and rejects windows that could never fire.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_stats::burn_rate::{BurnCounts, BurnVerdict, BurnWindows, GATE_PROBABILITY, Objective};
use bellwether_stats::pack::Packer;
use bellwether_stats::packed;

use super::{DetectorState, HOUR, Past, Signal, Verdict};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Minute, Window};
use crate::weights::{Arm, Factor, SamplingScheme, SmallArm};

/// Minutes in a slot of the short windows.
pub(super) const SLOT: i64 = 5;

/// Slots kept: six hours. Longer windows are made of whole hours.
const SLOTS: i64 = 72;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct BurnRate {
    /// Required fraction of good runs.
    pub objective: f64,
    /// Pairs of windows; each of them can fire.
    pub windows: Vec<BurnWindows>,
}

impl BurnRate {
    /// Rejects windows that could never fire.
    pub(super) fn validate(&self) -> Result<(), String> {
        let objective = Objective::new(self.objective).map_err(|invalid| invalid.to_string())?;
        if self.windows.is_empty() {
            return Err("no window is left that can fire".to_owned());
        }
        for windows in &self.windows {
            objective.threshold(windows.factor).map_err(|impossible| impossible.to_string())?;
            if windows.short_minutes >= windows.long_minutes || i64::from(windows.short_minutes) % SLOT != 0 {
                return Err(format!(
                    "windows of {} and {} minutes; the short one must be shorter than the long one and a multiple of 5 minutes",
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
    slots: VecDeque<Slot>,
    /// How bad and good runs are sampled.
    scheme: SamplingScheme,
    open: Option<i64>,
    judged: Option<Judged>,
}

/// The runs of a slot.
#[derive(Clone, Debug)]
struct Slot {
    number: i64,
    arm: SmallArm,
}

/// The result of the last slot.
#[derive(Clone, Copy, Debug)]
struct Judged {
    verdict: BurnVerdict,
    windows: BurnWindows,
    long: Arm,
    short: Arm,
    factor: Factor,
    end: Minute,
}

packed!(Slot { number, arm });
packed!(Judged { verdict, windows, long, short, factor, end });
packed_state!(BurnRate { slots, scheme, open, judged });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<BurnRate>) -> Self {
        Self { settings, slots: VecDeque::new(), scheme: SamplingScheme::default(), open: None, judged: None }
    }

    /// Returns the runs of the minutes before an end.
    fn arm(&self, end: Minute, minutes: i64, past: &Past<'_>) -> Arm {
        let mut arm = Arm::default();
        let from = (end - minutes).div_euclid(SLOT);
        let near = from.max(end.div_euclid(SLOT) - SLOTS);
        let slots = self.slots.iter().filter(|slot| slot.number >= near && slot.number * SLOT < end);
        slots.for_each(|slot| arm.add(&slot.arm.arm()));
        if near > from {
            // Whole hours before the kept slots; an hour in both counts once.
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
            // A window without good runs, or without bad ones, does not show how these are sampled.
            let mut scheme = self.scheme.clone();
            scheme.note(&long);
            let factor = scheme.factor();
            let rates = [&long, &short].map(|arm| arm.rate().unwrap_or(0.0));
            let counts = [counts(&long, factor), counts(&short, factor)];
            let Ok(verdict) = objective.judge_sampled(counts, rates, factor.odds, windows.factor) else { continue };
            let judged = Judged { verdict, windows: *windows, long, short, factor, end };
            if verdict == BurnVerdict::Fires {
                worst = Some(judged);
                break;
            }
            worst.get_or_insert(judged);
        }
        self.judged = worst;
    }

    /// Returns the weighted error rate of the long window as a multiple of the budget.
    fn burns(&self, judged: &Judged) -> Option<f64> {
        let objective = Objective::new(self.settings.objective).ok()?;
        judged.long.rate().map(|rate| rate / objective.budget())
    }
}

/// Returns the observed counts, reduced for uneven weights.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are far below 2^53"
)]
fn counts(arm: &Arm, factor: Factor) -> BurnCounts {
    let (events, runs) = arm.seen_counts();
    if factor.tempering == 1.0 {
        return BurnCounts { events, runs };
    }
    let part = |count: u64| (count as f64 * factor.tempering) as u64;
    BurnCounts { events: part(events), runs: part(runs).max(u64::from(runs > 0)) }
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let slot = window.start.div_euclid(SLOT);
        if let Some(open) = self.open.replace(slot)
            && open != slot
        {
            self.judge((open + 1) * SLOT, past);
        }
        while self.slots.front().is_some_and(|first| first.number <= slot - SLOTS) {
            self.slots.pop_front();
        }
        if self.slots.back().is_none_or(|last| last.number != slot) {
            if self.slots.len() == self.slots.capacity() {
                self.slots.reserve_exact(8);
            }
            self.slots.push_back(Slot { number: slot, arm: SmallArm::default() });
        }
        for row in &window.rows {
            let arm = Arm::from_measure(&row.canary);
            self.scheme.note(&arm);
            if let Some(last) = self.slots.back_mut() {
                last.arm.add(&arm);
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
        let signal = match judged.verdict {
            BurnVerdict::Fires => Signal::Alarm,
            BurnVerdict::NoRuns => Signal::Unknown,
            BurnVerdict::Slow | BurnVerdict::Over | BurnVerdict::Chance => Signal::Clear,
        };
        Verdict { signal, statistic: self.burns(judged).unwrap_or(0.0), threshold: judged.windows.factor }
    }

    fn evidence(&self, _: &Thresholds) -> Evidence {
        let mut evidence = Evidence::new("burn_rate", BaselineKind::Set, "burn_rate");
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
        let (long, short) = (judged.long.weighted_counts(), judged.short.weighted_counts());
        evidence.notes.push(format!(
            "{} of {} runs in {} min and {} of {} in {} min, against a burn rate of {}; log_e is −ln of the probability of this many at twice the budget",
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

    fn pack(&self, to: &mut Packer) {
        self.put(to);
    }
}
