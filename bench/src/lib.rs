//! Instruments: realistic run events from a seed, and what a process costs.
//!
//! * [`all_rules`] puts all shipped rules over simulated fleets.
//! * [`events`] generates run events as apps would send them; benches and tests share it.
//! * [`fleet`] generates weeks of what a whole fleet sends, as production has it, and says what is true of it.
//! * [`process`] measures CPU time and memory of processes, from Linux's `/proc`.
//! * [`yardstick`] is the plainest program that does a part of the work, to hold rates against on any machine.
//!
//! Nothing here is part of the shipped program, and nothing of the program may use it.

pub mod all_rules;
pub mod events;
pub mod fleet;
pub mod process;
pub mod yardstick;
