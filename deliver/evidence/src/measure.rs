//! The runs that are bad by each shipped rule, as SQL over the view `runs`, and the runs that state what the rule measures, as SQL
//! over the table `metrics`.
//!
//! Both follow the definitions in crate `metrics`. A rule that is not listed, such as a custom one, has no bad runs that this crate
//! could know, so its pages have neither slices nor examples.

use bellwether_queries::quoted;

use crate::record::AlertRecord;

/// The quantity of a run that the rule of an alert measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Amount of one run, such as 1 for a bad one, and its units, such as 1 for a run that was judged.
    pub(crate) amount: String,
    pub(crate) units: String,
    pub(crate) kind: Kind,
    /// Runs that state it, a column expression of `metrics`; `None` if all do.
    pub(crate) stated: Option<&'static str>,
}

/// The form of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A share of runs that end badly.
    Outcome,
    /// Another share of runs.
    Share,
    /// A share of tool calls.
    ToolCalls,
    /// A share of other calls.
    Calls,
    /// A ratio of sums: cost by completed tasks.
    Cost,
    /// A distribution of durations, which has no rate.
    Latency,
}

const FAILURES: &str = "success + failure + error + timeout + abandoned";

// === impl Measure ===

impl Measure {
    /// Returns what the rule of an alert measures; `None` for rules that do not judge runs, and for custom ones.
    pub(crate) fn of(record: &AlertRecord) -> Option<Self> {
        let rate = |kind, bad: &str, units: &str, stated| {
            let amount = format!("CAST(coalesce({bad}, false) AS BIGINT)");
            Some(Self { amount, units: units.to_owned(), kind, stated })
        };
        let all = "CAST(1 AS BIGINT)";
        let checked = "CAST(coalesce(validation_applicable AND validation_valid IS NOT NULL, false) AS BIGINT)";
        match record.rule.as_str() {
            "success_regression" | "release_success" | "success_drift" | "success_slow_drift" | "slo_burn_fast"
            | "slo_burn_slow" => rate(Kind::Outcome, "NOT completed", "CAST(judged AS BIGINT)", Some(FAILURES)),
            "new_failure_signature" => {
                let signature = record.labels.get("signature")?;
                let said = "concat_ws(' ', outcome_status, outcome_reason_code, failure_component, failure_error_type)";
                rate(Kind::Outcome, &format!("{said} = {}", quoted(signature)), all, None)
            }
            "schema_regression" | "schema_drift" | "new_field_error" => {
                rate(Kind::Share, "NOT validation_valid", checked, Some("schema_applicable"))
            }
            "escalation_regression" | "escalation_drift" | "escalation_bounds" => {
                rate(Kind::Share, "escalated", all, None)
            }
            "unknown_outcome_regression" => rate(Kind::Share, "NOT judged", all, None),
            "policy_regression" | "policy_drift" => rate(
                Kind::Share,
                "policy_exceptions_info + policy_exceptions_low + policy_exceptions_medium + policy_exceptions_high + policy_exceptions_critical > 0",
                all,
                None,
            ),
            "policy_critical" => rate(Kind::Share, "policy_exceptions_critical > 0", all, None),
            "cost_coverage_regression" => rate(Kind::Share, "cost_nanos IS NULL", all, None),
            "tool_failure_regression" | "tool_failure_drift" => Some(Self {
                amount: "tool_calls_failed".to_owned(),
                units: "tool_calls_total".to_owned(),
                kind: Kind::ToolCalls,
                stated: None,
            }),
            "retrieval_empty_regression" => Some(Self {
                amount: "retrieval_empty + retrieval_errors".to_owned(),
                units: "retrieval_calls".to_owned(),
                kind: Kind::Calls,
                stated: None,
            }),
            "cost_regression" | "cost_ceiling" => {
                let stated = match record.labels.get("cost_currency") {
                    Some(currency) => format!("cost_currency = {}", quoted(currency)),
                    None => "cost_nanos IS NOT NULL".to_owned(),
                };
                Some(Self {
                    amount: format!("CASE WHEN {stated} THEN cost_nanos ELSE 0 END"),
                    units: format!("CASE WHEN {stated} THEN CAST(completed AS BIGINT) ELSE 0 END"),
                    kind: Kind::Cost,
                    stated: Some("cost_runs"),
                })
            }
            "latency_regression" | "latency_distance" => Some(Self {
                amount: "coalesce(latency_total_micros, 0)".to_owned(),
                units: "CAST(latency_total_micros IS NOT NULL AS BIGINT)".to_owned(),
                kind: Kind::Latency,
                stated: Some("latency_runs"),
            }),
            _ => None,
        }
    }

    /// Returns true if amounts and units are counts of the same runs, so that slices can be tested against chance.
    pub(crate) fn is_share(&self) -> bool {
        !matches!(self.kind, Kind::Cost | Kind::Latency)
    }

    /// Returns true if the sum of amounts by the sum of units is the compared value.
    pub(crate) fn is_rate(&self) -> bool {
        self.kind != Kind::Latency
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_alerts::Rules;

    /// Shipped rules about the arrival of data, whole tables or releases. They judge no runs.
    const WITHOUT: [&str; 8] = [
        "fingerprint_surprise",
        "judge_drift",
        "lag",
        "retrieval_staleness",
        "sample_ratio",
        "silent_producer",
        "unevaluated_release",
        "new_failure_signature",
    ];

    #[test]
    fn every_shipped_rule_that_judges_runs_has_a_measure() {
        for rule in Rules::shipped().rules {
            let record = AlertRecord { rule: rule.name.clone(), ..AlertRecord::default() };
            assert_eq!(Measure::of(&record).is_none(), WITHOUT.contains(&rule.name.as_str()), "{}", rule.name);
        }
        assert_eq!(Measure::of(&AlertRecord { rule: "one_of_ours".to_owned(), ..AlertRecord::default() }), None);
    }

    #[test]
    fn a_hostile_label_stays_a_literal() {
        let mut record = AlertRecord { rule: "new_failure_signature".to_owned(), ..AlertRecord::default() };
        record.labels.insert("signature".to_owned(), "' OR true --".to_owned());
        let amount = Measure::of(&record).expect("a measure").amount;
        assert!(amount.contains("= ''' OR true --'"), "{amount}");
    }
}
