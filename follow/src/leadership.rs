//! Which of several processes works: the one that holds the lease. The others stand by.

use bellwether_lake::Lease;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The right of this process to work. Dropping it releases the lease.
pub(crate) struct Leadership(Option<Held>);

struct Held {
    is_held: watch::Receiver<bool>,
    /// Renews the lease. In a task of its own, because a step may compute for longer than a lease lasts.
    keeper: JoinHandle<()>,
    stop: DropGuard,
}

// === impl Leadership ===

impl Leadership {
    /// Starts to compete for a lease. Without one, this process always works.
    pub(crate) fn compete(lease: Option<Lease>) -> Self {
        Self(lease.map(|lease| {
            let (sender, is_held) = watch::channel(false);
            let stop = CancellationToken::new();
            let keeper = tokio::spawn(lease.keep(sender, stop.clone()));
            Held { is_held, keeper, stop: stop.drop_guard() }
        }))
    }

    /// Returns true while this process works.
    pub(crate) fn is_held(&self) -> bool {
        self.0.as_ref().is_none_or(|held| *held.is_held.borrow())
    }

    /// Waits until this process may work or may no longer; for ever without a lease.
    pub(crate) async fn changed(&mut self) {
        let changed = match &mut self.0 {
            Some(held) => held.is_held.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    }

    /// Gives the lease back, so that another process takes over at once.
    pub(crate) async fn give_back(self) {
        let Some(Held { keeper, stop, .. }) = self.0 else { return };
        drop(stop);
        if let Err(error) = keeper.await {
            tracing::warn!(%error, "cannot release the lease; it will expire");
        }
    }
}
