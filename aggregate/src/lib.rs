//! Aggregation: tails `events` by version and appends signed partials to `metrics`, each version exactly once.
//!
//! * [`statement`] tells statements apart; `run_index` remembers where those about each run are, `files` in which files.
//! * `contribution` turns new rows into signed contributions, and these into partials, by the one definition of the metrics
//!   room.
//! * `tail` reads versions, `tail_loop` commits what they add; `releases` and `rolling_history` go along.
//! * `rebuild` makes everything anew and puts it in place in one commit a table.
//! * [`recompute`] does the same from scratch, for audits.
//!
//! This crate must not know Kafka or the delivery of alerts.

mod contribution;
mod exported;
mod files;
mod metrics;
mod rebuild;
pub mod recompute;
mod releases;
mod rolling_history;
mod run_index;
mod sql;
pub mod statement;
mod tail;
mod tail_loop;
mod waiting;

pub use rebuild::{Rebuilt, rebuild};
pub use sql::event_columns;
pub use tail_loop::{Aggregator, Duty, Settings, Until, run, run_on_duty};
