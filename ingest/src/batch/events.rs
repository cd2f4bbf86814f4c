//! Columns of `events` in the order of their schema, and how an event becomes a row of them.
//!
//! A row is appended only after its event has been decoded whole, and always to every column: a rejected message can
//! never leave half a row behind.

use bellwether_event::{
    Completed, Escalation, Event, Payload, PolicyException, Retrieval, Review, Run, Score, ToolCall, UNAPPROVED,
};
use bellwether_lake::{Chunk, Table};
use serde::Serialize;
use serde_json::value::RawValue;

use super::columns::{Date, Double, Flag, Integer, Later, Lists, Long, Record, Text, TextMap, Time, column_set};
use super::releases::ReleaseRows;
use crate::decode::Message;

const DAY_MICROS: i64 = 86_400_000_000;

column_set!(Documents { id: Text, version: Text, score: Double, cited: Flag });

column_set!(ToolCalls {
    name: Text,
    id: Text,
    kind: Text,
    schema_version: Text,
    status: Text,
    failed: Flag,
    error_type: Text,
    args_valid: Flag,
    latency_micros: Long,
    attempt: Integer,
    side_effect: Flag,
    risk: Text,
    approval_required: Flag,
    approval_decision: Text,
    approver_key: Text,
    approval_wait_micros: Long,
});

column_set!(Retrievals {
    source_id: Text,
    index_version: Text,
    query_sha256: Text,
    requested_k: Long,
    returned_k: Long,
    top_score: Double,
    latency_micros: Long,
    status: Text,
    error_type: Text,
    documents: Lists<Documents>,
});

column_set!(PolicyExceptions {
    policy_id: Text,
    policy_version: Text,
    severity: Text,
    category: Text,
    action: Text,
    source: Text,
    component: Text,
    native_result_type: Text,
    native_result_value: Text,
    risk_score: Double,
    step: Text,
    derived: Flag,
});

column_set!(FieldErrors { path: Text, rule: Text, message: Text });

column_set!(Scores {
    name: Text,
    value: Double,
    label: Text,
    passed: Flag,
    min: Double,
    max: Double,
    higher_is_better: Flag,
    kind: Text,
    evaluator_id: Text,
    evaluator_version: Text,
    evaluator_model: Text,
    rubric_version: Text,
    target: Text,
    target_id: Text,
    identifier: Text,
    sets_outcome: Flag,
    weight: Double,
    reference_json: Text,
    explanation: Text,
    cost_nanos: Long,
    cost_currency: Text,
});

column_set!(EventColumns {
    topic: Text,
    partition: Integer,
    offset: Long,
    kafka_timestamp: Time,
    ingested_at: Time,
    event_date: Date,
    event_type: Text,
    spec: Text,
    source: Text,
    event_id: Text,
    event_time: Time,
    run_id: Text,
    tenant: Text,
    revision: Long,
    content_hash: Long,
    supersedes: Text,
    task: Text,
    task_version: Text,
    environment: Text,
    attempt: Integer,
    release_id: Later,
    release_fingerprint: Later,
    release_fingerprint_stated: Later,
    release_json: Later,
    model: Later,
    model_provider: Later,
    model_requested: Later,
    model_responded: Later,
    prompt_name: Later,
    prompt_version: Later,
    stage: Text,
    cohort: Text,
    flag_key: Text,
    variant: Text,
    assignment_unit: Text,
    traffic_fraction: Double,
    started_at: Time,
    ended_at: Time,
    outcome_status: Text,
    outcome_source: Text,
    outcome_reason_code: Text,
    finish_reason: Text,
    failure_component: Text,
    failure_step: Text,
    failure_error_type: Text,
    validation_applicable: Flag,
    validation_valid: Flag,
    validation_first_attempt_valid: Flag,
    validation_attempts: Long,
    validation_repaired: Flag,
    validation_schema_id: Text,
    validation_schema_version: Text,
    fields_total: Long,
    fields_invalid: Long,
    field_errors: Lists<FieldErrors>,
    tokens_input: Long,
    tokens_input_cache_read: Long,
    tokens_input_cache_write: Long,
    tokens_output: Long,
    tokens_reasoning: Long,
    cost_nanos: Long,
    cost_currency: Text,
    cost_source: Text,
    cost_price_table: Text,
    cost_price_table_version: Text,
    latency_total_micros: Long,
    latency_ttft_micros: Long,
    latency_queue_micros: Long,
    latency_llm_micros: Long,
    latency_tool_micros: Long,
    latency_retrieval_micros: Long,
    latency_human_wait_micros: Long,
    llm_calls: Long,
    turns: Long,
    tool_calls: Lists<ToolCalls>,
    tool_calls_total: Long,
    tool_calls_failed: Long,
    retrieval: Lists<Retrievals>,
    retrieval_calls: Long,
    retrieval_empty: Long,
    retrieval_errors: Long,
    policy_exceptions: Lists<PolicyExceptions>,
    policy_exceptions_info: Long,
    policy_exceptions_low: Long,
    policy_exceptions_medium: Long,
    policy_exceptions_high: Long,
    policy_exceptions_critical: Long,
    scores: Lists<Scores>,
    escalated: Flag,
    escalation_reason_code: Text,
    escalation_initiated_by: Text,
    escalation_to: Text,
    escalation_phase: Text,
    escalation_ticket_id: Text,
    escalation_resolved: Flag,
    escalation_resolution: Text,
    escalation_wait_micros: Long,
    escalation_handle_micros: Long,
    review_id: Text,
    review_queue: Text,
    reviewer: Text,
    review_decision: Text,
    review_failure_mode: Text,
    review_severity: Text,
    review_sets_outcome: Flag,
    review_make_eval_case: Flag,
    review_duration_micros: Long,
    review_sampling_weight: Double,
    review_rubric_version: Text,
    review_json: Text,
    session_id: Text,
    user_key: Text,
    trace_id: Text,
    span_id: Text,
    sampling_probability: Double,
    sampling_reason: Text,
    weight_micros: Long,
    segments: TextMap,
    steps_json: Text,
    content_json: Text,
    extra: Text,
});

/// Rows of `events` that grow.
pub(super) struct EventRows {
    columns: EventColumns,
    releases: ReleaseRows,
    rows: usize,
}

// === impl EventRows ===

impl EventRows {
    pub(super) fn new() -> Self {
        Self { columns: EventColumns::fresh(), releases: ReleaseRows::default(), rows: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn finish(&mut self) -> Chunk {
        let schema = Table::Events.columns();
        let mut columns = self.columns.columns(schema);
        self.releases.finish(&mut columns, schema);
        Chunk { rows: std::mem::take(&mut self.rows), columns }
    }

    /// Appends one event.
    pub(super) fn append(&mut self, message: &Message<'_>, event: &Event<'_>, now_micros: i64) {
        self.rows += 1;
        self.append_envelope(message, event, now_micros);
        let completed = match &event.payload {
            Payload::Completed(completed) => Some(completed.as_ref()),
            _ => None,
        };
        let run = completed.map(|completed| &*completed.run);
        self.append_release(completed);
        self.append_rollout(completed);
        self.append_outcome(completed);
        self.append_validation(run);
        self.append_tokens_and_cost(run);
        self.append_latency(completed);
        self.append_tool_calls(run);
        self.append_retrieval(run);
        self.append_exceptions(run, &event.payload);
        self.append_scores(run, &event.payload);
        self.append_escalation(match &event.payload {
            Payload::Escalated(escalation) => Some(escalation),
            _ => run.and_then(|run| run.escalation.as_ref()),
        });
        self.append_review(match &event.payload {
            Payload::Review(review) => Some(review),
            _ => None,
        });
        self.append_context(completed, event);
    }

    fn append_envelope(&mut self, message: &Message<'_>, event: &Event<'_>, now_micros: i64) {
        let columns = &mut self.columns;
        columns.topic.append_value(message.topic);
        columns.partition.append_value(message.partition);
        columns.offset.append_value(message.offset);
        columns.kafka_timestamp.append_option(message.timestamp_micros);
        columns.ingested_at.append_value(now_micros);
        columns.event_date.append_value(event_date(event.time_micros));
        columns.event_type.append_value(event.event_type.name());
        columns.spec.append_value(&event.spec);
        columns.source.append_value(&event.source);
        columns.event_id.append_value(&event.id);
        columns.event_time.append_value(event.time_micros);
        columns.run_id.append_value(&event.run_id);
        columns.tenant.append_value(event.tenant.as_deref().unwrap_or_default());
        columns.revision.append_value(event.revision);
        columns.content_hash.append_value(bellwether_event::content_hash(message.payload.unwrap_or_default()));
        columns.supersedes.append_option(event.supersedes.as_deref());
    }

    fn append_release(&mut self, completed: Option<&Completed<'_>>) {
        let columns = &mut self.columns;
        let run = completed.map(|completed| &*completed.run);
        columns.task.append_option(run.and_then(|run| run.task.as_deref()));
        columns.task_version.append_option(run.and_then(|run| run.task_version.as_deref()));
        columns.environment.append_option(run.and_then(|run| run.environment.as_deref()));
        let attempt = completed.map_or(1, |completed| completed.attempt);
        columns.attempt.append_value(i32::try_from(attempt).unwrap_or(i32::MAX));
        self.releases.append(completed.map(|completed| &completed.release));
    }

    fn append_rollout(&mut self, completed: Option<&Completed<'_>>) {
        let columns = &mut self.columns;
        columns.stage.append_option(completed.map(|completed| completed.stage));
        let rollout = completed.and_then(|completed| completed.run.rollout.as_ref());
        columns.cohort.append_option(rollout.and_then(|rollout| rollout.cohort.as_deref()));
        columns.flag_key.append_option(rollout.and_then(|rollout| rollout.flag_key.as_deref()));
        columns.variant.append_option(rollout.and_then(|rollout| rollout.variant.as_deref()));
        columns.assignment_unit.append_option(rollout.and_then(|rollout| rollout.assignment_unit).map(|unit| unit.0));
        columns
            .traffic_fraction
            .append_option(rollout.and_then(|rollout| rollout.traffic_fraction).map(|fraction| fraction.0));
        columns.started_at.append_option(completed.map(|completed| completed.started_micros));
        columns.ended_at.append_option(completed.map(|completed| completed.ended_micros));
    }

    fn append_outcome(&mut self, completed: Option<&Completed<'_>>) {
        let columns = &mut self.columns;
        columns.outcome_status.append_option(completed.map(|completed| completed.status));
        let outcome = completed.and_then(|completed| completed.run.outcome.as_ref());
        columns.outcome_source.append_option(outcome.and_then(|outcome| outcome.source.as_deref()));
        columns.outcome_reason_code.append_option(outcome.and_then(|outcome| outcome.reason_code.as_deref()));
        columns.finish_reason.append_option(outcome.and_then(|outcome| outcome.finish_reason.as_deref()));
        let failure = completed.and_then(|completed| completed.run.failure_point.as_ref());
        columns.failure_component.append_option(failure.and_then(|failure| failure.component.as_deref()));
        columns.failure_step.append_option(failure.and_then(|failure| failure.step.as_deref()));
        columns.failure_error_type.append_option(failure.and_then(|failure| failure.error_type.as_deref()));
    }

    fn append_validation(&mut self, run: Option<&Run<'_>>) {
        let columns = &mut self.columns;
        let validation = run.and_then(|run| run.validation.as_ref());
        columns.validation_applicable.append_option(validation.and_then(|validation| validation.applicable));
        columns.validation_valid.append_option(validation.and_then(|validation| validation.valid.flatten()));
        columns
            .validation_first_attempt_valid
            .append_option(validation.and_then(|validation| validation.first_attempt_valid.flatten()));
        columns.validation_attempts.append_option(validation.and_then(|validation| validation.attempts).map(|n| n.0));
        columns.validation_repaired.append_option(validation.and_then(|validation| validation.repaired));
        columns.validation_schema_id.append_option(validation.and_then(|validation| validation.schema_id.as_deref()));
        columns
            .validation_schema_version
            .append_option(validation.and_then(|validation| validation.schema_version.as_deref()));
        let fields = validation.and_then(|validation| validation.fields.as_ref());
        let invalid = fields.map(|fields| fields.0.iter().filter(|field| field.valid == Some(false)).count());
        let total = validation.and_then(|validation| validation.fields_total).map(|n| n.0);
        let stated = validation.and_then(|validation| validation.fields_invalid).map(|n| n.0);
        columns.fields_total.append_option(total);
        columns.fields_invalid.append_option(stated.or(invalid.and_then(|invalid| i64::try_from(invalid).ok())));
        let errors = &mut columns.field_errors;
        for field in fields.into_iter().flat_map(|fields| &fields.0).filter(|field| field.valid == Some(false)) {
            errors.records.path.append_value(field.path.as_deref().unwrap_or_default());
            errors.records.rule.append_option(field.rule.as_deref());
            errors.records.message.append_option(field.message.as_deref());
            errors.added();
        }
        errors.close();
    }

    fn append_tokens_and_cost(&mut self, run: Option<&Run<'_>>) {
        let columns = &mut self.columns;
        let tokens = run.and_then(|run| run.tokens.as_ref());
        columns.tokens_input.append_option(tokens.and_then(|tokens| tokens.input).map(|n| n.0));
        columns.tokens_input_cache_read.append_option(tokens.and_then(|tokens| tokens.input_cache_read).map(|n| n.0));
        columns.tokens_input_cache_write.append_option(tokens.and_then(|tokens| tokens.input_cache_write).map(|n| n.0));
        columns.tokens_output.append_option(tokens.and_then(|tokens| tokens.output).map(|n| n.0));
        columns.tokens_reasoning.append_option(tokens.and_then(|tokens| tokens.reasoning).map(|n| n.0));
        let cost = run.and_then(|run| run.cost.as_ref());
        columns.cost_nanos.append_option(cost.and_then(|cost| cost.amount).map(|amount| amount.0));
        columns.cost_currency.append_option(cost.and_then(|cost| cost.currency.as_deref()));
        columns.cost_source.append_option(cost.and_then(|cost| cost.source).map(|source| source.0));
        columns.cost_price_table.append_option(cost.and_then(|cost| cost.price_table.as_deref()));
        columns.cost_price_table_version.append_option(cost.and_then(|cost| cost.price_table_version.as_deref()));
    }

    fn append_latency(&mut self, completed: Option<&Completed<'_>>) {
        let columns = &mut self.columns;
        columns.latency_total_micros.append_option(completed.and_then(|completed| completed.latency_total_micros()));
        let run = completed.map(|completed| &*completed.run);
        let latency = run.and_then(|run| run.latency.as_ref());
        columns.latency_ttft_micros.append_option(latency.and_then(|latency| latency.ttft).map(|n| n.0));
        columns.latency_queue_micros.append_option(latency.and_then(|latency| latency.queue).map(|n| n.0));
        columns.latency_llm_micros.append_option(latency.and_then(|latency| latency.llm).map(|n| n.0));
        columns.latency_tool_micros.append_option(latency.and_then(|latency| latency.tool).map(|n| n.0));
        columns.latency_retrieval_micros.append_option(latency.and_then(|latency| latency.retrieval).map(|n| n.0));
        columns.latency_human_wait_micros.append_option(latency.and_then(|latency| latency.human_wait).map(|n| n.0));
        columns.llm_calls.append_option(run.and_then(|run| run.llm_calls).map(|n| n.0));
        columns.turns.append_option(run.and_then(|run| run.turns).map(|n| n.0));
    }

    fn append_tool_calls(&mut self, run: Option<&Run<'_>>) {
        let calls: &[ToolCall<'_>] = run.and_then(|run| run.tool_calls.as_ref()).map_or(&[], |calls| &calls.0);
        let column = &mut self.columns.tool_calls;
        for call in calls {
            append_tool_call(&mut column.records, call);
            column.added();
        }
        column.close();
        self.columns.tool_calls_total.append_value(count(calls.len()));
        self.columns.tool_calls_failed.append_value(count(calls.iter().filter(|call| call.failed()).count()));
    }

    fn append_retrieval(&mut self, run: Option<&Run<'_>>) {
        let calls: &[Retrieval<'_>] = run.and_then(|run| run.retrieval.as_ref()).map_or(&[], |calls| &calls.0);
        let column = &mut self.columns.retrieval;
        for call in calls {
            append_retrieval_call(&mut column.records, call);
            column.added();
        }
        column.close();
        let failed = |call: &&Retrieval<'_>| matches!(call.status.as_deref(), Some("error" | "timeout"));
        let empty = |call: &&Retrieval<'_>| {
            !failed(call) && (call.status.as_deref() == Some("empty") || call.returned_k.is_some_and(|k| k.0 == 0))
        };
        self.columns.retrieval_calls.append_value(count(calls.len()));
        self.columns.retrieval_empty.append_value(count(calls.iter().filter(empty).count()));
        self.columns.retrieval_errors.append_value(count(calls.iter().filter(failed).count()));
    }

    fn append_exceptions(&mut self, run: Option<&Run<'_>>, payload: &Payload<'_>) {
        let mut by_severity = [0_i64; 5];
        let mut tally = |severity: &str| {
            let place = ["info", "low", "medium", "high", "critical"].iter().position(|known| *known == severity);
            if let Some(place) = place {
                by_severity[place] += 1;
            }
        };
        let column = &mut self.columns.policy_exceptions;
        let sent = run.and_then(|run| run.policy_exceptions.as_ref()).map_or(&[] as &[_], |sent| &sent.0);
        let single = match payload {
            Payload::PolicyException(exception) => Some(exception.as_ref()),
            _ => None,
        };
        for exception in sent.iter().chain(single) {
            tally(append_exception(&mut column.records, exception));
            column.added();
        }
        let calls = run.and_then(|run| run.tool_calls.as_ref()).map_or(&[] as &[ToolCall<'_>], |calls| &calls.0);
        for call in calls.iter().filter(|call| call.unapproved()) {
            append_unapproved(&mut column.records, call);
            tally("high");
            column.added();
        }
        column.close();
        let [info, low, medium, high, critical] = by_severity;
        self.columns.policy_exceptions_info.append_value(info);
        self.columns.policy_exceptions_low.append_value(low);
        self.columns.policy_exceptions_medium.append_value(medium);
        self.columns.policy_exceptions_high.append_value(high);
        self.columns.policy_exceptions_critical.append_value(critical);
    }

    fn append_scores(&mut self, run: Option<&Run<'_>>, payload: &Payload<'_>) {
        let column = &mut self.columns.scores;
        let sent = run.and_then(|run| run.scores.as_ref()).map_or(&[] as &[_], |sent| &sent.0);
        let single = match payload {
            Payload::Score(score) => Some(score.as_ref()),
            _ => None,
        };
        for score in sent.iter().chain(single) {
            append_score(&mut column.records, score);
            column.added();
        }
        column.close();
    }

    fn append_escalation(&mut self, escalation: Option<&Escalation<'_>>) {
        let columns = &mut self.columns;
        columns.escalated.append_value(escalation.is_some());
        columns.escalation_reason_code.append_option(escalation.and_then(|one| one.reason_code.as_deref()));
        columns.escalation_initiated_by.append_option(escalation.and_then(|one| one.initiated_by.as_deref()));
        columns.escalation_to.append_option(escalation.and_then(|one| one.to.as_deref()));
        columns.escalation_phase.append_option(escalation.and_then(|one| one.phase.as_deref()));
        columns.escalation_ticket_id.append_option(escalation.and_then(|one| one.ticket_id.as_deref()));
        columns.escalation_resolved.append_option(escalation.and_then(|one| one.resolved.flatten()));
        columns.escalation_resolution.append_option(escalation.and_then(|one| one.resolution.as_deref()));
        columns.escalation_wait_micros.append_option(escalation.and_then(|one| one.wait).map(|n| n.0));
        columns.escalation_handle_micros.append_option(escalation.and_then(|one| one.handle).map(|n| n.0));
    }

    fn append_review(&mut self, review: Option<&Review<'_>>) {
        let columns = &mut self.columns;
        columns.review_id.append_option(review.and_then(|review| review.review_id.as_deref()));
        columns.review_queue.append_option(review.and_then(|review| review.queue.as_deref()));
        columns.reviewer.append_option(review.and_then(|review| review.reviewer.as_deref()));
        columns.review_decision.append_option(review.and_then(|review| review.decision).map(|decision| decision.0));
        columns.review_failure_mode.append_option(review.and_then(|review| review.failure_mode.as_deref()));
        columns.review_severity.append_option(review.and_then(|review| review.severity).map(|severity| severity.0));
        columns.review_sets_outcome.append_option(review.map(|review| review.sets_outcome.unwrap_or(true)));
        columns.review_make_eval_case.append_option(review.and_then(|review| review.make_eval_case));
        columns.review_duration_micros.append_option(review.and_then(|review| review.duration).map(|n| n.0));
        columns.review_sampling_weight.append_option(review.and_then(|review| review.sampling_weight).map(|n| n.0));
        columns.review_rubric_version.append_option(review.and_then(|review| review.rubric_version.as_deref()));
        columns.review_json.append_option(review.and_then(review_json));
    }

    fn append_context(&mut self, completed: Option<&Completed<'_>>, event: &Event<'_>) {
        let columns = &mut self.columns;
        let run = completed.map(|completed| &*completed.run);
        columns.session_id.append_option(run.and_then(|run| run.session_id.as_deref()));
        columns.user_key.append_option(run.and_then(|run| run.user_key.as_deref()));
        let trace = run.and_then(|run| run.trace.as_ref());
        columns.trace_id.append_option(trace.and_then(|trace| trace.trace_id.as_deref()));
        columns.span_id.append_option(trace.and_then(|trace| trace.span_id.as_deref()));
        let sampling = run.and_then(|run| run.sampling.as_ref());
        columns.sampling_probability.append_option(sampling.and_then(|sampling| sampling.probability).map(|n| n.0));
        columns.sampling_reason.append_option(sampling.and_then(|sampling| sampling.reason.as_deref()));
        columns.weight_micros.append_value(completed.map_or(1_000_000, |completed| completed.weight_micros));
        let segments = run.and_then(|run| run.segments.as_ref());
        columns.segments.append(segments.map(|segments| segments.0.iter().map(|(name, value)| (&**name, &**value))));
        columns.steps_json.append_option(run.and_then(|run| run.steps.as_ref()).map(|steps| steps.raw.get()));
        columns.content_json.append_option(run.and_then(|run| run.content.as_ref()).map(|content| content.raw.get()));
        columns.extra.append_option(event.extra.as_deref());
    }
}

/// Days since the epoch. Times are bounded by the decoder, so the fallback is never met; it would be the epoch.
fn event_date(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(0)
}

fn count(entries: usize) -> i64 {
    i64::try_from(entries).unwrap_or(i64::MAX)
}

fn append_tool_call(columns: &mut ToolCalls, call: &ToolCall<'_>) {
    columns.name.append_value(call.name.as_deref().unwrap_or_default());
    columns.id.append_option(call.id.as_deref());
    columns.kind.append_option(call.kind.as_deref());
    columns.schema_version.append_option(call.schema_version.as_deref());
    columns.status.append_value(call.status.as_deref().unwrap_or_default());
    columns.failed.append_value(call.failed());
    columns.error_type.append_option(call.error_type.as_deref());
    columns.args_valid.append_option(call.args_valid.flatten());
    columns.latency_micros.append_option(call.latency.map(|n| n.0));
    columns.attempt.append_option(call.attempt.map(|n| i32::try_from(n.0).unwrap_or(i32::MAX)));
    columns.side_effect.append_option(call.side_effect.flatten());
    columns.risk.append_option(call.risk.map(|risk| risk.0));
    let approval = call.approval.as_ref();
    columns.approval_required.append_option(approval.and_then(|approval| approval.required));
    columns.approval_decision.append_option(approval.and_then(|approval| approval.decision).map(|one| one.0));
    columns.approver_key.append_option(approval.and_then(|approval| approval.approver_key.as_deref()));
    columns.approval_wait_micros.append_option(approval.and_then(|approval| approval.wait).map(|n| n.0));
}

fn append_retrieval_call(columns: &mut Retrievals, call: &Retrieval<'_>) {
    columns.source_id.append_value(call.source_id.as_deref().unwrap_or_default());
    columns.index_version.append_option(call.index_version.as_deref());
    columns.query_sha256.append_option(call.query_sha256.as_deref());
    columns.requested_k.append_option(call.requested_k.map(|n| n.0));
    columns.returned_k.append_option(call.returned_k.map(|n| n.0));
    columns.top_score.append_option(call.top_score.map(|n| n.0));
    columns.latency_micros.append_option(call.latency.map(|n| n.0));
    columns.status.append_option(call.status.as_deref());
    columns.error_type.append_option(call.error_type.as_deref());
    for document in call.documents.iter().flat_map(|documents| &documents.0) {
        columns.documents.records.id.append_value(document.id.as_deref().unwrap_or_default());
        columns.documents.records.version.append_option(document.version.as_deref());
        columns.documents.records.score.append_option(document.score.map(|n| n.0));
        columns.documents.records.cited.append_option(document.cited.flatten());
        columns.documents.added();
    }
    columns.documents.close();
}

/// Appends an exception and returns its severity.
fn append_exception(columns: &mut PolicyExceptions, exception: &PolicyException<'_>) -> &'static str {
    let severity = exception.severity.map_or("info", |severity| severity.0);
    columns.policy_id.append_value(exception.policy_id.as_deref().unwrap_or_default());
    columns.policy_version.append_option(exception.policy_version.as_deref());
    columns.severity.append_value(severity);
    columns.category.append_option(exception.category.as_deref());
    columns.action.append_option(exception.action.as_deref());
    columns.source.append_option(exception.source.as_deref());
    columns.component.append_option(exception.component.as_deref());
    columns.native_result_type.append_option(exception.native_result_type.as_deref());
    columns.native_result_value.append_option(exception.native_result_value.as_deref());
    columns.risk_score.append_option(exception.risk_score.map(|n| n.0));
    columns.step.append_option(exception.step.as_deref());
    columns.derived.append_value(false);
    severity
}

/// Appends the exception that follows from a high-risk call without a recorded approval.
fn append_unapproved(columns: &mut PolicyExceptions, call: &ToolCall<'_>) {
    columns.policy_id.append_value(UNAPPROVED);
    columns.policy_version.append_null();
    columns.severity.append_value("high");
    columns.category.append_value("unauthorised_action");
    columns.action.append_value("allowed");
    columns.source.append_value("tool_input");
    columns.component.append_option(call.name.as_deref());
    columns.native_result_type.append_null();
    columns.native_result_value.append_null();
    columns.risk_score.append_null();
    columns.step.append_null();
    columns.derived.append_value(true);
}

fn append_score(columns: &mut Scores, score: &Score<'_>) {
    let evaluator = score.evaluator.as_ref();
    columns.name.append_value(score.name.as_deref().unwrap_or_default());
    columns.value.append_option(score.value.map(|n| n.0));
    columns.label.append_option(score.label.as_deref());
    columns.passed.append_option(score.passed.flatten());
    columns.min.append_option(score.min.map(|n| n.0));
    columns.max.append_option(score.max.map(|n| n.0));
    columns.higher_is_better.append_option(score.higher_is_better.flatten());
    columns.kind.append_value(score.kind.map_or("code", |kind| kind.0));
    columns.evaluator_id.append_value(evaluator.and_then(|one| one.id.as_deref()).unwrap_or_default());
    columns.evaluator_version.append_option(evaluator.and_then(|one| one.version.as_deref()));
    columns.evaluator_model.append_option(evaluator.and_then(|one| one.model.as_deref()));
    columns.rubric_version.append_option(score.rubric_version.as_deref());
    columns.target.append_option(score.target.map(|target| target.0));
    columns.target_id.append_option(score.target_id.as_deref());
    columns.identifier.append_option(score.identifier.as_deref());
    columns.sets_outcome.append_value(score.sets_outcome.unwrap_or(false));
    columns.weight.append_option(score.weight.map(|n| n.0));
    columns.reference_json.append_option(score.reference.as_ref().map(|reference| reference.raw.get()));
    columns.explanation.append_option(score.explanation.as_deref());
    columns.cost_nanos.append_option(score.cost.as_ref().and_then(|cost| cost.amount).map(|amount| amount.0));
    columns.cost_currency.append_option(score.cost.as_ref().and_then(|cost| cost.currency.as_deref()));
}

/// What a review says beyond its columns.
fn review_json(review: &Review<'_>) -> Option<String> {
    let labels: Option<Vec<&str>> =
        review.labels.as_ref().map(|labels| labels.0.iter().map(|label| &**label).collect());
    if labels.is_none() && review.expected.is_none() && review.expected_ref.is_none() {
        return None;
    }
    #[derive(Serialize)]
    struct Said<'a> {
        expected: Option<&'a RawValue>,
        expected_ref: Option<&'a str>,
        labels: Option<Vec<&'a str>>,
    }
    // As it was sent: not every text that JSON can write is one of Rust's.
    let expected = review.expected.and_then(|expected| serde_json::from_str(expected.get()).ok());
    serde_json::to_string(&Said { expected, expected_ref: review.expected_ref.as_deref(), labels }).ok()
}
