//! The run-event contract: what an application may send, what it means, and what is wrong with what it sent.
//!
//! * [`Decoder`] turns the bytes of one message into an [`Event`], or says every problem it has ([`Rejection`]). Identity, time and
//!   outcome reject; anything else that is wrong is cut or left out, and listed in the event.
//! * [`schema`] is the published JSON Schema; [`problems`] holds a value against it, and says of each problem whether it rejects.
//!   The decoder is a fast hand-written reading of the same contract, and tests hold the two together: what one rejects the
//!   other does.
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
mod pattern;
mod reason;
pub mod record;
mod release;
pub mod run;
mod schema;
mod surrogate;
pub mod units;
pub mod value;

pub use decode::{Decoder, Envelope, Event, EventType, Limits, Payload};
pub use ids::content_hash;
pub use reason::{Problem, Reason, Rejection};
pub use release::Release;
pub use run::{
    Completed, Document, Escalation, FieldError, PolicyException, Retrieval, Review, Run, Score, ToolCall, UNAPPROVED,
    Validation,
};
pub use schema::{check, problems, schema};
pub use surrogate::mended;
