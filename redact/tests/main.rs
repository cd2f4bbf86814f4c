//! Tests of the redactor on examples, generated data, recorded conversations and bad input.

mod bad_input;
mod corpus;
mod examples;
mod measured;
mod passed_over;

use bellwether_redact::Redactor;

/// Redacts a text by the default policy.
fn redacted(text: &str) -> String {
    Redactor::default().session().text(text).into_owned()
}

/// Redacts a JSON document by the default policy.
fn redacted_json(text: &str) -> String {
    Redactor::default().session().json(text).into_owned()
}
