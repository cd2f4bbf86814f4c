//! The time up to which a partition has been read.
//!
//! The source regularly asks the broker for end offsets. When the tables hold every message before such an offset, they hold
//! every message that existed at the time of the request. While messages arrive without pause, the end offset moves faster than
//! reading, so an open request is kept until it is reached, and only then replaced by the next one.
//!
//! Reading may never reach an end offset, because the last offsets may hold no message (transaction markers). The client
//! reports how far it has fetched; when all of that has been taken and committed, no message is left.

/// Fetch reports ignored after the client is assigned a partition or rewinds it: they may describe the state before that.
const OUTDATED: u8 = 2;

/// The progress of reading one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// End offset of the partition, as of the broker's last reply.
    pub end_offset: Option<i64>,
    /// Time and end offset of a request that the tables have not reached yet.
    open: Option<(i64, i64)>,
    /// The tables hold every message that existed at this time.
    read_to_micros: Option<i64>,
    /// An end offset that is known to be read, although no message is directly before it.
    passed_end: i64,
    /// The last update returned.
    reported: Option<(i64, Option<i64>)>,
    /// Fetch reports since the client was assigned the partition.
    fetch_reports: u8,
}

// === impl ReadProgress ===

impl ReadProgress {
    /// Notes an end offset that the broker returned for a request at `at_micros`, when the tables were at `committed`. A smaller
    /// end offset is ignored: the topic was recreated or has lost messages.
    pub fn note_end(&mut self, at_micros: i64, committed: Option<i64>, end: i64) {
        if end < committed.unwrap_or(0) {
            return;
        }
        self.end_offset = Some(end);
        self.open.get_or_insert((at_micros, end));
    }

    /// Notes the next offset recorded in the tables.
    pub fn note_committed(&mut self, committed: Option<i64>) {
        // An empty partition that was never read ends at offset 0.
        let read_to = committed.unwrap_or(0).max(self.passed_end);
        if let Some((at_micros, _)) = self.open.take_if(|(_, end)| read_to >= *end) {
            self.read_to_micros = self.read_to_micros.max(Some(at_micros));
        }
    }

    /// Notes how far the client has fetched. `settled` is true if all of that is in the tables, which are at `committed`.
    pub fn note_fetched(&mut self, committed: Option<i64>, fetched_to: i64, settled: bool) {
        if self.fetch_reports < OUTDATED {
            self.fetch_reports += 1;
            return;
        }
        if let Some((_, end)) = self.open.filter(|(_, end)| settled && fetched_to >= *end) {
            self.passed_end = self.passed_end.max(end);
            self.note_committed(committed);
        }
    }

    /// Notes that the tables, which are at `committed`, hold every message that existed at `at_micros`.
    pub fn note_read(&mut self, at_micros: i64, committed: Option<i64>) {
        self.end_offset = self.end_offset.max(Some(committed.unwrap_or(0)));
        self.read_to_micros = self.read_to_micros.max(Some(at_micros));
    }

    /// Returns the end offset, and the time up to which the partition is read once the tables are at `next`, if either has
    /// changed since the last call. `readable` is false for a halted or fenced partition, of which `next` says nothing.
    pub(super) fn take_update(&mut self, next: Option<i64>, readable: bool) -> Option<(i64, Option<i64>)> {
        let (end, next) = (self.end_offset?, next.unwrap_or(0));
        let read_to = next.max(if readable { self.passed_end } else { 0 });
        let reached = self.open.filter(|(_, open)| readable && read_to >= *open).map(|(at_micros, _)| at_micros);
        // There is no message between `next` and an end offset that is known to be read.
        let end = if read_to >= end { next } else { end };
        let now = (end, self.read_to_micros.max(reached));
        (self.reported.replace(now) != Some(now)).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_as_of_the_request_for_its_end_offset_not_as_of_reaching_it() {
        let mut progress = ReadProgress::default();
        progress.note_end(100, Some(5), 9);
        progress.note_committed(Some(7));
        assert_eq!(progress.take_update(Some(7), true), Some((9, None)));
        // Messages arrive without pause: the end offset stays ahead of reading.
        progress.note_end(200, Some(7), 50);
        progress.note_committed(Some(20));
        assert_eq!(progress.take_update(Some(20), true), Some((50, Some(100))));
        progress.note_end(300, Some(20), 90);
        assert_eq!(
            progress.take_update(Some(60), true),
            Some((90, Some(100))),
            "the end offset of the request at 300 is not reached"
        );
        assert_eq!(progress.take_update(Some(60), true), None, "nothing has changed");
        progress.note_committed(Some(95));
        assert_eq!(progress.take_update(Some(95), true), Some((95, Some(300))));
    }

    #[test]
    fn transaction_markers_at_the_end_do_not_count_as_unread() {
        let mut progress = ReadProgress::default();
        // The last message is at 40; two markers follow.
        progress.note_end(100, Some(41), 43);
        progress.note_committed(Some(41));
        progress.note_fetched(Some(41), 43, true);
        progress.note_fetched(Some(41), 43, true);
        assert_eq!(progress.take_update(Some(41), true), Some((43, None)), "the first fetch reports may be outdated");
        progress.note_fetched(Some(41), 43, false);
        assert_eq!(progress.take_update(Some(41), true), None, "not all fetched messages are committed");
        progress.note_fetched(Some(41), 43, true);
        assert_eq!(progress.take_update(Some(41), true), Some((41, Some(100))), "no message is unread");
        // From now on that end offset is known to be read.
        progress.note_end(200, Some(41), 43);
        progress.note_committed(Some(41));
        assert_eq!(progress.take_update(Some(41), true), Some((41, Some(200))));
        progress.note_end(300, Some(41), 45);
        progress.note_committed(Some(41));
        assert_eq!(progress.take_update(Some(41), true), Some((45, Some(200))), "more messages have arrived");
    }

    #[test]
    fn an_empty_partition_counts_as_read_but_a_recreated_or_halted_one_does_not() {
        let mut progress = ReadProgress::default();
        progress.note_end(100, None, 0);
        progress.note_committed(None);
        assert_eq!(progress.take_update(None, true), Some((0, Some(100))));
        let mut progress = ReadProgress::default();
        progress.note_end(100, Some(9), 3);
        progress.note_committed(Some(9));
        assert_eq!(progress.take_update(Some(9), true), None, "a recreated topic");
        let mut progress = ReadProgress::default();
        progress.note_end(100, Some(9), 9);
        assert_eq!(progress.take_update(None, false), Some((9, None)), "halted");
    }
}
