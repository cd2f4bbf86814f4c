//! Settings of the role: the section `[evals]` of a configuration.

use std::time::Duration;

use bellwether_sample::Budget;

/// Settings of the role.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalsSettings {
    /// Runs to review each week. Critical policy exceptions are taken beyond it if necessary.
    pub weekly_budget: u32,
    /// Runs of one failure signature at most.
    pub per_signature: u32,
    /// Share of the budget for successes, from 0 to 1.
    pub success_share: f64,
    /// Share of the budget for runs with an unclear outcome, from 0 to 1.
    pub uncertain_share: f64,
    /// A run is an outlier if its latency or cost exceeds the median of its task by this factor.
    pub outlier_factor: f64,
    /// Time between two evaluations.
    pub interval: Duration,
    /// Memory limit of an evaluation's queries, bytes.
    pub memory_bytes: usize,
}

impl Default for EvalsSettings {
    fn default() -> Self {
        Self {
            weekly_budget: 50,
            per_signature: 5,
            success_share: 0.15,
            uncertain_share: 0.1,
            outlier_factor: 4.0,
            interval: Duration::from_secs(60),
            memory_bytes: 128 << 20,
        }
    }
}

// === impl EvalsSettings ===

impl EvalsSettings {
    /// Returns the budget of a week.
    pub fn budget(&self) -> Budget {
        Budget {
            items: u64::from(self.weekly_budget),
            per_signature: u64::from(self.per_signature),
            uncertain_share: self.uncertain_share,
            control_share: self.success_share,
        }
    }
}
