//! Tests of the whole system: the built program, a real broker, independent readers of the tables.
//!
//! * `common` holds the shared helpers: broker, program, waiting, events.
//! * `simulation` drives the roles' own loops with time and randomness from a seed.
//! * `earlier` continues the tables of an earlier version; `examples` runs every file in `examples/`; `messages` holds
//!   snapshots of summaries, errors and titles.
//! * `prompt` types at the prompt of SQL in a terminal.
//! * `hands` acknowledges, silences and judges alerts.
//! * `redaction` looks for planted values in all that the program writes.
//! * `deliver` sends alerts by the program; `evidence` covers their pages.
//! * `late` covers statements that arrive after the run they are about, or before it.
//! * `gate` asks whether canaries may go on; `serve` starts the server of queries.
//! * `pipeline` follows events from Kafka to SQL results; `clients` runs the README's first events; `statistics` compares
//!   the detection functions with independent libraries; `house` enforces the edges between crates; `crash` kills workers,
//!   fills disks, and stops brokers and object stores; `monitoring` has Prometheus's own tool check what Prometheus reads.
//!
//! Rules: a test that lacks a prerequisite (a broker, the data, a client's toolchain) prints `skipped: …` and how to get it;
//! tests wait for a condition with a deadline, never for a fixed time; topics and folders have random names.

mod candidates;
mod clients;
mod common;
mod crash;
mod deliver;
mod earlier;
mod evalset;
mod evidence;
mod examples;
mod gate;
mod hands;
mod house;
mod late;
mod messages;
mod monitoring;
mod pipeline;
mod prompt;
mod redaction;
mod report;
mod serve;
mod simulation;
mod statistics;
