//! From production runs to candidates for review: the role that follows `events` and writes the table `candidates`.
//!
//! * [`settings`]: the section `[evals]` of a configuration.
//! * [`facts`]: runs as the classification sees them, and the SQL that reads them. [`class`]: failure classes.
//! * [`draw`]: the sample of a week, in memory that depends on the budget and not on the traffic.
//! * [`outlook`]: what a budget would give in a week.
//! * [`row`]: rows of `candidates`. [`evaluate`]: the change from the candidates in the table to those of a new sample.
//! * `leaks`: near cases of both splits of an eval set, and cases that a prompt knows.
//! * `sampler`: the role. [`cases`]: eval cases from decided candidates, and candidates that would fill the gaps of a set.
//!
//! Rules: the sample of a week is a function of the events about the runs that ended in it, without reviews. A review of a
//! candidate therefore changes neither the sample nor its probabilities, and shares among reviewed runs estimate production.
//! The table only grows: a run that leaves the sample gets a row that says so. The order of events, the number of evaluations
//! and restarts change which rows are written, but never the candidates that remain.

pub mod cases;
pub mod class;
pub mod draw;
pub mod evaluate;
pub mod facts;
mod leaks;
pub mod outlook;
pub mod row;
mod sampler;
pub mod settings;

pub use leaks::leaks_of;
pub use sampler::{Sample, SampleSetup, Sampler, resample, run};
pub use settings::EvalsSettings;
