//! Work that keeps a thread busy for a while, and where it is done.

use std::future::Future;

use bellwether_base::{Error, Result};

/// Where work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// On the runtime's threads for blocking work: what a service wants.
    Pool,
    /// On the calling thread, to its end, before anything else is done: the order of events is then the caller's alone,
    /// as a simulation needs it.
    Inline,
}

// === impl Work ===

impl Work {
    /// Does work that never waits; `who` is named where it panics.
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

    /// Waits for work of the Delta library, which has threads of its own.
    pub(crate) async fn whole<F: Future>(self, work: F) -> F::Output {
        match self {
            Self::Inline => futures::executor::block_on(work),
            Self::Pool => work.await,
        }
    }
}
