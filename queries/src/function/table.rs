//! Table functions of detection: small tables computed from their argument.

use std::fmt;
use std::sync::Arc;

use bellwether_stats::burn_rate::{Objective, Severity, WORKBOOK};
use bellwether_stats::{drift, e2x2, rare};
use datafusion::arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, plan_err};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;

use super::info::{FunctionInfo, FunctionKind};

/// Computes the rows of a table from its one argument.
type Compute = fn(&ScalarValue) -> Result<RecordBatch>;

/// A table function of one constant argument.
pub(super) struct TableFunction {
    pub(super) name: &'static str,
    argument: (&'static str, &'static str),
    doc: &'static str,
    example: &'static str,
    compute: Compute,
}

pub(super) static ALL: [TableFunction; 2] = [
    TableFunction {
        name: "burn_rate_windows",
        argument: ("objective", "share of runs that must be good, such as 0.95"),
        doc: "The burn-rate windows of the Site Reliability Workbook for an objective: severity, long_minutes, \
              short_minutes, factor, the error rate at which it fires, whether it can fire, and if not, the reason.",
        example: "SELECT * FROM burn_rate_windows(0.95)",
        compute: burn_rate_windows,
    },
    TableFunction {
        name: "alternatives",
        argument: ("detector", "'e2x2', 'bernoulli' or 'poisson'"),
        doc: "The meaning of each place in a list of increments: the grid of ratios that a detector tests, as \
              multiples of its margin.",
        example: "SELECT * FROM alternatives('e2x2')",
        compute: alternatives,
    },
];

// === impl TableFunction ===

impl TableFunction {
    pub(super) fn info(&self) -> FunctionInfo {
        let (argument, meaning) = self.argument;
        FunctionInfo {
            name: self.name.to_owned(),
            kind: FunctionKind::Table,
            own: true,
            syntax: format!("{}({argument})", self.name),
            doc: self.doc.to_owned(),
            arguments: vec![(argument.to_owned(), meaning.to_owned())],
            example: Some(self.example.to_owned()),
        }
    }

    pub(super) fn function(&'static self) -> Arc<dyn TableFunctionImpl> {
        Arc::new(Function(self))
    }
}

struct Function(&'static TableFunction);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl TableFunctionImpl for Function {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let [Expr::Literal(argument, _)] = args.exprs() else {
            return plan_err!("{} takes one constant: {}; hint: {}", self.0.name, self.0.argument.1, self.0.example);
        };
        let batch = (self.0.compute)(argument)?;
        Ok(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?))
    }
}

fn burn_rate_windows(argument: &ScalarValue) -> Result<RecordBatch> {
    let Ok(ScalarValue::Float64(Some(value))) = argument.cast_to(&DataType::Float64) else {
        return plan_err!("burn_rate_windows takes an objective such as 0.95, not `{argument}`");
    };
    let objective = match Objective::new(value) {
        Ok(objective) => objective,
        Err(error) => return plan_err!("burn_rate_windows: {error}"),
    };
    let severity = |severity| match severity {
        Severity::Page => "page",
        Severity::Ticket => "ticket",
    };
    let reasons = WORKBOOK.map(|windows| objective.threshold(windows.factor).err().map(|reason| reason.to_string()));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("severity", Arc::new(StringArray::from_iter_values(WORKBOOK.map(|w| severity(w.severity))))),
        ("long_minutes", Arc::new(Int64Array::from_iter_values(WORKBOOK.map(|w| i64::from(w.long_minutes))))),
        ("short_minutes", Arc::new(Int64Array::from_iter_values(WORKBOOK.map(|w| i64::from(w.short_minutes))))),
        ("factor", Arc::new(Float64Array::from_iter_values(WORKBOOK.map(|w| w.factor)))),
        ("error_rate", Arc::new(Float64Array::from_iter_values(WORKBOOK.map(|w| w.factor * objective.budget())))),
        ("can_fire", Arc::new(reasons.iter().map(|reason| Some(reason.is_none())).collect::<BooleanArray>())),
        ("reason", Arc::new(reasons.iter().map(Option::as_deref).collect::<StringArray>())),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}

fn alternatives(argument: &ScalarValue) -> Result<RecordBatch> {
    let name = match argument {
        ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name)) => name,
        _ => "",
    };
    let ratios = match name {
        "e2x2" => e2x2::ODDS_RATIOS,
        "bernoulli" => drift::ODDS_RATIOS,
        "poisson" => rare::RATE_RATIOS,
        _ => return plan_err!("alternatives takes 'e2x2', 'bernoulli' or 'poisson', not `{argument}`"),
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("place", Arc::new((1..=ratios.len()).map(|place| i64::try_from(place).ok()).collect::<Int64Array>())),
        ("ratio", Arc::new(Float64Array::from_iter_values(ratios))),
    ];
    Ok(RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))?)
}
