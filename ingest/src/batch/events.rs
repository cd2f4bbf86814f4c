//! The conversion of an event to a row of `events`.
//!
//! A row is appended only after its event has been decoded completely, and always to every column, so a rejected message never
//! leaves part of a row behind.

use std::borrow::Cow;

use bellwether_event::record::{entries, kept};
use bellwether_event::units::amount_text;
use bellwether_event::{
    Completed, CutText, Escalation, Event, Payload, PolicyException, Retrieval, Review, Run, Score, ToolCall,
    UNAPPROVED, Validation,
};
use bellwether_lake::Chunk;
use bellwether_redact::{Redactor, Session};
use bellwether_tables::Table;
use serde::Serialize;
use serde_json::value::RawValue;

use super::columns::ColumnSet;
use super::event_columns::{EventColumns, PolicyExceptions, Retrievals, Scores, ToolCalls};
use super::releases::ReleaseRows;
use crate::decode::Message;
use crate::redact::redactions;

const DAY_MICROS: i64 = 86_400_000_000;

/// Most failed fields stored for a run.
const FIELDS_KEPT: usize = 128;

/// Builds rows of `events`.
pub(super) struct EventRows {
    columns: EventColumns,
    releases: ReleaseRows,
    rows: usize,
}

// === impl EventRows ===

impl EventRows {
    pub(super) fn new() -> Self {
        Self { columns: EventColumns::new(), releases: ReleaseRows::default(), rows: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn finish(&mut self) -> Chunk {
        let (rows, schema) = (std::mem::take(&mut self.rows), Table::Events.columns());
        let mut columns = self.columns.columns(schema, rows);
        self.releases.finish(&mut columns, schema);
        Chunk { rows, columns }
    }

    /// Appends one event, redacted.
    pub(super) fn append(&mut self, message: &Message<'_>, event: &Event<'_>, redactor: &Redactor, now_micros: i64) {
        let row = self.rows;
        self.rows += 1;
        let columns = &mut self.columns;
        // Placeholders that the producer wrote keep their meaning.
        let session = &mut redactor.session_of(message.payload.unwrap_or_default());
        append_envelope(columns, row, message, event, now_micros);
        let completed = match &event.payload {
            Payload::Completed(completed) => Some(completed.as_ref()),
            _ => None,
        };
        self.releases.append(completed.map(|completed| &completed.release));
        columns.attempt.put(row, completed.map_or(1, |completed| i32::try_from(completed.attempt).unwrap_or(i32::MAX)));
        columns.weight_micros.put(row, completed.map_or(1_000_000, |completed| completed.weight_micros(&event.run_id)));
        if let Some(completed) = completed {
            append_completed(columns, row, completed, session);
        }
        let run = completed.map(|completed| &*completed.run);
        append_tool_calls(columns, row, run, session);
        append_retrieval(columns, row, run, session);
        append_exceptions(columns, row, run, &event.payload, session);
        append_scores(columns, row, run, &event.payload, session);
        let escalation = match &event.payload {
            Payload::Escalated(escalation) => Some(&**escalation),
            _ => run.and_then(|run| run.escalation.as_ref()),
        };
        columns.escalated.put(row, escalation.is_some());
        if let Some(escalation) = escalation {
            append_escalation(columns, row, escalation, session);
        }
        if let Payload::Review(review) = &event.payload {
            append_review(columns, row, review, session);
        }
        columns.extra.put_option(row, event.extra.as_deref().map(|extra| session.parsed_json(extra)));
        if !event.truncated.is_empty() {
            let pointers: Vec<_> =
                event.truncated.iter().map(|(pointer, done)| (session.text(pointer), *done)).collect();
            columns.truncated.put(row, pointers.iter().map(|(pointer, done)| (&**pointer, *done)));
        }
        let redaction = redactions(redactor, session);
        columns.redaction.put(row, redaction.iter().map(|(name, value)| (*name, &**value)));
    }
}

fn append_envelope(columns: &mut EventColumns, row: usize, message: &Message<'_>, event: &Event<'_>, now_micros: i64) {
    columns.topic.put(row, message.topic);
    columns.partition.put(row, message.partition);
    columns.offset.put(row, message.offset);
    columns.kafka_timestamp.put_option(row, message.timestamp_micros);
    columns.ingested_at.put(row, now_micros);
    columns.event_date.put(row, event_date(event.time_micros));
    columns.event_type.put(row, event.event_type.name());
    columns.spec.put(row, &event.spec);
    columns.source.put(row, &event.source);
    columns.event_id.put(row, &event.id);
    columns.event_time.put(row, event.time_micros);
    columns.run_id.put(row, &event.run_id);
    columns.tenant.put(row, event.tenant.as_deref().unwrap_or_default());
    columns.revision.put(row, event.revision);
    columns.content_hash.put(row, bellwether_event::content_hash(message.payload.unwrap_or_default()));
    columns.supersedes.put_option(row, event.supersedes.as_deref());
}

/// Appends the columns of a completed run, except for its lists.
fn append_completed(columns: &mut EventColumns, row: usize, completed: &Completed<'_>, session: &mut Session<'_>) {
    let run = &*completed.run;
    columns.task.put_option(row, run.task.as_deref());
    columns.task_version.put_option(row, run.task_version.as_deref());
    columns.environment.put_option(row, run.environment.as_deref());
    columns.stage.put(row, completed.stage);
    columns.started_at.put_option(row, completed.started_micros);
    columns.ended_at.put(row, completed.ended_micros);
    columns.outcome_status.put(row, completed.status);
    columns.latency_total_micros.put_option(row, completed.latency_total_micros());
    columns.llm_calls.put_option(row, run.llm_calls.map(|n| n.0));
    columns.turns.put_option(row, run.turns.map(|n| n.0));
    columns.session_id.put_option(row, run.session_id.as_deref());
    columns.user_key.put_option(row, run.user_key.as_deref());
    columns.steps_json.put_option(row, run.steps.as_ref().map(|steps| session.parsed_json(steps.get())));
    columns.content_json.put_option(row, run.content.as_ref().map(|content| session.parsed_json(content.get())));
    if let Some(rollout) = &run.rollout {
        columns.cohort.put_option(row, rollout.cohort.as_deref());
        columns.flag_key.put_option(row, rollout.flag_key.as_deref());
        columns.variant.put_option(row, rollout.variant.as_deref());
        columns.assignment_unit.put_option(row, rollout.assignment_unit.map(|unit| unit.0));
        columns.traffic_fraction.put_option(row, rollout.traffic_fraction.map(|fraction| fraction.0));
    }
    if let Some(outcome) = &run.outcome {
        columns.outcome_source.put_option(row, outcome.source.as_deref());
        columns.outcome_reason_code.put_option(row, redacted(session, outcome.reason_code.as_ref()).as_deref());
        columns.finish_reason.put_option(row, redacted(session, outcome.finish_reason.as_ref()).as_deref());
    }
    if let Some(failure) = &run.failure_point {
        columns.failure_component.put_option(row, redacted(session, failure.component.as_ref()).as_deref());
        columns.failure_step.put_option(row, redacted(session, failure.step.as_ref()).as_deref());
        columns.failure_error_type.put_option(row, redacted(session, failure.error_type.as_ref()).as_deref());
    }
    if let Some(validation) = &run.validation {
        append_validation(columns, row, validation, session);
    }
    if let Some(tokens) = &run.tokens {
        columns.tokens_input.put_option(row, tokens.input.map(|n| n.0));
        columns.tokens_input_cache_read.put_option(row, tokens.input_cache_read.map(|n| n.0));
        columns.tokens_input_cache_write.put_option(row, tokens.input_cache_write.map(|n| n.0));
        columns.tokens_output.put_option(row, tokens.output.map(|n| n.0));
        columns.tokens_reasoning.put_option(row, tokens.reasoning.map(|n| n.0));
        if let Some(by_modality) = &tokens.by_modality {
            let counts: Vec<_> = by_modality.0.iter().map(|(name, count)| (&**name, count.0.to_string())).collect();
            columns.tokens_by_modality.put(row, counts.iter().map(|(name, count)| (*name, count.as_str())));
        }
    }
    if let Some(cost) = &run.cost {
        columns.cost_nanos.put_option(row, cost.amount.map(|amount| amount.0));
        columns.cost_currency.put_option(row, cost.currency.as_deref());
        columns.cost_source.put_option(row, cost.source.map(|source| source.0));
        columns.cost_price_table.put_option(row, cost.price_table.as_deref());
        columns.cost_price_table_version.put_option(row, cost.price_table_version.as_deref());
        if let Some(breakdown) = &cost.breakdown {
            let amounts: Vec<_> = breakdown.0.iter().map(|(name, amount)| (&**name, amount_text(amount.0))).collect();
            columns.cost_breakdown.put(row, amounts.iter().map(|(name, amount)| (*name, amount.as_str())));
        }
    }
    if let Some(latency) = &run.latency {
        columns.latency_ttft_micros.put_option(row, latency.ttft.map(|n| n.0));
        columns.latency_queue_micros.put_option(row, latency.queue.map(|n| n.0));
        columns.latency_llm_micros.put_option(row, latency.llm.map(|n| n.0));
        columns.latency_tool_micros.put_option(row, latency.tool.map(|n| n.0));
        columns.latency_retrieval_micros.put_option(row, latency.retrieval.map(|n| n.0));
        columns.latency_human_wait_micros.put_option(row, latency.human_wait.map(|n| n.0));
    }
    if let Some(trace) = &run.trace {
        columns.trace_id.put_option(row, trace.trace_id.as_deref());
        columns.span_id.put_option(row, trace.span_id.as_deref());
    }
    if let Some(sampling) = &run.sampling {
        columns.sampling_probability.put_option(row, sampling.probability.map(|probability| probability.sent));
        columns.sampling_reason.put_option(row, redacted(session, sampling.reason.as_ref()).as_deref());
    }
    if let Some(segments) = &run.segments {
        let pairs: Vec<_> = segments
            .0
            .iter()
            .map(|(name, value)| (session.text(name), value.changed(|sent| session.text_of(name, sent))))
            .collect();
        columns.segments.put(row, pairs.iter().map(|(name, value)| (&**name, &**value)));
    }
}

fn append_validation(columns: &mut EventColumns, row: usize, validation: &Validation<'_>, session: &mut Session<'_>) {
    columns.validation_applicable.put_option(row, validation.is_applicable());
    columns.validation_valid.put_option(row, validation.valid);
    columns.validation_first_attempt_valid.put_option(row, validation.first_attempt_valid);
    columns.validation_attempts.put_option(row, validation.attempts.map(|n| n.0));
    columns.validation_repaired.put_option(row, validation.repaired);
    columns.validation_schema_id.put_option(row, validation.schema_id.as_deref());
    columns.validation_schema_version.put_option(row, validation.schema_version.as_deref());
    columns.fields_total.put_option(row, validation.fields_total.map(|n| n.0));
    let fields = validation.fields.as_ref();
    let invalid = || entries(fields).iter().filter(|field| field.valid == Some(false));
    let stated = validation.fields_invalid.map(|n| n.0);
    columns.fields_invalid.put_option(row, stated.or_else(|| fields.map(|_| count(invalid().count()))));
    for field in invalid().take(FIELDS_KEPT) {
        let at = columns.field_errors.add(row);
        let errors = &mut columns.field_errors.records;
        errors.path.put(at, redacted(session, field.path.as_ref()).as_deref().unwrap_or_default());
        errors.rule.put_option(at, redacted(session, field.rule.as_ref()).as_deref());
        errors.message.put_option(at, redacted(session, field.message.as_ref()).as_deref());
    }
}

/// Redacts a text that may be missing, before its limit cuts it.
fn redacted<'t, const MIN: usize, const MAX: usize>(
    session: &mut Session<'_>,
    text: Option<&'t CutText<'_, MIN, MAX>>,
) -> Option<Cow<'t, str>> {
    text.map(|text| text.changed(|sent| session.text(sent)))
}

fn append_tool_calls(columns: &mut EventColumns, row: usize, run: Option<&Run<'_>>, session: &mut Session<'_>) {
    let list = run.and_then(|run| run.tool_calls.as_ref());
    for call in kept(list) {
        let at = columns.tool_calls.add(row);
        append_tool_call(&mut columns.tool_calls.records, at, call, session);
    }
    let calls = entries(list);
    columns.tool_calls_total.put(row, count(calls.len()));
    columns.tool_calls_failed.put(row, count(calls.iter().filter(|call| call.failed()).count()));
}

fn append_retrieval(columns: &mut EventColumns, row: usize, run: Option<&Run<'_>>, session: &mut Session<'_>) {
    let list = run.and_then(|run| run.retrieval.as_ref());
    for call in kept(list) {
        let at = columns.retrieval.add(row);
        append_retrieval_call(&mut columns.retrieval.records, at, call, session);
    }
    let calls = entries(list);
    let failed = |call: &&Retrieval<'_>| matches!(call.status.as_deref(), Some("error" | "timeout"));
    let empty = |call: &&Retrieval<'_>| {
        !failed(call) && (call.status.as_deref() == Some("empty") || call.returned_k.is_some_and(|k| k.0 == 0))
    };
    columns.retrieval_calls.put(row, count(calls.len()));
    columns.retrieval_empty.put(row, count(calls.iter().filter(empty).count()));
    columns.retrieval_errors.put(row, count(calls.iter().filter(failed).count()));
}

fn append_exceptions(
    columns: &mut EventColumns,
    row: usize,
    run: Option<&Run<'_>>,
    payload: &Payload<'_>,
    session: &mut Session<'_>,
) {
    let mut by_severity = [0_i64; 5];
    let mut tally = |severity: &str| {
        let index = ["info", "low", "medium", "high", "critical"].iter().position(|known| *known == severity);
        if let Some(index) = index {
            by_severity[index] += 1;
        }
    };
    let list = run.and_then(|run| run.policy_exceptions.as_ref());
    for beyond in entries(list).iter().skip(kept(list).len()) {
        tally(beyond.severity.map_or("info", |severity| severity.0));
    }
    let single = match payload {
        Payload::PolicyException(exception) => Some(exception.as_ref()),
        _ => None,
    };
    for exception in kept(list).iter().chain(single) {
        let at = columns.policy_exceptions.add(row);
        tally(append_exception(&mut columns.policy_exceptions.records, at, exception, session));
    }
    let calls = run.and_then(|run| run.tool_calls.as_ref());
    for (index, _) in entries(calls).iter().enumerate().filter(|(_, call)| call.unapproved()) {
        if let Some(call) = kept(calls).get(index) {
            let at = columns.policy_exceptions.add(row);
            append_unapproved(&mut columns.policy_exceptions.records, at, call);
        }
        tally("high");
    }
    let [info, low, medium, high, critical] = by_severity;
    columns.policy_exceptions_info.put(row, info);
    columns.policy_exceptions_low.put(row, low);
    columns.policy_exceptions_medium.put(row, medium);
    columns.policy_exceptions_high.put(row, high);
    columns.policy_exceptions_critical.put(row, critical);
}

fn append_scores(
    columns: &mut EventColumns,
    row: usize,
    run: Option<&Run<'_>>,
    payload: &Payload<'_>,
    session: &mut Session<'_>,
) {
    let sent = kept(run.and_then(|run| run.scores.as_ref()));
    let single = match payload {
        Payload::Score(score) => Some(score.as_ref()),
        _ => None,
    };
    for score in sent.iter().chain(single) {
        let at = columns.scores.add(row);
        append_score(&mut columns.scores.records, at, score, session);
    }
}

fn append_escalation(columns: &mut EventColumns, row: usize, escalation: &Escalation<'_>, session: &mut Session<'_>) {
    columns.escalation_reason_code.put_option(row, redacted(session, escalation.reason_code.as_ref()).as_deref());
    columns.escalation_initiated_by.put_option(row, redacted(session, escalation.initiated_by.as_ref()).as_deref());
    columns.escalation_to.put_option(row, redacted(session, escalation.to.as_ref()).as_deref());
    columns.escalation_phase.put_option(row, redacted(session, escalation.phase.as_ref()).as_deref());
    columns.escalation_ticket_id.put_option(row, escalation.ticket_id.as_deref());
    columns.escalation_resolved.put_option(row, escalation.resolved);
    columns.escalation_resolution.put_option(row, redacted(session, escalation.resolution.as_ref()).as_deref());
    columns.escalation_wait_micros.put_option(row, escalation.wait.map(|n| n.0));
    columns.escalation_handle_micros.put_option(row, escalation.handle.map(|n| n.0));
}

fn append_review(columns: &mut EventColumns, row: usize, review: &Review<'_>, session: &mut Session<'_>) {
    columns.review_id.put_option(row, review.review_id.as_deref());
    columns.review_queue.put_option(row, review.queue.as_deref());
    columns.reviewer.put_option(row, review.reviewer.as_deref());
    columns.review_decision.put_option(row, review.decision.map(|decision| decision.0));
    columns.review_failure_mode.put_option(row, redacted(session, review.failure_mode.as_ref()).as_deref());
    columns.review_severity.put_option(row, review.severity.map(|severity| severity.0));
    columns.review_sets_outcome.put(row, review.sets_outcome.unwrap_or(true));
    columns.review_make_eval_case.put_option(row, review.make_eval_case);
    columns.review_duration_micros.put_option(row, review.duration.map(|n| n.0));
    columns.review_sampling_weight.put_option(row, review.sampling_weight.map(|n| n.0));
    columns.review_rubric_version.put_option(row, review.rubric_version.as_deref());
    columns.review_leased_until.put_option(row, review.leased_until.map(|time| time.0));
    columns.review_retired.put_option(row, review.retired);
    columns.review_json.put_option(row, review_json(review, session));
}

/// Converts to days since the epoch. The decoder bounds times, so the fallback, the epoch, is never used.
fn event_date(micros: i64) -> i32 {
    i32::try_from(micros.div_euclid(DAY_MICROS)).unwrap_or(0)
}

fn count(entries: usize) -> i64 {
    i64::try_from(entries).unwrap_or(i64::MAX)
}

fn append_tool_call(columns: &mut ToolCalls, row: usize, call: &ToolCall<'_>, session: &mut Session<'_>) {
    columns.name.put(row, call.name.as_deref().unwrap_or_default());
    columns.id.put_option(row, call.id.as_deref());
    columns.kind.put_option(row, call.kind.as_deref());
    columns.schema_version.put_option(row, call.schema_version.as_deref());
    columns.status.put(row, call.status.as_deref().unwrap_or_default());
    columns.failed.put(row, call.failed());
    columns.error_type.put_option(row, redacted(session, call.error_type.as_ref()).as_deref());
    columns.args_valid.put_option(row, call.args_valid);
    columns.latency_micros.put_option(row, call.latency.map(|n| n.0));
    columns.attempt.put_option(row, call.attempt.map(|n| i32::try_from(n.0).unwrap_or(i32::MAX)));
    columns.side_effect.put_option(row, call.side_effect);
    columns.risk.put_option(row, call.risk.map(|risk| risk.0));
    let approval = call.approval.as_ref();
    columns.approval_required.put_option(row, approval.and_then(|approval| approval.required));
    columns.approval_decision.put_option(row, approval.and_then(|approval| approval.decision).map(|one| one.0));
    columns.approver_key.put_option(row, approval.and_then(|approval| approval.approver_key.as_deref()));
    columns.approval_wait_micros.put_option(row, approval.and_then(|approval| approval.wait).map(|n| n.0));
}

fn append_retrieval_call(columns: &mut Retrievals, row: usize, call: &Retrieval<'_>, session: &mut Session<'_>) {
    columns.source_id.put(row, call.source_id.as_deref().unwrap_or_default());
    columns.index_version.put_option(row, call.index_version.as_deref());
    columns.query_sha256.put_option(row, call.query_sha256.as_deref());
    columns.requested_k.put_option(row, call.requested_k.map(|n| n.0));
    columns.returned_k.put_option(row, call.returned_k.map(|n| n.0));
    columns.top_score.put_option(row, call.top_score.map(|n| n.0));
    columns.latency_micros.put_option(row, call.latency.map(|n| n.0));
    columns.status.put_option(row, call.status.as_deref());
    columns.error_type.put_option(row, redacted(session, call.error_type.as_ref()).as_deref());
    for document in kept(call.documents.as_ref()) {
        let at = columns.documents.add(row);
        let documents = &mut columns.documents.records;
        documents.id.put(at, document.id.as_deref().unwrap_or_default());
        documents.version.put_option(at, document.version.as_deref());
        documents.score.put_option(at, document.score.map(|n| n.0));
        documents.cited.put_option(at, document.cited);
    }
}

/// Appends an exception, and returns its severity.
fn append_exception(
    columns: &mut PolicyExceptions,
    row: usize,
    exception: &PolicyException<'_>,
    session: &mut Session<'_>,
) -> &'static str {
    let severity = exception.severity.map_or("info", |severity| severity.0);
    columns.policy_id.put(row, exception.policy_id.as_deref().unwrap_or_default());
    columns.policy_version.put_option(row, exception.policy_version.as_deref());
    columns.severity.put(row, severity);
    columns.category.put_option(row, redacted(session, exception.category.as_ref()).as_deref());
    columns.action.put_option(row, redacted(session, exception.action.as_ref()).as_deref());
    columns.source.put_option(row, redacted(session, exception.source.as_ref()).as_deref());
    columns.component.put_option(row, redacted(session, exception.component.as_ref()).as_deref());
    columns.native_result_type.put_option(row, exception.native_result_type.as_deref());
    let result = redacted(session, exception.native_result_value.as_ref());
    columns.native_result_value.put_option(row, result.as_deref());
    columns.risk_score.put_option(row, exception.risk_score.map(|n| n.0));
    columns.step.put_option(row, redacted(session, exception.step.as_ref()).as_deref());
    columns.derived.put(row, false);
    severity
}

/// Appends the exception derived from a high-risk call without a recorded approval.
fn append_unapproved(columns: &mut PolicyExceptions, row: usize, call: &ToolCall<'_>) {
    columns.policy_id.put(row, UNAPPROVED);
    columns.severity.put(row, "high");
    columns.category.put(row, "unauthorised_action");
    columns.action.put(row, "allowed");
    columns.source.put(row, "tool_input");
    columns.component.put_option(row, call.name.as_deref());
    columns.derived.put(row, true);
}

fn append_score(columns: &mut Scores, row: usize, score: &Score<'_>, session: &mut Session<'_>) {
    let evaluator = score.evaluator.as_ref();
    columns.name.put(row, score.name.as_deref().unwrap_or_default());
    columns.value.put_option(row, score.value.map(|n| n.0));
    columns.label.put_option(row, redacted(session, score.label.as_ref()).as_deref());
    columns.passed.put_option(row, score.passed);
    columns.min.put_option(row, score.min.map(|n| n.0));
    columns.max.put_option(row, score.max.map(|n| n.0));
    columns.higher_is_better.put_option(row, score.higher_is_better);
    columns.kind.put(row, score.kind.map_or("code", |kind| kind.0));
    columns.evaluator_id.put(row, evaluator.and_then(|one| one.id.as_deref()).unwrap_or_default());
    columns.evaluator_version.put_option(row, evaluator.and_then(|one| one.version.as_deref()));
    columns.evaluator_model.put_option(row, evaluator.and_then(|one| one.model.as_deref()));
    columns.rubric_version.put_option(row, score.rubric_version.as_deref());
    columns.target.put_option(row, score.target.map(|target| target.0));
    columns.target_id.put_option(row, score.target_id.as_deref());
    columns.identifier.put_option(row, score.identifier.as_deref());
    columns.sets_outcome.put(row, score.sets_outcome.unwrap_or(false));
    columns.weight.put_option(row, score.weight.map(|n| n.0));
    let reference = score.reference.as_ref().map(|reference| session.parsed_json(reference.get()));
    columns.reference_json.put_option(row, reference.as_deref());
    columns.explanation.put_option(row, redacted(session, score.explanation.as_ref()).as_deref());
    let cost = score.cost.as_ref().map(|cost| &cost.0);
    columns.cost_nanos.put_option(row, cost.and_then(|cost| cost.amount).map(|amount| amount.0));
    columns.cost_currency.put_option(row, cost.and_then(|cost| cost.currency.as_deref()));
}

/// Returns the fields of a review without columns of their own, redacted.
fn review_json(review: &Review<'_>, session: &mut Session<'_>) -> Option<String> {
    let labels = review.labels.as_ref();
    let labels: Option<Vec<Cow<'_, str>>> =
        labels.map(|labels| labels.kept().iter().filter_map(|label| redacted(session, Some(label))).collect());
    if labels.is_none() && review.expected.is_none() && review.expected_ref.is_none() {
        return None;
    }
    #[derive(Serialize)]
    struct Fields<'a> {
        expected: Option<&'a RawValue>,
        expected_ref: Option<&'a str>,
        labels: Option<Vec<Cow<'a, str>>>,
    }
    // Kept as sent.
    let expected = review.expected.as_ref().and_then(|expected| serde_json::from_str(expected.get()).ok());
    let expected_ref = redacted(session, review.expected_ref.as_ref());
    let json = serde_json::to_string(&Fields { expected, expected_ref: expected_ref.as_deref(), labels }).ok()?;
    Some(session.json(&json).into_owned())
}
