//! The answer of the gate: for people, programs and pipelines alike.

use bellwether_detect::{Decision, Finding, GateReason, Measure, Minute, Window};
use serde::Serialize;

use super::metric::Metric;
use super::policy::Goal;
use crate::observe::MINUTE_MICROS;

/// Version of the form of the answer.
const VERSION: u32 = 1;

/// The decision, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateDecision {
    /// Everything is within its margin.
    Promote,
    /// Something is not known yet.
    Hold,
    /// Something is worse than its margin.
    RollBack,
}

/// How the baseline was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BaselineChoice {
    /// The question names it.
    Given,
    /// The contract of the task names it.
    Contract,
    /// It had most runs before the canary began.
    Traffic,
}

/// Which runs are compared, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMode {
    /// Production traffic.
    Live,
    /// Runs of an offline evaluation on the same cases.
    OfflinePaired,
    /// Runs of an offline evaluation without common cases.
    OfflineUnpaired,
}

/// Bad outcomes of a release, over the whole span.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GateCounts {
    /// Observed runs with the bad outcome; of costs, completed runs.
    pub events: u64,
    /// Observed runs.
    pub runs: u64,
    /// The rate, or the cost, weighted by 1 / sampling probability; null if it is not known.
    pub value: Option<f64>,
}

/// The effect with its interval, which holds at all times with probability 95 %.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateEffect {
    /// `odds_ratio` or `ratio`.
    pub kind: &'static str,
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end; null if it is unbounded.
    pub high: Option<f64>,
    /// The window in which a change began, if the effect covers only the time since then.
    pub since: Option<String>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateComparison {
    /// The metric.
    pub metric: Metric,
    /// The slice; empty for all runs.
    pub slice: String,
    /// The compared quantity.
    pub of: String,
    /// `worse`, `within`, `undecided`, `thin` or `uncovered`.
    pub finding: &'static str,
    /// The finding in words.
    pub words: String,
    /// The kind of requirement.
    pub goal: Goal,
    /// The margin.
    pub margin: f64,
    /// The baseline.
    pub baseline: GateCounts,
    /// The canary.
    pub canary: GateCounts,
    /// The effect.
    pub effect: Option<GateEffect>,
    /// Share of runs that state the metric.
    pub coverage: Option<f64>,
    /// Runs of the canary that likely suffice.
    pub more_runs: Option<u64>,
}

/// A metric that is not judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftOut {
    /// The metric.
    pub metric: Metric,
    /// The reason.
    pub why: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GateAnswer {
    /// Version of this form.
    pub version: u32,
    /// The decision.
    pub decision: GateDecision,
    /// The reason in one sentence.
    pub summary: String,
    /// The task.
    pub task: String,
    /// The only tenant whose runs count, if one is named.
    pub tenant: Option<String>,
    /// The canary; empty if none was found.
    pub canary: String,
    /// The baseline; empty if none was found.
    pub baseline: String,
    /// How the baseline was chosen.
    pub baseline_choice: Option<BaselineChoice>,
    /// Which runs are compared.
    pub mode: GateMode,
    /// First window.
    pub from: Option<String>,
    /// End of the last window that is complete.
    pub to: Option<String>,
    /// Bound on the probability of a false roll-back.
    pub roll_back_alpha: f64,
    /// Bound on the probability of a false promotion.
    pub promote_alpha: f64,
    /// The comparisons.
    pub comparisons: Vec<GateComparison>,
    /// Metrics that are not judged.
    pub left_out: Vec<LeftOut>,
    /// A task or release was asked about that the tables do not have: the names that are near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Unknown>,
}

/// A name that the tables do not have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unknown {
    /// `task`, `canary` or `baseline`.
    pub what: &'static str,
    /// The name that was asked about.
    pub name: String,
    /// Names that the tables have, nearest first.
    pub near: Vec<String>,
}

// === impl GateDecision ===

impl GateDecision {
    /// Returns the words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::RollBack => "roll back",
        }
    }
}

impl From<Decision> for GateDecision {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Promote => Self::Promote,
            Decision::Hold => Self::Hold,
            Decision::RollBack => Self::RollBack,
        }
    }
}

// === impl GateAnswer ===

impl GateAnswer {
    /// Makes an answer that holds, for a reason in one sentence.
    pub(super) fn held(task: &str, mode: GateMode, alphas: (f64, f64), why: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            decision: GateDecision::Hold,
            summary: why.into(),
            task: task.to_owned(),
            tenant: None,
            canary: String::new(),
            baseline: String::new(),
            baseline_choice: None,
            mode,
            from: None,
            to: None,
            roll_back_alpha: alphas.0,
            promote_alpha: alphas.1,
            comparisons: Vec::new(),
            left_out: Vec::new(),
            unknown: None,
        }
    }

    /// Returns the reason for the decision, from the comparisons.
    pub(super) fn summarised(&self) -> String {
        let named = |finding: &[&str]| -> Vec<&GateComparison> {
            self.comparisons.iter().filter(|it| finding.contains(&it.finding)).collect()
        };
        match self.decision {
            GateDecision::RollBack => {
                let worse: Vec<String> = named(&["worse"]).iter().map(|it| it.title()).collect();
                format!("worse than the margin: {}", worse.join(", "))
            }
            GateDecision::Promote => {
                let within = self.comparisons.iter().filter(|it| it.goal == Goal::NonInferiority).count();
                let (within, others) = (number(within), number(self.comparisons.len() - within));
                match (within, others) {
                    (Some(within), Some(others)) => {
                        format!("{within} within the margin, {others} without evidence of a loss")
                    }
                    (Some(within), None) => format!("{within} within the margin"),
                    (None, others) => format!("{} without evidence of a loss", others.unwrap_or_default()),
                }
            }
            GateDecision::Hold => {
                let open = named(&["undecided", "thin", "uncovered"]);
                let titles: Vec<String> = open.iter().map(|it| format!("{} ({})", it.title(), it.words)).collect();
                if titles.is_empty() {
                    "no metric could be compared".to_owned()
                } else {
                    format!("not known yet: {}", titles.join(", "))
                }
            }
        }
    }

    /// Returns the greatest number of runs of the canary that a comparison likely still needs.
    pub fn more_runs(&self) -> Option<u64> {
        self.comparisons.iter().filter_map(|it| it.more_runs).max()
    }
}

/// Returns a count of comparisons as a phrase; `None` if it is zero.
fn number(comparisons: usize) -> Option<String> {
    match comparisons {
        0 => None,
        1 => Some("1 comparison".to_owned()),
        more => Some(format!("{more} comparisons")),
    }
}

// === impl GateComparison ===

impl GateComparison {
    pub(super) fn new(
        metric: Metric,
        reason: &GateReason,
        windows: &[Window],
        (goal, margin): (Goal, f64),
        (coverage, slow): (Option<f64>, Option<usize>),
    ) -> Self {
        let evidence = &reason.evidence;
        let (finding, words, more_runs) = match reason.finding {
            Finding::Worse => ("worse", "worse than the margin".to_owned(), None),
            Finding::Within if goal == Goal::NonInferiority => ("within", "within the margin".to_owned(), None),
            Finding::Within => ("within", "no evidence of a loss".to_owned(), None),
            Finding::Undecided { more_runs: Some(runs) } => {
                ("undecided", format!("undecided; about {runs} more canary runs"), Some(runs))
            }
            Finding::Undecided { more_runs: None } => {
                ("undecided", "undecided; too few bad runs to tell".to_owned(), None)
            }
            Finding::Thin { missing_runs } => {
                ("thin", format!("too few runs; {missing_runs} more"), Some(missing_runs))
            }
            Finding::Uncovered { coverage: Some(share) } => {
                ("uncovered", format!("only {:.0} % of the runs state it", 100.0 * share), None)
            }
            Finding::Uncovered { coverage: None } => ("uncovered", "no run states it".to_owned(), None),
        };
        let [mut baseline, mut canary] = totals(windows, metric);
        let finite = |number: f64| Some(number).filter(|number| number.is_finite());
        if metric == Metric::Cost {
            baseline.value = evidence.baseline_value.and_then(finite);
            canary.value = evidence.canary_value.and_then(finite);
        }
        let since = evidence.since.filter(|_| evidence.recent).map(text_of);
        Self {
            metric,
            slice: reason.slice.clone(),
            of: metric.describe(slow),
            finding,
            words,
            goal,
            margin,
            baseline,
            canary,
            effect: evidence.effect.and_then(finite).map(|value| GateEffect {
                kind: evidence.effect_kind,
                value,
                low: evidence.interval.and_then(|(low, _)| finite(low)),
                high: evidence.interval.and_then(|(_, high)| finite(high)),
                since,
            }),
            coverage: coverage.and_then(finite),
            more_runs,
        }
    }

    /// Returns the metric and the slice.
    pub fn title(&self) -> String {
        if self.slice.is_empty() {
            self.metric.name().to_owned()
        } else {
            format!("{} of {}", self.metric.name(), self.slice)
        }
    }
}

/// Returns observed bad runs, or completed ones for costs, runs, and the weighted rate of both releases.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no more digits than a double has")]
fn totals(windows: &[Window], metric: Metric) -> [GateCounts; 2] {
    let mut sums = [Measure::default(), Measure::default()];
    for row in windows.iter().flat_map(|window| &window.rows) {
        sums[0].add(&row.baseline);
        sums[1].add(&row.canary);
    }
    sums.map(|sum| {
        let count = |count: i128| u64::try_from(count.max(0)).unwrap_or(u64::MAX);
        let weights = sum.weight_sums();
        let completed = sum.ratio.as_deref().map_or(0, |totals| totals.x);
        GateCounts {
            events: count(if metric == Metric::Cost { completed } else { i128::from(sum.events) }),
            runs: count(i128::from(sum.runs)),
            value: (metric != Metric::Cost && weights.runs > 0).then(|| weights.events as f64 / weights.runs as f64),
        }
    })
}

/// Formats the start of a window.
pub(super) fn text_of(minute: Minute) -> String {
    let seconds = u64::try_from(minute.saturating_mul(MINUTE_MICROS) / 1_000_000).unwrap_or(0).min(253_402_300_799);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).to_string()
}
