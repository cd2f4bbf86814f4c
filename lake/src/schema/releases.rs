//! `releases`: first sight of each release fingerprint with its whole configuration.

use super::{Column, Kind, optional, required};

/// What a row is.
pub const DOC: &str = "First sight of each (tenant, release, fingerprint, model that answered), with the whole configuration. Append-only.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("release_fingerprint", Kind::Text, "sha256 of the release's canonical JSON"),
    required("release_id", Kind::Text, "release"),
    required("task", Kind::Text, "task in which it was first seen"),
    required("stage", Kind::Text, "rollout stage in which it was first seen"),
    required("first_seen", Kind::Timestamp, "event time of the first sight"),
    required("events_version", Kind::Long, "version of `events` that brought it"),
    optional("model", Kind::Text, "model requested, else model that answered"),
    optional("model_provider", Kind::Text, "provider"),
    optional("model_requested", Kind::Text, "model asked for"),
    optional("model_responded", Kind::Text, "model that answered, as the provider reports"),
    optional("prompt_name", Kind::Text, "prompt"),
    optional("prompt_version", Kind::Text, "its version"),
    required("release_json", Kind::Text, "the whole release, canonical JSON"),
    optional(
        "tenant",
        Kind::Text,
        "tenant in which it was seen; empty where none was named, null in rows of old versions",
    ),
];
