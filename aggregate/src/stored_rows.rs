//! Queries over the rows of `metrics` as they are stored, within a bound on memory.
//!
//! Rows come from the files in batches and are folded as they come, so that memory grows with the groups of the answer. Beyond
//! the bound the engine spills to disk; what cannot spill is refused.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_lake::{Lake, Stored, is_permanent};
use bellwether_metrics::Rolled;
use bellwether_tables::Table;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

/// Rows in a batch: a row of `metrics` is a few kilobytes wide.
const BATCH_ROWS: usize = 2048;

/// The tables of metrics at one version each.
pub(crate) struct StoredRows {
    context: SessionContext,
    rolled: Rolled,
}

// === impl StoredRows ===

impl StoredRows {
    /// Opens the tables at their newest versions, again if a roll-up moves on meanwhile.
    pub(crate) async fn open(lake: &Lake, memory_bytes: usize) -> Result<Self> {
        let pool = Arc::new(FairSpillPool::new(memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().map_err(failed)?;
        let config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH_ROWS);
        let context = SessionContext::new_with_config_rt(config, runtime);
        bellwether_metrics::register(&context);
        let mut rolled = bellwether_lake::Rolled::load(lake).await?;
        loop {
            for table in [Table::MetricsDaily, Table::MetricsHourly, Table::Metrics] {
                let delta = lake.delta_table(table).await?;
                delta.update_datafusion_session(&context.state()).stored()?;
                let provider = delta.table_provider().await.map_err(failed)?;
                context.deregister_table(table.name()).map_err(failed)?;
                context.register_table(table.name(), provider).map_err(failed)?;
            }
            let now = bellwether_lake::Rolled::load(lake).await?;
            if now == rolled {
                return Ok(Self { context, rolled: Rolled::up_to(now.hours, now.days) });
            }
            rolled = now;
        }
    }

    /// The roll-ups that queries may use.
    pub(crate) fn rolled(&self) -> Rolled {
        self.rolled
    }

    /// Answers a query.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer or the query takes too much memory; `Data` if a file is gone or damaged.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<RecordBatch>> {
        let answer = async { self.context.sql(query).await?.collect().await };
        answer.await.map_err(failed)
    }

    /// True for the error of a query that takes too much memory.
    pub(crate) fn is_out_of_memory(error: &Error) -> bool {
        std::error::Error::source(error)
            .and_then(|source| source.downcast_ref::<DataFusionError>())
            .is_some_and(|source| matches!(source.find_root(), DataFusionError::ResourcesExhausted(_)))
    }
}

fn failed(source: DataFusionError) -> Error {
    let storage = |permanent| match permanent {
        true => Error::data("a file of `metrics` is missing or damaged")
            .with_hint("find it with `bellwether audit`, and restore it from a backup or run `bellwether rebuild`"),
        false => Error::unavailable("the table store does not answer"),
    };
    let error = match source.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            Error::unavailable("a query over `metrics` needs more memory than it may have")
        }
        DataFusionError::ObjectStore(source) => storage(is_permanent(source.as_ref())),
        DataFusionError::ParquetError(source) => storage(is_permanent(source.as_ref())),
        DataFusionError::ArrowError(source, _) => storage(is_permanent(source.as_ref())),
        DataFusionError::External(source) => storage(is_permanent(source.as_ref())),
        _ => Error::bug("a query over `metrics` failed"),
    };
    error.with_source(source)
}
