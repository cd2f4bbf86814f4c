//! The roles of a process.
//!
//! Each file below holds one role: `ingest`, `aggregate`, `rollup`, `watch`, `deliver`, `evals`, `serve`, `maintain` and `heartbeat`. To add a role, write
//! a file that implements [`Role`] and add a line to [`ROLES`]. `crate::process` starts roles, drains them and ends them; `crate::progress` watches
//! how far they are.

pub(crate) mod aggregate;
pub(crate) mod deliver;
pub(crate) mod evals;
pub(crate) mod heartbeat;
pub(crate) mod ingest;
mod maintain;
pub(crate) mod rollup;
pub(crate) mod serve;
pub(crate) mod watch;

use bellwether_base::{Error, Result};
use bellwether_follow::Until;
use bellwether_lake::{Handover, Lake};
use futures::future::BoxFuture;
use prometheus::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::progress::Probe;

/// Makes a role from the configuration.
type NewRole = fn(&Config) -> Box<dyn Role>;

/// All roles, in the order of the data flow: with `--until-caught-up` each one ends once those before it have ended and it has
/// read everything.
const ROLES: &[NewRole] = &[
    ingest::new,
    aggregate::new,
    rollup::new,
    watch::new,
    deliver::new,
    evals::new,
    serve::new,
    maintain::new,
    heartbeat::new,
];

/// The work of a role: ends when the role is stopped or has caught up.
pub(crate) type Work = BoxFuture<'static, Result<()>>;

/// A part of the pipeline that a process can run.
pub(crate) trait Role: Send + Sync {
    /// Returns the name, as in health reports and logs.
    fn name(&self) -> &'static str;

    /// Returns true if `bellwether run` includes the role.
    fn is_in_run(&self) -> bool {
        true
    }

    /// Returns true for a role that no process waits for: every process has it, and it ends with the process.
    fn is_background(&self) -> bool {
        false
    }

    /// Returns the name of a role that this one accompanies: every process that has that role has this one too.
    fn accompanies(&self) -> Option<&'static str> {
        None
    }

    /// Starts the role. It ends without an error once `shared.stop` is cancelled, or as `until` says.
    ///
    /// # Errors
    /// `Bug` if its metrics clash with others. The work ends with an error if no waiting can help.
    fn start(&self, shared: &Shared, until: Until) -> Result<Work>;

    /// Returns a probe that reports the role's progress, or `None` if its progress is of no interest.
    fn probe(&self) -> Option<Box<dyn Probe>> {
        None
    }
}

/// The parts that the roles of one process share.
pub(crate) struct Shared {
    pub(crate) lake: Lake,
    pub(crate) registry: Registry,
    /// Hands fresh rows from ingest to aggregate, if both run in this process.
    pub(crate) handover: Option<Handover>,
    /// Asks the roles to commit what they have read, and end.
    pub(crate) stop: CancellationToken,
    /// Asks ingest to end without committing.
    pub(crate) stop_now: CancellationToken,
}

/// Returns the roles of `bellwether run`.
pub(crate) fn all(config: &Config) -> Vec<Box<dyn Role>> {
    ROLES.iter().map(|new| new(config)).filter(|role| role.is_in_run()).collect()
}

/// Returns one role by name, with those that accompany it and the background roles that every process has.
pub(crate) fn only(config: &Config, name: &str) -> Vec<Box<dyn Role>> {
    let roles = ROLES.iter().map(|new| new(config));
    roles.filter(|role| role.name() == name || role.accompanies() == Some(name) || role.is_background()).collect()
}

/// Returns the names of the roles that a process waits for, separated by commas.
pub(crate) fn names(roles: &[Box<dyn Role>]) -> String {
    let names: Vec<&str> = roles.iter().filter(|role| !role.is_background()).map(|role| role.name()).collect();
    names.join(", ")
}

/// Returns a handover if both ingest and aggregate are among the roles.
pub(crate) fn handover(config: &Config, roles: &[Box<dyn Role>]) -> Option<Handover> {
    let has = |name: &str| roles.iter().any(|role| role.name() == name);
    (has(ingest::NAME) && has(aggregate::NAME))
        .then(|| Handover::new(config.aggregate.handover_bytes, bellwether_aggregate::event_columns()))
}

/// Runs several pieces of work at once; the first error ends all of them.
async fn run_all(work: Vec<Work>) -> Result<()> {
    let mut tasks: JoinSet<Result<()>> = work.into_iter().collect();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|source| Err(Error::bug("a role panicked").with_source(source)))?;
    }
    Ok(())
}

/// Waits for the roles upstream if a role ends once it has caught up, and returns when it ends; none if it is stopped first.
async fn once_upstream_ended(until: Until, stop: &CancellationToken) -> Option<Until> {
    let Until::CaughtUp(upstream) = until else { return Some(until) };
    tokio::select! {
        biased; // Stopping wins over waiting.
        () = stop.cancelled() => None,
        () = upstream.cancelled() => Some(Until::caught_up()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::config::{Environment, REFERENCE};

    fn config(extra: &str) -> Config {
        Config::parse("test.toml", extra, &Environment).expect("a valid configuration")
    }

    fn list(roles: &[Box<dyn Role>]) -> Vec<&'static str> {
        roles.iter().map(|role| role.name()).collect()
    }

    #[test]
    fn a_process_has_the_roles_of_its_command_in_the_order_of_the_data_flow() {
        let config = config(REFERENCE);
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "watch", "maintain"]);
        assert_eq!(names(&all(&config)), "ingest, aggregate, rollup, watch");
        for name in ["ingest", "rollup", "watch", "evals", "serve"] {
            assert_eq!(list(&only(&config, name)), [name, "maintain"]);
        }
        assert_eq!(list(&only(&config, "aggregate")), ["aggregate", "rollup", "maintain"]);
    }

    #[test]
    fn each_role_that_a_process_waits_for_has_a_command_of_its_name() {
        let command = Cli::command();
        for role in all(&config("")).iter().filter(|role| !role.is_background()) {
            assert!(command.find_subcommand(role.name()).is_some(), "{}", role.name());
        }
    }

    #[test]
    fn run_leaves_watch_out_if_it_is_turned_off_but_the_command_watch_does_not() {
        let config = config("[alerts]\nwatch = false\n");
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "maintain"]);
        assert_eq!(list(&only(&config, "watch")), ["watch", "maintain"]);
    }

    #[test]
    fn run_includes_deliver_if_there_is_a_sink() {
        let config = config("deliver.sinks.file = { kind = \"inbox\", path = \"pages.ndjson\" }\n");
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "watch", "deliver", "maintain"]);
        assert_eq!(list(&only(&config, "deliver")), ["deliver", "maintain"]);
    }

    #[test]
    fn run_includes_evals_if_it_is_turned_on() {
        let config = config("[evals]\nsample = true\n");
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "watch", "evals", "maintain"]);
        assert_eq!(names(&all(&config)), "ingest, aggregate, rollup, watch, evals");
    }

    #[test]
    fn run_answers_queries_if_it_is_turned_on() {
        let config = config("[api]\nserve = true\n");
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "watch", "serve", "maintain"]);
    }

    #[test]
    fn every_process_sends_heartbeats_if_they_are_turned_on() {
        let config = config("[heartbeat]\nsend = true\n");
        assert_eq!(list(&all(&config)), ["ingest", "aggregate", "rollup", "watch", "maintain", "heartbeat"]);
        assert_eq!(list(&only(&config, "ingest")), ["ingest", "maintain", "heartbeat"]);
        assert!(config.aggregate.settings.record_progress && config.alerts.watch.record_progress);
    }

    #[test]
    fn rows_are_handed_over_only_if_ingest_and_aggregate_share_a_process() {
        let config = config("");
        assert!(handover(&config, &all(&config)).is_some());
        assert!(handover(&config, &only(&config, "aggregate")).is_none());
    }
}
