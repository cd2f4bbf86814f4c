//! Read-only SQL over the tables of a lake.
//!
//! * [`Engine`] holds what a process shares: memory, snapshots of the tables, functions and views. [`Session`] is one client
//!   of it, with its limits and its tenant; [`Session::open`] makes both for a single use.
//! * `tables` caches the newest snapshots; `catalog` shows one of them, with the views, as a session may see it; `tenant` is
//!   the boundary between tenants. `view/*.sql` are the views; `ingest_numbers` is a relation of ingest's progress.
//! * `limits` holds a statement to its time, memory and rows; `pool` holds a session to its memory.
//! * `statement` splits SQL text and refuses whatever could write or read outside the lake; `prepared` binds parameters.
//! * `draft` reads statements that are still being written; `progress` says how far a running one is.
//! * `question` holds the saved questions; `question/*.sql` are those that the program brings along.
//! * `analysis` reads facts about a statement off its plan; `rows` is a table over rows in memory.
//! * `postgres` is the schema `pg_catalog` and the types that clients of Postgres know.
//! * `function` lists the SQL functions and holds those of detection.
//! * `typed` reads rows as values of a type.
//! * `older` adds missing columns to tables of an earlier version.
//! * `explain` turns DataFusion's errors into one message with a hint.
//! * [`reference_markdown`] generates the reference of all this.
//!
//! Rules: nothing here writes; memory is bounded by [`EngineSettings`] and [`SessionSettings`]; a view is one SQL file, with
//! its documentation in the first comment. This crate must not know Kafka, delivery of alerts, or files outside the lake.

mod analysis;
mod catalog;
mod division;
mod draft;
mod engine;
mod explain;
mod function;
mod guarded;
mod held;
mod ingest_numbers;
mod limits;
mod older;
mod pool;
mod postgres;
mod prepared;
mod progress;
mod question;
mod reference;
mod rows;
mod session;
mod settings;
mod small_files;
mod statement;
mod tables;
mod tenant;
mod typed;
mod view;
mod weighing;

pub use analysis::Analysis;
pub use bellwether_metrics::{CONTRIBUTION_COLUMNS, Planned, metrics_sql};
pub use catalog::{ColumnInfo, TableInfo, TableKind};
pub use datafusion::scalar::ScalarValue;
pub use draft::{Draft, Named, Place, ends_between_words, is_complete};
pub use engine::Engine;
pub use explain::nearest;
pub use function::{FunctionInfo, FunctionKind};
pub use limits::{Canceller, timed_out};
pub use postgres::{PgType, SERVER_VERSION};
pub use prepared::Prepared;
pub use progress::{Progress, ReadSoFar};
pub use question::{Parameter, Question, questions, since};
pub use reference::reference_markdown;
pub use session::{Answer, Session};
pub use settings::{EngineSettings, Gauge, Present, SessionSettings, SmallFiles};
pub use statement::{quoted, split};
pub use view::{View, views};
