//! The records of the contract, field by field in the order of `schema.json`.

use std::ops::Deref;
use std::sync::Arc;

use crate::json::{JsonReader, Mark, Parsed};
use crate::record::{FromJson, List, Map, record};
use crate::release::Release;
use crate::units;
use crate::value::{
    Amount, ApprovalDecision, AssignmentUnit, AtLeastOne, CostSource, Currency, CutText, Decision, Fraction, Int,
    Millis, Number, Positive, Probability, RawContent, RawList, RawObject, RawRelease, Risk, ScoreKind, Severity,
    Sha256Text, SpanId, Stage, StartTime, Status, Target, Text, Time, TraceId, UnreadJson,
};
use crate::weight;

// Identity: malformed beyond its limit.
type Name128<'a> = Text<'a, 1, 128>;
type Name256<'a> = Text<'a, 1, 256>;
type Id128<'a> = Text<'a, 0, 128>;
type Id256<'a> = Text<'a, 0, 256>;
// Description: cut at its limit.
type Text32<'a> = CutText<'a, 0, 32>;
type Text64<'a> = CutText<'a, 0, 64>;
type Text128<'a> = CutText<'a, 0, 128>;
type Text256<'a> = CutText<'a, 0, 256>;
type Text512<'a> = CutText<'a, 0, 512>;
type Text1024<'a> = CutText<'a, 0, 1024>;
type Label128<'a> = CutText<'a, 1, 128>;
type Label256<'a> = CutText<'a, 1, 256>;
type Label512<'a> = CutText<'a, 1, 512>;
type Count = Int<0, { units::MAX_COUNT }>;
type TokenCount = Int<0, { units::MAX_TOKENS }>;
type Attempt = Int<1, { units::MAX_ATTEMPT }>;
type Revision = Int<0, { units::MAX_INTEGER }>;

/// Policy ID of the exception derived from a high-risk call without a recorded approval.
pub const UNAPPROVED: &str = "unapproved_action";

/// Defines an envelope around data of one type.
macro_rules! envelope {
    ($(#[$doc:meta])* $name:ident around $data:ty) => {
        record! {
            $(#[$doc])*
            $name {
                spec: Text<'a, 0, 32> = "spec" must,
                event_type: Text<'a, 0, 32> = "type" strict,
                id: Name128<'a> = "id" strict,
                source: Name256<'a> = "source" strict,
                time: Time = "time" strict,
                run_id: Name128<'a> = "run_id" must,
                tenant: Id128<'a> = "tenant" strict,
                revision: Revision = "revision" strict,
                supersedes: Text128<'a> = "supersedes",
                data: $data = "data" must,
            }
        }
    };
}

envelope! {
    /// The envelope of an event of any type, with its data unread.
    Envelope around UnreadJson<'a>
}
envelope! {
    /// The envelope of a completed run, with its data.
    WholeRun around Box<Run<'a>>
}

impl<'a> WholeRun<'a> {
    /// Splits the envelope from its data.
    pub(crate) fn split(self) -> (Envelope<'a>, Option<Box<Run<'a>>>) {
        let Self { spec, event_type, id, source, time, run_id, tenant, revision, supersedes, data, lifetime } = self;
        let envelope =
            Envelope { spec, event_type, id, source, time, run_id, tenant, revision, supersedes, data: None, lifetime };
        (envelope, data)
    }
}

record! {
    /// The rollout stage and variant that served a run.
    Rollout {
        stage: Stage = "stage" must,
        cohort: Text128<'a> = "cohort",
        flag_key: Text128<'a> = "flag_key",
        variant: Text128<'a> = "variant",
        assignment_unit: AssignmentUnit = "assignment_unit",
        traffic_fraction: Fraction = "traffic_fraction",
    }
}
record! {
    /// How a run ended.
    Outcome {
        status: Status = "status" must,
        source: Text64<'a> = "source",
        reason_code: Text64<'a> = "reason_code",
        finish_reason: Text64<'a> = "finish_reason",
    }
}
record! {
    /// The component and step in which a run failed.
    FailurePoint {
        component: Text64<'a> = "component",
        step: Text128<'a> = "step",
        error_type: Text128<'a> = "error_type",
    }
}
record! {
    /// The validation result of one field of the answer.
    FieldError {
        path: Label512<'a> = "path" must,
        valid: bool = "valid" must,
        rule: Text64<'a> = "rule",
        message: Text512<'a> = "message",
    }
}
record! {
    /// The validation of the answer against its schema.
    Validation {
        applicable: bool = "applicable",
        valid: bool = "valid",
        schema_id: Text256<'a> = "schema_id",
        schema_version: Text128<'a> = "schema_version",
        attempts: Int<1, { units::MAX_COUNT }> = "attempts",
        first_attempt_valid: bool = "first_attempt_valid",
        repaired: bool = "repaired",
        fields: List<CheckedField<'a>, 128> = "fields",
        fields_total: Count = "fields_total",
        fields_invalid: Count = "fields_invalid",
    }
}
record! {
    /// Tokens of a run.
    Tokens {
        input: TokenCount = "input",
        input_cache_read: TokenCount = "input_cache_read",
        input_cache_write: TokenCount = "input_cache_write",
        output: TokenCount = "output",
        reasoning: TokenCount = "reasoning",
        by_modality: Map<'a, TokenCount, 16> = "by_modality",
    }
}
record! {
    /// Cost of a run or a score.
    Cost {
        amount: Amount = "amount" must,
        currency: Currency<'a> = "currency" must,
        source: CostSource = "source",
        price_table: Text128<'a> = "price_table",
        price_table_version: Text128<'a> = "price_table_version",
        breakdown: Map<'a, Amount, 16> = "breakdown",
    }
}
record! {
    /// Durations of a run.
    Latency {
        total: Millis = "total_ms",
        ttft: Millis = "ttft_ms",
        queue: Millis = "queue_ms",
        llm: Millis = "llm_ms",
        tool: Millis = "tool_ms",
        retrieval: Millis = "retrieval_ms",
        human_wait: Millis = "human_wait_ms",
    }
}
record! {
    /// Approval of a tool call.
    Approval {
        required: bool = "required",
        decision: ApprovalDecision = "decision",
        approver_key: Text128<'a> = "approver_key",
        wait: Millis = "wait_ms",
    }
}
record! {
    /// One tool call.
    ToolCall {
        name: Label128<'a> = "name" must,
        id: Text128<'a> = "id",
        kind: Text32<'a> = "type",
        schema_version: Text128<'a> = "schema_version",
        status: Text64<'a> = "status" must,
        error_type: Text128<'a> = "error_type",
        args_valid: bool = "args_valid",
        latency: Millis = "latency_ms",
        attempt: Attempt = "attempt",
        side_effect: bool = "side_effect",
        risk: Risk = "risk",
        approval: Approval<'a> = "approval",
    }
}
record! {
    /// A document that a retrieval call returned.
    Document {
        id: Label256<'a> = "id" must,
        score: Number = "score",
        version: Text128<'a> = "version",
        cited: bool = "cited",
    }
}
record! {
    /// One retrieval call.
    Retrieval {
        source_id: Label256<'a> = "source_id" must,
        index_version: Text128<'a> = "index_version",
        query_sha256: Sha256Text<'a> = "query_sha256",
        requested_k: Count = "requested_k",
        returned_k: Count = "returned_k",
        top_score: Number = "top_score",
        latency: Millis = "latency_ms",
        status: Text64<'a> = "status",
        error_type: Text128<'a> = "error_type",
        documents: List<Document<'a>, 32> = "documents",
    }
}
record! {
    /// A hand-off to a person.
    Escalation {
        reason_code: Text64<'a> = "reason_code",
        initiated_by: Text64<'a> = "initiated_by",
        to: Text128<'a> = "to",
        phase: Text64<'a> = "phase",
        ticket_id: Text128<'a> = "ticket_id",
        resolved: bool = "resolved",
        resolution: Text64<'a> = "resolution",
        wait: Millis = "wait_ms",
        handle: Millis = "handle_ms",
    }
}
record! {
    /// A policy exception.
    PolicyException {
        policy_id: Label128<'a> = "policy_id" must,
        policy_version: Text128<'a> = "policy_version",
        category: Text64<'a> = "category",
        severity: Severity = "severity" must,
        action: Text64<'a> = "action",
        source: Text64<'a> = "source",
        component: Text128<'a> = "component",
        native_result_type: Text64<'a> = "native_result_type",
        native_result_value: Text128<'a> = "native_result_value",
        risk_score: Number = "risk_score",
        step: Text128<'a> = "step",
    }
}
record! {
    /// The author of a score: a person, a model or code.
    Evaluator {
        id: Name128<'a> = "id" must,
        version: Text128<'a> = "version",
        model: Text256<'a> = "model",
    }
}
record! {
    /// A score with at least one of value, label and passed.
    Score {
        name: Name128<'a> = "name" must,
        value: Number = "value",
        label: Text64<'a> = "label" strict,
        passed: bool = "passed" strict,
        min: Number = "min",
        max: Number = "max",
        higher_is_better: bool = "higher_is_better",
        kind: ScoreKind = "kind" must,
        evaluator: Evaluator<'a> = "evaluator" must,
        rubric_version: Text128<'a> = "rubric_version",
        reference: RawObject<'a> = "reference",
        target: Target = "target" strict,
        target_id: Id128<'a> = "target_id" strict,
        explanation: Text1024<'a> = "explanation",
        identifier: Id256<'a> = "identifier" strict,
        sets_outcome: bool = "sets_outcome" strict,
        weight: Positive = "weight",
        cost: ScoreCost<'a> = "cost",
    } requires |score| score.value.is_some() || score.label.is_some() || score.passed.is_some()
}

/// The cost of a score. Only amount and currency have columns; a cost with other fields is also kept whole in `extra`.
#[derive(Clone, Debug)]
pub struct ScoreCost<'a>(pub Cost<'a>);

impl<'a> FromJson<'a> for ScoreCost<'a> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let cost = Cost::read(json)?;
        let more = [cost.price_table.is_some(), cost.price_table_version.is_some(), cost.breakdown.is_some()];
        if cost.source.is_some() || more.contains(&true) {
            json.note(from, Mark::Unknown);
        }
        Ok(Self(cost))
    }
}

/// The validation result of one field. Only failed fields have columns; the others are kept in `extra`.
#[derive(Clone, Debug, Default)]
pub struct CheckedField<'a>(FieldError<'a>);

impl<'a> Deref for CheckedField<'a> {
    type Target = FieldError<'a>;
    fn deref(&self) -> &FieldError<'a> {
        &self.0
    }
}

impl<'a> FromJson<'a> for CheckedField<'a> {
    fn read(json: &mut JsonReader<'a, '_>) -> Parsed<Self> {
        let from = json.start();
        let field = FieldError::read(json)?;
        if field.valid == Some(true) {
            json.note(from, Mark::Unknown);
        }
        Ok(Self(field))
    }
}

record! {
    /// A person's review of a run.
    Review {
        review_id: Name128<'a> = "review_id" must,
        queue: Text128<'a> = "queue",
        reviewer: Id128<'a> = "reviewer" strict,
        decision: Decision = "decision" must,
        failure_mode: Text64<'a> = "failure_mode",
        labels: List<Text64<'a>, 32> = "labels",
        severity: Severity = "severity",
        expected_ref: Text1024<'a> = "expected_ref",
        expected: RawContent<'a> = "expected",
        make_eval_case: bool = "make_eval_case",
        duration: Millis = "duration_ms",
        rubric_version: Text128<'a> = "rubric_version",
        sets_outcome: bool = "sets_outcome" strict,
        sampling_weight: AtLeastOne = "sampling_weight",
        leased_until: Time = "leased_until",
        retired: bool = "retired",
    }
}
record! {
    /// The W3C trace context of a run.
    Trace {
        trace_id: TraceId<'a> = "trace_id" must,
        span_id: SpanId<'a> = "span_id",
    }
}
record! {
    /// How the producer sampled.
    Sampling {
        probability: Probability = "probability" strict,
        reason: Text64<'a> = "reason",
    }
}
record! {
    /// A run as sent.
    Run {
        task: Name128<'a> = "task" must,
        task_version: Text128<'a> = "task_version",
        environment: Text64<'a> = "environment",
        attempt: Attempt = "attempt" strict,
        revision: Revision = "revision" strict,
        release: RawRelease<'a> = "release" must,
        rollout: Rollout<'a> = "rollout" strict,
        started_at: StartTime = "started_at" must,
        ended_at: Time = "ended_at" must,
        outcome: Outcome<'a> = "outcome" must,
        failure_point: FailurePoint<'a> = "failure_point",
        validation: Validation<'a> = "validation",
        tokens: Tokens<'a> = "tokens",
        cost: Cost<'a> = "cost",
        latency: Latency<'a> = "latency",
        llm_calls: Count = "llm_calls",
        turns: Count = "turns",
        tool_calls: List<ToolCall<'a>, 256> = "tool_calls",
        retrieval: List<Retrieval<'a>, 64> = "retrieval",
        steps: RawList<'a> = "steps",
        escalation: Escalation<'a> = "escalation",
        policy_exceptions: List<PolicyException<'a>, 64> = "policy_exceptions",
        scores: List<Score<'a>, 64> = "scores",
        session_id: Text128<'a> = "session_id",
        user_key: Text128<'a> = "user_key",
        trace: Trace<'a> = "trace",
        segments: Map<'a, Text128<'a>, 16> = "segments",
        content: RawObject<'a> = "content",
        sampling: Sampling<'a> = "sampling" strict,
        truncated: List<Text64<'a>, 16> = "truncated",
    }
}

/// A completed run, with the values derived from it.
#[derive(Clone, Debug)]
pub struct Completed<'a> {
    /// The run as sent. Required fields are present.
    pub run: Box<Run<'a>>,
    pub release: Arc<Release>,
    /// Start, microseconds since the epoch; `None` if the producer never set it.
    pub started_micros: Option<i64>,
    /// Completion, microseconds since the epoch. It decides the window.
    pub ended_micros: i64,
    /// Status of the outcome.
    pub status: &'static str,
    /// Rollout stage; `full` if the producer sent none.
    pub stage: &'static str,
    /// Attempt, from 1.
    pub attempt: i64,
}

// === impl Completed ===

impl Completed<'_> {
    /// Returns the number of runs that the run represents, in millionths: 1 / sampling probability, rounded at random to one of a
    /// bounded number of weights; 1,000,000 if the run was not sampled.
    pub fn weight_micros(&self, run_id: &str) -> i64 {
        let probability = self.run.sampling.as_ref().and_then(|sampling| sampling.probability);
        probability.map_or(weight::ONE_MICROS, |probability| weight::weight_micros(probability.sent, run_id))
    }

    /// Returns the duration in microseconds: the stated one, else the difference of the two times. Returns `None` if the run
    /// ends before it starts or lasts longer than [`units::MAX_SQUARED`].
    pub fn latency_total_micros(&self) -> Option<i64> {
        let stated = self.run.latency.as_ref().and_then(|latency| latency.total).map(|total| total.0);
        let derived = || Some(self.ended_micros - self.started_micros?);
        stated.or_else(|| derived().filter(|micros| (0..=units::MAX_SQUARED).contains(micros)))
    }
}

// === impl Validation ===

impl Validation<'_> {
    /// Returns whether the answer has a schema: as stated, else true if the run states whether the answer is valid.
    pub fn is_applicable(&self) -> Option<bool> {
        self.applicable.or(self.valid.map(|_| true))
    }
}

// === impl ToolCall ===

impl ToolCall<'_> {
    /// Returns true if the call failed: any status but `ok`, unless an approver rejected the call.
    pub fn failed(&self) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        let decision = self.approval.as_ref().and_then(|approval| approval.decision);
        let refused = status == "denied" && decision.is_some_and(|decision| decision.0 == "rejected");
        status != "ok" && !refused
    }

    /// Returns true if a high-risk call succeeded without a recorded approval: risk `high`, status `ok`, a side effect not
    /// ruled out, no decision `approved` or `edited`, and approval not stated as not required.
    pub fn unapproved(&self) -> bool {
        let approval = self.approval.as_ref();
        let approved = approval
            .and_then(|approval| approval.decision)
            .is_some_and(|decision| matches!(decision.0, "approved" | "edited"));
        let waived = approval.and_then(|approval| approval.required) == Some(false);
        self.risk.is_some_and(|risk| risk.0 == "high")
            && self.status.as_deref() == Some("ok")
            && self.side_effect != Some(false)
            && !approved
            && !waived
    }
}
