//! Counts by hour: the past of a series, packed, small enough to keep for months.
//!
//! Hours are kept in blocks of a few days. A block holds a column of bad runs and one of runs, in as many bits as they
//! need (see `crate::columns`): an hour of a task with 600 runs takes two bytes. Of sampled runs, an hour in which all
//! bad runs have one weight, and all good ones too, keeps these two weights. The hour that was last added to is not packed
//! before another one is: the windows of one hour mostly come in a row.

use bellwether_stats::varint::put_varint;

use crate::columns::{Reader, put_column};
use crate::observation::Measure;
use crate::season::Season;
use crate::weights::{Arm, ONE, WeightSums};

/// Hours of a block.
const BLOCK: i64 = 96;

/// An hour.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Hour {
    events: i32,
    runs: i32,
    /// Weight sums, unless every run has weight 1.
    sums: Option<WeightSums>,
}

/// Bad runs and runs by hour since the epoch, without gaps between the first and the last.
#[derive(Clone, Debug, Default)]
pub struct Hours {
    season: Season,
    /// First hour, and the hour after the last one.
    first: i64,
    end: i64,
    /// Blocks from that of the first hour to that of the last one. Hours of the first block before `first` are 0.
    blocks: Vec<Box<[u8]>>,
    /// The hour that was last added to: its place in its block is out of date.
    open: Option<Box<Open>>,
}

/// An hour with its number.
#[derive(Clone, Debug, Default)]
struct Open {
    number: i64,
    hour: Hour,
}

/// Maximum span in hours: a larger gap means a wrong clock.
const MAX_HOURS: i64 = 24 * 366;

fn pack(hours: &[Hour]) -> Box<[u8]> {
    let mut bytes = Vec::new();
    if hours.iter().all(|hour| *hour == Hour::default()) {
        return bytes.into_boxed_slice();
    }
    put_column(&mut bytes, &hours.iter().map(|hour| i128::from(hour.events)).collect::<Vec<_>>());
    put_column(&mut bytes, &hours.iter().map(|hour| i128::from(hour.runs)).collect::<Vec<_>>());
    let weighted = hours.iter().filter_map(|hour| Some((hour, hour.sums?)));
    let weighted: Vec<(Option<[i128; 2]>, WeightSums)> =
        weighted.map(|(hour, sums)| (two_weights(hour, &sums), sums)).collect();
    // One bit an hour: those with weights, and those of them with two weights.
    put_varint(&mut bytes, mask(hours.iter().map(|hour| hour.sums.is_some())));
    if weighted.is_empty() {
        return bytes.into_boxed_slice();
    }
    put_varint(&mut bytes, mask(weighted.iter().map(|(two, _)| two.is_some())));
    for place in 0..2 {
        put_column(&mut bytes, &weighted.iter().filter_map(|(two, _)| Some((*two)?[place])).collect::<Vec<_>>());
    }
    for place in 0..4 {
        let others = weighted.iter().filter(|(two, _)| two.is_none());
        put_column(&mut bytes, &others.map(|(_, sums)| columns_of(sums)[place]).collect::<Vec<_>>());
    }
    bytes.into_boxed_slice()
}

fn unpack(bytes: &[u8]) -> Vec<Hour> {
    let count = usize::try_from(BLOCK).unwrap_or(0);
    if bytes.is_empty() {
        return vec![Hour::default(); count];
    }
    let mut from = Reader(bytes);
    let (events, runs) = (from.column(count), from.column(count));
    let counts = events.into_iter().zip(runs);
    let mut hours: Vec<Hour> =
        counts.map(|(events, runs)| Hour { events: held(events), runs: held(runs), sums: None }).collect();
    let weighted = from.varint();
    if weighted == 0 {
        return hours;
    }
    let two = from.varint();
    let (pairs, all) = (two.count_ones() as usize, weighted.count_ones() as usize);
    let mut weights = [(); 2].map(|()| from.column(pairs).into_iter());
    let mut sums = [(); 4].map(|()| from.column(all - pairs).into_iter());
    let with_weights = hours.iter_mut().enumerate().filter(|(place, _)| weighted >> place & 1 == 1);
    for (number, (place, hour)) in with_weights.enumerate() {
        debug_assert!(place < count);
        hour.sums = Some(if two >> number & 1 == 1 {
            let [bad, good] = weights.each_mut().map(|column| column.next().unwrap_or(0));
            sums_of_two(hour, [bad, good])
        } else {
            let [events, runs, events_squares, runs_squares] = sums.each_mut().map(|column| column.next().unwrap_or(0));
            WeightSums { events, runs, events_squares, runs_squares }
        });
    }
    hours
}

fn mask(bits: impl Iterator<Item = bool>) -> u128 {
    bits.enumerate().fold(0, |mask, (place, bit)| mask | u128::from(bit) << place)
}

fn columns_of(sums: &WeightSums) -> [i128; 4] {
    [sums.events, sums.runs, sums.events_squares, sums.runs_squares]
}

/// Returns the sums of an hour whose bad runs have one weight, and whose good ones another.
fn sums_of_two(hour: &Hour, [bad, good]: [i128; 2]) -> WeightSums {
    let (events, others) = (i128::from(hour.events), i128::from(hour.runs) - i128::from(hour.events));
    let of = |count: i128, weight: i128| count.saturating_mul(weight);
    let square = |count: i128, weight: i128| of(of(count, weight), weight);
    WeightSums {
        events: of(events, bad),
        runs: of(events, bad).saturating_add(of(others, good)),
        events_squares: square(events, bad),
        runs_squares: square(events, bad).saturating_add(square(others, good)),
    }
}

/// Returns the weight of bad and of good runs, if the sums are those of two weights.
fn two_weights(hour: &Hour, sums: &WeightSums) -> Option<[i128; 2]> {
    let (events, others) = (i128::from(hour.events), i128::from(hour.runs) - i128::from(hour.events));
    let of = |sum: i128, count: i128| sum.checked_div(count);
    let (bad, good) = (of(sums.events, events), of(sums.runs.saturating_sub(sums.events), others));
    // A kind without runs has the other's weight, which takes no bits of its own.
    let two = [bad.or(good)?, good.or(bad)?];
    (sums_of_two(hour, two) == *sums).then_some(two)
}

fn held(value: impl Into<i128>) -> i32 {
    let value = value.into();
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

/// Returns the place of an hour in its block.
fn place(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(BLOCK)).unwrap_or(0)
}

/// Runs to add to an hour.
#[derive(Clone, Copy)]
struct More {
    events: i64,
    runs: i64,
    sums: Option<WeightSums>,
}

// === impl Hour ===

impl Hour {
    fn has_runs(&self) -> bool {
        self.events != 0 || self.runs != 0
    }

    fn arm(&self) -> Arm {
        let (events, runs) = (i64::from(self.events), i64::from(self.runs));
        Arm { events, runs, sums: self.sums.unwrap_or_else(|| WeightSums::uniform(events, runs, ONE)) }
    }
}

// === impl Hours ===

impl Hours {
    /// Creates an empty past with weeks in the time zone of `season`.
    pub fn new(season: Season) -> Self {
        Self { season, ..Self::default() }
    }

    /// Returns the time zone of its weeks.
    pub fn season(&self) -> Season {
        self.season
    }

    /// Returns the hour after the last known one.
    pub(crate) fn end(&self) -> Option<i64> {
        (!self.blocks.is_empty()).then_some(self.end)
    }

    /// Returns the index of the block of an hour.
    fn block(&self, hour: i64) -> Option<usize> {
        usize::try_from(hour.div_euclid(BLOCK) - self.first.div_euclid(BLOCK)).ok()
    }

    /// Adds to an hour, and forgets hours more than `keep` before the newest. Returns false if the hour is too old.
    pub fn add(&mut self, hour: i64, events: i64, runs: i64, keep: i64) -> bool {
        self.add_more(hour, More { events, runs, sums: None }, keep)
    }

    fn add_more(&mut self, hour: i64, more: More, keep: i64) -> bool {
        if self.blocks.is_empty() {
            (self.first, self.end) = (hour, hour);
        }
        let keep = keep.clamp(1, MAX_HOURS);
        if hour < self.end - keep {
            return false;
        }
        if hour >= self.end + keep {
            // All earlier hours are beyond the limit.
            self.blocks.clear();
            (self.first, self.end, self.open) = (hour, hour, None);
        }
        self.extend_to(hour);
        self.forget_before(self.end - keep);
        let slot = self.open_hour(hour);
        let uniform = |slot: &Hour| WeightSums::uniform(i64::from(slot.events), i64::from(slot.runs), ONE);
        if more.sums.is_some() || slot.sums.is_some() {
            let mut sums = slot.sums.unwrap_or_else(|| uniform(slot));
            sums.add(&more.sums.unwrap_or_else(|| WeightSums::uniform(more.events, more.runs, ONE)));
            slot.sums = Some(sums);
        }
        slot.events = slot.events.saturating_add(held(more.events));
        slot.runs = slot.runs.saturating_add(held(more.runs));
        true
    }

    /// Returns an hour to add to, and packs the one before.
    fn open_hour(&mut self, hour: i64) -> &mut Hour {
        let stays = self.open.as_ref().is_some_and(|open| open.number == hour);
        if !stays {
            self.close();
            let block = self.block(hour).and_then(|block| self.blocks.get(block));
            let known = block.map_or_else(Hour::default, |block| unpack(block)[place(hour)]);
            self.open = Some(Box::new(Open { number: hour, hour: known }));
        }
        &mut self.open.get_or_insert_default().hour
    }

    /// Packs the hour that was last added to if it is before `hour`: no more runs are expected in it.
    pub(crate) fn close_before(&mut self, hour: i64) {
        if self.open.as_ref().is_some_and(|open| open.number < hour) {
            self.close();
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let Some(block) = self.block(open.number).and_then(|block| self.blocks.get_mut(block)) else { return };
        let mut hours = unpack(block);
        hours[place(open.number)] = open.hour;
        *block = pack(&hours);
    }

    fn extend_to(&mut self, hour: i64) {
        let (first, last) = (self.first.min(hour), self.end.max(hour + 1) - 1);
        let (old, new) = (self.first.div_euclid(BLOCK), first.div_euclid(BLOCK));
        let before = usize::try_from(if self.blocks.is_empty() { 0 } else { old - new }).unwrap_or(0);
        let count = usize::try_from(last.div_euclid(BLOCK) - new + 1).unwrap_or(0);
        if before > 0 || self.blocks.len() < count {
            self.blocks.reserve_exact(before + count.saturating_sub(before + self.blocks.len()));
            drop(self.blocks.splice(..0, std::iter::repeat_n(Box::default(), before)));
            self.blocks.resize(count.max(self.blocks.len()), Box::default());
        }
        (self.first, self.end) = (first, last + 1);
    }

    fn forget_before(&mut self, hour: i64) {
        if hour <= self.first {
            return;
        }
        self.open = self.open.take().filter(|open| open.number >= hour);
        let gone = usize::try_from(hour.div_euclid(BLOCK) - self.first.div_euclid(BLOCK)).unwrap_or(0);
        self.blocks.drain(..gone.min(self.blocks.len()));
        self.first = hour;
        if let Some(block) = self.blocks.first_mut().filter(|block| !block.is_empty()) {
            let mut hours = unpack(block);
            hours[..place(hour)].fill(Hour::default());
            *block = pack(&hours);
        }
    }

    /// Like [`Hours::add`], with weights.
    pub fn add_measure(&mut self, hour: i64, measure: &Measure, keep: i64) -> bool {
        let sums = measure.weights.as_ref().map(|weights| weights.sums);
        self.add_more(hour, More { events: measure.events, runs: measure.runs, sums }, keep)
    }

    /// Returns the counts of an hour.
    pub fn arm(&self, hour: i64) -> Arm {
        self.known(hour, hour + 1).next().map_or_else(Arm::default, |(_, hour)| hour.arm())
    }

    /// Returns the hours [from, to) that have runs, with weight sums.
    pub fn arms(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, Arm)> + '_ {
        self.known(from, to).filter(|(_, hour)| hour.has_runs()).map(|(number, hour)| (number, hour.arm()))
    }

    /// Returns bad runs and runs of the hours [from, to) that have any.
    pub fn range(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, i64, i64)> + '_ {
        let some = self.known(from, to).filter(|(_, hour)| hour.has_runs());
        some.map(|(number, hour)| (number, i64::from(hour.events), i64::from(hour.runs)))
    }

    /// Returns the known hours of [from, to).
    fn known(&self, from: i64, to: i64) -> impl Iterator<Item = (i64, Hour)> + '_ {
        let known = !self.blocks.is_empty();
        let (from, to) = if known { (from.max(self.first), to.min(self.end)) } else { (0, 0) };
        let blocks = from.div_euclid(BLOCK)..if from < to { (to - 1).div_euclid(BLOCK) + 1 } else { i64::MIN };
        blocks
            .flat_map(move |number| {
                let block = self.block(number * BLOCK + BLOCK - 1).and_then(|block| self.blocks.get(block));
                (number * BLOCK..).zip(block.map(|block| unpack(block)).unwrap_or_default())
            })
            .map(|(number, hour)| match &self.open {
                Some(open) if open.number == number => (number, open.hour),
                _ => (number, hour),
            })
            .filter(move |(hour, _)| (from..to).contains(hour))
    }

    /// Returns the hours [from, to) by the wall clock, with their runs, including hours without runs, from the first
    /// known hour on.
    pub fn runs_by_clock(&self, from: i64, to: i64) -> Vec<(i64, u64)> {
        let from = self.first().map_or(to, |first| first.max(from));
        let mut known = self.known(from, to).peekable();
        (from..to)
            .map(|hour| {
                let runs = known.next_if(|(own, _)| *own == hour).map_or(0, |(_, hour)| hour.runs);
                (self.season.local_hour(hour), u64::try_from(runs).unwrap_or(0))
            })
            .collect()
    }

    /// Returns the first known hour.
    pub fn first(&self) -> Option<i64> {
        (!self.blocks.is_empty()).then_some(self.first)
    }

    /// Returns the bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        let open = self.open.as_ref().map_or(0, |_| size_of::<Open>());
        size_of::<Self>() + open + self.blocks.iter().map(|block| size_of::<Box<[u8]>>() + block.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hours_add_up_in_any_order_and_old_ones_go() {
        let mut hours = Hours::default();
        assert!(hours.add(100, 1, 10, 50) && hours.add(98, 2, 20, 50) && hours.add(100, -1, -3, 50));
        assert_eq!(hours.range(0, 200).collect::<Vec<_>>(), [(98, 2, 20), (100, 0, 7)]);
        assert_eq!(hours.range(99, 100).count(), 0);
        assert!(hours.add(140, 1, 1, 50));
        assert!(!hours.add(80, 1, 1, 50));
        assert_eq!(hours.range(0, 200).map(|hour| hour.0).collect::<Vec<_>>(), [98, 100, 140]);
        assert!(hours.add(149, 1, 1, 50));
        assert_eq!(hours.first(), Some(100));
        assert!(hours.add(10_000, 5, 6, 50));
        assert_eq!(hours.range(0, 20_000).collect::<Vec<_>>(), [(10_000, 5, 6)]);
    }

    proptest! {
        #[test]
        fn hours_are_those_of_a_plain_map(
            adds in prop::collection::vec((-300_i64..900, -5_i64..50, -9_i64..3000, 0_i64..4), 0..80), keep in 1_i64..600,
            from in -400_i64..1000, length in 0_i64..600,
        ) {
            let (mut hours, mut plain) = (Hours::default(), BTreeMap::<i64, Measure>::new());
            for (hour, events, runs, weight) in adds {
                let end = plain.keys().next_back().map_or(hour, |last| last + 1);
                let kept = hour >= end - keep;
                let measure = Measure::from_counts(events, runs).with_weight([ONE, ONE, 3 * ONE, 700_000][weight as usize]);
                if kept {
                    if hour >= end + keep {
                        plain.clear();
                    }
                    plain.entry(hour).or_default().add(&measure);
                    plain = plain.split_off(&(end.max(hour + 1) - keep));
                }
                prop_assert_eq!(hours.add_measure(hour, &measure, keep), kept);
            }
            let inside = plain.iter().filter(|(hour, _)| (from..from + length).contains(*hour));
            let wanted: Vec<_> = inside
                .filter(|(_, measure)| (measure.events, measure.runs) != (0, 0))
                .map(|(hour, measure)| (*hour, measure.arm()))
                .collect();
            prop_assert_eq!(hours.arms(from, from + length).collect::<Vec<_>>(), wanted);
            let by_clock = hours.runs_by_clock(from, from + length);
            let runs_of = |hour: &i64| plain.get(hour).map_or(0, |measure| u64::try_from(measure.runs).unwrap_or(0));
            let same = by_clock.iter().all(|(hour, runs)| runs_of(hour) == *runs);
            prop_assert!(same);
        }
    }

    #[test]
    fn four_weeks_of_hours_take_little_room() {
        let mut hours = Hours::default();
        (0..28 * 24).for_each(|hour| assert!(hours.add(490_000 + hour, hour % 4, 500 + hour % 100, 29 * 24)));
        assert!(hours.bytes() < 28 * 24 * 2, "{}", hours.bytes());
    }

    #[test]
    fn hours_keep_weights() {
        let mut hours = Hours::default();
        let of = |events, runs, weight| Measure::from_counts(events, runs).with_weight(weight);
        assert!(hours.add_measure(100, &of(1, 10, ONE), 50));
        assert_eq!(hours.arm(100), Measure::from_counts(1, 10).arm());
        assert!(hours.add_measure(100, &of(0, 4, 5 * ONE), 50));
        assert_eq!((hours.arm(100).seen_counts(), hours.arm(100).weighted_counts()), ((1, 14), (1, 30)));
        assert!(hours.add_measure(100, &of(0, -4, 5 * ONE), 50));
        assert_eq!(hours.arm(100).weight(), Some(ONE));
        assert!(hours.add_measure(200, &of(0, 1, 5 * ONE), 50));
        assert_eq!(
            hours.arms(0, 300).map(|(hour, arm)| (hour, arm.weighted_counts())).collect::<Vec<_>>(),
            [(200, (0, 5))]
        );
    }
}
