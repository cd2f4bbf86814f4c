//! Ingestion: from Kafka or files into `events` and `quarantine`, each message exactly once.
//!
//! * [`decode`] tells the accepted framings apart; what is rejected and why is decided in the `event` crate.
//! * [`batch`] grows rows, [`redact`] masks what is kept of rejected messages.
//! * [`commit_pipeline`] puts batches into the tables by the exactly-once protocol.
//! * [`source`] reads Kafka and files; [`worker`] runs it all; [`replay`] sends recorded events.
//!
//! This crate must not know SQL or rules, nor the aggregate room.

pub mod batch;
pub mod commit_pipeline;
pub mod decode;
pub mod health;
pub mod metrics;
pub mod redact;
pub mod replay;
pub mod source;
pub mod worker;

pub use batch::{BatchBuilder, Pushed, RowBuilder};
pub use decode::Message;
pub use health::{Health, Status};
pub use metrics::Metrics;
pub use source::kafka::settings::{FlushSettings, KafkaSettings, Start};
