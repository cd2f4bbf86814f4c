//! Pauses between attempts. Each is twice as long as the one before, within bounds, with jitter so that processes that
//! failed together do not retry together.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Clock;

/// The first pause, short enough that a brief failure goes unnoticed.
const FIRST: Duration = Duration::from_millis(100);

/// The longest pause: a long outage costs six attempts a minute, and its end is noticed within seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// The pauses of one retry loop.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The next pause, without jitter.
    next: Duration,
    random: StdRng,
}

// === impl Backoff ===

impl Backoff {
    /// Creates pauses from 100 ms to 10 s. The clock seeds the jitter, so that a simulation can be repeated.
    pub fn new(clock: &dyn Clock) -> Self {
        Self::between(FIRST, LONGEST, clock)
    }

    /// Creates pauses from a first to a longest one.
    pub fn between(first: Duration, longest: Duration, clock: &dyn Clock) -> Self {
        debug_assert!(first <= longest, "the first pause is the shortest");
        let (_, seed) = clock.unique_id().as_u64_pair();
        Self { first, longest, next: first, random: StdRng::seed_from_u64(seed) }
    }

    /// Restarts at the first pause; call it after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Returns the next pause: with jitter, half to all of its nominal length.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(self.random.random_range(0.5..=1.0))
    }

    /// Waits for the next pause.
    pub async fn wait(&mut self, clock: &dyn Clock) {
        let pause = self.pause();
        clock.sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(&SystemClock);
        for length in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let pause = backoff.pause();
            let length = Duration::from_millis(length);
            assert!(pause >= length / 2 && pause <= length, "{pause:?} is not within half of {length:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }

    #[test]
    fn two_loops_do_not_pause_alike() {
        let pauses = |mut backoff: Backoff| (0..8).map(|_| backoff.pause()).collect::<Vec<_>>();
        assert_ne!(pauses(Backoff::new(&SystemClock)), pauses(Backoff::new(&SystemClock)));
    }
}
