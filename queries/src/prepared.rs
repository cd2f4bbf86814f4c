//! Statements with parameters: `$1`, `$2`, … stand for values, never for SQL text.

use std::collections::HashMap;

use bellwether_base::{Error, Result};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, ParamValues};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;

/// Most parameters of a statement.
const MOST_PARAMETERS: usize = 1000;

/// A prepared statement, for the session that prepared it or any other.
#[derive(Clone, Debug)]
pub struct Prepared {
    statement: Statement,
    parameters: Vec<DataType>,
    schema: SchemaRef,
}

// === impl Prepared ===

impl Prepared {
    /// Determines the types of a statement's parameters and of its answer. A parameter whose type is not known has the type
    /// `otherwise`.
    pub(crate) fn new(
        statement: Statement,
        plan: LogicalPlan,
        declared: &[Option<DataType>],
        otherwise: Option<DataType>,
    ) -> std::result::Result<Result<Self>, DataFusionError> {
        let (found, implied) = (plan.get_parameter_types()?, implied(&plan)?);
        let mut count = declared.len().min(MOST_PARAMETERS);
        for name in found.keys() {
            match number(name) {
                Some(number) => count = count.max(number),
                None => return Ok(Err(no_parameter(name))),
            }
        }
        let mut parameters = Vec::with_capacity(count);
        for place in 0..count {
            let name = format!("${}", place + 1);
            let stated = declared.get(place).cloned().flatten();
            // A parameter that the statement does not use accepts any value.
            let left_out = (!found.contains_key(&name)).then_some(DataType::Null);
            let inferred = || found.get(&name).cloned().flatten().or_else(|| implied.get(&name).cloned());
            match stated.or_else(inferred).or(left_out).or_else(|| otherwise.clone()) {
                Some(kind) => parameters.push(kind),
                None => return Ok(Err(no_type(&name))),
            }
        }
        let nulls = parameters.iter().map(ScalarValue::try_from).collect::<std::result::Result<Vec<_>, _>>()?;
        let plan = if nulls.is_empty() { plan } else { plan.replace_params_with_values(&ParamValues::from(nulls))? };
        let schema = SchemaRef::clone(plan.schema().inner());
        Ok(Ok(Self { statement, parameters, schema }))
    }

    /// Types of the parameters, from `$1` on.
    pub fn parameters(&self) -> &[DataType] {
        &self.parameters
    }

    /// Returns the columns of the answer.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(crate) fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Casts values to the types of the parameters.
    pub(crate) fn cast(&self, values: &[ScalarValue]) -> Result<Vec<ScalarValue>> {
        if values.len() != self.parameters.len() {
            return Err(Error::config(format!(
                "the statement has {} parameters, and {} values were given",
                self.parameters.len(),
                values.len()
            ))
            .with_hint("give one value for each of $1, $2, ..."));
        }
        let cast = |(place, (value, kind)): (usize, (&ScalarValue, &DataType))| {
            let number = place + 1;
            if *kind == DataType::Null {
                return Ok(value.clone());
            }
            value.cast_to(kind).map_err(|source| {
                Error::config(format!("parameter ${number} is `{value}`, which is not of type {kind}"))
                    .with_source(source)
            })
        };
        values.iter().zip(&self.parameters).enumerate().map(cast).collect()
    }
}

/// Returns the types of parameters that the engine itself does not find: those to which a statement casts, as in
/// `CAST($1 AS BIGINT)`, and those of lists in which it looks for something, as in `task = ANY($1)`.
fn implied(plan: &LogicalPlan) -> std::result::Result<HashMap<String, DataType>, DataFusionError> {
    let mut implied = HashMap::new();
    plan.apply_with_subqueries(|plan| {
        let schema = merge_schema(&plan.inputs());
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Cast(cast) => {
                        if let Expr::Placeholder(parameter) = cast.expr.as_ref() {
                            implied.entry(parameter.id.clone()).or_insert_with(|| cast.field.data_type().clone());
                        }
                    }
                    Expr::ScalarFunction(call) if call.name() == "array_has" => {
                        if let [Expr::Placeholder(parameter), item] = call.args.as_slice()
                            && let Ok(kind) = item.get_type(&schema)
                        {
                            implied
                                .entry(parameter.id.clone())
                                .or_insert_with(|| DataType::new_list(plain(kind), true));
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(implied)
}

/// Returns the type of values, whatever the way in which they are stored.
fn plain(kind: DataType) -> DataType {
    match kind {
        DataType::Dictionary(_, value) => plain(*value),
        DataType::Utf8View => DataType::Utf8,
        other => other,
    }
}

/// Returns the number in a parameter's name, from 1.
fn number(name: &str) -> Option<usize> {
    let number = name.strip_prefix('$')?.parse().ok()?;
    (1..=MOST_PARAMETERS).contains(&number).then_some(number)
}

fn no_parameter(name: &str) -> Error {
    Error::config(format!("`{name}` is not a parameter"))
        .with_hint(format!("write $1 to ${MOST_PARAMETERS}, as in WHERE task = $1"))
}

fn no_type(name: &str) -> Error {
    Error::config(format!("the type of parameter {name} is not known"))
        .with_hint(format!("declare it, or write CAST({name} AS BIGINT)"))
}
