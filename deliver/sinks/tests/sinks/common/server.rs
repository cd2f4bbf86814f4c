//! A server on loopback that records requests, checks them, and gives the answers that a test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;

use super::contract::violations;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// An answer to give.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    pub(crate) after: Duration,
}

/// The server. It ends with the test.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<Mutex<Exchange>>,
}

#[derive(Default)]
struct Exchange {
    /// The requests are not those of a sink, so that no contract is theirs.
    is_unchecked: bool,
    requests: Vec<Recorded>,
    /// Requests that broke the contract of their service, and how.
    violations: Vec<String>,
    replies: VecDeque<Reply>,
}

// === impl Recorded ===

impl Recorded {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(there, _)| there == name);
        found.map_or("", |(_, value)| value.as_str())
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.to_owned(), after: Duration::ZERO }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}

// === impl Server ===

impl Server {
    /// Starts a server that gives these answers, and 200 after the last one.
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        Self::with(Exchange { replies: replies.into(), ..Exchange::default() }).await
    }

    /// Starts a server for requests of others than sinks, such as the notifications of a real Alertmanager.
    pub(crate) async fn of_others() -> Self {
        Self::with(Exchange { is_unchecked: true, ..Exchange::default() }).await
    }

    async fn with(exchange: Exchange) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(exchange));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Takes the requests that have arrived. Fails if one broke the contract of its service.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        let (requests, violations) = {
            let mut state = self.state.lock().expect("a lock");
            (std::mem::take(&mut state.requests), std::mem::take(&mut state.violations))
        };
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        requests
    }

    /// Takes the only request that has arrived.
    pub(crate) fn request(&self) -> Recorded {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.into_iter().next().expect("a request")
    }
}

async fn answer(State(state): State<Arc<Mutex<Exchange>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body");
    let headers = parts.headers.iter();
    let reply = {
        let recorded = Recorded {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: headers
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: String::from_utf8(bytes.to_vec()).expect("text"),
        };
        let broken = violations(&recorded);
        let mut state = state.lock().expect("a lock");
        state.requests.push(recorded);
        if !state.is_unchecked {
            state.violations.extend(broken);
        }
        state.replies.pop_front().unwrap_or_else(|| Reply::new(200, "ok"))
    };
    tokio::time::sleep(reply.after).await;
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).expect("a response")
}
