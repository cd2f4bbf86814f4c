//! How the Delta library reads a table: within bounds.
//!
//! By default it has a thousand files in flight, each with room for a thousand rows: 1.2 MB for every log entry that no
//! checkpoint covers, a hundred megabytes for a table that has just got a hundred commits, each time that it is opened.

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

/// Log entries, or checkpoint parts, that are read at once.
const FILES_AT_ONCE: NonZero<usize> = NonZero::new(16).unwrap();

/// Rows of a batch that is read: more than the actions of a log entry mostly are.
const BATCH_ROWS: NonZero<usize> = NonZero::new(256).unwrap();

type Result<T> = std::result::Result<T, deltalake::DeltaTableError>;

/// A log store whose engine reads within bounds; all else is the other's.
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
        // As the library chooses: on a runtime of one thread, reading needs a thread of its own.
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
