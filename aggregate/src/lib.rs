//! Aggregation: tails `events` by version and appends signed partials to `metrics`, each version exactly once.
//!
//! * [`statement`] tells statements apart; `run_index` remembers where those about each run are, `files` in which files.
//! * `contribution` turns new rows into signed contributions, and these into partials, by the one definition of the metrics
//!   room.
//! * `tail_loop` reads versions and commits; `releases` and `rolling_history` go along.
//! * [`recompute`] does the same from scratch, for audits.
//!
//! This crate must not know Kafka or the delivery of alerts.

mod contribution;
mod files;
mod metrics;
pub mod recompute;
mod releases;
mod rolling_history;
mod run_index;
mod sql;
pub mod statement;
mod tail_loop;

pub use sql::event_columns;
pub use tail_loop::{Aggregator, Settings, run};
