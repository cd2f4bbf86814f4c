//! States of aggregate functions: what each group holds while rows come in, in any order.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type};
use bellwether_stats::clusters::GROUPS;
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

pub(super) fn longs(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

pub(super) fn value(array: &Int64Array, row: usize) -> i64 {
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
}

/// The 32 totals of a row; none of a null.
pub(super) fn list_of(lists: &ListArray, row: usize) -> Result<Option<ArrayRef>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let list = lists.value(row);
    if list.len() != GROUPS {
        return Err(exec_datafusion_err!("a list has {} groups instead of {GROUPS}", list.len()));
    }
    Ok(Some(list))
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
        let Some(list) = list_of(partial, row)? else { return Ok(()) };
        for (total, value) in self.totals().iter_mut().zip(list.as_primitive::<Int64Type>().values()) {
            *total = total.saturating_add(*value);
        }
        Ok(())
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
    type Input = ListArray;
    type Partial = ListArray;
    fn output_type() -> DataType {
        groups_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok(cast(&arguments[0], &groups_type())?.as_list::<i32>().clone())
    }
    fn update(&mut self, lists: &Self::Input, row: usize) -> Result<()> {
        self.0.merge(lists, row)
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
