//! The lake: table schemas, exactly-once append, reading by version, maintenance.
//!
//! * [`schema`] says what the tables are.
//! * [`commit`] is where the exactly-once decision is taken: a small trait with a Delta, a memory and a
//!   fault-injecting implementation.
//! * [`RowEncoder`] turns rows into Parquet while they come, so that a batch in memory is as small as its file.
//! * [`Lake`] is a root folder or `s3://` prefix with all tables in it: durable writing and reading of Parquet files.
//! * [`audit`] proves from what is stored that nothing is lost or doubled.
//! * [`Reading`] says how far ingest has read each partition, [`Layout`] how far aggregation is, by shard;
//!   [`Lease`] says which of several processes is to work.
//! * [`Handover`] passes freshly committed rows to a reader in the same process.
//!
//! * A table of an earlier version gets the columns that were added since when it is opened to be written (`form`).
//!
//! Rules: tables are append-only, without MERGE, deletion vectors or column mapping; data is durable before the log
//! names it; whatever cannot be told to have happened is looked up in the log by the commit's own id, never guessed.
//! This crate must not know Kafka, SQL text or alert rules.

pub mod audit;
pub mod clock;
pub mod commit;
mod delta;
mod encoder;
mod error;
mod form;
mod handover;
mod layout;
mod lease;
mod log;
mod lookup;
mod maintain;
mod offsets;
mod parquet_file;
pub mod reading;
mod reference;
mod root;
pub mod schema;
mod statistics;
mod store;
mod work;

pub use clock::{Clock, ManualClock, SystemClock, unique_id};
pub use commit::delta::DeltaLog;
pub use commit::{Advance, Commit, CommitLog, DataFile, Outcome, PartitionRange, Snapshot, settle};
pub use encoder::{Chunk, EncodedRows, RowEncoder, Span};
pub use error::{Error, ErrorKind, Result, lasts};
pub use handover::Handover;
pub use layout::{Layout, MOST_SHARDS, app_of};
pub use lease::Lease;
pub use log::{AddedFile, LogEntry, Protocol, TableMetadata};
pub use maintain::{MaintainSettings, Maintained};
pub use offsets::OffsetsOf;
pub use reading::Reading;
pub use reference::reference_markdown;
pub use root::{Lake, WrittenFile};
pub use schema::Table;
pub use store::StorageOptions;
