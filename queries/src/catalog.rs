//! The one schema of a session: tables as of the last refresh, and views planned when a statement names them.
//!
//! A view's plan holds the tables it was planned over, so plans are dropped whenever a table moves on.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use async_trait::async_trait;
use bellwether_lake::Reading;
use bellwether_tables::Table;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;

use crate::ingest_numbers;
use crate::view::{View, views};

/// Whether a relation is stored or derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Stored in the lake.
    Table,
    /// Derived from tables by a query.
    View,
}

/// A table or view and what is known of it.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// Name in SQL.
    pub name: String,
    /// Stored or derived.
    pub kind: TableKind,
    /// What a row is.
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
    /// Type, as people read it.
    pub kind: String,
    /// True where it may be null.
    pub nullable: bool,
    /// What it means; empty where nothing says so.
    pub doc: String,
}

type StateSource = Box<dyn Fn() -> Option<SessionState> + Send + Sync>;

/// Tables of the last refresh and views over them.
pub(crate) struct LakeSchema {
    inner: RwLock<Inner>,
    state: OnceLock<StateSource>,
    rolling: OnceLock<SchemaRef>,
}

#[derive(Default)]
struct Inner {
    tables: BTreeMap<&'static str, Arc<dyn TableProvider>>,
    /// Counts refreshes, so that a view planned over older tables is not kept.
    generation: u64,
    planned: HashMap<&'static str, Arc<dyn TableProvider>>,
}

impl fmt::Debug for LakeSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeSchema").finish_non_exhaustive()
    }
}

// === impl LakeSchema ===

impl LakeSchema {
    pub(crate) fn new() -> Self {
        Self { inner: RwLock::default(), state: OnceLock::new(), rolling: OnceLock::new() }
    }

    /// Gives the schema the session that plans its views.
    pub(crate) fn bind(&self, state: StateSource) {
        // A second binding would be the same session; the first one stays.
        drop(self.state.set(state));
    }

    /// Puts newer tables in place of the old ones.
    pub(crate) fn replace(&self, tables: Vec<(Table, Arc<dyn TableProvider>)>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (table, provider) in tables {
            inner.tables.insert(table.name(), provider);
        }
        inner.generation += 1;
        inner.planned.clear();
    }

    /// Puts newer numbers of what ingest has read in place of the old ones.
    pub(crate) fn put_readings(&self, readings: &[Reading]) -> Result<()> {
        let provider = ingest_numbers::table(readings)?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.tables.insert(ingest_numbers::NAME, provider);
        inner.generation += 1;
        inner.planned.clear();
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a query over the tables of the last refresh.
    pub(crate) async fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        let state = self
            .state
            .get()
            .and_then(|state| state())
            .ok_or_else(|| DataFusionError::Execution("the session has ended".to_owned()))?;
        state.create_logical_plan(sql).await
    }

    async fn view(&self, view: &'static View) -> Result<Arc<dyn TableProvider>> {
        let generation = {
            let inner = self.read();
            if let Some(provider) = inner.planned.get(view.name) {
                return Ok(Arc::clone(provider));
            }
            inner.generation
        };
        let plan = self.plan(&view.sql).await?;
        let provider: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, Some(view.sql.clone())));
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.generation == generation {
            inner.planned.insert(view.name, Arc::clone(&provider));
        }
        Ok(provider)
    }

    /// Columns of view `rolling`, once it has been planned.
    pub(crate) fn rolling_schema(&self) -> Option<SchemaRef> {
        self.rolling.get().cloned()
    }

    /// Plans view `rolling` for its columns.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let rolling = views().iter().find(|view| view.name == "rolling");
        if let Some(view) = rolling {
            let schema = self.view(view).await?.schema();
            // Its columns never change in a session; the first answer stays.
            drop(self.rolling.set(schema));
        }
        Ok(())
    }

    /// Every table and view with its columns.
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

/// A view's columns; what the view does not document is documented by the table column of the same name.
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

/// What `DESCRIBE` says of a relation, or with a catalog `SHOW COLUMNS`: types in words, and what the columns mean.
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

/// An Arrow type as people read it, in the words of the tables' reference.
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
impl SchemaProvider for LakeSchema {
    fn table_names(&self) -> Vec<String> {
        Table::ALL
            .iter()
            .map(|table| table.name())
            .chain(views().iter().map(|view| view.name))
            .map(str::to_owned)
            .collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(provider) = self.read().tables.get(name) {
            return Ok(Some(Arc::clone(provider)));
        }
        match views().iter().find(|view| view.name == name) {
            Some(view) => Ok(Some(self.view(view).await?)),
            None => Ok(None),
        }
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        if Table::ALL.iter().any(|table| table.name() == name) {
            return Ok(Some(TableType::Base));
        }
        Ok(views().iter().any(|view| view.name == name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        Table::ALL.iter().any(|table| table.name() == name) || views().iter().any(|view| view.name == name)
    }
}
