//! Turns the bytes of a message into an event, whatever its framing.
//!
//! Supported are plain JSON, and CloudEvents 1.0 in binary mode (attributes in `ce_*` headers) and structured mode (one JSON
//! object), around a whole run event or around its bare `data`. The content type, the first byte and the top-level keys decide
//! between them; nothing else is guessed.
//!
//! The pointers of problems refer to the message as sent, including its frame.

mod structured;

use std::borrow::Cow;
use std::sync::LazyLock;

use bellwether_event::{Decoder, Envelope, Event, Problem, Reason, Rejection, replace_lone_surrogates};
use memchr::memmem::Finder;
use serde::Deserialize;

use self::structured::Fields;

/// Contract version of a CloudEvent whose data is the bare `data` of a run event.
const SPEC: &str = "run-event/1";

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A message borrowed from a source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Kafka topic, or `file:NAME`.
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    /// Kafka timestamp, set by the broker or the producer, microseconds since the epoch.
    pub timestamp_micros: Option<i64>,
    /// Body; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// The header `content-type`.
    pub content_type: Option<&'a str>,
    /// CloudEvents attributes from `ce_*` headers.
    pub envelope: Envelope<'a>,
    /// Name of an attribute header that is not UTF-8.
    pub unreadable_header: Option<&'static str>,
}

/// How a message frames an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// The message is a run event.
    Plain,
    /// CloudEvents binary mode with the data of a run event.
    BinaryData,
    /// CloudEvents structured mode around the data of a run event.
    StructuredData,
    /// CloudEvents structured mode around a whole run event.
    StructuredEvent,
}

/// An event taken out of its frame, with the attributes of the frame.
struct Unframed<'a> {
    body: Cow<'a, [u8]>,
    id: Option<Cow<'a, str>>,
    source: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    subject: Option<Cow<'a, str>>,
    frame: Frame,
    /// Problems of the frame.
    problems: Vec<Problem>,
}

/// The top-level keys that identify a whole run event.
#[derive(Deserialize)]
struct Keys {
    spec: Option<serde::de::IgnoredAny>,
    run_id: Option<serde::de::IgnoredAny>,
}

/// Decodes a message, and calls `accept` with the event.
///
/// # Errors
/// Every problem that rejects the message.
pub fn decode<T>(
    decoder: &mut Decoder,
    message: &Message<'_>,
    now_micros: i64,
    accept: impl FnOnce(&Event<'_>) -> T,
) -> Result<T, Rejection> {
    let mut unframed = Unframed::new(message)?;
    let mut problems = std::mem::take(&mut unframed.problems);
    match decoder.decode(&unframed.body, &unframed.envelope(), now_micros) {
        Ok(event) if problems.is_empty() => return Ok(accept(&event)),
        Ok(_) => {}
        Err(rejection) => problems.extend(unframed.relocated(rejection.problems)),
    }
    Err(Rejection { problems })
}

/// Returns every problem of a message, including those that do not reject it.
pub fn problems(decoder: &Decoder, message: &Message<'_>, now_micros: i64) -> Vec<Problem> {
    match Unframed::new(message) {
        Err(rejection) => rejection.problems,
        Ok(mut unframed) => {
            let mut problems = std::mem::take(&mut unframed.problems);
            let inside = decoder.problems(&unframed.body, &unframed.envelope(), now_micros);
            problems.extend(unframed.relocated(inside));
            problems
        }
    }
}

fn rejected(reason: Reason, pointer: &str, explanation: impl Into<String>) -> Rejection {
    Rejection::from(Problem::new(reason, pointer, explanation))
}

/// Recognises an unsupported framing by its content type or first bytes.
fn foreign_framing(content_type: &str, body: &[u8]) -> Option<&'static str> {
    if content_type.contains("protobuf") {
        return Some("protobuf");
    }
    if content_type.contains("avro") {
        return Some("Avro");
    }
    if content_type.starts_with("application/cloudevents+") && !content_type.contains("json") {
        return Some("a CloudEvent in a format other than JSON");
    }
    match body {
        [0, _, _, _, _, ..] => Some("Confluent framing (a zero byte and a schema ID)"),
        [1, ..] => Some("Confluent framing (a one byte and a schema GUID)"),
        [0x0A, rest @ ..] if !rest.trim_ascii_start().starts_with(b"{") => Some("OTLP protobuf"),
        _ => None,
    }
}

fn names_version(body: &[u8]) -> bool {
    static SPECVERSION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"specversion\""));
    SPECVERSION.find(body).is_some()
}

fn is_batch(content_type: &str, body: &[u8]) -> bool {
    content_type.starts_with("application/cloudevents-batch") || body.starts_with(b"[") && names_version(body)
}

fn is_structured(content_type: &str, body: &[u8]) -> bool {
    if content_type.starts_with("application/cloudevents") {
        return true;
    }
    // Without a content type: CloudEvents must have `specversion`, and run events do not have it.
    (content_type.is_empty() || content_type.contains("json"))
        && !starts_as_event(body)
        && names_version(body)
        && !is_whole_event(body)
}

/// Returns true if the first key is one with which run events usually begin, which saves parsing the rest.
fn starts_as_event(body: &[u8]) -> bool {
    let first = body.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    [&b"\"spec\""[..], b"\"run_id\""].iter().any(|key| first.starts_with(key))
}

/// Returns true for a run event with its envelope, and false for bare data.
fn is_whole_event(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return true }; // The decoder rejects it.
    match serde_json::from_str::<Keys>(&replace_lone_surrogates(text)) {
        Ok(keys) => keys.spec.is_some() || keys.run_id.is_some(),
        // The decoder reports the problem.
        Err(_) => true,
    }
}

/// Returns the JSON inside a JSON string.
fn written_as_text(body: &[u8]) -> Option<String> {
    let text: String = serde_json::from_str(&replace_lone_surrogates(std::str::from_utf8(body).ok()?)).ok()?;
    text.trim_start().starts_with('{').then_some(text)
}

// === impl Unframed ===

impl<'a> Unframed<'a> {
    /// Takes an event out of its frame.
    fn new(message: &Message<'a>) -> Result<Self, Rejection> {
        let Some(body) = message.payload.filter(|body| !body.is_empty()) else {
            let explanation = "the message is null or empty: send an event or nothing";
            return Err(rejected(Reason::Tombstone, "", explanation));
        };
        if let Some(header) = message.unreadable_header {
            let explanation = format!("header `{header}` is not valid UTF-8");
            return Err(rejected(Reason::InvalidUtf8, &format!("/{header}"), explanation));
        }
        let content_type = message.content_type.map_or(Cow::Borrowed(""), lower_case);
        if let Some(framing) = foreign_framing(&content_type, body) {
            let explanation = format!(
                "this looks like {framing}, which is not supported: send run events as JSON or as JSON CloudEvents"
            );
            return Err(rejected(Reason::UnsupportedFraming, "", explanation));
        }
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let first = body.trim_ascii_start();
        if is_batch(&content_type, first) {
            let explanation = "CloudEvents batches are not supported: send one event per message";
            return Err(rejected(Reason::UnsupportedFraming, "", explanation));
        }
        if is_structured(&content_type, body) {
            return Fields::read(body)?.unframed();
        }
        let text = if first.starts_with(b"\"") { written_as_text(body) } else { None };
        let body = text.map_or(Cow::Borrowed(body), |text| Cow::Owned(text.into_bytes()));
        let Envelope { id, source, event_type, time, subject } = message.envelope;
        let borrowed = |text: Option<&'a str>| text.map(Cow::Borrowed);
        let (body, frame) = if event_type.is_some() && !starts_as_event(&body) && !is_whole_event(&body) {
            (Cow::Owned(wrap(&body, subject, "").into_bytes()), Frame::BinaryData)
        } else {
            (body, Frame::Plain)
        };
        Ok(Self {
            body,
            id: borrowed(id),
            source: borrowed(source),
            event_type: borrowed(event_type),
            time: borrowed(time),
            subject: borrowed(subject),
            frame,
            problems: Vec::new(),
        })
    }

    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            id: self.id.as_deref(),
            source: self.source.as_deref(),
            event_type: self.event_type.as_deref(),
            time: self.time.as_deref(),
            subject: self.subject.as_deref(),
        }
    }

    /// Moves the pointers of problems from the event to the message.
    fn relocated(&self, problems: Vec<Problem>) -> impl Iterator<Item = Problem> {
        let frame = self.frame;
        problems.into_iter().map(move |mut problem| {
            let bare = matches!(frame, Frame::BinaryData | Frame::StructuredData);
            if bare && problem.pointer == "/run_id" && problem.reason == Reason::MissingField {
                problem.message = "add the attribute `subject` with the run id".to_owned();
            }
            problem.pointer = relocate(&problem.pointer, frame);
            problem
        })
    }
}

fn relocate(pointer: &str, frame: Frame) -> String {
    let attribute = pointer.strip_prefix("/ce_");
    match (frame, pointer) {
        (Frame::Plain, _) => pointer.to_owned(),
        (Frame::BinaryData, "/run_id") => "/ce_subject".to_owned(),
        (Frame::BinaryData, "/time") => "/ce_time".to_owned(),
        (Frame::BinaryData, _) => pointer.strip_prefix("/data").unwrap_or(pointer).to_owned(),
        (Frame::StructuredData, "/run_id") => "/subject".to_owned(),
        (Frame::StructuredData, _) => attribute.map_or_else(|| pointer.to_owned(), |name| format!("/{name}")),
        (Frame::StructuredEvent, _) => attribute.map_or_else(|| format!("/data{pointer}"), |name| format!("/{name}")),
    }
}

fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// Wraps bare data in a run event, with the subject of the CloudEvent as run id, and `more` as further fields.
fn wrap(data: &[u8], subject: Option<&str>, more: &str) -> String {
    let run_id = subject.map_or(serde_json::Value::Null, serde_json::Value::from);
    format!(r#"{{"spec":"{SPEC}","run_id":{run_id},{more}"data":{}}}"#, String::from_utf8_lossy(data))
}
