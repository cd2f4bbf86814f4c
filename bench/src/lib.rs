//! Instruments: realistic run events from a seed, and what a process costs.
//!
//! * [`events`] generates run events as apps would send them; benches and tests share it.
//! * [`process`] measures CPU time and memory of processes, from Linux's `/proc`.
//!
//! Nothing here is part of the shipped program, and nothing of the program may use it.

pub mod events;
pub mod process;
