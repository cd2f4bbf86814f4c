//! The run-event contract: the fields that an application may send, their meaning, and the problems of a message that
//! violates it.
//!
//! * [`Decoder`] turns the bytes of one message into an [`Event`], or returns every problem that rejects it ([`Rejection`]).
//!   Problems of identity, time and outcome reject an event. Any other malformed value is cut or left out, and listed in the
//!   event.
//! * [`schema`] is the published JSON Schema. [`problems`] checks a value against it, and says of each problem whether it
//!   rejects. The decoder is a fast, hand-written implementation of the same contract; tests check that both reject the same
//!   events.
//! * [`Release`] carries the fingerprint, which this crate computes from RFC 8785 canonical JSON.
//! * [`units`] converts decimal money to integer nano-units and times to integer microseconds.
//!
//! This crate must not know tokio, Kafka, Arrow or files. The caller passes the current time.

mod content;
mod decode;
mod explain;
mod ids;
mod json;
mod marks;
mod parse;
mod pattern;
mod reason;
pub mod record;
mod release;
pub mod run;
mod schema;
mod surrogate;
pub mod units;
pub mod value;
mod weight;

pub use decode::{Decoder, Envelope, Event, EventType, Limits, Payload};
pub use ids::content_hash;
pub use reason::{Problem, Reason, Rejection};
pub use release::Release;
pub use run::{
    Completed, Document, Escalation, FieldError, PolicyException, Retrieval, Review, Run, Score, ToolCall, UNAPPROVED,
    Validation,
};
pub use schema::{check, problems, schema};
pub use surrogate::replace_lone_surrogates;
pub use value::CutText;
