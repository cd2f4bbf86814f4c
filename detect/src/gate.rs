//! The gate: may a release go on? A canary is compared with its baseline on several metrics at once, slice by slice, and the
//! answer is to promote it, to hold it, or to roll it back, with the reason of each metric.
//!
//! Each comparison asks two questions of the same windows, by the detectors of the rules: is the canary worse than the margin
//! allows, and is it certainly not? The second is the first with the arms exchanged and the margin inverted. Both are
//! e-processes or confidence sequences, so that the gate may be asked after every run, and as often as anybody likes:
//!
//! * A canary that is within the margins everywhere is rolled back with probability at most [`Gate::roll_back_alpha`], ever. It
//!   is divided among the comparisons.
//! * A canary that is worse than the margin of a metric that must be shown ([`Guardrail::must_show`]) is promoted with
//!   probability at most [`Gate::promote_alpha`], ever. It is not divided: promotion needs every comparison.
//!
//! Missing data holds; it never promotes. Evidence of a loss in one slice rolls back, however good the mean is.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::budget::Thresholds;
use crate::detector::{Detector, DetectorState, Past, Ratio, Regression};
use crate::evidence::Evidence;
use crate::hours::Hours;
use crate::observation::{StratumRow, Window};

/// The requirement on one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Guardrail {
    /// Name of the metric.
    pub name: String,
    /// The comparison of the two arms.
    pub comparison: Comparison,
    /// Promotion needs evidence that the canary is within the margin (non-inferiority). Otherwise, enough runs without evidence
    /// of the contrary suffice (no regression).
    pub must_show: bool,
    /// Least number of runs of each arm.
    pub least_runs: u64,
    /// Least fraction of the runs of each arm that state the metric, from 0 to 1.
    pub least_coverage: f64,
}

/// The comparison of a canary with its baseline.
///
/// Of pairs, only those whose runs differ are evidence: given that they do, the probability that the canary's run is the bad one is
/// ψ / (1 + ψ) for an odds ratio of ψ, however hard the case is (McNemar, Psychometrika 12, 1947; Cox, Biometrika 45, 1958). This is
/// the 2×2 e-process with a block for each case. Its increments are ln of ψ/(1 + ψ) or of 1/(1 + ψ) over the same at the margin, so
/// that it is exact, and holds whenever it is asked. A case may have several runs of each release.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Of the rate of a bad outcome. The margin is an odds ratio.
    Rate(Regression),
    /// Of the rate of a bad outcome, on the same cases. Each window has the runs of one case. The margin is an odds ratio.
    Paired {
        /// Largest acceptable odds ratio of the runs of a case.
        margin: f64,
    },
    /// Of a ratio of sums, such as cost per completed task. The margin is a ratio.
    Ratio(Ratio),
}

/// The windows of one slice of the runs: all of them, or those of a segment, tenant or tool.
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a> {
    /// Name; empty for all runs.
    pub name: &'a str,
    /// Windows with the runs of baseline and canary, in order of time.
    pub windows: &'a [Window],
    /// Fraction of the runs of the arm with fewer that state the metric; none if it is not known.
    pub coverage: Option<f64>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Decision {
    /// Every comparison is within its margin.
    Promote,
    /// Something is not known yet.
    Hold,
    /// A comparison is worse than its margin.
    RollBack,
}

/// The result of one comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Finding {
    /// The canary is worse than the margin allows.
    Worse,
    /// The canary is within the margin; or, if that need not be shown, nothing says that it is not.
    Within,
    /// The evidence does not suffice. If the canary is as good as its baseline, it likely will after so many more of its runs;
    /// none if the data does not tell.
    Undecided {
        /// Runs of the canary.
        more_runs: Option<u64>,
    },
    /// An arm has too few runs.
    Thin {
        /// Runs that the arm with fewer still needs.
        missing_runs: u64,
    },
    /// Too few of the runs state the metric, or it is not known how many do.
    Uncovered {
        /// The fraction, if it is known.
        coverage: Option<f64>,
    },
}

/// One comparison with its result and numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct GateReason {
    /// Name of the guardrail.
    pub guardrail: String,
    /// Name of the slice; empty for all runs.
    pub slice: String,
    pub finding: Finding,
    /// The numbers of the question whether the canary is worse.
    pub evidence: Evidence,
}

/// The answer with its reasons, in the order of the guardrails and of their slices.
#[derive(Clone, Debug, PartialEq)]
pub struct GateVerdict {
    pub decision: Decision,
    pub reasons: Vec<GateReason>,
}

/// Guardrails and the accepted probabilities of error.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub guardrails: Vec<Guardrail>,
    /// Bound on the probability that a canary within all margins is ever rolled back.
    pub roll_back_alpha: f64,
    /// Bound on the probability that a canary outside a margin that must be shown is ever promoted.
    pub promote_alpha: f64,
}

// === impl Comparison ===

impl Comparison {
    fn margin(&self) -> f64 {
        match self {
            Self::Rate(settings) => settings.margin,
            Self::Paired { margin } => *margin,
            Self::Ratio(settings) => settings.margin,
        }
    }

    fn detector(&self) -> Detector {
        match self {
            Self::Rate(settings) => Detector::Regression(Arc::new(settings.clone())),
            Self::Paired { margin } => {
                Detector::Regression(Arc::new(Regression { margin: *margin, block_runs: 1, ..Regression::default() }))
            }
            Self::Ratio(settings) => Detector::Ratio(Arc::new(settings.clone())),
        }
    }

    /// Returns the comparison with the arms exchanged: its null hypothesis is that the canary is beyond the margin.
    fn exchanged(&self) -> Self {
        match self {
            Self::Rate(settings) => Self::Rate(Regression { margin: 1.0 / settings.margin, ..settings.clone() }),
            Self::Paired { margin } => Self::Paired { margin: 1.0 / margin },
            Self::Ratio(settings) => Self::Ratio(Ratio { margin: 1.0 / settings.margin, ..settings.clone() }),
        }
    }
}

// === impl Gate ===

impl Gate {
    /// Checks the guardrails.
    ///
    /// # Errors
    /// Fails if a promotion or a roll-back would be impossible, or could not be bounded.
    pub fn validate(&self) -> Result<(), String> {
        if self.guardrails.is_empty() {
            return Err("a gate needs a metric".to_owned());
        }
        for (name, alpha) in [("roll_back_alpha", self.roll_back_alpha), ("promote_alpha", self.promote_alpha)] {
            if !(alpha > 0.0 && alpha <= 0.5) {
                return Err(format!("{name} is {alpha}; it must be above 0 and at most 0.5, such as 0.05"));
            }
        }
        for guardrail in &self.guardrails {
            let (name, margin) = (&guardrail.name, guardrail.comparison.margin());
            guardrail.comparison.detector().validate().map_err(|error| format!("{name}: {error}"))?;
            if !(0.0..=1.0).contains(&guardrail.least_coverage) {
                let coverage = guardrail.least_coverage;
                return Err(format!("{name}: the least coverage is {coverage}; it must be from 0 to 1"));
            }
            if guardrail.must_show && margin <= 1.0 {
                return Err(format!(
                    "{name}: nothing shows that a release is within a margin of {margin}; use a margin above 1, such as 1.2"
                ));
            }
        }
        Ok(())
    }

    /// Judges a canary. `slices` has those of each guardrail, in the same order.
    pub fn judge(&self, slices: &[Vec<Slice<'_>>]) -> GateVerdict {
        let comparisons = slices.iter().map(Vec::len).sum::<usize>().max(1);
        let worse_alpha = self.roll_back_alpha / comparisons as f64;
        let mut reasons = Vec::with_capacity(comparisons);
        let mut decision = if self.guardrails.is_empty() { Decision::Hold } else { Decision::Promote };
        for (place, guardrail) in self.guardrails.iter().enumerate() {
            let all = slices.get(place).map_or(&[][..], Vec::as_slice);
            if all.is_empty() {
                decision = decision.max(Decision::Hold);
            }
            for slice in all {
                let (finding, evidence) = guardrail.compare(slice, worse_alpha, self.promote_alpha);
                decision = decision.max(finding.decision());
                let (guardrail, slice) = (guardrail.name.clone(), slice.name.to_owned());
                reasons.push(GateReason { guardrail, slice, finding, evidence });
            }
        }
        GateVerdict { decision, reasons }
    }
}

// === impl Guardrail ===

impl Guardrail {
    fn compare(&self, slice: &Slice<'_>, worse_alpha: f64, within_alpha: f64) -> (Finding, Evidence) {
        let (worse, thresholds) = (fold(&self.comparison.detector(), slice.windows), release_thresholds(worse_alpha));
        let (verdict, evidence) = (worse.verdict(&thresholds), worse.evidence(&thresholds));
        if verdict.statistic >= verdict.threshold {
            return (Finding::Worse, evidence);
        }
        let arms = totals(slice.windows);
        let fewest = arms[0].1.min(arms[1].1);
        if fewest < self.least_runs {
            return (Finding::Thin { missing_runs: self.least_runs - fewest }, evidence);
        }
        let covers = slice.coverage.is_some_and(|coverage| coverage >= self.least_coverage);
        if !covers && self.least_coverage > 0.0 {
            return (Finding::Uncovered { coverage: slice.coverage }, evidence);
        }
        if !self.must_show {
            return (Finding::Within, evidence);
        }
        let exchanged = slice.windows.iter().map(exchange);
        let within =
            fold(&self.comparison.exchanged().detector(), exchanged).verdict(&release_thresholds(within_alpha));
        let missing = within.threshold - within.statistic;
        let finding = match missing > 0.0 {
            true => Finding::Undecided { more_runs: self.more_runs(slice.windows, missing, &evidence) },
            false => Finding::Within,
        };
        (finding, evidence)
    }

    /// Returns the runs of the canary that likely bring so much evidence that it is within the margin, in nats, if it is as good
    /// as its baseline.
    ///
    /// The evidence of n runs for a log ratio of 0 against one of δ is about n δ² / 2v, with v the variance of the estimate for
    /// one run: (1 + 1/r) / p(1 − p) for odds at rate p and r runs of the baseline for each of the canary. That of pairs is the
    /// inverse of the variance of their tables, which is 1/4 for a pair that differs. The variance of other ratios follows from
    /// their interval.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers of runs are far below 2^53"
    )]
    fn more_runs(&self, windows: &[Window], missing: f64, evidence: &Evidence) -> Option<u64> {
        let [(baseline_events, baseline), (canary_events, canary)] =
            totals(windows).map(|(events, runs)| (events as f64, runs as f64));
        let variance = match &self.comparison {
            Comparison::Rate(_) => {
                let rate = (baseline_events + canary_events + 0.5) / (baseline + canary + 1.0);
                (1.0 + canary / baseline) / (rate * (1.0 - rate))
            }
            Comparison::Paired { .. } => canary / windows.iter().map(table_variance).sum::<f64>(),
            Comparison::Ratio(_) => {
                let (low, high) = evidence.interval.filter(|(low, high)| *low > 0.0 && high.is_finite())?;
                // Its half-width is about two and a half standard errors.
                ((high / low).ln() / 5.0).powi(2) * canary
            }
        };
        let runs = missing * 2.0 * variance / self.comparison.margin().ln().powi(2);
        runs.is_finite().then(|| runs.ceil().max(1.0) as u64)
    }
}

// === impl Finding ===

impl Finding {
    fn decision(self) -> Decision {
        match self {
            Self::Worse => Decision::RollBack,
            Self::Within => Decision::Promote,
            Self::Undecided { .. } | Self::Thin { .. } | Self::Uncovered { .. } => Decision::Hold,
        }
    }
}

/// Returns thresholds by which only evidence about the whole release counts: α is spent once.
fn release_thresholds(alpha: f64) -> Thresholds {
    Thresholds { e: -alpha.ln(), alpha, detector: f64::INFINITY, alarms_per_month: 0.0 }
}

/// Folds windows.
fn fold(detector: &Detector, windows: impl IntoIterator<Item = impl Borrow<Window>>) -> Box<dyn DetectorState> {
    let hours = Hours::default();
    let past = Past { hours: &hours, incidents: &[], member: None };
    let mut state = detector.start();
    windows.into_iter().for_each(|window| state.step(window.borrow(), &past));
    state
}

/// Returns the window with the arms exchanged.
fn exchange(window: &Window) -> Window {
    let row = |row: &StratumRow| StratumRow {
        stratum: Arc::clone(&row.stratum),
        baseline: row.canary.clone(),
        canary: row.baseline.clone(),
    };
    Window { rows: window.rows.iter().map(row).collect(), ..window.clone() }
}

/// Returns the variance of the canary's bad runs in a window, given those of both arms, if the odds are even.
#[expect(clippy::cast_precision_loss, reason = "numbers of runs are far below 2^53")]
fn table_variance(window: &Window) -> f64 {
    let [(events_a, runs_a), (events_b, runs_b)] = totals(std::slice::from_ref(window));
    let (events, runs) = ((events_a + events_b) as f64, (runs_a + runs_b) as f64);
    let variance = runs_a as f64 * runs_b as f64 * events * (runs - events) / (runs * runs * (runs - 1.0));
    if variance.is_finite() { variance } else { 0.0 }
}

/// Returns bad runs and runs of baseline and canary.
fn totals(windows: &[Window]) -> [(u64, u64); 2] {
    let mut sums = [(0_u64, 0_u64); 2];
    for row in windows.iter().flat_map(|window| &window.rows) {
        for (sum, more) in sums.iter_mut().zip([row.baseline.clamped_counts(), row.canary.clamped_counts()]) {
            *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        }
    }
    sums
}
