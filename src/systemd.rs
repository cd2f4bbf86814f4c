//! Reports the state of the process to systemd (sd_notify(3)): that it has started, what it waits for, that it makes progress, and
//! that it stops.
//!
//! Does nothing unless the service manager has set `NOTIFY_SOCKET`. The process is ready once it has opened the tables and serves
//! its health: it then waits by itself for Kafka. The watchdog hears of it unless it is [stuck](Health::is_stuck).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::health::{Condition, Health};

/// Longest time between two reports.
const ROUND: Duration = Duration::from_secs(5);

/// Reports until the process is asked to stop.
pub(crate) async fn report(health: Health, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let round = sd_notify::watchdog_enabled().map_or(ROUND, |limit| (limit / 3).min(ROUND));
    let mut last = String::new();
    send(&[NotifyState::Ready]);
    loop {
        let status = status(&health.conditions());
        let mut states = Vec::new();
        if status != last {
            states.push(NotifyState::Status(&status));
        }
        if !health.is_stuck() {
            states.push(NotifyState::Watchdog);
        }
        if !states.is_empty() {
            send(&states);
        }
        last = status;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(round) => {}
        }
    }
    send(&[NotifyState::Stopping, NotifyState::Status("draining and committing")]);
}

/// Sends states. The process goes on if they do not arrive.
fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Returns the line that `systemctl status` shows.
fn status(conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return "starting".to_owned();
    }
    let troubles: Vec<String> = conditions
        .iter()
        .filter_map(|condition| Some(format!("{}: {}", condition.name, condition.why.as_ref()?.replace('\n', " "))))
        .collect();
    if troubles.is_empty() { "all roles work".to_owned() } else { troubles.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_one_line_that_names_each_role_that_has_a_problem() {
        let condition = |name, why: Option<&str>| Condition {
            name,
            ready: true,
            fresh: why.is_none(),
            behind: 0,
            why: why.map(str::to_owned),
        };
        assert_eq!(status(&[]), "starting");
        assert_eq!(status(&[condition("ingest", None)]), "all roles work");
        let conditions = [condition("ingest", Some("Kafka is\nunreachable")), condition("watch", None)];
        assert_eq!(status(&conditions), "ingest: Kafka is unreachable");
    }
}
