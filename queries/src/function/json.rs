//! JSON in text columns, such as `extra` and `content_json`: the functions of `datafusion-functions-json`, and the operators
//! `->` and `->>` as PostgreSQL has them.
//!
//! That crate's `json_get` gives a union of types, which can be neither grouped by nor written to a file. Here `json_get` and
//! `->` give the JSON text of what they find: it can be looked into again, compared, sorted and cast.

use std::sync::Arc;

use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ScalarUDF};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use datafusion_functions_json::udfs;

use super::{FunctionInfo, FunctionKind};

/// Functions: name, arguments, meaning and an example.
const DOCUMENTED: &[(&str, &str, &str, &str)] = &[
    (
        "json_get_json",
        "json, key [, key, ...]",
        "The JSON text found under keys and places (from 0); also `json_get`, and `json -> key`. Null where there is none.",
        "SELECT json_get_json('{\"a\": [1, {\"b\": 2}]}', 'a', 1)",
    ),
    (
        "json_as_text",
        "json, key [, key, ...]",
        "What is found there as text, a string without its quotes; also `json ->> key`.",
        "SELECT json_as_text('{\"channel\": \"web\"}', 'channel')",
    ),
    (
        "json_get_str",
        "json, key [, key, ...]",
        "The string found there; null where it is something else.",
        "SELECT json_get_str('{\"a\": \"b\"}', 'a')",
    ),
    (
        "json_get_int",
        "json, key [, key, ...]",
        "The whole number found there; null where it is something else.",
        "SELECT json_get_int('{\"a\": 7}', 'a')",
    ),
    (
        "json_get_float",
        "json, key [, key, ...]",
        "The number found there; null where it is something else.",
        "SELECT json_get_float('{\"a\": 0.5}', 'a')",
    ),
    (
        "json_get_bool",
        "json, key [, key, ...]",
        "The truth value found there; null where it is something else.",
        "SELECT json_get_bool('{\"a\": true}', 'a')",
    ),
    (
        "json_get_array",
        "json, key [, key, ...]",
        "The array found there, as a list of JSON texts, for `unnest`.",
        "SELECT unnest(json_get_array('{\"a\": [1, 2]}', 'a'))",
    ),
    (
        "json_contains",
        "json, key [, key, ...]",
        "True where something is there, be it null.",
        "SELECT json_contains('{\"a\": null}', 'a')",
    ),
    (
        "json_length",
        "json [, key, ...]",
        "Elements of the array, or keys of the object, found there.",
        "SELECT json_length('[1, 2, 3]')",
    ),
    (
        "json_object_keys",
        "json [, key, ...]",
        "Keys of the object found there, as a list.",
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
    // A session takes planners without end.
    drop(registry.register_expr_planner(Arc::new(Operators)));
}

/// Gives a function its documentation, where it is one of these.
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
