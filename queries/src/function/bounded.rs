//! Bounds on functions with results much larger than their arguments: the engine accounts for the memory of sorts, joins and
//! aggregations, but not for that of expressions.
//!
//! Before a batch of rows is computed, an upper bound of its size follows from the arguments. If the bound is too large, rows
//! are computed in parts and their real sizes are counted; if one row could be too large, or all rows together are, the query
//! fails. A constant is kept as one value and never repeated for each row.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::{DataFusionError, Result, resources_datafusion_err};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::scalar::ScalarValue;

/// One call may fill this fraction of a session's memory for one batch.
const PART: usize = 4;

/// Bytes of a value in addition to its text: an offset, or a view.
const VALUE_BYTES: u64 = 16;

/// Days of the shortest month, by which intervals are measured.
const MONTH_DAYS: i64 = 28;

const DAY_NANOS: i64 = 86_400 * 1_000_000_000;

/// Returns the most bytes that the result of a row can have.
type Most = fn(&Arguments, usize) -> u64;

/// The bounded functions, each with the bound of its result.
const BOUNDED: &[(&str, Most)] = &[
    ("repeat", |of, row| of.bytes(0, row).saturating_mul(of.count(1, row).saturating_add(1))),
    ("lpad", padded),
    ("rpad", padded),
    ("replace", |of, row| {
        let (text, from, to) = (of.bytes(0, row), of.bytes(1, row).max(1), of.bytes(2, row));
        text.saturating_add((text / from + 1).saturating_mul(to))
    }),
    // A group that the replacement names expands to no more than the text, over all matches.
    ("regexp_replace", |of, row| (of.bytes(0, row) + 1).saturating_mul(of.bytes(2, row) + 1).saturating_mul(2)),
    ("concat", sum),
    ("concat_ws", |of, row| sum(of, row).saturating_add(of.bytes(0, row).saturating_mul(of.columns.len() as u64))),
    ("array_to_string", |of, row| {
        of.bytes(0, row).saturating_mul(2).saturating_add(of.elements(0, row).saturating_mul(of.bytes(1, row)))
    }),
    ("array_repeat", |of, row| (of.bytes(0, row) + VALUE_BYTES).saturating_mul(of.count(1, row))),
    ("array_resize", |of, row| {
        (of.bytes(2, row) + VALUE_BYTES).saturating_mul(of.count(1, row)).saturating_add(of.bytes(0, row))
    }),
    ("array_concat", sum),
    ("array_append", sum),
    ("array_prepend", sum),
    ("make_array", sum),
    ("range", steps),
    ("generate_series", steps),
];

fn padded(of: &Arguments, row: usize) -> u64 {
    // A length counts letters of at most four bytes each; a blank takes one.
    let letter = if of.columns.len() > 2 { 4 } else { 1 };
    of.count(1, row).saturating_mul(letter).saturating_add(of.bytes(0, row))
}

fn sum(of: &Arguments, row: usize) -> u64 {
    (0..of.columns.len()).fold(0, |sum: u64, column| sum.saturating_add(of.bytes(column, row)))
}

fn steps(of: &Arguments, row: usize) -> u64 {
    let (start, stop) = match of.columns.as_slice() {
        [_] => (Some(0), of.ordinal(0, row)),
        _ => (of.ordinal(0, row), of.ordinal(1, row)),
    };
    let step = if of.columns.len() > 2 { of.step(2, row) } else { 1 };
    let (Some(start), Some(stop)) = (start, stop) else { return 0 };
    // The function itself refuses a step of zero.
    let count = stop.abs_diff(start).checked_div(step.unsigned_abs()).unwrap_or(0);
    (u64::try_from(count).unwrap_or(u64::MAX)).saturating_add(1).saturating_mul(VALUE_BYTES)
}

/// Replaces the engine's functions by bounded ones; an existing bound stays beneath the new one.
pub(super) fn register(state: &mut SessionState, memory_limit_bytes: usize) {
    for (name, most) in BOUNDED {
        let Some(inner) = state.scalar_functions().get(*name).cloned() else { continue };
        let limit = memory_limit_bytes / PART;
        // A registry takes any function.
        drop(state.register_udf(Arc::new(ScalarUDF::from(Bounded { inner, most: *most, limit }))));
    }
}

/// One argument: a value a row, or one for all.
struct Column {
    array: ArrayRef,
    constant: bool,
}

struct Arguments {
    columns: Vec<Column>,
}

// === impl Arguments ===

impl Arguments {
    fn of(arguments: &[ColumnarValue]) -> Result<Self> {
        let columns = arguments.iter().map(|argument| {
            let (array, constant) = match argument {
                ColumnarValue::Array(array) => (Arc::clone(array), false),
                ColumnarValue::Scalar(value) => (value.to_array()?, true),
            };
            Ok(Column { array, constant })
        });
        Ok(Self { columns: columns.collect::<Result<_>>()? })
    }

    /// Returns an argument and the place of its value for a row; `None` if it is null.
    fn at(&self, column: usize, row: usize) -> Option<(&ArrayRef, usize)> {
        let column = self.columns.get(column)?;
        let row = if column.constant { 0 } else { row };
        (row < column.array.len() && column.array.is_valid(row)).then_some((&column.array, row))
    }

    /// Returns the bytes of a value.
    fn bytes(&self, column: usize, row: usize) -> u64 {
        let Some((array, row)) = self.at(column, row) else { return 0 };
        let bytes = match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row).len(),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row).len(),
            DataType::Utf8View => array.as_string_view().value(row).len(),
            // Lists and the like: the bytes of a copy.
            _ => array.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(0),
        };
        bytes as u64
    }

    /// Elements of a list.
    fn elements(&self, column: usize, row: usize) -> u64 {
        let Some((array, row)) = self.at(column, row) else { return 0 };
        match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().value(row).len() as u64,
            DataType::LargeList(_) => array.as_list::<i64>().value(row).len() as u64,
            DataType::FixedSizeList(_, size) => u64::try_from(*size).unwrap_or(0),
            _ => 0,
        }
    }

    /// Returns a number as it is, a moment in nanoseconds.
    fn ordinal(&self, column: usize, row: usize) -> Option<i128> {
        let (array, row) = self.at(column, row)?;
        let one = array.slice(row, 1);
        let nanos = match array.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Date32 => i128::from(DAY_NANOS),
            _ => 1,
        };
        let kind = array.data_type();
        let numbers = if *kind == DataType::Date32 { cast(&one, &DataType::Int32).ok()? } else { one };
        let numbers = cast(&numbers, &DataType::Int64).ok()?;
        let numbers: &Int64Array = numbers.as_primitive::<Int64Type>();
        numbers.is_valid(0).then(|| i128::from(numbers.value(0)) * nanos)
    }

    /// Returns a number of times; 0 if it is negative or null.
    fn count(&self, column: usize, row: usize) -> u64 {
        self.ordinal(column, row).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
    }

    /// Returns a step of a series, in the unit of [`Arguments::ordinal`]. Every month counts as the shortest.
    fn step(&self, column: usize, row: usize) -> i128 {
        let Some((array, at)) = self.at(column, row) else { return 0 };
        if let DataType::Interval(_) = array.data_type() {
            let whole = DataType::Interval(IntervalUnit::MonthDayNano);
            let Ok(step) = cast(&array.slice(at, 1), &whole) else { return 1 };
            let step = step.as_primitive::<IntervalMonthDayNanoType>().value(0);
            let days = i128::from(step.months) * i128::from(MONTH_DAYS) + i128::from(step.days);
            return days * i128::from(DAY_NANOS) + i128::from(step.nanoseconds);
        }
        self.ordinal(column, row).unwrap_or(0)
    }
}

/// A function with a bound.
struct Bounded {
    inner: Arc<ScalarUDF>,
    most: Most,
    /// Bytes.
    limit: usize,
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").field("inner", &self.inner.name()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && self.limit == other.limit
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
        self.limit.hash(state);
    }
}

// === impl Bounded ===

impl Bounded {
    fn too_much(&self, bytes: u64, rows: usize) -> DataFusionError {
        resources_datafusion_err!(
            "`{}` could make {} MiB from {rows} {}, more than the {} MiB allowed at once",
            self.inner.name(),
            bytes >> 20,
            if rows == 1 { "row" } else { "rows" },
            self.limit >> 20
        )
    }

    /// Computes the rows in parts, each within the bound, and all parts together within it.
    fn in_parts(&self, arguments: &ScalarFunctionArgs, of: &Arguments) -> Result<ColumnarValue> {
        let limit = self.limit as u64;
        let (mut parts, mut from, mut bytes, mut made): (Vec<ArrayRef>, _, _, _) = (Vec::new(), 0, 0_u64, 0_u64);
        for row in 0..=arguments.number_rows {
            let next = if row < arguments.number_rows { (self.most)(of, row) } else { u64::MAX };
            if row < arguments.number_rows && next > limit {
                return Err(self.too_much(next, 1));
            }
            if bytes.saturating_add(next) > limit && row > from {
                let part = self.some(arguments, from, row - from)?;
                let column = Column { array: Arc::clone(&part), constant: false };
                let results = Arguments { columns: vec![column] };
                made = (0..part.len()).fold(made, |made, row| made.saturating_add(results.bytes(0, row)));
                if made > limit {
                    return Err(self.too_much(made, row));
                }
                parts.push(part);
                (from, bytes) = (row, 0);
            }
            bytes = bytes.saturating_add(next);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }

    fn some(&self, arguments: &ScalarFunctionArgs, from: usize, rows: usize) -> Result<ArrayRef> {
        let mut some = arguments.clone();
        some.number_rows = rows;
        some.args = arguments
            .args
            .iter()
            .map(|argument| match argument {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, rows)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            })
            .collect();
        self.inner.inner().invoke_with_args(some)?.into_array(rows)
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(found)
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        self.inner.return_type(found)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    // `simplify` is left out: it would replace this function by the unbounded one.

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let of = Arguments::of(&arguments.args)?;
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let limit = self.limit as u64;
        let most = (0..rows).fold(0_u64, |sum, row| sum.saturating_add((self.most)(&of, row)));
        if most <= limit && constant {
            // One value for all rows, even if the function would repeat it.
            let mut one = arguments;
            one.number_rows = 1;
            let value = match self.inner.inner().invoke_with_args(one)? {
                ColumnarValue::Array(array) => ScalarValue::try_from_array(&array, 0)?,
                ColumnarValue::Scalar(value) => value,
            };
            return Ok(ColumnarValue::Scalar(value));
        }
        if most <= limit {
            return self.inner.inner().invoke_with_args(arguments);
        }
        if constant {
            return Err(self.too_much(most, 1));
        }
        self.in_parts(&arguments, &of)
    }
}
