//! Aggregation: follows `events` by version and appends signed partials to `metrics`, each version exactly once.
//!
//! * `aggregator` is the role. `tail` reads versions, and `settings` has their bounds.
//! * `statement` distinguishes statements. `run_index` holds the positions of the statements about each run, and `files` their
//!   files.
//! * `runs` turns new rows into signed contributions, and `sums` these into partials, by the one definition of the metrics
//!   crate.
//! * `releases` and `rolling_history` keep the tables of these names; `stored_rows` runs the queries of the latter, `in_turn`
//!   reads its tables one after the other, and `exported` shows it to Prometheus.
//! * `pieces` reads stored files piece by piece, for these queries and for roll-ups.
//! * [`rollup`] is the role that folds `metrics` by hour and by day.
//! * `rebuild` recomputes everything and replaces each table in one commit; `kept` are the rows that it leaves.
//! * [`erase`] removes a subject from every table, and keeps its contributions to the figures.
//! * [`recompute`] computes the metrics from scratch, for audits; `compare` compares them with the table, as [`rollup`]s with theirs.
//!
//! This crate must not know Kafka or the delivery of alerts.

mod aggregator;
mod compare;
pub mod erase;
mod exported;
mod files;
mod fold;
mod in_turn;
mod kept;
mod metrics;
mod pieces;
mod rebuild;
pub mod recompute;
mod releases;
mod rolling_history;
pub mod rollup;
mod run_index;
mod runs;
mod settings;
mod sql;
mod statement;
mod stored_rows;
mod sums;
mod tail;
mod waiting;

pub use aggregator::{Aggregate, AggregateSetup, Aggregator, run};
pub use compare::Compared;
pub use fold::PartialsFold;
pub use rebuild::{Rebuilt, rebuild, recomputed_from};
pub use settings::AggregatorSettings;
pub use sql::event_columns;
