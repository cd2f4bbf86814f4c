//! States of aggregate functions: what each group holds while rows come in, in any order.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type};
use bellwether_stats::clusters::GROUPS;
use bellwether_stats::sketch::{Sketch, bucket_of};
use datafusion::common::{Result, exec_datafusion_err};

/// Type of totals by random group.
pub(super) fn groups_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Int64, false)))
}

/// The state of one group.
pub(super) trait Fold: Default + Debug + Send + Sync + 'static {
    /// The arguments of a batch, in the types the state wants.
    type Input;
    fn output_type() -> DataType;
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input>;
    fn update(&mut self, input: &Self::Input, row: usize) -> Result<()>;
    /// Partial states of a batch, as `output` makes them.
    type Partial;
    fn partial(states: &ArrayRef) -> Result<Self::Partial>;
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()>;
    fn output(states: Vec<Self>) -> Result<ArrayRef>;
    fn size(&self) -> usize {
        size_of::<Self>()
    }
}

fn longs(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

fn value(array: &Int64Array, row: usize) -> i64 {
    if array.is_valid(row) { array.value(row) } else { 0 }
}

fn decimals(array: &ArrayRef) -> Result<Decimal128Array> {
    Ok(cast(array, &DataType::Decimal128(38, 0))?.as_primitive::<Decimal128Type>().clone())
}

/// Σ sign over rows that meet a condition.
#[derive(Debug, Default)]
pub(super) struct CountOf(i64);

impl Fold for CountOf {
    type Input = (Int64Array, BooleanArray);
    type Partial = Int64Array;
    fn output_type() -> DataType {
        DataType::Int64
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((longs(&arguments[0])?, cast(&arguments[1], &DataType::Boolean)?.as_boolean().clone()))
    }
    fn update(&mut self, (signs, met): &Self::Input, row: usize) -> Result<()> {
        if met.is_valid(row) && met.value(row) {
            self.0 += value(signs, row);
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        longs(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0 += value(partial, row);
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(states.iter().map(|state| state.0))))
    }
}

/// Σ sign × value in 128 bits, or Σ sign × value × value.
#[derive(Debug, Default)]
pub(super) struct SumOf(i128);

impl Fold for SumOf {
    type Input = Vec<Int64Array>;
    type Partial = Decimal128Array;
    fn output_type() -> DataType {
        DataType::Decimal128(38, 0)
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        arguments.iter().map(longs).collect()
    }
    fn update(&mut self, arguments: &Self::Input, row: usize) -> Result<()> {
        if arguments.iter().all(|argument| argument.is_valid(row)) {
            // Three factors of 63 bits at most: a sign and two quantities below 2^53 and 2^60.
            let product = arguments.iter().try_fold(1_i128, |all, one| all.checked_mul(i128::from(one.value(row))));
            let total = product.and_then(|product| self.0.checked_add(product));
            self.0 = total.ok_or_else(|| exec_datafusion_err!("a sum leaves 128 bits"))?;
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        decimals(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) {
            let total = self.0.checked_add(partial.value(row));
            self.0 = total.ok_or_else(|| exec_datafusion_err!("a sum leaves 128 bits"))?;
        }
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let sums = Decimal128Array::from_iter_values(states.iter().map(|state| state.0));
        Ok(Arc::new(sums.with_precision_and_scale(38, 0)?))
    }
}

/// Totals by random group.
#[derive(Debug, Default)]
pub(super) struct RandomGroups(Option<Box<[i64; GROUPS]>>);

impl RandomGroups {
    fn totals(&mut self) -> &mut [i64; GROUPS] {
        self.0.get_or_insert_with(|| Box::new([0; GROUPS]))
    }

    fn add_list(&mut self, lists: &ListArray, row: usize, weight_micros: i64) -> Result<()> {
        if lists.is_null(row) {
            return Ok(());
        }
        let list = lists.value(row);
        let list = list.as_primitive::<Int64Type>();
        if list.len() != GROUPS {
            return Err(exec_datafusion_err!("a list has {} groups instead of {GROUPS}", list.len()));
        }
        for (total, value) in self.totals().iter_mut().zip(list.values()) {
            *total = total.saturating_add(weighted(*value, weight_micros));
        }
        Ok(())
    }
}

/// A count of runs that stand for several each; exact for the usual weight of one.
fn weighted(count: i64, weight_micros: i64) -> i64 {
    if weight_micros == 1_000_000 {
        return count;
    }
    let micros = i128::from(count) * i128::from(weight_micros);
    i64::try_from((micros + 500_000).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

impl Fold for RandomGroups {
    type Input = (Int64Array, Int64Array);
    type Partial = ListArray;
    fn output_type() -> DataType {
        groups_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((longs(&arguments[0])?, longs(&arguments[1])?))
    }
    fn update(&mut self, (groups, values): &Self::Input, row: usize) -> Result<()> {
        let amount = value(values, row);
        if amount != 0 && groups.is_valid(row) {
            let group = usize::try_from(groups.value(row)).ok().filter(|group| *group < GROUPS);
            let group = group.ok_or_else(|| exec_datafusion_err!("{} is no random group", groups.value(row)))?;
            let total = &mut self.totals()[group];
            *total = total.saturating_add(amount);
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        Ok(states.as_list::<i32>().clone())
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.add_list(partial, row, 1_000_000)
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let lengths = OffsetBuffer::from_lengths(std::iter::repeat_n(GROUPS, states.len()));
        let values: Vec<i64> = states.into_iter().flat_map(|mut state| *state.totals()).collect();
        let element = Arc::new(Field::new("element", DataType::Int64, false));
        Ok(Arc::new(ListArray::new(element, lengths, Arc::new(Int64Array::from(values)), None)))
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.as_ref().map_or(0, |_| GROUPS * size_of::<i64>())
    }
}

/// Sums of totals by random group.
#[derive(Debug, Default)]
pub(super) struct RandomGroupsSum(RandomGroups);

impl Fold for RandomGroupsSum {
    type Input = (ListArray, Option<Int64Array>);
    type Partial = ListArray;
    fn output_type() -> DataType {
        groups_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        let lists = cast(&arguments[0], &groups_type())?.as_list::<i32>().clone();
        Ok((lists, arguments.get(1).map(longs).transpose()?))
    }
    fn update(&mut self, (lists, weights): &Self::Input, row: usize) -> Result<()> {
        self.0.add_list(lists, row, weights.as_ref().map_or(1_000_000, |weights| value(weights, row)))
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        RandomGroups::partial(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0.merge(partial, row)
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        RandomGroups::output(states.into_iter().map(|state| state.0).collect())
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}

/// A sketch that grows: counts of neighbouring buckets side by side, so that adding is an index and no search.
#[derive(Debug, Default)]
pub(super) struct SketchOf {
    first: u16,
    counts: Vec<i64>,
}

impl SketchOf {
    fn add(&mut self, bucket: u16, count: i64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = usize::from(self.first - bucket);
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let place = usize::from(bucket - self.first);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += count;
    }

    fn sketch(&self) -> Sketch {
        let mut sketch = Sketch::new();
        for (bucket, count) in (self.first..).zip(&self.counts) {
            sketch.add_bucket(bucket, *count);
        }
        sketch
    }
}

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
            let value = u64::try_from(values.value(row)).unwrap_or(0);
            self.add(bucket_of(value), signs.value(row));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        SketchMerge::partial(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) {
            for (bucket, count) in decoded(partial.value(row))?.buckets() {
                self.add(bucket, count);
            }
        }
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(BinaryArray::from_iter_values(states.iter().map(|state| state.sketch().encode()))))
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.counts.capacity() * size_of::<i64>()
    }
}

fn decoded(bytes: &[u8]) -> Result<Sketch> {
    Sketch::decode(bytes).map_err(|error| exec_datafusion_err!("{error}"))
}

/// Sketches added up.
#[derive(Debug, Default)]
pub(super) struct SketchMerge(SketchOf);

impl Fold for SketchMerge {
    type Input = (BinaryArray, Option<Int64Array>);
    type Partial = BinaryArray;
    fn output_type() -> DataType {
        DataType::Binary
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((Self::partial(&arguments[0])?, arguments.get(1).map(longs).transpose()?))
    }
    fn update(&mut self, (sketches, weights): &Self::Input, row: usize) -> Result<()> {
        let weight_micros = weights.as_ref().map_or(1_000_000, |weights| value(weights, row));
        if sketches.is_valid(row) {
            for (bucket, count) in decoded(sketches.value(row))?.buckets() {
                self.0.add(bucket, weighted(count, weight_micros));
            }
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        Ok(cast(states, &DataType::Binary)?.as_binary::<i32>().clone())
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0.merge(partial, row)
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        SketchOf::output(states.into_iter().map(|state| state.0).collect())
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}
