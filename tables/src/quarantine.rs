//! `quarantine`: rejected messages, so that bad input is visible and nothing is lost silently.

use super::events::REDACTION;
use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "One rejected message: coordinates, reason, JSON pointer, redacted head and hash. Append-only.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("topic", ColumnType::Text, "Kafka topic, or `file:NAME` for a replayed file"),
    required("partition", ColumnType::Integer, "Kafka partition; 0 for a file"),
    required("offset", ColumnType::Long, "Kafka offset; line number from 0 for a file"),
    optional("kafka_timestamp", ColumnType::Timestamp, "timestamp of the message, from the broker or the producer"),
    required("quarantined_at", ColumnType::Timestamp, "time the message was rejected"),
    required("reason", ColumnType::Text, "reason code of the first problem"),
    required("pointer", ColumnType::Text, "JSON pointer to it; empty for the whole message"),
    required("message", ColumnType::Text, "problem and remedy"),
    required("problems", ColumnType::Long, "number of problems found"),
    required("size_bytes", ColumnType::Long, "size of the message body"),
    required("sha256", ColumnType::Text, "hash of the message body, hexadecimal").distinct(),
    required("head", ColumnType::Text, "first 4 KiB of the body, its text values masked").distinct(),
    // Added by later versions.
    optional("redaction", ColumnType::TextMap, REDACTION),
];
