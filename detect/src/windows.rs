//! The windows of a family for the last hours, packed: corrections and new releases need them again.
//!
//! A window is one small list of cells, and most of its numbers are small or equal to those of its neighbours. Windows
//! are therefore kept in chunks of columns (see [`crate::columns`]). A new window is a chunk of its own; full runs of
//! small chunks are joined, eight at a time, up to [`JOINED`] windows. What comes out is exactly what went in.

use std::collections::BTreeSet;
use std::sync::Arc;

use bellwether_stats::varint::put_varint;

use crate::columns::{Reader, put_column};
use crate::observation::{Groups, Measure, Minute, RatioTotals};
use crate::weights::{WeightSums, Weights};

/// Chunks that are joined at a time.
const FAN: usize = 8;

/// Windows of the largest chunks.
const JOINED: usize = FAN * FAN;

/// Release, whether it is a canary, and stratum.
pub(crate) type Key = (Arc<str>, bool, Arc<str>);

/// A cell: the number of its key, and its counts.
type NumberedCell = (usize, Measure);

/// One window, unpacked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OpenWindow {
    pub(crate) start: Minute,
    /// In the order of the keys.
    cells: Vec<NumberedCell>,
}

/// Some windows in a row.
#[derive(Clone, Debug)]
struct Chunk {
    first: Minute,
    /// Minutes from the first window to the last.
    span: u32,
    count: u32,
    bytes: Box<[u8]>,
}

/// Windows in order, by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows {
    /// Keys by number; none is a number that can be given again.
    keys: Vec<Option<Key>>,
    /// The numbers in the order of their keys.
    order: Vec<u32>,
    chunks: Vec<Chunk>,
}

// === impl Chunk ===

impl Chunk {
    fn of(windows: &[OpenWindow]) -> Option<Self> {
        let (first, last) = (windows.first()?.start, windows.last()?.start);
        let (span, count) = (u32::try_from(last - first).ok()?, u32::try_from(windows.len()).ok()?);
        Some(Self { first, span, count, bytes: encode(windows).into_boxed_slice() })
    }

    fn last(&self) -> Minute {
        self.first + Minute::from(self.span)
    }

    fn count(&self) -> usize {
        self.count as usize
    }

    fn windows(&self) -> Vec<OpenWindow> {
        decode(&self.bytes)
    }
}

// === impl Windows ===

impl Windows {
    /// Adds counts to cells of windows, in the order given.
    pub(crate) fn add(&mut self, cells: Vec<(Minute, Key, Measure)>) {
        let mut cells: Vec<(Minute, usize, Measure)> =
            cells.into_iter().map(|(start, key, measure)| (start, self.number(key), measure)).collect();
        let keys = &self.keys;
        cells.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| keys[a.1].cmp(&keys[b.1])));
        let mut cells = cells.into_iter().peekable();
        while let Some(start) = cells.peek().map(|cell| cell.0) {
            let place = self.chunks.partition_point(|chunk| chunk.last() < start);
            let inside = self.chunks.get(place).filter(|chunk| chunk.first <= start);
            let (last, mut windows) = inside.map_or((start, Vec::new()), |chunk| (chunk.last(), chunk.windows()));
            let exists = inside.is_some();
            while let Some((start, number, measure)) = cells.next_if(|cell| cell.0 <= last) {
                add_cell(&mut windows, keys, start, (number, measure));
            }
            let Some(chunk) = Chunk::of(&windows) else { continue };
            if exists {
                self.chunks[place] = chunk;
            } else {
                self.chunks.insert(place, chunk);
            }
        }
    }

    fn number(&mut self, key: Key) -> usize {
        let keys = &self.keys;
        let place = self.order.binary_search_by(|number| keys[*number as usize].as_ref().cmp(&Some(&key)));
        let place = match place {
            Ok(place) => return self.order[place] as usize,
            Err(place) => place,
        };
        let number = match self.keys.iter().position(Option::is_none) {
            Some(free) if self.order.len() < self.keys.len() => free,
            _ => {
                self.keys.reserve_exact(1);
                self.keys.push(None);
                self.keys.len() - 1
            }
        };
        self.keys[number] = Some(key);
        self.order.reserve_exact(1);
        self.order.insert(place, u32::try_from(number).unwrap_or(u32::MAX));
        number
    }

    /// Returns the windows [from, to).
    pub(crate) fn range(&self, from: Minute, to: Minute) -> Vec<OpenWindow> {
        let chunks = self.chunks.iter().filter(|chunk| chunk.last() >= from && chunk.first < to);
        let windows = chunks.flat_map(Chunk::windows);
        windows.filter(|window| (from..to).contains(&window.start)).collect()
    }

    /// Returns the start of the first window in [from, to).
    pub(crate) fn first_in(&self, from: Minute, to: Minute) -> Option<Minute> {
        let chunk = self.chunks.iter().find(|chunk| chunk.last() >= from)?;
        let first = if chunk.first >= from {
            chunk.first
        } else {
            chunk.windows().into_iter().find(|window| window.start >= from)?.start
        };
        (first < to).then_some(first)
    }

    /// Returns the cells of a window by key, in the order of the keys.
    pub(crate) fn cells<'a>(&'a self, window: &'a OpenWindow) -> impl Iterator<Item = (&'a Key, &'a Measure)> {
        window.cells.iter().filter_map(|(number, measure)| Some((self.keys.get(*number)?.as_ref()?, measure)))
    }

    /// Returns the keys of each window in turn.
    pub(crate) fn keys_by_window(&self) -> impl Iterator<Item = Vec<&Key>> {
        let windows = self.chunks.iter().flat_map(Chunk::windows);
        windows.map(|window| window.cells.iter().filter_map(|(number, _)| self.keys.get(*number)?.as_ref()).collect())
    }

    /// Drops the windows before `from`.
    pub(crate) fn drop_before(&mut self, from: Minute) {
        let gone = self.chunks.partition_point(|chunk| chunk.last() < from);
        if gone > 0 {
            self.chunks.drain(..gone);
        }
        if let Some(first) = self.chunks.first_mut().filter(|chunk| chunk.first < from) {
            let left: Vec<OpenWindow> = first.windows().into_iter().filter(|window| window.start >= from).collect();
            if let Some(chunk) = Chunk::of(&left) {
                *first = chunk;
            }
        }
    }

    /// Joins small chunks of windows before `to`, which are unlikely to change.
    pub(crate) fn join(&mut self, to: Minute) {
        if self.chunks.iter().filter(|chunk| chunk.count() < FAN && chunk.last() < to).count() < FAN {
            return;
        }
        for target in [FAN, JOINED] {
            let mut joined: Vec<Chunk> = Vec::with_capacity(self.chunks.len());
            let mut run: Vec<Chunk> = Vec::new();
            for chunk in std::mem::take(&mut self.chunks) {
                if chunk.count() >= target || chunk.last() >= to {
                    joined.append(&mut run);
                    joined.push(chunk);
                    continue;
                }
                run.push(chunk);
                if run.iter().map(Chunk::count).sum::<usize>() >= target {
                    let windows: Vec<OpenWindow> = run.iter().flat_map(Chunk::windows).collect();
                    match Chunk::of(&windows) {
                        Some(chunk) => joined.push(chunk),
                        None => joined.append(&mut run),
                    }
                    run.clear();
                }
            }
            joined.append(&mut run);
            self.chunks = joined;
        }
        self.chunks.shrink_to_fit();
    }

    /// Gives the numbers of keys that no window has any more to others.
    pub(crate) fn forget_keys(&mut self) {
        let used: BTreeSet<usize> =
            self.chunks.iter().flat_map(Chunk::windows).flat_map(|window| window.cells).map(|cell| cell.0).collect();
        for (number, key) in self.keys.iter_mut().enumerate().filter(|(number, _)| !used.contains(number)) {
            *key = None;
            self.order.retain(|own| *own as usize != number);
        }
    }

    /// Returns the bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.keys)
            + size_of_val(&*self.order)
            + self.chunks.iter().map(|chunk| size_of::<Chunk>() + chunk.bytes.len()).sum::<usize>()
    }
}

/// Adds a cell to its window.
fn add_cell(windows: &mut Vec<OpenWindow>, keys: &[Option<Key>], start: Minute, (number, measure): NumberedCell) {
    let place = windows.partition_point(|window| window.start < start);
    if windows.get(place).is_none_or(|window| window.start != start) {
        windows.insert(place, OpenWindow { start, cells: Vec::new() });
    }
    let cells = &mut windows[place].cells;
    match cells.binary_search_by(|(own, _)| keys[*own].cmp(&keys[number])) {
        Ok(cell) => cells[cell].1.add(&measure),
        Err(cell) => {
            let mut sum = Measure::default();
            sum.add(&measure);
            cells.insert(cell, (number, sum));
        }
    }
}

/// The optional parts of a measure that are there, as bits of a column. Weights that are all the same are one number.
const GROUPS: i128 = 1;
const RATIO: i128 = 2;
const WEIGHTS: i128 = 4;
const WEIGHTED_GROUPS: i128 = 8;
const WEIGHTED_RATIO: i128 = 16;
const ONE_WEIGHT: i128 = 32;

fn parts_of(measure: &Measure) -> i128 {
    let there = |part: i128, is: bool| if is { part } else { 0 };
    let one_weight = one_weight(measure).is_some();
    let weights = measure.weights.as_deref().filter(|_| !one_weight);
    there(ONE_WEIGHT, one_weight)
        | there(GROUPS, measure.groups.is_some())
        | there(RATIO, measure.ratio.is_some())
        | there(WEIGHTS, weights.is_some())
        | there(WEIGHTED_GROUPS, weights.is_some_and(|weights| weights.groups.is_some()))
        | there(WEIGHTED_RATIO, weights.is_some_and(|weights| weights.ratio.is_some()))
}

/// Returns the weight of the runs, millionths, if all of them have the same.
fn one_weight(measure: &Measure) -> Option<i64> {
    let weights = measure.weights.as_deref().filter(|weights| weights.max_weight > 0)?;
    (Weights::uniform(measure, weights.max_weight) == *weights).then_some(weights.max_weight)
}

fn wide(values: &[i64]) -> Vec<i128> {
    values.iter().copied().map(i128::from).collect()
}

fn narrow(values: Vec<i128>) -> Vec<i64> {
    values.into_iter().map(|value| value as i64).collect()
}

fn ratio_columns(ratio: &RatioTotals) -> [i128; 5] {
    let RatioTotals { y, x, yy, xx, xy } = *ratio;
    [y, x, yy, xx, xy]
}

/// Appends one column for each place of the rows.
fn put_rows<const N: usize>(to: &mut Vec<u8>, rows: &[[i128; N]]) {
    for place in 0..N {
        put_column(to, &rows.iter().map(|row| row[place]).collect::<Vec<_>>());
    }
}

/// Appends lists: columns of the lengths, of the numbers of zeros at the beginning and of values up to the last that is
/// not 0; one bit for each of these values; and those that are not 0.
fn put_lists(to: &mut Vec<u8>, lists: &[Vec<i128>]) {
    let zeros = |list: &Vec<i128>| list.iter().take_while(|value| **value == 0).count();
    let some = |list: &Vec<i128>| list.iter().rposition(|value| *value != 0).map_or(0, |last| last + 1 - zeros(list));
    put_column(to, &lists.iter().map(|list| list.len() as i128).collect::<Vec<_>>());
    put_column(to, &lists.iter().map(|list| zeros(list) as i128).collect::<Vec<_>>());
    put_column(to, &lists.iter().map(|list| some(list) as i128).collect::<Vec<_>>());
    let values = || lists.iter().flat_map(|list| list.iter().skip(zeros(list)).take(some(list))).copied();
    put_column(to, &values().map(|value| i128::from(value != 0)).collect::<Vec<_>>());
    put_column(to, &values().filter(|value| *value != 0).collect::<Vec<_>>());
}

fn encode(windows: &[OpenWindow]) -> Vec<u8> {
    let mut to = Vec::new();
    put_varint(&mut to, windows.len() as u128);
    put_column(&mut to, &windows.iter().map(|window| i128::from(window.start)).collect::<Vec<_>>());
    put_column(&mut to, &windows.iter().map(|window| window.cells.len() as i128).collect::<Vec<_>>());
    let cells: Vec<&NumberedCell> = windows.iter().flat_map(|window| &window.cells).collect();
    put_column(&mut to, &cells.iter().map(|cell| cell.0 as i128).collect::<Vec<_>>());
    put_column(&mut to, &cells.iter().map(|cell| parts_of(&cell.1)).collect::<Vec<_>>());
    let measures = || cells.iter().map(|cell| &cell.1);
    put_rows(&mut to, &measures().map(|it| [it.events, it.runs, it.share_micros].map(i128::from)).collect::<Vec<_>>());
    put_lists(&mut to, &measures().map(|it| wide(&it.bins)).collect::<Vec<_>>());
    let groups: Vec<&Groups> = measures().filter_map(|it| it.groups.as_deref()).collect();
    if !groups.is_empty() {
        put_lists(&mut to, &groups.iter().map(|it| wide(&it.events)).collect::<Vec<_>>());
        put_lists(&mut to, &groups.iter().map(|it| wide(&it.runs)).collect::<Vec<_>>());
    }
    put_rows(&mut to, &measures().filter_map(|it| it.ratio.as_deref()).map(ratio_columns).collect::<Vec<_>>());
    put_column(&mut to, &measures().filter_map(one_weight).map(i128::from).collect::<Vec<_>>());
    let uneven = measures().filter(|it| one_weight(it).is_none());
    let weights: Vec<&Weights> = uneven.filter_map(|it| it.weights.as_deref()).collect();
    if !weights.is_empty() {
        encode_weights(&mut to, &weights);
    }
    to
}

fn encode_weights(to: &mut Vec<u8>, weights: &[&Weights]) {
    let sums = |it: &&Weights| {
        let WeightSums { events, runs, events_squares, runs_squares } = it.sums;
        [events, runs, events_squares, runs_squares, i128::from(it.max_weight)]
    };
    put_rows(to, &weights.iter().map(sums).collect::<Vec<_>>());
    put_lists(to, &weights.iter().map(|it| it.bins.clone()).collect::<Vec<_>>());
    let groups: Vec<&(Vec<i128>, Vec<i128>)> = weights.iter().filter_map(|it| it.groups.as_deref()).collect();
    if !groups.is_empty() {
        put_lists(to, &groups.iter().map(|it| it.0.clone()).collect::<Vec<_>>());
        put_lists(to, &groups.iter().map(|it| it.1.clone()).collect::<Vec<_>>());
    }
    put_rows(to, &weights.iter().filter_map(|it| it.ratio.as_deref()).map(ratio_columns).collect::<Vec<_>>());
}

/// Columns of numbers, read row by row.
struct Rows<const N: usize>([std::vec::IntoIter<i128>; N]);

impl<const N: usize> Rows<N> {
    fn read(from: &mut Reader<'_>, count: usize) -> Self {
        Self(std::array::from_fn(|_| from.column(count).into_iter()))
    }

    fn next(&mut self) -> [i128; N] {
        self.0.each_mut().map(|column| column.next().unwrap_or(0))
    }
}

/// Lists, read one after another.
struct Lists {
    /// Length, zeros at the beginning, and values up to the last that is not 0.
    sizes: Rows<3>,
    values: std::vec::IntoIter<i128>,
}

impl Lists {
    fn read(from: &mut Reader<'_>, count: usize) -> Self {
        let sizes = Rows::<3>::read(from, count);
        let values = sizes.0[2].as_slice().iter().sum::<i128>();
        let there = from.column(usize::try_from(values).unwrap_or(0));
        let mut some = from.column(there.iter().filter(|there| **there != 0).count()).into_iter();
        let values: Vec<i128> =
            there.into_iter().map(|there| if there == 0 { 0 } else { some.next().unwrap_or(0) }).collect();
        Self { sizes, values: values.into_iter() }
    }

    fn next(&mut self) -> Vec<i128> {
        let [length, zeros, some] = self.sizes.next().map(|size| usize::try_from(size).unwrap_or(0));
        let mut list = Vec::with_capacity(length);
        list.resize(zeros, 0);
        list.extend(self.values.by_ref().take(some));
        list.resize(length, 0);
        list
    }
}

fn ratio_of([y, x, yy, xx, xy]: [i128; 5]) -> Box<RatioTotals> {
    Box::new(RatioTotals { y, x, yy, xx, xy })
}

fn decode(bytes: &[u8]) -> Vec<OpenWindow> {
    let mut from = Reader(bytes);
    let count = from.length();
    let (starts, counts) = (from.column(count), from.column(count));
    let cells = usize::try_from(counts.iter().sum::<i128>()).unwrap_or(0);
    let (numbers, parts) = (from.column(cells), from.column(cells));
    let having = |part: i128| parts.iter().filter(|parts| *parts & part != 0).count();
    let mut plain = Rows::<3>::read(&mut from, cells);
    let mut bins = Lists::read(&mut from, cells);
    let mut groups = match having(GROUPS) {
        0 => None,
        count => Some([Lists::read(&mut from, count), Lists::read(&mut from, count)]),
    };
    let mut ratio = Rows::<5>::read(&mut from, having(RATIO));
    let mut one_weights = from.column(having(ONE_WEIGHT)).into_iter();
    let mut weights = (having(WEIGHTS) > 0).then(|| WeightColumns {
        sums: Rows::read(&mut from, having(WEIGHTS)),
        bins: Lists::read(&mut from, having(WEIGHTS)),
        groups: match having(WEIGHTED_GROUPS) {
            0 => None,
            count => Some([Lists::read(&mut from, count), Lists::read(&mut from, count)]),
        },
        ratio: Rows::read(&mut from, having(WEIGHTED_RATIO)),
    });
    let mut measures = numbers.into_iter().zip(&parts).map(|(number, parts)| {
        let [events, runs, share_micros] = plain.next().map(|value| value as i64);
        let mut measure = Measure {
            events,
            runs,
            share_micros,
            bins: narrow(bins.next()),
            groups: groups
                .as_mut()
                .filter(|_| parts & GROUPS != 0)
                .map(|[events, runs]| Box::new(Groups { events: narrow(events.next()), runs: narrow(runs.next()) })),
            ratio: (parts & RATIO != 0).then(|| ratio_of(ratio.next())),
            weights: weights.as_mut().filter(|_| parts & WEIGHTS != 0).map(|weights| weights.next(*parts)),
        };
        if parts & ONE_WEIGHT != 0 {
            let weight = one_weights.next().unwrap_or(0) as i64;
            measure.weights = Some(Box::new(Weights::uniform(&measure, weight)));
        }
        (usize::try_from(number).unwrap_or(usize::MAX), measure)
    });
    let windows = starts.into_iter().zip(counts).map(|(start, count)| OpenWindow {
        start: start as Minute,
        cells: measures.by_ref().take(usize::try_from(count).unwrap_or(0)).collect(),
    });
    windows.collect()
}

struct WeightColumns {
    sums: Rows<5>,
    bins: Lists,
    groups: Option<[Lists; 2]>,
    ratio: Rows<5>,
}

impl WeightColumns {
    fn next(&mut self, parts: i128) -> Box<Weights> {
        let [events, runs, events_squares, runs_squares, max_weight] = self.sums.next();
        Box::new(Weights {
            sums: WeightSums { events, runs, events_squares, runs_squares },
            max_weight: max_weight as i64,
            bins: self.bins.next(),
            groups: self
                .groups
                .as_mut()
                .filter(|_| parts & WEIGHTED_GROUPS != 0)
                .map(|[y, x]| Box::new((y.next(), x.next()))),
            ratio: (parts & WEIGHTED_RATIO != 0).then(|| ratio_of(self.ratio.next())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: usize) -> Key {
        (Arc::from(["v1", "v2", "v3"][number % 3]), number % 2 == 1, Arc::from(["", "a"][number / 3 % 2]))
    }

    fn measure(kind: usize, size: i64) -> Measure {
        let counts = Measure::from_counts(size / 7, size);
        let lists = |size: i64| vec![0, 0, size, 3, -size];
        match kind % 6 {
            0 => counts,
            1 => Measure { groups: Some(Box::new(Groups { events: lists(1), runs: lists(size) })), ..counts },
            2 => Measure::from_histogram(lists(size)),
            3 => {
                let ratio = RatioTotals { y: i128::from(size) << 70, x: 3, yy: i128::MAX, xx: -1, xy: i128::MIN };
                Measure { ratio: Some(Box::new(ratio)), share_micros: size, ..counts }
            }
            4 => counts.with_weight(1_000_000 * (1 + size.abs())),
            _ => {
                let groups = Some(Box::new(Groups { events: lists(2), runs: lists(9) }));
                let ratio = Some(Box::new(RatioTotals { y: 5, x: 3, ..RatioTotals::default() }));
                Measure { groups, ratio, bins: lists(1), ..counts }.with_weight(2_500_000)
            }
        }
    }

    proptest! {
        #[test]
        fn windows_are_those_of_a_plain_map(
            cells in prop::collection::vec((0_i64..400, 0_usize..9, 0_usize..6, -50_i64..2000), 0..120),
            parts in 1_usize..9, joins in any::<bool>(), dropped in 0_i64..400, from in 0_i64..400,
        ) {
            let (mut windows, mut plain) = (Windows::default(), BTreeMap::<Minute, BTreeMap<Key, Measure>>::new());
            for part in cells.chunks(cells.len() / parts + 1) {
                let part: Vec<_> =
                    part.iter().map(|(start, number, kind, size)| (*start, key(*number), measure(*kind, *size))).collect();
                for (start, key, measure) in &part {
                    plain.entry(*start).or_default().entry(key.clone()).or_default().add(measure);
                }
                windows.add(part);
                if joins {
                    windows.join(300);
                }
            }
            let plain = plain.split_off(&dropped);
            windows.drop_before(dropped);
            windows.forget_keys();
            let found: BTreeMap<Minute, BTreeMap<Key, Measure>> = windows
                .range(from, 380)
                .iter()
                .map(|window| {
                    (window.start, windows.cells(window).map(|(key, measure)| (key.clone(), measure.clone())).collect())
                })
                .collect();
            let wanted: BTreeMap<_, _> =
                plain.iter().filter(|(start, _)| (from..380).contains(*start)).map(|(a, b)| (*a, b.clone())).collect();
            prop_assert_eq!(&found, &wanted);
            prop_assert_eq!(windows.first_in(from, 380), wanted.keys().next().copied());
        }
    }

    #[test]
    fn an_hour_of_a_release_takes_a_few_bytes_a_window() {
        let mut windows = Windows::default();
        for minute in 0..360 {
            let cells = [(false, 10 + minute % 3), (true, 4)].map(|(canary, runs)| {
                let release = if canary { "v2" } else { "v1" };
                (
                    29_459_520 + minute,
                    (Arc::from(release), canary, Arc::from("")),
                    Measure::from_counts(minute % 2, runs),
                )
            });
            windows.add(cells.to_vec());
            windows.join(29_459_520 + minute);
        }
        assert!(windows.bytes() < 720 * 3, "{}", windows.bytes());
        assert_eq!(windows.range(i64::MIN, i64::MAX).len(), 360);
    }
}
