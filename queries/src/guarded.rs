//! A table that does not accept filters on nested columns, or on no column at all.
//!
//! A filter that is pushed into the scan is evaluated against the types in the files, in which every nested field may be null;
//! the plan expects the types of the table. DataFusion asserts in debug builds that they agree. Refusing costs nothing, because
//! nested columns have no statistics to skip files by.
//!
//! A condition such as `a = NULL` folds to null, which holds for no row. The table of deltalake takes it for a condition on partition
//! columns, because it names no other, claims to apply it, and returns all rows.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::{Constraints, Result, Statistics};
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

/// A table of the lake that refuses some filters; they are applied to its rows.
#[derive(Debug)]
pub(crate) struct Guarded(pub(crate) Arc<dyn TableProvider>);

// === impl Guarded ===

impl Guarded {
    fn is_refused(&self, filter: &Expr) -> bool {
        let (schema, columns) = (self.0.schema(), filter.column_refs());
        let is_nested = |name: &str| schema.field_with_name(name).is_ok_and(|field| field.data_type().is_nested());
        columns.is_empty() || columns.iter().any(|column| is_nested(&column.name))
    }
}

#[async_trait]
impl TableProvider for Guarded {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.0.constraints()
    }

    fn table_type(&self) -> TableType {
        self.0.table_type()
    }

    fn get_logical_plan(&self) -> Option<std::borrow::Cow<'_, LogicalPlan>> {
        self.0.get_logical_plan()
    }

    fn statistics(&self) -> Option<Statistics> {
        self.0.statistics()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let inner = self.0.supports_filters_pushdown(filters)?;
        let kept = filters.iter().zip(inner).map(|(filter, inner)| {
            if self.is_refused(filter) { TableProviderFilterPushDown::Unsupported } else { inner }
        });
        Ok(kept.collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.scan(state, projection, filters, limit).await
    }

    async fn scan_with_args<'a>(&self, state: &dyn Session, args: ScanArgs<'a>) -> Result<ScanResult> {
        self.0.scan_with_args(state, args).await
    }
}
