//! Sums of weighted runs, exact in any order and grouping: totals by random group to the millionth, and sums that are
//! rounded once, when they become doubles.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, i256};
use bellwether_stats::clusters::GROUPS;
use bellwether_stats::weight::weighted;
use datafusion::common::Result;

use super::fold::{Fold, group_totals, longs, value};
use super::whole::{BigSum, Total};

/// Precision and scale of a decimal: the unit of its last digit is a millionth.
const DIGITS: u8 = 38;
const SCALE: i8 = 6;

/// The largest number of 38 digits.
const LARGEST: i128 = 10_i128.pow(38) - 1;

fn element() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Decimal128(DIGITS, SCALE), false))
}

/// Returns the type of weighted totals by random group.
pub(super) fn weighted_groups_type() -> DataType {
    DataType::List(element())
}

/// Sums of totals by random group, in millionths.
#[derive(Debug, Default)]
pub(super) struct WeightedGroupsSum(Option<Box<[i128; GROUPS]>>);

impl WeightedGroupsSum {
    fn totals(&mut self) -> &mut [i128; GROUPS] {
        self.0.get_or_insert_with(|| Box::new([0; GROUPS]))
    }

    fn add(&mut self, lists: &ListArray, row: usize, weight_micros: i64) -> Result<()> {
        let Some(range) = group_totals(lists, row)? else { return Ok(()) };
        let values = &lists.values().as_primitive::<Decimal128Type>().values()[range];
        for (total, micros) in self.totals().iter_mut().zip(values) {
            *total = total.saturating_add(weighted(*micros, weight_micros)).clamp(-LARGEST, LARGEST);
        }
        Ok(())
    }
}

impl Fold for WeightedGroupsSum {
    type Input = (ListArray, Option<Int64Array>);
    type Partial = ListArray;
    fn output_type() -> DataType {
        weighted_groups_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((Self::partial(&arguments[0])?, arguments.get(1).map(longs).transpose()?))
    }
    fn update(&mut self, (lists, weights): &Self::Input, row: usize) -> Result<()> {
        self.add(lists, row, weights.as_ref().map_or(1_000_000, |weights| value(weights, row)))
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        Ok(cast(states, &weighted_groups_type())?.as_list::<i32>().clone())
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.add(partial, row, 1_000_000)
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let lengths = OffsetBuffer::from_lengths(std::iter::repeat_n(GROUPS, states.len()));
        let values: Vec<i128> = states.into_iter().flat_map(|mut state| *state.totals()).collect();
        let values = Decimal128Array::from(values).with_precision_and_scale(DIGITS, SCALE)?;
        Ok(Arc::new(ListArray::new(element(), lengths, Arc::new(values), None)))
    }
    fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |_| GROUPS * size_of::<i128>())
    }
}

/// Sum of value × weight^`POWER`, where the weight is in millionths.
///
/// A sum of doubles depends on the order of its addends, and a group's addends differ with the tables they are read from.
/// Integers are added here instead, and the total is rounded once.
#[derive(Debug, Default)]
pub(super) struct WeightedSum<const POWER: u32>(Total);

impl<const POWER: u32> Fold for WeightedSum<POWER> {
    type Input = (Decimal128Array, Int64Array);
    type Partial = Decimal256Array;
    fn output_type() -> DataType {
        DataType::Float64
    }
    fn state_type() -> DataType {
        BigSum::state_type()
    }
    fn input(arguments: &[ArrayRef]) -> Result<Self::Input> {
        Ok((BigSum::input(arguments)?, longs(&arguments[1])?))
    }
    fn update(&mut self, (values, weights): &Self::Input, row: usize) -> Result<()> {
        if values.is_valid(row) && weights.is_valid(row) {
            let factor = i128::from(weights.value(row)).saturating_pow(POWER);
            match values.value(row).checked_mul(factor) {
                Some(product) => self.0.add(product),
                // 38 digits times twice 19, at most: within the 76 of 256 bits.
                None => self.0.add_wide(i256::from_i128(values.value(row)).wrapping_mul(i256::from_i128(factor))),
            }
        }
        Ok(())
    }
    fn partial(states: &ArrayRef) -> Result<Self::Partial> {
        BigSum::partial(states)
    }
    fn merge(&mut self, partial: &Self::Partial, row: usize) -> Result<()> {
        self.0.merge_row(partial, row);
        Ok(())
    }
    fn output(states: Vec<Self>) -> Result<ArrayRef> {
        let unit = 1_000_000_i128.pow(POWER);
        let sums = states.into_iter().map(|sum| Some(quotient(sum.0.state()?, unit)));
        Ok(Arc::new(sums.collect::<Float64Array>()))
    }
    fn state(states: Vec<Self>) -> Result<ArrayRef> {
        Total::states(states.into_iter().map(|sum| sum.0))
    }
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }
}

/// Divides to a double. A whole quotient below 2^53 is exact.
#[expect(clippy::cast_precision_loss, reason = "this is the one rounding of a sum")]
fn quotient(total: i256, unit: i128) -> f64 {
    let divisor = i256::from_i128(unit);
    let double = |number: i256| match number.to_i128() {
        Some(number) => number as f64,
        None => {
            let (low, high) = number.to_parts();
            (high as f64).mul_add(2.0_f64.powi(128), low as f64)
        }
    };
    let (whole, rest) = (total.wrapping_div(divisor), total.wrapping_rem(divisor));
    double(whole) + double(rest) / unit as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(rows: &[(i128, i64)]) -> f64 {
        let values = Decimal128Array::from_iter_values(rows.iter().map(|(value, _)| *value));
        let values: ArrayRef = Arc::new(values.with_precision_and_scale(DIGITS, 0).expect("38 digits"));
        let weights: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight)));
        let input = WeightedSum::<1>::input(&[values, weights]).expect("numbers");
        let mut state = WeightedSum::<1>::default();
        (0..rows.len()).for_each(|row| state.update(&input, row).expect("adds"));
        WeightedSum::output(vec![state]).expect("a sum").as_primitive::<arrow::datatypes::Float64Type>().value(0)
    }

    #[test]
    fn whole_sums_are_exact_and_the_others_are_rounded_once() {
        assert_eq!(sum(&[(3, 1_000_000), (4, 250_000)]), 4.0);
        assert_eq!(sum(&[(1, 1), (1, 2)]), 3e-6);
        assert_eq!(sum(&[(9_007_199_254_740_991, 1_000_000)]), 9_007_199_254_740_991.0);
        assert_eq!(sum(&[(LARGEST, 1_000_000_000_000_000), (-LARGEST, 1_000_000_000_000_000), (7, 1_000_000)]), 7.0);
        let great = sum(&[(LARGEST, 1_000_000_000_000_000)]);
        assert!((great / 1e47 - 1.0).abs() < 1e-12, "{great}");
    }

    proptest! {
        #[test]
        fn the_order_of_the_rows_does_not_matter(
            rows in proptest::collection::vec((-1_000_000_000_000..1_000_000_000_000_i128, 1_000_000..9_000_000_i64), 0..30)
        ) {
            let mut backwards = rows.clone();
            backwards.reverse();
            prop_assert_eq!(sum(&rows).to_bits(), sum(&backwards).to_bits());
        }
    }
}
