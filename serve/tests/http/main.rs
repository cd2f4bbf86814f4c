//! The server of queries over tables that ingest and aggregate wrote, asked by a real HTTP client, by the protocol
//! of Postgres, and by Arrow Flight SQL.
//!
//! * `sql` runs statements; `reads` asks the other endpoints; `postgres` and its `client` speak the protocol of
//!   Postgres, `flight` and its `flight_client` Arrow Flight SQL.
//! * `tenants` attacks the boundary between tenants.
//! * `hostile` are clients that send too much, too slowly or nothing, and that do not read.
//! * `feed` commits runs as ingest does.
//!
//! `tests/serve` starts the program, with TLS and tokens.

mod client;
mod feed;
mod flight;
mod flight_client;
mod hostile;
#[expect(dead_code, reason = "the tests send and read some of the messages")]
#[path = "../../src/flight/message.rs"]
mod message;
mod postgres;
mod reads;
mod sql;
mod tenants;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use bellwether_alerts::Contracts;
use bellwether_alerts::gate::{GateReader, GateSettings, Policy};
use bellwether_serve::{ServerSettings, Tokens, listen};
use prometheus::Registry;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;

const MINUTE: i64 = 60_000_000;

/// The time at which all runs arrive, a whole minute in the past.
static NOW: LazyLock<i64> = LazyLock::new(|| {
    use bellwether_base::Clock;
    (bellwether_base::SystemClock.now_micros() - 90 * MINUTE).div_euclid(MINUTE) * MINUTE
});

/// A word in everything about the other tenant.
const RIVAL: &str = "globex";

/// A server in this process.
struct Served {
    url: String,
    postgres: Option<SocketAddr>,
    flight: Option<SocketAddr>,
    client: Client,
    registry: Registry,
    stop: CancellationToken,
}

/// Settings that suit tests: any port, and little patience.
fn settings() -> ServerSettings {
    let address = ([127, 0, 0, 1], 0).into();
    ServerSettings { address, patience: Duration::from_secs(1), ..ServerSettings::default() }
}

// === impl Served ===

impl Served {
    async fn start(feed: &Feed, settings: ServerSettings) -> Self {
        let gate =
            GateReader { policy: Policy::default(), contracts: Contracts::new(), settings: GateSettings::default() };
        let (registry, stop) = (Registry::new(), CancellationToken::new());
        let listening = Box::pin(listen(feed.lake.clone(), gate, settings, &registry)).await;
        let listening = listening.unwrap_or_else(|error| panic!("{}", error.chain()));
        let (url, postgres, flight) = (listening.url(), listening.postgres(), listening.flight());
        tokio::spawn(listening.run(stop.clone()));
        // A connection that is kept may be closed by the server, which is patient for a second, just as it is used again.
        let client = Client::builder().pool_max_idle_per_host(0).build().expect("a client");
        Self { url, postgres, flight, client, registry, stop }
    }

    /// Returns the address for clients of Postgres.
    fn postgres(&self) -> SocketAddr {
        self.postgres.expect("the settings name it")
    }

    /// Returns the address for clients of Arrow Flight SQL.
    fn flight(&self) -> SocketAddr {
        self.flight.expect("the settings name it")
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("{}{path}", self.url))
    }

    fn post(&self, body: &Value) -> RequestBuilder {
        let request = self.client.post(format!("{}/v1/sql", self.url));
        request.header("content-type", "application/json").body(body.to_string())
    }

    /// Runs a statement.
    async fn sql(&self, sql: &str) -> (StatusCode, Value) {
        answer(self.post(&json!({ "sql": sql }))).await
    }

    /// Returns a gauge or counter of the server.
    fn metric(&self, name: &str) -> f64 {
        let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    /// Waits until no statement runs.
    async fn comes_to_rest(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while self.metric("bellwether_serve_statements") > 0.0 {
            assert!(tokio::time::Instant::now() < deadline, "a statement still runs");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a request; returns the status and the body, which is JSON.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.expect("an answer");
    let (status, text) = (response.status(), text(response).await);
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn text(response: Response) -> String {
    response.text().await.expect("a whole answer")
}

/// Returns a run of a tenant, whose names all carry the tenant's.
fn run(tenant: &str, number: i64) -> Value {
    let ended = *NOW - 30 * MINUTE + number * 7_000_000;
    let status = if number % 5 == 0 { "failure" } else { "success" };
    json!({
        "spec": "run-event/1", "type": "run.completed", "run_id": format!("{tenant}-{number}"), "source": format!("{tenant}-app"),
        "tenant": tenant,
        "data": {
            "task": format!("{tenant}-task"),
            "release": { "id": format!("{tenant}-v{}", number % 2 + 1), "model": { "requested": format!("{tenant}-model") } },
            "rollout": { "stage": if number % 2 == 0 { "full" } else { "canary" } },
            "started_at": text_of(ended - 1_000_000), "ended_at": text_of(ended),
            "outcome": { "status": status },
            "segments": { "region": format!("{tenant}-region") },
            "tool_calls": [{ "name": format!("{tenant}-tool"), "status": "ok" }],
        },
    })
}

/// Returns tables with 100 runs of one tenant and 150 of another.
async fn tables() -> Feed {
    let mut feed = Feed::new(*NOW).await;
    let mut runs: Vec<Value> = (0..100).map(|number| run("acme", number)).collect();
    runs.extend((0..150).map(|number| run(RIVAL, number)));
    Box::pin(feed.commit(&runs)).await;
    feed
}

fn text_of(micros: i64) -> String {
    let moment = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
    moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Writes tokens, and returns their texts.
fn tokens(file: &std::path::Path, of: &[(&str, bellwether_serve::Scope, Option<&str>)]) -> Vec<String> {
    let mut tokens = Tokens::default();
    let added = of
        .iter()
        .map(|(name, scope, tenant)| tokens.add(name, *scope, tenant.map(str::to_owned), None).expect("added"));
    let texts = added.collect();
    tokens.save(file).expect("saved");
    texts
}
