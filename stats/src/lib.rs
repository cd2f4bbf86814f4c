//! The mathematics of Bellwether, pure: no I/O, no clock, no other room.
//!
//! * [`sketch`]: quantiles from mergeable, subtractable, exact-integer histograms.
//! * [`interval`]: confidence intervals of rates, ratios and means.
//! * [`clusters`]: intervals that stay right when runs come in sessions.

pub mod clusters;
pub mod interval;
pub mod sketch;

pub use interval::Interval;
pub use sketch::{Sketch, SketchError};
