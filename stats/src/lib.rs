//! The mathematics of Bellwether, pure: no I/O, no clock, no other room.
//!
//! Describing:
//! * [`sketch`]: quantiles from mergeable, subtractable, exact-integer histograms.
//! * [`weight`]: counts of runs that stand for several, exact.
//! * [`interval`]: confidence intervals of rates, ratios and means.
//! * [`clusters`]: intervals that stay right when runs come in sessions.
//! * [`figure`]: numbers as people read them.
//!
//! Detecting (DETECTION D1 to D12; evidence is in nats and may be looked at at any time):
//! * [`sequential`]: sums of evidence, e-detectors, thresholds; [`block`]: which windows are judged together.
//! * [`e2x2`]: bad outcomes of a canary against its baseline; [`histogram_e`]: distributions of the two.
//! * [`ratio_cs`]: costs and other ratios; [`drift`]: change against one's own past; [`rare`]: rare events.
//! * [`rhythm`]: what is usual at an hour of the week, and how improbable silence is there.
//! * [`wander`]: how much a rate wanders from hour to hour though nothing is wrong.
//! * [`distance`]: how far two distributions are apart, and how far chance alone would bring them.
//! * [`burn_rate`]: objectives; [`ebh`]: many series at once; [`liveness`]: what missing data means; [`srm`]: a split
//!   that is not what it should be.
//!
//! Explaining:
//! * [`attribution`]: what is behind a change (D10).

pub mod attribution;
pub mod block;
pub mod burn_rate;
pub mod clusters;
pub mod distance;
pub mod drift;
pub mod e2x2;
pub mod ebh;
pub mod figure;
pub mod histogram_e;
pub mod interval;
mod invalid;
pub mod liveness;
pub mod rare;
pub mod ratio_cs;
pub mod rhythm;
pub mod sequential;
pub mod sketch;
pub mod special;
pub mod srm;
#[cfg(test)]
mod testing;
pub mod wander;
pub mod weight;

pub use interval::Interval;
pub use invalid::Invalid;
pub use sketch::{Sketch, SketchError};
