//! Sends one message: completes its pages with evidence, and hands it to the sink. Neither may take for ever.

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::Clock;
use bellwether_sinks::{Failure, Page, Receipt, Sink};
use futures::future::{Either, join_all, select};
use futures::pin_mut;

use crate::page::PageBuilder;
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

/// A message that was handed to its sink.
pub(crate) struct Sent {
    pub(crate) delivery: Delivery,
    pub(crate) pages: Vec<Page>,
    pub(crate) result: Result<Receipt, Failure>,
}

/// Sends a message.
pub(crate) async fn send(
    delivery: Delivery,
    sink: Option<Arc<dyn Sink>>,
    builder: Arc<dyn PageBuilder>,
    clock: Arc<dyn Clock>,
) -> Sent {
    let Some(sink) = sink else {
        let reason = format!("sink `{}` is not configured", delivery.sink());
        return Sent { delivery, pages: Vec::new(), result: Err(Failure::Refused { reason }) };
    };
    let waited = clock.now_micros().saturating_sub(delivery.due_at);
    let time = evidence_time(Duration::from_micros(u64::try_from(waited).unwrap_or(0)));
    let pages = join_all(delivery.drafts.iter().map(|draft| page(draft, &*builder, time, &*clock))).await;
    let notice = delivery.notice(pages.clone());
    let result = within(sink.send(&notice, delivery.earlier.as_ref()), &*clock).await;
    Sent { delivery, pages, result }
}

/// Returns the time for the evidence of a message that has been due for a time.
fn evidence_time(waited: Duration) -> Duration {
    if waited < LATE { EVIDENCE_TIME.saturating_sub(waited) } else { EVIDENCE_TIME }
}

/// Returns a page with its evidence, or without it if it takes too long.
async fn page(draft: &Draft, builder: &dyn PageBuilder, time: Duration, clock: &dyn Clock) -> Page {
    if draft.is_built {
        return draft.page.clone();
    }
    let built = at_most(builder.build(draft.page.clone(), &draft.alert), time, clock).await;
    let why = match built {
        Some(Ok(page)) => return page,
        Some(Err(error)) => error.chain(),
        None => format!("the message was due for {} s", EVIDENCE_TIME.as_secs()),
    };
    tracing::warn!(alert = draft.alert.alert_id, why, "a page is sent without evidence from the tables");
    let mut page = draft.page.clone();
    page.evidence.notes.push(NO_EVIDENCE.to_owned());
    page
}

/// Waits for the answer of a sink. One that does not come in time may have arrived all the same.
pub async fn within<T>(sending: impl Future<Output = Result<T, Failure>>, clock: &dyn Clock) -> Result<T, Failure> {
    at_most(sending, SINK_TIME, clock).await.unwrap_or_else(|| {
        let reason = format!("no answer within {} s", SINK_TIME.as_secs());
        Err(Failure::Later { reason, after: None })
    })
}

/// Waits for a result, but no longer than this.
async fn at_most<T>(work: impl Future<Output = T>, time: Duration, clock: &dyn Clock) -> Option<T> {
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
