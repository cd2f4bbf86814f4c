//! `alert_actions`: what people did about alerts.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "One action of a person on an alert, or on all alerts with certain labels. Append-only: an action is taken \
                       back by another one. The present state follows from all rows in any order; the latest by `at`, then \
                       `action_id`, counts.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("action_id", ColumnType::Text, "id of the action; an action with a known id is not added again")
        .distinct(),
    required("kind", ColumnType::Text, "ack, unack, silence, unsilence, feedback"),
    optional("alert_id", ColumnType::Text, "the alert; null for a silence by labels"),
    optional(
        "matchers",
        ColumnType::Text,
        "labels that a silence matches, as Alertmanager writes matchers: `{task=\"refund\",rule=~\"success_.*\"}`",
    ),
    optional("silence_id", ColumnType::Text, "of an unsilence: `action_id` of the silence that it ends"),
    optional("rule", ColumnType::Text, "rule of the alert"),
    optional("tenant", ColumnType::Text, "tenant of the alert; of a silence by labels, the one that it names"),
    optional(
        "firing_since",
        ColumnType::Timestamp,
        "event time from which the alert fired when it was acknowledged; an acknowledgement ends with that firing",
    ),
    required("person", ColumnType::Text, "who acted"),
    optional("reason", ColumnType::Text, "why"),
    optional("starts_at", ColumnType::Timestamp, "start of a silence"),
    optional("until", ColumnType::Timestamp, "end of a silence; of an acknowledgement, if it has one"),
    optional("verdict", ColumnType::Text, "of feedback: useful, noise"),
    required("at", ColumnType::Timestamp, "time of the action; later than that of every action that it takes back"),
    required("origin", ColumnType::Text, "where the action came from: cli, http, pagerduty"),
];
