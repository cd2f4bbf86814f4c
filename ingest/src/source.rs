//! The sources of messages: Kafka and files.

pub mod file;
pub mod kafka;
pub mod open_batch;
pub mod read_progress;
