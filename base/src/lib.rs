//! The ground that every crate above the leaf crates stands on: errors, time and back-off. Knows no storage and no table.

mod backoff;
mod clock;
mod error;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock, unique_id};
pub use error::{Error, ErrorKind, Result};
