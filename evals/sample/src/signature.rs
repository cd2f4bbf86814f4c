//! Failure signatures: the same text for failures of the same kind, readable by people.
//!
//! A signature lists the fields that a failure has, in this order and separated by ` | `:
//! `component=…`, `error=…`, `tool=…`, `at=…` (a JSON Pointer, with `*` for indexes), `rule=…`, `policy=…`, `message=…`
//! (masked, see [`crate::mask`]). A failure without any of them has the signature `unexplained`.
//!
//! Its id is XXH3-128 of the text (seed 0) as 32 hexadecimal digits.

use std::fmt::{self, Write as _};

use xxhash_rust::xxh3::xxh3_128;

use crate::mask::masked;

/// Signature of a failure without any known cause.
const UNEXPLAINED: &str = "unexplained";

/// Characters of a field at most.
const FIELD: usize = 128;

/// Known facts about a failure; empty if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Component that failed, such as `retrieval`.
    pub component: &'a str,
    /// Class of the error, such as `timeout`.
    pub error_class: &'a str,
    /// Tool that was called.
    pub tool: &'a str,
    /// JSON Pointer to the invalid field.
    pub pointer: &'a str,
    /// Rule of the schema that the field breaks, such as `type`.
    pub rule: &'a str,
    /// Policy that was broken.
    pub policy: &'a str,
    /// Message as it was reported.
    pub message: &'a str,
}

/// A failure signature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(String);

// === impl Failure ===

impl Failure<'_> {
    /// Returns the signature.
    pub fn signature(&self) -> Signature {
        let (pointer, message) = (indexless(self.pointer), masked(self.message));
        let fields = [
            ("component", self.component),
            ("error", self.error_class),
            ("tool", self.tool),
            ("at", &pointer),
            ("rule", self.rule),
            ("policy", self.policy),
        ];
        let mut text = String::new();
        for (name, value) in fields {
            append(&mut text, name, value, FIELD);
        }
        append(&mut text, "message", &message, usize::MAX);
        if text.is_empty() {
            text.push_str(UNEXPLAINED);
        }
        Signature(text)
    }
}

// === impl Signature ===

impl Signature {
    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns true if a text is, or ends with, the signature of a failure without any known cause. Such failures need not be alike.
    /// A value cannot imitate it: a `|` in a value is escaped.
    pub fn is_unexplained(text: &str) -> bool {
        text.strip_suffix(UNEXPLAINED).is_some_and(|before| before.is_empty() || before.ends_with(" | "))
    }

    /// Returns the id, 32 hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:032x}", xxh3_128(self.0.as_bytes()))
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds `name=value` unless the value is blank. A `|` or `\` in it is escaped, so that no value can imitate a field.
fn append(text: &mut String, name: &str, value: &str, limit: usize) {
    let value = value.trim();
    if value.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push_str(" | ");
    }
    // Writing to a string cannot fail.
    write!(text, "{name}=").unwrap_or_default();
    for c in value.chars().take(limit) {
        match c {
            '|' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
}

/// Replaces the indexes of arrays in a JSON Pointer by `*`.
fn indexless(pointer: &str) -> String {
    let index = |segment: &str| !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit());
    let segments: Vec<&str> = pointer.split('/').map(|segment| if index(segment) { "*" } else { segment }).collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_stable() {
        // Texts and ids are stored; a change of any of them cuts the history of every
        // signature. The ids were computed by the Python package xxhash.
        for (failure, text, id) in [
            (Failure::default(), "unexplained", "8d680f7f90b2e1175df79238303592a5"),
            (
                Failure {
                    component: "tools",
                    error_class: "timeout",
                    tool: "refund_order",
                    message: "refund of W2378156 timed out after 30000ms",
                    ..Failure::default()
                },
                "component=tools | error=timeout | tool=refund_order | message=refund of <id> timed out after <n>ms",
                "9cb53e385fb70fc4a758d2e45ef7273a",
            ),
            (
                Failure { component: "output", pointer: "/items/17/sku", rule: "type", ..Failure::default() },
                "component=output | at=/items/*/sku | rule=type",
                "e6041c352e815859ca4bf591c992742f",
            ),
            (
                Failure { policy: "refund_limit|x", message: "limit 500 \\ EUR", ..Failure::default() },
                "policy=refund_limit\\|x | message=limit <n> \\\\ eur",
                "06abeb02d19f34e00ed422b27db3c17a",
            ),
        ] {
            let found = failure.signature();
            assert_eq!((found.text(), found.id().as_str()), (text, id));
        }
    }

    #[test]
    fn no_value_can_imitate_a_field() {
        let honest = Failure { component: "a", tool: "b", ..Failure::default() };
        let forged = Failure { component: "a | tool=b", ..Failure::default() };
        assert_ne!(honest.signature(), forged.signature());
    }

    #[test]
    fn only_a_failure_without_any_field_is_unexplained() {
        let nothing = format!("task=refund | {}", Failure::default().signature());
        assert!(Signature::is_unexplained("unexplained") && Signature::is_unexplained(&nothing));
        let says_so = Failure { error_class: "a | unexplained", ..Failure::default() };
        for text in ["", "task=refund", "message=unexplained", says_so.signature().text()] {
            assert!(!Signature::is_unexplained(text), "{text}");
        }
    }

    #[test]
    fn long_and_binary_fields_are_bounded() {
        let long = "x\u{0}".repeat(5_000);
        let failure = Failure { component: &long, tool: &long, message: &long, ..Failure::default() };
        assert!(failure.signature().text().chars().count() < 600);
        assert!(!failure.signature().text().contains('\u{0}'));
    }
}
