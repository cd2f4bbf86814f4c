//! The signals that ask a process to end.

use bellwether_base::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens for SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

// === impl Signals ===

impl Signals {
    /// Starts to listen. From here on a signal no longer ends the process by itself.
    ///
    /// # Errors
    /// `Unavailable` if the system refuses.
    pub(crate) fn listen() -> Result<Self> {
        let refuse = |source: std::io::Error| Error::unavailable("cannot listen for signals").with_source(source);
        let terminate = signal(SignalKind::terminate()).map_err(refuse)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(refuse)?;
        Ok(Self { terminate, interrupt })
    }

    /// Waits for a signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Cancels `stop` at the first signal and returns at the second.
    pub(crate) async fn stop_then_return(mut self, stop: CancellationToken) {
        for text in ["draining and committing; a second signal stops at once", "stopping at once"] {
            self.next().await;
            tracing::info!("{text}");
            stop.cancel();
        }
    }
}
