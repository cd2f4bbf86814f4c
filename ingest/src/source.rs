//! Where messages come from.

pub mod file;
pub mod kafka;
