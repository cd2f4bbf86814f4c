//! `segments['region']`: casts the key to the type of the map's keys.
//!
//! The engine compares the literal with the keys as it is, and fails if the literal is `Utf8` and the keys are `Utf8View`, as
//! in rows in memory.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::prelude::SessionContext;

/// Registers the rewrite.
pub(super) fn register(context: &SessionContext) {
    let mut registry = context.clone();
    // A registry takes any rewrite.
    drop(registry.register_function_rewrite(std::sync::Arc::new(MapKey)));
}

#[derive(Debug)]
struct MapKey;

impl FunctionRewrite for MapKey {
    fn name(&self) -> &str {
        "map_key"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::ScalarFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
        if call.func.name() == "get_field"
            && let [base, Expr::Literal(key, _), ..] = call.args.as_mut_slice()
            && let Ok(DataType::Map(entries, _)) = base.get_type(schema)
            && let DataType::Struct(entries) = entries.data_type()
            && let Some(kind) = entries.first().map(|keys| keys.data_type())
            && key.data_type() != *kind
            && let Ok(same) = key.cast_to(kind)
        {
            *key = same;
            return Ok(Transformed::yes(Expr::ScalarFunction(call)));
        }
        Ok(Transformed::no(Expr::ScalarFunction(call)))
    }
}
