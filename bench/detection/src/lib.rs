//! The quality of detection, measured: simulated traffic from seeds, Bellwether's detectors and their peers beside one
//! another, tables and pictures.
//!
//! * [`chance`] and [`world`] make runs: sessions, tasks, tenants, seasons, heavy tails, and what goes wrong. [`event`]
//!   sends them as run events; [`detector`] and [`peer`] fold the same runs directly, which is a thousand times faster. A
//!   test of the whole system shows that both ways give the same counts and the same evidence.
//! * [`trial`] and [`series`] are one seed of a release and of a series; [`suite`] the scenarios with their targets; [`tally`] many seeds with their
//!   intervals.
//! * [`fleet`] is a whole company of tasks for six weeks, for all rules together.
//! * [`export`] gives the same series to peers that are Python packages, and takes their answers.
//! * [`page`] writes the tables of `docs/detection.md`, [`picture`] its pictures.
//!
//! Rules: a number of a table comes from a run of this program; seeds from 10,000 on were not looked at while detectors and
//! their parameters were chosen; nothing here reads a clock but the program's first line.

pub mod chance;
pub mod detector;
pub mod event;
pub mod export;
pub mod fleet;
pub mod page;
pub mod peer;
pub mod picture;
pub mod series;
pub mod suite;
pub mod tally;
pub mod trial;
pub mod world;
