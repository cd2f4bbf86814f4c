//! Silences: while a person has acknowledged an alert, Alertmanager silences it.
//!
//! * A silence matches all labels of its alert, and its comment names the incident. That is how it is found again, after a restart
//!   too, so that an incident has one.
//! * It ends some intervals ahead, like the alert itself, and each repetition of the alert renews it. One that was forgotten ends by
//!   itself.
//! * The peers of a cluster share their silences, so that one peer is asked. A page that is not acknowledged is looked up only if
//!   the message before it left a silence.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Alertmanager, MAX_VALUE, endpoint, labels, summary};
use crate::page::{Acknowledgement, Page, Status};
use crate::sink::{Failure, Notice, Receipt};
use crate::{text, time};

/// The reference of a message that left a silence.
const SILENCED: &str = "silenced";

/// A silence as Alertmanager returns it.
#[derive(Debug, Deserialize)]
struct Found {
    id: String,
    status: State,
    comment: String,
    #[serde(rename = "startsAt")]
    starts_at: String,
}

#[derive(Debug, Deserialize)]
struct State {
    state: String,
}

// === impl Alertmanager ===

impl Alertmanager {
    /// Brings the silences in line with a notice whose alerts were accepted, and completes its receipt.
    ///
    /// # Errors
    ///
    /// A failure that ends later. If Alertmanager refuses a silence, the receipt says so: its alerts have arrived.
    pub(super) async fn keep_silences(
        &self,
        notice: &Notice,
        earlier: Option<&Receipt>,
        mut receipt: Receipt,
    ) -> Result<Receipt, Failure> {
        let had = earlier.is_some_and(|earlier| earlier.reference == SILENCED);
        let concerned = |page: &&Page| had || page.status == Status::Acknowledged;
        let pages: Vec<&Page> = notice.pages.iter().filter(concerned).collect();
        if !self.settings.silences || pages.is_empty() {
            return Ok(receipt);
        }
        let mut failed: Vec<(&Url, Failure)> = Vec::new();
        for peer in &self.peers {
            match self.silence_all(peer, &pages).await {
                Ok(true) => receipt.reference = SILENCED.to_owned(),
                Ok(false) => {}
                Err(failure) => {
                    failed.push((peer, failure));
                    continue;
                }
            }
            return Ok(receipt);
        }
        match summary(self.peers.len(), failed) {
            Err(Failure::Refused { reason }) => {
                receipt.answer = text::cut(&format!("{}; the silence is refused: {reason}", receipt.answer), 500);
                Ok(receipt)
            }
            other => other,
        }
    }

    /// Returns true if any page has a silence now.
    async fn silence_all(&self, peer: &Url, pages: &[&Page]) -> Result<bool, Failure> {
        let mut any = false;
        for page in pages {
            any |= self.silence(peer, page).await?;
        }
        Ok(any)
    }

    async fn silence(&self, peer: &Url, page: &Page) -> Result<bool, Failure> {
        let found = self.find(peer, page).await?;
        let (mut there, now) = (found.into_iter(), self.clock.now_micros());
        let end = |ack: &Acknowledgement| ack.until.unwrap_or(i64::MAX).min(now.saturating_add(self.ahead()));
        let wanted = page.acknowledgement.as_ref().filter(|_| page.status == Status::Acknowledged);
        let wanted = wanted.map(|ack| (ack, end(ack))).filter(|(_, end)| *end > now);
        if let Some((ack, end)) = wanted {
            let body = silence(page, ack, there.next().as_ref(), now, end);
            self.call(Method::POST, endpoint(peer, &["silences"]), body.to_string().into_bytes()).await?;
        }
        // Those that are not wanted, and a second one of the same incident.
        for found in there {
            self.call(Method::DELETE, endpoint(peer, &["silence", &found.id]), Vec::new()).await?;
        }
        Ok(wanted.is_some())
    }

    /// Returns the silences of an incident that have not ended.
    async fn find(&self, peer: &Url, page: &Page) -> Result<Vec<Found>, Failure> {
        let mut url = endpoint(peer, &["silences"]);
        url.query_pairs_mut().append_pair("filter", &format!("alert_id={}", json!(text::key(&page.alert_id, 100))));
        let answer = self.call(Method::GET, url, Vec::new()).await?;
        let found: Vec<Found> = serde_json::from_str(&answer).map_err(|error| Failure::Refused {
            reason: format!("Alertmanager answered with silences that cannot be read: {error}"),
        })?;
        let mark = mark(page);
        let own = |found: &Found| found.status.state != "expired" && found.comment.ends_with(&mark);
        Ok(found.into_iter().filter(own).collect())
    }
}

/// Returns the end of the comment on an incident's silence.
fn mark(page: &Page) -> String {
    format!("[Bellwether incident {}]", text::line(&page.incident, MAX_VALUE))
}

fn silence(page: &Page, ack: &Acknowledgement, found: Option<&Found>, now: i64, end: i64) -> Value {
    let matchers: Vec<Value> = labels(page)
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value, "isRegex": false, "isEqual": true}))
        .collect();
    let person = text::line(&ack.person, 200);
    let note = ack.note.as_deref().map(|note| text::line(note, MAX_VALUE)).filter(|note| !note.is_empty());
    let mut silence = json!({
        "matchers": matchers,
        "startsAt": found.map_or_else(|| time::rfc3339(now), |found| found.starts_at.clone()),
        "endsAt": time::rfc3339(end),
        "createdBy": if person.is_empty() { "Bellwether" } else { person.as_str() },
        "comment": format!("{} {}", note.as_deref().unwrap_or("Acknowledged."), mark(page)),
    });
    if let Some(found) = found {
        silence["id"] = found.id.as_str().into();
    }
    silence
}
