//! Up to when a partition has been read.
//!
//! The broker is asked now and then where partitions end. What it said is kept until all before that end is in the tables:
//! then all that there was at that moment is. Where messages come without pause, the end moves on while they are read, so
//! that only the first answer that is open counts, and the next one after it.
//!
//! An end is not always an offset that reading comes to: the last offsets may hold no message (marks of transactions). The
//! client says how far it has fetched, and where all of that has been taken and committed, nothing is left.

/// Answers of the client about its fetching that are passed over after a partition was given to it or moved: they may still be
/// of before.
const OUTDATED: u8 = 2;

/// What is known of the end of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Offset after the last message that the broker holds, as it said last.
    pub end: Option<i64>,
    /// When it was asked, and the end that it told: not all before that is in the tables yet.
    open: Option<(i64, i64)>,
    /// All that there was at this moment is in the tables.
    read_to_micros: Option<i64>,
    /// An end that was read up to, though no message is just before it.
    passed: i64,
    /// What was said last.
    told: Option<(i64, Option<i64>)>,
    /// Answers of the client since it was given the partition.
    answers: u8,
}

// === impl Ends ===

impl Ends {
    /// Notes what the broker said; `committed` is where the tables stood when it was asked. An end before that is none: the
    /// topic is another one, or has lost messages.
    pub fn note_end(&mut self, at_micros: i64, committed: Option<i64>, end: i64) {
        if end < committed.unwrap_or(0) {
            return;
        }
        self.end = Some(end);
        self.open.get_or_insert((at_micros, end));
    }

    /// Notes where the tables stand.
    pub fn note_committed(&mut self, committed: Option<i64>) {
        // One that holds nothing ends at its beginning.
        let stands = committed.unwrap_or(0).max(self.passed);
        if let Some((at_micros, _)) = self.open.take_if(|(_, end)| stands >= *end) {
            self.read_to_micros = self.read_to_micros.max(Some(at_micros));
        }
    }

    /// Notes how far the client has fetched. `settled`: all of that is in the tables, which stand at `committed`.
    pub fn note_fetched(&mut self, committed: Option<i64>, fetched_to: i64, settled: bool) {
        if self.answers < OUTDATED {
            self.answers += 1;
            return;
        }
        if let Some((_, end)) = self.open.filter(|(_, end)| settled && fetched_to >= *end) {
            self.passed = self.passed.max(end);
            self.note_committed(committed);
        }
    }

    /// Notes that all there was at a moment is in the tables, which stand at `committed`.
    pub fn note_read(&mut self, at_micros: i64, committed: Option<i64>) {
        self.end = self.end.max(Some(committed.unwrap_or(0)));
        self.read_to_micros = self.read_to_micros.max(Some(at_micros));
    }

    /// The end, and the moment up to which all is read once the tables stand at `next`, where that is news; `known`: it may be
    /// said how far it has been read.
    pub(super) fn news(&mut self, next: Option<i64>, known: bool) -> Option<(i64, Option<i64>)> {
        let (end, next) = (self.end?, next.unwrap_or(0));
        let stands = next.max(if known { self.passed } else { 0 });
        let reached = self.open.filter(|(_, open)| known && stands >= *open).map(|(at_micros, _)| at_micros);
        // No message is after what was read and before an end that was passed.
        let end = if stands >= end { next } else { end };
        let now = (end, self.read_to_micros.max(reached));
        (self.told.replace(now) != Some(now)).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_read_as_of_when_its_end_was_asked_for_and_not_as_of_when_it_was_reached() {
        let mut ends = Ends::default();
        ends.note_end(100, Some(5), 9);
        ends.note_committed(Some(7));
        assert_eq!(ends.news(Some(7), true), Some((9, None)));
        // Messages come without pause: the end runs ahead of what is read.
        ends.note_end(200, Some(7), 50);
        ends.note_committed(Some(20));
        assert_eq!(ends.news(Some(20), true), Some((50, Some(100))));
        ends.note_end(300, Some(20), 90);
        assert_eq!(ends.news(Some(60), true), Some((90, Some(100))), "the end of 300 is not reached");
        assert_eq!(ends.news(Some(60), true), None, "nothing is news");
        ends.note_committed(Some(95));
        assert_eq!(ends.news(Some(95), true), Some((95, Some(300))));
    }

    #[test]
    fn marks_of_transactions_at_the_end_are_not_unread_for_ever() {
        let mut ends = Ends::default();
        // The last message is at 40, two marks follow.
        ends.note_end(100, Some(41), 43);
        ends.note_committed(Some(41));
        ends.note_fetched(Some(41), 43, true);
        ends.note_fetched(Some(41), 43, true);
        assert_eq!(ends.news(Some(41), true), Some((43, None)), "the client's first answers may be outdated");
        ends.note_fetched(Some(41), 43, false);
        assert_eq!(ends.news(Some(41), true), None, "not all of what was fetched is committed");
        ends.note_fetched(Some(41), 43, true);
        assert_eq!(ends.news(Some(41), true), Some((41, Some(100))), "and none of it is unread");
        // That end is known from now on.
        ends.note_end(200, Some(41), 43);
        ends.note_committed(Some(41));
        assert_eq!(ends.news(Some(41), true), Some((41, Some(200))));
        ends.note_end(300, Some(41), 45);
        ends.note_committed(Some(41));
        assert_eq!(ends.news(Some(41), true), Some((45, Some(200))), "more has come");
    }

    #[test]
    fn an_empty_partition_is_read_and_one_that_goes_back_or_stands_still_is_not() {
        let mut ends = Ends::default();
        ends.note_end(100, None, 0);
        ends.note_committed(None);
        assert_eq!(ends.news(None, true), Some((0, Some(100))));
        let mut ends = Ends::default();
        ends.note_end(100, Some(9), 3);
        ends.note_committed(Some(9));
        assert_eq!(ends.news(Some(9), true), None, "another topic of this name");
        let mut ends = Ends::default();
        ends.note_end(100, Some(9), 9);
        assert_eq!(ends.news(None, false), Some((9, None)), "halted");
    }
}
