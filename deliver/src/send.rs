//! Sends one message: waits for the evidence of its pages, and hands it to the sink. Neither may take for ever.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::Clock;
use bellwether_sinks::page::Status;
use bellwether_sinks::{Failure, Page, Receipt, Sink};
use futures::future::{Either, join_all, select};
use futures::pin_mut;

use crate::builds::Awaited;
use crate::planner::{Delivery, Draft};

/// Time for the evidence of a page, from when its message is due. A page without evidence is better than a late one: with the look for
/// new transitions each half second, and two commits, a page leaves within two seconds of its transition, however many there are.
const EVIDENCE_TIME: Duration = Duration::from_secs(1);

/// A message that is as late as this has waited for something else, such as the end of an outage, and can wait for its evidence too.
const LATE: Duration = Duration::from_secs(10);

/// Time for a sink to answer. Longer than any client's own time limit.
const SINK_TIME: Duration = Duration::from_secs(30);

/// Note on a page that was sent without evidence from the tables.
pub const NO_EVIDENCE: &str =
    "Evidence from the tables was not ready in time; these are the figures of the alert alone.";

/// Note on a page whose evidence will follow.
const FOLLOWS: &str = "The evidence follows.";

/// Note on a page that is sent again, with its evidence.
const FOLLOWED: &str = "The first message about this alert went out before its evidence was ready.";

/// A message that was handed to its sink.
pub(crate) struct Sent {
    pub(crate) delivery: Delivery,
    /// The incidents whose pages were sent without their evidence.
    pub(crate) incomplete: BTreeSet<String>,
    pub(crate) result: Result<Receipt, Failure>,
}

/// Sends a message. `builds` has one entry for each draft: the receiver of its page, or `None` if the draft is complete.
pub(crate) async fn send(
    delivery: Delivery,
    sink: Option<Arc<dyn Sink>>,
    builds: Vec<Option<Awaited>>,
    clock: Arc<dyn Clock>,
) -> Sent {
    let Some(sink) = sink else {
        let reason = format!("sink `{}` is not configured", delivery.sink());
        return Sent { delivery, incomplete: BTreeSet::new(), result: Err(Failure::Refused { reason }) };
    };
    let waited = clock.now_micros().saturating_sub(delivery.due_at);
    let time = evidence_time(Duration::from_micros(u64::try_from(waited).unwrap_or(0)));
    let pages = delivery.drafts.iter().zip(builds).map(|(draft, build)| complete(draft, build, time, &*clock));
    let completed = join_all(pages).await;
    let (mut pages, mut incomplete) = (Vec::new(), BTreeSet::new());
    for (draft, completed) in delivery.drafts.iter().zip(completed) {
        let is_complete = completed.is_some();
        let mut page = completed.unwrap_or_else(|| draft.page.clone());
        if !is_complete {
            let follows = sink.takes_late_evidence() && page.status != Status::Resolved;
            let (alert, sink) = (&draft.alert.alert_id, delivery.sink());
            tracing::info!(alert, sink, follows, "a page is sent without evidence from the tables");
            page.evidence.notes.extend(without_evidence(alert, follows));
            incomplete.insert(page.incident.clone());
        } else if delivery.brings_evidence(&page.incident) {
            page.evidence.notes.push(FOLLOWED.to_owned());
        }
        pages.push(page);
    }
    let result = within(sink.send(&delivery.notice(pages), delivery.earlier.as_ref()), &*clock).await;
    Sent { delivery, incomplete, result }
}

/// Returns the time for the evidence of a message that has been due for a time.
fn evidence_time(waited: Duration) -> Duration {
    if waited < LATE { EVIDENCE_TIME.saturating_sub(waited) } else { EVIDENCE_TIME }
}

/// Returns a page with its evidence, or nothing if it takes too long.
async fn complete(draft: &Draft, build: Option<Awaited>, time: Duration, clock: &dyn Clock) -> Option<Page> {
    let Some(mut build) = build else { return Some(draft.page.clone()) };
    let ready = at_most(build.wait_for(Option::is_some), time, clock).await?;
    ready.ok().and_then(|page| page.clone())
}

/// Returns the notes on a page that is sent without its evidence.
fn without_evidence(alert_id: &str, follows: bool) -> [String; 2] {
    let next = match follows {
        true => FOLLOWS.to_owned(),
        false => format!("`bellwether alerts show {alert_id} --page` shows the evidence."),
    };
    [NO_EVIDENCE.to_owned(), next]
}

/// Waits for the answer of a sink. One that does not come in time may have arrived all the same.
pub async fn within<T>(sending: impl Future<Output = Result<T, Failure>>, clock: &dyn Clock) -> Result<T, Failure> {
    at_most(sending, SINK_TIME, clock).await.unwrap_or_else(|| {
        let reason = format!("no answer within {} s", SINK_TIME.as_secs());
        Err(Failure::Later { reason, after: None })
    })
}

/// Waits for a result, but no longer than this.
pub(crate) async fn at_most<T>(work: impl Future<Output = T>, time: Duration, clock: &dyn Clock) -> Option<T> {
    pin_mut!(work);
    match select(work, clock.sleep(time)).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_has_a_second_from_when_a_message_is_due() {
        let left = |waited: u64| evidence_time(Duration::from_millis(waited)).as_millis();
        assert_eq!([0, 300, 1_000, 9_999].map(left), [1_000, 700, 0, 0]);
        assert_eq!([10_000, 3_600_000].map(left), [1_000; 2], "late for another reason");
    }
}
