//! Decodes one message in a fast pass; a slow pass explains rejected messages (`explain.rs`).
//!
//! The fast pass borrows from the message, checks every limit as it reads, and stops at the first problem that rejects the
//! event: malformed JSON, or a malformed field of identity, time or outcome. Any other malformed value is left out or cut, and
//! noted (`marks.rs`). The slow pass runs only for rejected messages: it checks the message against the schema to list every
//! problem with its pointer.

use std::borrow::Cow;

use crate::content;
use crate::explain;
use crate::ids;
use crate::json::{JsonReader, Malformed, Note, Parsed, ensure};
use crate::marks::{self, Marked, Marks, PathStep};
use crate::pattern;
use crate::reason::{Problem, Reason, Rejection};
use crate::record::{FromJson, entries};
use crate::release::ReleaseCache;
use crate::run::{self, Completed, Escalation, PolicyException, Review, Run, Score, WholeRun};
use crate::value::{RawObject, Time, length_fits};

/// A message of more than this many times `max_bytes` is not read at all.
const READABLE: usize = 4;

/// Limits that the schema cannot express, because they concern bytes or the current time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message kept whole, in bytes. A larger one loses content, steps and unknown fields; one of more than four times
    /// this size is rejected.
    pub max_bytes: usize,
    /// Deepest nesting of objects and arrays.
    pub max_depth: usize,
    /// How far in the future an event may be, microseconds.
    pub max_future_micros: i64,
    /// How old an event may be, microseconds.
    pub max_age_micros: i64,
    /// Largest content of a run that is kept, in bytes of JSON; `None` keeps no content. References and hashes always stay.
    pub content_bytes: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 900_000,
            max_depth: 32,
            max_future_micros: 5 * 60 * 1_000_000,
            max_age_micros: 30 * 24 * 3600 * 1_000_000,
            content_bytes: None,
        }
    }
}

/// The CloudEvents attributes of a message. Each is optional, and must satisfy the contract of the body field with the same
/// meaning.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// `id`.
    pub id: Option<&'a str>,
    /// `source`.
    pub source: Option<&'a str>,
    /// `type`: the name of an event type, optionally with a reverse-DNS prefix and a version such as `.v1`.
    pub event_type: Option<&'a str>,
    /// `time`, RFC 3339.
    pub time: Option<&'a str>,
    /// `subject`: the run id.
    pub subject: Option<&'a str>,
}

/// The type of an event.
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

    /// Returns the name in the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "run.completed",
            Self::Score => "run.score",
            Self::Review => "run.review",
            Self::Escalated => "run.escalated",
            Self::PolicyException => "run.policy_exception",
        }
    }

    /// Returns the type with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.name() == name)
    }

    /// Returns the type that a CloudEvents type such as `io.example.run.completed.v1` names: an optional prefix that ends with
    /// a dot, the name, and an optional version.
    pub fn from_cloud_event(name: &str) -> Option<Self> {
        let is_version = |part: &str| {
            part.strip_prefix('v')
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let name = match name.rsplit_once('.') {
            Some((before, last)) if is_version(last) => before,
            _ => name,
        };
        Self::ALL.into_iter().find(|event_type| {
            name.strip_suffix(event_type.name()).is_some_and(|before| {
                before.is_empty() || before.strip_suffix('.').is_some_and(|prefix| !prefix.is_empty())
            })
        })
    }
}

/// An accepted event.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Version of the contract that the producer follows.
    pub spec: Cow<'a, str>,
    pub event_type: EventType,
    /// Idempotency key within the source.
    pub id: Cow<'a, str>,
    /// Producer.
    pub source: Cow<'a, str>,
    /// When the producer made the statement, microseconds since the epoch.
    pub time_micros: i64,
    pub run_id: Cow<'a, str>,
    pub tenant: Option<Cow<'a, str>>,
    /// The highest revision counts if a fact is stated several times.
    pub revision: i64,
    /// The event that this one replaces, as stated.
    pub supersedes: Option<Cow<'a, str>>,
    pub payload: Payload<'a>,
    /// Fields that the contract does not define, or has no column for, as a JSON object with the nesting of the message. An
    /// array becomes an object keyed by index. Values that do not fit are dropped.
    pub extra: Option<String>,
    /// Pointers to values that are not kept as sent, each with what happened to it: `cut` at its limit, `left out` because it
    /// was malformed, `bounded`, `dropped` because `extra` was full, or `stated` by the producer.
    pub truncated: Vec<(Cow<'a, str>, &'static str)>,
}

/// The statement that an event makes.
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

/// Decodes messages, and caches releases.
#[derive(Debug, Default)]
pub struct Decoder {
    limits: Limits,
    releases: ReleaseCache,
}

/// A message after parsing, before the defaults and the framing's attributes are applied.
struct EventParts<'a> {
    text: &'a str,
    body: run::Envelope<'a>,
    event_type: EventType,
    payload: Payload<'a>,
    /// Text of the data, from which the id of a late statement is derived. Empty for completed runs.
    data: &'a str,
    notes: Vec<Note>,
}

// === impl Decoder ===

impl Decoder {
    /// Creates a decoder with limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, releases: ReleaseCache::default() }
    }

    /// Decodes one message.
    ///
    /// # Errors
    /// Every problem that rejects the message.
    pub fn decode<'a>(
        &mut self,
        message: &'a [u8],
        envelope: &Envelope<'a>,
        now_micros: i64,
    ) -> Result<Event<'a>, Rejection> {
        let text = self.readable(message).map_err(Rejection::from)?;
        match self.read(text, envelope) {
            Ok(event) if self.times_fit(&event, now_micros) && agrees(&event, envelope) => Ok(event),
            _ => Err(explain::rejection(text, envelope, &self.limits, now_micros)),
        }
    }

    /// Returns every problem of a message, including those that do not reject it.
    pub fn problems(&self, message: &[u8], envelope: &Envelope<'_>, now_micros: i64) -> Vec<Problem> {
        match self.readable(message) {
            Ok(text) => explain::problems(text, envelope, &self.limits, now_micros),
            Err(problem) => vec![problem],
        }
    }

    /// Returns the message as text without its byte order mark.
    fn readable<'a>(&self, message: &'a [u8]) -> Result<&'a str, Problem> {
        let most = self.limits.readable_bytes();
        if message.is_empty() {
            return Err(Problem::new(Reason::Tombstone, "", "the message is empty: send an event or nothing"));
        }
        if message.len() > most {
            let explanation = format!(
                "message of {} bytes exceeds {most}: drop `content`, then `steps`, and list them in `truncated`",
                message.len()
            );
            return Err(Problem::new(Reason::TooLarge, "", explanation));
        }
        let text = simdutf8::basic::from_utf8(message).map_err(|_| {
            let at = std::str::from_utf8(message).map_or_else(|error| error.valid_up_to(), str::len);
            let explanation = format!("invalid UTF-8 at byte {at}: encode the message as UTF-8");
            Problem::new(Reason::InvalidUtf8, "", explanation)
        })?;
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    /// Reads a completed run, as nearly all messages are, in one pass.
    fn read<'a>(&mut self, text: &'a str, envelope: &Envelope<'a>) -> Parsed<Event<'a>> {
        let completed = |name: &str| EventType::from_name(name) == Some(EventType::Completed);
        if envelope.event_type.is_none_or(|name| EventType::from_cloud_event(name) == Some(EventType::Completed))
            && let Ok((whole, notes)) = self.whole::<WholeRun<'a>>(text)
            && whole.event_type.as_deref().is_none_or(completed)
        {
            let (body, run) = whole.split();
            let payload = Payload::Completed(Box::new(self.completed(run.ok_or(Malformed)?)?));
            let event_type = EventType::Completed;
            return self.event(EventParts { text, body, event_type, payload, data: "", notes }, envelope);
        }
        let (mut body, mut notes) = self.whole::<run::Envelope<'a>>(text)?;
        let data = body.data.take().ok_or(Malformed)?.0;
        let event_type = match (&body.event_type, envelope.event_type) {
            (Some(name), _) => EventType::from_name(name).ok_or(Malformed)?,
            (None, Some(name)) => EventType::from_cloud_event(name).ok_or(Malformed)?,
            (None, None) => EventType::Completed,
        };
        let (payload, inside) = self.read_payload(event_type, data)?;
        // The notes count from the beginning of the data, not of the text.
        let before = data.as_ptr().addr() - text.as_ptr().addr();
        notes.extend(inside.into_iter().map(|Note { from, end, mark }| Note {
            from: from + before,
            end: end + before,
            mark,
        }));
        self.event(EventParts { text, body, event_type, payload, data, notes }, envelope)
    }

    /// Reads the whole text as one value, and returns it with its notes.
    fn whole<'a, T: FromJson<'a>>(&self, text: &'a str) -> Parsed<(T, Vec<Note>)> {
        let mut json = JsonReader::new(text, self.limits.max_depth, &self.releases);
        let value = T::read(&mut json)?;
        json.expect_end()?;
        Ok((value, json.notes))
    }

    fn read_payload<'a>(&mut self, event_type: EventType, data: &'a str) -> Parsed<(Payload<'a>, Vec<Note>)> {
        Ok(match event_type {
            EventType::Completed => {
                let (run, notes) = self.whole::<Box<Run<'a>>>(data)?;
                (Payload::Completed(Box::new(self.completed(run)?)), notes)
            }
            EventType::Score => {
                let (score, notes) = self.whole::<Box<Score<'a>>>(data)?;
                (Payload::Score(score), notes)
            }
            EventType::Review => {
                let (review, notes) = self.whole::<Box<Review<'a>>>(data)?;
                (Payload::Review(review), notes)
            }
            EventType::Escalated => {
                let (escalation, notes) = self.whole::<Box<Escalation<'a>>>(data)?;
                (Payload::Escalated(escalation), notes)
            }
            EventType::PolicyException => {
                let (exception, notes) = self.whole::<Box<PolicyException<'a>>>(data)?;
                (Payload::PolicyException(exception), notes)
            }
        })
    }

    fn completed<'a>(&mut self, run: Box<Run<'a>>) -> Parsed<Completed<'a>> {
        let release = self.releases.get(run.release.ok_or(Malformed)?.0)?;
        let status = run.outcome.as_ref().and_then(|outcome| outcome.status).ok_or(Malformed)?.0;
        let stage = run.rollout.as_ref().map_or(Some("full"), |rollout| rollout.stage.map(|stage| stage.0));
        Ok(Completed {
            release,
            started_micros: run.started_at.ok_or(Malformed)?.0,
            ended_micros: run.ended_at.ok_or(Malformed)?.0,
            status,
            stage: stage.ok_or(Malformed)?,
            attempt: run.attempt.map_or(1, |attempt| attempt.0),
            run,
        })
    }

    /// Builds an event. A field of the body takes precedence over the framing's attribute, and that over the derived default.
    #[inline]
    fn event<'a>(&self, parts: EventParts<'a>, envelope: &Envelope<'a>) -> Parsed<Event<'a>> {
        let EventParts { text, mut body, event_type, mut payload, data, notes } = parts;
        let spec = body.spec.take().ok_or(Malformed)?.0;
        ensure(pattern::spec_is_known(&spec))?;
        let run_id = body.run_id.take().ok_or(Malformed)?.0;
        let stated_time = match (body.time, envelope.time) {
            (Some(time), _) => Some(time.0),
            (None, Some(time)) => Some(time_of(time).ok_or(Malformed)?),
            (None, None) => None,
        };
        let (time_micros, attempt, data_revision) = match &payload {
            Payload::Completed(completed) => (
                stated_time.unwrap_or(completed.ended_micros),
                completed.attempt,
                completed.run.revision.map(|revision| revision.0),
            ),
            _ => (stated_time.ok_or(Malformed)?, 1, None),
        };
        let tenant = body.tenant.map(|tenant| tenant.0);
        let stated_revision = body.revision.map(|revision| revision.0);
        let revision = stated_revision.or(data_revision).unwrap_or(0);
        let id = match (body.id.take(), envelope.id) {
            (Some(id), _) => id.0,
            (None, Some(id)) => Cow::Borrowed(id),
            (None, None) if event_type == EventType::Completed => {
                Cow::Owned(ids::completed(&run_id, attempt, revision))
            }
            (None, None) => {
                Cow::Owned(ids::late(event_type, tenant.as_deref().unwrap_or_default(), &run_id, time_micros, data))
            }
        };
        let source = body.source.take().map(|source| source.0);
        let source = source.or(envelope.source.map(Cow::Borrowed)).unwrap_or(Cow::Borrowed("unknown"));
        let other_revision = data_revision.filter(|other| *other != revision);
        let (truncated, extra) = self.truncated_and_extra(text, notes, &mut payload, other_revision)?;
        Ok(Event {
            spec,
            event_type,
            id,
            source,
            time_micros,
            run_id,
            tenant,
            revision,
            supersedes: body.supersedes.map(|id| (*id).to_owned().into()),
            payload,
            extra,
            truncated,
        })
    }

    /// Returns the values that are not kept as sent, and the fields without columns. Few messages have either.
    fn truncated_and_extra<'a>(
        &self,
        text: &'a str,
        notes: Vec<Note>,
        payload: &mut Payload<'a>,
        other_revision: Option<i64>,
    ) -> Parsed<(Vec<Marked<'a>>, Option<String>)> {
        let mut marks =
            if notes.is_empty() { Marks::default() } else { Marks::locate(text, notes, self.limits.max_depth)? };
        if let Some(revision) = other_revision {
            let path = ["data", "revision"].map(|name| PathStep::Key(Cow::Borrowed(name)));
            marks.extra.add(&path, &revision.to_string());
        }
        let too_large = text.len() > self.limits.max_bytes;
        if let Payload::Completed(completed) = payload {
            for pointer in &completed.release.cut {
                marks.list(*pointer, marks::CUT);
            }
            let most = self.limits.content_bytes;
            let too_long = |content: &RawObject<'_>| too_large || most.is_none_or(|most| content.get().len() > most);
            if let Some(content) = completed.run.content.take_if(|content| too_long(content)) {
                let (references, removed) = content::references(&content);
                completed.run.content = references;
                for pointer in removed {
                    marks.list(pointer, if most.is_none() { marks::OFF } else { marks::LEFT_OUT });
                }
            }
            if too_large && completed.run.steps.take().is_some() {
                marks.list("/data/steps", marks::LEFT_OUT);
            }
            for stated in entries(completed.run.truncated.as_ref()) {
                marks.list((**stated).to_owned(), marks::STATED);
            }
        }
        let mut extra = std::mem::take(&mut marks.extra);
        // Content that is malformed, or where the contract has none, is content all the same.
        let most = self.limits.content_bytes;
        for (pointer, path) in [("/data/content", &["data", "content"][..]), ("/content", &["content"])] {
            if extra.remove(path, most) {
                marks.list(pointer, if most.is_none() { marks::OFF } else { marks::LEFT_OUT });
            }
        }
        let mut extra = extra.into_json();
        if too_large && extra.take().is_some() {
            marks.list("extra", marks::LEFT_OUT);
        }
        Ok((marks.into_listed(), extra))
    }

    /// Checks that the times are neither too old nor too far in the future.
    fn times_fit(&self, event: &Event<'_>, now_micros: i64) -> bool {
        let accepted = self.limits.accepted_times(now_micros);
        let ended = match &event.payload {
            Payload::Completed(completed) => completed.ended_micros,
            _ => event.time_micros,
        };
        accepted.contains(&event.time_micros) && accepted.contains(&ended)
    }
}

// === impl Limits ===

impl Limits {
    /// Returns the size of the largest message that is read at all, in bytes.
    pub fn readable_bytes(&self) -> usize {
        self.max_bytes.saturating_mul(READABLE)
    }

    /// Returns the range of accepted times, microseconds since the epoch.
    pub(crate) fn accepted_times(&self, now_micros: i64) -> std::ops::RangeInclusive<i64> {
        now_micros.saturating_sub(self.max_age_micros)..=now_micros.saturating_add(self.max_future_micros)
    }
}

/// Parses an RFC 3339 time within the accepted years, in microseconds since the epoch.
pub(crate) fn time_of(text: &str) -> Option<i64> {
    Time::parse(text).map(|time| time.0)
}

/// Checks that the framing's attributes satisfy the contract and agree with the body.
fn agrees(event: &Event<'_>, envelope: &Envelope<'_>) -> bool {
    let same = |stated: Option<&str>, most: usize, body: &str| {
        stated.is_none_or(|stated| length_fits(stated, 1, most) && stated == body)
    };
    same(envelope.id, 128, &event.id)
        && same(envelope.source, 256, &event.source)
        && same(envelope.subject, 128, &event.run_id)
        && envelope.time.is_none_or(|time| time_of(time).is_some())
        && envelope.event_type.is_none_or(|name| EventType::from_cloud_event(name) == Some(event.event_type))
}
