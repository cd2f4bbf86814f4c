//! Detectors on simulated series. `random` is the chance that all of them share.

mod families;
mod random;
mod sampled;
mod silence;
mod wander;
