//! What people have said about alerts: silences and acknowledgements. Only their interface: the table is kept elsewhere.

use std::sync::Arc;

use async_trait::async_trait;
use bellwether_base::Result;
use bellwether_evidence::AlertRecord;
pub use bellwether_sinks::page::Acknowledgement;

/// Silences and acknowledgements at one moment.
pub trait Silences: Send + Sync {
    /// Returns the reason for which an alert is silenced at a moment, as one sentence; none if it is not.
    fn silenced(&self, alert: &AlertRecord, at: i64) -> Option<String>;

    /// Returns the acknowledgement of an alert that holds at a moment, if it is about the firing that began at `since`.
    fn acknowledged(&self, alert: &AlertRecord, since: i64, at: i64) -> Option<Acknowledgement>;
}

/// The place in which silences and acknowledgements are kept.
#[async_trait]
pub trait Hands: Send + Sync {
    /// Returns the present ones. Asked before every plan, twice a second: an implementation reads what has changed.
    ///
    /// # Errors
    /// `Unavailable` if they cannot be read.
    async fn now(&self) -> Result<Arc<dyn Silences>>;
}

/// No silences and no acknowledgements.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHands;

// === impl NoHands ===

impl Silences for NoHands {
    fn silenced(&self, _: &AlertRecord, _: i64) -> Option<String> {
        None
    }

    fn acknowledged(&self, _: &AlertRecord, _: i64, _: i64) -> Option<Acknowledgement> {
        None
    }
}

#[async_trait]
impl Hands for NoHands {
    async fn now(&self) -> Result<Arc<dyn Silences>> {
        Ok(Arc::new(Self))
    }
}
