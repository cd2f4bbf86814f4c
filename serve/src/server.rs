//! The server: one engine for all callers, and the one way by which each request comes in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use bellwether_alerts::gate::GateReader;
use bellwether_base::{Clock, Result, unique_id};
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, SessionSettings};
use prometheus::Registry;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::access::{Access, Caller};
use crate::audit::{Audit, Record};
use crate::cache::Cache;
use crate::encode::Format;
use crate::endpoint::{ENDPOINTS, Endpoint, Verb, Work};
use crate::gate::Gate;
use crate::listener::{self, Connection, Listener};
use crate::metrics::Metrics;
use crate::postgres::PostgresListener;
use crate::refused::{Answered, Refused};
use crate::running::Running;
use crate::settings::ServerSettings;
use crate::{flight, openapi, read, statement};

/// Read endpoints that are computed at the same time, beside the statements.
const READS: usize = 2;

/// Age of the known versions of the tables at which a read endpoint looks them up again.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// The parts that all requests share.
pub(crate) struct Server {
    pub(crate) settings: ServerSettings,
    pub(crate) lake: Lake,
    pub(crate) engine: Engine,
    pub(crate) audit: Audit,
    pub(crate) metrics: Metrics,
    pub(crate) gate: Gate,
    pub(crate) cache: Cache,
    pub(crate) running: Running,
    pub(crate) access: Access,
    clock: Arc<dyn Clock>,
    slots: Arc<Semaphore>,
    reads: Semaphore,
    known_at: Mutex<Option<Instant>>,
}

/// A server that listens.
pub struct Listening {
    address: SocketAddr,
    is_encrypted: bool,
    listener: Listener,
    router: Router,
    postgres: Option<(SocketAddr, PostgresListener)>,
    flight: Option<(SocketAddr, Listener)>,
    flight_router: Router,
}

/// Opens the tables and begins to listen; [`Listening::run`] answers.
///
/// # Errors
/// `Config` if a setting is invalid or a file or the address cannot be used; `Unavailable` if the tables cannot be read; `Bug` if
/// the registry has metrics of a server.
pub async fn listen(lake: Lake, gate: GateReader, settings: ServerSettings, registry: &Registry) -> Result<Listening> {
    settings.check()?;
    let tls = listener::tls(&settings, "http/1.1")?;
    let engine = EngineSettings { memory_limit_bytes: settings.memory_bytes, ..EngineSettings::default() };
    let engine = Engine::open(&lake, engine).await?;
    let (clock, metrics) = (lake.clock(), Metrics::new(registry)?);
    let server = Arc::new(Server {
        access: Access::new(settings.tokens.as_deref(), Arc::clone(&clock))?,
        audit: Audit::new(settings.audit.clone(), Arc::clone(&clock))?,
        gate: Gate::new(gate, lake.clone()),
        slots: Arc::new(Semaphore::new(settings.statements)),
        reads: Semaphore::new(READS),
        cache: Cache::default(),
        running: Running::default(),
        known_at: Mutex::default(),
        metrics: metrics.clone(),
        settings,
        lake,
        engine,
        clock,
    });
    let settings = &server.settings;
    let (socket, address) = listener::bind(settings.address, "api.address").await?;
    let (is_encrypted, patience) = (tls.is_some(), settings.patience);
    let places = Arc::new(Semaphore::new(settings.connections));
    let postgres = match settings.postgres {
        Some(address) => {
            let (socket, address) = listener::bind(address, "api.postgres_address").await?;
            let tls = listener::tls(settings, "postgresql")?;
            let listener = Listener { socket, tls, places: Arc::clone(&places), patience, metrics: metrics.clone() };
            Some((address, PostgresListener::new(Arc::clone(&server), listener)))
        }
        None => None,
    };
    let flight = match settings.flight {
        Some(address) => {
            let (socket, address) = listener::bind(address, "api.flight_address").await?;
            let tls = listener::tls(settings, "h2")?;
            let metrics = metrics.clone();
            Some((address, Listener { socket, tls, places: Arc::clone(&places), patience, metrics }))
        }
        None => None,
    };
    let listener = Listener { socket, tls, places, patience, metrics };
    let (router, flight_router) = (router(Arc::clone(&server)), flight::router(server));
    Ok(Listening { address, is_encrypted, listener, router, postgres, flight, flight_router })
}

// === impl Listening ===

impl Listening {
    /// Returns the base of all addresses of the server.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_encrypted { "https" } else { "http" }, self.address)
    }

    /// Returns the address at which clients of Postgres are answered, if they are.
    pub fn postgres(&self) -> Option<SocketAddr> {
        self.postgres.as_ref().map(|(address, _)| *address)
    }

    /// Returns the address at which clients of Arrow Flight SQL are answered, if they are.
    pub fn flight(&self) -> Option<SocketAddr> {
        self.flight.as_ref().map(|(address, _)| *address)
    }

    /// Answers until `stop` is cancelled, and then until the requests that run are answered or too much time has passed.
    pub async fn run(self, stop: CancellationToken) {
        let postgres = async {
            if let Some((_, listener)) = self.postgres {
                listener.run(stop.clone()).await;
            }
        };
        let flight = async {
            if let Some((_, listener)) = self.flight {
                listener.run(self.flight_router, Version::HTTP_2, stop.clone()).await;
            }
        };
        tokio::join!(self.listener.run(self.router, Version::HTTP_11, stop.clone()), postgres, flight);
    }
}

fn router(server: Arc<Server>) -> Router {
    let mut router = Router::new();
    for endpoint in ENDPOINTS {
        let method = match endpoint.verb {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(server): State<Arc<Server>>, path: RawPathParams, request: Request| async move {
            let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let mut response = answer(server, endpoint, path, request).await;
            response.extensions_mut().insert(Called(endpoint.path));
            response
        };
        router = router.route(endpoint.path, on(method, handler));
    }
    let unknown = || async {
        Refused::new(StatusCode::NOT_FOUND, "there is no such endpoint")
            .with_hint("GET /v1/openapi.json lists all endpoints")
    };
    let other_method = || async { Refused::new(StatusCode::METHOD_NOT_ALLOWED, "the endpoint has no such method") };
    router
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&server), admit))
        .with_state(server)
}

/// Lets only known callers in, and counts each request.
async fn admit(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let mut response = match server.access.caller(request.uri(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let Called(path) = response.extensions().get().copied().unwrap_or(Called("none"));
    server.metrics.requests.with_label_values(&[path, response.status().as_str()]).inc();
    response
}

/// The path of the endpoint that answered, for metrics: the address has ids, of which there is no end.
#[derive(Clone, Copy)]
struct Called(&'static str);

/// Answers a request of a known caller.
async fn answer(
    server: Arc<Server>,
    endpoint: &'static Endpoint,
    path: BTreeMap<String, String>,
    mut request: Request,
) -> Response {
    // Without a caller, the request has not come in by `admit`.
    let Some(caller) = request.extensions_mut().remove::<Caller>() else {
        return Refused::new(StatusCode::UNAUTHORIZED, "the request has no valid token").into_response();
    };
    if matches!(endpoint.work, Work::Sql) {
        return Box::pin(statement::run(server, caller, request)).await;
    }
    let began = Instant::now();
    let connection = request.extensions().get::<Connection>().cloned().unwrap_or_default();
    // A body cannot be shared between threads, and none of these endpoints reads it.
    let (head, _) = request.into_parts();
    let answered = Box::pin(work(&server, endpoint, &caller, path, &head)).await;
    let response = answered.unwrap_or_else(IntoResponse::into_response);
    let (id, called) = (unique_id().simple().to_string(), format!("{} {}", head.method, head.uri.path()));
    let record = Record {
        event: "answered",
        endpoint: &called,
        text: head.uri.query(),
        status: Some(response.status().as_u16()),
        duration_ms: Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        ..Record::of(&caller, &id, &connection.client)
    };
    // A request that cannot be recorded gets no answer.
    server.audit.write(&record).map_or_else(|error| Refused::from(error).into_response(), |()| response)
}

async fn work(
    server: &Arc<Server>,
    endpoint: &'static Endpoint,
    caller: &Caller,
    path: BTreeMap<String, String>,
    head: &Parts,
) -> Answered<Response> {
    let query = head.uri.query().unwrap_or_default();
    match &endpoint.work {
        Work::Sql => Err(Refused::bad("statements are sent by POST")),
        Work::Select(select) => {
            let asked = read::Asked::of(endpoint, select, path, query, &head.headers)?;
            read::answer(server, caller, &asked, &head.headers).await
        }
        Work::Alerts => read::alerts(server, caller, endpoint, (query, &head.headers)).await,
        Work::Gate => {
            let mut asked = crate::gate::Asked::of_query(query)?;
            if let Some(tenant) = &caller.tenant {
                asked.restrict(tenant)?;
            }
            crate::gate::written(&server.gate.ask(asked).await?)
        }
        Work::Statements => Ok(json(&serde_json::json!(server.running.list(caller)))),
        Work::Cancel => {
            let id = path.get("id").map(String::as_str).unwrap_or_default();
            if server.running.cancel(id, caller) {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            Err(Refused::new(StatusCode::NOT_FOUND, format!("no statement `{id}` of yours runs"))
                .with_hint("GET /v1/statements lists those that run"))
        }
        Work::OpenApi => Ok(json(&openapi::document())),
    }
}

/// Answers with JSON that is not kept.
pub(crate) fn json(value: &serde_json::Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from(value.to_string())).into_response()
}

// === impl Server ===

impl Server {
    /// Returns the limits of a caller's session: its tenant, the limits of a statement, and half of the memory of all.
    pub(crate) fn session_settings(&self, caller: &Caller) -> SessionSettings {
        SessionSettings {
            memory_limit_bytes: self.settings.memory_bytes / 2,
            timeout: Some(self.settings.timeout),
            max_rows: Some(self.settings.max_rows),
            tenant: caller.tenant.as_deref().map(str::to_owned),
            ..SessionSettings::default()
        }
    }

    /// Waits for a place among the statements that run.
    pub(crate) async fn slot(&self) -> Answered<OwnedSemaphorePermit> {
        let slot = tokio::time::timeout(self.settings.patience, Arc::clone(&self.slots).acquire_owned()).await;
        slot.ok().and_then(std::result::Result::ok).ok_or_else(|| {
            let most = self.settings.statements;
            Refused::busy(format!("{most} statements run already, which is the most (`api.statements`)"))
        })
    }

    /// Waits for a place among the read endpoints that are computed.
    pub(crate) async fn reading(&self) -> Answered<tokio::sync::SemaphorePermit<'_>> {
        let slot = tokio::time::timeout(self.settings.patience, self.reads.acquire()).await;
        slot.ok().and_then(std::result::Result::ok).ok_or_else(|| Refused::busy("too many answers are being computed"))
    }

    /// Looks up the versions of the tables, unless that was done a moment ago.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let mut known_at = self.known_at.lock().await;
        if known_at.is_none_or(|at| at.elapsed() >= KNOWN_FOR) {
            self.engine.refresh().await?;
            *known_at = Some(Instant::now());
        }
        Ok(())
    }

    pub(crate) fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }

    pub(crate) fn now_text(&self) -> String {
        let now = chrono::DateTime::from_timestamp_micros(self.now_micros()).unwrap_or_default();
        now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}

/// Returns the form that a request asks for: by `format` in its address, otherwise by `Accept`, otherwise JSON.
pub(crate) fn format_of(query: Option<&str>, headers: &HeaderMap) -> Answered<Format> {
    let names = || Format::ALL.map(Format::name).join(", ");
    let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    if let Some((_, name)) = pairs.into_iter().find(|(key, _)| key == "format") {
        let found = Format::ALL.into_iter().find(|format| format.name() == name);
        return found.ok_or_else(|| Refused::bad(format!("`format` is `{name}`; it must be one of {}", names())));
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    for kind in accept.split(',') {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if ["*/*", "application/*", ""].contains(&kind) {
            return Ok(Format::Json);
        }
        if let Some(format) = Format::ALL.into_iter().find(|format| format.media_type().eq_ignore_ascii_case(kind)) {
            return Ok(format);
        }
    }
    let types = Format::ALL.map(Format::media_type).join(", ");
    Err(Refused::new(StatusCode::NOT_ACCEPTABLE, format!("`Accept` must name one of {types}"))
        .with_hint(format!("or add `?format=` with one of {}", names())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_an_answer_follows_the_address_then_the_header() {
        let with = |query, accept: Option<&str>| {
            let headers = accept.map(|accept| (header::ACCEPT, accept.parse().expect("a value")));
            format_of(query, &headers.into_iter().collect())
        };
        assert_eq!(with(None, None).expect("JSON"), Format::Json);
        assert_eq!(with(Some("format=csv"), Some("application/json")).expect("CSV"), Format::Csv);
        assert_eq!(with(None, Some("text/html, text/csv;q=0.9")).expect("CSV"), Format::Csv);
        assert_eq!(with(None, Some("application/vnd.apache.arrow.stream")).expect("Arrow"), Format::Arrow);
        assert_eq!(with(None, Some("text/html,*/*;q=0.1")).expect("anything"), Format::Json);
        assert_eq!(with(None, Some("image/png")).expect_err("none").status, StatusCode::NOT_ACCEPTABLE);
        assert!(with(Some("format=xml"), None).expect_err("none").message.contains("json, csv, ndjson"));
    }
}
