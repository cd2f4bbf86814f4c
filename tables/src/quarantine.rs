//! `quarantine`: one rejected message, so that bad input is visible and nothing is lost silently.

use super::{Column, ColumnType, optional, required};

/// What a row is.
pub const DOC: &str = "One rejected message: coordinates, reason, JSON pointer, redacted head and hash. Append-only.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("topic", ColumnType::Text, "Kafka topic, or `file:NAME` for a replayed file"),
    required("partition", ColumnType::Integer, "Kafka partition; 0 for a file"),
    required("offset", ColumnType::Long, "Kafka offset; line number from 0 for a file"),
    optional("kafka_timestamp", ColumnType::Timestamp, "time the broker or producer gave the message"),
    required("quarantined_at", ColumnType::Timestamp, "time the message was rejected"),
    required("reason", ColumnType::Text, "reason code of the first problem"),
    required("pointer", ColumnType::Text, "JSON pointer to it; empty for the whole message"),
    required("message", ColumnType::Text, "what is wrong and what to do"),
    required("problems", ColumnType::Long, "number of problems found"),
    required("size_bytes", ColumnType::Long, "size of the message body"),
    required("sha256", ColumnType::Text, "hash of the message body, hexadecimal").distinct(),
    required("head", ColumnType::Text, "first 4 KiB of the body, its text values masked").distinct(),
];
