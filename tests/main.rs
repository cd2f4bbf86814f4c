//! Tests of the whole system: the built program, a real broker, independent readers of the tables.
//!
//! * `common` is what they share: broker, program, waiting, events.
//! * `simulation` drives the loops themselves, with time and chance under a seed.
//! * `late` is about what is said of a run after it.
//! * `pipeline` follows events from Kafka to SQL answers; `clients` runs the README's first events; `statistics` compares
//!   the functions of detection with independent libraries; `house` holds the edges between the rooms; `crash` takes away
//!   whatever can be taken away.
//!
//! Rules: a test that lacks something (a broker, the data, a client's toolchain) says `skipped: …` and what would help;
//! waiting is always for a condition with a deadline; topics and folders have random names.

mod clients;
mod common;
mod crash;
mod house;
mod late;
mod pipeline;
mod simulation;
mod statistics;
