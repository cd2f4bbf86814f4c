//! PagerDuty's webhook v3: acknowledgements that people give there become actions here.
//!
//! * `event`: verification of a request and what it says; pure.
//! * This file: the endpoint, and the actions that follow from an event.
//!
//! Each event is recorded at most once, by its id. `docs/alerts.md` lists the answers: 4xx if a repetition would be refused again,
//! 503 if PagerDuty should repeat it.

mod event;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bellwether_alerts::current::{CurrentAlert, current_alerts};
use bellwether_alerts::hands::{Action, ActionKind, Hands, Origin, append};
use bellwether_base::Result;
use bellwether_lake::Lake;
use serde_json::json;

pub(crate) use event::Secrets;
use event::{Change, Event, Refusal, verified};

/// Path of the endpoint.
const PATH: &str = "/hooks/pagerduty";

/// Greatest request, bytes: PagerDuty drops larger ones itself.
const MOST_BYTES: usize = 256 << 10;

/// Header with the signatures.
const SIGNATURE: &str = "X-PagerDuty-Signature";

struct Hook {
    secrets: Secrets,
    lake: Lake,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It was recorded.
    Recorded,
    /// It was recorded before.
    Known,
    /// It has no consequence, for this reason.
    Ignored(&'static str),
}

/// Returns the endpoint.
pub(super) fn router(secrets: Secrets, lake: Lake) -> Router {
    Router::new()
        .route(PATH, post(receive))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .with_state(Arc::new(Hook { secrets, lake }))
}

async fn receive(State(hook): State<Arc<Hook>>, headers: HeaderMap, body: Bytes) -> Response {
    let signatures: Vec<&str> = headers.get_all(SIGNATURE).iter().filter_map(|value| value.to_str().ok()).collect();
    let now = hook.lake.clock().now_micros();
    let event = match verified(&hook.secrets, &signatures.join(","), &body, now) {
        Ok(event) => event,
        Err(refusal) => {
            tracing::warn!(reason = refusal.reason(), "a request to the PagerDuty webhook was refused");
            let code = match refusal {
                Refusal::Forged => StatusCode::FORBIDDEN,
                Refusal::Unsigned | Refusal::Malformed | Refusal::TooOld | Refusal::FromTheFuture => {
                    StatusCode::BAD_REQUEST
                }
            };
            return answer(code, "refused", Some(refusal.reason()));
        }
    };
    match Box::pin(record(&hook.lake, &event, now)).await {
        Ok(Answer::Recorded) => answer(StatusCode::OK, "recorded", None),
        Ok(Answer::Known) => answer(StatusCode::OK, "known", None),
        Ok(Answer::Ignored(why)) => answer(StatusCode::OK, "ignored", Some(why)),
        Err(error) => {
            tracing::warn!(reason = %error.chain(), event = event.id, "a PagerDuty event cannot be recorded now");
            answer(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some("the tables do not respond; send it again"))
        }
    }
}

fn answer(code: StatusCode, status: &str, why: Option<&str>) -> Response {
    let body = why.map_or_else(|| json!({"status": status}), |why| json!({"status": status, "why": why}));
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Records the action that follows from an event, if one does.
async fn record(lake: &Lake, event: &Event, now: i64) -> Result<Answer> {
    let mut hands = Hands::load(lake).await?;
    let id = event.action_id();
    if hands.knows(&id) {
        return Ok(Answer::Known);
    }
    let alerts = current_alerts(lake).await?;
    let action = match action(event, id, &alerts, now) {
        Ok(action) => action,
        Err(why) => return Ok(Answer::Ignored(why)),
    };
    let done = append(lake, &mut hands, &[action]).await?;
    Ok(if done.added == 0 { Answer::Known } else { Answer::Recorded })
}

/// Returns the action that follows from an event, or why none does.
fn action(event: &Event, id: String, alerts: &[CurrentAlert], now: i64) -> std::result::Result<Action, &'static str> {
    let Some(change) = event.change else { return Err("events of this type have no consequence") };
    let Some(alert) = alert_of(&event.incident_key, alerts) else { return Err("no alert belongs to this incident") };
    let Some(since) = alert.firing_since() else { return Err("the alert does not fire") };
    if event.occurred_at < since {
        return Err("the event is about an earlier firing of the alert");
    }
    let (kind, reason) = match change {
        Change::Acknowledged => (ActionKind::Ack, "acknowledged in PagerDuty"),
        Change::Unacknowledged => (ActionKind::Unack, "unacknowledged in PagerDuty"),
        // The evidence resolves an alert, not a person; but a person has dealt with it.
        Change::Resolved => (ActionKind::Ack, "resolved in PagerDuty"),
    };
    Ok(Action {
        alert_id: Some(alert.alert_id.clone()),
        rule: Some(alert.rule.clone()),
        tenant: alert.labels.get("tenant").cloned(),
        firing_since: Some(since),
        reason: Some(reason.to_owned()),
        // Events may arrive in another order than they occurred in.
        ..Action::new(id, kind, &event.person, event.occurred_at.min(now), Origin::Pagerduty)
    })
}

/// Returns the alert of an incident, whose key holds the id of the alert as a word of its own.
fn alert_of<'a>(incident_key: &str, alerts: &'a [CurrentAlert]) -> Option<&'a CurrentAlert> {
    let mut words = incident_key.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.find_map(|word| alerts.iter().find(|alert| alert.alert_id == word))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bellwether_lake::StorageOptions;

    use super::*;

    fn alert(state: &str) -> CurrentAlert {
        CurrentAlert {
            alert_id: "4f80a64ee339139e".to_owned(),
            rule: "success_regression".to_owned(),
            severity: "page".to_owned(),
            state: state.to_owned(),
            stale: false,
            at: 1_000,
            labels: BTreeMap::from([("tenant".to_owned(), "acme".to_owned())]),
            fired_at: Some(1_000),
        }
    }

    fn event(change: Option<Change>, key: &str, occurred_at: i64) -> Event {
        Event {
            id: "01BWDW".to_owned(),
            change,
            incident_key: key.to_owned(),
            person: "Tenex Engineer".to_owned(),
            occurred_at,
        }
    }

    #[test]
    fn each_event_becomes_the_action_that_it_stands_for() {
        let alerts = [alert("firing")];
        let key = "4f80a64ee339139e-1789999000";
        for (change, kind, reason) in [
            (Change::Acknowledged, ActionKind::Ack, "acknowledged in PagerDuty"),
            (Change::Unacknowledged, ActionKind::Unack, "unacknowledged in PagerDuty"),
            (Change::Resolved, ActionKind::Ack, "resolved in PagerDuty"),
        ] {
            let event = event(Some(change), key, 5_000);
            let made = action(&event, event.action_id(), &alerts, 4_000).expect("an action");
            assert_eq!((made.kind, made.reason.as_deref(), made.at), (kind, Some(reason), 4_000));
            assert_eq!(
                (made.person.as_str(), made.firing_since, made.origin),
                ("Tenex Engineer", Some(1_000), Origin::Pagerduty)
            );
            assert_eq!((made.tenant.as_deref(), made.alert_id.as_deref()), (Some("acme"), Some("4f80a64ee339139e")));
            assert!(made.validate().is_ok());
        }
    }

    #[test]
    fn an_event_without_a_consequence_says_why() {
        let ack = Some(Change::Acknowledged);
        let why =
            |event: &Event, alerts: &[CurrentAlert]| action(event, event.action_id(), alerts, 9_000).expect_err("none");
        let firing = [alert("firing")];
        assert!(why(&event(None, "4f80a64ee339139e", 5_000), &firing).contains("type"));
        assert!(why(&event(ack, "4f80a64ee339139", 5_000), &firing).contains("no alert"));
        assert!(why(&event(ack, "x/4f80a64ee339139e/7", 999), &firing).contains("earlier firing"));
        assert!(why(&event(ack, "4f80a64ee339139e", 5_000), &[alert("resolved")]).contains("does not fire"));
    }

    #[tokio::test]
    async fn requests_are_answered_as_documented() {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = Lake::open(folder.path().to_str().expect("UTF-8"), &StorageOptions::default()).await.expect("opens");
        let secrets = Secrets::parse("first-secret-of-the-hook\nsecond-secret-of-the-hook").expect("secrets");
        let app = router(secrets.clone(), lake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let now = lake.clock().now_micros();
        let body = |at: i64, kind: &str| {
            let occurred = humantime::format_rfc3339_millis(
                std::time::UNIX_EPOCH + std::time::Duration::from_micros(u64::try_from(at).expect("positive")),
            );
            json!({"event": {
                "id": "01BWDW", "event_type": kind, "resource_type": "incident", "occurred_at": occurred.to_string(),
                "agent": {"summary": "Tenex Engineer"}, "data": {"incident_key": "4f80a64ee339139e-1"},
            }})
            .to_string()
        };
        let fresh = body(now, "incident.acknowledged");
        let sign = |body: &str| format!("v1={}", secrets.sign(1, body.as_bytes()));
        let hour = 3_600_000_000;
        for (body, signature, code, says) in [
            (fresh.clone(), Some(sign(&fresh)), 200, "no alert belongs"),
            (body(now, "service.updated"), Some(sign(&body(now, "service.updated"))), 200, "no consequence"),
            (fresh.clone(), None, 400, "signature"),
            (fresh.clone(), Some("v1=00".to_owned()), 403, "signature"),
            (fresh.replace("Tenex", "Other"), Some(sign(&fresh)), 403, "signature"),
            ("{}".to_owned(), Some(sign("{}")), 400, "not an event"),
            (
                body(now - 25 * hour, "incident.acknowledged"),
                Some(sign(&body(now - 25 * hour, "incident.acknowledged"))),
                400,
                "old",
            ),
            (
                body(now + hour, "incident.acknowledged"),
                Some(sign(&body(now + hour, "incident.acknowledged"))),
                400,
                "future",
            ),
        ] {
            let (status, text) = posted(address, signature.as_deref(), &body).await;
            assert_eq!(status, code, "{text}");
            assert!(text.contains(says), "{says}: {text}");
        }
        server.abort();
    }

    /// Posts a body, and returns the status code and the response.
    async fn posted(address: std::net::SocketAddr, signature: Option<&str>, body: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        let signature = signature.map_or_else(String::new, |value| format!("x-pagerduty-signature: {value}\r\n"));
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{signature}content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sends");
        // A server that refuses a long body may close the connection before it has read all of it.
        drop(stream.write_all(body.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, answer)
    }
}
