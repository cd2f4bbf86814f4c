//! Storage: exactly-once append, reading by version, maintenance.
//!
//! * [`commit`] takes the exactly-once decision: a small trait with a Delta, an in-memory and a fault-injecting
//!   implementation.
//! * [`RowEncoder`] encodes rows as Parquet while they arrive, so that a batch in memory is as small as its file.
//! * [`Lake`] is the root of all tables: a folder, or an address in an object store. It writes data files durably and reads
//!   them.
//! * [`Reading`] reports how far ingest has read each partition, [`Layout`] how far each shard has aggregated;
//!   [`Lease`] decides which of several processes works.
//! * [`Rolled`] reports which rows of `metrics` its roll-ups hold, and how to read a span from them.
//! * [`Handover`] passes freshly committed rows to a reader in the same process.
//! * [`values_of`] turns rows into values of a type.
//! * [`inspect`] opens the log's parts to the crate that audits it.
//! * Opening a table for writing adds the columns that later versions introduced (`form`).
//!
//! Rules: tables are append-only, without MERGE, deletion vectors or column mapping. Data is durable before the log names
//! it. An unclear commit is looked up in the log by its own id, never guessed. This crate knows neither Kafka nor SQL text
//! nor alert rules.

mod bounds;
pub mod commit;
mod delta;
mod encoder;
mod form;
mod handover;
mod layout;
mod lease;
mod log;
mod lookup;
mod maintain;
mod offsets;
mod once;
mod parquet_file;
pub mod reading;
pub mod rollup;
mod root;
mod statistics;
mod store;
mod stored;
mod values;
mod work;

/// Parts of a log and of data files, for a crate that inspects a root and writes nothing.
pub mod inspect {
    pub use crate::commit::checkpoint::LastCheckpoint;
    pub use crate::commit::delta::entry_version;
    pub use crate::form::Form;
    pub use crate::log::{LOG_FOLDER, entry_path};
    pub use crate::parquet_file::batches;
    pub use crate::statistics::statistics;
    pub use crate::store::NAME_THE_ROOT;
}

pub use bounds::StatedBounds;
pub use commit::delta::DeltaLog;
pub use commit::{Advance, Commit, CommitLog, DataFile, Outcome, PartitionRange, Snapshot, settle};
pub use encoder::{Chunk, EncodedRows, RowEncoder, Span};
pub use handover::Handover;
pub use layout::{Layout, MOST_SHARDS, app_of};
pub use lease::Lease;
pub use log::{AddedFile, LogEntry, Protocol, RemovedRows, TableMetadata};
pub use maintain::{
    Act, Amount, CleanedLog, CleanedPartition, CleanedRange, Edit, Edited, Fold, Held, Holder, MaintainSettings,
    Maintained, Retention, Rewriting, Scanned, Tokens, Waits,
};
pub use offsets::OffsetsOf;
pub use reading::Reading;
pub use rollup::{RollUp, Rolled};
pub use root::{Lake, WrittenFile, files_of};
pub use store::StorageOptions;
pub use stored::{Stored, is_permanent};
pub use values::values_of;
