//! Builds the page of an alert: what the row in `alerts` says, and what the tables say about it.
//!
//! * [`record`]: a row of `alerts`. [`page`]: the whole page, and a minimal one for when there is no time to read tables.
//! * [`source`]: a session over the tables as an alert saw them, and the pages built from it.
//! * [`links`]: templates of links to other services.
//! * `numbers`: what the row itself says, in words. `measure`: the runs that are bad by each shipped rule.
//! * `comparison`: the two sides of an alert, and the span of time that is examined. `runs`: the runs in it.
//! * One file for each part that the tables tell: `coverage`, `changes`, `slices` (with mix and rate), `examples`, `cost`,
//!   `candidates`, `reproduce`, `rollback`.
//! * `ask`: statements and their answers.
//!
//! Rules: a part that the data does not tell is absent, and one that fails is absent with a note. A page shows ids, statuses,
//! classes of errors, durations and costs, but no text of a run. Nothing here writes, waits or sends.

mod ask;
mod candidates;
mod changes;
mod comparison;
mod cost;
mod coverage;
mod examples;
pub mod links;
mod measure;
mod numbers;
pub mod page;
pub mod record;
mod reproduce;
mod rollback;
mod runs;
mod slices;
pub mod source;

pub use changes::{Changes, changes_of_release};
pub use links::{LinkSettings, Links};
pub use page::{Versions, build, minimal};
pub use record::AlertRecord;
pub use source::PageSource;
