//! The tables and views that a statement sees: one snapshot of the tables, as one scope sees them, and views planned when a
//! statement names them.
//!
//! A catalog never changes: when a table has a new version, the engine makes another catalog. So a statement sees one version
//! of every table, and no view keeps the tables that it was planned over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use bellwether_metrics::{AsOf, Rolled, newest_sql, release_summary_sql, rolling_sql, task_sql};
use bellwether_tables::Table;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Int64Type, SchemaRef};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, SchemaProvider,
    TableProvider,
};
use datafusion::datasource::{TableType, ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::functions::expr_fn::now;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::collect;
use datafusion::prelude::col;

use crate::tables::{Snapshot, Tables};
use crate::tenant;
use crate::view::{DAY_MINUTES, View, views};

/// Ranges of time, in minutes, in which the newest window is looked for, before all of `metrics` is.
const RECENT_MINUTES: [i64; 3] = [10, 24 * 60, 30 * 24 * 60];

/// Catalog and schema of the tables and views.
pub(crate) const CATALOG: &str = "bellwether";
pub(crate) const SCHEMA: &str = "public";

/// The kinds of relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Stored in the lake.
    Table,
    /// Derived from tables by a query.
    View,
}

/// A table or view and its documentation.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Name in SQL.
    pub name: String,
    /// Stored or derived.
    pub kind: TableKind,
    /// Description of a row.
    pub doc: String,
    /// A statement to try.
    pub example: Option<String>,
    /// Columns in order.
    pub columns: Vec<ColumnInfo>,
}

/// A column of a table or view.
#[derive(Clone, Debug)]
pub struct ColumnInfo {
    /// Name in SQL.
    pub name: String,
    /// Type, in words.
    pub kind: String,
    /// True if it may be null.
    pub nullable: bool,
    /// Meaning; empty if it is not documented.
    pub doc: String,
}

/// The rows that exist for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope {
    /// Limits them to rows of this tenant.
    pub(crate) tenant: Option<Arc<str>>,
    /// Limits them to rows up to `now()`, by the time in the row.
    pub(crate) at_present: bool,
}

/// The tables and views of one snapshot, as one scope sees them.
pub(crate) struct Catalog {
    itself: Weak<Self>,
    base: Arc<SessionState>,
    tables: Arc<Tables>,
    snapshot: Arc<Snapshot>,
    scope: Scope,
    planned: Mutex<HashMap<&'static str, Arc<dyn TableProvider>>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").field("scope", &self.scope).finish_non_exhaustive()
    }
}

// === impl Catalog ===

impl Catalog {
    pub(crate) fn new(
        base: &Arc<SessionState>,
        tables: &Arc<Tables>,
        snapshot: Arc<Snapshot>,
        scope: &Scope,
    ) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            itself: Weak::clone(itself),
            base: Arc::clone(base),
            tables: Arc::clone(tables),
            snapshot,
            scope: scope.clone(),
            planned: Mutex::default(),
        })
    }

    /// Returns the engine's state with this catalog as its only one.
    pub(crate) fn state(self: &Arc<Self>) -> SessionState {
        let mut state = SessionState::clone(&self.base);
        let catalog = MemoryCatalogProvider::new();
        // A new catalog takes any schema; without it, no statement would plan.
        drop(catalog.register_schema(SCHEMA, Arc::clone(self) as _));
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        state.register_catalog_list(Arc::new(catalogs));
        state.mark_start_execution();
        state
    }

    /// Plans a query over the tables.
    pub(crate) async fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        self.itself()?.state().create_logical_plan(sql).await
    }

    fn itself(&self) -> Result<Arc<Self>> {
        self.itself.upgrade().ok_or_else(|| DataFusionError::Execution("the catalog is gone".to_owned()))
    }

    /// Returns the roll-ups of the snapshot.
    pub(crate) fn rolled(&self) -> Rolled {
        self.snapshot.rolled
    }

    async fn view(&self, view: &'static View) -> Result<Arc<dyn TableProvider>> {
        if let Some(provider) = self.planned.lock().unwrap_or_else(PoisonError::into_inner).get(view.name) {
            return Ok(Arc::clone(provider));
        }
        let (sql, lasting) = self.definition(view).await?;
        let plan = self.plan(&sql).await?;
        let provider: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, Some(sql.into_owned())));
        if lasting {
            self.planned.lock().unwrap_or_else(PoisonError::into_inner).insert(view.name, Arc::clone(&provider));
        }
        Ok(provider)
    }

    /// Returns the query of a view, and whether it is the same for as long as the snapshot. Views over long times read the
    /// roll-ups that the snapshot has.
    async fn definition(&self, view: &'static View) -> Result<(Cow<'static, str>, bool)> {
        let rolled = self.snapshot.rolled;
        Ok(match view.name {
            "rolling" if self.snapshot.stored && !self.scope.at_present => match self.newest().await? {
                (Some(micros), lasting) => (rolling_sql(AsOf::Micros(micros), rolled).into(), lasting),
                (None, lasting) => (Cow::Borrowed(&view.sql), lasting),
            },
            "release_summary" => (release_summary_sql(rolled).into(), true),
            "last_day" => (task_sql(DAY_MINUTES, rolled).into(), true),
            _ => (Cow::Borrowed(&view.sql), true),
        })
    }

    /// Finds the end of the newest window that has begun, microseconds since the epoch, so that a query can name it and skip
    /// files. Also returns whether it stays the newest for as long as the snapshot: no window is ahead of the clock.
    async fn newest(&self) -> Result<(Option<i64>, bool)> {
        let mut found = (None, true);
        for minutes in RECENT_MINUTES.into_iter().map(Some).chain([None]) {
            let state = self.itself()?.state();
            let plan = state.create_logical_plan(&newest_sql(minutes)).await?;
            let plan = state.create_physical_plan(&plan).await?;
            for rows in collect(plan, state.task_ctx()).await?.iter().filter(|rows| rows.num_rows() > 0) {
                let begun = rows.column(0).as_primitive::<Int64Type>();
                let begun = begun.is_valid(0).then(|| begun.value(0));
                found = (begun, !rows.column(1).as_boolean().value(0));
            }
            if found.0.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Returns a stored table, without the rows that do not exist for the scope.
    fn stored(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(provider) = self.snapshot.table(name) else { return Ok(None) };
        let mut provider = Arc::clone(provider);
        if let Some(table) = table_of(name).filter(|_| self.scope.at_present) {
            provider = up_to_now(table, provider)?;
        }
        if let Some(tenant) = &self.scope.tenant {
            provider = tenant::rows_of(tenant, name, provider);
        }
        Ok(Some(provider))
    }

    /// Returns the columns of view `rolling`, once [`Catalog::prepare`] has planned it.
    pub(crate) fn rolling_columns(&self) -> Option<SchemaRef> {
        self.tables.rolling_columns()
    }

    /// Plans view `rolling` for its columns.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let plan = self.plan(&rolling_sql(AsOf::Micros(0), Rolled::default())).await?;
        self.tables.note_rolling_columns(Arc::clone(plan.schema().inner()));
        Ok(())
    }

    /// Returns every table and view with its columns.
    pub(crate) async fn describe(&self) -> Result<Vec<TableInfo>> {
        let mut infos = Vec::new();
        for table in Table::ALL {
            infos.push(table_info(table));
        }
        for view in views() {
            let provider = self.view(view).await?;
            infos.push(view_info(view, &provider.schema()));
        }
        Ok(infos)
    }
}

/// Names of the tables and views.
pub(crate) fn names() -> Vec<String> {
    let tables = Table::ALL.iter().map(|table| table.name());
    tables.chain(views().iter().map(|view| view.name)).map(str::to_owned).collect()
}

fn table_of(name: &str) -> Option<Table> {
    Table::ALL.into_iter().find(|table| table.name() == name)
}

/// Returns a table without the rows after `now()`.
fn up_to_now(table: Table, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let existed = match table {
        Table::Events => col("ingested_at").lt_eq(now()),
        Table::Metrics | Table::MetricsHourly | Table::MetricsDaily => col("window_start").lt(now()),
        Table::Releases => col("first_seen").lt_eq(now()),
        Table::RollingHistory => col("written_at").lt_eq(now()),
        Table::Quarantine => col("quarantined_at").lt_eq(now()),
        Table::Alerts => col("evaluated_at").lt_eq(now()),
        Table::AlertActions => col("at").lt_eq(now()),
        Table::Deliveries | Table::Candidates => col("written_at").lt_eq(now()),
    };
    let scan = LogicalPlanBuilder::scan(table.name(), provider_as_source(provider), None)?;
    Ok(Arc::new(ViewTable::new(scan.filter(existed)?.build()?, None)))
}

fn table_info(table: Table) -> TableInfo {
    let columns = table
        .columns()
        .iter()
        .map(|column| ColumnInfo {
            name: column.name.to_owned(),
            kind: bellwether_tables::kind_name(column.kind),
            nullable: !column.required,
            doc: column.doc.to_owned(),
        })
        .collect();
    TableInfo {
        name: table.name().to_owned(),
        kind: TableKind::Table,
        doc: table.doc().to_owned(),
        example: None,
        columns,
    }
}

/// Describes a view; a column that the view does not document has the documentation of the table column of its name.
fn view_info(view: &View, schema: &SchemaRef) -> TableInfo {
    let from_tables = |name: &str| {
        Table::ALL
            .iter()
            .flat_map(|table| table.columns())
            .find(|column| column.name == name)
            .map_or_else(String::new, |column| column.doc.to_owned())
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let own = view.columns.iter().find(|(name, _)| name == field.name()).map(|(_, doc)| doc.clone());
            ColumnInfo {
                name: field.name().clone(),
                kind: type_name(field.data_type()),
                nullable: field.is_nullable(),
                doc: own.unwrap_or_else(|| from_tables(field.name())),
            }
        })
        .collect();
    TableInfo {
        name: view.name.to_owned(),
        kind: TableKind::View,
        doc: view.doc.clone(),
        example: view.example.clone(),
        columns,
    }
}

/// Returns the answer to `DESCRIBE`, or with a catalog to `SHOW COLUMNS`: types in words, and the meaning of columns.
pub(crate) fn description(info: &TableInfo, catalog: Option<(&str, &str)>) -> Result<RecordBatch> {
    let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
    let all = |text: &dyn Fn(&ColumnInfo) -> String| -> ArrayRef {
        Arc::new(info.columns.iter().map(|column| Some(text(column))).collect::<StringArray>())
    };
    if let Some((catalog, schema)) = catalog {
        columns.push(("table_catalog", all(&|_| catalog.to_owned())));
        columns.push(("table_schema", all(&|_| schema.to_owned())));
        columns.push(("table_name", all(&|_| info.name.clone())));
    }
    columns.push(("column_name", all(&|column| column.name.clone())));
    columns.push(("data_type", all(&|column| column.kind.clone())));
    columns.push(("is_nullable", all(&|column| if column.nullable { "YES" } else { "NO" }.to_owned())));
    columns.push(("meaning", all(&|column| column.doc.clone())));
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Returns an Arrow type in the words of the tables' reference.
fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "long".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Timestamp(..) => "timestamp (UTC, µs)".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "binary".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
            DataType::Struct(fields) => {
                let fields: Vec<String> =
                    fields.iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
                format!("list of ({})", fields.join(", "))
            }
            other => format!("list of {}", type_name(other)),
        },
        DataType::Map(..) => "map of text by text".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

#[async_trait]
impl SchemaProvider for Catalog {
    fn table_names(&self) -> Vec<String> {
        names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(provider) = self.stored(name)? {
            return Ok(Some(provider));
        }
        match views().iter().find(|view| view.name == name) {
            Some(view) => Ok(Some(self.view(view).await?)),
            None => Ok(None),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if table_of(name).is_some() {
            return Ok(Some(TableType::Base));
        }
        Ok(views().iter().any(|view| view.name == name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        table_of(name).is_some() || views().iter().any(|view| view.name == name)
    }
}
