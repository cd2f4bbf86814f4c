//! Health and metrics over HTTP on loopback: `/healthz`, `/readyz`, `/metrics`.
//!
//! Health is told by freshness: a role is healthy while it moves or has nothing to do. Both health addresses answer 200 or
//! 503 with one JSON object that says what is stale and why.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bellwether_lake::{Error, Result};
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, Registry, TextEncoder};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What one role says of itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Condition {
    /// The role, or `storage`.
    pub(crate) name: &'static str,
    /// It has done its first useful work.
    pub(crate) ready: bool,
    /// It moves, or has nothing to do.
    pub(crate) fresh: bool,
    /// Work that waits: messages for ingest, versions for aggregate.
    pub(crate) behind: i64,
    /// Why it is not fresh or not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// The newest conditions of all roles.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    inner: Arc<Mutex<Vec<Watched>>>,
    stale_after: Duration,
}

#[derive(Debug)]
struct Watched {
    name: &'static str,
    ready: bool,
    behind: i64,
    progress: i64,
    moved: Instant,
    /// How long what waits may wait before its turn comes.
    pace: Duration,
    error: Option<String>,
    /// What does not work though the role goes on.
    lacks: Option<String>,
}

// === impl Health ===

impl Health {
    /// Nothing is watched yet.
    pub(crate) fn new(stale_after: Duration) -> Self {
        Self { inner: Arc::default(), stale_after }
    }

    /// Notes what a role has done so far and what waits; `progress` is any number that grows with work done.
    pub(crate) fn note(&self, name: &'static str, progress: i64, behind: i64) {
        self.note_paced(name, progress, behind, Duration::ZERO);
    }

    /// As [`Health::note`], of a role that looks at what waits only so often.
    pub(crate) fn note_paced(&self, name: &'static str, progress: i64, behind: i64, pace: Duration) {
        let mut watched = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match watched.iter_mut().find(|role| role.name == name) {
            Some(role) => {
                if role.progress != progress || behind == 0 {
                    role.moved = now;
                }
                role.ready = true;
                role.pace = pace;
                role.progress = progress;
                role.behind = behind;
                role.error = None;
            }
            None => {
                watched.push(Watched {
                    name,
                    ready: true,
                    behind,
                    progress,
                    moved: now,
                    pace,
                    error: None,
                    lacks: None,
                });
            }
        }
    }

    /// Notes what does not work of a role that goes on; none where all works.
    pub(crate) fn lack(&self, name: &'static str, what: Option<String>) {
        let mut watched = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(role) = watched.iter_mut().find(|role| role.name == name) {
            role.lacks = what;
        }
    }

    /// Notes that a role cannot tell, or cannot go on for now.
    pub(crate) fn trouble(&self, name: &'static str, error: &Error) {
        let mut watched = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match watched.iter_mut().find(|role| role.name == name) {
            Some(role) => role.error = Some(error.chain()),
            None => watched.push(Watched {
                name,
                ready: false,
                behind: 0,
                progress: 0,
                moved: Instant::now(),
                pace: Duration::ZERO,
                error: Some(error.chain()),
                lacks: None,
            }),
        }
    }

    /// Conditions at this moment.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let watched = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        watched.iter().map(|role| self.condition(role)).collect()
    }

    fn condition(&self, role: &Watched) -> Condition {
        let idle = role.moved.elapsed();
        let fresh = idle <= self.stale_after + role.pace;
        let why = match (&role.error, fresh) {
            (Some(error), _) => Some(error.clone()),
            (None, false) => Some(format!("no progress for {} s with {} waiting", idle.as_secs(), role.behind)),
            (None, true) => role.lacks.clone(),
        };
        Condition { name: role.name, ready: role.ready, fresh, behind: role.behind, why }
    }
}

#[derive(Serialize)]
struct Report {
    status: &'static str,
    conditions: Vec<Condition>,
}

struct Shared {
    health: Health,
    registry: Registry,
}

/// Serves until cancelled, with the metrics of this process added to `registry`. Returns the bound address and the task.
///
/// # Errors
/// `Config` if it cannot listen at the address; `Bug` if the registry already has metrics of the process.
pub(crate) async fn start(
    address: SocketAddr,
    health: Health,
    registry: Registry,
    stop: CancellationToken,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let refuse = |source: std::io::Error| {
        Error::config(format!("cannot listen on `{address}`"))
            .with_hint("change `serve.address`, or stop the process that uses it; port 0 picks any free port")
            .with_source(source)
    };
    // Memory, CPU time, threads and open files of this process, read from `/proc`, which only Linux has.
    #[cfg(target_os = "linux")]
    registry
        .register(Box::new(ProcessCollector::for_self()))
        .map_err(|source| Error::bug("cannot register the metrics of the process").with_source(source))?;
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let bound = listener.local_addr().map_err(refuse)?;
    let shared = Arc::new(Shared { health, registry });
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "health and metrics server failed");
        }
    });
    Ok((bound, task))
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    report(&shared, |condition| condition.fresh)
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    report(&shared, |condition| condition.ready && condition.fresh && condition.why.is_none())
}

fn report(shared: &Shared, good: fn(&Condition) -> bool) -> Response {
    let conditions = shared.health.conditions();
    let well = !conditions.is_empty() && conditions.iter().all(good);
    let lacking = conditions.iter().any(|condition| condition.why.is_some());
    let (code, status) = match (well, conditions.is_empty()) {
        // It goes on, and something of it does not work: a restart would not help.
        (true, _) if lacking => (StatusCode::OK, "degraded"),
        (true, _) => (StatusCode::OK, "ok"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "stale"),
    };
    let body = serde_json::to_string(&Report { status, conditions }).unwrap_or_else(|error| error.to_string());
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    match encoder.encode(&shared.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_has_work_and_does_not_move_is_stale() {
        let health = Health::new(Duration::ZERO);
        health.note("ingest", 1, 5);
        std::thread::sleep(Duration::from_millis(2));
        health.note("ingest", 1, 5);
        let stale = health.conditions().remove(0);
        assert!(!stale.fresh);
        assert!(stale.why.is_some_and(|why| why.contains("5 waiting")));
    }

    #[test]
    fn a_role_without_work_is_fresh() {
        let health = Health::new(Duration::from_secs(1));
        health.note("aggregate", 1, 0);
        assert!(health.conditions()[0].fresh);
        health.trouble("aggregate", &Error::unavailable("the store is away"));
        assert!(health.conditions()[0].why.is_some());
    }

    #[test]
    fn what_does_not_work_of_a_role_that_moves_is_told_until_it_works() {
        let health = Health::new(Duration::from_secs(1));
        health.note("watch", 1, 0);
        health.lack("watch", Some("rule `mine` fails".to_owned()));
        health.note("watch", 2, 0);
        let lacking = health.conditions().remove(0);
        assert!(lacking.fresh && lacking.ready);
        assert_eq!(lacking.why.as_deref(), Some("rule `mine` fails"));
        health.lack("watch", None);
        assert_eq!(health.conditions().remove(0).why, None);
    }
}
