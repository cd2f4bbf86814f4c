//! The slow pass: finds every problem of a message, of its framing, and of its times.

use serde_json::Value;

use crate::decode::{Envelope, EventType, Limits, time_of};
use crate::reason::{Problem, Reason, Rejection};
use crate::schema;

/// Most problems listed for one message.
const LISTED: usize = 1000;

/// Returns every problem that rejects a message.
#[cold]
pub(crate) fn rejection(text: &str, envelope: &Envelope<'_>, limits: &Limits, now_micros: i64) -> Rejection {
    let mut problems = problems(text, envelope, limits, now_micros);
    problems.retain(|problem| problem.rejects);
    if problems.is_empty() {
        let explanation = "the message cannot be decoded although it matches the schema: please report this bug";
        problems.push(Problem::new(Reason::NotJson, "", explanation));
    }
    Rejection { problems }
}

/// Returns every problem of a message, including those that do not reject it.
pub(crate) fn problems(text: &str, envelope: &Envelope<'_>, limits: &Limits, now_micros: i64) -> Vec<Problem> {
    let (value, mut found) = schema::parsed(text, limits.max_depth);
    if let Some(mut value) = value {
        let stated = value.get("time").is_some_and(|time| !time.is_null());
        fill_in(&mut value, envelope);
        schema::check_event(&value, &mut found);
        // A time taken from the framing is reported as the attribute, not as the body's field.
        found.retain(|problem| stated || envelope.time.is_none() || problem.pointer != "/time");
        attributes(envelope, &mut found);
        disagreements(&value, envelope, &mut found);
        times(&value, envelope, limits, now_micros, &mut found);
        if text.len() > limits.max_bytes {
            let explanation = format!(
                "message of {} bytes exceeds {}: the texts of `content`, `steps` and unknown fields are left out",
                text.len(),
                limits.max_bytes
            );
            found.push(Problem { rejects: false, ..Problem::new(Reason::TooLarge, "", explanation) });
        }
    }
    found.truncate(LISTED);
    found
}

/// Copies the type and the time of the framing into a body that lacks them.
fn fill_in(event: &mut Value, envelope: &Envelope<'_>) {
    let Some(fields) = event.as_object_mut() else { return };
    let event_type = envelope.event_type.and_then(EventType::from_cloud_event).map(EventType::name);
    for (name, stated) in [("type", event_type), ("time", envelope.time)] {
        if let Some(stated) = stated
            && fields.get(name).is_none_or(Value::is_null)
        {
            fields.insert(name.to_owned(), Value::from(stated));
        }
    }
}

/// Checks each CloudEvents attribute against the schema of the body field with the same meaning.
fn attributes(envelope: &Envelope<'_>, found: &mut Vec<Problem>) {
    let stated = [
        ("/ce_id", "id", envelope.id),
        ("/ce_source", "source", envelope.source),
        ("/ce_time", "time", envelope.time),
        ("/ce_subject", "run_id", envelope.subject),
    ];
    for (pointer, field, stated) in stated {
        if let Some(stated) = stated {
            schema::check_field(field, &Value::from(stated), pointer, found);
        }
    }
    if let Some(name) = envelope.event_type.filter(|name| EventType::from_cloud_event(name).is_none()) {
        let explanation = "unknown event type: use `run.completed`, `run.score`, `run.review`, `run.escalated` or \
                    `run.policy_exception`, optionally with a prefix and a version, as in \
                    `io.example.run.completed.v1`";
        found.push(Problem::new(Reason::UnknownValue, "/ce_type", explanation).with_value(name.to_owned()));
    }
}

/// Reports attributes that contradict the body.
fn disagreements(event: &Value, envelope: &Envelope<'_>, found: &mut Vec<Problem>) {
    let event_type = envelope.event_type.and_then(EventType::from_cloud_event).map(EventType::name);
    let stated = [
        ("id", envelope.id, "/id"),
        ("source", envelope.source, "/source"),
        ("subject", envelope.subject, "/run_id"),
        ("type", event_type, "/type"),
    ];
    for (attribute, stated, pointer) in stated {
        let body = event.pointer(pointer).and_then(Value::as_str);
        if let (Some(stated), Some(body)) = (stated, body)
            && stated != body
        {
            let explanation = format!("header `ce_{attribute}` contradicts the body: send the same value in both");
            let problem = Problem::new(Reason::HeaderMismatch, pointer, explanation);
            found.push(problem.with_value(format!("{stated}` and `{body}")));
        }
    }
}

/// Reports times that are too old or too far in the future, at the field or attribute that states them.
fn times(event: &Value, envelope: &Envelope<'_>, limits: &Limits, now_micros: i64, found: &mut Vec<Problem>) {
    let text_at = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    let completed = text_at("/type").is_none_or(|name| name == EventType::Completed.name());
    let time = if envelope.time.is_some() && envelope.time == text_at("/time") { "/ce_time" } else { "/time" };
    let stated = [(time, text_at("/time")), ("/data/ended_at", text_at("/data/ended_at").filter(|_| completed))];
    for (pointer, text) in stated {
        let Some(micros) = text.and_then(time_of) else { continue };
        let accepted = limits.accepted_times(now_micros);
        if micros > *accepted.end() {
            let explanation = format!(
                "{} s in the future, more than the {} s allowed: check the producer's clock and time zone",
                micros.saturating_sub(now_micros) / 1_000_000,
                limits.max_future_micros / 1_000_000
            );
            found.push(Problem::new(Reason::TimeInFuture, pointer, explanation));
        }
        if micros < *accepted.start() {
            let explanation = format!(
                "{} days old, more than the {} allowed: raise `max_event_age` to ingest older events",
                now_micros.saturating_sub(micros) / 86_400_000_000,
                limits.max_age_micros / 86_400_000_000
            );
            found.push(Problem::new(Reason::TimeTooOld, pointer, explanation));
        }
    }
}
