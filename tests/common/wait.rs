//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Longest wait for anything, unless `BELLWETHER_TEST_PATIENCE_S` says otherwise. A first assignment of partitions takes up
/// to 6 s, and a debug build on two busy cores is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);

/// Longest wait for anything.
pub(crate) fn patience() -> Duration {
    let seconds = std::env::var("BELLWETHER_TEST_PATIENCE_S").ok().and_then(|text| text.parse().ok());
    seconds.map_or(PATIENCE, Duration::from_secs)
}

/// Looks until something is there.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_or(look, || what.to_owned())
}

/// Looks until something is there; `describe` says what was missing when patience ends.
pub(crate) fn until_or<T>(mut look: impl FnMut() -> Option<T>, describe: impl FnOnce() -> String) -> T {
    let begun = Instant::now();
    while begun.elapsed() < patience() {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(LOOK);
    }
    panic!("{}: not within {} s; on a slow machine raise BELLWETHER_TEST_PATIENCE_S", describe(), patience().as_secs());
}
