//! Columns of `quarantine`, and how a rejected message becomes a row of them.

use bellwether_event::Rejection;
use bellwether_lake::{Chunk, Table};
use sha2::{Digest, Sha256};

use super::columns::{Integer, Long, Record, Text, Time, column_set};
use crate::decode::Message;
use crate::redact::masked_head;

column_set!(QuarantineColumns {
    topic: Text,
    partition: Integer,
    offset: Long,
    kafka_timestamp: Time,
    quarantined_at: Time,
    reason: Text,
    pointer: Text,
    message: Text,
    problems: Long,
    size_bytes: Long,
    sha256: Text,
    head: Text,
});

/// Rows of `quarantine` that grow.
pub(super) struct QuarantineRows {
    columns: QuarantineColumns,
    rows: usize,
}

// === impl QuarantineRows ===

impl QuarantineRows {
    pub(super) fn new() -> Self {
        Self { columns: QuarantineColumns::fresh(), rows: 0 }
    }

    /// Appends a rejected message; gives the code of the reason.
    pub(super) fn append(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> &'static str {
        self.rows += 1;
        let body = message.payload.unwrap_or_default();
        let first = rejection.first();
        let reason = first.map_or("not_json", |problem| problem.reason.code());
        self.columns.topic.append_value(message.topic);
        self.columns.partition.append_value(message.partition);
        self.columns.offset.append_value(message.offset);
        self.columns.kafka_timestamp.append_option(message.timestamp_micros);
        self.columns.quarantined_at.append_value(now_micros);
        self.columns.reason.append_value(reason);
        self.columns.pointer.append_value(first.map_or("", |problem| &problem.pointer));
        self.columns.message.append_value(first.map_or("", |problem| &problem.message));
        self.columns.problems.append_value(i64::try_from(rejection.problems.len()).unwrap_or(i64::MAX));
        self.columns.size_bytes.append_value(i64::try_from(body.len()).unwrap_or(i64::MAX));
        let digest = Sha256::digest(body);
        self.columns.sha256.append_value(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        self.columns.head.append_value(masked_head(body));
        reason
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn finish(&mut self) -> Chunk {
        let columns = self.columns.columns(Table::Quarantine.columns());
        Chunk { rows: std::mem::take(&mut self.rows), columns }
    }
}
