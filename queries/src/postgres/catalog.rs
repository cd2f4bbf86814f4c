//! The schema `pg_catalog`: relations that describe the tables, views, functions and types.
//!
//! Four relations of facts are made from the engine's own catalogue. Each relation of Postgres is a query over them, in [`FILLED`],
//! or is always empty, in [`super::empty::EMPTY`], because the engine has nothing of its kind, such as indexes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use tokio::sync::OnceCell;

use super::empty::EMPTY;
use super::function::SETTINGS;
use super::kind::PgType;
use super::{FIRST_FUNCTION, FIRST_RELATION};
use crate::catalog::{Catalog, TableKind};
use crate::function::{FunctionInfo, FunctionKind};

/// Relations that have rows, each as a query over the facts.
const FILLED: &[(&str, &str)] = &[
    (
        "pg_namespace",
        "SELECT oid, nspname, 10 AS nspowner, CAST(NULL AS VARCHAR[]) AS nspacl
         FROM (VALUES (11, 'pg_catalog'), (2200, 'public'), (13000, 'information_schema')) AS v (oid, nspname)",
    ),
    (
        "pg_class",
        "SELECT oid, name AS relname, 2200 AS relnamespace, 0 AS reltype, 0 AS reloftype, 10 AS relowner, 0 AS relam,
            0 AS relfilenode, 0 AS reltablespace, 0 AS relpages, CAST(-1 AS REAL) AS reltuples, 0 AS relallvisible,
            0 AS reltoastrelid, false AS relhasindex, false AS relisshared, 'p' AS relpersistence, kind AS relkind,
            columns AS relnatts, 0 AS relchecks, false AS relhasrules, false AS relhastriggers, false AS relhassubclass,
            false AS relrowsecurity, false AS relforcerowsecurity, true AS relispopulated, 'n' AS relreplident,
            false AS relispartition, 0 AS relrewrite, 0 AS relfrozenxid, 0 AS relminmxid, CAST(NULL AS VARCHAR[]) AS relacl,
            CAST(NULL AS VARCHAR[]) AS reloptions, CAST(NULL AS VARCHAR) AS relpartbound
         FROM relations",
    ),
    (
        "pg_attribute",
        "SELECT relation AS attrelid, name AS attname, type AS atttypid, -1 AS attstattarget, bytes AS attlen, number AS attnum,
            0 AS attndims, -1 AS attcacheoff, -1 AS atttypmod, bytes > 0 AS attbyval, 'p' AS attstorage, 'i' AS attalign,
            required AS attnotnull, false AS atthasdef, false AS atthasmissing, '' AS attidentity, '' AS attgenerated,
            false AS attisdropped, true AS attislocal, 0 AS attinhcount, 0 AS attcollation, '' AS attcompression,
            CAST(NULL AS VARCHAR[]) AS attacl, CAST(NULL AS VARCHAR[]) AS attoptions, CAST(NULL AS VARCHAR[]) AS attfdwoptions
         FROM attributes",
    ),
    (
        "pg_type",
        "SELECT oid, name AS typname, 11 AS typnamespace, 10 AS typowner, bytes AS typlen, bytes > 0 AS typbyval, 'b' AS typtype,
            category AS typcategory, false AS typispreferred, true AS typisdefined, ',' AS typdelim, 0 AS typrelid,
            0 AS typelem, 0 AS typarray, '' AS typinput, '' AS typoutput, false AS typnotnull, 0 AS typbasetype,
            -1 AS typtypmod, 0 AS typndims, 0 AS typcollation, CAST(NULL AS VARCHAR) AS typdefault,
            CAST(NULL AS VARCHAR[]) AS typacl
         FROM types",
    ),
    (
        "pg_proc",
        "SELECT oid, name AS proname, CASE WHEN own THEN 2200 ELSE 11 END AS pronamespace, 10 AS proowner, 14 AS prolang,
            0 AS provariadic, kind AS prokind, kind = 'a' AS proisagg, kind = 'w' AS proiswindow, false AS prosecdef,
            many AS proretset, 'i' AS provolatile, 's' AS proparallel, 0 AS pronargs, 0 AS prorettype, '' AS proargtypes,
            CAST(NULL AS VARCHAR[]) AS proargnames, CAST(NULL AS VARCHAR[]) AS proargmodes,
            CAST(NULL AS VARCHAR[]) AS proallargtypes, '' AS prosrc, CAST(NULL AS VARCHAR[]) AS proacl
         FROM functions",
    ),
    (
        "pg_description",
        "SELECT oid AS objoid, 1259 AS classoid, 0 AS objsubid, doc AS description FROM relations
         UNION ALL SELECT relation, 1259, number, doc FROM attributes WHERE doc <> ''
         UNION ALL SELECT oid, 1255, 0, doc FROM functions",
    ),
    (
        "pg_database",
        "SELECT 1 AS oid, 'bellwether' AS datname, 10 AS datdba, 6 AS encoding, 'c' AS datlocprovider, 'C' AS datcollate,
            'C' AS datctype, false AS datistemplate, true AS datallowconn, -1 AS datconnlimit, 1663 AS dattablespace,
            CAST(NULL AS VARCHAR[]) AS datacl",
    ),
    (
        "pg_roles",
        "SELECT 10 AS oid, 'bellwether' AS rolname, false AS rolsuper, true AS rolinherit, false AS rolcreaterole,
            false AS rolcreatedb, true AS rolcanlogin, false AS rolreplication, false AS rolbypassrls, -1 AS rolconnlimit,
            CAST(NULL AS VARCHAR) AS rolvaliduntil",
    ),
    (
        "pg_user",
        "SELECT 'bellwether' AS usename, 10 AS usesysid, false AS usecreatedb, false AS usesuper, false AS userepl,
            false AS usebypassrls",
    ),
    ("pg_am", "SELECT 2 AS oid, 'heap' AS amname, 't' AS amtype"),
    (
        "pg_language",
        "SELECT 14 AS oid, 2612 AS tableoid, 'sql' AS lanname, 10 AS lanowner, false AS lanispl, true AS lanpltrusted,
            0 AS lanplcallfoid, 0 AS laninline, 0 AS lanvalidator, CAST(NULL AS VARCHAR[]) AS lanacl",
    ),
    (
        "pg_tablespace",
        "SELECT 1663 AS oid, 'pg_default' AS spcname, 10 AS spcowner, CAST(NULL AS VARCHAR[]) AS spcacl,
            CAST(NULL AS VARCHAR[]) AS spcoptions",
    ),
    (
        "pg_tables",
        "SELECT 'public' AS schemaname, name AS tablename, 'bellwether' AS tableowner, CAST(NULL AS VARCHAR) AS tablespace,
            false AS hasindexes, false AS hasrules, false AS hastriggers, false AS rowsecurity
         FROM relations WHERE kind = 'r'",
    ),
    (
        "pg_views",
        "SELECT 'public' AS schemaname, name AS viewname, 'bellwether' AS viewowner, CAST(NULL AS VARCHAR) AS definition
         FROM relations WHERE kind = 'v'",
    ),
    (
        "pg_settings",
        "SELECT name, setting, CAST(NULL AS VARCHAR) AS unit, 'Preset Options' AS category, '' AS short_desc, 'internal' AS context,
            'string' AS vartype, 'default' AS source, CAST(NULL AS VARCHAR) AS min_val, CAST(NULL AS VARCHAR) AS max_val,
            CAST(NULL AS VARCHAR[]) AS enumvals, setting AS boot_val, setting AS reset_val, false AS pending_restart
         FROM settings",
    ),
];

/// The relations of the schema, filled once for all sessions of an engine: the columns of tables and views do not change.
pub(super) struct Relations {
    functions: Vec<FunctionInfo>,
    made: OnceCell<BTreeMap<&'static str, Arc<dyn TableProvider>>>,
}

/// The schema, as a statement sees it.
pub(super) struct PgCatalog {
    relations: Arc<Relations>,
    catalog: Arc<Catalog>,
}

// === impl Relations ===

impl Relations {
    pub(super) fn new(functions: &[FunctionInfo]) -> Self {
        Self { functions: functions.to_vec(), made: OnceCell::new() }
    }

    async fn get(&self, name: &str, catalog: &Catalog) -> Result<Option<Arc<dyn TableProvider>>> {
        let made = self.made.get_or_try_init(|| Box::pin(self.make(catalog))).await?;
        Ok(made.get(name).map(Arc::clone))
    }

    async fn make(&self, catalog: &Catalog) -> Result<BTreeMap<&'static str, Arc<dyn TableProvider>>> {
        let context = SessionContext::new();
        let (relations, attributes) = facts(catalog).await?;
        for (name, rows) in [
            ("relations", relations),
            ("attributes", attributes),
            ("types", types()?),
            ("functions", functions(&self.functions)?),
            ("settings", settings()?),
        ] {
            context.register_batch(name, rows)?;
        }
        let mut made: BTreeMap<&'static str, Arc<dyn TableProvider>> = BTreeMap::new();
        for (name, sql) in FILLED {
            let rows = context.sql(sql).await?;
            let schema = Arc::new(rows.schema().as_arrow().clone());
            made.insert(name, Arc::new(MemTable::try_new(schema, vec![rows.collect().await?])?));
        }
        for (name, columns) in EMPTY {
            let fields = columns.split_whitespace().map(|column| Field::new(column, kind_of(column), true));
            made.insert(name, Arc::new(EmptyTable::new(Arc::new(Schema::new(fields.collect::<Vec<_>>())))));
        }
        Ok(made)
    }
}

/// Returns the type of a column of an empty relation, which its name tells: `…id`, `…num` and the like are numbers.
fn kind_of(column: &str) -> DataType {
    let is_number = ["id", "num", "count", "atts", "pages", "opcode"].iter().any(|end| column.ends_with(end));
    let is_fact = ["is", "has"].iter().any(|part| column.get(3..).is_some_and(|rest| rest.starts_with(part)));
    match (is_number, is_fact) {
        (true, _) => DataType::Int64,
        (false, true) => DataType::Boolean,
        (false, false) => DataType::Utf8,
    }
}

fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

fn numbers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Int64Array>())
}

fn booleans(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

/// Returns the relations of tables and views, and of their columns.
async fn facts(catalog: &Catalog) -> Result<(RecordBatch, RecordBatch)> {
    let infos = catalog.describe().await?;
    let (mut columns, mut counts) = (Vec::new(), Vec::new());
    for (oid, info) in (FIRST_RELATION..).zip(&infos) {
        let provider = catalog.table(&info.name).await?;
        let schema = provider.map_or_else(|| Arc::new(Schema::empty()), |provider| provider.schema());
        counts.push(i64::try_from(schema.fields().len()).unwrap_or(i64::MAX));
        for (number, field) in (1_i64..).zip(schema.fields()) {
            let documented = info.columns.iter().find(|column| column.name == *field.name());
            let doc = documented.map(|column| column.doc.clone()).unwrap_or_default();
            let required = documented.is_some_and(|column| !column.nullable);
            columns.push((oid, number, field.name().clone(), PgType::of(field.data_type()), required, doc));
        }
    }
    let kind = |kind: TableKind| if kind == TableKind::Table { "r" } else { "v" }.to_owned();
    let relations = RecordBatch::try_from_iter([
        ("oid", numbers((FIRST_RELATION..).take(infos.len()))),
        ("name", texts(infos.iter().map(|info| info.name.clone()))),
        ("kind", texts(infos.iter().map(|info| kind(info.kind)))),
        ("columns", numbers(counts.into_iter())),
        ("doc", texts(infos.iter().map(|info| info.doc.clone()))),
    ])?;
    let attributes = RecordBatch::try_from_iter([
        ("relation", numbers(columns.iter().map(|column| column.0))),
        ("number", numbers(columns.iter().map(|column| column.1))),
        ("name", texts(columns.iter().map(|column| column.2.clone()))),
        ("type", numbers(columns.iter().map(|column| column.3.oid.into()))),
        ("bytes", numbers(columns.iter().map(|column| column.3.bytes.into()))),
        ("required", booleans(columns.iter().map(|column| column.4))),
        ("doc", texts(columns.iter().map(|column| column.5.clone()))),
    ])?;
    Ok((relations, attributes))
}

fn types() -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("oid", numbers(PgType::all().map(|kind| kind.oid.into()))),
        ("name", texts(PgType::all().map(|kind| kind.name.to_owned()))),
        ("bytes", numbers(PgType::all().map(|kind| kind.bytes.into()))),
        ("category", texts(PgType::all().map(PgType::category))),
    ])?)
}

fn settings() -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter([
        ("name", texts(SETTINGS.iter().map(|(name, _)| (*name).to_owned()))),
        ("setting", texts(SETTINGS.iter().map(|(_, value)| (*value).to_owned()))),
    ])?)
}

fn functions(all: &[FunctionInfo]) -> Result<RecordBatch> {
    let letter = |kind: FunctionKind| match kind {
        FunctionKind::Aggregate => "a",
        FunctionKind::Window => "w",
        FunctionKind::Scalar | FunctionKind::Table => "f",
    };
    Ok(RecordBatch::try_from_iter([
        ("oid", numbers((FIRST_FUNCTION..).take(all.len()))),
        ("name", texts(all.iter().map(|function| function.name.clone()))),
        ("kind", texts(all.iter().map(|function| letter(function.kind).to_owned()))),
        ("many", booleans(all.iter().map(|function| function.kind == FunctionKind::Table))),
        ("own", booleans(all.iter().map(|function| function.own))),
        ("doc", texts(all.iter().map(|function| function.doc.clone()))),
    ])?)
}

// === impl PgCatalog ===

impl PgCatalog {
    pub(super) fn new(relations: &Arc<Relations>, catalog: &Arc<Catalog>) -> Self {
        Self { relations: Arc::clone(relations), catalog: Arc::clone(catalog) }
    }
}

impl fmt::Debug for PgCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgCatalog").finish_non_exhaustive()
    }
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        FILLED.iter().chain(EMPTY).map(|(name, _)| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.relations.get(name, &self.catalog).await
    }

    fn table_exist(&self, name: &str) -> bool {
        FILLED.iter().chain(EMPTY).any(|(known, _)| *known == name)
    }
}
