//! The metrics of the gate. Each is read by the query of a shipped rule: there is one definition of each.

use bellwether_stats::histogram_e::value_at;
use serde::{Deserialize, Serialize};

use super::stated::Stated;

/// A metric of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Judged runs that did not succeed.
    Success,
    /// Checked answers that violate their schema.
    Schema,
    /// Runs handed to a person.
    Escalation,
    /// Runs with a policy exception.
    PolicyExceptions,
    /// Runs with a high-risk tool call that no one approved.
    UnapprovedActions,
    /// Tool calls that failed.
    ToolFailures,
    /// Runs slower than half of the baseline's.
    LatencyP50,
    /// Runs slower than 95 % of the baseline's.
    LatencyP95,
    /// Runs slower than 99 % of the baseline's.
    LatencyP99,
    /// Cost per completed task.
    Cost,
}

// === impl Metric ===

impl Metric {
    /// Returns the name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Schema => "schema",
            Self::Escalation => "escalation",
            Self::PolicyExceptions => "policy_exceptions",
            Self::UnapprovedActions => "unapproved_actions",
            Self::ToolFailures => "tool_failures",
            Self::LatencyP50 => "latency_p50",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
            Self::Cost => "cost",
        }
    }

    /// Returns the shipped rule by whose query it is read. Unapproved actions are the policy exceptions of that name.
    pub(super) const fn rule(self) -> &'static str {
        match self {
            Self::Success => "success_regression",
            Self::Schema => "schema_regression",
            Self::Escalation => "escalation_regression",
            Self::PolicyExceptions | Self::UnapprovedActions => "policy_regression",
            Self::ToolFailures => "tool_failure_regression",
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 => "latency_regression",
            Self::Cost => "cost_regression",
        }
    }

    /// Returns the quantile of the baseline that runs are compared with.
    pub(super) const fn quantile(self) -> Option<f64> {
        match self {
            Self::LatencyP50 => Some(0.5),
            Self::LatencyP95 => Some(0.95),
            Self::LatencyP99 => Some(0.99),
            _ => None,
        }
    }

    /// Returns the runs of a block, if it differs from the usual: calls of one run are alike.
    pub(super) const fn block_runs(self) -> Option<u64> {
        match self {
            Self::ToolFailures => Some(40),
            _ => None,
        }
    }

    /// Returns the factor from the stored to the displayed unit.
    pub(super) const fn scale(self) -> f64 {
        match self {
            Self::Cost => 1e-9,
            _ => 1.0,
        }
    }

    /// Returns the share of runs that state it, of the release with the lower one.
    ///
    /// Not every answer has a schema, and not every run calls tools, so those shares are measured by that of the baseline: a canary
    /// that stops checking its answers is not better.
    pub(super) fn coverage(self, arms: &[Stated; 2], currency: &str) -> Option<f64> {
        let least = |of: &dyn Fn(&Stated) -> f64| {
            let share = |arm: &Stated| (arm.runs > 0.0).then(|| of(arm) / arm.runs);
            Some(share(&arms[0])?.min(share(&arms[1])?))
        };
        match self {
            Self::Success => least(&|arm| arm.judged),
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 => least(&|arm| arm.latency),
            Self::Cost => least(&|arm| arm.cost.get(currency).copied().unwrap_or(0.0)),
            // Every run states these; a list without entries is a statement too.
            Self::Escalation | Self::PolicyExceptions | Self::UnapprovedActions | Self::ToolFailures => {
                (arms[0].runs > 0.0 && arms[1].runs > 0.0).then_some(1.0)
            }
            Self::Schema => {
                let share = |arm: &Stated| (arm.runs > 0.0).then(|| arm.schema / arm.runs);
                let (usual, own) = (share(&arms[0])?, share(&arms[1])?);
                Some(if usual > 0.0 { (own / usual).min(1.0) } else { 0.0 })
            }
        }
        .map(|share| share.clamp(0.0, 1.0))
    }

    /// Describes the bad outcome, with the latency that was exceeded.
    pub(super) fn describe(self, slow: Option<usize>) -> String {
        match self {
            Self::Success => "runs that did not succeed".to_owned(),
            Self::Schema => "answers that violate their schema".to_owned(),
            Self::Escalation => "runs handed to a person".to_owned(),
            Self::PolicyExceptions => "runs with a policy exception".to_owned(),
            Self::UnapprovedActions => "runs with an unapproved action".to_owned(),
            Self::ToolFailures => "tool calls that failed".to_owned(),
            Self::Cost => "cost per completed task".to_owned(),
            Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 => match slow {
                #[expect(clippy::cast_precision_loss, reason = "there are some hundred bins")]
                Some(bin) => format!("runs slower than {:.0} ms", value_at(bin as f64 + 1.0) / 1e3),
                None => "slow runs".to_owned(),
            },
        }
    }
}
