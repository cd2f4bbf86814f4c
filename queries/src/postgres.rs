//! The parts of Postgres that its clients expect to find: types, the schema `pg_catalog`, its functions, and forms of SQL.
//!
//! * `kind` maps the engine's types to those of Postgres; a catalogue and a protocol that disagree would break clients.
//! * `catalog` is the schema: it describes tables, views and functions, and holds no row of any of them, so that it is the same for
//!   all tenants.
//! * `function` has the functions by which clients read it.
//! * `rewrite` turns forms of SQL that only Postgres has into others; `empty` finds queries that read an empty relation of the
//!   schema, which need no plan.
//!
//! Rule: nothing here is an answer about rows. A client that asks for more than this gets an error, not a wrong answer.

mod catalog;
mod empty;
mod function;
mod kind;
mod rewrite;

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::{FunctionRegistry, SessionState};

use crate::catalog::{CATALOG, Catalog};
use crate::function::FunctionInfo;

pub use function::SERVER_VERSION;
pub use kind::PgType;
pub(crate) use rewrite::rewrite;

/// Name of the schema.
const PG_CATALOG: &str = "pg_catalog";

/// Object id of the first table or view: Postgres keeps smaller ones for itself.
const FIRST_RELATION: i64 = 16_384;

/// Object id of the first function.
const FIRST_FUNCTION: i64 = 32_768;

/// The schema `pg_catalog` of an engine, and its functions.
pub(crate) struct Postgres {
    functions: Vec<Arc<datafusion::logical_expr::ScalarUDF>>,
    relations: Arc<catalog::Relations>,
}

// === impl Postgres ===

impl Postgres {
    /// Makes the schema; its relations are filled when a statement first reads one.
    pub(crate) fn new(functions: &[FunctionInfo]) -> Self {
        let made = function::all(functions).into_iter().map(Arc::new).collect();
        Self { functions: made, relations: Arc::new(catalog::Relations::new(functions)) }
    }

    /// Adds the schema and its functions to the state of a statement.
    pub(crate) fn register(&self, state: &mut SessionState, catalog: &Arc<Catalog>) -> Result<()> {
        for function in &self.functions {
            state.register_udf(Arc::clone(function))?;
        }
        if let Some(found) = state.catalog_list().catalog(CATALOG) {
            found.register_schema(PG_CATALOG, Arc::new(catalog::PgCatalog::new(&self.relations, catalog)))?;
        }
        Ok(())
    }
}

/// Returns the object id of a table or view.
fn relation_oid(name: &str) -> Option<i64> {
    crate::catalog::names().iter().zip(FIRST_RELATION..).find(|(known, _)| *known == name).map(|(_, oid)| oid)
}
