//! The state of a source between reading and committing: the position of each partition, and the open batch.
//!
//! It does not depend on a Kafka client, so the simulation runs the same code as the Kafka source. Rules:
//! * Each offset is taken once, in order. A rejected message advances the position like any other.
//! * A fenced partition is rewound to the recorded offset only when none of its rows are open or in flight.
//! * Read marks are committed with a batch, or in a batch of their own if no messages arrive.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::Receiver;

use bellwether_base::{Error, Result};
use bellwether_lake::PartitionRange;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::batch::{BatchBuilder, Pushed};
use crate::commit_pipeline::{Batch, CommitReport, PartitionBatch, ReadMark};
use crate::decode::Message;
use crate::heartbeat::is_heartbeat;
use crate::source::kafka::settings::FlushSettings;
use crate::source::read_progress::ReadProgress;
use crate::topic_partition::TopicPartition;

/// Interval of read marks while batches carry them: they add two lines for each partition to a log entry.
const MARK_MICROS: i64 = 10_000_000;

/// Interval of read marks while no batch carries them: they need a log entry of their own.
const MARK_IDLE_MICROS: i64 = 60_000_000;

/// The commit task's reply to a batch.
#[derive(Debug)]
pub enum CommitReply {
    /// The outcome is known.
    Done(CommitReport),
    /// The commit failed, and the worker stops with this error.
    Failed(Error),
}

/// The result of taking a message.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The row that the message became; none if it is a heartbeat.
    pub pushed: Option<Pushed>,
    /// Offsets before it that hold no message.
    pub gap: i64,
}

/// The position of reading in a partition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Position {
    /// Offset to read next; `None` before the first message of a partition that was never read.
    pub next: Option<i64>,
    /// Next offset recorded in the table, as far as this process knows.
    pub committed: Option<i64>,
    /// The partition is halted until an operator decides.
    pub halted: bool,
    /// Another owner has advanced the partition: messages are ignored until it is rewound to the recorded offset.
    pub fenced: bool,
    pub progress: ReadProgress,
}

impl Position {
    fn at(next: Option<i64>) -> Self {
        Self { next, committed: next, ..Self::default() }
    }

    /// Returns true if messages of the partition are taken: it is neither halted nor fenced.
    fn is_readable(&self) -> bool {
        !self.halted && !self.fenced
    }

    fn note_committed(&mut self) {
        if self.is_readable() {
            self.progress.note_committed(self.committed);
        }
    }
}

#[derive(Debug)]
struct OpenRange {
    from: i64,
    next: i64,
    expected: Option<i64>,
    newest_event_micros: Option<i64>,
    /// Offsets that hold no message, or a heartbeat.
    passed_over: i64,
}

/// The open batch, and the batches in flight.
pub struct OpenBatch {
    /// Rows of the open batch.
    pub builder: BatchBuilder,
    /// The position of each assigned partition.
    pub positions: HashMap<TopicPartition, Position>,
    /// Replies of the commit task.
    pub replies: Receiver<CommitReply>,
    /// Batches handed over without a reply yet.
    pub in_flight: usize,
    /// Time of the open batch's first message.
    pub since_micros: Option<i64>,
    /// An error from a callback, which cannot return it.
    pub error: Option<Error>,
    /// Partitions were assigned since this was last reset. New partitions are never paused, even if the others are.
    pub reassigned: bool,
    /// Fenced partitions, with the offset to rewind to.
    rewinds: BTreeMap<TopicPartition, Option<i64>>,
    /// Topic ids that the tables may not record yet.
    pub topic_ids: BTreeMap<String, i64>,
    ranges: BTreeMap<TopicPartition, OpenRange>,
    /// Closed batches that could not be handed over yet.
    closed: VecDeque<Batch>,
    batches: Sender<Batch>,
    limit: usize,
    /// Marks of partitions that are no longer read.
    retired: Vec<ReadMark>,
    /// Time of the last read marks.
    marked_micros: Option<i64>,
    /// The current time, as of the last [`Self::due`].
    now_micros: i64,
}

// === impl OpenBatch ===

impl OpenBatch {
    /// Creates an empty batch without partitions. At most `limit` batches are in flight.
    pub fn new(builder: BatchBuilder, batches: Sender<Batch>, replies: Receiver<CommitReply>, limit: usize) -> Self {
        Self {
            builder,
            positions: HashMap::new(),
            replies,
            in_flight: 0,
            since_micros: None,
            error: None,
            reassigned: false,
            rewinds: BTreeMap::new(),
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

    /// Adds a partition that is read from `next`, the offset recorded in the table.
    pub fn assign(&mut self, topic_partition: &TopicPartition, next: Option<i64>) {
        self.positions.insert(topic_partition.clone(), Position::at(next));
        // Record soon how far it has been read.
        self.marked_micros = None;
    }

    /// Removes a revoked partition and its open rows, and returns its position. If the partition comes back, it is read again
    /// from the recorded offset, so keeping the rows would put them in two batches.
    ///
    /// # Errors
    /// `Bug` if rows do not match their schema.
    pub fn release(&mut self, topic_partition: &TopicPartition) -> Result<Option<Position>> {
        let position = self.positions.remove(topic_partition);
        self.rewinds.remove(topic_partition);
        if self.ranges.remove(topic_partition).is_some() {
            let mut rest = self.close()?;
            let others =
                |topic: &str, partition, _| partition != topic_partition.partition || topic != &*topic_partition.topic;
            rest.events = rest.events.kept(others)?;
            rest.quarantine = rest.quarantine.kept(others)?;
            if !rest.partitions.is_empty() {
                self.closed.push_back(rest);
            }
        }
        Ok(position)
    }

    /// Adds a message to the open batch. Returns `None` if it was read before, or its partition is halted or fenced.
    pub fn take(&mut self, topic_partition: &TopicPartition, message: &Message<'_>, now_micros: i64) -> Option<Taken> {
        let position = self.positions.get_mut(topic_partition)?;
        let expected = position.next;
        if position.halted || position.fenced || expected.is_some_and(|next| message.offset < next) {
            return None;
        }
        let pushed = (!is_heartbeat(message)).then(|| self.builder.push(message, now_micros));
        let newest_event_micros = match pushed {
            Some(Pushed::Event(time_micros)) => Some(time_micros),
            Some(Pushed::Quarantined(_)) | None => None,
        };
        let (from, next) = (expected.unwrap_or(message.offset), message.offset + 1);
        let gap = message.offset - from;
        let passed_over = gap + i64::from(pushed.is_none());
        position.next = Some(next);
        self.since_micros.get_or_insert(now_micros);
        match self.ranges.get_mut(topic_partition) {
            Some(range) => {
                range.next = next;
                range.passed_over += passed_over;
                range.newest_event_micros = range.newest_event_micros.max(newest_event_micros);
            }
            None => {
                let range = OpenRange { from, next, expected, newest_event_micros, passed_over };
                self.ranges.insert(topic_partition.clone(), range);
            }
        }
        Some(Taken { pushed, gap })
    }

    /// Returns whether the open batch is full, and whether it is old enough to hand over.
    pub fn due(&mut self, flush: &FlushSettings, now_micros: i64) -> (bool, bool) {
        self.now_micros = now_micros;
        self.mark_if_idle();
        let full = self.is_full(flush);
        let interval = i64::try_from(flush.interval.as_micros()).unwrap_or(i64::MAX);
        let old = !self.closed.is_empty() || self.since_micros.is_some_and(|since| now_micros - since >= interval);
        (full, old)
    }

    /// Returns true if the open batch is full.
    pub fn is_full(&self, flush: &FlushSettings) -> bool {
        self.builder.bytes() >= flush.max_bytes || self.builder.rows() >= flush.max_rows
    }

    /// Hands over the open batch, and returns true if none is open or in flight.
    ///
    /// # Errors
    /// As [`OpenBatch::hand_over`].
    pub fn all_settled(&mut self) -> Result<bool> {
        Ok(self.hand_over()? && self.in_flight == 0)
    }

    /// Hands the open batch to the commit task. Returns false if the limit of batches in flight is reached.
    ///
    /// # Errors
    /// `Unavailable` if the commit task has stopped; `Bug` if rows do not match their schema.
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
        let partitions = std::mem::take(&mut self.ranges)
            .into_iter()
            .map(|(topic_partition, range)| {
                let OpenRange { from, next, expected, newest_event_micros, passed_over } = range;
                let (topic, partition) = (topic_partition.topic.to_string(), topic_partition.partition);
                let end = self.positions.get(&topic_partition).and_then(|position| position.progress.end_offset);
                let range = PartitionRange {
                    topic,
                    partition,
                    from,
                    next,
                    end_offset: end.map(|end| end.max(next)),
                    newest_event_micros,
                    passed_over: Some(passed_over),
                };
                PartitionBatch { range, expected }
            })
            .collect();
        self.since_micros = None;
        Ok(Batch { events, quarantine, partitions, topic_ids: self.topic_ids.clone(), marks })
    }

    /// Notes the end offsets that the broker returned for a request at `at_micros`, each with the committed offset at that time.
    pub fn note_end_offsets(&mut self, at_micros: i64, ends: &[(TopicPartition, Option<i64>, i64)]) {
        for (topic_partition, committed, end) in ends {
            if let Some(position) = self.positions.get_mut(topic_partition) {
                position.progress.note_end(at_micros, *committed, *end);
                position.note_committed();
            }
        }
    }

    /// Notes how far the client has fetched a partition. `all_taken` is true if all fetched messages have been taken.
    pub fn note_fetched(&mut self, topic_partition: &TopicPartition, fetched_to: i64, all_taken: bool) {
        let is_open = self.ranges.contains_key(topic_partition);
        if let Some(position) = self.positions.get_mut(topic_partition) {
            let settled = all_taken && !is_open && position.is_readable() && position.next == position.committed;
            position.progress.note_fetched(position.committed, fetched_to, settled);
        }
    }

    /// Notes that the tables hold every message that existed at `at_micros`, and records that at once.
    pub fn note_caught_up(&mut self, at_micros: i64) {
        for position in self.positions.values_mut().filter(|position| position.is_readable()) {
            position.progress.note_read(at_micros, position.committed);
        }
        self.marked_micros = None;
        if self.ranges.is_empty() {
            self.close_marks(MARK_IDLE_MICROS);
        }
    }

    /// Schedules marks of partitions that are no longer read.
    pub fn retire(&mut self, marks: Vec<ReadMark>) {
        self.retired.extend(marks);
        self.marked_micros = None;
    }

    /// Closes a batch of read marks if no batch is open or in flight.
    fn mark_if_idle(&mut self) {
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

    /// Returns the read marks as of the commit of the open batch, or none if the last ones are less than `every_micros` old.
    fn marks(&mut self, every_micros: i64) -> Vec<ReadMark> {
        if self.marked_micros.is_some_and(|at| self.now_micros - at < every_micros) {
            return Vec::new();
        }
        let mut marks: Vec<ReadMark> = std::mem::take(&mut self.retired);
        for (topic_partition, position) in &mut self.positions {
            let readable = position.is_readable();
            let next = self.ranges.get(topic_partition).map(|range| range.next).or(position.committed);
            if let Some((end, read_to_micros)) = position.progress.take_update(next.filter(|_| readable), readable) {
                let (topic, partition) = (topic_partition.topic.to_string(), topic_partition.partition);
                marks.push(ReadMark { job: None, topic, partition, end, read_to_micros });
            }
        }
        if !marks.is_empty() {
            self.marked_micros = Some(self.now_micros);
        }
        marks
    }

    /// Processes a reply of the commit task.
    ///
    /// # Errors
    /// The error that stopped the commit task.
    pub fn settle(&mut self, reply: CommitReply) -> Result<CommitReport> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let report = match reply {
            CommitReply::Done(report) => report,
            CommitReply::Failed(error) => return Err(error),
        };
        for range in &report.committed {
            let topic_partition = TopicPartition::of_range(range);
            if let Some(position) = self.positions.get_mut(&topic_partition) {
                position.committed = Some(range.next);
                position.note_committed();
            }
        }
        for fenced in &report.fenced {
            let topic_partition = TopicPartition::new(&fenced.topic, fenced.partition);
            if let Some(position) = self.positions.get_mut(&topic_partition) {
                position.fenced = true;
                self.rewinds.insert(topic_partition, fenced.next);
            }
        }
        Ok(report)
    }

    /// Returns the partitions to rewind, with their offsets. It waits until no earlier rows are open or in flight, so that no
    /// older reply can undo the rewind.
    ///
    /// # Errors
    /// As [`OpenBatch::hand_over`].
    pub fn take_rewinds(&mut self) -> Result<Vec<(TopicPartition, Option<i64>)>> {
        if self.rewinds.is_empty() || !self.hand_over()? || self.in_flight > 0 {
            return Ok(Vec::new());
        }
        let fenced = std::mem::take(&mut self.rewinds);
        let mut moved = Vec::new();
        for (topic_partition, next) in fenced {
            if let Some(position) = self.positions.get_mut(&topic_partition) {
                *position = Position { halted: position.halted, ..Position::at(next) };
                // A halted partition needs no rewind, and the client may have stopped reading it.
                if !position.halted {
                    moved.push((topic_partition, next));
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

    /// Returns the offset ranges of a batch.
    fn offsets(batch: &Batch) -> Vec<(i32, i64, i64)> {
        batch.partitions.iter().map(|one| (one.range.partition, one.range.from, one.range.next)).collect()
    }

    #[test]
    fn a_released_partition_that_comes_back_is_read_again_and_other_rows_stay() {
        let (batches, mut waiting) = tokio::sync::mpsc::channel(1);
        let (_reply, replies) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, replies, 1);
        let topic_partition = |partition| TopicPartition::new("t", partition);
        let take = |open: &mut OpenBatch, partition: i32, offset: i64| {
            let message = Message { topic: "t", partition, offset, payload: Some(b"poison"), ..Message::default() };
            open.take(&topic_partition(partition), &message, 1).expect("is to be read");
        };
        open.assign(&topic_partition(0), Some(5));
        open.assign(&topic_partition(1), Some(0));
        take(&mut open, 1, 0);
        assert!(open.hand_over().expect("has room"));
        (5..9).for_each(|offset| take(&mut open, 0, offset));
        take(&mut open, 1, 1);
        assert!(!open.hand_over().expect("is full"), "storage has not replied");
        open.release(&topic_partition(0)).expect("is released");
        open.assign(&topic_partition(0), Some(5));
        take(&mut open, 0, 5);

        assert_eq!(offsets(&waiting.try_recv().expect("the first")), [(1, 0, 1)]);
        open.in_flight = 0;
        assert!(!open.hand_over().expect("has room for one"));
        let kept = waiting.try_recv().expect("the neighbour's");
        assert_eq!((offsets(&kept), kept.quarantine.rows()), (vec![(1, 1, 2)], 1));
        open.in_flight = 0;
        assert!(open.hand_over().expect("has room"));
        let again = waiting.try_recv().expect("read again");
        assert_eq!((offsets(&again), again.quarantine.rows()), (vec![(0, 5, 6)], 1), "one row, not two");
    }

    #[test]
    fn a_heartbeat_advances_the_offset_and_becomes_no_row() {
        let (batches, mut waiting) = tokio::sync::mpsc::channel(1);
        let (_reply, replies) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, replies, 1);
        let topic_partition = TopicPartition::new("t", 0);
        open.assign(&topic_partition, Some(5));
        let envelope =
            bellwether_event::Envelope { event_type: Some(crate::heartbeat::EVENT_TYPE), ..Default::default() };
        let payload = Some(&b"poison"[..]);
        let mut take = |offset: i64, envelope| {
            let message = Message { topic: "t", offset, payload, envelope, ..Message::default() };
            open.take(&topic_partition, &message, 1).expect("is to be read").pushed
        };
        // Offset 6 holds no message.
        assert_eq!(take(5, envelope), None);
        assert_eq!(take(7, envelope), None);
        assert!(matches!(take(8, bellwether_event::Envelope::default()), Some(Pushed::Quarantined(_))));
        assert!(open.hand_over().expect("has room"));
        let batch = waiting.try_recv().expect("it is handed over");
        assert_eq!(offsets(&batch), [(0, 5, 9)]);
        assert_eq!(batch.partitions[0].range.passed_over, Some(3));
        assert_eq!((batch.events.rows(), batch.quarantine.rows()), (0, 1));
    }

    #[test]
    fn read_marks_are_committed_with_batches_and_alone_once_a_minute() {
        const SECOND: i64 = 1_000_000;
        let (batches, mut waiting) = tokio::sync::mpsc::channel(1);
        let (_reply, replies) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, replies, 1);
        let flush = FlushSettings::default();
        let partitions = [0, 1].map(|partition| TopicPartition::new("t", partition));
        partitions.iter().for_each(|topic_partition| open.assign(topic_partition, Some(5)));
        let mut turn = |open: &mut OpenBatch, now: i64| {
            open.due(&flush, now);
            open.hand_over().expect("has room");
            waiting.try_recv().ok().map(|batch| {
                open.in_flight = 0;
                let marks = batch.marks.iter().map(|mark| (mark.partition, mark.end, mark.read_to_micros));
                let mut marks: Vec<_> = marks.collect();
                marks.sort_unstable();
                (batch.partitions.len(), marks)
            })
        };
        assert_eq!(turn(&mut open, SECOND), None, "their end offsets are unknown");
        // Partition 1 has two messages that were not read.
        let ends = |end| [(partitions[0].clone(), Some(5), 5), (partitions[1].clone(), Some(5), end)];
        open.note_end_offsets(2 * SECOND, &ends(7));
        let first = turn(&mut open, 3 * SECOND).expect("is recorded at once");
        assert_eq!(first, (0, vec![(0, 5, Some(2 * SECOND)), (1, 7, None)]));
        open.note_end_offsets(20 * SECOND, &ends(7));
        assert_eq!(turn(&mut open, 21 * SECOND), None, "a minute has not passed, and there is no batch to carry marks");
        // The batch that takes the two messages completes reading as of the first time that their end offset was seen.
        for offset in [5, 6] {
            let message = Message { topic: "t", partition: 1, offset, payload: Some(b"poison"), ..Message::default() };
            open.take(&partitions[1], &message, 22 * SECOND).expect("is to be read");
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
        open.settle(CommitReply::Done(report)).expect("is settled");
        open.note_end_offsets(70 * SECOND, &ends(7));
        assert_eq!(turn(&mut open, 80 * SECOND), None);
        let idle = turn(&mut open, 85 * SECOND).expect("a minute has passed");
        assert_eq!(idle, (0, vec![(0, 5, Some(70 * SECOND)), (1, 7, Some(70 * SECOND))]));
        // A halted partition makes no progress.
        open.positions.get_mut(&partitions[0]).expect("it is assigned").halted = true;
        open.note_end_offsets(140 * SECOND, &ends(9));
        let halted = turn(&mut open, 150 * SECOND).expect("a minute has passed");
        assert_eq!(halted, (0, vec![(1, 9, Some(70 * SECOND))]));
    }

    #[test]
    fn a_halted_partition_is_not_rewound_when_it_is_fenced() {
        let (batches, _waiting) = tokio::sync::mpsc::channel(1);
        let (_reply, replies) = std::sync::mpsc::channel();
        let mut open = OpenBatch::new(BatchBuilder::new(Limits::default()), batches, replies, 1);
        let partitions = [0, 1].map(|partition| TopicPartition::new("t", partition));
        partitions.iter().for_each(|topic_partition| open.assign(topic_partition, Some(5)));
        open.positions.get_mut(&partitions[0]).expect("it is assigned").halted = true;
        let fenced = |partition| FencedPartition { topic: "t".to_owned(), partition, next: Some(9) };
        let report = CommitReport { fenced: vec![fenced(0), fenced(1)], ..CommitReport::default() };
        open.settle(CommitReply::Done(report)).expect("is settled");
        assert_eq!(open.take_rewinds().expect("nothing is open"), [(partitions[1].clone(), Some(9))]);
        assert!(partitions.iter().all(|topic_partition| open.positions[topic_partition].next == Some(9)
            && !open.positions[topic_partition].fenced));
        assert!(open.positions[&partitions[0]].halted);
    }
}
