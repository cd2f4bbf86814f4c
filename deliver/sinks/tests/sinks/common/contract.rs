//! The contracts of the services: which JSON Schema of `tests/data` a request must follow.
//!
//! The recording server checks every request, whatever the test is about.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use super::schema;
use super::server::Recorded;

/// The schemas by their names.
static SCHEMAS: LazyLock<BTreeMap<&str, Validator>> =
    LazyLock::new(|| CONTRACTS.iter().map(|name| (*name, schema(name))).collect());

/// Every contract.
pub(crate) const CONTRACTS: [&str; 10] = [
    "alertmanager.post_alerts",
    "alertmanager.post_silence",
    "cloudevents",
    "opsgenie.action",
    "opsgenie.create",
    "opsgenie.description",
    "pagerduty.change",
    "pagerduty.event",
    "slack.message",
    "teams.workflow",
];

/// Returns why a request breaks the contract of its service; nothing if it follows it, or has no body.
pub(crate) fn violations(request: &Recorded) -> Vec<String> {
    if request.body.is_empty() {
        return Vec::new();
    }
    let body: Value = match serde_json::from_str(&request.body) {
        Ok(body) => body,
        Err(error) => return vec![format!("{}: the body is not JSON: {error}", request.target)],
    };
    match contract(request, &body) {
        Some(name) => broken(name, &body).into_iter().map(|what| format!("{}: {what}", request.target)).collect(),
        None => vec![format!("{}: no contract is known: {body:#}", request.target)],
    }
}

/// Returns why a body breaks a contract.
pub(crate) fn broken(name: &str, body: &Value) -> Vec<String> {
    SCHEMAS[name].iter_errors(body).map(|error| format!("{name}: {}: {error}", error.instance_path())).collect()
}

/// Returns the contract of a request: by its address, or by its form if the address is that of a webhook.
fn contract(request: &Recorded, body: &Value) -> Option<&'static str> {
    let path = request.target.split('?').next().unwrap_or_default();
    let content = request.header("content-type");
    match path {
        "/v2/enqueue" => Some("pagerduty.event"),
        "/v2/change/enqueue" => Some("pagerduty.change"),
        "/v2/alerts" => Some("opsgenie.create"),
        _ if path.starts_with("/v2/alerts/") && path.ends_with("/description") => Some("opsgenie.description"),
        _ if path.starts_with("/v2/alerts/") => Some("opsgenie.action"),
        _ if path.ends_with("/api/v2/alerts") => Some("alertmanager.post_alerts"),
        _ if path.ends_with("/api/v2/silences") => Some("alertmanager.post_silence"),
        "/api/chat.postMessage" | "/api/chat.update" => Some("slack.message"),
        _ if content.starts_with("application/cloudevents+json") => Some("cloudevents"),
        _ if body.get("attachments").is_some() => Some("teams.workflow"),
        _ if body.get("blocks").is_some() => Some("slack.message"),
        _ => None,
    }
}
