//! States of aggregate functions: the value that each group accumulates while rows arrive in any order.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, i256};
use bellwether_stats::clusters::GROUPS;
use datafusion::common::{Result, exec_datafusion_err};

use super::whole::{BigSum, clamp_to_i64, widened};

/// Returns the type of totals by random group.
pub(super) fn groups_type() -> DataType {
    DataType::List(Arc::new(Field::new("element", DataType::Int64, false)))
}

/// The state of one group.
pub(super) trait Fold: Default + Debug + Send + Sync + 'static {
    /// The arguments of a batch, converted to the types that the state uses.
    type Input;
    fn output_type() -> DataType;
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input>;
    fn update(&mut self, input: &Self::Input, row: usize) -> Result<()>;
    /// Partial states of a batch, as returned by `state`.
    type Partial;
    fn partial(states: &ArrayRef) -> Result<Self::Partial>;
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()>;
    fn output(states: Vec<Self>) -> Result<ArrayRef>;
    /// Returns the type of partial states, which may be wider than the output type.
    fn state_type() -> DataType {
        Self::output_type()
    }
    /// Returns partial states in the form that `partial` reads.
    fn state(states: Vec<Self>) -> Result<ArrayRef> {
        Self::output(states)
    }
    /// Returns the bytes it holds on the heap.
    fn heap_bytes(&self) -> usize {
        0
    }
}

pub(super) fn longs(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

pub(super) fn value(array: &Int64Array, row: usize) -> i64 {
    if array.is_valid(row) { array.value(row) } else { 0 }
}

/// Sum of the signs over rows that meet a condition.
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
            self.0 = self.0.saturating_add(value(signs, row));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        longs(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0 = self.0.saturating_add(value(partial, row));
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(states.iter().map(|state| state.0))))
    }
}

/// Sum of sign × value, or of sign × value × value, in as many bits as needed.
#[derive(Debug, Default)]
pub(super) struct SumOf(BigSum);

impl Fold for SumOf {
    type Input = Vec<Int64Array>;
    type Partial = Decimal256Array;
    fn output_type() -> DataType {
        BigSum::output_type()
    }
    fn state_type() -> DataType {
        BigSum::state_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        arguments.iter().map(longs).collect()
    }
    fn update(&mut self, arguments: &Self::Input, row: usize) -> Result<()> {
        if !arguments.iter().all(|argument| argument.is_valid(row)) {
            return Ok(());
        }
        let factors = || arguments.iter().map(|one| i128::from(one.value(row)));
        let total = &mut self.0.0;
        match factors().try_fold(1_i128, i128::checked_mul) {
            Some(product) => total.add(product),
            // Three factors of 63 bits: wider than 128 bits, and far within 256.
            None => total.add_wide(factors().fold(i256::ONE, |all, one| all.wrapping_mul(i256::from_i128(one)))),
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        BigSum::partial(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0.merge(partial, row)
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        // A sum without addends is 0.
        let sums = states.iter().map(|state| state.0.0.clamped().unwrap_or(0));
        Ok(Arc::new(Decimal128Array::from_iter_values(sums).with_precision_and_scale(38, 0)?))
    }
    fn state(states: Vec<Self>) -> Result<ArrayRef> {
        BigSum::state(states.into_iter().map(|state| state.0).collect())
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Totals by random group: exact during a query, saturated at 64 bits when stored.
#[derive(Debug, Default)]
pub(super) struct RandomGroups {
    totals: Option<Box<[i64; GROUPS]>>,
    /// Amounts that do not fit in `totals`; rarely any.
    more: Option<Box<[i128; GROUPS]>>,
}

impl RandomGroups {
    fn add(&mut self, group: usize, amount: i128) {
        let total = &mut self.totals.get_or_insert_with(|| Box::new([0; GROUPS]))[group];
        match i64::try_from(amount).ok().and_then(|amount| total.checked_add(amount)) {
            Some(sum) => *total = sum,
            None => {
                let more = &mut self.more.get_or_insert_with(|| Box::new([0; GROUPS]))[group];
                *more = more.saturating_add(amount);
            }
        }
    }

    /// Adds the totals of a row, all at once. Returns false, without adding anything, if one is saturated or a sum leaves
    /// 64 bits.
    fn add_all(&mut self, values: &[i64]) -> bool {
        let totals = self.totals.get_or_insert_with(|| Box::new([0; GROUPS]));
        let mut sums = **totals;
        let mut leaves = false;
        for (sum, value) in sums.iter_mut().zip(values) {
            let (added, overflows) = sum.overflowing_add(*value);
            *sum = added;
            leaves |= overflows | (value.unsigned_abs() >= i64::MAX.unsigned_abs());
        }
        if !leaves {
            **totals = sums;
        }
        !leaves
    }

    fn values(&self) -> [i64; GROUPS] {
        let mut values = self.totals.as_ref().map_or([0; GROUPS], |totals| **totals);
        if let Some(more) = &self.more {
            for (value, more) in values.iter_mut().zip(more.iter()) {
                *value = clamp_to_i64(more.saturating_add(i128::from(*value)));
            }
        }
        values
    }
}

/// Returns the 32 totals of a row, as the place of each in the values of all lists; `None` if it is null.
pub(super) fn group_totals(lists: &ListArray, row: usize) -> Result<Option<Range<usize>>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let place = |row: usize| usize::try_from(lists.value_offsets()[row]).unwrap_or(0);
    let range = place(row)..place(row + 1);
    if range.len() != GROUPS {
        return Err(exec_datafusion_err!("a list has {} groups; it must have {GROUPS}", range.len()));
    }
    Ok(Some(range))
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
            let group = group.ok_or_else(|| exec_datafusion_err!("`{}` is not a random group", groups.value(row)))?;
            self.add(group, i128::from(amount));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        Ok(states.as_list::<i32>().clone())
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        let Some(range) = group_totals(partial, row)? else { return Ok(()) };
        let values = &partial.values().as_primitive::<Int64Type>().values()[range];
        if !self.add_all(values) {
            for (group, value) in values.iter().enumerate() {
                self.add(group, widened(*value));
            }
        }
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let lengths = OffsetBuffer::from_lengths(std::iter::repeat_n(GROUPS, states.len()));
        let values: Vec<i64> = states.iter().flat_map(Self::values).collect();
        let element = Arc::new(Field::new("element", DataType::Int64, false));
        Ok(Arc::new(ListArray::new(element, lengths, Arc::new(Int64Array::from(values)), None)))
    }
    fn heap_bytes(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |_| GROUPS * size_of::<i128>());
        self.totals.as_ref().map_or(0, |_| GROUPS * size_of::<i64>()) + more
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
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}
