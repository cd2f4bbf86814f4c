//! Fault injection with a real broker and real processes: each message is in the tables once, whatever fails.
//!
//! * `ledger` publishes continuously and records what the broker acknowledged; `proof` compares the tables with it.
//! * `kill` and `members` kill and suspend processes; `poison` publishes bad messages; `replay` reads messages again;
//!   `start` is about the offsets at which reading begins; `topic`, `outage`, `disk` and `s3` break the surroundings; `stores`
//!   starts the object stores for `s3`; `erase` kills erasures.
//!
//! Rules: random choices come from a seed, and a test prints its seed with the command that repeats them; the timing of the
//! processes is not repeatable. The tests need a real broker, because the embedded one drops messages.

mod disk;
mod erase;
mod kill;
mod ledger;
mod members;
mod outage;
mod poison;
mod proof;
mod replay;
mod s3;
mod s3_cost;
mod start;
mod stores;
mod topic;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::say;

/// Randomness from a seed.
pub(crate) struct Random(StdRng);

// === impl Random ===

impl Random {
    /// Takes the seed from the variable `SEED`, or draws one, and prints it.
    pub(crate) fn new(test: &str) -> Self {
        let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        // The first bits of an id are the time; the last ones are random.
        let drawn = || bellwether_base::unique_id().as_u64_pair().1;
        let seed = given.unwrap_or_else(drawn);
        say(&format!("seed {seed}; again: SEED={seed} scripts/broker with cargo test --workspace --test main {test}"));
        Self(StdRng::seed_from_u64(seed))
    }

    /// Draws a number from 0 to `below`, exclusive.
    pub(crate) fn number(&mut self, below: usize) -> usize {
        self.0.random_range(0..below)
    }

    /// Sleeps for a random time. There is no condition to wait for: the test is about the moment itself.
    pub(crate) fn sleep_up_to(&mut self, longest: Duration) {
        std::thread::sleep(longest.mul_f64(self.0.random_range(0.0..1.0)));
    }
}
