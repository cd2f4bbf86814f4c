//! Log checkpoints of a table, as far as the protocol needs them: protocol, metadata and the numbers of applications.

use arrow::array::{Array, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;

use super::Snapshot;
use super::delta::DeltaLog;
use crate::log::{LOG_FOLDER, LogEntry, read_entry};
use crate::maintain::LogListing;
use crate::parquet_file::column_indexes;
use crate::stored::{Stored, from_store};
use bellwether_base::{Error, Result};

/// The content of `_last_checkpoint`.
#[derive(Deserialize)]
pub struct LastCheckpoint {
    /// Version of the table that it holds.
    pub version: i64,
    parts: Option<usize>,
}

// === impl LastCheckpoint ===

impl LastCheckpoint {
    /// Names the log checkpoint of a version, in one file.
    pub(crate) fn at(version: i64) -> Self {
        Self { version, parts: None }
    }
}

// === impl DeltaLog ===

impl DeltaLog {
    /// Returns the version of the newest log checkpoint, if there is one.
    pub(crate) async fn checkpoint_version(&self) -> Result<Option<i64>> {
        Ok(self.last_checkpoint().await?.map(|last| last.version))
    }

    /// Reads the pointer to the newest log checkpoint, if there is one.
    pub async fn last_checkpoint(&self) -> Result<Option<LastCheckpoint>> {
        let path = self.path.clone().join(LOG_FOLDER).join("_last_checkpoint");
        match self.store.get(&path).await {
            Ok(found) => {
                let text = found.bytes().await.stored()?;
                let last = serde_json::from_slice(&text).map_err(|source| {
                    Error::data(format!("`_last_checkpoint` of table `{}` is not readable", self.table.name()))
                        .with_hint("delete only that file: the log itself is intact")
                        .with_source(source)
                })?;
                Ok(Some(last))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(from_store(source)),
        }
    }

    /// Reads the table's protocol and metadata and the numbers of its applications from a log checkpoint; skips its files.
    pub async fn checkpoint(&self, last: &LastCheckpoint) -> Result<Snapshot> {
        let mut actions = LogEntry::default();
        for path in self.checkpoint_files(last).await? {
            let bytes = match self.store.get(&path).await {
                Ok(found) => found.bytes().await.stored()?,
                Err(source @ object_store::Error::NotFound { .. }) => {
                    return Err(self.broken_checkpoint(last.version).with_source(source));
                }
                Err(source) => return Err(from_store(source)),
            };
            let is_json = path.as_ref().ends_with(".json");
            let read = if is_json { read_entry(last.version, &bytes) } else { checkpoint_actions(last.version, bytes) };
            let part = read.map_err(|source| self.broken_checkpoint(last.version).with_source(source))?;
            actions.txns.extend(part.txns);
            actions.metadata = part.metadata.or(actions.metadata);
            actions.protocol = part.protocol.or(actions.protocol);
        }
        if actions.metadata.is_none() {
            return Err(self.broken_checkpoint(last.version));
        }
        Ok(Snapshot::default().with(LogEntry { version: last.version, ..actions }))
    }

    /// Returns the number of an application as of the oldest log checkpoint that stands for an entry; none if there is no such
    /// checkpoint, or it has no such number.
    pub(crate) async fn number_at(&self, version: i64, app_id: &str) -> Result<Option<i64>> {
        let listing = LogListing::of(self).await?;
        let Some(found) = listing.checkpoints(version..=i64::MAX).next() else { return Ok(None) };
        Ok(self.checkpoint(&LastCheckpoint::at(found)).await?.next(app_id))
    }

    fn broken_checkpoint(&self, version: i64) -> Error {
        Error::data(format!("log checkpoint {version} of table `{}` is not readable", self.table.name())).with_hint(
            "restore it from a backup; or, if all entries of the log still exist, delete `_delta_log/_last_checkpoint` and \
             the files of that checkpoint",
        )
    }

    /// Returns the files that hold a checkpoint's applications and metadata: its parts, its single file, or the file with a
    /// unique name.
    async fn checkpoint_files(&self, last: &LastCheckpoint) -> Result<Vec<Path>> {
        let (folder, version) = (self.path.clone().join(LOG_FOLDER), last.version);
        if let Some(parts) = last.parts {
            let name = |part| format!("{version:020}.checkpoint.{part:010}.{parts:010}.parquet");
            return Ok((1..=parts).map(|part| folder.clone().join(name(part))).collect());
        }
        let plain = folder.clone().join(format!("{version:020}.checkpoint.parquet"));
        match self.store.head(&plain).await {
            Ok(_) => return Ok(vec![plain]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(from_store(source)),
        }
        let start = format!("{version:020}.checkpoint.");
        let all: Vec<Path> =
            self.store.list(Some(&folder)).map_ok(|object| object.location).try_collect().await.stored()?;
        let named = |path: &Path| path.filename().is_some_and(|name| name.starts_with(&start));
        Ok(vec![all.into_iter().find(named).unwrap_or(plain)])
    }
}

/// Reads the actions of a checkpoint in Parquet, except those of files.
fn checkpoint_actions(version: i64, bytes: Bytes) -> Result<LogEntry> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).stored()?;
    let roots = column_indexes(reader.parquet_schema(), |name| ["txn", "metaData", "protocol"].contains(&name));
    let mask = ProjectionMask::roots(reader.parquet_schema(), roots);
    let mut lines = LineDelimitedWriter::new(Vec::new());
    for batch in reader.with_projection(mask).build().stored()? {
        let batch = batch.map_err(|source| Error::data("a page is not readable").with_source(source))?;
        // Most rows are files.
        let is_action: BooleanArray =
            (0..batch.num_rows()).map(|row| Some(batch.columns().iter().any(|column| column.is_valid(row)))).collect();
        lines.write(&filter_record_batch(&batch, &is_action)?)?;
    }
    lines.finish()?;
    read_entry(version, &lines.into_inner())
}
