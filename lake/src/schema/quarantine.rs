//! `quarantine`: one rejected message, so that bad input is visible and nothing is lost silently.

use super::{Column, Kind, optional, required};

/// What a row is.
pub const DOC: &str = "One rejected message: coordinates, reason, JSON pointer, redacted head and hash. Append-only.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("topic", Kind::Text, "Kafka topic, or `file:NAME` for a replayed file"),
    required("partition", Kind::Integer, "Kafka partition; 0 for a file"),
    required("offset", Kind::Long, "Kafka offset; line number from 0 for a file"),
    optional("kafka_timestamp", Kind::Timestamp, "time the broker or producer gave the message"),
    required("quarantined_at", Kind::Timestamp, "time the message was rejected"),
    required("reason", Kind::Text, "reason code of the first problem"),
    required("pointer", Kind::Text, "JSON pointer to it; empty for the whole message"),
    required("message", Kind::Text, "what is wrong and what to do"),
    required("problems", Kind::Long, "number of problems found"),
    required("size_bytes", Kind::Long, "size of the message body"),
    required("sha256", Kind::Text, "hash of the message body, hexadecimal"),
    required("head", Kind::Text, "first 4 KiB of the body, its text values masked"),
];
