//! The gate over HTTP, for controllers that release software.
//!
//! * `GET /api/v1/gate?task=&canary=&baseline=` answers with JSON. Argo Rollouts' web metric reads it by `{$.decision}`
//!   (argo-rollouts, docs/analysis/web.md: a GET, optional headers, a JSON body).
//! * `POST /api/v1/gate/flagger/confirm` and `…/rollback` are webhooks of Flagger (flagger, docs/gitbook/usage/webhooks.md: a POST
//!   of `{name, namespace, phase, metadata}`; a 2xx confirms or rolls back, anything else does not). The question is in `metadata`.
//! * `GET /v1/gate` of the server of queries asks the same question, for callers by its tokens.
//!
//! Rules: an error never looks like a decision, and no answer waits for a notification about it. Beyond loopback the gate is served
//! only to those who have a token.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bellwether_alerts::gate::{GateAnswer, GateDecision, GateReader, Question};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_queries::since;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::refused::{Answered, Refused};

/// Questions that are answered at the same time; each may take the memory of a query.
const AT_ONCE: usize = 2;

/// Largest body of a webhook.
const BODY_BYTES: usize = 64 << 10;

/// Shortest token: a shorter one can be guessed.
const TOKEN_CHARACTERS: usize = 16;

/// Answers questions of one server.
pub(crate) struct Gate {
    reader: GateReader,
    lake: Lake,
    slots: Semaphore,
}

/// The gate beside health and metrics, with its own token.
struct Service {
    gate: Gate,
    token_file: Option<PathBuf>,
    is_exposed: bool,
    told: Option<Told>,
}

/// Hears of each answer of the gate beside health and metrics, at once and without delay.
pub type Told = Box<dyn Fn(&GateAnswer) + Send + Sync>;

/// The question in a request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    task: String,
    canary: Option<String>,
    baseline: Option<String>,
    tenant: Option<String>,
    since: Option<String>,
    /// `live` or `offline`.
    mode: Option<String>,
    /// For webhooks, which cannot send headers.
    token: Option<String>,
    /// The one who asks must not learn the names of other tenants.
    #[serde(skip)]
    is_restricted: bool,
}

/// The body of a webhook of Flagger. It may get more fields.
#[derive(Debug, Deserialize)]
struct Webhook {
    name: String,
    namespace: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

// === impl Asked ===

impl Asked {
    /// Reads the question from names and values.
    fn of(pairs: &BTreeMap<String, String>) -> serde_json::Result<Self> {
        serde_json::to_value(pairs).and_then(serde_json::from_value)
    }

    /// Reads the question from the part of an address after `?`.
    pub(crate) fn of_query(query: &str) -> Answered<Self> {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let asked = Self::of(&pairs).map_err(|error| Refused::bad(format!("the query: {error}")))?;
        if asked.token.is_some() {
            let why = "a token in an address ends up in logs; send the header `Authorization: Bearer TOKEN`";
            return Err(Refused::bad(why));
        }
        Ok(asked)
    }

    /// Restricts the question to a tenant; another one cannot be asked about.
    pub(crate) fn restrict(&mut self, tenant: &str) -> Answered<()> {
        if self.tenant.as_deref().is_some_and(|asked| asked != tenant) {
            return Err(Refused::new(
                StatusCode::FORBIDDEN,
                format!("this token sees the runs of tenant `{tenant}` alone"),
            ));
        }
        (self.tenant, self.is_restricted) = (Some(tenant.to_owned()), true);
        Ok(())
    }
}

/// Returns the routes of the gate.
///
/// # Errors
/// `Config` if the policy is invalid, or the token cannot be read or is too short.
pub fn gate_routes(
    reader: GateReader,
    lake: &Lake,
    token_file: Option<PathBuf>,
    address: SocketAddr,
    told: Option<Told>,
) -> Result<Router> {
    let service =
        Service { gate: Gate::new(reader, lake.clone()), token_file, is_exposed: !address.ip().is_loopback(), told };
    service.token()?;
    Ok(Router::new()
        .route("/api/v1/gate", get(answer))
        .route("/api/v1/gate/flagger/confirm", post(confirm))
        .route("/api/v1/gate/flagger/rollback", post(roll_back))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Arc::new(service)))
}

// === impl Gate ===

impl Gate {
    pub(crate) fn new(reader: GateReader, lake: Lake) -> Self {
        Self { reader, lake, slots: Semaphore::new(AT_ONCE) }
    }

    pub(crate) async fn ask(&self, asked: Asked) -> Answered<GateAnswer> {
        if asked.task.is_empty() {
            return Err(Refused::bad("`task` is missing"));
        }
        let offline = match asked.mode.as_deref() {
            None | Some("live") => false,
            Some("offline") => true,
            Some(other) => {
                return Err(Refused::bad(format!("`mode` is `{other}`; it must be `live` or `offline`")));
            }
        };
        let since = asked.since.as_deref().map(|text| since(text, self.lake.clock().now_micros())).transpose()?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let question = Question {
            task: asked.task,
            canary: given(asked.canary),
            baseline: given(asked.baseline),
            tenant: given(asked.tenant),
            since,
            offline,
        };
        let Ok(_slot) = self.slots.try_acquire() else {
            return Err(Refused::busy("the gate is answering other questions"));
        };
        let mut reader = Cow::Borrowed(&self.reader);
        if asked.is_restricted {
            reader.to_mut().policy.slices.tenants.clear();
        }
        Ok(Box::pin(reader.ask(&self.lake, &question)).await?)
    }
}

// === impl Service ===

impl Service {
    /// Returns the token, if one is required. The file is read each time, so that a token can be replaced.
    fn token(&self) -> Result<Option<String>> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let text = std::fs::read_to_string(file).map_err(|source| {
            Error::config(format!("cannot read the token in `{}`", file.display()))
                .with_hint("name a readable file in `gate.token_file`")
                .with_source(source)
        })?;
        let token = text.trim();
        if token.chars().count() < TOKEN_CHARACTERS {
            let short = format!("the token in `{}` is shorter than {TOKEN_CHARACTERS} characters", file.display());
            return Err(
                Error::config(short).with_hint("write a random one, such as the output of `openssl rand -hex 32`")
            );
        }
        Ok(Some(token.to_owned()))
    }

    /// Checks that a request may ask: with the token in its header, or in the body of a webhook.
    fn admit(&self, headers: &HeaderMap, also: Option<&str>) -> Answered<()> {
        let wanted = self.token().map_err(|error| {
            tracing::error!(reason = %error.chain(), "the gate answers no one");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the token of the gate cannot be read")
        })?;
        let Some(wanted) = wanted else {
            let why = "the gate is not served beyond loopback without a token; set `gate.token_file`";
            return if self.is_exposed { Err(Refused::new(StatusCode::FORBIDDEN, why)) } else { Ok(()) };
        };
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        // Comparing hashes takes the same time wherever the texts differ.
        let is_right = |given: &str| Sha256::digest(given) == Sha256::digest(&wanted);
        if bearer.or(also).is_some_and(is_right) {
            return Ok(());
        }
        Err(Refused::new(StatusCode::UNAUTHORIZED, "the gate needs the header `Authorization: Bearer TOKEN`"))
    }

    async fn ask(&self, asked: Asked) -> Answered<GateAnswer> {
        let answer = self.gate.ask(asked).await?;
        if let Some(told) = &self.told {
            told(&answer);
        }
        Ok(answer)
    }

    async fn hook(&self, headers: &HeaderMap, body: &Bytes) -> Answered<GateAnswer> {
        let hook: Webhook = serde_json::from_slice(body)
            .map_err(|error| Refused::bad(format!("the body is no webhook of Flagger: {error}")))?;
        self.admit(headers, hook.metadata.get("token").map(String::as_str))?;
        let asked = Asked::of(&hook.metadata).map_err(|error| {
            Refused::bad(format!("the metadata of the webhook of `{}/{}`: {error}", hook.namespace, hook.name))
        })?;
        self.ask(asked).await
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Answered<Response> {
    service.admit(&headers, None)?;
    let asked = Asked::of_query(query.as_deref().unwrap_or_default())?;
    written(&service.ask(asked).await?)
}

/// Returns an answer as JSON.
pub(crate) fn written(answer: &GateAnswer) -> Answered<Response> {
    let is_unknown = answer.unknown.as_ref().is_some_and(|unknown| unknown.what == "task");
    let status = if is_unknown { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let body = serde_json::to_string(answer)
        .map_err(|source| Error::bug("cannot write the answer as JSON").with_source(source))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A 2xx lets the rollout or the promotion go on; Flagger asks again after a 403, and shows its text.
async fn confirm(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Answered<Response> {
    let answer = service.hook(&headers, &body).await?;
    Ok(said(&answer, answer.decision == GateDecision::Promote))
}

/// A 2xx rolls back.
async fn roll_back(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Answered<Response> {
    let answer = service.hook(&headers, &body).await?;
    Ok(said(&answer, answer.decision == GateDecision::RollBack))
}

fn said(answer: &GateAnswer, yes: bool) -> Response {
    let status = if yes { StatusCode::OK } else { StatusCode::FORBIDDEN };
    (status, format!("{}: {}", answer.decision.words(), answer.summary)).into_response()
}
