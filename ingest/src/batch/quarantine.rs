//! The columns of `quarantine`, and the conversion of a rejected message to a row.

use bellwether_event::Rejection;
use bellwether_lake::Chunk;
use bellwether_redact::Redactor;
use bellwether_tables::Table;
use sha2::{Digest, Sha256};

use super::columns::{ColumnSet, Integer, Long, Text, TextMap, Time, column_set};
use crate::decode::Message;
use crate::redact::{masked_head, redactions};

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
    redaction: TextMap,
});

/// Builds rows of `quarantine`.
pub(super) struct QuarantineRows {
    columns: QuarantineColumns,
    rows: usize,
}

// === impl QuarantineRows ===

impl QuarantineRows {
    pub(super) fn new() -> Self {
        Self { columns: QuarantineColumns::new(), rows: 0 }
    }

    /// Appends a rejected message, and returns its reason code.
    pub(super) fn append(
        &mut self,
        message: &Message<'_>,
        rejection: &Rejection,
        redactor: &Redactor,
        now_micros: i64,
    ) -> &'static str {
        let (row, columns) = (self.rows, &mut self.columns);
        self.rows += 1;
        let body = message.payload.unwrap_or_default();
        let session = &mut redactor.session_of(body);
        let first = rejection.first();
        let reason = first.map_or("not_json", |problem| problem.reason.code());
        columns.topic.put(row, message.topic);
        columns.partition.put(row, message.partition);
        columns.offset.put(row, message.offset);
        columns.kafka_timestamp.put_option(row, message.timestamp_micros);
        columns.quarantined_at.put(row, now_micros);
        columns.reason.put(row, reason);
        // A pointer has keys of the message. Problems quote no values; if one ever does, it is redacted as well.
        columns.pointer.put(row, session.text(first.map_or("", |problem| &problem.pointer)));
        columns.message.put(row, session.text(first.map_or("", |problem| &problem.message)));
        columns.problems.put(row, i64::try_from(rejection.problems.len()).unwrap_or(i64::MAX));
        columns.size_bytes.put(row, i64::try_from(body.len()).unwrap_or(i64::MAX));
        let digest = Sha256::digest(body);
        columns.sha256.put(row, digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        columns.head.put(row, masked_head(body, session));
        let redaction = redactions(redactor, session);
        columns.redaction.put(row, redaction.iter().map(|(name, value)| (*name, &**value)));
        reason
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn finish(&mut self) -> Chunk {
        let rows = std::mem::take(&mut self.rows);
        Chunk { rows, columns: self.columns.columns(Table::Quarantine.columns(), rows) }
    }
}
