//! D4, D5, D6: a rate increased against the series' own past, adjusted for seasons. It uses the seasonal e-SR of
//! [`bellwether_stats::drift`] for rates of bad runs, and of [`bellwether_stats::rare`] for rare events.
//!
//! The normal variation of the rate from hour to hour is learned as well: evidence is averaged over the two null
//! hypotheses of [`bellwether_stats::wander`]. One finds lasting changes and weighs them by the variance of long sums;
//! the other is wide and finds obvious failures at once.
//!
//! The baseline of a day is learned from the four weeks before that day, without incidents. The anchored twin uses a
//! fixed reference, which does not follow a slow change: a configured period, or the four weeks before the current
//! eight-week cycle.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::drift::{self as rates, HourCounts, ODDS_RATIOS};
use bellwether_stats::pack::Packer;
use bellwether_stats::packed;
use bellwether_stats::rare::{RATE_RATIOS, TOLERANCE, poisson_increments, rate_bound};
use bellwether_stats::sequential::EDetector;
use bellwether_stats::wander::{NullHypothesis, Wander};

use super::{DAY, DetectorState, HOUR, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{BaselineKind, Evidence};
use crate::observation::{Minute, Window, count};
use crate::weights::{Arm, SamplingScheme};

/// Hours of the past that a baseline is learned from.
const PAST: i64 = 28 * 24;

/// Hours of a cycle, during which an anchored reference is kept.
const CYCLE: i64 = 56 * 24;

/// Confidence of the upper bound of a rare rate.
const BOUND: f64 = 0.9;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Minutes of a block.
    pub minutes: i64,
    /// Minimum margin: the odds ratio (for rare events, the rate ratio) that is still acceptable.
    pub margin: f64,
    /// Minimum number of hours with runs to learn from.
    pub least_hours: usize,
    /// Treats events as rare: counts per run.
    pub rare: bool,
    /// Uses an anchored reference.
    pub anchored: bool,
    /// Configured reference period, [from, to), in hours since the epoch.
    pub reference: Option<(i64, i64)>,
}

impl Default for Drift {
    fn default() -> Self {
        Self { minutes: 5, margin: 1.1, least_hours: 72, rare: false, anchored: false, reference: None }
    }
}

impl Drift {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.minutes < 1 || HOUR % self.minutes != 0 {
            return Err(Invalid::new("minutes", self.minutes, "a divisor of 60"));
        }
        if !(1.0..=10.0).contains(&self.margin) {
            return Err(Invalid::new("margin", self.margin, "an odds ratio from 1 to 10, such as 1.1"));
        }
        if self.least_hours < 24 {
            return Err(Invalid::new("least_hours", self.least_hours, "at least 24"));
        }
        match self.reference {
            Some((from, to)) if to <= from => {
                Err(Invalid::new("reference", format_args!("{from} to {to}"), "a period that ends after it begins"))
            }
            _ => Ok(()),
        }
    }
}

/// The reference learned from the past.
#[derive(Clone, Debug)]
enum Reference {
    Seasonal(rates::WeeklyBaseline, [NullHypothesis; 2]),
    /// Upper bound of a rare rate, and the tempering of increments.
    Rare(f64, f64),
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Drift>,
    /// Day that the baseline applies to.
    day: Option<i64>,
    reference: Option<Arc<Reference>>,
    /// Start and runs of the open block.
    open: Option<(Minute, Arm)>,
    /// How bad and good runs are sampled.
    scheme: SamplingScheme,
    detector: EDetector,
    fired: bool,
    recovery: Option<Recovery>,
    since: Option<Minute>,
    counted: Counted,
}

/// Runs since the change began.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    arm: Arm,
    /// Expected bad runs among them, unweighted and weighted.
    expected: f64,
    expected_of_all: f64,
}

packed!(Counted { arm, expected, expected_of_all });
packed_state!(Drift { day, reference, open, scheme, detector, fired, recovery, since, counted });

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Drift>) -> Self {
        let points = if settings.rare { RATE_RATIOS.len() } else { 2 * ODDS_RATIOS.len() };
        Self {
            settings,
            day: None,
            reference: None,
            open: None,
            scheme: SamplingScheme::default(),
            detector: EDetector::new(points),
            fired: false,
            recovery: None,
            since: None,
            counted: Counted::default(),
        }
    }

    /// Learns the baseline of a block's day, unless an alert is open: its baseline stays fixed.
    fn learn(&mut self, start: Minute, past: &Past<'_>) {
        let day = start.div_euclid(DAY);
        if self.day == Some(day) || (self.fired && self.reference.is_some()) {
            return;
        }
        self.day = Some(day);
        let today = day * 24;
        let hours = match (self.settings.reference, self.settings.anchored) {
            (Some((from, to)), _) => past.hours(from, to.min(today)),
            (None, true) => {
                // Eight-week cycles begin on Mondays. Without four weeks before the cycle, its first four weeks serve
                // as the reference.
                let started = (today - 96).div_euclid(CYCLE) * CYCLE + 96;
                let before = past.hours(started - PAST, started);
                if before.len() >= self.settings.least_hours {
                    before
                } else {
                    past.hours(started, (started + PAST).min(today))
                }
            }
            (None, false) => past.hours(today - PAST, today),
        };
        if hours.iter().filter(|hour| hour.runs > 0).count() < self.settings.least_hours {
            self.reference = None;
            return;
        }
        self.reference = self.made_from(&hours).map(Arc::new);
        self.scheme.presume(&past.pool(today - PAST, today));
    }

    fn made_from(&self, hours: &[HourCounts]) -> Option<Reference> {
        if self.settings.rare {
            let (events, runs) = hours.iter().fold((0, 0), |sum, hour| (sum.0 + hour.events, sum.1 + hour.runs));
            let wander = Wander::learn_counts(hours);
            return rate_bound(events, runs, BOUND).ok().map(|rate| {
                Reference::Rare(rate * TOLERANCE.max(self.settings.margin), 1.0 / wander.inflation(wander.usual))
            });
        }
        let mut baseline = rates::WeeklyBaseline::learn(hours).ok()?;
        if self.settings.anchored {
            baseline = baseline.anchored();
        }
        let wander = Wander::learn(hours, &baseline);
        let nulls = wander.nulls(baseline.margin.max(self.settings.margin.ln()));
        (baseline.margin, baseline.overdispersion) = (nulls[0].margin, 1.0 / nulls[0].tempering);
        Some(Reference::Seasonal(baseline, nulls))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn close(&mut self, (start, arm): (Minute, Arm), past: &Past<'_>) {
        self.learn(start, past);
        self.scheme.note(&arm);
        let Some(reference) = self.reference.clone() else { return };
        // A run can have several rare events.
        let rare = self.settings.rare;
        let (events, runs) = if rare { (count(arm.events), count(arm.runs)) } else { arm.seen_counts() };
        let factor = if rare { self.scheme.rate_factor() } else { self.scheme.factor() };
        let hour = past.hours.season().local_hour(start.div_euclid(HOUR));
        let (increments, null, seen) = match reference.as_ref() {
            Reference::Seasonal(baseline, nulls) => {
                let each = nulls.map(|null| {
                    // For sampled runs, the expected observed rate at the null rate.
                    let rate = factor.seen_rate(baseline.rate_beyond(hour, null.margin));
                    rates::bernoulli_increments(events, runs, rate, factor.tempering * null.tempering)
                });
                let both = each.into_iter().collect::<Result<Vec<_>, _>>().map(|lists| lists.concat());
                let null = baseline.null_rate(hour);
                (both, null, factor.seen_rate(null))
            }
            Reference::Rare(rate, tempering) => {
                let seen = rate * factor.odds;
                let increments = poisson_increments(events, runs, seen, factor.tempering * tempering);
                (increments.map(|list| list.to_vec()), *rate, seen)
            }
        };
        let Ok(increments) = increments else { return };
        self.detector.update(&increments);
        if let Some(recovery) = &mut self.recovery {
            recovery.update(&increments);
        }
        if self.detector.blocks_since_change().is_none_or(|blocks| blocks == 1) {
            self.since = Some(start);
            self.counted = Counted::default();
        }
        self.counted.arm.add(&arm);
        self.counted.expected += seen * runs as f64;
        self.counted.expected_of_all += null * arm.weighted_runs();
    }
}

impl DetectorState for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let start = window.start.div_euclid(self.settings.minutes) * self.settings.minutes;
        if let Some(open) = self.open.take_if(|open| open.0 != start) {
            self.close(open, past);
        }
        let open = self.open.get_or_insert((start, Arm::default()));
        window.rows.iter().for_each(|row| open.1.add(&Arm::from_measure(&row.canary)));
    }

    fn advance(&mut self, until: Minute, past: &Past<'_>) -> Option<Minute> {
        let end = self.open.as_ref().map(|open| open.0 + self.settings.minutes).filter(|end| *end <= until)?;
        if let Some(open) = self.open.take() {
            self.close(open, past);
        }
        Some(end)
    }

    fn verdict(&self, thresholds: &Thresholds) -> Verdict {
        let mut verdict = weigh(self.detector.log_shiryaev_roberts().max(0.0), thresholds.detector);
        if self.reference.is_none() {
            verdict.signal = Signal::Unknown;
        } else if self.recovery.as_ref().is_some_and(Recovery::is_over) {
            verdict.signal = Signal::Recovered;
        }
        verdict
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn on_fired(&mut self) {
        self.fired = true;
        // One grid point below the effect observed since the change, which overestimates a change that was found early.
        let Counted { arm, expected, .. } = self.counted;
        let ratio = count(arm.events) as f64 / expected.max(1e-9);
        let grid: &[f64] = if self.settings.rare { &RATE_RATIOS } else { &ODDS_RATIOS };
        let place = grid.iter().rposition(|point| *point <= ratio).unwrap_or(0).saturating_sub(1);
        self.recovery = Some(Recovery::new(place));
    }

    fn on_resolved(&mut self) {
        let (reference, day, scheme) = (self.reference.take(), self.day, std::mem::take(&mut self.scheme));
        *self = Self { reference, day, scheme, ..Self::new(Arc::clone(&self.settings)) };
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let kept = self.settings.anchored || self.settings.reference.is_some();
        let Counted { arm, expected, expected_of_all } = self.counted;
        let kind = if self.settings.rare { "rate_ratio" } else { "odds_ratio" };
        let baseline = if kept { BaselineKind::Anchored } else { BaselineKind::Past };
        let factor = if self.settings.rare { self.scheme.rate_factor() } else { self.scheme.factor() };
        let mut evidence = Evidence::new("drift", baseline, kind).with_arms(None, &arm, factor.tempering);
        evidence.baseline_value = (arm.weighted_runs() > 0.0).then(|| expected_of_all / arm.weighted_runs());
        if let (Some(before), Some(now)) = (evidence.baseline_value, evidence.canary_value) {
            let odds = |rate: f64| rate / (1.0 - rate);
            let effect = if self.settings.rare { now / before } else { odds(now) / odds(before) };
            evidence.effect = effect.is_finite().then_some(effect);
        }
        if self.settings.rare {
            let interval = bellwether_stats::interval::poisson_rate(count(arm.events) as f64, expected, 0.95);
            evidence.interval = interval.map(|interval| (interval.low, interval.high));
        }
        evidence.log_e = Some(self.detector.log_shiryaev_roberts().max(0.0));
        evidence.threshold = Some(thresholds.detector);
        evidence.false_alarm = Some((thresholds.alarms_per_month, "a_month"));
        evidence.since = self.since;
        match self.reference.as_deref() {
            Some(Reference::Seasonal(baseline, _)) => evidence.notes.push(format!(
                "baseline_value is the highest acceptable rate for this hour of the week, with an odds margin of {:.2}; the standard deviation between days is {:.2} on the logit scale, and sums over hours have {:.1} times the variance of independent runs",
                baseline.margin.exp(), baseline.day_deviation, baseline.overdispersion
            )),
            Some(Reference::Rare(..)) => {
                evidence.notes.push("baseline_value is the upper bound of the past rate, tolerance included".to_owned());
            }
            None => evidence.notes.push(format!("no baseline: fewer than {} past hours have runs", self.settings.least_hours)),
        }
        evidence
    }

    fn pack(&self, to: &mut Packer) {
        if self.fired {
            return self.put(to);
        }
        // The baseline of a day is learned again from the same hours; only that of an open alert stays.
        Self { day: None, reference: None, ..self.clone() }.put(to);
    }
}
