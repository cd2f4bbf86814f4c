//! States of the aggregate functions that build and merge sketches.
//!
//! A statement may fold thousands of groups with four sketches each, so a state holds only the buckets that occur, ten
//! bytes each, and is encoded from there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bellwether_stats::sketch::{Amount, bucket_of, encode_micros, encode_whole, for_each_amount};
use bellwether_stats::weight::{ONE, weighted};
use datafusion::common::{Result, exec_datafusion_err};

use super::fold::{Fold, longs, value};

/// Places that are tried one by one before the rest is searched.
const NEAR: usize = 4;

/// A sketch under construction: the buckets that occur, in order, and their counts.
#[derive(Debug, Default)]
struct Buckets {
    numbers: Vec<u16>,
    counts: Counts,
}

/// Counts of values: whole until a weight leaves a fraction or a count leaves 64 bits.
#[derive(Debug)]
enum Counts {
    Whole(Vec<i64>),
    Micros(Vec<i128>),
}

impl Default for Counts {
    fn default() -> Self {
        Self::Whole(Vec::new())
    }
}

// === impl Buckets ===

impl Buckets {
    /// Adds to a bucket, which is searched from place `from` on. Returns its place.
    fn add(&mut self, bucket: u16, amount: Amount, from: usize) -> usize {
        // Sketches of one quantity have mostly the same buckets: the next one is near.
        let mut place = from;
        while place < self.numbers.len().min(from + NEAR) && self.numbers[place] < bucket {
            place += 1;
        }
        if place == from + NEAR {
            place += self.numbers[place..].partition_point(|number| *number < bucket);
        }
        if self.numbers.get(place) != Some(&bucket) {
            self.numbers.insert(place, bucket);
            match &mut self.counts {
                Counts::Whole(counts) => counts.insert(place, 0),
                Counts::Micros(counts) => counts.insert(place, 0),
            }
        }
        if let Counts::Whole(counts) = &mut self.counts {
            if let Amount::Whole(amount) = amount
                && let Some(sum) = counts[place].checked_add(amount)
            {
                counts[place] = sum;
                return place;
            }
            self.counts = Counts::Micros(counts.iter().map(|count| i128::from(*count) * ONE).collect());
        }
        if let Counts::Micros(counts) = &mut self.counts {
            counts[place] = counts[place].saturating_add(amount.micros());
        }
        place
    }

    /// Adds an encoded sketch, with each count converted by `amount`.
    fn add_encoded(&mut self, bytes: &[u8], amount: impl Fn(Amount) -> Amount) -> Result<()> {
        let mut place = 0;
        for_each_amount(bytes, |bucket, count| place = self.add(bucket, amount(count), place))
            .map_err(|error| exec_datafusion_err!("{error}"))
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let numbers = self.numbers.iter().copied();
        match &self.counts {
            Counts::Whole(counts) => encode_whole(numbers.zip(counts.iter().copied()), bytes),
            Counts::Micros(counts) => encode_micros(numbers.zip(counts.iter().copied()), bytes),
        }
    }

    /// Returns the bytes it holds on the heap.
    fn heap_bytes(&self) -> usize {
        let counts = match &self.counts {
            Counts::Whole(counts) => counts.capacity() * size_of::<i64>(),
            Counts::Micros(counts) => counts.capacity() * size_of::<i128>(),
        };
        self.numbers.capacity() * size_of::<u16>() + counts
    }
}

/// Multiplies a count by a weight, exactly; it stays whole if it can.
fn times(amount: Amount, weight_micros: i64) -> Amount {
    match amount {
        Amount::Whole(_) if weight_micros == 1_000_000 => amount,
        Amount::Whole(count) => {
            let micros = i128::from(count) * i128::from(weight_micros);
            match i64::try_from(micros / ONE) {
                Ok(whole) if micros % ONE == 0 => Amount::Whole(whole),
                _ => Amount::Micros(micros),
            }
        }
        Amount::Micros(micros) => Amount::Micros(weighted(micros, weight_micros)),
    }
}

fn binary(array: &ArrayRef) -> Result<BinaryArray> {
    Ok(cast(array, &DataType::Binary)?.as_binary::<i32>().clone())
}

fn encoded<'a>(states: impl ExactSizeIterator<Item = &'a Buckets>) -> ArrayRef {
    let mut column = BinaryBuilder::with_capacity(states.len(), states.len() * 16);
    let mut bytes = Vec::new();
    for state in states {
        bytes.clear();
        state.encode(&mut bytes);
        column.append_value(&bytes);
    }
    Arc::new(column.finish())
}

/// A sketch of values.
#[derive(Debug, Default)]
pub(super) struct SketchOf(Buckets);

impl Fold for SketchOf {
    type Input = (Int64Array, Int64Array);
    type Partial = BinaryArray;
    fn output_type() -> DataType {
        DataType::Binary
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((longs(&arguments[0])?, longs(&arguments[1])?))
    }
    fn update(&mut self, (values, signs): &Self::Input, row: usize) -> Result<()> {
        if values.is_valid(row) {
            let number = u64::try_from(values.value(row)).unwrap_or(0);
            self.0.add(bucket_of(number), Amount::Whole(value(signs, row)), 0);
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        binary(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) { self.0.add_encoded(partial.value(row), |amount| amount) } else { Ok(()) }
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(encoded(states.iter().map(|state| &state.0)))
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Merges sketches with weights, exactly, so that the result does not depend on how values were divided among the
/// sketches.
#[derive(Debug, Default)]
pub(super) struct SketchMerge(Buckets);

impl Fold for SketchMerge {
    type Input = (BinaryArray, Option<Int64Array>);
    type Partial = BinaryArray;
    fn output_type() -> DataType {
        DataType::Binary
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((binary(&arguments[0])?, arguments.get(1).map(longs).transpose()?))
    }
    fn update(&mut self, (sketches, weights): &Self::Input, row: usize) -> Result<()> {
        let Some(weights) = weights else { return self.merge(sketches, row) };
        if sketches.is_null(row) {
            return Ok(());
        }
        let weight_micros = value(weights, row);
        self.0.add_encoded(sketches.value(row), |amount| times(amount, weight_micros))
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        binary(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) { self.0.add_encoded(partial.value(row), |amount| amount) } else { Ok(()) }
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(encoded(states.iter().map(|state| &state.0)))
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use bellwether_stats::Sketch;
    use proptest::prelude::*;

    use super::*;

    fn amounts() -> impl Strategy<Value = Vec<(u16, i64, i64)>> {
        let count = prop_oneof![-3..4_i64, Just(i64::MAX), Just(-i64::MAX)];
        let weight = prop_oneof![Just(1_000_000_i64), Just(2_500_000), 1..3_000_000_i64, Just(1_000_000_000_000_000)];
        prop::collection::vec((0..40_u16, count, weight), 0..60)
    }

    proptest! {
        /// The independent computation is the sketch of crate `stats`, which keeps every count in millionths.
        #[test]
        fn compact_states_encode_to_the_same_bytes_as_a_sketch(amounts in amounts()) {
            let (mut found, mut wanted) = (Buckets::default(), Sketch::new());
            for (bucket, count, weight) in amounts {
                let mut one = Sketch::new();
                one.add_bucket(bucket, count);
                found.add_encoded(&one.encode(), |amount| times(amount, weight)).expect("a sketch");
                wanted.merge_weighted(&one, weight);
            }
            let mut bytes = Vec::new();
            found.encode(&mut bytes);
            prop_assert_eq!(&bytes, &wanted.encode());
            prop_assert_eq!(Sketch::decode(&bytes), Ok(wanted));
        }
    }
}
