//! One request: its signature, its age, and the event in it.
//!
//! The contract is PagerDuty's: "Verifying Signatures" and "Behavior" of its developer documentation for webhooks v3
//! (`PagerDuty/developer-docs`, `docs/webhooks/04-Signatures.md`, `02-Behavior.md`, `01-Overview.md`). The header has one or more
//! signatures `v1=…`, separated by commas: the HMAC-SHA256 of the body as it was sent, in hexadecimal digits, for each secret in use.
//! One that matches suffices. A request is repeated after a time-out or a 5xx, up to five times in about 20 minutes.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;

/// An event that occurred longer ago is refused, microseconds: repetitions of 20 minutes, and a queue behind an outage of ours.
const MOST_AGE_MICROS: i64 = 24 * 3_600_000_000;

/// An event may be this far ahead of our clock, microseconds.
const MOST_AHEAD_MICROS: i64 = 5 * 60_000_000;

/// Fewest characters of a secret: PagerDuty's have 64.
const LEAST_SECRET: usize = 16;

/// Most characters of an event's id.
const MOST_ID: usize = 100;

/// Most characters of a name that are kept.
const MOST_NAME: usize = 200;

/// The secrets that sign requests; several while one is being replaced.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets(Vec<String>);

/// The change of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Acknowledged,
    Unacknowledged,
    Resolved,
}

/// An event of a verified request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    /// None if events of this type have no consequence.
    pub(super) change: Option<Change>,
    /// The key by which the incident was opened.
    pub(super) incident_key: String,
    /// Who caused it.
    pub(super) person: String,
    /// Microseconds since the epoch.
    pub(super) occurred_at: i64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unsigned,
    Forged,
    Malformed,
    TooOld,
    FromTheFuture,
}

// === impl Secrets ===

impl Secrets {
    /// Parses secrets, one a line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let secrets: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if secrets.is_empty() || secrets.iter().any(|secret| secret.chars().count() < LEAST_SECRET) {
            return Err(format!(
                "must be the secret of a webhook subscription, at least {LEAST_SECRET} characters a line"
            ));
        }
        Ok(Self(secrets))
    }

    /// Returns true if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if one of the secrets made the signature of a body. Takes the same time wherever they differ.
    fn signed(&self, signature: &[u8], body: &[u8]) -> bool {
        let matches = |secret: &String| mac(secret, body).is_some_and(|mac| mac.verify_slice(signature).is_ok());
        self.0.iter().filter(|secret| matches(secret)).count() > 0
    }

    /// Signs a body with one of the secrets.
    #[cfg(test)]
    pub(super) fn sign(&self, place: usize, body: &[u8]) -> String {
        let mac = mac(&self.0[place], body).expect("a key of any length");
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn mac(secret: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(body);
    Some(mac)
}

/// Shows how many there are, and none of them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

// === impl Event ===

impl Event {
    /// Returns the id of the action that follows from it.
    pub(super) fn action_id(&self) -> String {
        format!("pagerduty/{}", self.id)
    }
}

// === impl Refusal ===

impl Refusal {
    /// Returns the reason, for a log and an answer.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Unsigned => "the request has no v1 signature",
            Self::Forged => "no signature of the request is by a configured secret",
            Self::Malformed => "the body is not an event of webhook v3",
            Self::TooOld => "the event is more than 24 hours old",
            Self::FromTheFuture => "the event is from the future; check the clock of this machine",
        }
    }
}

/// A request's body, as far as it is needed.
#[derive(Deserialize)]
struct Body {
    event: BodyEvent,
}

#[derive(Deserialize)]
struct BodyEvent {
    id: String,
    event_type: String,
    occurred_at: String,
    agent: Option<Agent>,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Agent {
    summary: Option<String>,
}

#[derive(Default, Deserialize)]
struct Data {
    incident_key: Option<String>,
}

/// Returns the event of a request if one of the signatures is right and its time is near the present.
pub(super) fn verified(secrets: &Secrets, signatures: &str, body: &[u8], now: i64) -> Result<Event, Refusal> {
    let signatures: Vec<&str> = signatures.split(',').filter_map(|one| one.trim().strip_prefix("v1=")).collect();
    if signatures.is_empty() {
        return Err(Refusal::Unsigned);
    }
    let right = |text: &&&str| bytes(text).is_some_and(|signature| secrets.signed(&signature, body));
    if signatures.iter().filter(right).count() == 0 {
        return Err(Refusal::Forged);
    }
    let event = parsed(body).ok_or(Refusal::Malformed)?;
    match now.saturating_sub(event.occurred_at) {
        age if age > MOST_AGE_MICROS => Err(Refusal::TooOld),
        age if age < -MOST_AHEAD_MICROS => Err(Refusal::FromTheFuture),
        _ => Ok(event),
    }
}

fn parsed(body: &[u8]) -> Option<Event> {
    let Body { event } = serde_json::from_slice(body).ok()?;
    if event.id.is_empty() || event.id.chars().count() > MOST_ID {
        return None;
    }
    let occurred = humantime::parse_rfc3339(&event.occurred_at).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let change = match event.event_type.as_str() {
        "incident.acknowledged" => Some(Change::Acknowledged),
        "incident.unacknowledged" => Some(Change::Unacknowledged),
        "incident.resolved" => Some(Change::Resolved),
        _ => None,
    };
    let name = event.agent.and_then(|agent| agent.summary).filter(|name| !name.trim().is_empty());
    Some(Event {
        id: event.id,
        change,
        incident_key: event.data.incident_key.unwrap_or_default(),
        person: name.map_or_else(|| "PagerDuty".to_owned(), |name| name.chars().take(MOST_NAME).collect()),
        occurred_at: i64::try_from(occurred.as_micros()).ok()?,
    })
}

/// Returns the bytes that hexadecimal digits stand for.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secret, body and signature from the tests of PagerDuty's own Go client (`PagerDuty/go-pagerduty`, `webhookv3`).
    const SECRET: &str = "lDQHScfUeXUKaQRNF+8XIiDKZ7XX3itBAYzwU0TARw8lJqRnkKl2iB1anSb0Z+IK";
    const SIGNED: &str = "v1=0c0b9495b893a39e70d1fea2fe11fbe0a825f88b9f67846f6cc07dd2bc5476cd";
    const BODY: &str = r#"{"event":{"id":"01BWDWL3NYY7LUFPZCC28QUCMK","event_type":"incident.priority_updated","resource_type":"incident","occurred_at":"2021-04-26T17:36:27.458Z","agent":{"html_url":"https://acme.pagerduty.com/users/PLH1HKV","id":"PLH1HKV","self":"https://api.pagerduty.com/users/PLH1HKV","summary":"Tenex Engineer","type":"user_reference"},"client":null,"data":{"id":"PGR0VU2","type":"incident","self":"https://api.pagerduty.com/incidents/PGR0VU2","html_url":"https://acme.pagerduty.com/incidents/PGR0VU2","number":2,"status":"triggered","title":"A little bump in the road","service":{"html_url":"https://acme.pagerduty.com/services/PF9KMXH","id":"PF9KMXH","self":"https://api.pagerduty.com/services/PF9KMXH","summary":"API Service","type":"service_reference"},"assignees":[{"html_url":"https://acme.pagerduty.com/users/PTUXL6G","id":"PTUXL6G","self":"https://api.pagerduty.com/users/PTUXL6G","summary":"User 123","type":"user_reference"}],"escalation_policy":{"html_url":"https://acme.pagerduty.com/escalation_policies/PUS0KTE","id":"PUS0KTE","self":"https://api.pagerduty.com/escalation_policies/PUS0KTE","summary":"Default","type":"escalation_policy_reference"},"teams":[{"html_url":"https://acme.pagerduty.com/teams/PFCVPS0","id":"PFCVPS0","self":"https://api.pagerduty.com/teams/PFCVPS0","summary":"Engineering","type":"team_reference"}],"priority":{"html_url":"https://acme.pagerduty.com/account/incident_priorities","id":"PSO75BM","self":"https://api.pagerduty.com/priorities/PSO75BM","summary":"P1","type":"priority_reference"},"urgency":"high","conference_bridge":{"conference_number":1000,"conference_url":"https://example.com"},"resolve_reason":null}}}"#;
    /// Time of the event in it.
    const OCCURRED: i64 = 1_619_458_587_458_000;

    fn secrets(text: &str) -> Secrets {
        Secrets::parse(text).expect("secrets")
    }

    #[test]
    fn a_request_that_pagerduty_signed_is_read() {
        let event = verified(&secrets(SECRET), SIGNED, BODY.as_bytes(), OCCURRED).expect("its own signature");
        assert_eq!(
            (event.id.as_str(), event.change, event.occurred_at),
            ("01BWDWL3NYY7LUFPZCC28QUCMK", None, OCCURRED)
        );
        assert_eq!(event.person, "Tenex Engineer");
    }

    #[test]
    fn one_right_signature_of_several_suffices_with_either_secret() {
        let both = secrets(&format!("another-secret-of-a-hook\n{SECRET}\n"));
        let several = format!("v1={}, v2=ab,{SIGNED}", "00".repeat(32));
        assert!(verified(&both, &several, BODY.as_bytes(), OCCURRED).is_ok());
        let old = format!("v1={}", both.sign(0, BODY.as_bytes()));
        assert!(verified(&both, &old, BODY.as_bytes(), OCCURRED).is_ok());
    }

    #[test]
    fn a_changed_body_another_secret_and_a_bad_signature_are_refused() {
        let known = secrets(SECRET);
        let refused = |secrets: &Secrets, signature: &str, body: &str| {
            verified(secrets, signature, body.as_bytes(), OCCURRED).expect_err("must be refused")
        };
        assert_eq!(refused(&known, SIGNED, &BODY.replace("P1", "P2")), Refusal::Forged);
        assert_eq!(refused(&secrets("another-secret-of-a-hook"), SIGNED, BODY), Refusal::Forged);
        for signature in ["v1=", "v1=zz", "v1=0", "v1=é", &SIGNED[..20], SIGNED.replace("v1=0", "v1=1").as_str()] {
            assert_eq!(refused(&known, signature, BODY), Refusal::Forged, "{signature}");
        }
        for signature in ["", "v2=00", &SIGNED[3..]] {
            assert_eq!(refused(&known, signature, BODY), Refusal::Unsigned, "{signature}");
        }
    }

    #[test]
    fn a_replay_after_a_day_and_a_time_ahead_are_refused() {
        let at = |now| verified(&secrets(SECRET), SIGNED, BODY.as_bytes(), now).map(|event| event.id);
        assert!(at(OCCURRED + MOST_AGE_MICROS).is_ok());
        assert_eq!(at(OCCURRED + MOST_AGE_MICROS + 1), Err(Refusal::TooOld));
        assert!(at(OCCURRED - MOST_AHEAD_MICROS).is_ok());
        assert_eq!(at(OCCURRED - MOST_AHEAD_MICROS - 1), Err(Refusal::FromTheFuture));
    }

    #[test]
    fn a_signed_body_that_is_no_event_is_refused() {
        let known = secrets(SECRET);
        for body in ["", "[]", "{\"event\":{}}", "{\"messages\":[]}", BODY.replace("2021-04-26", "yesterday").as_str()]
        {
            let signature = format!("v1={}", known.sign(0, body.as_bytes()));
            let refused = verified(&known, &signature, body.as_bytes(), OCCURRED).expect_err("no event");
            assert_eq!(refused, Refusal::Malformed, "{body}");
        }
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        assert!(Secrets::parse("").is_err() && Secrets::parse("short").is_err() && Secrets::parse("\n \n").is_err());
        assert_eq!(format!("{:?}", secrets(SECRET)), "Secrets(1)");
    }
}
