//! Log checkpoints.

use bellwether_base::{Error, Result};
use bellwether_tables::Table;
use object_store::ObjectStoreExt;

use crate::commit::CommitLog;
use crate::log::LOG_FOLDER;
use crate::root::Lake;
use crate::stored::Stored;

impl Lake {
    /// Writes a log checkpoint of a table's newest version, and compares it with the log: if it lost the number of an
    /// application, ingest would read offsets twice.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the checkpoint differs from the log.
    pub async fn checkpoint(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        let before = log.load().await?;
        let delta = self.delta_table(table).await?;
        self.work().whole(deltalake::checkpoints::create_checkpoint(&delta, None)).await.stored()?;
        let after = log.load().await?;
        let lost: Vec<&str> = before
            .apps()
            .filter(|(app, next)| after.next(app).is_none_or(|found| found < *next))
            .map(|(app, _)| app)
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let pointer = self.table_path(table).join(LOG_FOLDER).join("_last_checkpoint");
        log.store.delete(&pointer).await.stored()?;
        Err(Error::data(format!(
            "a checkpoint of table `{}` lost the progress of `{}`",
            table.name(),
            lost.join("`, `")
        ))
        .with_hint("the checkpoint is no longer used; the log itself is intact"))
    }
}
