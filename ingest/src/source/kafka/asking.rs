//! Asks the broker where partitions end, beside the polling thread: an answer may wait behind a fetch.
//!
//! One request every few seconds, for all partitions of a broker together. Where there is no answer, nothing is said of how
//! far partitions have been read, and that is right: nobody knows.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwether_base::Clock;
use bellwether_lake::Reading;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::starts::{ends, partitions_of};
use crate::commit_pipeline::Mark;
use crate::source::open_batch::Place;

/// Between two questions.
const ASK: Duration = Duration::from_secs(5);

/// Before the first, and where there is nothing to ask about.
const LOOK: Duration = Duration::from_millis(250);

/// Wait for an answer: the end of the process waits for it too.
const ANSWER: Duration = Duration::from_secs(3);

/// Questions between two looks at which partitions are there at all: five minutes, and half a minute until there was an answer.
const LOOK_AT_TOPICS: [u32; 2] = [60, 6];

/// Asks by the consumer's own connections, for as long as there is one.
pub(crate) struct Asking {
    pub(super) consumer: Weak<BaseConsumer<Context>>,
    pub(super) topics: Vec<String>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Asking {
    /// Asks until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut asked, mut looked_at_topics) = (0_u32, false);
        loop {
            let Some(consumer) = self.consumer.upgrade() else { return };
            let (clock, topics) = (Arc::clone(&self.clock), self.topics.clone());
            let due = asked.is_multiple_of(LOOK_AT_TOPICS[usize::from(!looked_at_topics)]);
            let work = tokio::task::spawn_blocking(move || {
                let asked = ask(&consumer, clock.as_ref());
                (asked, asked && due && look_at_topics(&consumer, &topics))
            });
            let Ok((answered, looked)) = work.await else { return };
            looked_at_topics |= looked;
            asked = asked.wrapping_add(u32::from(answered));
            tokio::select! {
                biased; // Stopping wins over waiting.
                () = stop.cancelled() => return,
                () = self.clock.sleep(if answered { ASK } else { LOOK }) => {}
            }
        }
    }
}

/// Notes where the partitions end that the worker has; false where it has none.
fn ask(consumer: &BaseConsumer<Context>, clock: &dyn Clock) -> bool {
    let context = consumer.context();
    let stands: Vec<(Place, Option<i64>)> =
        context.open().positions.iter().map(|(place, position)| (place.clone(), position.committed)).collect();
    if stands.is_empty() {
        return false;
    }
    let places: Vec<Place> = stands.iter().map(|(place, _)| place.clone()).collect();
    let at_micros = clock.now_micros();
    match ends(consumer, &places, ANSWER) {
        Ok(found) => {
            let stood = |place: &Place| stands.iter().find(|(other, _)| other == place).and_then(|(_, stood)| *stood);
            let told: Vec<_> = found.into_iter().map(|(place, end)| (place.clone(), stood(&place), end)).collect();
            context.open().note_ends(at_micros, &told);
        }
        Err(error) => tracing::debug!(%error, "the broker did not return end offsets"),
    }
    true
}

/// Has it said of partitions that are gone, and of topics that are not read any more, that nobody reads them: without that,
/// they would look like ones that wait. False where not all is known.
fn look_at_topics(consumer: &BaseConsumer<Context>, topics: &[String]) -> bool {
    let assigner = &consumer.context().assigner;
    let Ok(snapshot) = assigner.runtime.block_on(assigner.log.load()) else { return false };
    let mut all = true;
    let mut gone = Vec::new();
    let readings: Vec<Reading> = Reading::all(&snapshot).into_iter().filter(Reading::is_followed).collect();
    gone.extend(readings.iter().filter(|reading| reading.job == assigner.job && !topics.contains(&reading.topic)));
    for topic in topics {
        match partitions_of(consumer, topic, ANSWER) {
            // Which partitions there are is the same for every job.
            Ok(there) => gone.extend(
                readings.iter().filter(|reading| reading.topic == *topic && !there.contains(&reading.partition)),
            ),
            Err(_) => all = false,
        }
    }
    if !gone.is_empty() {
        let marks = gone.into_iter().map(|reading| Mark::not_read(&reading.job, &reading.topic, reading.partition));
        consumer.context().open().retire(marks.collect());
    }
    all
}
