//! `deliveries`: the outbox of alerts, with each step of each delivery.

use super::{Column, ColumnType, optional, required};

/// Describes a row.
pub const DOC: &str = "One step of the delivery of one transition of an alert to one sink. Append-only: a transition is planned \
                       before it is sent, and its result is a row of its own.";

/// Columns in order.
pub const COLUMNS: &[Column] = &[
    required("number", ColumnType::Long, "number of the commit that wrote the row, from 1"),
    required("alerts_version", ColumnType::Long, "version of `alerts` up to which it had been read"),
    required("written_at", ColumnType::Timestamp, "time of writing"),
    required(
        "step",
        ColumnType::Text,
        "planned: to be sent; sent; failed: to be sent again, recorded for attempts 1, 2, 4, 8 and so on; refused: the service \
         does not accept it; suppressed: held back for the time being; given_up: its route or sink is no longer configured",
    ),
    required("route", ColumnType::Text, "route"),
    required("sink", ColumnType::Text, "sink"),
    required(
        "group_labels",
        ColumnType::TextMap,
        "labels by which the route groups, with their values; empty if it does not",
    ),
    required(
        "key",
        ColumnType::Text,
        "hash of route, sink, alert and transition: the same in all steps of one delivery",
    ),
    // The transition.
    required(
        "incident",
        ColumnType::Text,
        "idempotency key of the incident: the same from its first page until it is resolved",
    ),
    required("alert_id", ColumnType::Text, "alert, as in `alerts`"),
    optional("tenant", ColumnType::Text, "tenant of the alert"),
    required(
        "at",
        ColumnType::Timestamp,
        "event time of the transition; of an acknowledgement or repetition, its time",
    ),
    required("state", ColumnType::Text, "firing, acknowledged, resolved"),
    required(
        "kind",
        ColumnType::Text,
        "new; moved: a correction moved the start; acknowledged, unacknowledged: by a person; repeated: still firing; \
         evidence: sent before without its evidence; ended; corrected: ended by a correction of the data",
    ),
    required("transition", ColumnType::Long, "number of the transition in its incident, from 1"),
    required(
        "noticed_at",
        ColumnType::Timestamp,
        "time at which the transition was written to `alerts` or otherwise came about",
    ),
    // The attempt.
    required("attempt", ColumnType::Long, "number of attempts to send it, with this one; 0 before the first"),
    optional("reason", ColumnType::Text, "why it failed, was refused, suppressed or given up"),
    optional("missed", ColumnType::Boolean, "sent as a line, because the incident had ended before it could be sent"),
    optional("receipt", ColumnType::Text, "reference of the message in the service, by which it is updated later"),
    optional("answer", ColumnType::Text, "answer of the service in one line"),
];
