//! The role `serve`: answers queries over HTTP, by the protocol of Postgres, and by Arrow Flight SQL.
//!
//! It has threads of its own. A statement may compute for long without a pause, and must not keep ingest waiting for a thread.

use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_follow::Until;
use bellwether_serve::{Listening, ServerSettings, listen};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Role, Shared, Work};
use crate::config::Config;
use crate::gate;

pub(crate) const NAME: &str = "serve";

/// Time for statements that compute without a pause to reach one at the end.
const END: Duration = Duration::from_secs(1);

/// Stack of a thread, of which the system provides what is used: the plan of a long statement is deep.
const STACK_BYTES: usize = 64 << 20;

/// Settings of the role.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiConfig {
    /// `bellwether run` includes the role.
    pub(crate) is_in_run: bool,
    pub(crate) server: ServerSettings,
}

struct ServeRole {
    config: Config,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    Box::new(ServeRole { config: config.clone() })
}

// === impl ServeRole ===

impl Role for ServeRole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn is_in_run(&self) -> bool {
        self.config.api.is_in_run
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        let (reader, settings) = (gate::reader(Some(&self.config), None)?, self.config.api.server.clone());
        let (lake, registry, stop) = (shared.lake.clone(), shared.registry.clone(), shared.stop.clone());
        // There is nothing to catch up with: it answers as long as the roles before it work.
        let stop = match until {
            Until::Stopped => stop,
            Until::CaughtUp(upstream) => upstream,
        };
        let serving = async move { serve(Box::pin(listen(lake, reader, settings, &registry)).await?, stop).await };
        let (sender, ended) = oneshot::channel();
        let threads = move || {
            let runtime =
                Builder::new_multi_thread().thread_name("serve").thread_stack_size(STACK_BYTES).enable_all().build();
            let result = match runtime {
                Ok(runtime) => {
                    let result = runtime.block_on(serving);
                    runtime.shutdown_timeout(END);
                    result
                }
                Err(source) => Err(Error::unavailable("cannot start the threads of the server").with_source(source)),
            };
            drop(sender.send(result));
        };
        Ok(Box::pin(async move {
            std::thread::Builder::new()
                .name(NAME.to_owned())
                .spawn(threads)
                .map_err(|source| Error::unavailable("cannot start a thread of the server").with_source(source))?;
            ended.await.unwrap_or_else(|_| Err(Error::bug("the server panicked")))
        }))
    }
}

async fn serve(listening: Listening, stop: CancellationToken) -> Result<()> {
    let postgres = listening.postgres().map(|address| address.to_string());
    let flight = listening.flight().map(|address| address.to_string());
    tracing::info!(url = listening.url(), postgres, flight, "queries are answered");
    listening.run(stop).await;
    Ok(())
}
