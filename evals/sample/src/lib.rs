//! Sampling of production runs for review, pure: no I/O, no clock, no randomness but the hash of a run's identity.
//!
//! * [`run`]: identity of a run, its hash and its rank. [`weight`]: weights from severity, novelty and uncertainty.
//! * [`allocate`]: the plan that divides a weekly budget among signatures and strata. [`inclusion`]: the probability
//!   with which a plan takes a run.
//! * [`population`]: the candidates of a week, and the sample that a plan draws from them.
//! * [`signature`]: explainable failure signatures. [`mask`]: the parts of a message that vary, replaced.
//! * [`similar`]: near-duplicates by MinHash. [`split`]: clusters, and a division of them into regression and hold-out
//!   sets that never splits one.
//! * Estimates from a sample ([`survey`]), agreement of reviewers ([`agreement`]) and the correction of judges
//!   ([`judge`]) are in the crate `bellwether-stats`, and exported here.
//!
//! # Design of the sample
//!
//! Every run has a rank, E / weight, with E = −ln u exponential and u a hash of its identity. A group of runs takes the
//! `k` smallest ranks: bottom-k sampling without replacement with probability proportional to size (Cohen & Kaplan,
//! "… data using bottom-k sketches", PODC 2007; Efraimidis & Spirakis 2006). The rank of a run depends on no
//! other run, so any order, any split into shards and any replay gives the same sample, and one run more changes at
//! most one place of each group whose plan stays the same.
//!
//! The plan (groups and their `k`) depends on counts alone, never on ranks. Inclusion probabilities are therefore
//! computed exactly, before anything is drawn, and every estimate that divides by them is unbiased.
//!
//! Priority sampling (Duffield, Lund & Thorup, "Priority sampling for estimation of arbitrary subset sums", JACM 54,
//! 2007) takes almost the same runs, but divides by a probability that depends on the next rank. Its variance is
//! infinite at `k = 1`, and groups of one are the rule here: a budget of fifty is spread over tens of signatures.
//! Conditional Poisson sampling (Chen, Dempster & Liu, Biometrika 81, 1994) has exact probabilities too, but a run more
//! changes the choice among all the others.

pub mod allocate;
pub mod inclusion;
pub mod mask;
pub mod population;
pub mod run;
pub mod signature;
pub mod similar;
pub mod split;
pub mod weight;

pub use allocate::{Budget, Cell, Kind, Plan, plan};
pub use bellwether_stats::{Interval, Invalid, agreement, judge, survey};
pub use population::{Candidate, Population, Sample, Taken};
pub use run::Run;
pub use signature::{Failure, Signature};
pub use weight::Weight;
