//! Late outcomes: statements about a run may arrive in any order, before or after it, with the same result.
//!
//! * `answers` tests docs/late-outcomes.md case by case; `order` varies order, repeats, commits, partitions, restarts and
//!   horizons.
//! * `model` implements the rules as plain code and compares the tables with it.
//! * `spans` compares spans of days, hours and minutes with the minutes alone.
//! * `weighted` covers sampled runs, each of which counts for several.
//! * `tau2` repeats the comparison with real agent runs; `rebuild`, `rollup` and `standby` cover the
//!   aggregators themselves.
//! * `sampled` draws the sample for review from real agent runs.
//! * `erase` erases runs between statements.
//! * `groups` covers thousands of groups within bounds on memory.
//! * `feed` commits statements to a lake as ingest would and queries it.

mod answers;
mod erase;
pub(crate) mod feed;
mod groups;
mod model;
mod order;
mod rebuild;
mod rollup;
mod sampled;
mod spans;
mod standby;
mod tau2;
mod weighted;
