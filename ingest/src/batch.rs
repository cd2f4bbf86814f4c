//! Builds rows from messages: each message becomes one row, of `events` or of `quarantine`.
//!
//! * [`RowBuilder`] decodes messages into a chunk of columns.
//! * [`BatchBuilder`] encodes each full chunk as Parquet, so a batch takes little more memory than its file.

mod columns;
mod event_columns;
mod events;
mod quarantine;
mod releases;

use std::sync::Arc;

use bellwether_base::{Error, Result};
use bellwether_event::{Decoder, Limits, Rejection};
use bellwether_lake::{Chunk, EncodedRows, RowEncoder};
use bellwether_redact::Redactor;
use bellwether_tables::Table;

use crate::batch::events::EventRows;
use crate::batch::quarantine::QuarantineRows;
use crate::decode::{Message, decode};

/// Memory of a row in addition to its message: some forty fixed-width columns with a value, doubled for the capacity that their
/// builders reserve.
const ROW_BYTES: usize = 1200;

/// Most rows in a chunk: few enough to stay in the processor's cache between decoding and encoding, and enough to make the
/// fixed cost of a column small.
const CHUNK_ROWS: usize = 2048;

/// Most bytes in a chunk.
const CHUNK_BYTES: usize = 8 << 20;

/// The row that a message became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// A row of `events`, with its event time in microseconds since the epoch.
    Event(i64),
    /// A row of `quarantine`, with its reason code.
    Quarantined(&'static str),
}

/// Builds rows of `events` and `quarantine`.
pub struct RowBuilder {
    decoder: Decoder,
    events: EventRows,
    quarantine: QuarantineRows,
    redactor: Arc<Redactor>,
    bytes: usize,
}

/// Builds a batch of rows, encoding one chunk at a time.
pub struct BatchBuilder {
    open: RowBuilder,
    events: RowEncoder,
    quarantine: RowEncoder,
    /// The first encoding error, which [`Self::finish`] returns.
    failed: Option<Error>,
}

// === impl RowBuilder ===

impl RowBuilder {
    /// Creates an empty builder with the default policy of redaction.
    pub fn new(limits: Limits) -> Self {
        let (events, quarantine) = (EventRows::new(), QuarantineRows::new());
        Self { decoder: Decoder::new(limits), events, quarantine, redactor: Arc::default(), bytes: 0 }
    }

    /// Redacts by this policy.
    pub fn redacting(self, redactor: Arc<Redactor>) -> Self {
        Self { redactor, ..self }
    }

    /// Decodes a message and appends exactly one row.
    pub fn push(&mut self, message: &Message<'_>, now_micros: i64) -> Pushed {
        let size = message.payload.map_or(0, <[u8]>::len);
        match decode(&mut self.decoder, message, now_micros, |event| {
            self.events.append(message, event, &self.redactor, now_micros);
            event.time_micros
        }) {
            Ok(time_micros) => {
                self.bytes += size + ROW_BYTES;
                Pushed::Event(time_micros)
            }
            Err(rejection) => {
                self.bytes += size.min(crate::redact::HEAD_BYTES) + ROW_BYTES;
                Pushed::Quarantined(self.quarantine.append(message, &rejection, &self.redactor, now_micros))
            }
        }
    }

    /// Rejects a message that was not read completely, such as an overlong line of a file.
    pub fn reject(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> Pushed {
        self.bytes += ROW_BYTES;
        Pushed::Quarantined(self.quarantine.append(message, rejection, &self.redactor, now_micros))
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.events.rows() + self.quarantine.rows()
    }

    /// Returns the approximate memory of the rows, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the rows of `events` and of `quarantine`, and empties the builder.
    pub fn finish(&mut self) -> (Chunk, Chunk) {
        self.bytes = 0;
        (self.events.finish(), self.quarantine.finish())
    }
}

// === impl BatchBuilder ===

impl BatchBuilder {
    /// Creates an empty builder with the default policy of redaction.
    pub fn new(limits: Limits) -> Self {
        Self {
            open: RowBuilder::new(limits),
            events: RowEncoder::new(Table::Events),
            quarantine: RowEncoder::new(Table::Quarantine),
            failed: None,
        }
    }

    /// Redacts by this policy.
    pub fn redacting(self, redactor: Arc<Redactor>) -> Self {
        Self { open: self.open.redacting(redactor), ..self }
    }

    /// Keeps these columns of `events` in memory, for a reader in the same process.
    ///
    /// # Errors
    /// `Bug` if `events` lacks one of the columns.
    pub fn handing_on(self, columns: &[&str]) -> Result<Self> {
        Ok(Self { events: self.events.handing_on(columns)?, ..self })
    }

    /// Decodes a message and appends exactly one row.
    pub fn push(&mut self, message: &Message<'_>, now_micros: i64) -> Pushed {
        let pushed = self.open.push(message, now_micros);
        self.encode_full_chunk();
        pushed
    }

    /// Rejects a message that was not read completely, such as an overlong line of a file.
    pub fn reject(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> Pushed {
        let pushed = self.open.reject(message, rejection, now_micros);
        self.encode_full_chunk();
        pushed
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.open.rows() + self.events.rows() + self.quarantine.rows()
    }

    /// Returns the approximate memory of the rows, in bytes.
    pub fn bytes(&self) -> usize {
        self.open.bytes() + self.events.bytes() + self.quarantine.bytes()
    }

    /// Returns the rows of `events` and of `quarantine`, and empties the builder.
    ///
    /// # Errors
    /// `Bug` if the columns do not match the schema of their table.
    pub fn finish(&mut self) -> Result<(EncodedRows, EncodedRows)> {
        self.encode_chunk();
        let batch = (self.events.finish()?, self.quarantine.finish()?);
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(batch),
        }
    }

    fn encode_full_chunk(&mut self) {
        if self.open.rows() >= CHUNK_ROWS || self.open.bytes() >= CHUNK_BYTES {
            self.encode_chunk();
        }
    }

    fn encode_chunk(&mut self) {
        let (events, quarantine) = self.open.finish();
        let encoded = self.events.push(&events).and_then(|()| self.quarantine.push(&quarantine));
        if let Err(error) = encoded {
            self.failed.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod sentinel;
#[cfg(test)]
mod tests;
