//! The life of a process: starts its roles, runs them, drains them, and ends.
//!
//! With `until_caught_up` each role ends once those before it in the data flow have ended and it has read everything. An
//! error of one role stops all others: a process with only some of its roles would look alive and do half the work.

use std::net::SocketAddr;
use std::process::ExitCode;

use bellwether_base::{Error, Result};
use bellwether_follow::Until;
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::health::Health;
use crate::progress::Probes;
use crate::roles::{self, Role, Shared};
use crate::signals::Signals;
use crate::{exit, gate, hooks, serve, systemd};

/// A running process.
pub(crate) struct Process {
    pub(crate) lake: Lake,
    /// Address of the health and metrics endpoints.
    pub(crate) address: SocketAddr,
    pub(crate) health: Health,
    roles: Vec<Box<dyn Role>>,
    stop: CancellationToken,
    work: JoinSet<Result<()>>,
    service: JoinHandle<()>,
    stop_service: CancellationToken,
    background: JoinSet<()>,
}

/// Runs roles until they have caught up or a signal arrives.
///
/// # Errors
/// The first error of a role, or of the start.
pub(crate) async fn run(config: &Config, roles: Vec<Box<dyn Role>>, until_caught_up: bool) -> Result<ExitCode> {
    let stop_now = CancellationToken::new();
    // First of all: until then a signal ends the process at once, with an exit code of the system.
    let mut signals = Signals::listen()?;
    let names = roles::names(&roles);
    let mut process = tokio::select! {
        process = Process::start(config, roles, until_caught_up, &stop_now) => process?,
        () = signals.next() => {
            tracing::info!("stopped during start-up");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let health = format!("http://{}/healthz", process.address);
    let budget_bytes = config.memory.bytes;
    tracing::info!(roles = names, tables = process.lake.root_display(), health, budget_bytes, "bellwether started");
    let stop = process.stop.clone();
    process.background.spawn(systemd::report(process.health.clone(), stop.clone()));
    tokio::select! {
        ended = process.wait() => ended.map(|()| ExitCode::SUCCESS),
        () = signals.stop_then_return(stop) => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}

// === impl Process ===

impl Process {
    /// Opens the tables and starts the roles and the health and metrics endpoints.
    ///
    /// # Errors
    /// `Config` or `Unavailable` if the tables cannot be opened or the address cannot be bound.
    pub(crate) async fn start(
        config: &Config,
        roles: Vec<Box<dyn Role>>,
        until_caught_up: bool,
        stop_now: &CancellationToken,
    ) -> Result<Self> {
        let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
        let (registry, health) = (Registry::new(), Health::new(config.serve.stale_after));
        let hooks = hooks::router(&config.serve, &lake);
        let (stop, stop_service) = (CancellationToken::new(), CancellationToken::new());
        let more = hooks.merge(gate::routes(config, &lake)?);
        let (address, service) =
            serve::start(config.serve.address, health.clone(), registry.clone(), more, stop_service.clone()).await?;
        let handover = roles::handover(config, &roles);
        let shared = Shared { lake: lake.clone(), registry, handover, stop: stop.clone(), stop_now: stop_now.clone() };
        let (mut work, mut background) = (JoinSet::new(), JoinSet::new());
        let mut upstream_ended = CancellationToken::new();
        upstream_ended.cancel(); // Nothing is upstream of the first role.
        for role in &roles {
            let until = if until_caught_up { Until::CaughtUp(upstream_ended.clone()) } else { Until::Stopped };
            let started = role.start(&shared, until)?;
            if role.is_background() {
                let name = role.name();
                background.spawn(async move {
                    if let Err(error) = started.await {
                        tracing::error!(role = name, reason = %error.chain(), "a background role ended");
                    }
                });
                continue;
            }
            let ended = CancellationToken::new();
            upstream_ended = ended.clone();
            work.spawn(async move {
                started.await?;
                ended.cancel();
                Ok(())
            });
        }
        background.spawn(probes(&lake, &roles).run(health.clone()));
        Ok(Self { lake, address, health, roles, stop, work, service, stop_service, background })
    }

    /// Returns probes of the roles of this process.
    pub(crate) fn probes(&self) -> Probes {
        probes(&self.lake, &self.roles)
    }

    /// Returns true once a role has ended, or was asked to.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks the roles to commit what they have read, and waits until they have ended.
    ///
    /// # Errors
    /// The first error of a role.
    pub(crate) async fn finish(self) -> Result<()> {
        self.stop.cancel();
        self.wait().await
    }

    /// Waits until all roles have ended by themselves.
    ///
    /// # Errors
    /// The first error of a role.
    #[cfg(test)]
    pub(crate) async fn ended(self) -> Result<()> {
        self.wait().await
    }

    /// Waits until all roles have ended, then ends everything else.
    async fn wait(mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some(ended) = self.work.join_next().await {
            let ended = ended.unwrap_or_else(|source| Err(Error::bug("a role panicked").with_source(source)));
            if ended.is_err() {
                self.stop.cancel();
                if first.is_ok() {
                    first = ended;
                }
            }
        }
        self.stop.cancel();
        self.stop_service.cancel();
        self.background.abort_all();
        if let Err(error) = self.service.await {
            tracing::warn!(%error, "the health and metrics server panicked");
        }
        first
    }
}

fn probes(lake: &Lake, roles: &[Box<dyn Role>]) -> Probes {
    let probes = roles.iter().filter_map(|role| Some((role.name(), role.probe()?)));
    Probes::new(lake.clone(), probes.collect())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::roles::Work;

    /// A role that fails at once, or ends when it is stopped or those before it have ended.
    struct Toy {
        name: &'static str,
        fails: bool,
        ended: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Role for Toy {
        fn name(&self) -> &'static str {
            self.name
        }

        fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
            let (name, fails, ended, stop) = (self.name, self.fails, self.ended.clone(), shared.stop.clone());
            Ok(Box::pin(async move {
                if fails {
                    return Err(Error::data("the toy is broken"));
                }
                match until {
                    Until::Stopped => stop.cancelled().await,
                    Until::CaughtUp(upstream) => {
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = upstream.cancelled() => {}
                        }
                    }
                }
                ended.lock().expect("no test panics here").push(name);
                Ok(())
            }))
        }
    }

    /// Runs toys on tables of their own. Returns how the process ended, and the names of the roles that ended well.
    async fn run_toys(names: &[&'static str], broken: &str, until_caught_up: bool) -> (Result<()>, Vec<&'static str>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::default();
        config.tables.root = folder.path().display().to_string();
        config.serve.address = SocketAddr::from(([127, 0, 0, 1], 0));
        let ended = Arc::default();
        let toy = |name: &&'static str| -> Box<dyn Role> {
            Box::new(Toy { name, fails: *name == broken, ended: Arc::clone(&ended) })
        };
        let roles = names.iter().map(toy).collect();
        let process = Process::start(&config, roles, until_caught_up, &CancellationToken::new()).await.expect("starts");
        let waited = tokio::time::timeout(Duration::from_secs(60), process.wait()).await.expect("ends by itself");
        let ended = ended.lock().expect("no test panics here").clone();
        (waited, ended)
    }

    #[tokio::test]
    async fn roles_that_catch_up_end_one_after_another() {
        let (waited, ended) = run_toys(&["first", "second", "third"], "", true).await;
        assert!(waited.is_ok(), "{waited:?}");
        assert_eq!(ended, ["first", "second", "third"]);
    }

    #[tokio::test]
    async fn a_role_that_fails_stops_the_others_and_its_error_ends_the_process() {
        for until_caught_up in [false, true] {
            let (waited, ended) = run_toys(&["first", "second", "third"], "second", until_caught_up).await;
            assert_eq!(waited.expect_err("the second fails").message(), "the toy is broken");
            assert!(!ended.contains(&"second"), "{ended:?}");
            assert_eq!(ended.contains(&"third"), !until_caught_up, "the third waits for the second, or is stopped");
        }
    }
}
