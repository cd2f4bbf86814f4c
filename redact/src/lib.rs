//! Removes personal data and secrets from text and JSON, so that they are never stored.
//!
//! * [`Policy`] says which kinds are redacted; [`Redactor`] is the policy compiled.
//! * [`Session`] redacts the texts of one run: the same value gets the same placeholder, such as `[EMAIL_1]`.
//! * [`Session::text`] redacts text, and [`Session::json`] the keys and values of a JSON document.
//! * [`Session::counts`] says how much was redacted, and never what.
//!
//! Rules: nothing panics, and if a detector does, its text is replaced as a whole: nothing passes unread. No message of an error or a
//! panic contains a part of a text. Time is linear in the length of a text, because each detector looks a bounded distance around a
//! candidate. Overlapping findings are replaced together.
//!
//! The detectors are this crate's own: the existing Rust libraries for personal data are young, and none checks the check digits
//! of all ten countries.

mod addresses;
mod checksum;
mod classes;
mod context;
mod find;
mod ids;
mod json;
mod kind;
mod names;
mod numbers;
mod policy;
mod prefilter;
mod secrets;
mod session;
mod word;

pub use kind::Kind;
pub use policy::{DETECTORS, LEAST_KEY_BYTES, Policy, PolicyError, Redactor, Setting};
pub use session::{FAILED, NOT_JSON, Session, TOO_LONG, may_be_redacted};

/// A part of a text that is redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}
