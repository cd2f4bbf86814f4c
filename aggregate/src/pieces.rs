//! Rows of stored files, as the query engine reads them: one piece of one file is in memory at a time. They are read through the
//! lake, whose errors say what to do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Lake};
use bellwether_tables::Table;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

/// Some files of a table, and the columns that are read of them.
#[derive(Clone)]
pub(crate) struct StoredFiles {
    pub(crate) lake: Lake,
    pub(crate) table: Table,
    pub(crate) schema: SchemaRef,
    pub(crate) files: Arc<[AddedFile]>,
}

// === impl StoredFiles ===

impl StoredFiles {
    /// Returns the rows, each piece as `keep` returns it.
    pub(crate) fn stream<F>(&self, keep: F) -> SendableRecordBatchStream
    where
        F: Fn(RecordBatch) -> Result<RecordBatch> + Clone + Send + 'static,
    {
        let stored = self.clone();
        let pieces = futures::stream::iter(0..self.files.len())
            .then(move |place| stored.clone().read(place, keep.clone()))
            .map_ok(futures::stream::iter)
            .try_flatten()
            .map_err(|error| DataFusionError::External(Box::new(error)));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), pieces))
    }

    async fn read<F>(self, place: usize, keep: F) -> Result<impl Iterator<Item = Result<RecordBatch>> + Send>
    where
        F: Fn(RecordBatch) -> Result<RecordBatch> + Send,
    {
        let columns: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let pieces = self.lake.read_in_pieces(self.table, &self.files[place], Some(&columns)).await?;
        Ok(pieces.map(move |rows| keep(rows?)))
    }
}

/// Returns the kind and message of an error of reading or of memory, the latter in the words of `too_much`; `None` for any other.
pub(crate) fn expected(source: &DataFusionError, too_much: &str) -> Option<(ErrorKind, String)> {
    match source.find_root() {
        DataFusionError::External(inner) => inner.downcast_ref::<Error>().map(|error| (error.kind(), error.chain())),
        DataFusionError::ResourcesExhausted(_) => Some((ErrorKind::Unavailable, too_much.to_owned())),
        _ => None,
    }
}
