//! The records of the contract, field by field as `schema.json` has them.

use crate::record::{
    Amount, ApprovalDecision, AssignmentUnit, CostSource, Currency, Decision, Int, Kept, List, Map, Millis, Number,
    Raw, RawRelease, Risk, ScoreKind, Severity, Sha256Text, SpanId, Stage, Status, Target, Text, Time, TraceId, record,
};
use crate::release::Release;
use std::sync::Arc;

type Text32<'a> = Text<'a, 0, 32>;
type Text64<'a> = Text<'a, 0, 64>;
type Text128<'a> = Text<'a, 0, 128>;
type Text256<'a> = Text<'a, 0, 256>;
type Text512<'a> = Text<'a, 0, 512>;
type Text1024<'a> = Text<'a, 0, 1024>;
type Name64<'a> = Text<'a, 1, 64>;
type Name128<'a> = Text<'a, 1, 128>;
type Name256<'a> = Text<'a, 1, 256>;
type Count = Int<0>;

/// Policy id of the exception that is derived from a high-risk call without a recorded approval.
pub const UNAPPROVED: &str = "unapproved_action";

/// Makes an envelope around data of one type.
macro_rules! envelope {
    ($(#[$doc:meta])* $name:ident around $data:ty) => {
        record! {
            $(#[$doc])*
            $name {
                spec: Text<'a, 0, 32> = "spec",
                event_type: Text<'a, 0, 32> = "type",
                id: Name128<'a> = "id",
                source: Name256<'a> = "source",
                time: Time = "time",
                run_id: Name128<'a> = "run_id",
                tenant: Text128<'a> = "tenant",
                revision: Count = "revision",
                supersedes: Text128<'a> = "supersedes",
                data: $data = "data",
            } unknown
        }
    };
}

envelope! {
    /// The envelope of an event of any type, its data not yet read.
    Envelope around Raw<'a>
}
envelope! {
    /// The envelope of a completed run, its data read along with it.
    WholeRun around Box<Run<'a>>
}

impl<'a> WholeRun<'a> {
    /// The envelope without its data, and the data.
    pub(crate) fn split(self) -> (Envelope<'a>, Option<Box<Run<'a>>>) {
        let Self { spec, event_type, id, source, time, run_id, tenant, revision, supersedes, data, unknown, lifetime } =
            self;
        let envelope = Envelope {
            spec,
            event_type,
            id,
            source,
            time,
            run_id,
            tenant,
            revision,
            supersedes,
            data: None,
            unknown,
            lifetime,
        };
        (envelope, data)
    }
}

record! {
    /// Where a run stands in a rollout.
    Rollout {
        stage: Stage = "stage",
        cohort: Text128<'a> = "cohort",
        flag_key: Text128<'a> = "flag_key",
        variant: Text128<'a> = "variant",
        assignment_unit: AssignmentUnit = "assignment_unit",
        traffic_fraction: Number = "traffic_fraction",
    }
}
record! {
    /// How a run ended.
    Outcome {
        status: Status = "status",
        source: Text64<'a> = "source",
        reason_code: Text64<'a> = "reason_code",
        finish_reason: Text64<'a> = "finish_reason",
    }
}
record! {
    /// Where a run failed.
    FailurePoint {
        component: Text64<'a> = "component",
        step: Text128<'a> = "step",
        error_type: Text128<'a> = "error_type",
    }
}
record! {
    /// One field of the answer, held against its schema.
    FieldError {
        path: Text<'a, 1, 512> = "path",
        valid: bool = "valid",
        rule: Text64<'a> = "rule",
        message: Text512<'a> = "message",
    }
}
record! {
    /// Whether the answer fitted its schema.
    Validation {
        applicable: bool = "applicable",
        valid: Option<bool> = "valid",
        schema_id: Text256<'a> = "schema_id",
        schema_version: Text128<'a> = "schema_version",
        attempts: Int<1> = "attempts",
        first_attempt_valid: Option<bool> = "first_attempt_valid",
        repaired: bool = "repaired",
        fields: List<FieldError<'a>, 128> = "fields",
        fields_total: Count = "fields_total",
        fields_invalid: Count = "fields_invalid",
    }
}
record! {
    /// Tokens of a run.
    Tokens {
        input: Count = "input",
        input_cache_read: Count = "input_cache_read",
        input_cache_write: Count = "input_cache_write",
        output: Count = "output",
        reasoning: Count = "reasoning",
        by_modality: Map<'a, Count, 16> = "by_modality",
    }
}
record! {
    /// Cost of a run or a score.
    Cost {
        amount: Amount = "amount",
        currency: Currency<'a> = "currency",
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
        name: Name128<'a> = "name",
        id: Text128<'a> = "id",
        kind: Text32<'a> = "type",
        schema_version: Text128<'a> = "schema_version",
        status: Text64<'a> = "status",
        error_type: Text128<'a> = "error_type",
        args_valid: Option<bool> = "args_valid",
        latency: Millis = "latency_ms",
        attempt: Int<1> = "attempt",
        side_effect: Option<bool> = "side_effect",
        risk: Risk = "risk",
        approval: Approval<'a> = "approval",
    }
}
record! {
    /// One document that a retrieval call returned.
    Document {
        id: Name256<'a> = "id",
        score: Number = "score",
        version: Text128<'a> = "version",
        cited: Option<bool> = "cited",
    }
}
record! {
    /// One retrieval call.
    Retrieval {
        source_id: Name256<'a> = "source_id",
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
    /// One step; kept as it was sent.
    Step {
        name: Name128<'a> = "name",
        kind: Text64<'a> = "kind",
        decision: Text256<'a> = "decision",
        status: Text32<'a> = "status",
        latency: Millis = "latency_ms",
        span_id: Text32<'a> = "span_id",
    }
}
record! {
    /// A hand-off to a person.
    Escalation {
        reason_code: Name64<'a> = "reason_code",
        initiated_by: Text64<'a> = "initiated_by",
        to: Text128<'a> = "to",
        phase: Text64<'a> = "phase",
        ticket_id: Text128<'a> = "ticket_id",
        resolved: Option<bool> = "resolved",
        resolution: Text64<'a> = "resolution",
        wait: Millis = "wait_ms",
        handle: Millis = "handle_ms",
    }
}
record! {
    /// A policy exception.
    PolicyException {
        policy_id: Name128<'a> = "policy_id",
        policy_version: Text128<'a> = "policy_version",
        category: Text64<'a> = "category",
        severity: Severity = "severity",
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
    /// Who scored.
    Evaluator {
        id: Name128<'a> = "id",
        version: Text128<'a> = "version",
        model: Text256<'a> = "model",
    }
}
record! {
    /// What a score refers to; kept as it was sent.
    Reference {
        dataset: Text256<'a> = "dataset",
        item_id: Text256<'a> = "item_id",
        version: Text128<'a> = "version",
    }
}
record! {
    /// A score.
    Score {
        name: Name128<'a> = "name",
        value: Number = "value",
        label: Text64<'a> = "label",
        passed: Option<bool> = "passed",
        min: Number = "min",
        max: Number = "max",
        higher_is_better: Option<bool> = "higher_is_better",
        kind: ScoreKind = "kind",
        evaluator: Evaluator<'a> = "evaluator",
        rubric_version: Text128<'a> = "rubric_version",
        reference: Kept<'a, Reference<'a>> = "reference",
        target: Target = "target",
        target_id: Text128<'a> = "target_id",
        explanation: Text1024<'a> = "explanation",
        identifier: Text256<'a> = "identifier",
        sets_outcome: bool = "sets_outcome",
        weight: Number = "weight",
        cost: Cost<'a> = "cost",
    } unknown
}
record! {
    /// A person's verdict.
    Review {
        review_id: Name128<'a> = "review_id",
        queue: Text128<'a> = "queue",
        reviewer: Text128<'a> = "reviewer",
        decision: Decision = "decision",
        failure_mode: Text64<'a> = "failure_mode",
        labels: List<Text64<'a>, 32> = "labels",
        severity: Severity = "severity",
        expected_ref: Text1024<'a> = "expected_ref",
        expected: Raw<'a> = "expected",
        make_eval_case: bool = "make_eval_case",
        duration: Millis = "duration_ms",
        rubric_version: Text128<'a> = "rubric_version",
        sets_outcome: bool = "sets_outcome",
        sampling_weight: Number = "sampling_weight",
    } unknown
}
record! {
    /// A W3C trace.
    Trace {
        trace_id: TraceId<'a> = "trace_id",
        span_id: SpanId<'a> = "span_id",
    }
}
record! {
    /// How the producer sampled.
    Sampling {
        probability: Number = "probability",
        reason: Text64<'a> = "reason",
    }
}
record! {
    /// Content of a run; kept as it was sent.
    Content {
        input: Raw<'a> = "input",
        output: Raw<'a> = "output",
        input_ref: Text1024<'a> = "input_ref",
        output_ref: Text1024<'a> = "output_ref",
        input_sha256: Sha256Text<'a> = "input_sha256",
        output_sha256: Sha256Text<'a> = "output_sha256",
        redaction: Redaction<'a> = "redaction",
    }
}
record! {
    /// What was redacted.
    Redaction {
        policy: Text128<'a> = "policy",
        entities: Map<'a, Count, 64> = "entities",
    }
}
record! {
    /// A run as it was sent.
    Run {
        task: Name128<'a> = "task",
        task_version: Text128<'a> = "task_version",
        environment: Text64<'a> = "environment",
        attempt: Int<1> = "attempt",
        revision: Count = "revision",
        release: RawRelease<'a> = "release",
        rollout: Rollout<'a> = "rollout",
        started_at: Time = "started_at",
        ended_at: Time = "ended_at",
        outcome: Outcome<'a> = "outcome",
        failure_point: FailurePoint<'a> = "failure_point",
        validation: Validation<'a> = "validation",
        tokens: Tokens<'a> = "tokens",
        cost: Cost<'a> = "cost",
        latency: Latency<'a> = "latency",
        llm_calls: Count = "llm_calls",
        turns: Count = "turns",
        tool_calls: List<ToolCall<'a>, 256> = "tool_calls",
        retrieval: List<Retrieval<'a>, 64> = "retrieval",
        steps: Kept<'a, List<Step<'a>, 256>> = "steps",
        escalation: Escalation<'a> = "escalation",
        policy_exceptions: List<PolicyException<'a>, 64> = "policy_exceptions",
        scores: List<Score<'a>, 64> = "scores",
        session_id: Text128<'a> = "session_id",
        user_key: Text128<'a> = "user_key",
        trace: Trace<'a> = "trace",
        segments: Map<'a, Text128<'a>, 16> = "segments",
        content: Kept<'a, Content<'a>> = "content",
        sampling: Sampling<'a> = "sampling",
        truncated: List<Text64<'a>, 16> = "truncated",
    } unknown
}

/// A completed run: what was sent, with what follows from it.
#[derive(Clone, Debug)]
pub struct Completed<'a> {
    /// As sent; required fields are there.
    pub run: Box<Run<'a>>,
    /// The release, with its fingerprint.
    pub release: Arc<Release>,
    /// Start, microseconds since the epoch.
    pub started_micros: i64,
    /// Completion, microseconds since the epoch; decides the window.
    pub ended_micros: i64,
    /// Outcome.
    pub status: &'static str,
    /// Rollout stage; `full` where none was sent.
    pub stage: &'static str,
    /// Attempt, from 1.
    pub attempt: i64,
    /// 1 / sampling probability in millionths; 1,000,000 where unsampled.
    pub weight_micros: i64,
}

/// Weight at most: a sampling probability below one in a thousand million counts as that.
const MAX_WEIGHT_MICROS: f64 = 1e15;

// === impl Completed ===

impl Completed<'_> {
    /// Duration in microseconds: as stated, else from the two times; none where they contradict each other.
    pub fn latency_total_micros(&self) -> Option<i64> {
        let stated = self.run.latency.as_ref().and_then(|latency| latency.total).map(|total| total.0);
        stated.or_else(|| self.ended_micros.checked_sub(self.started_micros).filter(|micros| *micros >= 0))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the bound stands beside it")]
pub(crate) fn weight_micros(probability: Option<f64>) -> i64 {
    probability.map_or(1_000_000, |probability| (1e6 / probability).round().min(MAX_WEIGHT_MICROS) as i64)
}

// === impl ToolCall ===

impl ToolCall<'_> {
    /// True where the call did not do what it was asked to: any status but `ok`, unless an approver said no.
    pub fn failed(&self) -> bool {
        let status = self.status.as_deref().unwrap_or_default();
        let decision = self.approval.as_ref().and_then(|approval| approval.decision);
        let refused = status == "denied" && decision.is_some_and(|decision| decision.0 == "rejected");
        status != "ok" && !refused
    }

    /// True where a high-risk call went through without a recorded approval: risk `high`, status `ok`, a side effect
    /// not ruled out, no approval of `approved` or `edited`, and approval not stated as not required.
    pub fn unapproved(&self) -> bool {
        let approval = self.approval.as_ref();
        let approved = approval
            .and_then(|approval| approval.decision)
            .is_some_and(|decision| matches!(decision.0, "approved" | "edited"));
        let waived = approval.and_then(|approval| approval.required) == Some(false);
        self.risk.is_some_and(|risk| risk.0 == "high")
            && self.status.as_deref() == Some("ok")
            && self.side_effect.flatten() != Some(false)
            && !approved
            && !waived
    }
}
