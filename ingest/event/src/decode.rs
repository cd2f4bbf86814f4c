//! Decoding one message: a fast reading that accepts, and a slow one that explains.
//!
//! The fast reading borrows from the message, checks every limit while it reads and stops at the first thing that is
//! wrong. Only then the schema is held against the message to list every problem with its pointer.

use std::borrow::Cow;

use crate::ids;
use crate::json::{Fast, Reader, Wrong, right};
use crate::reason::{Problem, Reason, Rejection};
use crate::record::{Raw, Read, Unknown, entries};
use crate::release::ReleaseCache;
use crate::run::{self, Completed, Cost, Escalation, PolicyException, Review, Run, Score, WholeRun};
use crate::schema;

/// Bytes of unknown fields that are kept.
const EXTRA_BYTES: usize = 8 * 1024;

/// Limits that are not in the schema, because they are about bytes or the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message.
    pub max_bytes: usize,
    /// Nesting of objects and lists.
    pub max_depth: usize,
    /// How far ahead of our clock a producer's may be, microseconds.
    pub max_future_micros: i64,
    /// How old a statement may be, microseconds.
    pub max_age_micros: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 900_000,
            max_depth: 32,
            max_future_micros: 5 * 60 * 1_000_000,
            max_age_micros: 30 * 24 * 3600 * 1_000_000,
        }
    }
}

/// What the framing around a message says about it (CloudEvents attributes); all of it may be absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// `id`.
    pub id: Option<&'a str>,
    /// `source`.
    pub source: Option<&'a str>,
    /// `type`: contains the name of an event type.
    pub event_type: Option<&'a str>,
    /// `time`, RFC 3339.
    pub time: Option<&'a str>,
    /// `subject`: the run id.
    pub subject: Option<&'a str>,
}

/// Type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A run was completed.
    Completed,
    /// A run was scored.
    Score,
    /// A person reviewed a run.
    Review,
    /// A run was handed to a person.
    Escalated,
    /// A policy exception was raised outside the completion event.
    PolicyException,
}

impl EventType {
    const ALL: [Self; 5] = [Self::Completed, Self::Score, Self::Review, Self::Escalated, Self::PolicyException];

    /// The name in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "run.completed",
            Self::Score => "run.score",
            Self::Review => "run.review",
            Self::Escalated => "run.escalated",
            Self::PolicyException => "run.policy_exception",
        }
    }

    /// The type with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// The type named inside a CloudEvents type such as `io.example.run.completed.v1`.
    fn within(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| name.contains(event_type.name()))
    }
}

/// An accepted event.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Version of the contract that the producer named.
    pub spec: Cow<'a, str>,
    /// Type.
    pub event_type: EventType,
    /// Idempotency key within the source.
    pub id: Cow<'a, str>,
    /// Producer.
    pub source: Cow<'a, str>,
    /// Time of the statement, microseconds since the epoch.
    pub time_micros: i64,
    /// The run.
    pub run_id: Cow<'a, str>,
    /// Tenant.
    pub tenant: Option<Cow<'a, str>>,
    /// Of several statements of one fact the highest revision counts.
    pub revision: i64,
    /// Event that this one replaces, as stated.
    pub supersedes: Option<Cow<'a, str>>,
    /// What is stated.
    pub payload: Payload<'a>,
    /// Fields that the contract does not know, as a JSON object.
    pub extra: Option<String>,
}

/// What an event states.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// A run was completed.
    Completed(Box<Completed<'a>>),
    /// A run was scored.
    Score(Box<Score<'a>>),
    /// A person reviewed a run.
    Review(Box<Review<'a>>),
    /// A run was handed to a person.
    Escalated(Box<Escalation<'a>>),
    /// A policy exception was raised.
    PolicyException(Box<PolicyException<'a>>),
}

/// Decodes messages; remembers releases.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    releases: ReleaseCache,
}

// === impl Decoder ===

impl Decoder {
    /// A decoder with limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, releases: ReleaseCache::default() }
    }

    /// Decodes one message.
    ///
    /// # Errors
    /// Every problem of the message.
    pub fn decode<'a>(
        &mut self,
        message: &'a [u8],
        envelope: &Envelope<'a>,
        now_micros: i64,
    ) -> Result<Event<'a>, Rejection> {
        let text = self.readable(message).map_err(Rejection::of)?;
        let Ok(event) = self.read(text, envelope) else { return Err(self.explain(text, envelope)) };
        disagreement(&event, envelope).map_or(Ok(()), |problem| Err(Rejection::of(problem)))?;
        self.check_times(&event, now_micros).map_err(Rejection::of)?;
        Ok(event)
    }

    /// The message as text, if it is one of a bearable size and nesting.
    fn readable<'a>(&self, message: &'a [u8]) -> Result<&'a str, Problem> {
        let max_bytes = self.limits.max_bytes;
        if message.is_empty() {
            return Err(Problem::new(Reason::Tombstone, "", "the message is empty: send an event, or nothing"));
        }
        if message.len() > max_bytes {
            let what = format!(
                "{} bytes are more than {max_bytes}: leave out `content`, then `steps`, and name them in `truncated`",
                message.len()
            );
            return Err(Problem::new(Reason::TooLarge, "", what));
        }
        let text = simdutf8::basic::from_utf8(message).map_err(|_| {
            let at = std::str::from_utf8(message).map_or_else(|error| error.valid_up_to(), str::len);
            let what = format!("byte {at} is not UTF-8: encode the message as UTF-8");
            Problem::new(Reason::InvalidUtf8, "", what)
        })?;
        Ok(text)
    }

    /// The fast reading: in one go where the message is a completed run, as nearly all are.
    fn read<'a>(&mut self, text: &'a str, envelope: &Envelope<'a>) -> Fast<Event<'a>> {
        let completed = |name: &str| EventType::from_name(name) == Some(EventType::Completed);
        if envelope.event_type.is_none_or(|name| EventType::within(name) == Some(EventType::Completed))
            && let Ok(whole) = self.whole::<WholeRun<'a>>(text)
            && whole.event_type.as_deref().is_none_or(completed)
        {
            let (body, run) = whole.split();
            let mut run = run.ok_or(Wrong)?;
            let unknown = std::mem::take(&mut run.unknown);
            let payload = Payload::Completed(Box::new(self.completed(run)?));
            return event(body, EventType::Completed, payload, "", envelope, &unknown);
        }
        let mut body: run::Envelope<'a> = self.whole(text)?;
        let data = body.data.take().ok_or(Wrong)?;
        let event_type = match (&body.event_type, envelope.event_type) {
            (Some(name), _) => EventType::from_name(name).ok_or(Wrong)?,
            (None, Some(name)) => EventType::within(name).ok_or(Wrong)?,
            (None, None) => EventType::Completed,
        };
        let mut unknown = Vec::new();
        let payload = self.read_payload(event_type, data, &mut unknown)?;
        event(body, event_type, payload, data.get(), envelope, &unknown)
    }

    /// One value, which is all of the text.
    fn whole<'a, T: Read<'a>>(&self, text: &'a str) -> Fast<T> {
        let mut json = Reader::new(text, self.limits.max_depth, &self.releases);
        let value = T::read(&mut json)?;
        json.end()?;
        Ok(value)
    }

    fn read_payload<'a>(
        &mut self,
        event_type: EventType,
        data: Raw<'a>,
        unknown: &mut Unknown<'a>,
    ) -> Fast<Payload<'a>> {
        let data = data.get();
        Ok(match event_type {
            EventType::Completed => {
                let mut run: Box<Run<'a>> = self.whole(data)?;
                unknown.append(&mut run.unknown);
                Payload::Completed(Box::new(self.completed(run)?))
            }
            EventType::Score => {
                let mut score: Score<'a> = self.whole(data)?;
                check_score(&score)?;
                unknown.append(&mut score.unknown);
                Payload::Score(Box::new(score))
            }
            EventType::Review => {
                let mut review: Review<'a> = self.whole(data)?;
                check_review(&review)?;
                unknown.append(&mut review.unknown);
                Payload::Review(Box::new(review))
            }
            EventType::Escalated => {
                let escalation: Escalation<'a> = self.whole(data)?;
                right(escalation.reason_code.is_some())?;
                Payload::Escalated(Box::new(escalation))
            }
            EventType::PolicyException => {
                let exception: PolicyException<'a> = self.whole(data)?;
                check_exception(&exception)?;
                Payload::PolicyException(Box::new(exception))
            }
        })
    }

    fn completed<'a>(&mut self, run: Box<Run<'a>>) -> Fast<Completed<'a>> {
        check_run(&run)?;
        let release = self.releases.get(run.release.ok_or(Wrong)?.0).map_err(|_| Wrong)?;
        let status = run.outcome.as_ref().and_then(|outcome| outcome.status).ok_or(Wrong)?.0;
        let stage = run.rollout.as_ref().map_or(Some("full"), |rollout| rollout.stage.map(|stage| stage.0));
        let probability =
            run.sampling.as_ref().and_then(|sampling| sampling.probability).map(|probability| probability.0);
        Ok(Completed {
            release,
            started_micros: run.started_at.ok_or(Wrong)?.0,
            ended_micros: run.ended_at.ok_or(Wrong)?.0,
            status,
            stage: stage.ok_or(Wrong)?,
            attempt: run.attempt.map_or(1, |attempt| attempt.0),
            weight_micros: run::weight_micros(probability),
            run,
        })
    }

    /// The slow reading: every problem.
    fn explain(&self, text: &str, envelope: &Envelope<'_>) -> Rejection {
        let mut problems = schema::check(text, self.limits.max_depth);
        // What the framing states need not stand in the body as well.
        let given = |problem: &Problem| {
            problem.reason == Reason::MissingField && problem.pointer == "/time" && envelope.time.is_some()
        };
        problems.retain(|problem| !given(problem));
        if problems.is_empty() {
            if let Some(name) = envelope.event_type.filter(|name| EventType::within(name).is_none()) {
                let what = "`ce_type` must contain an event type such as `run.completed`";
                problems.push(Problem::new(Reason::UnknownValue, "", what).with_value(name.to_owned()));
            } else if envelope.time.is_some_and(|time| crate::units::rfc3339_micros(time).is_none()) {
                let what = "`ce_time` is not an RFC 3339 time with a zone";
                problems.push(Problem::new(Reason::TimeFormat, "", what));
            } else {
                let what = "the message cannot be read, though nothing in it is against the schema; please report it";
                problems.push(Problem::new(Reason::NotJson, "", what));
            }
        }
        Rejection { problems }
    }

    fn check_times(&self, event: &Event<'_>, now_micros: i64) -> Result<(), Problem> {
        let ended = match &event.payload {
            Payload::Completed(completed) => Some(("/data/ended_at", completed.ended_micros)),
            _ => None,
        };
        for (pointer, micros) in std::iter::once(("/time", event.time_micros)).chain(ended) {
            if micros > now_micros.saturating_add(self.limits.max_future_micros) {
                let what = format!(
                    "is {} s ahead of our clock; at most {} s are accepted: check the producer's clock and zone",
                    micros.saturating_sub(now_micros) / 1_000_000,
                    self.limits.max_future_micros / 1_000_000
                );
                return Err(Problem::new(Reason::TimeInFuture, pointer, what));
            }
            if micros < now_micros.saturating_sub(self.limits.max_age_micros) {
                let what = format!(
                    "is {} days old; at most {} are accepted: raise `max_event_age` to take in history",
                    now_micros.saturating_sub(micros) / 86_400_000_000,
                    self.limits.max_age_micros / 86_400_000_000
                );
                return Err(Problem::new(Reason::TimeTooOld, pointer, what));
            }
        }
        Ok(())
    }
}

/// An event of its parts: what the body says of it, else the framing, else what follows from its content.
fn event<'a>(
    mut body: run::Envelope<'a>,
    event_type: EventType,
    payload: Payload<'a>,
    data: &str,
    envelope: &Envelope<'a>,
    unknown: &Unknown<'a>,
) -> Fast<Event<'a>> {
    let spec = body.spec.take().ok_or(Wrong)?.0;
    right(schema::spec_is_known(&spec))?;
    let run_id = body.run_id.take().ok_or(Wrong)?.0;
    let stated_time = match (body.time, envelope.time) {
        (Some(time), _) => Some(time.0),
        (None, Some(time)) => Some(crate::units::rfc3339_micros(time).ok_or(Wrong)?),
        (None, None) => None,
    };
    let (time_micros, attempt, data_revision) = match &payload {
        Payload::Completed(completed) => (
            stated_time.unwrap_or(completed.ended_micros),
            completed.attempt,
            completed.run.revision.map(|revision| revision.0),
        ),
        _ => (stated_time.ok_or(Wrong)?, 1, None),
    };
    let revision = body.revision.map(|revision| revision.0).or(data_revision).unwrap_or(0);
    let id = match (body.id.take(), envelope.id) {
        (Some(id), _) => id.0,
        (None, Some(id)) => Cow::Borrowed(id),
        (None, None) if event_type == EventType::Completed => Cow::Owned(ids::completed(&run_id, attempt, revision)),
        (None, None) => Cow::Owned(ids::late(event_type, &run_id, data)),
    };
    let source = body.source.take().map(|source| source.0);
    let source = source.or(envelope.source.map(Cow::Borrowed)).unwrap_or(Cow::Borrowed("unknown"));
    Ok(Event {
        spec,
        event_type,
        id,
        source,
        time_micros,
        run_id,
        tenant: body.tenant.map(|tenant| tenant.0),
        revision,
        supersedes: body.supersedes.map(|id| id.0),
        payload,
        extra: extra(&body.unknown, unknown),
    })
}

// === what the records' types cannot say ===

fn check_run(run: &Run<'_>) -> Fast<()> {
    right(run.task.is_some())?;
    if let Some(rollout) = &run.rollout {
        let fraction = rollout.traffic_fraction.map_or(0.0, |fraction| fraction.0);
        right((0.0..=1.0).contains(&fraction))?;
    }
    right(run.failure_point.as_ref().is_none_or(|point| point.component.is_some()))?;
    if let Some(validation) = &run.validation {
        right(validation.applicable.is_some())?;
        let fields = entries(validation.fields.as_ref());
        right(fields.iter().all(|field| field.path.is_some() && field.valid.is_some()))?;
    }
    right(run.cost.as_ref().is_none_or(cost_is_whole))?;
    right(run.latency.as_ref().is_none_or(|latency| latency.total.is_some()))?;
    right(entries(run.tool_calls.as_ref()).iter().all(|call| call.name.is_some() && call.status.is_some()))?;
    for retrieval in entries(run.retrieval.as_ref()) {
        right(
            retrieval.source_id.is_some()
                && entries(retrieval.documents.as_ref()).iter().all(|document| document.id.is_some()),
        )?;
    }
    right(entries(run.steps.as_ref().map(|steps| &steps.value)).iter().all(|step| step.name.is_some()))?;
    right(run.escalation.as_ref().is_none_or(|escalation| escalation.reason_code.is_some()))?;
    entries(run.policy_exceptions.as_ref()).iter().try_for_each(check_exception)?;
    entries(run.scores.as_ref()).iter().try_for_each(check_score)?;
    right(run.trace.as_ref().is_none_or(|trace| trace.trace_id.is_some()))?;
    if let Some(content) = run.content.as_ref().map(|content| &content.value) {
        right([content.input, content.output].into_iter().flatten().all(is_content))?;
    }
    let probability = run.sampling.as_ref().and_then(|sampling| sampling.probability).map_or(1.0, |number| number.0);
    right(probability > 0.0 && probability <= 1.0)
}

fn cost_is_whole(cost: &Cost<'_>) -> bool {
    cost.amount.is_some() && cost.currency.is_some()
}

/// Text, object, list or null; neither a number nor true or false.
fn is_content(value: Raw<'_>) -> bool {
    matches!(value.get().as_bytes().first(), Some(b'"' | b'{' | b'[' | b'n'))
}

fn check_exception(exception: &PolicyException<'_>) -> Fast<()> {
    right(exception.policy_id.is_some() && exception.severity.is_some())
}

fn check_score(score: &Score<'_>) -> Fast<()> {
    right(score.name.is_some() && score.kind.is_some())?;
    right(score.evaluator.as_ref().is_some_and(|evaluator| evaluator.id.is_some()))?;
    right(score.value.is_some() || score.label.is_some() || score.passed.is_some())?;
    right(score.weight.is_none_or(|weight| weight.0 > 0.0))?;
    right(score.cost.as_ref().is_none_or(cost_is_whole))
}

fn check_review(review: &Review<'_>) -> Fast<()> {
    right(review.review_id.is_some() && review.decision.is_some())?;
    right(review.sampling_weight.is_none_or(|weight| weight.0 >= 1.0))?;
    right(review.expected.is_none_or(is_content))
}

/// What body and framing say differently, if anything.
fn disagreement(event: &Event<'_>, envelope: &Envelope<'_>) -> Option<Problem> {
    let differs = |attribute: &str, stated: &str, pointer: &str, body: &str| {
        let what = format!("the header `ce_{attribute}` and the body differ: they must agree");
        Problem::new(Reason::HeaderMismatch, pointer, what).with_value(format!("{stated}` and `{body}"))
    };
    let texts = [
        ("id", envelope.id, "/id", event.id.as_ref()),
        ("source", envelope.source, "/source", event.source.as_ref()),
        ("subject", envelope.subject, "/run_id", event.run_id.as_ref()),
    ];
    for (attribute, stated, pointer, body) in texts {
        if let Some(stated) = stated.filter(|stated| *stated != body) {
            return Some(differs(attribute, stated, pointer, body));
        }
    }
    let stated = envelope.event_type?;
    let agrees = EventType::within(stated).is_none_or(|event_type| event_type == event.event_type);
    (!agrees).then(|| differs("type", stated, "/type", event.event_type.name()))
}

/// Unknown fields of the envelope, and under `data` those of the data, as one JSON object within the bound.
fn extra(envelope: &Unknown<'_>, data: &Unknown<'_>) -> Option<String> {
    if envelope.is_empty() && data.is_empty() {
        return None;
    }
    let mut dropped = 0;
    let mut room = EXTRA_BYTES;
    let mut fields = |unknown: &Unknown<'_>| {
        let mut text = String::new();
        for (name, value) in unknown {
            let name = serde_json::Value::from(name.as_ref()).to_string();
            let bytes = name.len() + value.get().len() + 2;
            if bytes > room {
                dropped += 1;
                continue;
            }
            room -= bytes;
            text.push_str(&format!("{}{name}:{}", if text.is_empty() { "" } else { "," }, value.get()));
        }
        text
    };
    let mut parts = vec![fields(envelope), fields(data)];
    if !parts[1].is_empty() {
        parts[1] = format!("\"data\":{{{}}}", parts[1]);
    }
    if dropped > 0 {
        parts.push(format!("\"_dropped\":{dropped}"));
    }
    parts.retain(|part| !part.is_empty());
    Some(format!("{{{}}}", parts.join(",")))
}
