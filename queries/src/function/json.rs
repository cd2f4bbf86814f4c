//! JSON in text columns, such as `extra` and `content_json`: the functions of `datafusion-functions-json`, and the operators
//! `->` and `->>` as in PostgreSQL.
//!
//! `json_get` of that crate returns a union of types, which can be neither grouped nor written to a file. Here `json_get` and
//! `->` return the JSON text of what they find: it can be searched again, compared, sorted and cast.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

use super::info::{FunctionInfo, FunctionKind};

/// Each function with its arguments, meaning and an example.
const DOCUMENTED: &[(&str, &str, &str, &str)] = &[
    (
        "json_get_json",
        "json, key [, key, ...]",
        "The JSON text under a path of keys and array indexes (from 0); also `json_get`, and `json -> key`. Null if there is \
         none.",
        "SELECT json_get_json('{\"a\": [1, {\"b\": 2}]}', 'a', 1)",
    ),
    (
        "json_as_text",
        "json, key [, key, ...]",
        "The value at the path as text, a string without its quotes; also `json ->> key`.",
        "SELECT json_as_text('{\"channel\": \"web\"}', 'channel')",
    ),
    (
        "json_get_str",
        "json, key [, key, ...]",
        "The string at the path; null if it is of another type.",
        "SELECT json_get_str('{\"a\": \"b\"}', 'a')",
    ),
    (
        "json_get_int",
        "json, key [, key, ...]",
        "The whole number at the path; null if it is of another type.",
        "SELECT json_get_int('{\"a\": 7}', 'a')",
    ),
    (
        "json_get_float",
        "json, key [, key, ...]",
        "The number at the path; null if it is of another type.",
        "SELECT json_get_float('{\"a\": 0.5}', 'a')",
    ),
    (
        "json_get_bool",
        "json, key [, key, ...]",
        "The boolean at the path; null if it is of another type.",
        "SELECT json_get_bool('{\"a\": true}', 'a')",
    ),
    (
        "json_get_array",
        "json, key [, key, ...]",
        "The array at the path, as a list of JSON texts, for `unnest`.",
        "SELECT unnest(json_get_array('{\"a\": [1, 2]}', 'a'))",
    ),
    (
        "json_contains",
        "json, key [, key, ...]",
        "True if the path exists, even if its value is null.",
        "SELECT json_contains('{\"a\": null}', 'a')",
    ),
    (
        "json_length",
        "json [, key, ...]",
        "Number of elements of the array, or of keys of the object, at the path.",
        "SELECT json_length('[1, 2, 3]')",
    ),
    (
        "json_object_keys",
        "json [, key, ...]",
        "Keys of the object at the path, as a list.",
        "SELECT json_object_keys('{\"a\": 1, \"b\": 2}')",
    ),
];

/// Registers functions and operators.
pub(super) fn register(context: &SessionContext) {
    for function in [
        udfs::json_as_text_udf(),
        udfs::json_get_str_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_bool_udf(),
        udfs::json_get_array_udf(),
        udfs::json_contains_udf(),
        udfs::json_length_udf(),
        udfs::json_object_keys_udf(),
    ] {
        context.register_udf(function.as_ref().clone());
    }
    context.register_udf(udfs::json_get_json_udf().as_ref().clone().with_aliases(["json_get"]));
    let mut registry = context.clone();
    // A registry takes any planner.
    drop(registry.register_expr_planner(Arc::new(Operators)));
}

/// Documents a function, if it is one of these.
pub(super) fn document(info: &mut FunctionInfo) {
    let known = DOCUMENTED.iter().find(|(name, ..)| info.kind == FunctionKind::Scalar && info.name == *name);
    if let Some((name, arguments, doc, example)) = known {
        info.syntax = format!("{name}({arguments})");
        info.doc = (*doc).to_owned();
        info.arguments = Vec::new();
        info.example = Some((*example).to_owned());
    }
}

/// `->` and `->>`.
#[derive(Debug)]
struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let func: Arc<ScalarUDF> = match expr.op {
            BinaryOperator::Arrow => udfs::json_get_json_udf(),
            BinaryOperator::LongArrow => udfs::json_as_text_udf(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func, args: vec![expr.left, expr.right] })))
    }
}
