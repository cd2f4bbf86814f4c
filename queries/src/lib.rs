//! Queries: one read-only SQL session over the tables of a lake.
//!
//! * [`Session`] plans and runs statements; it sees the newest commit of every table at each statement.
//! * `catalog` holds the tables and plans views when a statement names them; `view/*.sql` are the views; `ingest_numbers` is
//!   what the log of `events` says beside its rows.
//! * `limits` holds a running statement to its time, memory and rows.
//! * `statement` splits SQL text and refuses whatever could write or read outside the lake.
//! * `function` lists functions and holds those that need the catalog.
//! * `analysis` reads facts about a statement off its plan; `rows` is a table over rows in memory.
//! * `older` gives tables of an earlier version the columns that they lack.
//! * `explain` turns the engine's errors into one message with a hint.
//! * [`reference_markdown`] is the generated reference of it all.
//!
//! Rules: nothing here writes; memory is bounded by [`SessionSettings`]; a view is one SQL file whose first comment is
//! its documentation. This crate must not know Kafka, delivery of alerts, or files outside the lake.

mod analysis;
mod catalog;
mod division;
mod explain;
mod function;
mod guarded;
mod held;
mod ingest_numbers;
mod limits;
mod older;
mod reference;
mod rows;
mod session;
mod statement;
mod view;
mod weighing;

pub use analysis::Analysis;
pub use bellwether_metrics::Planned;
pub use catalog::{ColumnInfo, TableInfo, TableKind};
pub use function::{FunctionInfo, FunctionKind};
pub use limits::Gauge;
pub use reference::reference_markdown;
pub use session::{Answer, Present, Session, SessionSettings};
pub use statement::split;
pub use view::{View, views};
