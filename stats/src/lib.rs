//! Statistics for Bellwether, pure: no I/O, no clock, no dependency on another crate of the workspace.
//!
//! Describing:
//! * [`sketch`]: quantiles from mergeable, subtractable, exact-integer histograms.
//! * [`weight`]: exact counts of sampled runs.
//! * [`interval`]: confidence intervals for rates, ratios and means.
//! * [`clusters`]: confidence intervals for runs that are correlated within sessions.
//! * [`survey`]: totals and shares from samples with known inclusion probabilities; [`agreement`]: raters beyond chance;
//!   [`judge`]: success corrected for the errors of a judge.
//! * [`figure`]: numbers formatted for people.
//! * [`pack`]: packed copies of state; [`varint`]: their integers.
//!
//! Detecting (DETECTION D1 to D12; evidence is in nats and remains valid however often it is inspected):
//! * [`sequential`]: sums of evidence, e-detectors, thresholds; [`block`]: windows grouped for one judgement.
//! * [`e2x2`]: rate of bad outcomes, canary against baseline; [`histogram_e`]: distributions, canary against baseline.
//! * [`ratio_cs`]: costs and other ratios; [`drift`]: change against a series' own past; [`rare`]: rare events.
//! * [`rhythm`]: usual traffic by hour of the week, and the probability of silence.
//! * [`wander`]: the normal variation of a rate from hour to hour.
//! * [`distance`]: distance between two distributions, compared with its distribution under no change.
//! * [`burn_rate`]: objectives; [`ebh`]: multiple testing; [`liveness`]: the meaning of missing data; [`srm`]:
//!   sample-ratio mismatch.
//!
//! Explaining:
//! * [`attribution`]: the slices of traffic responsible for a change (D10).

pub mod agreement;
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
pub mod judge;
pub mod liveness;
pub mod pack;
pub mod rare;
pub mod ratio_cs;
pub mod rhythm;
pub mod sequential;
pub mod sketch;
pub mod special;
pub mod srm;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod varint;
pub mod wander;
pub mod weight;

pub use interval::Interval;
pub use invalid::Invalid;
pub use sketch::{Sketch, SketchError};
