//! Real broker, real process: whatever is killed, stopped, filled up or taken away, each message is in the tables once.
//!
//! * `ledger` publishes without pause and keeps what the broker has taken; `proof` holds the tables against it.
//! * `kill` and `members` end and stop processes; `poison` and `replay` send what is bad or was there before; `start` is
//!   about where reading begins; `topic`, `outage`, `disk` and `s3` spoil what stands around the process.
//!
//! Rules: what happens by chance is drawn from a seed, and a test prints its seed with the line that replays it; the
//! processes' own timing is not replayed by it. A real broker is needed: the embedded one drops messages.

mod disk;
mod kill;
mod ledger;
mod members;
mod outage;
mod poison;
mod proof;
mod replay;
mod s3;
mod start;
mod topic;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::common::{Broker, broker, say, skipped};

/// Chance from a seed.
struct Chance(StdRng);

// === impl Chance ===

impl Chance {
    /// The seed of `SEED`, or a new one; prints it.
    fn new(test: &str) -> Self {
        let given = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
        // The last bits of an id are random, the first ones the time.
        let drawn = || bellwether_lake::unique_id().as_u64_pair().1;
        let seed = given.unwrap_or_else(drawn);
        say(&format!("seed {seed}; again: SEED={seed} scripts/broker with cargo test --workspace --test main {test}"));
        Self(StdRng::seed_from_u64(seed))
    }

    /// A number from `0` to `below`, exclusive.
    fn number(&mut self, below: usize) -> usize {
        self.0.random_range(0..below)
    }

    /// Lets a random time pass: there is no condition to wait for, since the moment itself is what is tried.
    fn pass(&mut self, longest: Duration) {
        std::thread::sleep(longest.mul_f64(self.0.random_range(0.0..1.0)));
    }
}

/// The broker, where it is a real one.
fn real_broker() -> Option<&'static Broker> {
    let broker = broker()?;
    if broker.is_mock() {
        skipped("the embedded broker drops messages and keeps nothing; a real one is needed");
        return None;
    }
    Some(broker)
}
