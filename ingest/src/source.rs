//! Where messages come from.

pub mod ends;
pub mod file;
pub mod kafka;
pub mod open_batch;
