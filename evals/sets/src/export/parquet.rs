//! Parquet with the columns of the CSV export; absent values are null.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use bellwether_base::{Error, Result};
use parquet::arrow::ArrowWriter;

use super::csv::{COLUMNS, fields};
use super::text::FILE;
use super::{ExportFile, Format, Limits};
use crate::set::EvalSet;

pub(super) struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn about(&self) -> &'static str {
        "Apache Parquet"
    }

    fn limits(&self) -> Limits {
        FILE
    }

    fn files(&self, set: &EvalSet) -> Result<Vec<ExportFile>> {
        Ok(vec![ExportFile { path: "cases.parquet".to_owned(), bytes: encode(set)? }])
    }
}

fn encode(set: &EvalSet) -> Result<Vec<u8>> {
    let rows: Vec<_> = set.cases().iter().map(|case| fields(set, case)).collect();
    let column = |(index, name): (usize, &&'static str)| {
        let values: StringArray = rows.iter().map(|row| row[index].as_deref()).collect();
        (*name, Arc::new(values) as ArrayRef, true)
    };
    let bug = |source: parquet::errors::ParquetError| Error::bug("cannot encode Parquet").with_source(source);
    let batch = RecordBatch::try_from_iter_with_nullable(COLUMNS.iter().enumerate().map(column))
        .map_err(|source| Error::bug("cannot make a batch of cases").with_source(source))?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).map_err(bug)?;
    writer.write(&batch).map_err(bug)?;
    writer.close().map_err(bug)?;
    Ok(bytes)
}
