//! Errors, time, weeks, back-off and digits for people, for every crate above the leaf crates. Knows neither storage nor tables.

mod backoff;
mod clock;
mod digits;
mod error;
mod week;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock, unique_id};
pub use digits::grouped;
pub use error::{Error, ErrorKind, Result};
pub use week::Week;
