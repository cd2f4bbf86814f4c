//! Errors, time and back-off for every crate above the leaf crates.

mod backoff;

pub use backoff::Backoff;
pub use bellwether_lake::{Clock, Error, ErrorKind, ManualClock, Result, SystemClock, unique_id};
