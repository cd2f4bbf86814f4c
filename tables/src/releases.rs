//! `releases`: the first appearance of each release fingerprint, with the whole configuration.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "The first appearance of a tenant, release, fingerprint and responding model together, with the whole configuration. \
                       Append-only.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("release_fingerprint", ColumnType::Text, "sha256 of the release's canonical JSON"),
    required("release_id", ColumnType::Text, "release"),
    required("task", ColumnType::Text, "task in which it was first seen"),
    required("stage", ColumnType::Text, "rollout stage in which it was first seen"),
    required("first_seen", ColumnType::Timestamp, "event time of its first run"),
    required("events_version", ColumnType::Long, "version of `events` in which it was first seen"),
    optional("model", ColumnType::Text, "model requested, otherwise the model that answered"),
    optional("model_provider", ColumnType::Text, "provider"),
    optional("model_requested", ColumnType::Text, "model requested"),
    optional("model_responded", ColumnType::Text, "model that answered, as the provider reports"),
    optional("prompt_name", ColumnType::Text, "prompt"),
    optional("prompt_version", ColumnType::Text, "its version"),
    required("release_json", ColumnType::Text, "the whole release, canonical JSON"),
    optional(
        "tenant",
        ColumnType::Text,
        "tenant in which it was seen; empty if none was named, null in rows of old versions",
    ),
];
