//! Failure classes of a run, its severity and its failure signature.

use bellwether_sample::Kind;
use bellwether_sample::signature::Failure;
use bellwether_sample::weight::Severity;

use crate::facts::RunFacts;

/// The policy of exceptions that Bellwether derives from high-risk calls without an approval.
const UNAPPROVED: &str = "unapproved_action";

/// A class, in the order in which the first one that holds names the stratum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    PolicyException,
    UnapprovedAction,
    ErrorOrTimeout,
    SchemaInvalid,
    ToolFailure,
    Escalated,
    JudgedBad,
    NegativeFeedback,
    VerdictsDisagree,
    StaleSource,
    LatencyOutlier,
    CostOutlier,
    Uncertain,
    Success,
}

/// The judgement on a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// All classes that hold, in order; never empty.
    pub classes: Vec<Class>,
    pub severity: Severity,
    /// Empty unless it is a failure.
    pub signature: String,
    /// How much its verdicts disagree, from 0 to 1.
    pub uncertainty: f64,
}

// === impl Class ===

impl Class {
    /// All classes of failures, in order.
    pub const FAILURES: [Self; 12] = [
        Self::PolicyException,
        Self::UnapprovedAction,
        Self::ErrorOrTimeout,
        Self::SchemaInvalid,
        Self::ToolFailure,
        Self::Escalated,
        Self::JudgedBad,
        Self::NegativeFeedback,
        Self::VerdictsDisagree,
        Self::StaleSource,
        Self::LatencyOutlier,
        Self::CostOutlier,
    ];

    /// Returns the name, as in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PolicyException => "policy_exception",
            Self::UnapprovedAction => "unapproved_action",
            Self::ErrorOrTimeout => "error_or_timeout",
            Self::SchemaInvalid => "schema_invalid",
            Self::ToolFailure => "tool_failure",
            Self::Escalated => "escalated",
            Self::JudgedBad => "judged_bad",
            Self::NegativeFeedback => "negative_feedback",
            Self::VerdictsDisagree => "verdicts_disagree",
            Self::StaleSource => "stale_source",
            Self::LatencyOutlier => "latency_outlier",
            Self::CostOutlier => "cost_outlier",
            Self::Uncertain => "uncertain",
            Self::Success => "success",
        }
    }

    /// Returns the class of a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = Self::FAILURES.into_iter().chain([Self::Uncertain, Self::Success]);
        all.into_iter().find(|class| class.name() == name)
    }

    fn holds(self, run: &RunFacts, outlier_factor: f64) -> bool {
        let exceeds = |value: Option<i64>, median: Option<f64>| match (value, median) {
            #[expect(clippy::cast_precision_loss, reason = "latencies and costs are far below 2^53")]
            (Some(value), Some(median)) => median > 0.0 && value as f64 > median * outlier_factor,
            _ => false,
        };
        match self {
            Self::PolicyException => run.policy_exceptions.iter().any(|one| one.policy_id != UNAPPROVED),
            Self::UnapprovedAction => run.policy_exceptions.iter().any(|one| one.policy_id == UNAPPROVED),
            Self::ErrorOrTimeout => matches!(run.outcome(), "error" | "timeout"),
            Self::SchemaInvalid => run.validation_valid == Some(false) || !run.field_errors.is_empty(),
            Self::ToolFailure => run.tool_calls_failed > 0,
            Self::Escalated => run.escalated,
            Self::JudgedBad => run.outcome() == "failure" || run.judges_bad > 0,
            Self::NegativeFeedback => run.feedback_bad > 0,
            Self::VerdictsDisagree => {
                run.judges_bad > 0 && run.people_good > 0 || run.judges_good > 0 && run.people_bad > 0
            }
            Self::StaleSource => run.stale,
            Self::LatencyOutlier => exceeds(run.latency_total_micros, run.median_latency),
            Self::CostOutlier => exceeds(run.cost_nanos, run.median_cost),
            Self::Uncertain => run.outcome() != "success" || run.judges_good > 0 && run.judges_bad > 0,
            Self::Success => run.outcome() == "success",
        }
    }
}

// === impl Judgement ===

impl Judgement {
    /// Judges a run. Runs count as outliers above `outlier_factor` times the median of their task.
    pub fn of(run: &RunFacts, outlier_factor: f64) -> Self {
        let holds = |class: &Class| class.holds(run, outlier_factor);
        let mut classes: Vec<Class> = Class::FAILURES.into_iter().filter(holds).collect();
        if classes.is_empty() {
            classes.push(if holds(&Class::Uncertain) { Class::Uncertain } else { Class::Success });
        }
        let judgement = Self {
            severity: severity(run, classes[0]),
            uncertainty: uncertainty(run),
            signature: String::new(),
            classes,
        };
        match judgement.kind() {
            Kind::Failure => Self { signature: signature(run, judgement.class()), ..judgement },
            Kind::Uncertain | Kind::Control => judgement,
        }
    }

    /// Returns the class that names the stratum.
    pub fn class(&self) -> Class {
        self.classes.first().copied().unwrap_or(Class::Success)
    }

    /// Returns why the run is a candidate.
    pub fn kind(&self) -> Kind {
        match self.class() {
            Class::Success => Kind::Control,
            Class::Uncertain => Kind::Uncertain,
            _ => Kind::Failure,
        }
    }
}

/// Returns the greatest severity of its policy exceptions, or that of its class.
fn severity(run: &RunFacts, class: Class) -> Severity {
    let stated = |name: &str| match name {
        "critical" => Severity::Critical,
        "high" => Severity::High,
        "medium" => Severity::Medium,
        _ => Severity::Low,
    };
    let of_class = match class {
        Class::UnapprovedAction | Class::ErrorOrTimeout | Class::JudgedBad | Class::Escalated => Severity::High,
        Class::SchemaInvalid | Class::ToolFailure | Class::NegativeFeedback | Class::VerdictsDisagree => {
            Severity::Medium
        }
        _ => Severity::Low,
    };
    run.policy_exceptions.iter().map(|one| stated(&one.severity)).fold(of_class, Severity::max)
}

/// Returns 1 for evenly split verdicts, 0 for unanimous ones.
fn uncertainty(run: &RunFacts) -> f64 {
    let good = run.judges_good + run.people_good;
    let bad = run.judges_bad + run.people_bad + run.feedback_bad;
    match good + bad {
        0 => 0.0,
        #[expect(clippy::cast_precision_loss, reason = "a run has few verdicts")]
        all => 2.0 * good.min(bad) as f64 / all as f64,
    }
}

/// Returns the failure signature: task and class, and what names the cause of the run's failure.
fn signature(run: &RunFacts, class: Class) -> String {
    let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
    let (component, error) = (text(&run.failure_component), text(&run.failure_error_type));
    let message = message(run, class);
    let mut failure = Failure { component: &component, error_class: &error, message: &message, ..Failure::default() };
    match class {
        Class::PolicyException | Class::UnapprovedAction => {
            let ours = |policy: &&str| (*policy == UNAPPROVED) == (class == Class::UnapprovedAction);
            let policies = run.policy_exceptions.iter().map(|one| one.policy_id.as_str());
            failure.policy = policies.filter(ours).min().unwrap_or_default();
        }
        Class::SchemaInvalid => {
            if let Some(field) = run.field_errors.iter().min_by_key(|field| (&field.path, &field.rule, &field.message))
            {
                failure.pointer = &field.path;
                // A message may quote the value, so the rule describes the cause better if it is stated.
                match &field.rule {
                    Some(rule) => failure.rule = rule,
                    None => failure.message = field.message.as_deref().unwrap_or_default(),
                }
            }
        }
        Class::ToolFailure => {
            let failed = run.tool_calls.iter().filter(|call| call.failed);
            if let Some(call) = failed.min_by_key(|call| (&call.name, &call.error_type, &call.status)) {
                (failure.tool, failure.error_class) = (&call.name, call.error_type.as_deref().unwrap_or(&call.status));
            }
        }
        Class::Escalated => failure.error_class = run.escalation_reason_code.as_deref().unwrap_or(&error),
        _ => {}
    }
    format!("task={} | class={} | {}", text(&run.task), class.name(), failure.signature())
}

/// Returns the step and the reason of a failure, as the run states them; empty if its class has a cause of its own or its outcome is
/// not bad.
///
/// Without a bad outcome, step and reason mean something else, such as that the run has not been judged yet, and a later verdict would
/// change the signature.
fn message(run: &RunFacts, class: Class) -> String {
    let of_outcome =
        matches!(class, Class::ErrorOrTimeout | Class::JudgedBad | Class::NegativeFeedback | Class::VerdictsDisagree);
    if !of_outcome || !matches!(run.outcome(), "failure" | "error" | "timeout") {
        return String::new();
    }
    let parts = [&run.failure_step, &run.outcome_reason_code].into_iter().flatten();
    parts.map(String::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FieldError, PolicyException, ToolCall};

    fn success() -> RunFacts {
        RunFacts { task: Some("refund".to_owned()), outcome_status: Some("success".to_owned()), ..RunFacts::default() }
    }

    fn failure(outcome: &str) -> RunFacts {
        RunFacts { outcome_status: Some(outcome.to_owned()), ..success() }
    }

    fn exception(policy: &str) -> RunFacts {
        let one = PolicyException { policy_id: policy.to_owned(), severity: "high".to_owned() };
        RunFacts { policy_exceptions: vec![one], ..success() }
    }

    #[test]
    fn each_class_holds_for_its_runs() {
        let call = ToolCall { name: "pay".to_owned(), status: "error".to_owned(), failed: true, error_type: None };
        for (class, run) in [
            (Class::PolicyException, exception("pii")),
            (Class::UnapprovedAction, exception("unapproved_action")),
            (Class::ErrorOrTimeout, failure("timeout")),
            (Class::ErrorOrTimeout, failure("error")),
            (Class::SchemaInvalid, RunFacts { validation_valid: Some(false), ..success() }),
            (Class::ToolFailure, RunFacts { tool_calls_failed: 1, tool_calls: vec![call], ..success() }),
            (Class::Escalated, RunFacts { escalated: true, ..success() }),
            (Class::JudgedBad, failure("failure")),
            (Class::JudgedBad, RunFacts { judges_bad: 1, ..success() }),
            (Class::NegativeFeedback, RunFacts { feedback_bad: 1, ..success() }),
            (Class::VerdictsDisagree, RunFacts { judges_good: 1, people_bad: 1, ..success() }),
            (Class::StaleSource, RunFacts { stale: true, ..success() }),
            (
                Class::LatencyOutlier,
                RunFacts { latency_total_micros: Some(401), median_latency: Some(100.0), ..success() },
            ),
            (Class::CostOutlier, RunFacts { cost_nanos: Some(401), median_cost: Some(100.0), ..success() }),
            (Class::Uncertain, failure("unknown")),
            (Class::Uncertain, failure("abandoned")),
            (Class::Success, RunFacts { latency_total_micros: Some(400), median_latency: Some(100.0), ..success() }),
        ] {
            assert_eq!(Judgement::of(&run, 4.0).class(), class, "{run:?}");
        }
    }

    #[test]
    fn a_run_of_several_classes_is_in_the_stratum_of_the_first() {
        let run = RunFacts { escalated: true, feedback_bad: 1, judges_good: 1, ..exception("pii") };
        let judgement = Judgement::of(&run, 4.0);
        assert_eq!(judgement.classes, [Class::PolicyException, Class::Escalated, Class::NegativeFeedback]);
        assert_eq!(judgement.severity, Severity::High);
        assert_eq!(judgement.uncertainty, 1.0, "one good verdict and one bad");
    }

    #[test]
    fn a_signature_names_the_cause_and_not_the_run() {
        let message = Some("'ABC-7' is no number".to_owned());
        let field = FieldError { path: "/items/7/sku".to_owned(), rule: Some("type".to_owned()), message };
        let run = |field: FieldError| RunFacts { field_errors: vec![field], ..success() };
        let signature = Judgement::of(&run(field.clone()), 4.0).signature;
        assert_eq!(signature, "task=refund | class=schema_invalid | at=/items/*/sku | rule=type");
        let signature = Judgement::of(&run(FieldError { rule: None, ..field }), 4.0).signature;
        assert_eq!(signature, "task=refund | class=schema_invalid | at=/items/*/sku | message=<text> is no number");
        assert_eq!(Judgement::of(&success(), 4.0).signature, "");
    }

    #[test]
    fn a_verdict_that_is_still_to_come_changes_no_signature() {
        let reason = |run: RunFacts, reason: &str| RunFacts { outcome_reason_code: Some(reason.to_owned()), ..run };
        let signature = |run: &RunFacts| Judgement::of(run, 4.0).signature;
        let escalated = |run: RunFacts| RunFacts {
            escalated: true,
            escalation_reason_code: Some("policy_limit".to_owned()),
            ..run
        };
        for after in ["success", "failure"] {
            let before = escalated(reason(failure("unknown"), "not_judged"));
            let after = escalated(reason(failure(after), "judged"));
            assert_eq!(signature(&before), "task=refund | class=escalated | error=policy_limit");
            assert_eq!(signature(&before), signature(&after));
        }
        let disliked = |run: RunFacts| RunFacts { feedback_bad: 1, ..run };
        let unknown = disliked(reason(failure("unknown"), "not_judged"));
        assert_eq!(signature(&unknown), "task=refund | class=negative_feedback | unexplained");
        let failed = reason(failure("failure"), "wrong_total");
        assert_eq!(signature(&failed), "task=refund | class=judged_bad | message=wrong_total");
    }
}
