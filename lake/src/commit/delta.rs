//! The Delta log: versions are files that can be created only once, and creating one is the commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Deserialize;
use uuid::Uuid;

use super::{Advance, Commit, CommitLog, Outcome, Snapshot};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::log::{AddedFile, LOG_FOLDER, LogEntry, entry_path, read_entry, replace_entry, write_entry};
use crate::schema::Table;

/// How often one call looks again at a version that the store says exists but does not show: S3 answers 409 to one of
/// two racing writers, and the winner's object may appear a moment later.
const LOOKS_AT_A_CONFLICT: usize = 5;

/// The log of one table.
#[derive(Clone)]
pub struct DeltaLog {
    pub(crate) table: Table,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What `_last_checkpoint` names.
#[derive(Deserialize)]
pub(crate) struct LastCheckpoint {
    pub(crate) version: i64,
    parts: Option<usize>,
}

// === impl DeltaLog ===

impl DeltaLog {
    /// The table this is the log of.
    pub fn table(&self) -> Table {
        self.table
    }

    /// Newest version.
    ///
    /// # Errors
    /// As [`CommitLog::load`].
    pub async fn latest_version(&self) -> Result<i64> {
        Ok(self.load().await?.version)
    }

    /// What a version's entry says; none where that version is not there (yet).
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the entry is torn.
    pub async fn entry(&self, version: i64) -> Result<Option<LogEntry>> {
        match self.store.get(&entry_path(&self.path, version)).await {
            Ok(found) => Ok(Some(read_entry(version, &found.bytes().await?)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(source.into()),
        }
    }

    /// Version of the newest log checkpoint, if there is one.
    pub(crate) async fn checkpoint_version(&self) -> Result<Option<i64>> {
        Ok(self.last_checkpoint().await?.map(|last| last.version))
    }

    /// The newest log checkpoint, if there is one.
    pub(crate) async fn last_checkpoint(&self) -> Result<Option<LastCheckpoint>> {
        let path = self.path.clone().join(LOG_FOLDER).join("_last_checkpoint");
        match self.store.get(&path).await {
            Ok(found) => {
                let text = found.bytes().await?;
                let last = serde_json::from_slice(&text).map_err(|source| {
                    Error::data(format!("`_last_checkpoint` of table `{}` is not readable", self.table.name()))
                        .with_hint("delete that one file: the log before it is still whole")
                        .with_source(source)
                })?;
                Ok(Some(last))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(source.into()),
        }
    }

    /// The applications' numbers that a log checkpoint holds.
    pub(crate) async fn checkpoint_txns(&self, last: &LastCheckpoint) -> Result<BTreeMap<String, i64>> {
        let folder = self.path.clone().join(LOG_FOLDER);
        let names: Vec<String> = match last.parts {
            None => vec![format!("{:020}.checkpoint.parquet", last.version)],
            Some(parts) => (1..=parts)
                .map(|part| format!("{:020}.checkpoint.{part:010}.{parts:010}.parquet", last.version))
                .collect(),
        };
        let mut txns = BTreeMap::new();
        for name in names {
            let bytes = self.store.get(&folder.clone().join(name)).await?.bytes().await?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
            let mask = ProjectionMask::columns(reader.parquet_schema(), ["txn.appId", "txn.version"]);
            for batch in reader.with_projection(mask).build()? {
                collect_txns(&batch?, &mut txns);
            }
        }
        Ok(txns)
    }

    /// A snapshot brought up to date: reads the entries after it until there are no more.
    ///
    /// # Errors
    /// As [`CommitLog::load`].
    pub async fn catch_up(&self, mut snapshot: Snapshot) -> Result<Snapshot> {
        while let Some(entry) = self.entry(snapshot.version + 1).await? {
            snapshot = snapshot.after(entry.version, entry.txns);
        }
        Ok(snapshot)
    }

    /// The oldest entry at or after a version, for logs whose beginning has been cleaned up.
    async fn first_entry_version(&self) -> Result<Option<i64>> {
        let folder = self.path.clone().join(LOG_FOLDER);
        let versions: Vec<Option<i64>> = self
            .store
            .list(Some(&folder))
            .map_ok(|object| object.location.filename().and_then(|name| name.strip_suffix(".json")?.parse().ok()))
            .try_collect()
            .await?;
        Ok(versions.into_iter().flatten().min())
    }

    /// Appends an entry on a snapshot: creates the next version, steps over entries of others that leave our
    /// applications alone, and recognises its own entry by its id.
    pub(crate) async fn append(&self, on: &Snapshot, uuid: Uuid, advances: &[Advance], text: &str) -> Outcome {
        let mut base = on.clone();
        loop {
            let apps = base.moved(advances);
            if !apps.is_empty() {
                return match self.catch_up(base).await {
                    Ok(snapshot) => Outcome::Fenced { apps, snapshot },
                    Err(error) => Outcome::Unknown { reason: error.chain() },
                };
            }
            let version = base.version + 1;
            match self.create(version, text).await {
                Ok(Some(())) => {
                    let txns = advances.iter().map(|advance| (advance.app_id.clone(), advance.next));
                    return Outcome::Committed(base.after(version, txns));
                }
                Ok(None) => match self.conflicting_entry(version).await {
                    Ok(Some(entry)) => {
                        let ours = entry.uuid == Some(uuid);
                        base = base.after(version, entry.txns);
                        if ours {
                            return Outcome::Committed(base);
                        }
                    }
                    Ok(None) => return Outcome::Unknown { reason: format!("version {version} is contended") },
                    Err(error) => return Outcome::Unknown { reason: error.chain() },
                },
                Err(reason) => return Outcome::Unknown { reason },
            }
        }
    }

    /// As [`CommitLog::try_commit`], and takes files out of the table in the same step: those of the snapshot.
    ///
    /// # Errors
    /// As [`CommitLog::try_commit`].
    pub async fn try_replace(&self, on: &Snapshot, commit: &Commit, removed: &[AddedFile]) -> Result<Outcome> {
        let text = replace_entry(commit, removed, self.clock.now_micros() / 1000)?;
        Ok(self.append(on, commit.uuid, &commit.advances, &text).await)
    }

    /// One attempt to create a version. `None`: that version is somebody's already.
    async fn create(&self, version: i64, text: &str) -> Result<Option<()>, String> {
        let payload = PutPayload::from(text.to_owned());
        match self.store.put_opts(&entry_path(&self.path, version), payload, PutMode::Create.into()).await {
            Ok(_) => Ok(Some(())),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(None),
            Err(source) => Err(Error::from(source).chain()),
        }
    }

    /// The entry of a version that the store says exists.
    async fn conflicting_entry(&self, version: i64) -> Result<Option<LogEntry>> {
        let looks = futures::stream::iter(0..LOOKS_AT_A_CONFLICT).then(|_| self.entry(version));
        let mut looks = std::pin::pin!(looks);
        while let Some(entry) = looks.next().await {
            if let Some(entry) = entry? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

fn collect_txns(batch: &arrow::array::RecordBatch, txns: &mut BTreeMap<String, i64>) {
    let Some(txn) = batch.column_by_name("txn").and_then(|column| column.as_struct_opt()) else { return };
    let (Some(apps), Some(versions)) = (
        txn.column_by_name("appId"),
        txn.column_by_name("version").and_then(|column| column.as_primitive_opt::<Int64Type>()),
    ) else {
        return;
    };
    let Ok(apps) = arrow::compute::cast(apps, &arrow::datatypes::DataType::Utf8) else { return };
    let apps = apps.as_string::<i32>();
    for row in (0..txn.len()).filter(|row| txn.is_valid(*row) && apps.is_valid(*row) && versions.is_valid(*row)) {
        txns.insert(apps.value(row).to_owned(), versions.value(row));
    }
}

#[async_trait]
impl CommitLog for DeltaLog {
    async fn load(&self) -> Result<Snapshot> {
        if let Some(last) = self.last_checkpoint().await? {
            let txns = self.checkpoint_txns(&last).await?;
            return self.catch_up(Snapshot::new(last.version, txns)).await;
        }
        match self.first_entry_version().await? {
            Some(0) => self.catch_up(Snapshot::new(-1, BTreeMap::new())).await,
            Some(first) => Err(Error::data(format!(
                "the log of table `{}` begins at version {first} and has no checkpoint",
                self.table.name()
            ))
            .with_hint("restore `_delta_log/_last_checkpoint` or the missing entries from a copy")),
            None => Err(Error::data(format!("there is no table `{}` under the root", self.table.name()))
                .with_hint("check [tables].root")),
        }
    }

    async fn try_commit(&self, on: &Snapshot, commit: &Commit) -> Result<Outcome> {
        let text = write_entry(commit, self.clock.now_micros() / 1000)?;
        Ok(self.append(on, commit.uuid, &commit.advances, &text).await)
    }
}
