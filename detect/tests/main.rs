//! Tests detectors on simulated series; `random` is their common random number generator.

mod again;
mod families;
mod gate;
mod random;
mod sampled;
mod silence;
mod wander;
