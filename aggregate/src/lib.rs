//! Aggregation: tails `events` by version and appends signed partials to `metrics`, each version exactly once.
//!
//! * [`statement`] says which of several statements about one run counts.
//! * `run_index` remembers the statement that counts for each run.
//! * `contribution` turns new rows into signed contributions, and these into partials by the one definition.
//! * `tail_loop` reads versions and commits; `releases` and `rolling_history` go along.
//! * [`recompute`] does the same from scratch, for audits.
//!
//! This crate must not know Kafka or the delivery of alerts.

mod contribution;
mod metrics;
pub mod recompute;
mod releases;
mod rolling_history;
mod run_index;
mod sql;
pub mod statement;
mod tail_loop;

pub use sql::EVENT_COLUMNS;
pub use tail_loop::{Aggregator, Settings, run};
