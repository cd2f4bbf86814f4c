//! A quantile sketch with a relative error of at most 1 % at every quantile, before and after any merging.
//!
//! DDSketch (Masson, Rim, Lee: "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees",
//! VLDB 2019): a value falls into the bucket of its logarithm to the base γ = (1 + α) / (1 − α). Here the bounds of the
//! buckets are integers that are computed once, so that only integers are compared afterwards: two machines put a value
//! into the same bucket. Counts are signed, so that a sketch can be taken away from another, and a sketch has one
//! encoding, so that equal bytes and equal sketches are the same thing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

/// Largest relative error of a quantile.
pub const RELATIVE_ERROR: f64 = 0.01;

const GAMMA: f64 = (1.0 + RELATIVE_ERROR) / (1.0 - RELATIVE_ERROR);

/// First byte of an encoded sketch: names the mapping (α = 0.01, integer bounds).
const FORMAT: u8 = 1;

/// Greatest value of each bucket; bucket 0 holds zeros.
static BOUNDS: LazyLock<Vec<u64>> = LazyLock::new(bounds);

/// First bucket that holds a value with a number of significant bits: where the search for it begins.
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
        // Below about 50 the powers are closer than whole numbers: there each number has a bucket of its own.
        if power.floor() as u64 > last {
            bounds.push(power.floor() as u64);
        }
        power *= GAMMA;
    }
    bounds
}

/// The bucket of a value.
pub fn bucket_of(value: u64) -> u16 {
    if value == 0 {
        return 0;
    }
    let bits = 64 - value.leading_zeros() as usize;
    let mut bucket = FIRST_OF_BITS[bits];
    // A doubling spans 35 buckets: halve the rest instead of walking it.
    let end = FIRST_OF_BITS.get(bits + 1).copied().unwrap_or(u16::try_from(BOUNDS.len() - 1).unwrap_or(u16::MAX));
    let inside = &BOUNDS[usize::from(bucket)..=usize::from(end)];
    bucket += u16::try_from(inside.partition_point(|bound| *bound < value)).unwrap_or(0);
    bucket
}

/// The value that stands for all of a bucket: the harmonic middle of its bounds.
#[expect(clippy::cast_precision_loss, reason = "the error of a double is far below that of a bucket")]
pub(crate) fn value_of(bucket: u16) -> f64 {
    let bucket = usize::from(bucket);
    let high = BOUNDS[bucket] as f64;
    let low = if bucket == 0 { 0.0 } else { BOUNDS[bucket - 1] as f64 + 1.0 };
    if low >= high { high } else { 2.0 * low * high / (low + high) }
}

/// Counts by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    counts: BTreeMap<u16, i64>,
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
    /// An empty sketch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value `count` times; a negative count takes it away.
    pub fn add(&mut self, value: u64, count: i64) {
        self.add_bucket(bucket_of(value), count);
    }

    /// Adds to a bucket.
    pub fn add_bucket(&mut self, bucket: u16, count: i64) {
        if count == 0 {
            return;
        }
        let total = self.counts.entry(bucket).or_insert(0);
        *total = total.saturating_add(count);
        if *total == 0 {
            self.counts.remove(&bucket);
        }
    }

    /// Adds all of another sketch.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            self.add_bucket(*bucket, *count);
        }
    }

    /// The sketch that takes this one away when merged.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { counts: self.counts.iter().map(|(bucket, count)| (*bucket, -count)).collect() }
    }

    /// Buckets that count something, in order, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, i64)> {
        self.counts.iter().map(|(bucket, count)| (*bucket, *count))
    }

    /// True where no bucket counts anything.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Values counted.
    pub fn count(&self) -> i64 {
        self.counts.values().sum()
    }

    /// The value below which a share `q` of all values lies, within 1 %; the value of rank ⌈q·n⌉, from 1. None where
    /// nothing is counted or `q` is not a share.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        weighted_quantile([(self, 1.0)], q)
    }

    /// The share of values above a threshold, of those whose bucket lies wholly above it.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn fraction_above(&self, threshold: u64) -> Option<f64> {
        let total = self.count();
        let above: i64 = self.counts.range(bucket_of(threshold).saturating_add(1)..).map(|(_, count)| count).sum();
        (total > 0).then(|| above as f64 / total as f64)
    }

    /// The one encoding of this sketch.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        let mut last = 0;
        for (bucket, count) in &self.counts {
            put(&mut bytes, u64::from(bucket - last));
            put(&mut bytes, ((count << 1) ^ (count >> 63)).cast_unsigned());
            last = *bucket;
        }
        bytes
    }

    /// Reads a sketch.
    ///
    /// # Errors
    /// Where the bytes are not the encoding of one.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchError> {
        let mut sketch = Self::new();
        sketch.merge_encoded(bytes)?;
        Ok(sketch)
    }

    /// Adds all of an encoded sketch. Empty bytes add nothing.
    ///
    /// # Errors
    /// Where the bytes are not the encoding of a sketch; what came before the mistake has then been added.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), SketchError> {
        let Some((format, mut rest)) = bytes.split_first() else { return Ok(()) };
        if *format != FORMAT {
            return Err(SketchError("unknown format"));
        }
        let mut bucket = 0_u64;
        let mut first = true;
        while !rest.is_empty() {
            let step = take(&mut rest)?;
            let count = take(&mut rest)?;
            if step == 0 && !first {
                return Err(SketchError("a bucket stands twice"));
            }
            first = false;
            bucket = bucket.saturating_add(step);
            let place = u16::try_from(bucket).map_err(|_| SketchError("no such bucket"))?;
            if usize::from(place) >= BOUNDS.len() {
                return Err(SketchError("no such bucket"));
            }
            let count = (count >> 1).cast_signed() ^ -(count & 1).cast_signed();
            if count == 0 {
                return Err(SketchError("an empty bucket"));
            }
            self.add_bucket(place, count);
        }
        Ok(())
    }
}

/// A quantile over several sketches, each of whose values counts `weight` times. Buckets that were taken away more often
/// than they were filled count nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn weighted_quantile<'a>(sketches: impl IntoIterator<Item = (&'a Sketch, f64)>, q: f64) -> Option<f64> {
    if !(0.0..=1.0).contains(&q) {
        return None;
    }
    let mut counts: BTreeMap<u16, f64> = BTreeMap::new();
    for (sketch, weight) in sketches {
        for (bucket, count) in &sketch.counts {
            *counts.entry(*bucket).or_default() += *count as f64 * weight;
        }
    }
    counts.retain(|_, count| *count > 0.0);
    let total: f64 = counts.values().sum();
    let last = *counts.keys().next_back()?;
    // Of whole counts the rank is a whole number; weights leave it where it falls.
    let rank = if total.fract() == 0.0 { (q * total).ceil().max(1.0) } else { q * total };
    let mut below = 0.0;
    let reached = counts.iter().find(|(_, count)| {
        below += **count;
        below >= rank
    });
    Some(value_of(reached.map_or(last, |(bucket, _)| *bucket)))
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push((number & 0x7f) as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, SketchError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(SketchError("it ends too early"))?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            return Err(SketchError("a number is too large"));
        }
        number |= u64::from(byte & 0x7f) << shift;
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
    }

    proptest! {
        #[test]
        fn the_quick_search_finds_the_bucket(value in prop_oneof![any::<u64>(), 0..5000_u64, (0..64_u32).prop_map(|n| 1 << n)]) {
            let slow = BOUNDS.partition_point(|bound| *bound < value);
            prop_assert_eq!(usize::from(bucket_of(value)), slow);
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
        fn order_and_grouping_do_not_matter_and_taking_away_gives_back(a in values(), b in values()) {
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
        fn garbage_is_an_error_or_a_sketch_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(sketch) = Sketch::decode(&bytes) {
                let _ = (sketch.quantile(0.5), sketch.encode());
            }
        }
    }
}
