//! D4, D5, D6: has a rate grown against the series' own past, its seasons known? Seasonal e-SR of
//! [`bellwether_stats::drift`] for shares of runs, of [`bellwether_stats::rare`] for rare events.
//!
//! How much the rate wanders from hour to hour though nothing is wrong is learned along with it: evidence is averaged over
//! two nulls of [`bellwether_stats::wander`], one that weighs what stays by the variance of long sums, one that is wide and
//! finds at once what is plainly broken.
//!
//! The baseline of a day is learned from the four weeks before that day, incidents left out. The anchored twin keeps a
//! reference instead, which does not follow a slow change: a stretch that somebody named, or the four weeks before the
//! present eight-week cycle.

use std::sync::Arc;

use bellwether_stats::Invalid;
use bellwether_stats::drift::{self as rates, Hour, ODDS_RATIOS};
use bellwether_stats::rare::{RATE_RATIOS, TOLERANCE, poisson_increments, rate_bound};
use bellwether_stats::sequential::Detector;
use bellwether_stats::wander::{Null, Wander};

use super::{DAY, HOUR, Judge, Past, Recovery, Signal, Verdict, weigh};
use crate::budget::Thresholds;
use crate::evidence::{Baseline, Evidence};
use crate::observation::{Minute, Window, count};
use crate::weights::{Arm, Scheme};

/// Hours of the past that a baseline is learned from.
const PAST: i64 = 28 * 24;

/// Hours of a cycle, for which an anchored reference is kept.
const CYCLE: i64 = 56 * 24;

/// Confidence of the bound of a rare rate.
const BOUND: f64 = 0.9;

/// Settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Minutes of a block.
    pub minutes: i64,
    /// Odds (of rare events: rate) ratio up to which all is well, at the least.
    pub margin: f64,
    /// Fewest hours with runs to learn from.
    pub least_hours: usize,
    /// Events are rare: counts over exposures.
    pub rare: bool,
    /// The reference is kept.
    pub anchored: bool,
    /// Hours since the epoch, [from, to), of a reference that somebody named.
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
            return Err(Invalid::new("margin", self.margin, "an odds ratio from 1 to 10, as 1.1"));
        }
        if self.least_hours < 24 {
            return Err(Invalid::new("least_hours", self.least_hours, "at least 24"));
        }
        match self.reference {
            Some((from, to)) if to <= from => {
                Err(Invalid::new("reference", format_args!("{from} to {to}"), "a stretch with an end after its begin"))
            }
            _ => Ok(()),
        }
    }
}

/// What the past was like.
#[derive(Clone, Debug)]
enum Reference {
    Seasonal(rates::Baseline, [Null; 2]),
    /// Bound of a rare rate, and how much an increment weighs.
    Rare(f64, f64),
}

/// State of one series.
#[derive(Clone, Debug)]
pub(super) struct State {
    settings: Arc<Drift>,
    /// Day that the baseline is for.
    day: Option<i64>,
    reference: Option<Arc<Reference>>,
    /// Start and runs of the block that fills.
    open: Option<(Minute, Arm)>,
    /// How bad and good runs are sampled.
    scheme: Scheme,
    detector: Detector,
    fired: bool,
    recovery: Option<Recovery>,
    since: Option<Minute>,
    counted: Counted,
}

/// Runs since the change began.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    arm: Arm,
    /// Bad runs to expect among them, and among the runs that they stand for.
    expected: f64,
    expected_of_all: f64,
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Arc<Drift>) -> Self {
        let points = if settings.rare { RATE_RATIOS.len() } else { 2 * ODDS_RATIOS.len() };
        Self {
            settings,
            day: None,
            reference: None,
            open: None,
            scheme: Scheme::default(),
            detector: Detector::new(points),
            fired: false,
            recovery: None,
            since: None,
            counted: Counted::default(),
        }
    }

    /// Learns the baseline of a block's day, unless an alert is open: a baseline does not move under it.
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
                // The eight weeks' cycles begin on Mondays; without four weeks before it, the first of the cycle serve.
                let begun = (today - 96).div_euclid(CYCLE) * CYCLE + 96;
                let before = past.hours(begun - PAST, begun);
                if before.len() >= self.settings.least_hours {
                    before
                } else {
                    past.hours(begun, (begun + PAST).min(today))
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

    fn made_from(&self, hours: &[Hour]) -> Option<Reference> {
        if self.settings.rare {
            let (events, runs) = hours.iter().fold((0, 0), |sum, hour| (sum.0 + hour.events, sum.1 + hour.runs));
            let wander = Wander::of_counts(hours);
            return rate_bound(events, runs, BOUND).ok().map(|rate| {
                Reference::Rare(rate * TOLERANCE.max(self.settings.margin), 1.0 / wander.inflation(wander.usual))
            });
        }
        let mut baseline = rates::Baseline::learn(hours).ok()?;
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
        let (events, runs) = if rare { (count(arm.events), count(arm.runs)) } else { arm.seen() };
        let factor = if rare { self.scheme.rate_factor() } else { self.scheme.factor() };
        let hour = past.hours.season().local_hour(start.div_euclid(HOUR));
        let (increments, null, seen) = match reference.as_ref() {
            Reference::Seasonal(baseline, nulls) => {
                let each = nulls.map(|null| {
                    // Of sampled runs, the rate that is to be seen where the true one is the null's.
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

impl Judge for State {
    fn step(&mut self, window: &Window, past: &Past<'_>) {
        let start = window.start.div_euclid(self.settings.minutes) * self.settings.minutes;
        if let Some(open) = self.open.take_if(|open| open.0 != start) {
            self.close(open, past);
        }
        let open = self.open.get_or_insert((start, Arm::default()));
        window.rows.iter().for_each(|row| open.1.add(&Arm::of(&row.canary)));
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
    fn fired(&mut self) {
        self.fired = true;
        // A point below what has been seen since the change, which overstates a change that was found early.
        let Counted { arm, expected, .. } = self.counted;
        let ratio = count(arm.events) as f64 / expected.max(1e-9);
        let grid: &[f64] = if self.settings.rare { &RATE_RATIOS } else { &ODDS_RATIOS };
        let place = grid.iter().rposition(|point| *point <= ratio).unwrap_or(0).saturating_sub(1);
        self.recovery = Some(Recovery::new(place));
    }

    fn resolved(&mut self) {
        let (reference, day, scheme) = (self.reference.take(), self.day, self.scheme);
        *self = Self { reference, day, scheme, ..Self::new(Arc::clone(&self.settings)) };
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn evidence(&self, thresholds: &Thresholds) -> Evidence {
        let kept = self.settings.anchored || self.settings.reference.is_some();
        let Counted { arm, expected, expected_of_all } = self.counted;
        let kind = if self.settings.rare { "rate_ratio" } else { "odds_ratio" };
        let baseline = if kept { Baseline::Anchored } else { Baseline::Past };
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
        evidence.false_alarm = Some((thresholds.alarms_a_month, "a_month"));
        evidence.since = self.since;
        match self.reference.as_deref() {
            Some(Reference::Seasonal(baseline, _)) => evidence.notes.push(format!(
                "baseline_value is the rate up to which this hour of the week is not worse: an odds margin of {:.2}; days differ by {:.2} on the logit scale, sums over hours vary {:.1} times as much as chance",
                baseline.margin.exp(), baseline.day_deviation, baseline.overdispersion
            )),
            Some(Reference::Rare(..)) => {
                evidence.notes.push("baseline_value is the upper bound of the past rate with its tolerance".to_owned());
            }
            None => evidence.notes.push(format!("no baseline: fewer than {} hours of the past have runs", self.settings.least_hours)),
        }
        evidence
    }

    fn boxed(&self) -> Box<dyn Judge> {
        Box::new(self.clone())
    }
}
