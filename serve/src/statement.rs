//! `POST /v1/sql`: runs one statement, and sends its answer as it is computed.
//!
//! The head of the answer waits for its first 64 KiB, so that most errors have a status of their own. A later error breaks the
//! connection: an answer is complete only if it ends as its framing says. Everything that a statement holds belongs to its answer:
//! when the client goes away, the answer is dropped, and the statement stops.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bellwether_base::{Error, Result};
use bellwether_queries::{Answer, ScalarValue};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::access::Caller;
use crate::encode::{Encoder, Format};
use crate::listener::Connection;
use crate::recorded::Recorded;
use crate::refused::{Answered, Refused};
use crate::server::{Server, format_of};
use crate::stall::EndAfter;
use crate::start::{Asker, Started};

/// Largest body of a request, bytes.
pub(crate) const BODY_BYTES: usize = 256 << 10;

/// Bytes that are collected before the head of an answer is sent, and for each part of it.
const PART_BYTES: usize = 64 << 10;

/// Header with the id of the request, by which it can be cancelled and found in the audit log.
const REQUEST_HEADER: &str = "bellwether-request";

/// Method and path, as in the audit log.
const ENDPOINT: &str = "POST /v1/sql";

/// The body of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    parameters: Vec<Value>,
}

/// Runs a statement.
pub(crate) async fn run(server: Arc<Server>, caller: Caller, request: Request<Body>) -> Response {
    let answered = async {
        let (parts, body) = request.into_parts();
        debug_assert_eq!(parts.method, Method::POST);
        let format = format_of(parts.uri.query(), &parts.headers)?;
        let connection = parts.extensions.get::<Connection>().cloned().unwrap_or_default();
        let asked = read(&server, &parts.headers, body).await?;
        let values: Vec<ScalarValue> = asked.parameters.iter().enumerate().map(value).collect::<Answered<_>>()?;
        let asker = Asker { server: &server, caller: &caller, connection: &connection, endpoint: ENDPOINT };
        let Started { answer, mut recorded, slot } = asker.begin(&asked.sql).await?.start(&asked.sql, &values).await?;
        match Sending::new(answer, format, server.settings.max_bytes) {
            Ok(sending) => sending.respond(recorded, slot, format).await,
            Err(error) => Err(recorded.refuse(error.into())),
        }
    };
    Box::pin(answered).await.unwrap_or_else(IntoResponse::into_response)
}

/// Reads the body, which is JSON: a page of another site cannot send that type without asking first.
async fn read(server: &Server, headers: &HeaderMap, body: Body) -> Answered<Asked> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be of type application/json")
            .with_hint("send {\"sql\": \"SELECT …\"} with the header `Content-Type: application/json`"));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_long = || {
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {} KiB", BODY_BYTES >> 10))
            .with_hint("shorten the statement, or put long lists into a table of their own")
    };
    if length.is_some_and(|length| length > BODY_BYTES as u64) {
        return Err(too_long());
    }
    let patience = server.settings.patience;
    let bytes = tokio::time::timeout(patience, axum::body::to_bytes(body, BODY_BYTES)).await;
    let bytes = bytes.map_err(|_| {
        Refused::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", patience.as_secs_f64()))
    })?;
    let bytes =
        bytes.map_err(|_| if length.is_none() { too_long() } else { Refused::bad("the body is incomplete") })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Refused::bad(format!("the body is no request: {error}"))
            .with_hint("send {\"sql\": \"SELECT … WHERE task = $1\", \"parameters\": [\"refunds\"]}")
    })
}

/// Returns the value of a parameter; it is cast to the type that the statement needs.
fn value((place, value): (usize, &Value)) -> Answered<ScalarValue> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(value) => ScalarValue::Boolean(Some(*value)),
        Value::String(text) => ScalarValue::Utf8(Some(text.clone())),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => ScalarValue::Int64(Some(whole)),
            (None, Some(whole)) => ScalarValue::UInt64(Some(whole)),
            (None, None) => ScalarValue::Float64(number.as_f64()),
        },
        Value::Array(_) | Value::Object(_) => {
            let message = format!("parameter ${} is a list or an object", place + 1);
            return Err(Refused::bad(message).with_hint("give text, a number, true, false or null"));
        }
    })
}

/// An answer on its way: rows that become bytes.
struct Sending {
    answer: Answer,
    encoder: Option<Encoder<Buffer>>,
    buffer: Buffer,
    max_bytes: usize,
    rows: u64,
    bytes: u64,
}

/// Bytes that were encoded and not sent.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

// === impl Buffer ===

impl Buffer {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Sending ===

impl Sending {
    fn new(answer: Answer, format: Format, max_bytes: usize) -> Result<Self> {
        let buffer = Buffer::default();
        let encoder = Some(Encoder::new(format, Arc::clone(&answer.schema), buffer.clone())?);
        Ok(Self { answer, encoder, buffer, max_bytes, rows: 0, bytes: 0 })
    }

    /// Returns the next part, of at least 64 KiB unless it is the last; none after that.
    async fn next(&mut self) -> Answered<Option<Bytes>> {
        while let Some(encoder) = &mut self.encoder {
            match self.answer.batches.next().await.transpose()? {
                Some(batch) => {
                    encoder.write(&batch).map_err(Error::from)?;
                    self.rows += batch.num_rows() as u64;
                }
                None => {
                    let encoder = self.encoder.take();
                    encoder.map(Encoder::finish).transpose().map_err(Error::from)?;
                }
            }
            let ready = self.buffer.len();
            if self.bytes.saturating_add(ready as u64) > self.max_bytes as u64 {
                let hint = "select fewer rows or columns, ask for Parquet, or raise `api.max_bytes` of the server";
                return Err(Refused::too_many_bytes(self.max_bytes).with_hint(hint));
            }
            if ready >= PART_BYTES {
                break;
            }
        }
        let part = self.buffer.take();
        self.bytes += part.len() as u64;
        Ok((!part.is_empty()).then_some(part))
    }

    /// Answers with the whole rows if they are few, otherwise part by part.
    async fn respond(
        mut self,
        mut statement: Recorded,
        slot: OwnedSemaphorePermit,
        format: Format,
    ) -> Answered<Response> {
        let first = match self.next().await {
            Ok(part) => part.unwrap_or_default(),
            Err(refused) => return Err(statement.refuse(refused)),
        };
        let id = statement.id.clone();
        let body = if self.encoder.is_none() {
            (statement.status, statement.rows, statement.bytes) = (Some(200), self.rows, self.bytes);
            Body::from(first)
        } else {
            let whole = statement.server.settings.timeout + statement.server.settings.patience;
            let end = EndAfter::new(&statement.connection, whole);
            let streaming = Streaming { sending: self, statement, _slot: slot, _end: end };
            let rest = futures::stream::unfold(Some(streaming), Streaming::next);
            let first = futures::stream::iter([Ok(first)]);
            Body::from_stream(first.chain(rest))
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_HEADER, id);
        }
        Ok(response)
    }
}

/// An answer that is sent part by part, with everything that it holds.
struct Streaming {
    sending: Sending,
    statement: Recorded,
    _slot: OwnedSemaphorePermit,
    /// Ends the connection of a client that reads too slowly.
    _end: EndAfter,
}

// === impl Streaming ===

impl Streaming {
    async fn next(streaming: Option<Self>) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut streaming = streaming?;
        let part = streaming.sending.next().await;
        let Self { sending, statement, .. } = &mut streaming;
        (statement.rows, statement.bytes) = (sending.rows, sending.bytes);
        match part {
            Ok(Some(part)) => Some((Ok(part), Some(streaming))),
            Ok(None) => {
                statement.status = Some(200);
                None
            }
            Err(refused) => {
                statement.error = Some(refused.message.clone());
                Some((Err(io::Error::other(refused.message)), None))
            }
        }
    }
}
