//! Alerts: rules over the tables, and the role that watches them.
//!
//! * [`rule`]: TOML files with SQL and a detector; the shipped ones are in `rules/`.
//! * [`contract`]: what a task promises.
//! * [`engine`]: all rules at work, on rows in memory.
//! * [`watch`]: the role: follows the tables by version and writes `alerts`.
//! * `failing`: alerts about rules that fail; `health`: how the role does.
//! * `ledger`: what has been told; [`record`]: rows of the table; `query`: the SQL that gives an alert's numbers again.
//! * [`history`]: what a rule would have fired; [`test_file`]: unit tests of rules.
//!
//! Rules kept here: one broken rule never stops the others; nothing is told twice; the result is the same live, after a
//! restart and replayed over history. This crate must not know Kafka, Parquet or the Delta format.

pub mod contract;
pub mod engine;
mod failing;
mod health;
pub mod history;
mod ledger;
mod metrics;
mod observe;
mod progress;
mod query;
pub mod read;
pub mod record;
pub mod rule;
pub mod standing;
pub mod test_file;
pub mod watch;

pub use bellwether_detect::Season;
pub use contract::{Contract, Contracts};
pub use engine::{BudgetSettings, Engine};
pub use health::Health;
pub use rule::{Rule, Rules};
pub use watch::{Settings, Watch, Watcher, run};
