//! Sends one message: completes its pages with evidence, and hands it to the sink. Neither may take for ever.

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::Clock;
use bellwether_sinks::{Failure, Page, Receipt, Sink};
use futures::future::{Either, join_all, select};
use futures::pin_mut;

use crate::page::PageBuilder;
use crate::planner::{Delivery, Draft};

/// Time for the evidence of a page. A page without evidence is better than a late one.
const EVIDENCE_TIME: Duration = Duration::from_secs(2);

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
    let pages = join_all(delivery.drafts.iter().map(|draft| page(draft, &*builder, &*clock))).await;
    let notice = delivery.notice(pages.clone());
    let result = within(sink.send(&notice, delivery.earlier.as_ref()), &*clock).await;
    Sent { delivery, pages, result }
}

/// Returns a page with its evidence, or without it if it takes too long.
async fn page(draft: &Draft, builder: &dyn PageBuilder, clock: &dyn Clock) -> Page {
    if draft.is_built {
        return draft.page.clone();
    }
    let built = at_most(builder.build(draft.page.clone(), &draft.alert), EVIDENCE_TIME, clock).await;
    let why = match built {
        Some(Ok(page)) => return page,
        Some(Err(error)) => error.chain(),
        None => format!("it took more than {} s", EVIDENCE_TIME.as_secs()),
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
