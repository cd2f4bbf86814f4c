//! Late outcomes: what is said of a run after it, or before it, and that the order makes no difference.
//!
//! * `answers`: docs/late-outcomes.md, case by case. `order`: any order, repeats, cuts, partitions, restarts and horizons.
//! * `model` is the rules once more, as plain code, and the tables say the same.
//! * `weighted` is about runs that stand for several.
//! * `tau2` does so with real agent runs; `rebuild` and `standby` are about the aggregators themselves.
//! * `feed` puts statements into a lake as ingest would, and reads answers back.

mod answers;
pub(crate) mod feed;
mod model;
mod order;
mod rebuild;
mod standby;
mod tau2;
mod weighted;
