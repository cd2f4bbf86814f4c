//! The SQL functions: those of crate `metrics`, those of detection, those over times, and DataFusion's own, with their
//! documentation.
//!
//! * `arguments` holds types, documentation and values of arguments; `scalar`, `aggregate`, `window` and `table` give each
//!   kind of function one form, and `identity` has their common part.
//! * `bounded` holds DataFusion's functions to a session's memory; `json` adds functions of JSON texts.
//! * `evidence` and `measure` are the scalar functions themselves; `attribution` explains changes;
//!   `spans` has the functions over metrics of chosen times.

mod aggregate;
mod arguments;
mod attribution;
mod bounded;
mod evidence;
mod identity;
mod info;
mod json;
mod map_key;
mod measure;
mod samples;
mod scalar;
mod spans;
mod table;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeSet;

use datafusion::execution::SessionState;
use datafusion::logical_expr::Documentation;
use datafusion::prelude::SessionContext;

pub use info::{FunctionInfo, FunctionKind};
pub(crate) use spans::register as register_spans;

/// Registers our own functions and lists all of them.
pub(crate) fn register(context: &SessionContext, memory_limit_bytes: usize) -> Vec<FunctionInfo> {
    let before: BTreeSet<(FunctionKind, String)> =
        list(context).into_iter().map(|info| (info.kind, info.name)).collect();
    bellwether_metrics::register(context);
    register_detection(context);
    json::register(context);
    map_key::register(context);
    bound(&mut context.state_ref().write(), memory_limit_bytes);
    let mut functions = list(context);
    for function in &mut functions {
        function.own = !before.contains(&(function.kind, function.name.clone()));
        json::document(function);
    }
    // DataFusion keeps no documentation of table functions.
    let tables: Vec<FunctionInfo> = table::ALL.iter().map(table::TableFunction::info).chain(spans::infos()).collect();
    functions.retain(|function| {
        function.kind != FunctionKind::Table || tables.iter().all(|table| table.name != function.name)
    });
    functions.extend(tables);
    functions.sort_by(|left, right| (!left.own, &left.name, left.kind).cmp(&(!right.own, &right.name, right.kind)));
    functions
}

/// Holds the functions of a state to the memory of a session.
pub(crate) fn bound(state: &mut SessionState, memory_limit_bytes: usize) {
    bounded::register(state, memory_limit_bytes);
}

/// Registers the functions of detection.
fn register_detection(context: &SessionContext) {
    let scalars = [evidence::all(), measure::all(), attribution::scalars()];
    scalars.into_iter().flatten().for_each(|function| context.register_udf(function));
    let aggregates = [aggregate::all(), samples::all()];
    aggregates.into_iter().flatten().for_each(|function| context.register_udaf(function));
    let windows = [window::all(), attribution::windows()];
    windows.into_iter().flatten().for_each(|function| context.register_udwf(function));
    table::ALL.iter().for_each(|table| context.register_udtf(table.name, table.function()));
}

fn list(context: &SessionContext) -> Vec<FunctionInfo> {
    let state = context.state();
    let mut functions = Vec::new();
    // Aliases are registered as well; each function is listed once, under its own name.
    for (name, function) in state.scalar_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Scalar, function.documentation()));
        }
    }
    for (name, function) in state.aggregate_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Aggregate, function.documentation()));
        }
    }
    for (name, function) in state.window_functions() {
        if name == function.name() {
            functions.push(info(name, FunctionKind::Window, function.documentation()));
        }
    }
    for name in state.table_functions().keys() {
        functions.push(info(name, FunctionKind::Table, None));
    }
    functions
}

fn info(name: &str, kind: FunctionKind, documentation: Option<&Documentation>) -> FunctionInfo {
    FunctionInfo {
        name: name.to_owned(),
        kind,
        own: false,
        syntax: documentation.map_or_else(|| format!("{name}(...)"), |text| text.syntax_example.clone()),
        doc: documentation.map(|text| text.description.trim().to_owned()).unwrap_or_default(),
        arguments: documentation.and_then(|text| text.arguments.clone()).unwrap_or_default(),
        example: documentation.and_then(|text| text.sql_example.clone()),
    }
}
