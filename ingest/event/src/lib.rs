//! The run-event contract: what an application may send, what it means, and what is wrong with what it sent.
//!
//! * [`Decoder`] turns the bytes of one message into an [`Event`], or says every problem it has ([`Rejection`]).
//! * [`schema`] is the published JSON Schema; [`problems`] holds a value against it. The decoder is a fast hand-written
//!   reading of the same contract, and tests hold the two together: whatever one accepts the other does.
//! * [`Release`] carries the fingerprint, recomputed here from RFC 8785 canonical JSON.
//! * [`units`] turns decimal money into integer nano-units and times into integer microseconds.
//!
//! This crate must not know tokio, Kafka, Arrow, files, or the time of day (it is passed in).

mod decode;
mod explain;
mod ids;
mod json;
mod marks;
mod parse;
mod reason;
pub mod record;
mod release;
pub mod run;
mod schema;
pub mod units;

pub use decode::{Decoder, Envelope, Event, EventType, Limits, Payload};
pub use ids::content_hash;
pub use json::mended;
pub use reason::{Problem, Reason, Rejection};
pub use release::Release;
pub use run::{
    Completed, Document, Escalation, FieldError, PolicyException, Retrieval, Review, Run, Score, ToolCall, UNAPPROVED,
    Validation,
};
pub use schema::{check, problems, schema};
