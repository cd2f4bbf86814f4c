//! Aggregate functions, all of the same form around a [`Fold`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, Signature, TypeSignature,
    Volatility,
};

use super::documentation;
use super::fold::{CountOf, Fold, RandomGroups, RandomGroupsSum, SumOf};
use super::sketches::{SketchMerge, SketchOf};
use super::weighted::{WeightedGroupsSum, WeightedSum, weighted_groups_type};

/// Returns every aggregate function.
pub(super) fn all() -> Vec<AggregateUDF> {
    const LONG: DataType = DataType::Int64;
    let exact = |types: &[DataType]| Signature::exact(types.to_vec(), Volatility::Immutable);
    let one_or_two = || Signature::one_of(vec![TypeSignature::Any(1), TypeSignature::Any(2)], Volatility::Immutable);
    const SIGN: (&str, &str) = ("sign", "1 to add a statement, -1 to retract it");
    const WEIGHT: (&str, &str) = ("weight_micros", "weight of each value in millionths; default 1,000,000");
    let weighted = || {
        let of = |value| TypeSignature::Exact(vec![value, LONG]);
        Signature::one_of(vec![of(LONG), of(DataType::Decimal128(38, 0))], Volatility::Immutable)
    };
    vec![
        super::whole::whole_sum(),
        udaf::<WeightedSum<1>>(
            "weighted_sum",
            weighted(),
            documentation(
                "weighted_sum(value, weight_micros)",
                "Sum of `value × weight` as a double, rounded once: the result depends neither on the order of the rows nor on \
                 how they were divided. Rows with a null are ignored.",
                "SELECT weighted_sum(runs, weight_micros) AS runs FROM (VALUES (3, 1000000), (2, 4000000)) AS t(runs, weight_micros)",
                &[("value", "an integer: BIGINT or DECIMAL(38, 0)"), WEIGHT],
            ),
        ),
        udaf::<WeightedSum<2>>(
            "weighted_squares",
            weighted(),
            documentation(
                "weighted_squares(value, weight_micros)",
                "Sum of `value × weight²`, as `weighted_sum`.",
                "SELECT weighted_squares(runs, weight_micros) AS runs FROM (VALUES (3, 1000000), (2, 4000000)) AS t(runs, weight_micros)",
                &[("value", "an integer: BIGINT or DECIMAL(38, 0)"), WEIGHT],
            ),
        ),
        udaf::<CountOf>(
            "count_of",
            exact(&[LONG, DataType::Boolean]),
            documentation(
                "count_of(sign, condition)",
                "Sum of `sign` over the rows that meet a condition.",
                "SELECT count_of(1, outcome = 'success') AS success FROM (VALUES ('success'), ('failure')) AS t(outcome)",
                &[SIGN, ("condition", "a condition")],
            ),
        ),
        udaf::<SumOf>(
            "sum_of",
            exact(&[LONG, LONG]),
            documentation(
                "sum_of(sign, value)",
                "Sum of `sign × value`, exact; saturates at the range of DECIMAL(38, 0). Null values are ignored.",
                "SELECT sum_of(1, cost) AS total FROM (VALUES (4713000), (NULL), (9000000)) AS t(cost)",
                &[SIGN, ("value", "an integer")],
            ),
        ),
        udaf::<SumOf>(
            "sum_of_products",
            exact(&[LONG, LONG, LONG]),
            documentation(
                "sum_of_products(sign, value, other)",
                "Sum of `sign × value × other`, exact; saturates at the range of DECIMAL(38, 0). Rows with a null are ignored.",
                "SELECT sum_of_products(1, x, x) AS squares FROM (VALUES (3), (4)) AS t(x)",
                &[SIGN, ("value", "an integer"), ("other", "an integer")],
            ),
        ),
        udaf::<RandomGroups>(
            "random_groups",
            exact(&[LONG, LONG]),
            documentation(
                "random_groups(group, value)",
                "Totals of a value by random group: a list of 32, the input of `clustered_low` and `clustered_high`.",
                "SELECT random_groups(random_group(session), cost) AS totals FROM (VALUES ('s1', 5), ('s2', 7)) AS t(session, cost)",
                &[("group", "random_group(session)"), ("value", "an integer")],
            ),
        ),
        random_groups_sum(
            one_or_two(),
            documentation(
                "random_groups_sum(totals[, weight_micros])",
                "Sum of totals by random group; an exact decimal if they are weighted.",
                "SELECT random_groups_sum(t.l) AS totals FROM (SELECT random_groups(random_group('s'), 5) AS l) AS t",
                &[("totals", "lists made by random_groups"), WEIGHT],
            ),
        ),
        udaf::<SketchOf>(
            "sketch_of",
            exact(&[LONG, LONG]),
            documentation(
                "sketch_of(value, sign)",
                "A mergeable sketch (DDSketch, relative error 1 %) of non-negative integers.",
                "SELECT sketch_quantile(sketch_of(ms, 1), 0.5) AS median FROM (VALUES (120), (240), (360)) AS t(ms)",
                &[("value", "a non-negative integer"), SIGN],
            ),
        ),
        udaf::<SketchMerge>(
            "sketch_merge",
            one_or_two(),
            documentation(
                "sketch_merge(sketch[, weight_micros])",
                "Merges sketches into one. Weighting is exact, so the result does not depend on how values were divided among the sketches.",
                "SELECT sketch_count(sketch_merge(s)) AS n FROM (SELECT sketch_of(7, 1) AS s UNION ALL SELECT sketch_of(9, 1))",
                &[("sketch", "a sketch"), WEIGHT],
            ),
        ),
    ]
}

fn udaf<F: Fold>(name: &'static str, signature: Signature, documentation: Documentation) -> AggregateUDF {
    AggregateUDF::from(Function::<F> { name, signature, documentation, fold: PhantomData })
}

/// Returns a function that sums unweighted totals to integers, as the table stores them, and weighted totals to
/// decimals.
fn random_groups_sum(signature: Signature, documentation: Documentation) -> AggregateUDF {
    let whole = Function::<RandomGroupsSum> { name: "random_groups_sum", signature, documentation, fold: PhantomData };
    let (signature, documentation) = (whole.signature.clone(), whole.documentation.clone());
    let weighted = Function::<WeightedGroupsSum> { name: whole.name, signature, documentation, fold: PhantomData };
    AggregateUDF::from(MaybeWeighted { whole, weighted })
}

/// A function with a different result type if there is a weight, or if its input is already weighted.
#[derive(Debug, PartialEq, Eq, Hash)]
struct MaybeWeighted {
    whole: Function<RandomGroupsSum>,
    weighted: Function<WeightedGroupsSum>,
}

/// An aggregate function around a fold.
struct Function<F> {
    name: &'static str,
    signature: Signature,
    documentation: Documentation,
    fold: PhantomData<fn() -> F>,
}

impl<F> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F> PartialEq for Function<F> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl<F> Eq for Function<F> {}

impl<F> Hash for Function<F> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<F: Fold> AggregateUDFImpl for Function<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(F::output_type())
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Field::new(format!("{}[state]", arguments.name), F::state_type(), true).into()])
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(F::default())))
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Many::<F>::default()))
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}

impl MaybeWeighted {
    fn is_weighted(arguments: &AccumulatorArgs<'_>) -> bool {
        *arguments.return_field.data_type() == weighted_groups_type()
    }
}

impl AggregateUDFImpl for MaybeWeighted {
    fn name(&self) -> &str {
        self.whole.name()
    }

    fn signature(&self) -> &Signature {
        self.whole.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let whole = |list: &DataType| match list {
            DataType::List(element) | DataType::LargeList(element) => element.data_type().is_integer(),
            _ => true,
        };
        match arguments {
            [list] if whole(list) => self.whole.return_type(arguments),
            _ => self.weighted.return_type(arguments),
        }
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if Self::is_weighted(&arguments) {
            self.weighted.accumulator(arguments)
        } else {
            self.whole.accumulator(arguments)
        }
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        if Self::is_weighted(&arguments) {
            self.weighted.create_groups_accumulator(arguments)
        } else {
            self.whole.create_groups_accumulator(arguments)
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.whole.documentation()
    }
}

/// The state of a query with a single group.
#[derive(Debug)]
pub(super) struct One<F>(pub(super) F);

impl<F: Fold> Accumulator for One<F> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let input = F::input(values)?;
        (0..values[0].len()).try_for_each(|row| self.0.update(&input, row))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&F::output(vec![std::mem::take(&mut self.0)])?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.heap_bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::try_from_array(&F::state(vec![std::mem::take(&mut self.0)])?, 0)?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let partial = F::partial(&states[0])?;
        (0..states[0].len()).try_for_each(|row| self.0.merge(&partial, row))
    }
}

/// The states of all groups of a query.
pub(super) struct Many<F> {
    states: Vec<F>,
    /// Bytes that the states hold on the heap. They are counted as they change: the engine asks for the size after each
    /// batch, and there may be thousands of groups.
    heap_bytes: usize,
}

impl<F> Default for Many<F> {
    fn default() -> Self {
        Self { states: Vec::new(), heap_bytes: 0 }
    }
}

impl<F: Fold> Many<F> {
    fn each(
        &mut self,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
        mut step: impl FnMut(&mut F, usize) -> Result<()>,
    ) -> Result<()> {
        self.states.resize_with(total, F::default);
        for (row, group) in groups.iter().enumerate() {
            if filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)) {
                let state = self.states.get_mut(*group).ok_or_else(|| exec_datafusion_err!("no group {group}"))?;
                let before = state.heap_bytes();
                step(state, row)?;
                self.heap_bytes = self.heap_bytes + state.heap_bytes() - before;
            }
        }
        Ok(())
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<F> {
        let taken = emit_to.take_needed(&mut self.states);
        self.heap_bytes = self.states.iter().map(Fold::heap_bytes).sum();
        taken
    }
}

impl<F: Fold> GroupsAccumulator for Many<F> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let input = F::input(values)?;
        self.each(groups, filter, total, |state, row| state.update(&input, row))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        F::output(self.take(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![F::state(self.take(emit_to))?])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let partial = F::partial(&values[0])?;
        self.each(groups, None, total, |state, row| state.merge(&partial, row))
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let input = F::input(values)?;
        let rows = values[0].len();
        let groups: Vec<usize> = (0..rows).collect();
        let mut each = Self::default();
        each.each(&groups, filter, rows, |state, row| state.update(&input, row))?;
        Ok(vec![F::state(each.states)?])
    }

    fn size(&self) -> usize {
        self.states.capacity() * size_of::<F>() + self.heap_bytes
    }
}
