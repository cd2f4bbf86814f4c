//! Packed copies of one state at several times, compressed together: most of a state is the same an hour later.

use std::collections::BTreeMap;

use bellwether_stats::pack::{Packed, Shared};
use lz4_flex::block::{compress, decompress};

use crate::observation::Minute;

/// A copy: its time, and the end of its bytes among those of all copies.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Minute,
    end: u32,
}

/// Copies in the order of their times.
#[derive(Clone, Default)]
pub(crate) struct Checkpoints {
    marks: Box<[Mark]>,
    /// The bytes of all copies, one after another, compressed.
    bytes: Box<[u8]>,
    /// The values that copies share with others, of the few copies that do.
    shared: BTreeMap<Minute, Box<[Shared]>>,
}

// === impl Checkpoints ===

impl Checkpoints {
    /// Returns the times of the copies.
    pub(crate) fn times(&self) -> impl DoubleEndedIterator<Item = Minute> {
        self.marks.iter().map(|mark| mark.at)
    }

    /// Returns the newest copy.
    pub(crate) fn newest(&self) -> Option<(Minute, Packed)> {
        let at = self.marks.last()?.at;
        let bytes = self.all()[self.start_of(self.marks.len() - 1)..].into();
        Some((at, Packed { bytes, shared: self.shared.get(&at).cloned().unwrap_or_default() }))
    }

    /// Adds a copy, which is newer than all others, and drops those of which `keep` says so by their times.
    pub(crate) fn add(&mut self, at: Minute, copy: Packed, keep: impl FnOnce(&[Minute]) -> Vec<bool>) {
        let mut all = self.all();
        all.extend(&copy.bytes);
        if !copy.shared.is_empty() {
            self.shared.insert(at, copy.shared);
        }
        let mut marks = std::mem::take(&mut self.marks).into_vec();
        marks.push(Mark { at, end: u32::try_from(all.len()).unwrap_or(u32::MAX) });
        self.marks = marks.into_boxed_slice();
        let times: Vec<Minute> = self.times().collect();
        self.retain(all, &keep(&times));
    }

    /// Adds the newest copy once more, for a later time.
    pub(crate) fn repeat(&mut self, at: Minute, keep: impl FnOnce(&[Minute]) -> Vec<bool>) {
        if let Some((_, copy)) = self.newest() {
            self.add(at, copy, keep);
        }
    }

    /// Drops the copies after a time; the first one stays.
    pub(crate) fn drop_after(&mut self, at: Minute) {
        let count = self.marks.partition_point(|mark| mark.at <= at).max(1);
        if count < self.marks.len() {
            let keep: Vec<bool> = (0..self.marks.len()).map(|place| place < count).collect();
            self.retain(self.all(), &keep);
        }
    }

    fn retain(&mut self, all: Vec<u8>, keep: &[bool]) {
        let (mut marks, mut kept) = (Vec::with_capacity(self.marks.len()), Vec::with_capacity(all.len()));
        for (place, mark) in self.marks.iter().enumerate() {
            if keep.get(place).copied().unwrap_or(true) {
                kept.extend(&all[self.start_of(place)..mark.end as usize]);
                marks.push(Mark { at: mark.at, end: u32::try_from(kept.len()).unwrap_or(u32::MAX) });
            } else {
                self.shared.remove(&mark.at);
            }
        }
        self.marks = marks.into_boxed_slice();
        self.bytes = compress(&kept).into_boxed_slice();
    }

    fn start_of(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.marks[before].end as usize)
    }

    /// Returns the bytes of all copies.
    fn all(&self) -> Vec<u8> {
        let length = self.marks.last().map_or(0, |mark| mark.end as usize);
        if length == 0 {
            return Vec::new();
        }
        match decompress(&self.bytes, length) {
            Ok(all) => all,
            Err(_) => unreachable!("the bytes are those that were compressed"),
        }
    }

    /// Returns the bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.marks) + self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn copy(bytes: &[u8], value: Option<u64>) -> Packed {
        let shared = value.map(|value| -> Shared { Arc::new(value) });
        Packed { bytes: bytes.into(), shared: shared.into_iter().collect() }
    }

    proptest! {
        #[test]
        fn copies_are_those_of_a_plain_list(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..60), any::<u8>(), any::<bool>()), 1..30),
        ) {
            let (mut checkpoints, mut plain) = (Checkpoints::default(), Vec::<(Minute, Vec<u8>, Option<u64>)>::new());
            for (at, (bytes, number, flag)) in (0_i64..).step_by(10).zip(steps) {
                let value = flag.then_some(u64::from(number));
                match number % 4 {
                    0 if plain.len() > 1 => {
                        let until = plain[plain.len() / 2].0 + i64::from(flag);
                        checkpoints.drop_after(until);
                        plain.retain(|(at, ..)| *at <= until);
                    }
                    1 if !plain.is_empty() => {
                        checkpoints.repeat(at, |times| vec![true; times.len()]);
                        let (_, bytes, value) = plain[plain.len() - 1].clone();
                        plain.push((at, bytes, value));
                    }
                    _ => {
                        let drops = usize::from(number) % (plain.len() + 1);
                        checkpoints.add(at, copy(&bytes, value), |times| {
                            (0..times.len()).map(|place| place != drops || place + 1 == times.len()).collect()
                        });
                        if drops < plain.len() {
                            plain.remove(drops);
                        }
                        plain.push((at, bytes, value));
                    }
                }
                let newest = checkpoints.newest().map(|(at, copy)| {
                    let value = copy.shared.first().and_then(|value| value.downcast_ref::<u64>().copied());
                    (at, copy.bytes.to_vec(), value)
                });
                prop_assert_eq!(newest.as_ref(), plain.last());
                prop_assert_eq!(checkpoints.times().collect::<Vec<_>>(), plain.iter().map(|it| it.0).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn equal_copies_take_the_bytes_of_one() {
        let bytes: Vec<u8> = (0..400_u32).map(|place| (place * place % 251) as u8).collect();
        let mut checkpoints = Checkpoints::default();
        for at in 0..8 {
            checkpoints.add(at, copy(&bytes, None), |times| vec![true; times.len()]);
        }
        let marks = 8 * size_of::<Mark>();
        assert!(checkpoints.bytes() < marks + bytes.len() + 50, "{}", checkpoints.bytes());
    }
}
