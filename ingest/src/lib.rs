//! Ingestion: reads Kafka or files into `events` and `quarantine`, each message exactly once.
//!
//! * [`decode`] recognises the supported framings; the `event` crate decides which events are rejected.
//! * [`batch`] builds rows, and [`redact`] masks the stored part of rejected messages.
//! * [`commit_pipeline`] commits batches to the tables by the exactly-once protocol.
//! * [`heartbeat`] sends messages that become no row, and recognises them.
//! * [`login`] gives clients of Kafka their tokens.
//! * [`source`] reads Kafka and files, [`worker`] runs the role, and [`replay`] ingests or sends recorded events.
//!
//! This crate must not know SQL, rules or the aggregate crate.

pub mod batch;
pub mod commit_pipeline;
pub mod decode;
pub mod health;
pub mod heartbeat;
pub mod login;
pub mod metrics;
pub mod redact;
pub mod replay;
pub mod source;
pub mod topic_partition;
pub mod worker;

pub use batch::{BatchBuilder, Pushed, RowBuilder};
pub use decode::Message;
pub use health::{IngestHealth, IngestStatus};
pub use heartbeat::{HeartbeatPlace, HeartbeatSender};
pub use metrics::IngestMetrics;
pub use source::kafka::settings::{FlushSettings, KafkaSettings, Start};
pub use topic_partition::TopicPartition;
