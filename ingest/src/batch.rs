//! Decoded messages on their way to the tables: one row each, in `events` or in `quarantine`.

mod columns;
mod events;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use bellwether_event::{Decoder, Limits, Rejection};
use bellwether_lake::{Error, Result, Table};
use sha2::{Digest, Sha256};

use crate::batch::columns::{Column, Integer, Long, Text, Time};
use crate::batch::events::EventRows;
use crate::decode::{Message, decode};
use crate::redact::masked_head;

/// Memory of a row beside the text of its message: about 130 columns of fixed width.
const ROW_BYTES: usize = 1200;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is a row of `events`; the time of its statement, microseconds since the epoch.
    Event(i64),
    /// It is a row of `quarantine`, for the reason with this code.
    Quarantined(&'static str),
}

/// Grows rows of `events` and `quarantine`.
pub struct BatchBuilder {
    decoder: Decoder,
    events: EventRows,
    quarantine: QuarantineRows,
    bytes: usize,
}

// === impl BatchBuilder ===

impl BatchBuilder {
    /// Starts without rows.
    pub fn new(limits: Limits) -> Self {
        Self { decoder: Decoder::new(limits), events: EventRows::new(), quarantine: QuarantineRows::new(), bytes: 0 }
    }

    /// Decodes a message in place and appends exactly one row.
    pub fn push(&mut self, message: &Message<'_>, now_micros: i64) -> Pushed {
        let size = message.payload.map_or(0, <[u8]>::len);
        match decode(&mut self.decoder, message, now_micros, |event| {
            self.events.append(message, event, now_micros);
            event.time_micros
        }) {
            Ok(time_micros) => {
                self.bytes += size + ROW_BYTES;
                Pushed::Event(time_micros)
            }
            Err(rejection) => {
                self.bytes += size.min(crate::redact::HEAD_BYTES) + ROW_BYTES;
                Pushed::Quarantined(self.quarantine.append(message, &rejection, now_micros))
            }
        }
    }

    /// Rejects a message that was not read whole, as an overlong line of a file.
    pub fn reject(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> Pushed {
        self.bytes += ROW_BYTES;
        Pushed::Quarantined(self.quarantine.append(message, rejection, now_micros))
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.events.rows() + self.quarantine.rows
    }

    /// Bytes of memory held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows so far, of `events` and of `quarantine`; the builder is empty afterwards.
    ///
    /// # Errors
    /// `Bug` where the columns do not have their table's schema.
    pub fn finish(&mut self) -> Result<(RecordBatch, RecordBatch)> {
        self.bytes = 0;
        Ok((self.events.finish()?, self.quarantine.finish()?))
    }
}

struct QuarantineRows {
    rows: usize,
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
}

// === impl QuarantineRows ===

impl QuarantineRows {
    fn new() -> Self {
        Self {
            rows: 0,
            topic: Text::fresh(),
            partition: Integer::fresh(),
            offset: Long::fresh(),
            kafka_timestamp: Time::fresh(),
            quarantined_at: Time::fresh(),
            reason: Text::fresh(),
            pointer: Text::fresh(),
            message: Text::fresh(),
            problems: Long::fresh(),
            size_bytes: Long::fresh(),
            sha256: Text::fresh(),
            head: Text::fresh(),
        }
    }

    fn append(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> &'static str {
        self.rows += 1;
        let body = message.payload.unwrap_or_default();
        let first = rejection.first();
        let reason = first.map_or("not_json", |problem| problem.reason.code());
        self.topic.append_value(message.topic);
        self.partition.append_value(message.partition);
        self.offset.append_value(message.offset);
        self.kafka_timestamp.0.append_option(message.timestamp_micros);
        self.quarantined_at.0.append_value(now_micros);
        self.reason.append_value(reason);
        self.pointer.append_value(first.map_or("", |problem| &problem.pointer));
        self.message.append_value(first.map_or("", |problem| &problem.message));
        self.problems.append_value(i64::try_from(rejection.problems.len()).unwrap_or(i64::MAX));
        self.size_bytes.append_value(i64::try_from(body.len()).unwrap_or(i64::MAX));
        let digest = Sha256::digest(body);
        self.sha256.append_value(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        self.head.append_value(masked_head(body));
        reason
    }

    fn finish(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.kafka_timestamp.0.finish()),
            Arc::new(self.quarantined_at.0.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.pointer.finish()),
            Arc::new(self.message.finish()),
            Arc::new(self.problems.finish()),
            Arc::new(self.size_bytes.finish()),
            Arc::new(self.sha256.finish()),
            Arc::new(self.head.finish()),
        ];
        RecordBatch::try_new(Table::Quarantine.arrow_schema(), columns)
            .map_err(|source| Error::bug("rows of quarantine do not have their schema").with_source(source))
    }
}

#[cfg(test)]
mod tests;
