//! The HTTP endpoints of a process: `/healthz`, `/livez`, `/readyz`, `/metrics`, and those of [`hooks`](crate::hooks) and of the gate
//! (`bellwether_serve`).
//!
//! The health endpoints respond with 200 or 503 and a JSON object that names stale or degraded roles, with the reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bellwether_base::{Error, Result};
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, IntGaugeVec, Opts, Registry, TextEncoder};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::{Condition, Health};
use crate::hooks::pagerduty::Secrets;

/// Settings of the endpoints.
#[derive(Clone, Debug)]
pub(crate) struct ServeSettings {
    /// Address to listen on.
    pub(crate) address: SocketAddr,
    /// Time without progress after which a role with waiting work is stale.
    pub(crate) stale_after: Duration,
    /// Secrets of PagerDuty's webhook; without any, there is no such endpoint.
    pub(crate) pagerduty: Secrets,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 9464)),
            stale_after: Duration::from_secs(60),
            pagerduty: Secrets::default(),
        }
    }
}

#[derive(Serialize)]
struct HealthReport {
    status: &'static str,
    conditions: Vec<Condition>,
}

struct Served {
    health: Health,
    registry: Registry,
    roles: RoleGauges,
}

/// The conditions of the roles as gauges.
struct RoleGauges {
    ready: IntGaugeVec,
    fresh: IntGaugeVec,
    degraded: IntGaugeVec,
    waiting: IntGaugeVec,
}

/// Serves until `stop` is cancelled, with the metrics of the process added to `registry` and further endpoints. Returns the bound address and the
/// server task.
///
/// # Errors
/// `Config` if the address cannot be bound, `Bug` if the registry already has metrics of the process.
pub(crate) async fn start(
    address: SocketAddr,
    health: Health,
    registry: Registry,
    more: Router,
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
    let roles = RoleGauges::register(&registry)
        .map_err(|source| Error::bug("cannot register the metrics of the roles").with_source(source))?;
    let served = Arc::new(Served { health, registry, roles });
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(served)
        .merge(more);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "health and metrics server failed");
        }
    });
    Ok((bound, task))
}

async fn healthz(State(served): State<Arc<Served>>) -> Response {
    let conditions = served.health.conditions();
    let healthy = !conditions.is_empty() && conditions.iter().all(|condition| condition.fresh);
    report(conditions, healthy)
}

/// For a supervisor that restarts the process: a start takes its time, and no restart brings Kafka or storage back.
async fn livez(State(served): State<Arc<Served>>) -> Response {
    report(served.health.conditions(), !served.health.is_stuck())
}

async fn readyz(State(served): State<Arc<Served>>) -> Response {
    let conditions = served.health.conditions();
    let works = |condition: &Condition| condition.ready && condition.fresh && condition.why.is_none();
    let ready = !conditions.is_empty() && conditions.iter().all(works);
    report(conditions, ready)
}

fn report(conditions: Vec<Condition>, healthy: bool) -> Response {
    let degraded = conditions.iter().any(|condition| condition.why.is_some());
    let (code, status) = match (healthy, conditions.is_empty()) {
        // The role goes on and a part of it fails: a restart would not help.
        (true, _) if degraded => (StatusCode::OK, "degraded"),
        (true, _) => (StatusCode::OK, "ok"),
        (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "stale"),
    };
    let body = serde_json::to_string(&HealthReport { status, conditions }).unwrap_or_else(|error| error.to_string());
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    served.roles.set(&served.health.conditions());
    match encoder.encode(&served.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

// === impl RoleGauges ===

impl RoleGauges {
    fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(format!("bellwether_role_{name}"), help), &["role"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            ready: gauge("ready", "1 once the role has done its first work")?,
            fresh: gauge("fresh", "1 while the role makes progress or has nothing to do, 0 while it is stale")?,
            degraded: gauge("degraded", "1 while a part of the role does not work; /readyz has the reason")?,
            waiting: gauge("waiting", "Waiting work: messages for ingest, versions for roles that follow a table")?,
        })
    }

    fn set(&self, conditions: &[Condition]) {
        for condition in conditions {
            let labels = &[condition.name];
            self.ready.with_label_values(labels).set(condition.ready.into());
            self.fresh.with_label_values(labels).set(condition.fresh.into());
            self.degraded.with_label_values(labels).set(condition.why.is_some().into());
            self.waiting.with_label_values(labels).set(condition.behind);
        }
    }
}
