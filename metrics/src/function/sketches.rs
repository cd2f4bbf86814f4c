//! States of the aggregate functions that build and merge sketches.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bellwether_stats::Sketch;
use bellwether_stats::sketch::{bucket_of, for_each_encoded};
use bellwether_stats::weight::{ONE, weighted, whole};
use datafusion::common::{Result, exec_datafusion_err};

use super::fold::{Fold, longs, value};

/// A count of values, in units or in millionths.
trait Count: Copy + Debug + Default + Send + Sync + 'static {
    /// Adds counts, and saturates.
    fn plus(self, other: Self) -> Self;
    fn micros(self) -> i128;
}

impl Count for i64 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
    fn micros(self) -> i128 {
        i128::from(self) * ONE
    }
}

impl Count for i128 {
    fn plus(self, other: Self) -> Self {
        self.saturating_add(other)
    }
    fn micros(self) -> i128 {
        self
    }
}

/// A sketch under construction: counts of adjacent buckets in a vector, so that adding needs an index instead of a
/// search.
#[derive(Debug, Default)]
struct Dense<C> {
    first: u16,
    counts: Vec<C>,
}

impl<C: Count> Dense<C> {
    fn add(&mut self, bucket: u16, count: C) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = usize::from(self.first - bucket);
            self.counts.splice(0..0, std::iter::repeat_n(C::default(), more));
            self.first = bucket;
        }
        let place = usize::from(bucket - self.first);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, C::default());
        }
        self.counts[place] = self.counts[place].plus(count);
    }

    /// Adds an encoded sketch; `count` converts its counts from millionths.
    fn add_encoded(&mut self, bytes: &[u8], count: impl Fn(i128) -> C) -> Result<()> {
        for_each_encoded(bytes, |bucket, micros| self.add(bucket, count(micros)))
            .map_err(|error| exec_datafusion_err!("{error}"))
    }

    fn encoded(&self) -> Vec<u8> {
        let mut sketch = Sketch::new();
        for (bucket, count) in (self.first..).zip(&self.counts) {
            sketch.add_micros(bucket, count.micros());
        }
        sketch.encode()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.counts.capacity() * size_of::<C>()
    }
}

fn binary(array: &ArrayRef) -> Result<BinaryArray> {
    Ok(cast(array, &DataType::Binary)?.as_binary::<i32>().clone())
}

/// A sketch of values.
#[derive(Debug, Default)]
pub(super) struct SketchOf(Dense<i64>);

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
            self.0.add(bucket_of(number), value(signs, row));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        binary(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) { self.0.add_encoded(partial.value(row), whole) } else { Ok(()) }
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(BinaryArray::from_iter_values(states.iter().map(|state| state.0.encoded()))))
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}

/// Merges sketches with weights, exactly, so that the result does not depend on how values were divided among the
/// sketches.
#[derive(Debug, Default)]
pub(super) struct SketchMerge(Dense<i128>);

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
        self.0.add_encoded(sketches.value(row), |micros| weighted(micros, weight_micros))
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        binary(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) { self.0.add_encoded(partial.value(row), |micros| micros) } else { Ok(()) }
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(BinaryArray::from_iter_values(states.iter().map(|state| state.0.encoded()))))
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}
