//! Runs work that keeps a thread busy for a while.

use std::future::Future;

use bellwether_base::{Error, Result};

/// The thread that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// One of the runtime's threads for blocking work, for a service.
    Pool,
    /// The calling thread, which does nothing else until the work is done. The caller then determines the order of events,
    /// as a simulation requires.
    Inline,
}

// === impl Work ===

impl Work {
    /// Does work that never waits; `who` is named in the error if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        who: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self {
            Self::Inline => work(),
            Self::Pool => tokio::task::spawn_blocking(work)
                .await
                .map_err(|source| Error::bug(format!("{who} stopped")).with_source(source))?,
        }
    }

    /// Waits for work of the Delta library, which has its own threads.
    pub(crate) async fn whole<F: Future>(self, work: F) -> F::Output {
        match self {
            Self::Inline => futures::executor::block_on(work),
            Self::Pool => work.await,
        }
    }
}
