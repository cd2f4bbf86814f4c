//! Requests to cancel: they come by a connection of their own, and name the other one by its key.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_base::{Error, Result};
use bellwether_queries::Canceller;

/// The connections that may be cancelled.
#[derive(Default)]
pub(super) struct Keys(Mutex<BTreeMap<u32, (u32, Canceller)>>);

/// The key of a connection, which is valid until this is dropped. Its two numbers are random: who guesses them could cancel.
pub(super) struct Key {
    keys: Arc<Keys>,
    pub(super) process: u32,
    pub(super) secret: u32,
}

// === impl Keys ===

impl Keys {
    /// Gives a connection its key.
    ///
    /// # Errors
    /// `Unavailable` if the system has no random numbers.
    pub(super) fn add(self: &Arc<Self>, canceller: Canceller) -> Result<Key> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut random = [0_u8; 8];
            getrandom::fill(&mut random)
                .map_err(|error| Error::unavailable(format!("the system gives no random numbers: {error}")))?;
            let [a, b, c, d, rest @ ..] = random;
            // Some clients take it for a signed number that is above zero.
            let process = u32::from_be_bytes([a & 0x7f, b, c, d]);
            if let std::collections::btree_map::Entry::Vacant(place) = open.entry(process) {
                let secret = u32::from_be_bytes(rest);
                place.insert((secret, canceller));
                return Ok(Key { keys: Arc::clone(self), process, secret });
            }
        }
    }

    /// Cancels the statement that a connection runs now, if the key is right.
    pub(super) fn cancel(&self, process: u32, secret: u32) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((expected, canceller)) = open.get(&process)
            && *expected == secret
        {
            canceller.cancel();
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.process);
    }
}
