//! Tests of the redactor on examples, generated data and bad input.

mod bad_input;
mod corpus;
mod examples;

use bellwether_redact::{Policy, Redactor};

/// Redacts a text by the default policy.
fn redacted(text: &str) -> String {
    Redactor::new(&Policy::default()).expect("compiles").session().text(text).into_owned()
}

/// Redacts a JSON document by the default policy.
fn redacted_json(text: &str) -> String {
    Redactor::new(&Policy::default()).expect("compiles").session().json(text).into_owned()
}
