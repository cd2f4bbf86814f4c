//! A quantile sketch with a relative error of at most 1 % at every quantile, before and after any merging.
//!
//! DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees",
//! VLDB 2019): a value falls into the bucket of its logarithm to the base γ = (1 + α) / (1 − α). The bucket bounds are
//! integers that are computed once, so values are placed by integer comparison and every machine puts a value into the
//! same bucket. Counts are signed, so that one sketch can be subtracted from another, and remain exact for weighted
//! values ([`crate::weight`]), so that a quantile depends only on the values and their weights. A sketch has exactly
//! one encoding: sketches are equal if and only if their bytes are.
//!
//! Kept by hand: t-digest and KLL depend on the order of merging and cannot subtract a value (docs/decisions/0004).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use crate::weight::{ONE, weighted, whole};

/// Largest relative error of a quantile.
pub const RELATIVE_ERROR: f64 = 0.01;

const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);

/// First byte of an encoded sketch. It names the mapping (α = 0.01, integer bounds) and the unit of the counts: whole
/// values, as in every table, or millionths if weights leave a fraction or the counts exceed 64 bits.
const WHOLE: u8 = 1;
const MILLIONTHS: u8 = 2;

/// Resolution of `q`: nine decimals, so that 0.07 means exactly seven in a hundred.
const SHARES: u64 = 1_000_000_000;

/// Upper bound of each bucket; bucket 0 holds zeros.
static BOUNDS: LazyLock<Vec<u64>> = LazyLock::new(bounds);

/// First bucket that holds a value with the given number of significant bits: the start of the search.
static FIRST_OF_BITS: LazyLock<[u16; 65]> = LazyLock::new(|| {
    let mut first = [0; 65];
    for (bits, first) in first.iter_mut().enumerate().skip(1) {
        let least = 1_u64 << (bits - 1);
        *first = u16::try_from(BOUNDS.partition_point(|bound| *bound < least)).unwrap_or(u16::MAX);
    }
    first
});

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn bounds() -> Vec<u64> {
    let mut bounds = vec![0_u64];
    let mut power = 1.0_f64;
    while *bounds.last().unwrap_or(&0) < u64::MAX {
        let last = *bounds.last().unwrap_or(&0);
        // Below about 50, consecutive powers are less than 1 apart: each integer there has its own bucket.
        if power.floor() as u64 > last {
            bounds.push(power.floor() as u64);
        }
        power *= GAMMA;
    }
    bounds
}

/// Returns the bucket of a value.
pub fn bucket_of(value: u64) -> u16 {
    if value == 0 {
        return 0;
    }
    let bits = 64 - value.leading_zeros() as usize;
    let mut bucket = FIRST_OF_BITS[bits];
    // A doubling spans 35 buckets: use binary search within them.
    let end = FIRST_OF_BITS.get(bits + 1).copied().unwrap_or(u16::try_from(BOUNDS.len() - 1).unwrap_or(u16::MAX));
    let inside = &BOUNDS[usize::from(bucket)..=usize::from(end)];
    bucket += u16::try_from(inside.partition_point(|bound| *bound < value)).unwrap_or(0);
    bucket
}

/// Returns the value that represents a bucket: the harmonic mean of its bounds.
#[expect(clippy::cast_precision_loss, reason = "the error of a double is far below that of a bucket")]
pub(crate) fn value_of(bucket: u16) -> f64 {
    let bucket = usize::from(bucket);
    let high = BOUNDS[bucket] as f64;
    let low = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] as f64 + 1.0 };
    if low >= high { high } else { 2.0 * low * high / (low + high) }
}

/// Counts by bucket, in millionths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    counts: BTreeMap<u16, i128>,
}

/// Bytes that are not a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchError(&'static str);

impl fmt::Display for SketchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes are not a sketch: {}", self.0)
    }
}

impl std::error::Error for SketchError {}

// === impl Sketch ===

impl Sketch {
    /// Creates an empty sketch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value `count` times; a negative count removes it.
    pub fn add(&mut self, value: u64, count: i64) {
        self.add_bucket(bucket_of(value), count);
    }

    /// Adds whole values to a bucket.
    pub fn add_bucket(&mut self, bucket: u16, count: i64) {
        self.add_micros(bucket, i128::from(count) * ONE);
    }

    /// Adds millionths to a bucket.
    pub fn add_micros(&mut self, bucket: u16, micros: i128) {
        if micros == 0 {
            return;
        }
        let total = self.counts.entry(bucket).or_insert(0);
        *total = total.saturating_add(micros);
        if *total == 0 {
            self.counts.remove(&bucket);
        }
    }

    /// Adds another sketch.
    pub fn merge(&mut self, other: &Self) {
        self.merge_weighted(other, 1_000_000);
    }

    /// Adds another sketch, with each value counted as `weight_micros` millionths.
    pub fn merge_weighted(&mut self, other: &Self, weight_micros: i64) {
        for (bucket, micros) in &other.counts {
            self.add_micros(*bucket, weighted(*micros, weight_micros));
        }
    }

    /// Returns the sketch that cancels this one when merged.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { counts: self.counts.iter().map(|(bucket, micros)| (*bucket, micros.saturating_neg())).collect() }
    }

    /// Iterates over the non-empty buckets in order, with their counts in millionths.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, i128)> + Clone {
        self.counts.iter().map(|(bucket, micros)| (*bucket, *micros))
    }

    /// Returns true if every bucket is empty.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Returns the number of values, rounded if they are weighted.
    pub fn count(&self) -> i64 {
        whole(self.counts.values().fold(0_i128, |all, micros| all.saturating_add(*micros)))
    }

    /// Returns the smallest value at or below which a fraction `q` of all values lies, within 1 %; for unweighted
    /// values, that is the value of rank ⌈q·n⌉, counted from 1. Buckets with a negative count are ignored. None if the
    /// sketch is empty or `q`, which is rounded to nine decimals, is not between 0 and 1.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is from 0 to 1")]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&q) {
            return None;
        }
        let share = (q * SHARES as f64).round() as u64;
        let filled =
            || self.counts.iter().filter_map(|(bucket, micros)| Some((*bucket, u128::try_from(*micros).ok()?)));
        let total = filled().fold(0_u128, |all, (_, micros)| all.saturating_add(micros));
        let rank = product(total, share);
        let mut below = 0_u128;
        let reached = filled().find(|(_, micros)| {
            below = below.saturating_add(*micros);
            product(below, SHARES) >= rank
        });
        reached.map(|(bucket, _)| value_of(bucket))
    }

    /// Returns the number of values at or below each bound, in millionths. A bucket counts for a bound that lies in it, so that
    /// values up to 2 % above the bound may count too. Buckets with a negative count are ignored, as for quantiles.
    pub fn counts_up_to(&self, bounds: &[u64]) -> Vec<i128> {
        let up_to = |bound: &u64| {
            let filled = self.counts.range(..=bucket_of(*bound)).map(|(_, micros)| (*micros).max(0));
            filled.fold(0_i128, i128::saturating_add)
        };
        bounds.iter().map(up_to).collect()
    }

    /// Returns the fraction of values in buckets that lie wholly above a threshold.
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits than a double has")]
    pub fn fraction_above(&self, threshold: u64) -> Option<f64> {
        let sum = |all: i128, micros: &i128| all.saturating_add(*micros);
        let total = self.counts.values().fold(0, sum);
        let above = self.counts.range(bucket_of(threshold).saturating_add(1)..).map(|(_, micros)| micros).fold(0, sum);
        (total > 0).then(|| above as f64 / total as f64)
    }

    /// Returns the encoding of this sketch.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_micros(self.buckets(), &mut bytes);
        bytes
    }

    /// Decodes a sketch.
    ///
    /// # Errors
    /// Fails if the bytes are not the encoding of a sketch.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut sketch = Self::new();
        sketch.merge_encoded(bytes)?;
        Ok(sketch)
    }

    /// Adds an encoded sketch. Empty bytes add nothing.
    ///
    /// # Errors
    /// Fails if the bytes are not the encoding of a sketch; the buckets before the error have then been added.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), SketchError> {
        for_each_encoded(bytes, |bucket, micros| self.add_micros(bucket, micros))
    }
}

/// The count of a bucket in an encoded sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// In whole values, as in every table.
    Whole(i64),
    /// In millionths of a value.
    Micros(i128),
}

impl Amount {
    /// Returns the count in millionths.
    pub fn micros(self) -> i128 {
        match self {
            Self::Whole(count) => i128::from(count) * ONE,
            Self::Micros(micros) => micros,
        }
    }
}

/// Appends the encoding of a sketch whose counts are whole, given by bucket in order. Counts of zero are left out.
pub fn encode_whole(counts: impl IntoIterator<Item = (u16, i64)>, bytes: &mut Vec<u8>) {
    bytes.push(WHOLE);
    let mut last = 0;
    for (bucket, count) in counts {
        if count != 0 {
            put64(bytes, u64::from(bucket - last));
            put64(bytes, ((count << 1) ^ (count >> 63)).cast_unsigned());
            last = bucket;
        }
    }
}

/// Appends the encoding of a sketch whose counts are in millionths, given by bucket in order. Counts of zero are left out.
pub fn encode_micros(counts: impl Iterator<Item = (u16, i128)> + Clone, bytes: &mut Vec<u8>) {
    let whole_count = |micros: i128| (micros % ONE == 0).then(|| i64::try_from(micros / ONE).ok()).flatten();
    if counts.clone().all(|(_, micros)| whole_count(micros).is_some()) {
        return encode_whole(counts.filter_map(|(bucket, micros)| Some((bucket, whole_count(micros)?))), bytes);
    }
    bytes.push(MILLIONTHS);
    let mut last = 0;
    for (bucket, micros) in counts.filter(|(_, micros)| *micros != 0) {
        put64(bytes, u64::from(bucket - last));
        put(bytes, ((micros << 1) ^ (micros >> 127)).cast_unsigned());
        last = bucket;
    }
}

/// Calls `visit` with each bucket of an encoded sketch, in order, and its count in millionths.
///
/// # Errors
/// Fails if the bytes are not the encoding of a sketch; the buckets before the error have then been visited.
pub fn for_each_encoded(bytes: &[u8], mut visit: impl FnMut(u16, i128)) -> Result<(), SketchError> {
    for_each_amount(bytes, |bucket, amount| visit(bucket, amount.micros()))
}

/// Calls `visit` with each bucket of an encoded sketch, in order, and its count in the unit of the encoding.
///
/// # Errors
/// As [`for_each_encoded`].
pub fn for_each_amount(bytes: &[u8], mut visit: impl FnMut(u16, Amount)) -> Result<(), SketchError> {
    let Some((format, mut rest)) = bytes.split_first() else { return Ok(()) };
    if *format != WHOLE && *format != MILLIONTHS {
        return Err(SketchError("unknown format"));
    }
    let mut bucket = 0_u64;
    let mut first = true;
    while !rest.is_empty() {
        let step = take64(&mut rest)?;
        let count = if *format == WHOLE {
            let count = take64(&mut rest)?;
            Amount::Whole((count >> 1).cast_signed() ^ -(count & 1).cast_signed())
        } else {
            let count = take(&mut rest, u128::BITS)?;
            Amount::Micros((count >> 1).cast_signed() ^ -(count & 1).cast_signed())
        };
        if step == 0 && !first {
            return Err(SketchError("a bucket occurs twice"));
        }
        first = false;
        bucket = bucket.saturating_add(step);
        let place = u16::try_from(bucket).map_err(|_| SketchError("no such bucket"))?;
        if usize::from(place) >= BOUNDS.len() {
            return Err(SketchError("no such bucket"));
        }
        if matches!(count, Amount::Whole(0) | Amount::Micros(0)) {
            return Err(SketchError("an empty bucket"));
        }
        visit(place, count);
    }
    Ok(())
}

/// Multiplies to a product of more than 128 bits, returned as its high and low parts.
fn product(number: u128, factor: u64) -> (u128, u128) {
    let factor = u128::from(factor);
    let low = (number & u128::from(u64::MAX)) * factor;
    let high = (number >> 64) * factor + (low >> 64);
    (high >> 64, (high << 64) | (low & u128::from(u64::MAX)))
}

fn put64(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

/// Reads a variable-length integer of at most 64 bits. Most have one byte.
fn take64(bytes: &mut &[u8]) -> Result<u64, SketchError> {
    match bytes.split_first() {
        Some((byte, rest)) if *byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(*byte))
        }
        _ => take(bytes, u64::BITS)
            .and_then(|number| u64::try_from(number).map_err(|_| SketchError("a number is too large"))),
    }
}

/// Reads a variable-length integer of at most `bits` bits.
fn take(bytes: &mut &[u8], bits: u32) -> Result<u128, SketchError> {
    let mut number = 0_u128;
    for shift in (0..bits).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(SketchError("unexpected end"))?;
        *bytes = rest;
        let part = u128::from(byte & 0x7f);
        if bits - shift < 7 && part >> (bits - shift) > 0 {
            return Err(SketchError("a number is too large"));
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(SketchError("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> Sketch {
        let mut sketch = Sketch::new();
        values.iter().for_each(|value| sketch.add(*value, 1));
        sketch
    }

    fn values() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![0..200_u64, 0..10_000_000_u64, any::<u64>()], 0..200)
    }

    #[test]
    fn bounds_rise_and_cover_all_numbers() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((BOUNDS[0], BOUNDS[1], *BOUNDS.last().expect("bounds")), (0, 1, u64::MAX));
        assert!(BOUNDS.len() < 2300, "{}", BOUNDS.len());
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(of(&[0, 0, 1, 1000]).encode(), [1, 0, 4, 1, 2, 199, 1, 2]);
        assert_eq!(Sketch::new().encode(), [1]);
        let mut half = Sketch::new();
        half.merge_weighted(&of(&[1000]), 500_000);
        assert_eq!(half.encode(), [2, 200, 1, 192, 132, 61]);
        half.merge_weighted(&of(&[1000]), 500_000);
        assert_eq!(half.encode(), of(&[1000]).encode(), "two halves are one");
    }

    #[test]
    fn a_decimal_fraction_is_read_exactly() {
        let hundred: Vec<u64> = (1..=100).map(|n| n * 1000).collect();
        for (n, q) in [(7, 0.07), (14, 0.14), (28, 0.28), (29, 0.29), (55, 0.55), (56, 0.56), (57, 0.57), (58, 0.58)] {
            let (found, exact) = (of(&hundred).quantile(q).expect("some"), f64::from(n) * 1000.0);
            assert!((found / exact - 1.0).abs() <= RELATIVE_ERROR, "{q}: {found}");
        }
        assert_eq!(of(&[5]).quantile(f64::NAN), None);
    }

    #[test]
    fn saturated_counts_stay_saturated_and_round_trip() {
        let mut sketch = Sketch::new();
        for _ in 0..3 {
            sketch.add_micros(7, i128::MAX);
            sketch.add_micros(9, i128::MIN);
        }
        assert_eq!(sketch.count(), 0, "rounded: {}", i128::MAX.saturating_add(i128::MIN));
        assert_eq!(sketch.quantile(0.5), Some(7.0));
        assert_eq!(Sketch::decode(&sketch.encode()), Ok(sketch.clone()));
        assert_eq!(sketch.negated().quantile(0.5), Some(9.0));
        sketch.merge_weighted(&sketch.clone(), i64::MAX);
        assert_eq!(sketch.quantile(1.0), Some(7.0));
    }

    /// A value, its count, and its weight in millionths.
    type Weighted = (u64, u8, i64);

    fn weighted_values() -> impl Strategy<Value = Vec<Weighted>> {
        let weight = prop_oneof![
            Just(1_000_000_i64),
            Just(1_052_632),
            1..5_000_000_i64,
            Just(100_000_000),
            Just(1_000_000_000_000_000),
        ];
        let value = prop_oneof![0..50_u64, 0..10_000_000_u64];
        prop::collection::vec((value, 1..20_u8, weight), 1..60)
    }

    /// The quantile by its definition, from the values themselves.
    fn reference(list: &[Weighted], thousandths: u32) -> u64 {
        let mut list: Vec<(u64, u128)> = list
            .iter()
            .map(|(value, count, weight)| (*value, u128::from(*count) * u128::from(weight.unsigned_abs())))
            .collect();
        list.sort_unstable();
        let total: u128 = list.iter().map(|(_, weight)| weight).sum();
        let mut below = 0;
        for (value, weight) in &list {
            below += weight;
            if below * 1000 >= total * u128::from(thousandths) {
                return *value;
            }
        }
        unreachable!("the whole is not less than a share of it")
    }

    proptest! {
        #[test]
        fn the_quick_search_finds_the_bucket(value in prop_oneof![any::<u64>(), 0..5000_u64, (0..64_u32).prop_map(|n| 1 << n)]) {
            let slow = BOUNDS.partition_point(|bound| *bound < value);
            prop_assert_eq!(usize::from(bucket_of(value)), slow);
        }

        #[test]
        fn counts_up_to_a_bound_are_those_of_the_values_but_for_values_near_it(
            list in values(),
            mut limits in prop::collection::vec(any::<u64>(), 0..6),
        ) {
            limits.sort_unstable();
            let (sketch, counts) = (of(&list), of(&list).counts_up_to(&limits));
            prop_assert!(counts.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert_eq!(sketch.counts_up_to(&[u64::MAX]), vec![list.len() as i128 * ONE]);
            for (limit, found) in limits.iter().zip(counts) {
                let below = |most: f64| list.iter().filter(|value| (**value as f64) <= most).count() as i128 * ONE;
                prop_assert!(below(*limit as f64) <= found && found <= below(*limit as f64 * GAMMA), "{limit}");
            }
        }

        #[test]
        fn quantiles_are_within_one_per_cent(mut list in values(), q in 0.0..=1.0_f64) {
            prop_assume!(!list.is_empty());
            let found = of(&list).quantile(q).expect("some");
            list.sort_unstable();
            let rank = ((q * list.len() as f64).ceil() as usize).clamp(1, list.len());
            let exact = list[rank - 1] as f64;
            prop_assert!((found - exact).abs() <= exact * (RELATIVE_ERROR + 1e-9), "{} for {}", found, exact);
        }

        #[test]
        fn order_and_grouping_do_not_matter_and_subtraction_restores(a in values(), b in values()) {
            let (one, two) = (of(&a), of(&b));
            let mut ab = one.clone();
            ab.merge(&two);
            let mut ba = two.clone();
            ba.merge(&one);
            prop_assert_eq!(ab.encode(), ba.encode());
            prop_assert_eq!(ab.encode(), of(&[a, b].concat()).encode());
            ab.merge(&two.negated());
            prop_assert_eq!(ab.encode(), one.encode());
            prop_assert_eq!(Sketch::decode(&ba.encode()), Ok(ba));
        }

        #[test]
        fn any_cut_of_weighted_values_gives_the_quantile_of_the_values_themselves(
            list in weighted_values(),
            others in weighted_values(),
            cuts in prop::collection::vec((any::<u32>(), 0..5_usize), 120),
            thousandths in 0..=1000_u32,
        ) {
            // The retraction is grouped differently from the original.
            let there = list.iter().map(|one| (*one, 1)).chain(others.iter().map(|one| (*one, 1)));
            let mut rows: Vec<(Weighted, i64, (u32, usize))> =
                there.chain(others.iter().map(|one| (*one, -1))).zip(cuts.iter().cycle()).map(|((one, sign), cut)| (one, sign, *cut)).collect();
            rows.sort_by_key(|(_, _, (order, _))| *order);
            let mut pieces: BTreeMap<(usize, i64), Sketch> = BTreeMap::new();
            for ((value, count, weight), sign, (_, piece)) in rows {
                pieces.entry((piece, weight)).or_default().add(value, i64::from(count) * sign);
            }
            let mut all = Sketch::new();
            for ((_, weight), piece) in &pieces {
                let read = Sketch::decode(&piece.encode()).expect("a sketch");
                all.merge_weighted(&read, *weight);
            }
            let mut plain = Sketch::new();
            for (value, count, weight) in &list {
                plain.add_micros(bucket_of(*value), i128::from(*count) * i128::from(*weight));
            }
            prop_assert_eq!(all.encode(), plain.encode());
            prop_assert_eq!(Sketch::decode(&all.encode()), Ok(all.clone()));
            let exact = reference(&list, thousandths) as f64;
            let found = all.quantile(f64::from(thousandths) / 1000.0).expect("some");
            prop_assert!((found - exact).abs() <= exact * (RELATIVE_ERROR + 1e-9), "{} for {}", found, exact);
        }

        #[test]
        fn garbage_is_an_error_or_a_sketch_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for format in [WHOLE, MILLIONTHS] {
                let bytes = [&[format], bytes.as_slice()].concat();
                if let Ok(sketch) = Sketch::decode(&bytes) {
                    prop_assert_eq!(Sketch::decode(&sketch.encode()), Ok(sketch.clone()));
                    let _ = (sketch.quantile(0.5), sketch.count(), sketch.fraction_above(5), sketch.negated());
                }
            }
            drop(Sketch::decode(&bytes));
        }
    }
}
