//! Alerts: rules over the tables, and the role that evaluates them.
//!
//! * [`rule`]: TOML files with SQL and a detector; the shipped ones are in `rules/`.
//! * [`contract`]: objectives and bounds of a task.
//! * [`engine`]: evaluates all rules on rows in memory.
//! * [`watch`]: the role; follows the tables by version and writes `alerts`.
//! * `failing`: alerts about failing rules.
//! * `ledger`: the transitions in the table; [`record`]: its rows; [`title`]: their titles; [`current`]: the present state of each alert.
//! * [`gate`]: whether a release may go on, by the metrics of the rules.
//! * `query`: SQL that returns the numbers of an alert again.
//! * [`hands`]: what people do about alerts.
//! * [`history`]: replays a rule; [`test_file`]: unit tests of rules.
//!
//! Invariants: a broken rule never stops the others; no transition is appended twice; the result is the same live, after a
//! restart, and replayed over history. This crate must not know Kafka, Parquet or the Delta format.

pub mod contract;
pub mod current;
pub mod engine;
mod failing;
pub mod gate;
pub mod hands;
pub mod history;
mod ledger;
mod metrics;
mod observe;
mod progress;
mod query;
mod read;
pub mod record;
pub mod rule;
pub mod test_file;
pub mod title;
pub mod watch;

pub use bellwether_detect::Season;
pub use contract::{Contract, Contracts};
pub use engine::{BudgetSettings, Engine};
pub use rule::{Rule, Rules};
pub use watch::{Watch, WatchSettings, Watcher, run};
