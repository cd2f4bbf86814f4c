//! Adds the columns of this version to tables of an earlier one; they are null.
//!
//! A role that writes adds the columns to the stored tables; a session that only reads must not.

use std::sync::Arc;

use bellwether_tables::Table;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, cast};
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;

/// Returns the table with all columns of this version, in order, followed by those that other programs have added.
pub(crate) fn with_all_columns(table: Table, provider: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let (found, known) = (provider.schema(), table.arrow_schema());
    let whole = wider(found.fields(), known.fields());
    if whole.len() == found.fields().len() && whole.iter().all(|field| found.fields().iter().any(|it| it == field)) {
        return Ok(provider);
    }
    let columns = whole.iter().map(|field| column(found.fields(), field)).collect::<Result<Vec<Expr>>>()?;
    let scan = LogicalPlanBuilder::scan(table.name(), provider_as_source(provider), None)?;
    Ok(Arc::new(ViewTable::new(scan.project(columns)?.build()?, None)))
}

fn column(found: &Fields, wanted: &FieldRef) -> Result<Expr> {
    let name = wanted.name();
    Ok(match found.find(name) {
        Some((_, field)) if field.data_type() == wanted.data_type() => ident(name),
        Some(_) => cast(ident(name), wanted.data_type().clone()).alias(name),
        None => Expr::Literal(ScalarValue::try_from(wanted.data_type())?, None).alias(name),
    })
}

/// Returns the fields that were found, and those that are known but were not found.
fn wider(found: &Fields, known: &Fields) -> Fields {
    let ours = known.iter().map(|known| match found.find(known.name()) {
        Some((_, field)) => wider_field(field, known),
        None => Arc::new(known.as_ref().clone().with_nullable(true)),
    });
    let others = found.iter().filter(|field| known.find(field.name()).is_none()).cloned();
    ours.chain(others).collect()
}

fn wider_field(found: &FieldRef, known: &FieldRef) -> FieldRef {
    let (DataType::List(one), DataType::List(other)) = (found.data_type(), known.data_type()) else {
        return Arc::clone(found);
    };
    let (DataType::Struct(fields), DataType::Struct(known)) = (one.data_type(), other.data_type()) else {
        return Arc::clone(found);
    };
    let records = wider(fields, known);
    if records == *fields || records.len() == fields.len() {
        return Arc::clone(found);
    }
    let element: Field = one.as_ref().clone().with_data_type(DataType::Struct(records));
    Arc::new(found.as_ref().clone().with_data_type(DataType::List(Arc::new(element))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bellwether_lake::{Lake, StorageOptions};
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::Int64Type;

    use crate::{Session, SessionSettings};

    use super::*;

    /// Removes a column of each kind, and a field of records, from the first log entries of the tables.
    fn make_older(root: &std::path::Path) {
        for table in Table::ALL {
            let entry = root.join(table.name()).join("_delta_log/00000000000000000000.json");
            let text = fs::read_to_string(&entry).expect("there");
            let mut lines: Vec<serde_json::Value> =
                text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            let schema = &mut lines[2]["metaData"]["schemaString"];
            let mut older: serde_json::Value = serde_json::from_str(schema.as_str().expect("text")).expect("JSON");
            let fields = older["fields"].as_array_mut().expect("fields");
            fields.retain(|field| field["nullable"] == false);
            for field in fields.iter_mut().filter(|field| field["type"]["elementType"]["fields"].is_array()) {
                let records = field["type"]["elementType"]["fields"].as_array_mut().expect("fields");
                records.retain(|field| field["nullable"] == false);
            }
            *schema = serde_json::Value::String(older.to_string());
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            fs::write(entry, text).expect("writes");
        }
    }

    #[tokio::test]
    async fn every_view_works_over_a_lake_of_an_earlier_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().to_str().expect("text");
        Lake::open(root, &StorageOptions::default()).await.expect("makes the tables");
        let answers = async || {
            let lake = Lake::open_to_read(root, &StorageOptions::default()).await.expect("opens");
            let session = Session::open(&lake, SessionSettings::default()).await.expect("opens");
            let names = Table::ALL.iter().map(|table| table.name()).chain(crate::views().iter().map(|view| view.name));
            let mut counts = Vec::new();
            for name in names {
                let sql = format!("SELECT count(*) FROM (SELECT * FROM {name})");
                let rows = session.execute(&sql).await.expect(name).collect().await.expect(name);
                counts.push((name, rows[0].column(0).as_primitive::<Int64Type>().value(0)));
            }
            (session, counts)
        };
        let (_, expected) = answers().await;
        make_older(folder.path());
        let (session, found) = answers().await;
        assert_eq!(found, expected);
        for table in Table::ALL {
            let answer = session.execute(&format!("SELECT * FROM {}", table.name())).await.expect("plans");
            let names: Vec<&str> = answer.schema.fields().iter().map(|field| field.name().as_str()).collect();
            let wanted: Vec<&str> = table.columns().iter().map(|column| column.name).collect();
            assert_eq!(names, wanted);
        }
        let sql = "SELECT tool_calls[1]['risk'], retrieval[1]['documents'][1]['cited'], task FROM events";
        session.execute(sql).await.expect("plans").collect().await.expect("answers");
        assert!(!folder.path().join("events/_delta_log/00000000000000000001.json").exists(), "nothing is written");
    }
}
