//! The policy of the gate: a TOML file with the requirement on each metric, the critical slices, and the accepted errors.
//!
//! Invariant: a policy by which a canary could never be promoted, or never be rolled back, is refused with every reason.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_detect::detector::{Ratio, Regression};
use bellwether_detect::{Comparison, Gate, Guardrail};
use serde::{Deserialize, Serialize};

use super::metric::Metric;

/// The version of the format.
const VERSION: u64 = 1;

/// Most slices: each takes a part of the bound on false roll-backs.
const MOST_SLICES: usize = 64;

/// The kind of requirement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Promotion needs evidence that the canary is within the margin.
    NonInferiority,
    /// Promotion needs enough runs without evidence that the canary is beyond the margin.
    #[default]
    NoRegression,
}

/// The requirement on one metric.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The kind of requirement.
    pub goal: Goal,
    /// Largest acceptable odds ratio, or ratio of costs.
    pub margin: f64,
    /// Least number of runs of each release.
    pub least_runs: u64,
    /// Least share of runs that state the metric.
    pub least_coverage: f64,
    /// It is left out if neither release states it.
    #[serde(default)]
    pub optional: bool,
}

/// Slices that are judged each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Slices {
    /// Tenants.
    pub tenants: Vec<String>,
    /// Tools: the runs that called them.
    pub tools: Vec<String>,
    /// Values by segment.
    pub segments: BTreeMap<String, Vec<String>>,
    /// Metrics that are judged by slice; none for all of the policy.
    pub metrics: Option<BTreeSet<Metric>>,
    /// The kind of requirement in a slice.
    pub goal: Goal,
    /// Least number of runs of each release in a slice; none for that of the metric.
    pub least_runs: Option<u64>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    version: u64,
    /// Bound on the probability that a canary within all margins is ever rolled back.
    pub roll_back_alpha: f64,
    /// Bound on the probability that a canary beyond a margin that must be shown is ever promoted.
    pub promote_alpha: f64,
    /// Segment with the case of an offline evaluation run.
    #[serde(default = "case_id")]
    pub case_segment: String,
    /// The requirement on each metric.
    pub metrics: BTreeMap<Metric, Requirement>,
    /// Critical slices.
    #[serde(default)]
    pub slices: Slices,
}

fn case_id() -> String {
    "case_id".to_owned()
}

// === impl Policy ===

impl Policy {
    /// The text of the shipped policy.
    pub const SHIPPED: &'static str = include_str!("../../gate/policy.toml");

    /// Parses a policy.
    ///
    /// # Errors
    /// Every problem found, each in one sentence.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            vec![format!("line {line}: {}", error.message())]
        })?;
        let problems = policy.problems();
        if problems.is_empty() { Ok(policy) } else { Err(problems) }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.version != VERSION {
            problems.push(format!("version is `{}`; this program reads version {VERSION}", self.version));
        }
        if self.metrics.is_empty() {
            problems.push("`metrics` is empty; name at least one, such as [metrics.success]".to_owned());
        }
        for (name, alpha) in [("roll_back_alpha", self.roll_back_alpha), ("promote_alpha", self.promote_alpha)] {
            if !(alpha > 0.0 && alpha <= 0.5) {
                problems.push(format!("{name} is `{alpha}`; it must be above 0 and at most 0.5, such as 0.05"));
            }
        }
        for (metric, requirement) in &self.metrics {
            problems.extend(requirement.problems(*metric, &self.slices));
        }
        problems.extend(self.slices.problems(&self.metrics));
        problems
    }

    /// Returns the gate for metrics, which are those of all runs, then those of the slices.
    pub(super) fn gate(&self, guardrails: Vec<Guardrail>) -> Gate {
        Gate { guardrails, roll_back_alpha: self.roll_back_alpha, promote_alpha: self.promote_alpha }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::parse(Self::SHIPPED).expect("the shipped policy is valid, as a test verifies")
    }
}

// === impl Requirement ===

impl Requirement {
    fn problems(&self, metric: Metric, slices: &Slices) -> Vec<String> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, value: String, right: &str| {
            problems.push(format!("`metrics.{}.{key}` is `{value}`; it must be {right}", metric.name()));
        };
        if !(1.0..=10.0).contains(&self.margin) {
            refuse("margin", self.margin.to_string(), "a ratio from 1 to 10, such as 1.2");
        } else if self.margin == 1.0 && self.must_show(metric, slices) {
            let right = "above 1, such as 1.2, with `non_inferiority`: no number of runs shows that a release is exactly \
                         as good";
            refuse("margin", self.margin.to_string(), right);
        }
        if !(0.0..=1.0).contains(&self.least_coverage) {
            refuse("least_coverage", self.least_coverage.to_string(), "a share from 0 to 1");
        }
        if self.least_runs == 0 || self.least_runs > 1 << 40 {
            refuse("least_runs", self.least_runs.to_string(), "from 1 to 2^40");
        }
        problems
    }

    fn must_show(&self, metric: Metric, slices: &Slices) -> bool {
        let sliced = !slices.is_empty() && slices.judges(metric);
        self.goal == Goal::NonInferiority || sliced && slices.goal == Goal::NonInferiority
    }

    /// Returns the guardrail for all runs, or for each slice. Runs of the same cases are compared in `pairs`.
    pub(super) fn guardrail(&self, metric: Metric, slices: Option<&Slices>, pairs: bool) -> Guardrail {
        let comparison = match metric {
            Metric::Cost => Comparison::Ratio(Ratio { margin: self.margin, scale: metric.scale() }),
            _ if pairs => Comparison::Paired { margin: self.margin },
            _ => {
                let blocks = metric.block_runs().unwrap_or(Regression::default().block_runs);
                Comparison::Rate(Regression { margin: self.margin, block_runs: blocks, ..Regression::default() })
            }
        };
        Guardrail {
            name: metric.name().to_owned(),
            comparison,
            must_show: slices.map_or(self.goal, |slices| slices.goal) == Goal::NonInferiority,
            least_runs: slices.and_then(|slices| slices.least_runs).unwrap_or(self.least_runs),
            least_coverage: self.least_coverage,
        }
    }
}

// === impl Slices ===

impl Slices {
    fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.tools.is_empty() && self.segments.values().all(Vec::is_empty)
    }

    /// Returns true if a metric is judged by slice.
    pub(super) fn judges(&self, metric: Metric) -> bool {
        self.metrics.as_ref().is_none_or(|metrics| metrics.contains(&metric))
    }

    fn problems(&self, metrics: &BTreeMap<Metric, Requirement>) -> Vec<String> {
        let mut problems = Vec::new();
        let names = |list: &'static str, values: &[String]| {
            let mut seen = BTreeSet::new();
            let twice = values.iter().find(|value| !seen.insert(value.as_str()));
            match (values.iter().any(String::is_empty), twice) {
                (true, _) => Some(format!("`slices.{list}` has an empty name")),
                (_, Some(twice)) => Some(format!("`slices.{list}` has `{twice}` twice; each slice is judged once")),
                _ => None,
            }
        };
        problems.extend(names("tenants", &self.tenants));
        problems.extend(names("tools", &self.tools));
        for values in self.segments.values() {
            problems.extend(names("segments", values));
        }
        let count = self.tenants.len() + self.tools.len() + self.segments.values().map(Vec::len).sum::<usize>();
        if count > MOST_SLICES {
            problems.push(format!(
                "`slices` has {count} slices; at most {MOST_SLICES} can be judged, because they share one bound"
            ));
        }
        if self.least_runs == Some(0) {
            problems.push("`slices.least_runs` is `0`; it must be at least 1".to_owned());
        }
        if !self.is_empty() && !metrics.keys().any(|metric| self.judges(*metric)) {
            problems
                .push("`slices.metrics` has none of the metrics of the policy; no slice would be judged".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(from: &str, to: &str) -> Result<Policy, Vec<String>> {
        let text = Policy::SHIPPED.replacen(from, to, 1);
        assert_ne!(text, Policy::SHIPPED, "`{from}` is in the shipped policy");
        Policy::parse(&text)
    }

    #[test]
    fn the_shipped_policy_is_valid_and_judges_every_outcome() {
        let policy = Policy::parse(Policy::SHIPPED).expect("valid");
        assert_eq!(policy, Policy::default());
        assert_eq!(policy.metrics.len(), 9);
        assert_eq!(policy.metrics[&Metric::Success].goal, Goal::NonInferiority);
        let guardrails = policy.metrics.iter().map(|(metric, it)| it.guardrail(*metric, None, false)).collect();
        assert_eq!(policy.gate(guardrails).validate(), Ok(()));
    }

    #[test]
    fn an_impossible_bound_is_one_message_that_says_what_is_right() {
        for (from, to, expected) in [
            ("version = 1", "version = 2", "version is `2`; this program reads version 1"),
            ("roll_back_alpha = 0.05", "roll_back_alpha = 0", "roll_back_alpha is `0`; it must be above 0"),
            ("promote_alpha = 0.05", "promote_alpha = 1.5", "promote_alpha is `1.5`"),
            ("margin = 1.5", "margin = 1.0", "`metrics.success.margin` is `1`; it must be above 1"),
            ("margin = 1.5", "margin = 0.5", "`metrics.success.margin` is `0.5`; it must be a ratio from 1 to 10"),
            ("margin = 1.5", "margin = nan", "`metrics.success.margin` is `NaN`"),
            (
                "least_coverage = 0.5",
                "least_coverage = 50",
                "`metrics.success.least_coverage` is `50`; it must be a share",
            ),
            ("least_runs = 100", "least_runs = 0", "`metrics.success.least_runs` is `0`"),
            ("least_runs = 30", "least_runs = 0", "`slices.least_runs` is `0`"),
            ("tenants = []", "tenants = [\"a\", \"a\"]", "`slices.tenants` has `a` twice"),
            ("tools = []", "tools = [\"\"]", "`slices.tools` has an empty name"),
        ] {
            let problems = changed(from, to).expect_err(to);
            assert_eq!(problems.len(), 1, "{to}: {problems:?}");
            assert!(problems[0].contains(expected), "{to}: {problems:?}");
        }
        let problems = changed("[metrics.schema]", "[metrics.shema]").expect_err("no such metric");
        assert!(problems[0].contains("shema") && problems[0].contains("schema"), "{problems:?}");
        assert!(changed("margin = 1.5", "margn = 1.5").expect_err("no such key")[0].contains("margn"));
        assert!(Policy::parse("version = 1\nroll_back_alpha = 0.05\npromote_alpha = 0.05\n[metrics]\n").is_err());
        let many: Vec<String> = (0..65).map(|n| format!("\"t{n}\"")).collect();
        let problems = changed("tenants = []", &format!("tenants = [{}]", many.join(", "))).expect_err("too many");
        assert!(problems[0].contains("65 slices"), "{problems:?}");
    }
}
