//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Default deadline of every wait; `BELLWETHER_TEST_PATIENCE_S` overrides it. The first assignment of partitions takes up
/// to 6 s, and a debug build on two busy cores is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Time between two checks of a condition.
const CHECK_INTERVAL: Duration = Duration::from_millis(150);

/// Returns the deadline of every wait.
pub(crate) fn patience() -> Duration {
    let seconds = std::env::var("BELLWETHER_TEST_PATIENCE_S").ok().and_then(|text| text.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Waits until `check` returns a value; `condition` names it in the failure.
pub(crate) fn until<T>(condition: &str, check: impl FnMut() -> Option<T>) -> T {
    until_or(check, || condition.to_owned())
}

/// Waits until `check` returns a value; `describe` writes the failure.
pub(crate) fn until_or<T>(mut check: impl FnMut() -> Option<T>, describe: impl FnOnce() -> String) -> T {
    let started = Instant::now();
    while started.elapsed() < patience() {
        if let Some(found) = check() {
            return found;
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
    panic!(
        "waited {} s in vain: {}; on a slow machine raise BELLWETHER_TEST_PATIENCE_S",
        patience().as_secs(),
        describe()
    );
}
