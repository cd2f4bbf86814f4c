//! From the bytes of a message to an event: which framing it has, and what the framing says about it.
//!
//! Accepted: plain JSON, and CloudEvents 1.0 in binary mode (attributes in `ce_*` headers) and structured mode (one JSON
//! object). They are told apart by the content type, then by the first byte and the keys of the object; nothing else is
//! guessed.

use std::borrow::Cow;
use std::sync::LazyLock;

use bellwether_event::{Decoder, Envelope, Event, Problem, Reason, Rejection};
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Contract version of a CloudEvent whose data is the bare `data` of a run event.
const SPEC: &str = "run-event/1";

/// A message as a source hands it on. Nothing is copied.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Kafka topic, or `file:NAME`.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Time the broker or producer gave it, microseconds since the epoch.
    pub timestamp_micros: Option<i64>,
    /// Body; none is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Header `content-type`.
    pub content_type: Option<&'a str>,
    /// CloudEvents attributes from `ce_*` headers.
    pub envelope: Envelope<'a>,
}

/// Structured mode: one JSON object with the attributes and the data.
#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Which keys a JSON object has at its top.
#[derive(Deserialize)]
struct Keys {
    spec: Option<serde::de::IgnoredAny>,
    run_id: Option<serde::de::IgnoredAny>,
}

/// Decodes a message and gives the event to `accept`.
///
/// # Errors
/// Every problem of the message.
pub fn decode<T>(
    decoder: &mut Decoder,
    message: &Message<'_>,
    now_micros: i64,
    accept: impl FnOnce(&Event<'_>) -> T,
) -> Result<T, Rejection> {
    let Some(body) = message.payload.filter(|body| !body.is_empty()) else {
        let what = "a null or empty message says nothing about a run: leave it out";
        return Err(Rejection::of(Problem::new(Reason::Tombstone, "", what)));
    };
    if let Some(framing) = foreign_framing(message, body) {
        let what =
            format!("this looks like {framing}, which is not accepted here: send run events as JSON or CloudEvents");
        return Err(Rejection::of(Problem::new(Reason::UnsupportedFraming, "", what)));
    }
    if is_structured(message.content_type, body) {
        return decode_structured(decoder, body, now_micros, accept);
    }
    let envelope = &message.envelope;
    if envelope.subject.is_some() && envelope.event_type.is_some() && !is_whole_event(body) {
        let wrapped = wrap(body, envelope);
        return decoder.decode(wrapped.as_bytes(), envelope, now_micros).map(|event| accept(&event));
    }
    decoder.decode(body, envelope, now_micros).map(|event| accept(&event))
}

/// A framing that is known and not accepted, by its content type or first bytes.
fn foreign_framing(message: &Message<'_>, body: &[u8]) -> Option<&'static str> {
    let content_type = message.content_type.unwrap_or_default();
    if content_type.contains("protobuf") {
        return Some("protobuf");
    }
    if content_type.contains("avro") {
        return Some("Avro");
    }
    match body {
        [0, _, _, _, _, ..] => Some("Confluent framing (a zero byte and a schema id)"),
        [1, ..] => Some("Confluent framing (a one byte and a schema GUID)"),
        [0x0A, rest @ ..] if !rest.trim_ascii_start().starts_with(b"{") => Some("OTLP protobuf"),
        _ => None,
    }
}

fn is_structured(content_type: Option<&str>, body: &[u8]) -> bool {
    if let Some(content_type) = content_type
        && content_type.starts_with("application/cloudevents")
    {
        return true;
    }
    // Without a header: `specversion` is what a CloudEvent must have and a run event does not.
    static SPECVERSION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"specversion\""));
    content_type.is_none() && !starts_as_event(body) && SPECVERSION.find(body).is_some() && !is_whole_event(body)
}

/// True where the first key is one of a run event's, as producers have it: what comes after need not be looked at.
fn starts_as_event(body: &[u8]) -> bool {
    let first = body.strip_prefix(b"{").unwrap_or_default().trim_ascii_start();
    [&b"\"spec\""[..], b"\"run_id\""].iter().any(|key| first.starts_with(key))
}

/// True for a run event with its envelope; false for the bare data of one.
fn is_whole_event(body: &[u8]) -> bool {
    if std::str::from_utf8(body).is_err() {
        return true; // For the decoder to reject.
    }
    match serde_json::from_slice::<Keys>(body) {
        Ok(keys) => keys.spec.is_some() || keys.run_id.is_some(),
        // What is wrong with it is for the decoder to say.
        Err(_) => true,
    }
}

fn decode_structured<T>(
    decoder: &mut Decoder,
    body: &[u8],
    now_micros: i64,
    accept: impl FnOnce(&Event<'_>) -> T,
) -> Result<T, Rejection> {
    let reject = |reason: Reason, pointer: &str, what: &str| Err(Rejection::of(Problem::new(reason, pointer, what)));
    let event: Structured<'_> = match serde_json::from_slice(body) {
        Ok(event) => event,
        Err(error) if error.is_data() => {
            return reject(
                Reason::WrongType,
                "",
                "the attributes of a CloudEvent are texts: write id, source, type, time and subject as texts",
            );
        }
        Err(error) => {
            let what = format!("not JSON at line {}, column {}", error.line(), error.column());
            return reject(Reason::NotJson, "", &what);
        }
    };
    if event.specversion.as_deref() != Some("1.0") {
        return reject(Reason::UnknownSpec, "/specversion", "write `specversion`: `1.0`");
    }
    let Some(data) = event.data else {
        return reject(Reason::MissingField, "/data", "add `data`: the run event, or its `data`");
    };
    let envelope = Envelope {
        id: event.id.as_deref(),
        source: event.source.as_deref(),
        event_type: event.event_type.as_deref(),
        time: event.time.as_deref(),
        subject: event.subject.as_deref(),
    };
    let data = data.get().as_bytes();
    if is_whole_event(data) {
        return decoder.decode(data, &envelope, now_micros).map(|event| accept(&event));
    }
    let wrapped = wrap(data, &envelope);
    decoder.decode(wrapped.as_bytes(), &envelope, now_micros).map(|event| accept(&event))
}

/// A run event around bare data, which is UTF-8: the run id is the CloudEvent's subject.
fn wrap(data: &[u8], envelope: &Envelope<'_>) -> String {
    let run_id = serde_json::Value::from(envelope.subject.unwrap_or_default());
    format!(r#"{{"spec":"{SPEC}","run_id":{run_id},"data":{}}}"#, String::from_utf8_lossy(data))
}
