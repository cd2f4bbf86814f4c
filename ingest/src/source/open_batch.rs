//! What a source has read and not yet committed: where each partition stands, and the batch that is being filled.
//!
//! It knows no client, so that the simulation drives the very code that the Kafka source runs. Rules:
//! * An offset is taken once, in order; a message that is rejected moves the position like any other.
//! * A partition that was fenced is read again from where the table stands only when nothing of it is on its way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bellwether_lake::{Error, PartitionRange, Result};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::{Batch, CommitReport, Touched};
use crate::decode::Message;
use crate::source::kafka::settings::FlushSettings;

/// What the committing task says of a batch.
#[derive(Debug)]
pub enum Answer {
    /// It is settled.
    Done(CommitReport),
    /// It cannot be: the worker stops with this error.
    Failed(Error),
}

/// What became of a message that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// A row of `events` or of `quarantine`.
    pub pushed: Pushed,
    /// Offsets that were passed over before it.
    pub gap: i64,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where reading of a partition stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Offset to read next; none before the first message of a partition that was never read.
    pub next: Option<i64>,
    /// Where the table stands, as far as this process knows.
    pub committed: Option<i64>,
    /// Waits for a person's decision.
    pub halted: bool,
    /// Another owner has moved it: what still arrives is passed over until it has been put where the table stands.
    pub stale: bool,
}

#[derive(Debug)]
struct OpenRange {
    from: i64,
    next: i64,
    expected: Option<i64>,
    newest_event_micros: Option<i64>,
    /// Offsets that the broker passed over: they hold no message.
    passed_over: i64,
}

/// The batch that is being filled, and those on their way.
pub struct OpenBatch {
    /// Rows so far.
    pub builder: BatchBuilder,
    /// Where reading of each assigned partition stands.
    pub positions: HashMap<Place, Position>,
    /// What became of earlier batches.
    pub answers: Receiver<Answer>,
    /// Batches handed over and not answered yet.
    pub in_flight: usize,
    /// Time of the open batch's first message.
    pub since_micros: Option<i64>,
    /// An error met where none can be returned.
    pub error: Option<Error>,
    /// Partitions were assigned since the last look: they are not paused, whatever the others are.
    pub reassigned: bool,
    /// Partitions to put where the table stands.
    fenced: BTreeMap<Place, Option<i64>>,
    /// Ids of topics that the tables may not know yet.
    pub topic_ids: BTreeMap<String, i64>,
    ranges: BTreeMap<Place, OpenRange>,
    /// Batches that are closed and could not be handed over yet.
    closed: VecDeque<Batch>,
    batches: Sender<Batch>,
    limit: usize,
}

// === impl OpenBatch ===

impl OpenBatch {
    /// Starts without partitions. `limit` batches at most are on their way at once.
    pub fn new(builder: BatchBuilder, batches: Sender<Batch>, answers: Receiver<Answer>, limit: usize) -> Self {
        Self {
            builder,
            positions: HashMap::new(),
            answers,
            in_flight: 0,
            since_micros: None,
            error: None,
            reassigned: false,
            fenced: BTreeMap::new(),
            topic_ids: BTreeMap::new(),
            ranges: BTreeMap::new(),
            closed: VecDeque::new(),
            batches,
            limit,
        }
    }

    /// Starts a partition where the table stands.
    pub fn assign(&mut self, place: &Place, next: Option<i64>) {
        self.positions.insert(place.clone(), Position { next, committed: next, halted: false, stale: false });
    }

    /// Forgets a partition that has been taken away, with the rows of it that are open: where it comes back, it is read
    /// again from where the table stands, and its rows must not be in a batch twice. Returns where it stood.
    ///
    /// # Errors
    /// `Bug` where rows do not have their schema.
    pub fn let_go(&mut self, place: &Place) -> Result<Option<Position>> {
        let position = self.positions.remove(place);
        self.fenced.remove(place);
        if self.ranges.remove(place).is_some() {
            let mut rest = self.close()?;
            let others = |topic: &str, partition, _| partition != place.partition || topic != &*place.topic;
            rest.events = rest.events.kept(others)?;
            rest.quarantine = rest.quarantine.kept(others)?;
            if !rest.touched.is_empty() {
                self.closed.push_back(rest);
            }
        }
        Ok(position)
    }

    /// Takes a message in; none where it is not to be read now: it was read before, or its partition stands still.
    pub fn take(&mut self, place: &Place, message: &Message<'_>, now_micros: i64) -> Option<Taken> {
        let position = self.positions.get_mut(place)?;
        let expected = position.next;
        if position.halted || position.stale || expected.is_some_and(|next| message.offset < next) {
            return None;
        }
        let pushed = self.builder.push(message, now_micros);
        let newest_event_micros = match pushed {
            Pushed::Event(time_micros) => Some(time_micros),
            Pushed::Quarantined(_) => None,
        };
        let (from, next) = (expected.unwrap_or(message.offset), message.offset + 1);
        let gap = message.offset - from;
        position.next = Some(next);
        self.since_micros.get_or_insert(now_micros);
        match self.ranges.get_mut(place) {
            Some(range) => {
                range.next = next;
                range.passed_over += gap;
                range.newest_event_micros = range.newest_event_micros.max(newest_event_micros);
            }
            None => {
                let range = OpenRange { from, next, expected, newest_event_micros, passed_over: gap };
                self.ranges.insert(place.clone(), range);
            }
        }
        Some(Taken { pushed, gap })
    }

    /// True when the batch is large enough to be handed over; and when it is old enough.
    pub fn due(&self, flush: &FlushSettings, now_micros: i64) -> (bool, bool) {
        let full = self.is_full(flush);
        let interval = i64::try_from(flush.interval.as_micros()).unwrap_or(i64::MAX);
        let old = !self.closed.is_empty() || self.since_micros.is_some_and(|since| now_micros - since >= interval);
        (full, old)
    }

    /// True when the batch is large enough to be handed over.
    pub fn is_full(&self, flush: &FlushSettings) -> bool {
        self.builder.bytes() >= flush.max_bytes || self.builder.rows() >= flush.max_rows
    }

    /// Hands over what is open; true when nothing is open or on its way.
    ///
    /// # Errors
    /// As [`OpenBatch::hand_over`].
    pub fn all_settled(&mut self) -> Result<bool> {
        Ok(self.hand_over()? && self.in_flight == 0)
    }

    /// Gives the open batch to the committing task; false where it has enough already.
    ///
    /// # Errors
    /// `Unavailable` where that task has stopped; `Bug` where rows do not have their schema.
    pub fn hand_over(&mut self) -> Result<bool> {
        loop {
            if self.closed.is_empty() && self.ranges.is_empty() {
                return Ok(true);
            }
            if self.in_flight >= self.limit {
                return Ok(false);
            }
            let batch = match self.closed.pop_front() {
                Some(batch) => batch,
                None => self.close()?,
            };
            match self.batches.try_send(batch) {
                Ok(()) => self.in_flight += 1,
                Err(TrySendError::Full(_)) => {
                    return Err(Error::bug("more batches are on their way than the channel holds"));
                }
                Err(TrySendError::Closed(_)) => return Err(Error::unavailable("the committing task has stopped")),
            }
        }
    }

    /// Closes the open batch.
    fn close(&mut self) -> Result<Batch> {
        let (events, quarantine) = self.builder.finish()?;
        let touched = std::mem::take(&mut self.ranges)
            .into_iter()
            .map(|(place, range)| {
                let OpenRange { from, next, expected, newest_event_micros, passed_over } = range;
                let (topic, partition) = (place.topic.to_string(), place.partition);
                let range = PartitionRange {
                    topic,
                    partition,
                    from,
                    next,
                    end_offset: None,
                    newest_event_micros,
                    passed_over: Some(passed_over),
                };
                Touched { range, expected }
            })
            .collect();
        self.since_micros = None;
        Ok(Batch { events, quarantine, touched, topic_ids: self.topic_ids.clone() })
    }

    /// Notes what became of a batch.
    ///
    /// # Errors
    /// The error that ended the committing task.
    pub fn settle(&mut self, answer: Answer) -> Result<CommitReport> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let report = match answer {
            Answer::Done(report) => report,
            Answer::Failed(error) => return Err(error),
        };
        for range in &report.committed {
            let place = Place { topic: range.topic.as_str().into(), partition: range.partition };
            if let Some(position) = self.positions.get_mut(&place) {
                position.committed = Some(range.next);
            }
        }
        for fenced in &report.fenced {
            let place = Place { topic: fenced.topic.as_str().into(), partition: fenced.partition };
            if let Some(position) = self.positions.get_mut(&place) {
                position.stale = true;
                self.fenced.insert(place, fenced.next);
            }
        }
        Ok(report)
    }

    /// The partitions to put where the table stands. They are given out only when nothing that was read before is open
    /// or on its way: an older answer can then not undo the move.
    ///
    /// # Errors
    /// As [`OpenBatch::hand_over`].
    pub fn take_fenced(&mut self) -> Result<Vec<(Place, Option<i64>)>> {
        if self.fenced.is_empty() || !self.hand_over()? || self.in_flight > 0 {
            return Ok(Vec::new());
        }
        let fenced = std::mem::take(&mut self.fenced);
        let mut moved = Vec::new();
        for (place, next) in fenced {
            if let Some(position) = self.positions.get_mut(&place) {
                *position = Position { next, committed: next, halted: position.halted, stale: false };
                // The client may have stopped reading one that stands still: there is nothing to move.
                if !position.halted {
                    moved.push((place, next));
                }
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit_pipeline::FencedPartition;
    use bellwether_event::Limits;

    /// A batch, whose rows are numbered by their offsets.
    fn offsets(batch: &Batch) -> Vec<(i32, i64, i64)> {
        batch.touched.iter().map(|one| (one.range.partition, one.range.from, one.range.next)).collect()
    }

    #[test]
    fn a_partition_that_is_let_go_and_comes_back_is_read_anew_and_its_neighbours_rows_stay() {
        let (batches, mut waiting) = tokio::sync::mpsc::channel(1);
        let (_answer, answers) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, answers, 1);
        let place = |partition| Place { topic: "t".into(), partition };
        let take = |open: &mut OpenBatch, partition: i32, offset: i64| {
            let message = Message { topic: "t", partition, offset, payload: Some(b"poison"), ..Message::default() };
            open.take(&place(partition), &message, 1).expect("is to be read");
        };
        open.assign(&place(0), Some(5));
        open.assign(&place(1), Some(0));
        take(&mut open, 1, 0);
        assert!(open.hand_over().expect("has room"));
        (5..9).for_each(|offset| take(&mut open, 0, offset));
        take(&mut open, 1, 1);
        assert!(!open.hand_over().expect("is full"), "storage has not answered");
        open.let_go(&place(0)).expect("lets go");
        open.assign(&place(0), Some(5));
        take(&mut open, 0, 5);

        assert_eq!(offsets(&waiting.try_recv().expect("the first")), [(1, 0, 1)]);
        open.in_flight = 0;
        assert!(!open.hand_over().expect("has room for one"));
        let kept = waiting.try_recv().expect("the neighbour's");
        assert_eq!((offsets(&kept), kept.quarantine.rows()), (vec![(1, 1, 2)], 1));
        open.in_flight = 0;
        assert!(open.hand_over().expect("has room"));
        let anew = waiting.try_recv().expect("read anew");
        assert_eq!((offsets(&anew), anew.quarantine.rows()), (vec![(0, 5, 6)], 1), "one row, not two");
    }

    #[test]
    fn a_partition_that_stands_still_is_not_moved_when_it_is_fenced() {
        let (batches, _waiting) = tokio::sync::mpsc::channel(1);
        let (_answer, answers) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, answers, 1);
        let places = [0, 1].map(|partition| Place { topic: "t".into(), partition });
        places.iter().for_each(|place| open.assign(place, Some(5)));
        open.positions.get_mut(&places[0]).expect("it is assigned").halted = true;
        let fenced = |partition| FencedPartition { topic: "t".to_owned(), partition, next: Some(9) };
        let report = CommitReport { fenced: vec![fenced(0), fenced(1)], ..CommitReport::default() };
        open.settle(Answer::Done(report)).expect("is settled");
        assert_eq!(open.take_fenced().expect("nothing is open"), [(places[1].clone(), Some(9))]);
        assert!(places.iter().all(|place| open.positions[place].next == Some(9) && !open.positions[place].stale));
        assert!(open.positions[&places[0]].halted);
    }
}
