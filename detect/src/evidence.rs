//! The numbers behind a verdict: everything somebody needs who has to believe it or not.

use std::sync::Arc;

use crate::observation::Minute;
use crate::weights::{Arm, ONE, note};

/// What a series is judged against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Other releases, in the same windows.
    Concurrent,
    /// The previous release in the same hours of earlier weeks; nothing else was there to compare with.
    Historical,
    /// The series' own past.
    Past,
    /// A stretch of the past that is kept as the reference.
    Anchored,
    /// An objective, a bound or a share that somebody set.
    Set,
}

/// Counts of one stratum.
#[derive(Clone, Debug, PartialEq)]
pub struct StratumEvidence {
    /// Its name.
    pub stratum: Arc<str>,
    /// Bad runs and runs of the baseline.
    pub baseline: (u64, u64),
    /// Bad runs and runs of the canary.
    pub canary: (u64, u64),
    /// Its own evidence, nats.
    pub log_e: f64,
}

/// What a detector has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Kind of detector.
    pub detector: &'static str,
    /// What it was judged against.
    pub baseline: Baseline,
    /// Bad runs and runs of the baseline.
    pub baseline_counts: Option<(u64, u64)>,
    /// Bad runs and runs of the canary, or of the series.
    pub canary_counts: Option<(u64, u64)>,
    /// Runs seen of baseline and canary, where the counts are of what these stand for; none where each stands for itself.
    pub seen_runs: Option<(Option<u64>, u64)>,
    /// Strata whose runs are sampled unevenly: the ratio of odds among runs that were seen over the true one, and the share of
    /// the evidence that uneven weights leave.
    pub sampling: Vec<(Arc<str>, f64, f64)>,
    /// The value compared, of the baseline: a rate, a median, a ratio, a bound.
    pub baseline_value: Option<f64>,
    /// The value compared, of the canary.
    pub canary_value: Option<f64>,
    /// What the effect is: `odds_ratio`, `ratio`, `burn_rate`, `distance`, …
    pub effect_kind: &'static str,
    /// The effect.
    pub effect: Option<f64>,
    /// An interval that holds the true effect at all times with probability 95 %, asymptotically.
    pub interval: Option<(f64, f64)>,
    /// Evidence, nats; none for detectors that have none.
    pub log_e: Option<f64>,
    /// What it had to reach.
    pub threshold: Option<f64>,
    /// Greatest probability of a false alarm over the whole life of the series (`per_release`), or false alarms a month
    /// (`a_month`); none where no such promise is made.
    pub false_alarm: Option<(f64, &'static str)>,
    /// When the change began, as far as the evidence tells.
    pub since: Option<Minute>,
    /// The stratum that the numbers are of; none: all together.
    pub stratum: Option<Arc<str>>,
    /// Other strata that are guilty by themselves.
    pub also: usize,
    /// The numbers are of the time since the change began, because the release was well before; else of all its time.
    pub recent: bool,
    /// First window of the numbers by stratum.
    pub starts: Vec<(Arc<str>, Minute)>,
    /// What of a distribution the values are, where that is not the rule's to say: `median`, `95th percentile`.
    pub of: Option<&'static str>,
    /// Strata, the subject first, then the guiltiest.
    pub strata: Vec<StratumEvidence>,
    /// What else has to be known to read the numbers.
    pub notes: Vec<String>,
}

// === impl Evidence ===

impl Evidence {
    /// Nothing known yet.
    pub fn new(detector: &'static str, baseline: Baseline, effect_kind: &'static str) -> Self {
        Self {
            detector,
            baseline,
            baseline_counts: None,
            canary_counts: None,
            seen_runs: None,
            sampling: Vec::new(),
            baseline_value: None,
            canary_value: None,
            effect_kind,
            effect: None,
            interval: None,
            log_e: None,
            threshold: None,
            false_alarm: None,
            since: None,
            stratum: None,
            also: 0,
            recent: false,
            starts: Vec::new(),
            of: None,
            strata: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Sets counts of both sides with their rates.
    pub(crate) fn with_counts(mut self, baseline: Option<(u64, u64)>, canary: Option<(u64, u64)>) -> Self {
        (self.baseline_counts, self.canary_counts) = (baseline, canary);
        self.baseline_value = baseline.and_then(rate);
        self.canary_value = canary.and_then(rate);
        self
    }

    /// The same of runs that may be sampled: counts are of what they stand for, rates are weighted, and how many were seen is
    /// told. `tempering` is what uneven weights leave of the evidence.
    pub(crate) fn with_arms(mut self, baseline: Option<&Arm>, canary: &Arm, tempering: f64) -> Self {
        self = self.with_counts(baseline.map(Arm::stands_for), Some(canary.stands_for()));
        self.weigh(baseline, canary, tempering);
        self
    }

    /// Puts what runs stand for in the place of runs that were seen; nothing where each stands for itself.
    pub(crate) fn weigh(&mut self, baseline: Option<&Arm>, canary: &Arm, tempering: f64) {
        let arms: Vec<Arm> = baseline.into_iter().chain([canary]).copied().collect();
        if arms.iter().all(|arm| arm.weight().is_some_and(|weight| weight == ONE || weight == 0)) {
            return;
        }
        (self.baseline_counts, self.canary_counts) = (baseline.map(Arm::stands_for), Some(canary.stands_for()));
        (self.baseline_value, self.canary_value) = (baseline.and_then(Arm::rate), canary.rate());
        self.seen_runs = Some((baseline.map(|arm| arm.seen().1), canary.seen().1));
        self.notes.extend(note(&arms, tempering));
    }
}

impl Baseline {
    /// Its name in the table of alerts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Concurrent => "concurrent",
            Self::Historical => "historical",
            Self::Past => "past",
            Self::Anchored => "anchored",
            Self::Set => "set",
        }
    }
}

/// A rate, where there are runs.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn rate((events, runs): (u64, u64)) -> Option<f64> {
    (runs > 0).then(|| events as f64 / runs as f64)
}
