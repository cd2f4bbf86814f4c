//! What a source has read and not yet committed: where each partition stands, and the batch that is being filled.
//!
//! It knows no client, so that the simulation drives the very code that the Kafka source runs. Rules:
//! * An offset is taken once, in order; a message that is rejected moves the position like any other.
//! * A partition that was fenced is read again from where the table stands only when nothing of it is on its way.
//! * Up to when a partition has been read is said along with a batch, or in a batch of its own where nothing comes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use bellwether_base::{Error, Result};
use bellwether_lake::PartitionRange;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::{Batch, CommitReport, Mark, Touched};
use crate::decode::Message;
use crate::source::ends::Ends;
use crate::source::kafka::settings::FlushSettings;

/// Between two statements of how far partitions have been read, while there are batches to put them into: each is two lines of
/// the log a partition.
const MARK_MICROS: i64 = 10_000_000;

/// The same, where nothing else is to be committed: each is an entry of the log.
const MARK_IDLE_MICROS: i64 = 60_000_000;

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
    /// What is known of its end.
    pub ends: Ends,
}

impl Position {
    fn at(next: Option<i64>) -> Self {
        Self { next, committed: next, ..Self::default() }
    }

    /// True where offsets are what they seem: not of one that waits for a person, or for being moved.
    fn is_sound(&self) -> bool {
        !self.halted && !self.stale
    }

    fn note_committed(&mut self) {
        if self.is_sound() {
            self.ends.note_committed(self.committed);
        }
    }
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
    /// Statements about partitions that nobody reads any more.
    retired: Vec<Mark>,
    /// When it was said last how far partitions have been read.
    marked_micros: Option<i64>,
    /// The time of day at the last look.
    now_micros: i64,
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
            retired: Vec::new(),
            marked_micros: None,
            now_micros: 0,
        }
    }

    /// Starts a partition where the table stands.
    pub fn assign(&mut self, place: &Place, next: Option<i64>) {
        self.positions.insert(place.clone(), Position::at(next));
        // How far it has been read is worth saying soon.
        self.marked_micros = None;
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
    pub fn due(&mut self, flush: &FlushSettings, now_micros: i64) -> (bool, bool) {
        self.now_micros = now_micros;
        self.mark_where_idle();
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
                    return Err(Error::bug("more batches are in flight than the channel holds"));
                }
                Err(TrySendError::Closed(_)) => return Err(Error::unavailable("the commit task has stopped")),
            }
        }
    }

    /// Closes the open batch.
    fn close(&mut self) -> Result<Batch> {
        let (events, quarantine) = self.builder.finish()?;
        let marks = self.marks(MARK_MICROS);
        let touched = std::mem::take(&mut self.ranges)
            .into_iter()
            .map(|(place, range)| {
                let OpenRange { from, next, expected, newest_event_micros, passed_over } = range;
                let (topic, partition) = (place.topic.to_string(), place.partition);
                let end = self.positions.get(&place).and_then(|position| position.ends.end);
                let range = PartitionRange {
                    topic,
                    partition,
                    from,
                    next,
                    end_offset: end.map(|end| end.max(next)),
                    newest_event_micros,
                    passed_over: Some(passed_over),
                };
                Touched { range, expected }
            })
            .collect();
        self.since_micros = None;
        Ok(Batch { events, quarantine, touched, topic_ids: self.topic_ids.clone(), marks })
    }

    /// Notes where partitions ended when the broker was asked, with where the tables stood when it was.
    pub fn note_ends(&mut self, at_micros: i64, ends: &[(Place, Option<i64>, i64)]) {
        for (place, committed, end) in ends {
            if let Some(position) = self.positions.get_mut(place) {
                position.ends.note_end(at_micros, *committed, *end);
                position.note_committed();
            }
        }
    }

    /// Notes how far the client has fetched a partition. `all_taken`: all that it has fetched has been taken.
    pub fn note_fetched(&mut self, place: &Place, fetched_to: i64, all_taken: bool) {
        let is_open = self.ranges.contains_key(place);
        if let Some(position) = self.positions.get_mut(place) {
            let settled = all_taken && !is_open && position.is_sound() && position.next == position.committed;
            position.ends.note_fetched(position.committed, fetched_to, settled);
        }
    }

    /// Notes that all there was at a moment is in the tables, and has it said at once.
    pub fn note_caught_up(&mut self, at_micros: i64) {
        for position in self.positions.values_mut().filter(|position| position.is_sound()) {
            position.ends.note_read(at_micros, position.committed);
        }
        self.marked_micros = None;
        if self.ranges.is_empty() {
            self.close_marks(MARK_IDLE_MICROS);
        }
    }

    /// Has it said that nobody reads these partitions any more.
    pub fn retire(&mut self, marks: Vec<Mark>) {
        self.retired.extend(marks);
        self.marked_micros = None;
    }

    /// Where nothing is open or on its way, closes a batch that says how far partitions have been read.
    fn mark_where_idle(&mut self) {
        if !self.closed.is_empty() || !self.ranges.is_empty() || self.in_flight > 0 {
            return;
        }
        self.close_marks(MARK_IDLE_MICROS);
    }

    fn close_marks(&mut self, every_micros: i64) {
        let marks = self.marks(every_micros);
        if !marks.is_empty() {
            match Batch::of_marks(marks) {
                Ok(batch) => self.closed.push_back(batch),
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// What is to be said of how far partitions have been read, with the open batch counted in; nothing where that was done
    /// a shorter time ago.
    fn marks(&mut self, every_micros: i64) -> Vec<Mark> {
        if self.marked_micros.is_some_and(|at| self.now_micros - at < every_micros) {
            return Vec::new();
        }
        let mut marks: Vec<Mark> = std::mem::take(&mut self.retired);
        for (place, position) in &mut self.positions {
            let known = position.is_sound();
            let next = self.ranges.get(place).map(|range| range.next).or(position.committed);
            if let Some((end, read_to_micros)) = position.ends.news(next.filter(|_| known), known) {
                let (topic, partition) = (place.topic.to_string(), place.partition);
                marks.push(Mark { job: None, topic, partition, end, read_to_micros });
            }
        }
        if !marks.is_empty() {
            self.marked_micros = Some(self.now_micros);
        }
        marks
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
                position.note_committed();
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
                *position = Position { halted: position.halted, ..Position::at(next) };
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
    fn how_far_is_read_goes_along_with_batches_and_alone_once_a_minute() {
        const SECOND: i64 = 1_000_000;
        let (batches, mut waiting) = tokio::sync::mpsc::channel(1);
        let (_answer, answers) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, answers, 1);
        let flush = FlushSettings::default();
        let places = [0, 1].map(|partition| Place { topic: "t".into(), partition });
        places.iter().for_each(|place| open.assign(place, Some(5)));
        let mut turn = |open: &mut OpenBatch, now: i64| {
            open.due(&flush, now);
            open.hand_over().expect("has room");
            waiting.try_recv().ok().map(|batch| {
                open.in_flight = 0;
                let said = batch.marks.iter().map(|mark| (mark.partition, mark.end, mark.read_to_micros));
                let mut said: Vec<_> = said.collect();
                said.sort_unstable();
                (batch.touched.len(), said)
            })
        };
        assert_eq!(turn(&mut open, SECOND), None, "nothing is known of their ends");
        // Partition 1 has two messages that were not read.
        let ends = |end| [(places[0].clone(), Some(5), 5), (places[1].clone(), Some(5), end)];
        open.note_ends(2 * SECOND, &ends(7));
        let first = turn(&mut open, 3 * SECOND).expect("is said at once");
        assert_eq!(first, (0, vec![(0, 5, Some(2 * SECOND)), (1, 7, None)]));
        open.note_ends(20 * SECOND, &ends(7));
        assert_eq!(turn(&mut open, 21 * SECOND), None, "a minute has not passed, and nothing else is to be committed");
        // With a batch that takes them, it is said that all is read as of when they were seen first.
        for offset in [5, 6] {
            let message = Message { topic: "t", partition: 1, offset, payload: Some(b"poison"), ..Message::default() };
            open.take(&places[1], &message, 22 * SECOND).expect("is to be read");
        }
        let along = turn(&mut open, 24 * SECOND).expect("is old enough");
        assert_eq!(along, (1, vec![(0, 5, Some(20 * SECOND)), (1, 7, Some(2 * SECOND))]));
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 1,
            from: 5,
            next: 7,
            end_offset: None,
            newest_event_micros: None,
            passed_over: None,
        };
        let report = CommitReport { committed: vec![range], ..CommitReport::default() };
        open.settle(Answer::Done(report)).expect("is settled");
        open.note_ends(70 * SECOND, &ends(7));
        assert_eq!(turn(&mut open, 80 * SECOND), None);
        let idle = turn(&mut open, 85 * SECOND).expect("a minute has passed");
        assert_eq!(idle, (0, vec![(0, 5, Some(70 * SECOND)), (1, 7, Some(70 * SECOND))]));
        // One that waits for a person is read no further.
        open.positions.get_mut(&places[0]).expect("it is assigned").halted = true;
        open.note_ends(140 * SECOND, &ends(9));
        let halted = turn(&mut open, 150 * SECOND).expect("a minute has passed");
        assert_eq!(halted, (0, vec![(1, 9, Some(70 * SECOND))]));
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
