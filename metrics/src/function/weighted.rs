//! Totals by random group of weighted runs: exact to the millionth, in any order and grouping.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Int64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field};
use bellwether_stats::clusters::GROUPS;
use bellwether_stats::weight::weighted;
use datafusion::common::Result;

use super::fold::{Fold, group_totals, longs, value};

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
        let Some(list) = group_totals(lists, row)? else { return Ok(()) };
        for (total, micros) in self.totals().iter_mut().zip(list.as_primitive::<Decimal128Type>().values()) {
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
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.as_ref().map_or(0, |_| GROUPS * size_of::<i128>())
    }
}
