//! One form for all scalar functions of detection: a [`Spec`] and the computation of a row.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder, StringArray,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::arguments::{ArgumentKind, ArgumentRow, Spec};
use super::identity::known_by_name;

/// The result of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Number(f64),
    Count(u64),
    Numbers(Vec<f64>),
    Counts(Vec<u64>),
    Text(&'static str),
}

type Compute = fn(ArgumentRow<'_>) -> Result<Option<Value>>;

/// Makes a scalar function.
pub(super) fn scalar(spec: &'static Spec, output: ArgumentKind, compute: Compute) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(Function { spec, output, compute, signature, documentation: spec.documentation() })
}

/// Makes a column of results, all of type `output`.
pub(super) fn column(output: ArgumentKind, values: Vec<Option<Value>>) -> Result<ArrayRef> {
    Ok(match output {
        ArgumentKind::Number => Arc::new(values.iter().map(number).collect::<Float64Array>()),
        ArgumentKind::Count => Arc::new(values.iter().map(count).collect::<Int64Array>()),
        ArgumentKind::Text => Arc::new(values.iter().map(text).collect::<StringArray>()),
        ArgumentKind::Fact => {
            Arc::new(values.iter().map(|value| count(value).map(|n| n == 1)).collect::<BooleanArray>())
        }
        ArgumentKind::Numbers => {
            let mut lists = ListBuilder::new(Float64Builder::new());
            for value in values {
                match value {
                    Some(Value::Numbers(numbers)) => lists.append_value(numbers.into_iter().map(Some)),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
        ArgumentKind::Counts => {
            let mut lists = ListBuilder::new(Int64Builder::new());
            for value in values {
                match value {
                    Some(Value::Counts(counts)) => lists.append_value(counts.into_iter().map(signed)),
                    _ => lists.append_null(),
                }
            }
            Arc::new(lists.finish())
        }
        ArgumentKind::Sketch | ArgumentKind::Moment => return internal_err!("no function returns {output:?}"),
    })
}

fn number(value: &Option<Value>) -> Option<f64> {
    match value {
        Some(Value::Number(number)) if !number.is_nan() => Some(*number),
        _ => None,
    }
}

fn count(value: &Option<Value>) -> Option<i64> {
    match value {
        Some(Value::Count(count)) => signed(*count),
        _ => None,
    }
}

fn text(value: &Option<Value>) -> Option<&'static str> {
    match value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

fn signed(count: u64) -> Option<i64> {
    i64::try_from(count).ok()
}

struct Function {
    spec: &'static Spec,
    output: ArgumentKind,
    compute: Compute,
    signature: Signature,
    documentation: Documentation,
}

known_by_name!(Function);

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        self.spec.coerce(found)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.output.data_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = self.spec.columns(&ColumnarValue::values_to_arrays(&arguments.args)?)?;
        // Constant arguments give one result for all rows.
        let constant = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let values =
            (0..rows).map(|row| columns.row(row).map_or(Ok(None), self.compute)).collect::<Result<Vec<_>>>()?;
        let array = column(self.output, values)?;
        Ok(if constant {
            ColumnarValue::Scalar(datafusion::scalar::ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.documentation)
    }
}
