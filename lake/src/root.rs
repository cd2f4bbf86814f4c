//! A lake: one root with all tables in it; durable writing and reading of their files.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use url::Url;

use crate::clock::{Clock, SystemClock};
use crate::commit::DataFile;
use crate::commit::delta::DeltaLog;
use crate::delta::BoundedReads;
use crate::encoder::{EncodedFile, EncodedRows};
use crate::error::{Error, Result};
use crate::log::{AddedFile, TableMetadata, creation, entry_path, rows_in_statistics};
use crate::parquet_file;
use crate::schema::Table;
use crate::store::{self, OpenRoot, StorageOptions};
use crate::work::Work;

/// How often a table is opened again whose listing is behind its log.
const LOOKS_AT_A_LISTING: usize = 3;

/// A file that is written and durable.
#[derive(Clone, Debug)]
pub struct WrittenFile {
    /// The file, as a commit names it.
    pub file: DataFile,
    /// Exactly its rows, in file order, with the columns that the encoder was told to hand on; empty where it was not.
    pub rows: Vec<RecordBatch>,
}

/// All tables under one root. Cloning is cheap.
#[derive(Clone)]
pub struct Lake {
    root: Arc<OpenRoot>,
    clock: Arc<dyn Clock>,
    work: Work,
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lake").field("root", &self.root.url.as_str()).finish_non_exhaustive()
    }
}

// === impl Lake ===

impl Lake {
    /// Opens a folder or `s3://` prefix; makes the folder and the tables that are missing.
    ///
    /// # Errors
    /// `Config` where the root cannot be made, or its store lets two writers create one object; `Unavailable` where it
    /// does not answer.
    pub async fn open(root: &str, options: &StorageOptions) -> Result<Self> {
        Self::open_with_clock(root, options, Arc::new(SystemClock)).await
    }

    /// As [`Lake::open`], with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Lake::open`].
    pub async fn open_with_clock(root: &str, options: &StorageOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::at(store::open(root, options).await?, clock, Work::Pool).await
    }

    /// Opens a store of the caller's, with nothing else in it; makes the tables that are missing. Everything then runs
    /// on the calling thread, so that the order of events is the caller's: for simulation, not for service.
    ///
    /// # Errors
    /// `Unavailable` where the store does not answer.
    pub async fn on_store(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Result<Self> {
        let url = Url::parse("memory:///")
            .map_err(|source| Error::bug("an address of memory cannot be made").with_source(source))?;
        Self::at(OpenRoot { url, store, base: Path::default() }, clock, Work::Inline).await
    }

    pub(crate) async fn at(root: OpenRoot, clock: Arc<dyn Clock>, work: Work) -> Result<Self> {
        let lake = Self { root: Arc::new(root), clock, work };
        for table in Table::ALL {
            lake.create(table).await?;
        }
        Ok(lake)
    }

    /// Opens a folder or `s3://` prefix as it is: makes and writes nothing.
    ///
    /// # Errors
    /// `Config` where there is no such folder; `Unavailable` where it cannot be looked into.
    pub async fn open_as_it_is(root: &str, options: &StorageOptions) -> Result<Self> {
        let root = Arc::new(store::open_as_it_is(root, options)?);
        Ok(Self { root, clock: Arc::new(SystemClock), work: Work::Pool })
    }

    /// Address of the root.
    pub fn root(&self) -> &Url {
        &self.root.url
    }

    /// Root as people write it: a path for a folder, an address otherwise.
    pub fn root_display(&self) -> String {
        match self.root.url.to_file_path() {
            Ok(path) => path.display().to_string(),
            Err(()) => self.root.url.to_string(),
        }
    }

    /// The clock that commits are dated by.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The log of a table.
    pub fn log(&self, table: Table) -> DeltaLog {
        DeltaLog {
            table,
            store: Arc::clone(&self.root.store),
            path: self.table_path(table),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Writes rows as Parquet files, one for each value of the partition column, and makes them durable. Nothing reads
    /// them until a commit names them.
    ///
    /// # Errors
    /// `Unavailable` where storage does not take them; `Bug` where the batch does not have the table's schema.
    pub async fn write(&self, table: Table, batch: &RecordBatch) -> Result<Vec<WrittenFile>> {
        let batch = batch.clone();
        let rows = self.work.run("the Parquet writer", move || EncodedRows::of(table, &batch)).await?;
        self.store(&rows).await
    }

    /// As [`Lake::write`], for rows that are encoded already.
    ///
    /// # Errors
    /// `Unavailable` where storage does not take them.
    pub async fn store(&self, rows: &EncodedRows) -> Result<Vec<WrittenFile>> {
        let mut written = Vec::new();
        for file in rows.files() {
            written.push(self.store_file(rows.table(), file).await?);
        }
        Ok(written)
    }

    async fn store_file(&self, table: Table, file: &EncodedFile) -> Result<WrittenFile> {
        let folder = match (table.partition_column(), &file.value) {
            (Some(column), Some(value)) => format!("{column}={value}/"),
            _ => String::new(),
        };
        let path = format!("{folder}part-{}.{}", self.clock.unique_id(), file.extension);
        let size =
            i64::try_from(file.bytes.len()).map_err(|source| Error::bug("a file is too large").with_source(source))?;
        let target = self.file_path(table, &path)?;
        self.root.store.put_opts(&target, PutPayload::from(file.bytes.clone()), PutMode::Overwrite.into()).await?;
        let values = table.partition_column().map(|column| (column.to_owned(), file.value.clone()));
        let stored = DataFile {
            path,
            size,
            rows: i64::try_from(file.rows).unwrap_or(i64::MAX),
            partition_values: values.into_iter().collect::<BTreeMap<_, _>>(),
            stats: file.stats.clone(),
            modification_time: self.clock.now_micros() / 1000,
        };
        Ok(WrittenFile { file: stored, rows: file.handed_on.clone() })
    }

    /// Reads a file's rows, in file order, with the types of [`Table::arrow_schema`]; `columns` limits the columns.
    ///
    /// # Errors
    /// `Data` where the file is gone or unreadable.
    pub async fn read(&self, table: Table, file: &AddedFile, columns: Option<&[&str]>) -> Result<Vec<RecordBatch>> {
        let bytes = self.file_bytes(table, &file.path).await?;
        let file = file.clone();
        let columns: Option<Vec<String>> = columns.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let work = move || {
            let columns: Option<Vec<&str>> = columns.as_ref().map(|names| names.iter().map(String::as_str).collect());
            parquet_file::decode(table, &file, bytes, columns.as_deref())
        };
        self.work.run("the Parquet reader", work).await
    }

    /// Removes files that no commit names, as after a fenced commit. Failing to is harmless: vacuum takes them later.
    pub async fn discard(&self, table: Table, files: &[DataFile]) {
        for file in files {
            if let Ok(path) = self.file_path(table, &file.path)
                && let Err(error) = self.root.store.delete(&path).await
            {
                tracing::debug!(path = %path, error = %error, "an unused file could not be removed");
            }
        }
    }

    /// The table's newest version and the files in it. A snapshot is found by listing the log, and a listing may be behind
    /// what was written; so the log is asked by name whether there is a newer version.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer, or its listings are behind.
    pub async fn active_files(&self, table: Table) -> Result<(i64, Vec<AddedFile>)> {
        let mut known = i64::MAX;
        for _ in 0..LOOKS_AT_A_LISTING {
            let found = files_of(&self.delta_table(table).await?)?;
            if found.0 >= known || self.log(table).entry(found.0 + 1).await?.is_none() {
                return Ok(found);
            }
            known = found.0 + 1;
        }
        Err(Error::unavailable(format!("the store's listing of table `{}` is behind its log", table.name())))
    }

    /// The files that were in the table at a version.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer, or that version's log is gone.
    pub async fn files_at(&self, table: Table, version: i64) -> Result<Vec<AddedFile>> {
        Ok(files_of(&self.delta_table_at(table, version).await?)?.1)
    }

    /// A table's snapshot at a version, for queries.
    ///
    /// # Errors
    /// As [`Lake::files_at`].
    pub async fn delta_table_at(&self, table: Table, version: i64) -> Result<DeltaTable> {
        let mut delta = self.delta_table(table).await?;
        let wanted = u64::try_from(version)
            .map_err(|source| Error::bug(format!("version {version} is asked for")).with_source(source))?;
        self.work.whole(delta.load_version(wanted)).await?;
        Ok(delta)
    }

    /// The files that were in the table at a version, and what the table then was.
    pub(crate) async fn files_and_metadata_at(
        &self,
        table: Table,
        version: i64,
    ) -> Result<(Vec<AddedFile>, TableMetadata)> {
        let mut delta = self.delta_table(table).await?;
        let wanted = u64::try_from(version)
            .map_err(|source| Error::bug(format!("version {version} is asked for")).with_source(source))?;
        delta.load_version(wanted).await?;
        let snapshot = delta.snapshot()?;
        let schema_string = serde_json::to_string(snapshot.schema().as_ref())
            .map_err(|source| Error::bug("a Delta schema cannot be written as JSON").with_source(source))?;
        let partition_columns = snapshot.metadata().partition_columns().to_vec();
        Ok((files_of(&delta)?.1, TableMetadata { schema_string, partition_columns }))
    }

    /// A table's newest snapshot, for queries and maintenance.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer.
    pub async fn delta_table(&self, table: Table) -> Result<DeltaTable> {
        let path = self.table_path(table);
        let url = self
            .root
            .url
            .join(&format!("{}/", table.name()))
            .map_err(|source| Error::bug("a table's address cannot be made").with_source(source))?;
        let prefixed: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(&self.root.store), path));
        let log_store = default_logstore(prefixed, Arc::clone(&self.root.store), &url, &StorageConfig::default());
        let mut delta = DeltaTable::new(Arc::new(BoundedReads(log_store)));
        self.work.whole(delta.load()).await?;
        Ok(delta)
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }

    /// The whole store under the root, and the root's path in it.
    pub(crate) fn table_path(&self, table: Table) -> Path {
        self.root.base.clone().join(table.name())
    }

    /// A data file, whole.
    pub(crate) async fn file_bytes(&self, table: Table, path: &str) -> Result<Bytes> {
        Ok(self.root.store.get(&self.file_path(table, path)?).await?.bytes().await?)
    }

    /// The root's path in its store.
    pub(crate) fn base(&self) -> Path {
        self.root.base.clone()
    }

    /// The store that everything is in.
    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.root.store
    }

    pub(crate) fn file_path(&self, table: Table, path: &str) -> Result<Path> {
        let mut full = self.table_path(table);
        for part in path.split('/') {
            full = full.join(part);
        }
        Ok(full)
    }

    /// Makes a table; another process may do so at the same moment.
    async fn create(&self, table: Table) -> Result<()> {
        let path = entry_path(&self.table_path(table), 0);
        match self.root.store.head(&path).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(source.into()),
        }
        let last_checkpoint = self.table_path(table).join(crate::log::LOG_FOLDER).join("_last_checkpoint");
        if self.root.store.head(&last_checkpoint).await.is_ok() {
            return Ok(()); // An old table, whose first entries have been cleaned up.
        }
        let text = creation(table, self.clock.now_micros() / 1000, self.clock.unique_id());
        match self.root.store.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(()),
            // 409 may come before the other writer's entry is there, and even where it never will be.
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                self.root.store.head(&path).await.map(|_| ()).map_err(|source| {
                    Error::unavailable(format!("table `{}` is being made by another process", table.name()))
                        .with_source(source)
                })
            }
            Err(source) => Err(source.into()),
        }
    }
}

/// Version and files of a snapshot.
fn files_of(delta: &DeltaTable) -> Result<(i64, Vec<AddedFile>)> {
    let snapshot = delta.snapshot()?;
    let files = snapshot
        .log_data()
        .iter()
        .map(|view| {
            let stats = view.stats();
            AddedFile {
                path: view.path().into_owned(),
                size: view.size(),
                rows: stats.as_deref().and_then(rows_in_statistics),
                partition_values: view.partition_values_map().into_iter().collect(),
                data_change: true,
                stats,
            }
        })
        .collect();
    let version = i64::try_from(snapshot.version())
        .map_err(|source| Error::data("a table version is out of range").with_source(source))?;
    Ok((version, files))
}
