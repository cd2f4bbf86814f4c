//! Events from Kafka, or from a file, to the results of SQL queries.

pub(crate) mod alerts;
mod audit;
mod bad_input;
mod bounds;
mod demo;
pub(crate) mod erase;
mod evolution;
mod exact;
mod failing;
mod fleet;
mod foreign;
mod framing;
mod gaps;
mod life;
mod limits;
mod maintain;
mod memory;
mod one_definition;
mod questions;
mod reader;
mod replay;
mod settings;
mod stall;
mod strata;
mod sums;
pub(crate) mod tau2;
pub(crate) mod views;
