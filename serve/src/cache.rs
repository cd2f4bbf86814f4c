//! Answers of read endpoints, kept for as long as the tables that they were computed from stay the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Most bytes of kept answers; beyond it, all are dropped.
const MOST_BYTES: usize = 32 << 20;

/// Most kept answers.
const MOST_ANSWERS: usize = 512;

/// An answer that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The versions of the tables, and the minute, of the answer.
    pub(crate) tag: String,
    pub(crate) body: Bytes,
    /// There are more rows than were asked for.
    pub(crate) has_more: bool,
    pub(crate) is_empty: bool,
}

/// The place of an answer. Whoever locks it computes the answer, and the others wait for it.
pub(crate) type Place = Arc<tokio::sync::Mutex<Option<Kept>>>;

/// Answers by what was asked, and by whom.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    places: HashMap<String, Place>,
    bytes: usize,
}

// === impl Cache ===

impl Cache {
    /// Returns the place of an answer.
    pub(crate) fn place(&self, key: &str) -> Place {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.places.len() >= MOST_ANSWERS && !inner.places.contains_key(key) {
            *inner = Inner::default();
        }
        Arc::clone(inner.places.entry(key.to_owned()).or_default())
    }

    /// Counts the bytes of an answer that replaces another one.
    pub(crate) fn replaced(&self, old: usize, new: usize) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.bytes = inner.bytes.saturating_sub(old).saturating_add(new);
        if inner.bytes > MOST_BYTES {
            *inner = Inner::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bounds() {
        let cache = Cache::default();
        let first = cache.place("0");
        assert!(Arc::ptr_eq(&first, &cache.place("0")));
        for number in 1..=MOST_ANSWERS {
            cache.place(&number.to_string());
        }
        assert!(!Arc::ptr_eq(&first, &cache.place("0")), "all were dropped");
        let kept = cache.place("0");
        cache.replaced(0, MOST_BYTES);
        assert!(Arc::ptr_eq(&kept, &cache.place("0")));
        cache.replaced(0, 1);
        assert!(!Arc::ptr_eq(&kept, &cache.place("0")));
    }
}
