//! Tools for benchmarks: realistic run events from a seed, and the resource usage of processes.
//!
//! * [`all_rules`] runs all shipped rules over simulated fleets.
//! * [`events`] generates run events as apps would send them; benchmarks and tests share it.
//! * [`fleet`] generates weeks of a whole fleet's messages, together with the true values.
//! * [`process`] measures CPU time and memory of processes, from Linux's `/proc`.
//! * [`yardstick`] is the simplest program that does part of the work, as a reference on any machine.
//!
//! Nothing here is part of the shipped program, and the program must not use it.

pub mod all_rules;
pub mod events;
pub mod fleet;
pub mod process;
pub mod yardstick;
