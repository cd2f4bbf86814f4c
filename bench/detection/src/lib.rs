//! Measures the quality of detection: simulated traffic from seeds, Bellwether's detectors next to their peers, tables
//! and pictures.
//!
//! * [`chance`] and [`world`] generate runs: sessions, tasks, tenants, seasons, heavy tails, and faults. [`event`]
//!   sends them as run events; [`detector`] and [`peer`] process the same runs directly, which is a thousand times
//!   faster. A test of the whole system shows that both ways give the same counts and the same evidence.
//! * [`trial`] and [`series`] run one seed of a release and of a series; [`suite`] has the scenarios with their
//!   targets; [`tally`] aggregates seeds with confidence intervals.
//! * [`fleet`] is a company's tasks over six weeks, for all rules together.
//! * [`gates`] measures the gate beside other ways to decide about a canary.
//! * [`export`] writes the same series for peers that are Python packages, and reads their results.
//! * [`page`] writes the tables of `docs/detection.md`, [`picture`] its pictures.
//!
//! Rules: every number in a table comes from a run of this program; seeds from 10,000 on were not used while detectors
//! and their parameters were chosen; only the program's start reads a clock.

pub mod chance;
pub mod detector;
pub mod event;
pub mod export;
pub mod fleet;
pub mod gates;
pub mod page;
pub mod peer;
pub mod picture;
pub mod series;
pub mod suite;
pub mod tally;
pub mod trial;
pub mod world;
