//! The numbers behind a verdict: everything a person needs to decide whether to believe it.

use std::sync::Arc;

use crate::observation::Minute;
use crate::weights::{Arm, ONE, note};

/// The kind of baseline that a series is judged against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineKind {
    /// Other releases, in the same windows.
    Concurrent,
    /// The previous release in the same hours of earlier weeks, for want of a concurrent baseline.
    Historical,
    /// The series' own past.
    Past,
    /// A fixed period of the past.
    Anchored,
    /// A configured objective, bound or share.
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

/// The evidence of a detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Name of the detector.
    pub detector: &'static str,
    /// Kind of baseline.
    pub baseline: BaselineKind,
    /// Bad runs and runs of the baseline.
    pub baseline_counts: Option<(u64, u64)>,
    /// Bad runs and runs of the canary, or of the series.
    pub canary_counts: Option<(u64, u64)>,
    /// Observed runs of baseline and canary if the counts are weighted; none if every run has weight 1.
    pub seen_runs: Option<(Option<u64>, u64)>,
    /// Strata with unevenly sampled runs: the ratio of the odds among observed runs to the true odds, and the fraction
    /// of the evidence that uneven weights leave.
    pub sampling: Vec<(Arc<str>, f64, f64)>,
    /// The compared value of the baseline: a rate, a median, a ratio, a bound.
    pub baseline_value: Option<f64>,
    /// The compared value of the canary.
    pub canary_value: Option<f64>,
    /// Kind of the effect: `odds_ratio`, `ratio`, `burn_rate`, `distance`, …
    pub effect_kind: &'static str,
    pub effect: Option<f64>,
    /// An interval that covers the true effect at all times with probability 95 %, asymptotically.
    pub interval: Option<(f64, f64)>,
    /// Evidence, nats; none for detectors without evidence.
    pub log_e: Option<f64>,
    /// Threshold of the evidence.
    pub threshold: Option<f64>,
    /// Bound on the probability of a false alarm over the whole life of the series (`per_release`), or on the false
    /// alarms per month (`a_month`); none if the false alarm rate is not controlled.
    pub false_alarm: Option<(f64, &'static str)>,
    /// Estimated start of the change.
    pub since: Option<Minute>,
    /// The stratum that the numbers describe; none for all strata together.
    pub stratum: Option<Arc<str>>,
    /// Number of other strata with significant evidence of their own.
    pub also: usize,
    /// True if the numbers cover only the time since the change began, because the release was fine before; false if
    /// they cover its whole life.
    pub recent: bool,
    /// First window of the numbers, by stratum.
    pub starts: Vec<(Arc<str>, Minute)>,
    /// First window of `log_e`, if it may differ from that of the numbers: `log_e` is of all strata since the release began.
    pub log_e_from: Option<Minute>,
    /// True if `log_e` is that of an e-detector, which looks for a change at an unknown time since then.
    pub is_detected: bool,
    /// The quantile that the values are, if the detector chooses it: `median`, `95th percentile`.
    pub of: Option<&'static str>,
    /// Strata, the subject first, then by evidence.
    pub strata: Vec<StratumEvidence>,
    /// Further notes for the interpretation of the numbers.
    pub notes: Vec<String>,
}

// === impl Evidence ===

impl Evidence {
    /// Creates empty evidence.
    pub fn new(detector: &'static str, baseline: BaselineKind, effect_kind: &'static str) -> Self {
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
            log_e_from: None,
            is_detected: false,
            of: None,
            strata: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Sets the counts of both sides with their rates.
    pub(crate) fn with_counts(mut self, baseline: Option<(u64, u64)>, canary: Option<(u64, u64)>) -> Self {
        (self.baseline_counts, self.canary_counts) = (baseline, canary);
        self.baseline_value = baseline.and_then(rate);
        self.canary_value = canary.and_then(rate);
        self
    }

    /// Sets counts, rates and number of observed runs of possibly sampled arms, with counts and rates weighted.
    /// `tempering` is the fraction of the evidence that uneven weights leave.
    pub(crate) fn with_arms(mut self, baseline: Option<&Arm>, canary: &Arm, tempering: f64) -> Self {
        self = self.with_counts(baseline.map(Arm::weighted_counts), Some(canary.weighted_counts()));
        self.weigh(baseline, canary, tempering);
        self
    }

    /// Replaces observed counts by weighted ones; does nothing if every run has weight 1.
    pub(crate) fn weigh(&mut self, baseline: Option<&Arm>, canary: &Arm, tempering: f64) {
        let arms: Vec<Arm> = baseline.into_iter().chain([canary]).copied().collect();
        if arms.iter().all(|arm| arm.weight().is_some_and(|weight| weight == ONE || weight == 0)) {
            return;
        }
        (self.baseline_counts, self.canary_counts) =
            (baseline.map(Arm::weighted_counts), Some(canary.weighted_counts()));
        (self.baseline_value, self.canary_value) = (baseline.and_then(Arm::rate), canary.rate());
        self.seen_runs = Some((baseline.map(|arm| arm.seen_counts().1), canary.seen_counts().1));
        self.notes.extend(note(&arms, tempering));
    }
}

impl BaselineKind {
    /// Returns its name in the table of alerts.
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

/// Returns a rate; none without runs.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn rate((events, runs): (u64, u64)) -> Option<f64> {
    (runs > 0).then(|| events as f64 / runs as f64)
}
