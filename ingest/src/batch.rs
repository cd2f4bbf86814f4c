//! Decoded messages on their way to the tables: one row each, in `events` or in `quarantine`.
//!
//! * [`RowBuilder`] decodes messages into a chunk of columns.
//! * [`BatchBuilder`] encodes each chunk as Parquet when it is full, so that a batch is held about as small as its file.

mod columns;
mod events;
mod quarantine;
mod releases;

use bellwether_base::{Error, Result};
use bellwether_event::{Decoder, Limits, Rejection};
use bellwether_lake::{Chunk, EncodedRows, RowEncoder};
use bellwether_tables::Table;

use crate::batch::events::EventRows;
use crate::batch::quarantine::QuarantineRows;
use crate::decode::{Message, decode};

/// Memory of a row beside the text of its message: some forty columns of fixed width that have values, and as much again
/// for what their builders have reserved.
const ROW_BYTES: usize = 1200;

/// Rows in a chunk at most: as few as stay in a processor's cache between being decoded and being encoded, as many as make
/// the cost of a column small.
const CHUNK_ROWS: usize = 2048;

/// Bytes of a chunk at most.
const CHUNK_BYTES: usize = 8 << 20;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is a row of `events`; the time of its statement, microseconds since the epoch.
    Event(i64),
    /// It is a row of `quarantine`, for the reason with this code.
    Quarantined(&'static str),
}

/// Grows rows of `events` and `quarantine`.
pub struct RowBuilder {
    decoder: Decoder,
    events: EventRows,
    quarantine: QuarantineRows,
    bytes: usize,
}

/// Grows a batch: rows, encoded a chunk at a time.
pub struct BatchBuilder {
    open: RowBuilder,
    events: RowEncoder,
    quarantine: RowEncoder,
    /// Why a chunk could not be encoded.
    failed: Option<Error>,
}

// === impl RowBuilder ===

impl RowBuilder {
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
        self.events.rows() + self.quarantine.rows()
    }

    /// Bytes of memory held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows so far, of `events` and of `quarantine`; the builder is empty afterwards.
    pub fn finish(&mut self) -> (Chunk, Chunk) {
        self.bytes = 0;
        (self.events.finish(), self.quarantine.finish())
    }
}

// === impl BatchBuilder ===

impl BatchBuilder {
    /// Starts without rows.
    pub fn new(limits: Limits) -> Self {
        Self {
            open: RowBuilder::new(limits),
            events: RowEncoder::new(Table::Events),
            quarantine: RowEncoder::new(Table::Quarantine),
            failed: None,
        }
    }

    /// Keeps these columns of `events` in memory too, for a reader in the same process.
    ///
    /// # Errors
    /// `Bug` where `events` has no such column.
    pub fn handing_on(self, columns: &[&str]) -> Result<Self> {
        Ok(Self { events: self.events.handing_on(columns)?, ..self })
    }

    /// Decodes a message in place and appends exactly one row.
    pub fn push(&mut self, message: &Message<'_>, now_micros: i64) -> Pushed {
        let pushed = self.open.push(message, now_micros);
        self.encode_full_chunk();
        pushed
    }

    /// Rejects a message that was not read whole, as an overlong line of a file.
    pub fn reject(&mut self, message: &Message<'_>, rejection: &Rejection, now_micros: i64) -> Pushed {
        let pushed = self.open.reject(message, rejection, now_micros);
        self.encode_full_chunk();
        pushed
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.open.rows() + self.events.rows() + self.quarantine.rows()
    }

    /// Bytes of memory held, about.
    pub fn bytes(&self) -> usize {
        self.open.bytes() + self.events.bytes() + self.quarantine.bytes()
    }

    /// The rows so far, of `events` and of `quarantine`; the builder is empty afterwards.
    ///
    /// # Errors
    /// `Bug` where the columns do not have their table's schema.
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
