//! Sums of integers that saturate at the range of their type instead of wrapping or failing.
//!
//! Within a step, sums are 256 bits wide: the sum of any rows in any order is exact until it is stored. A sum that does
//! not fit its column is stored as the largest number of the column's type, with its sign. A stored number at that
//! bound means "at least this much", and so does every sum that includes it: the bound is absorbing. As a result,
//! folding stored rows gives the same result in any order, and an overflowed sum never appears exact again.
//!
//! `fold` and this module use each other, because a sum is a fold and the folds of sums of products hold [`BigSum`]s;
//! `aggregate` lists the function that is built here with its accumulators.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Decimal256Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type, i256};
use datafusion::common::{Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, Signature, Volatility,
};

use super::aggregate::{Many, One};
use super::documentation;
use super::fold::Fold;

/// The greatest number of `decimal(38,0)`; the least is its negative.
pub(super) const DECIMAL_MAX: i128 = 10_i128.pow(38) - 1;

/// Returns the type of an intermediate sum, which is wide enough for 2^63 products of three 63-bit numbers.
fn wide_type() -> DataType {
    DataType::Decimal256(76, 0)
}

/// An intermediate sum. Most fit in 128 bits, so the wide part is allocated separately: there is one such sum for each
/// group and column.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    narrow: i128,
    wide: Option<Box<Wide>>,
    any: bool,
}

/// The part of a sum beyond 128 bits.
#[derive(Clone, Copy, Debug, Default)]
struct Wide {
    sum: i256,
    /// True if the sum includes a number at the upper, or lower, bound.
    saturated: (bool, bool),
}

/// Returns the value that represents a saturated sum among intermediate sums.
fn saturation_marker() -> i256 {
    i256::from_i128(DECIMAL_MAX).wrapping_mul(i256::from_i128(DECIMAL_MAX))
}

// === impl Total ===

impl Total {
    pub(super) fn add(&mut self, value: i128) {
        self.any = true;
        match self.narrow.checked_add(value) {
            Some(sum) => self.narrow = sum,
            None => {
                let carried = std::mem::replace(&mut self.narrow, value);
                self.add_wide(i256::from_i128(carried));
            }
        }
    }

    pub(super) fn add_wide(&mut self, value: i256) {
        self.any = true;
        let wide = self.wide.get_or_insert_default();
        match wide.sum.checked_add(value) {
            Some(sum) => wide.sum = sum,
            // Saturates beyond 256 bits, which no input comes near.
            None => self.saturate(value.is_negative()),
        }
    }

    /// Adds a number at the bound of its column.
    fn saturate(&mut self, negative: bool) {
        self.any = true;
        let saturated = &mut self.wide.get_or_insert_default().saturated;
        if negative { saturated.1 = true } else { saturated.0 = true }
    }

    /// Adds a stored number, which saturates the sum if it is at a bound.
    fn add_stored(&mut self, value: i128) {
        match value {
            value if value >= DECIMAL_MAX => self.saturate(false),
            value if value <= -DECIMAL_MAX => self.saturate(true),
            value => self.add(value),
        }
    }

    /// Returns the sum, or as an error whether it is saturated below. If both bounds are included, the upper one wins.
    fn sum(&self) -> std::result::Result<i256, bool> {
        let narrow = i256::from_i128(self.narrow);
        let Some(wide) = &self.wide else { return Ok(narrow) };
        match wide.saturated {
            (true, _) => Err(false),
            (false, true) => Err(true),
            (false, false) => wide.sum.checked_add(narrow).ok_or(wide.sum.is_negative()),
        }
    }

    /// Returns the sum clamped to the range of the stored type; `None` if nothing was added.
    pub(super) fn clamped(&self) -> Option<i128> {
        let within = |sum: i256| {
            let beyond = if sum.is_negative() { -DECIMAL_MAX } else { DECIMAL_MAX };
            sum.to_i128().map_or(beyond, |sum| sum.clamp(-DECIMAL_MAX, DECIMAL_MAX))
        };
        let bound = |below: bool| if below { -DECIMAL_MAX } else { DECIMAL_MAX };
        self.any.then(|| self.sum().map_or_else(bound, within))
    }

    /// Returns the intermediate sum for another part of the same step: exact, or the end of the wide type if saturated.
    pub(super) fn state(&self) -> Option<i256> {
        let bound = |below: bool| if below { saturation_marker().wrapping_neg() } else { saturation_marker() };
        self.any.then(|| self.sum().unwrap_or_else(bound))
    }

    /// Adds an intermediate sum returned by [`Total::state`].
    fn merge(&mut self, value: i256) {
        if value >= saturation_marker() {
            self.saturate(false);
        } else if value <= saturation_marker().wrapping_neg() {
            self.saturate(true);
        } else if let Some(narrow) = value.to_i128() {
            self.add(narrow);
        } else {
            self.add_wide(value);
        }
    }

    /// Returns intermediate sums as a column.
    pub(super) fn states(totals: impl IntoIterator<Item = Self>) -> Result<ArrayRef> {
        let values: Decimal256Array = totals.into_iter().map(|total| total.state()).collect();
        Ok(Arc::new(values.with_precision_and_scale(76, 0)?))
    }

    /// Adds a row of a column of intermediate sums.
    pub(super) fn merge_row(&mut self, states: &Decimal256Array, row: usize) {
        if states.is_valid(row) {
            self.merge(states.value(row));
        }
    }

    /// Returns the bytes it holds on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.wide.as_ref().map_or(0, |_| size_of::<Wide>())
    }
}

/// Reads a column of intermediate sums.
fn wide(states: &ArrayRef) -> Result<Decimal256Array> {
    let found = states.as_any().downcast_ref::<Decimal256Array>();
    found.cloned().ok_or_else(|| exec_datafusion_err!("a partial sum is {}", states.data_type()))
}

/// Sum of numbers of `decimal(38,0)`.
#[derive(Debug, Default)]
pub(super) struct BigSum(pub(super) Total);

impl Fold for BigSum {
    type Input = Decimal128Array;
    type Partial = Decimal256Array;
    fn output_type() -> DataType {
        DataType::Decimal128(38, 0)
    }
    fn state_type() -> DataType {
        wide_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok(cast(&arguments[0], &Self::output_type())?.as_primitive::<Decimal128Type>().clone())
    }
    fn update(&mut self, input: &Self::Input, row: usize) -> Result<()> {
        if input.is_valid(row) {
            self.0.add_stored(input.value(row));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        wide(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0.merge_row(partial, row);
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let sums: Decimal128Array = states.iter().map(|state| state.0.clamped()).collect();
        Ok(Arc::new(sums.with_precision_and_scale(38, 0)?))
    }
    fn state(states: Vec<Self>) -> Result<ArrayRef> {
        Total::states(states.into_iter().map(|state| state.0))
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// The value of a saturated 64-bit number in a 128-bit sum: so large that no sum of other numbers brings it back into
/// range, and larger for the upper end, so that the order does not matter if both ends occur.
pub(super) const ABOVE_RANGE: i128 = 1 << 120;
pub(super) const BELOW_RANGE: i128 = 1 << 100;

/// Converts a stored 64-bit number to its value in a 128-bit sum.
pub(super) fn widened(value: i64) -> i128 {
    match value {
        i64::MAX => ABOVE_RANGE,
        value if value <= -i64::MAX => -BELOW_RANGE,
        value => i128::from(value),
    }
}

/// Clamps such a sum to 64 bits.
pub(super) fn clamp_to_i64(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { -i64::MAX } else { i64::MAX }).max(-i64::MAX)
}

/// Sum of 64-bit numbers. Their sums fit in 128 bits, however many there are.
#[derive(Debug, Default)]
pub(super) struct LongSum(Option<i128>);

impl Fold for LongSum {
    type Input = Int64Array;
    type Partial = Decimal128Array;
    fn output_type() -> DataType {
        DataType::Int64
    }
    fn state_type() -> DataType {
        DataType::Decimal128(38, 0)
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok(cast(&arguments[0], &DataType::Int64)?.as_primitive::<Int64Type>().clone())
    }
    fn update(&mut self, input: &Self::Input, row: usize) -> Result<()> {
        if input.is_valid(row) {
            self.0 = Some(self.0.unwrap_or(0).saturating_add(widened(input.value(row))));
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        let found = states.as_any().downcast_ref::<Decimal128Array>();
        found.cloned().ok_or_else(|| exec_datafusion_err!("a partial sum is {}", states.data_type()))
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        if partial.is_valid(row) {
            self.0 = Some(self.0.unwrap_or(0).saturating_add(partial.value(row)));
        }
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        Ok(Arc::new(states.iter().map(|state| state.0.map(clamp_to_i64)).collect::<Int64Array>()))
    }
    fn state(states: Vec<Self>) -> Result<ArrayRef> {
        let sums: Decimal128Array = states.iter().map(|state| state.0).collect();
        Ok(Arc::new(sums.with_precision_and_scale(38, 0)?))
    }
}

/// Returns the aggregate function over [`LongSum`] and [`BigSum`].
pub(super) fn whole_sum() -> AggregateUDF {
    AggregateUDF::from(Function {
        signature: Signature::user_defined(Volatility::Immutable),
        documentation: documentation(
            "whole_sum(value)",
            "Sum of integers, exact; saturates at the range of its type, and so does every sum that includes a saturated number. \
             Null values are ignored.",
            "SELECT whole_sum(x) AS total FROM (VALUES (9223372036854775807), (-1)) AS t(x)",
            &[("value", "an integer: BIGINT or DECIMAL(38, 0)")],
        ),
    })
}

struct Function {
    signature: Signature,
    documentation: Documentation,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole_sum")
    }
}

impl PartialEq for Function {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "whole_sum".hash(state);
    }
}

impl AggregateUDFImpl for Function {
    fn name(&self) -> &str {
        "whole_sum"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [kind] if kind.is_integer() || kind.is_null() => Ok(vec![DataType::Int64]),
            [DataType::Decimal128(_, scale)] if *scale <= 0 => Ok(vec![BigSum::output_type()]),
            _ => plan_err!("whole_sum takes one integer; hint: whole_sum(value)"),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments.first().cloned().unwrap_or(DataType::Int64))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let state = match arguments.return_field.data_type() {
            DataType::Int64 => LongSum::state_type(),
            _ => BigSum::state_type(),
        };
        Ok(vec![Field::new(format!("{}[wide]", arguments.name), state, true).into()])
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(match arguments.return_field.data_type() {
            DataType::Int64 => Box::new(One(LongSum::default())),
            _ => Box::new(One(BigSum::default())),
        })
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(match arguments.return_field.data_type() {
            DataType::Int64 => Box::new(Many::<LongSum>::default()),
            _ => Box::new(Many::<BigSum>::default()),
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

/// Returns true if a type has a bounded range, at which sums saturate.
pub(super) fn has_bound(kind: &DataType) -> bool {
    match kind {
        DataType::Int64 | DataType::Decimal128(_, _) | DataType::Float64 => true,
        DataType::List(field) => *field.data_type() == DataType::Int64,
        _ => false,
    }
}

/// Returns, for each row, whether one of the numbers, or a number in one of the lists, is at an end of its type's
/// range.
#[expect(clippy::cast_precision_loss, reason = "the end of 64 bits as a double is the next power of two")]
pub(super) fn at_bound(columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let mut found = vec![false; rows];
    for column in columns {
        let at: Box<dyn Fn(usize) -> bool> = match column.data_type() {
            DataType::Int64 => {
                let values = column.as_primitive::<Int64Type>().clone();
                Box::new(move |row| values.value(row).checked_abs().is_none_or(|size| size == i64::MAX))
            }
            DataType::Decimal128(_, _) => {
                let values = column.as_primitive::<Decimal128Type>().clone();
                Box::new(move |row| values.value(row).saturating_abs() >= DECIMAL_MAX)
            }
            DataType::Float64 => {
                let values = column.as_primitive::<Float64Type>().clone();
                Box::new(move |row| values.value(row).abs() >= i64::MAX as f64)
            }
            DataType::List(field) if *field.data_type() == DataType::Int64 => {
                let lists = column.as_list::<i32>().clone();
                let values = lists.values().as_primitive::<Int64Type>().values().clone();
                Box::new(move |row| {
                    let place = |row: usize| usize::try_from(lists.value_offsets()[row]).unwrap_or(0);
                    let mut values = values[place(row)..place(row + 1)].iter();
                    values.any(|value| value.checked_abs().is_none_or(|size| size == i64::MAX))
                })
            }
            DataType::Null => continue,
            other => return Err(exec_datafusion_err!("at_bound takes integers and lists of them, not {other}")),
        };
        for (row, found) in found.iter_mut().enumerate() {
            *found |= column.is_valid(row) && at(row);
        }
    }
    Ok(Arc::new(BooleanArray::from(found)))
}

/// Rounds numbers to integers, saturating at 64 bits; null for NaN.
#[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, as intended")]
pub(super) fn rounded(numbers: &ArrayRef) -> Result<ArrayRef> {
    let numbers = cast(numbers, &DataType::Float64)?;
    let numbers = numbers.as_primitive::<Float64Type>().iter();
    let whole = numbers.map(|number| number.filter(|number| !number.is_nan()).map(|number| number.round() as i64));
    Ok(Arc::new(whole.collect::<Int64Array>()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[i128]) -> Option<i128> {
        let mut total = Total::default();
        values.iter().for_each(|value| total.add_stored(*value));
        total.clamped()
    }

    #[test]
    fn a_bound_absorbs_and_the_upper_one_first() {
        assert_eq!(sum(&[]), None);
        assert_eq!(sum(&[DECIMAL_MAX - 1, DECIMAL_MAX - 1, -(DECIMAL_MAX - 1), -(DECIMAL_MAX - 2)]), Some(1));
        assert_eq!(sum(&[DECIMAL_MAX - 1, 1]), Some(DECIMAL_MAX));
        assert_eq!(sum(&[DECIMAL_MAX, -5]), Some(DECIMAL_MAX));
        assert_eq!(sum(&[5, -DECIMAL_MAX, 7]), Some(-DECIMAL_MAX));
        assert_eq!(sum(&[-DECIMAL_MAX, DECIMAL_MAX]), Some(DECIMAL_MAX));
        let mut total = Total::default();
        (0..4).for_each(|_| total.add(i128::MAX));
        assert_eq!(total.clamped(), Some(DECIMAL_MAX));
        (0..4).for_each(|_| total.add(-i128::MAX));
        assert_eq!(total.clamped(), Some(0));
        let longs = |values: &[i64]| clamp_to_i64(values.iter().map(|value| widened(*value)).sum());
        assert_eq!(longs(&[i64::MAX - 1, i64::MAX - 1, 3 - i64::MAX]), i64::MAX);
        assert_eq!(longs(&[i64::MAX - 1, 2 - i64::MAX]), 1);
        assert_eq!(longs(&[i64::MAX, -5, -5, 1 - i64::MAX]), i64::MAX);
        assert_eq!(longs(&[i64::MIN, 5]), -i64::MAX);
        assert_eq!(longs(&[i64::MIN, i64::MAX]), i64::MAX);
    }

    proptest! {
        #[test]
        fn neither_order_nor_partial_states_change_a_sum(
            parts in proptest::collection::vec(proptest::collection::vec(prop_oneof![
                -DECIMAL_MAX..=DECIMAL_MAX, Just(DECIMAL_MAX), Just(-DECIMAL_MAX), Just(DECIMAL_MAX - 1), -9_i128..9
            ], 0..6), 0..5)
        ) {
            let all: Vec<i128> = parts.iter().flatten().copied().collect();
            let mut backwards = all.clone();
            backwards.reverse();
            prop_assert_eq!(sum(&all), sum(&backwards));
            let partial = parts.iter().map(|part| {
                let mut total = Total::default();
                part.iter().for_each(|value| total.add_stored(*value));
                total
            });
            let states = wide(&Total::states(partial).expect("states")).expect("wide");
            let mut merged = Total::default();
            (0..states.len()).for_each(|row| merged.merge_row(&states, row));
            prop_assert_eq!(merged.clamped(), sum(&all));
        }
    }
}
