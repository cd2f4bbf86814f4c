//! Scalar functions: intervals, and statistics of sketches.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use bellwether_stats::interval::{Interval, RatioSums, mean, poisson_rate, ratio_delta, ratio_fieller, wilson};
use bellwether_stats::{Sketch, clusters};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::documentation;
use super::whole::{at_bound, rounded};

/// Confidence of every interval.
const CONFIDENCE: f64 = 0.95;

/// One end of an interval.
#[derive(Clone, Copy)]
enum End {
    Low,
    High,
}

impl End {
    fn bound(self, interval: Option<Interval>) -> Option<f64> {
        interval.map(|interval| match self {
            Self::Low => interval.low,
            Self::High => interval.high,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

type Numbers = Box<dyn Fn(&[f64]) -> Option<f64> + Send + Sync>;
type Arrays = Box<dyn Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync>;

/// Returns every scalar function.
pub(super) fn all() -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> = [End::Low, End::High].into_iter().flat_map(intervals).collect();
    functions.extend(sketch_functions());
    functions.extend(integer_functions());
    functions
}

fn integer_functions() -> Vec<ScalarUDF> {
    vec![
        array_function(
            "whole".to_owned(),
            DataType::Int64,
            Signature::any(1, Volatility::Immutable),
            documentation(
                "whole(number)",
                "Rounds a number to an integer; saturates at the range of BIGINT. Null for NaN.",
                "SELECT whole(2.5) AS three, whole(1e300) AS most",
                &[("number", "a number")],
            ),
            Box::new(|arguments| rounded(&arguments[0])),
        ),
        array_function(
            "at_bound".to_owned(),
            DataType::Boolean,
            Signature::variadic_any(Volatility::Immutable),
            documentation(
                "at_bound(number, ...)",
                "True if a number, or a number in a list, is at the end of its type's range, where sums saturate.",
                "SELECT at_bound(9223372036854775807, 1) AS held",
                &[("number", "BIGINT, DECIMAL(38, 0), a list of BIGINT, or a DOUBLE that is converted to BIGINT")],
            ),
            Box::new(|arguments| at_bound(arguments, arguments.first().map_or(0, |column| column.len()))),
        ),
    ]
}

fn intervals(end: End) -> Vec<ScalarUDF> {
    let name = |what: &str| format!("{what}_{}", end.name());
    let describe = |what: &str| match end {
        End::Low => format!("Lower end of the 95 % interval of {what}."),
        End::High => format!("Upper end of the 95 % interval of {what}."),
    };
    let numbers = |what: &str, arguments: &str, of: &str, example: &str, count: usize, compute: Numbers| {
        let (name, syntax) = (name(what), format!("{}({arguments})", name(what)));
        let example = format!("SELECT {name}({example})");
        numeric_function(name, count, documentation(&syntax, &describe(of), &example, &[]), compute)
    };
    vec![
        numbers(
            "wilson",
            "successes, total",
            "a rate (Wilson 1927)",
            "45, 50",
            2,
            Box::new(move |a| end.bound(wilson(a[0], a[1], CONFIDENCE))),
        ),
        numbers(
            "poisson",
            "count, exposure",
            "a rate of rare events (Poisson, Byar's approximation)",
            "3, 1000",
            2,
            Box::new(move |a| end.bound(poisson_rate(a[0], a[1], CONFIDENCE))),
        ),
        numbers(
            "mean",
            "n, sum, sum_of_squares",
            "a mean",
            "100, 250, 900",
            3,
            Box::new(move |a| end.bound(mean(a[0], a[1], a[2], CONFIDENCE))),
        ),
        numbers(
            "ratio",
            "n, sum_y, sum_x, sum_yy, sum_xx, sum_xy",
            "the ratio Σy/Σx (Fieller 1954; the delta method if Fieller's interval is unbounded)",
            "100, 250, 80, 900, 80, 210",
            6,
            Box::new(move |a| {
                let sums = RatioSums { n: a[0], y: a[1], x: a[2], yy: a[3], xx: a[4], xy: a[5] };
                end.bound(ratio_fieller(&sums, CONFIDENCE).or_else(|| ratio_delta(&sums, CONFIDENCE)))
            }),
        ),
        array_function(
            name("clustered"),
            DataType::Float64,
            Signature::any(2, Volatility::Immutable),
            documentation(
                &format!("{}(totals_y, totals_x)", name("clustered")),
                &describe(
                    "the ratio Σy/Σx from totals by random group, valid for runs in sessions (Wolter 2007, ch. 2)",
                ),
                &format!(
                    "SELECT {}(y, x) FROM (SELECT random_groups(random_group(s), 3) AS y, random_groups(random_group(s), 4) AS x \
                 FROM (VALUES ('a'), ('b'), ('c')) AS t(s))",
                    name("clustered")
                ),
                &[],
            ),
            Box::new(move |arguments| {
                let (y, x) = (lists(&arguments[0])?, lists(&arguments[1])?);
                Ok(floats((0..y.len()).map(|row| end.bound(clustered(&y, &x, row)))))
            }),
        ),
        array_function(
            name("wider"),
            DataType::Float64,
            Signature::any(5, Volatility::Immutable),
            documentation(
                &format!("{}(successes, total, kish, totals_successes, totals_total)", name("wider")),
                &describe("a rate: the wider of Wilson's and the clustered interval; Wilson's if the totals are null"),
                &format!("SELECT {}(45.0, 50.0, 1.0, NULL, NULL)", name("wider")),
                &[],
            ),
            Box::new(move |arguments| wider(end, arguments)),
        ),
    ]
}

fn clustered(y: &ListArray, x: &ListArray, row: usize) -> Option<Interval> {
    if y.is_null(row) || x.is_null(row) {
        return None;
    }
    let numbers = |list: ArrayRef| list.as_primitive::<Float64Type>().values().to_vec();
    clusters::ratio_interval(&numbers(y.value(row)), &numbers(x.value(row)), CONFIDENCE)
}

fn wider(end: End, arguments: &[ArrayRef]) -> Result<ArrayRef> {
    let numbers = arguments[..3].iter().map(doubles).collect::<Result<Vec<_>>>()?;
    let (y, x) = (lists(&arguments[3])?, lists(&arguments[4])?);
    Ok(floats((0..y.len()).map(|row| {
        if numbers.iter().any(|column| column.is_null(row)) {
            return None;
        }
        let [successes, total, kish] = [0, 1, 2].map(|column| numbers[column].value(row));
        let plain = end.bound(wilson(successes * kish, total * kish, CONFIDENCE))?;
        let clustered = end.bound(clustered(&y, &x, row)).filter(|bound| bound.is_finite());
        Some(match (end, clustered) {
            (End::Low, Some(bound)) => plain.min(bound.max(0.0)),
            (End::High, Some(bound)) => plain.max(bound.min(1.0)),
            (_, None) => plain,
        })
    })))
}

fn sketch_functions() -> Vec<ScalarUDF> {
    let example =
        |call: &str| format!("SELECT {call} FROM (SELECT sketch_of(ms, 1) AS s FROM (VALUES (120), (240)) AS t(ms))");
    vec![
        array_function(
            "sketch_quantile".to_owned(),
            DataType::Float64,
            Signature::any(2, Volatility::Immutable),
            documentation(
                "sketch_quantile(sketch, q)",
                "The value below which a fraction q of all values lies, within 1 %; null for an empty sketch.",
                &example("sketch_quantile(s, 0.95)"),
                &[("sketch", "a sketch"), ("q", "a fraction from 0 to 1")],
            ),
            Box::new(|arguments| {
                let q = doubles(&arguments[1])?;
                each_sketch(
                    &arguments[0],
                    |sketch, row| if q.is_valid(row) { sketch.quantile(q.value(row)) } else { None },
                )
            }),
        ),
        array_function(
            "sketch_fraction_above".to_owned(),
            DataType::Float64,
            Signature::any(2, Volatility::Immutable),
            documentation(
                "sketch_fraction_above(sketch, threshold)",
                "The fraction of values above a threshold, within 1 % of the threshold.",
                &example("sketch_fraction_above(s, 200)"),
                &[("sketch", "a sketch"), ("threshold", "a non-negative number")],
            ),
            Box::new(|arguments| {
                let thresholds = longs(&arguments[1])?;
                each_sketch(&arguments[0], |sketch, row| {
                    let threshold = thresholds.is_valid(row).then(|| thresholds.value(row));
                    threshold
                        .and_then(|threshold| u64::try_from(threshold).ok())
                        .and_then(|threshold| sketch.fraction_above(threshold))
                })
            }),
        ),
        array_function(
            "sketch_count".to_owned(),
            DataType::Int64,
            Signature::any(1, Volatility::Immutable),
            documentation(
                "sketch_count(sketch)",
                "Number of values in a sketch; rounded if they are weighted.",
                &example("sketch_count(s)"),
                &[("sketch", "a sketch")],
            ),
            Box::new(|arguments| {
                let counts = read_sketches(&arguments[0], |sketch, _| Some(sketch.count()))?;
                Ok(Arc::new(Int64Array::from(counts)))
            }),
        ),
        array_function(
            "random_group".to_owned(),
            DataType::Int64,
            Signature::any(1, Volatility::Immutable),
            documentation(
                "random_group(key)",
                "The random group (0 to 31) of a session; it never changes.",
                "SELECT random_group('session-1')",
                &[("key", "a text")],
            ),
            Box::new(|arguments| {
                let keys = cast(&arguments[0], &DataType::Utf8View)?;
                let groups = keys
                    .as_string_view()
                    .iter()
                    .map(|key| key.map(|key| i64::try_from(clusters::group_of(key)).unwrap_or(0)));
                Ok(Arc::new(groups.collect::<Int64Array>()) as ArrayRef)
            }),
        ),
    ]
}

fn each_sketch(sketches: &ArrayRef, compute: impl Fn(&Sketch, usize) -> Option<f64>) -> Result<ArrayRef> {
    Ok(floats(read_sketches(sketches, compute)?))
}

/// Computes a value from each row's sketch; `None` if it is null.
fn read_sketches<T>(sketches: &ArrayRef, compute: impl Fn(&Sketch, usize) -> Option<T>) -> Result<Vec<Option<T>>> {
    let sketches = cast(sketches, &DataType::Binary)?;
    let sketches = sketches.as_binary::<i32>();
    let answer = |row: usize| {
        if sketches.is_null(row) {
            return Ok(None);
        }
        let sketch = Sketch::decode(sketches.value(row)).map_err(|error| exec_datafusion_err!("{error}"))?;
        Ok(compute(&sketch, row))
    };
    (0..sketches.len()).map(answer).collect()
}

fn doubles(array: &ArrayRef) -> Result<Float64Array> {
    Ok(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
}

fn longs(array: &ArrayRef) -> Result<Int64Array> {
    Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Reads totals by random group, weighted or not, as doubles, which are precise enough for an interval.
fn lists(array: &ArrayRef) -> Result<ListArray> {
    let kind = DataType::List(Arc::new(Field::new("element", DataType::Float64, true)));
    Ok(cast(array, &kind)?.as_list::<i32>().clone())
}

fn floats(values: impl IntoIterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.into_iter().map(|value| value.filter(|value| value.is_finite())).collect::<Float64Array>())
}

fn numeric_function(name: String, count: usize, documentation: Documentation, compute: Numbers) -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Float64; count], Volatility::Immutable);
    array_function(
        name,
        DataType::Float64,
        signature,
        documentation,
        Box::new(move |arguments| {
            let columns = arguments.iter().map(doubles).collect::<Result<Vec<_>>>()?;
            let rows = columns.first().map_or(0, Array::len);
            Ok(floats((0..rows).map(|row| {
                let known = columns.iter().all(|column| column.is_valid(row));
                let numbers: Vec<f64> = columns.iter().map(|column| column.value(row)).collect();
                if known { compute(&numbers) } else { None }
            })))
        }),
    )
}

fn array_function(
    name: String,
    output: DataType,
    signature: Signature,
    documentation: Documentation,
    compute: Arrays,
) -> ScalarUDF {
    ScalarUDF::from(Function { name, output, signature, documentation, compute })
}

/// A scalar function around a computation on arrays.
struct Function {
    name: String,
    output: DataType,
    signature: Signature,
    documentation: Documentation,
    compute: Arrays,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output.clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        (self.compute)(&arrays).map(ColumnarValue::Array)
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}
