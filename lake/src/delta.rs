//! Bounds the memory that the Delta library takes to open a table.
//!
//! By default it reads a thousand files at once, each with a buffer for a thousand rows. That is 1.2 MB for every log entry
//! after the last checkpoint, or a hundred megabytes each time that a table with a hundred new commits is opened.

use std::num::NonZero;
use std::sync::Arc;

use buoyant_kernel::Engine;
use buoyant_kernel_engine::DefaultEngineBuilder;
use buoyant_kernel_engine::executor::tokio::{TokioBackgroundExecutor, TokioMultiThreadExecutor};
use bytes::Bytes;
use deltalake::kernel::Version;
use deltalake::kernel::transaction::TransactionError;
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef};
use object_store::ObjectStore;
use tokio::runtime::{Handle, RuntimeFlavor};
use uuid::Uuid;

/// Number of log entries, or checkpoint parts, that are read at once.
const FILES_AT_ONCE: NonZero<usize> = NonZero::new(16).unwrap();

/// Rows in a batch: more than most log entries have actions.
const BATCH_ROWS: NonZero<usize> = NonZero::new(256).unwrap();

type Result<T> = std::result::Result<T, deltalake::DeltaTableError>;

/// A log store with a bounded engine, which delegates everything else.
pub(crate) struct BoundedReads(pub(crate) LogStoreRef);

// === impl BoundedReads ===

#[async_trait::async_trait]
impl LogStore for BoundedReads {
    fn name(&self) -> String {
        self.0.name()
    }

    async fn read_commit_entry(&self, version: Version) -> Result<Option<Bytes>> {
        self.0.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> std::result::Result<(), TransactionError> {
        self.0.write_commit_entry(version, commit, operation).await
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> std::result::Result<(), TransactionError> {
        self.0.abort_commit_entry(version, commit, operation).await
    }

    async fn get_latest_version(&self, from: Version) -> Result<Version> {
        self.0.get_latest_version(from).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.0.root_object_store(operation)
    }

    fn engine(&self, operation: Option<Uuid>) -> Arc<dyn Engine> {
        let builder = DefaultEngineBuilder::new(self.root_object_store(operation))
            .with_buffer_size(FILES_AT_ONCE)
            .with_batch_size(BATCH_ROWS);
        // The same choice as in the library: on a single-threaded runtime, reading needs a thread of its own.
        let runtime = Handle::current();
        match runtime.runtime_flavor() {
            RuntimeFlavor::MultiThread => {
                Arc::new(builder.with_task_executor(Arc::new(TokioMultiThreadExecutor::new(runtime))).build())
            }
            _ => Arc::new(builder.with_task_executor(Arc::new(TokioBackgroundExecutor::new())).build()),
        }
    }

    fn config(&self) -> &LogStoreConfig {
        self.0.config()
    }
}
