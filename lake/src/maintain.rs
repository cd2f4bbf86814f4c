//! Maintenance: log checkpoints, so that opening a table does not read its whole history.

use object_store::ObjectStoreExt;

use crate::commit::CommitLog;
use crate::error::{Error, Result};
use crate::root::Lake;
use crate::schema::Table;

impl Lake {
    /// Writes a log checkpoint of a table's newest version, opens it again and compares: a checkpoint that lost an
    /// application's number would make ingestion read offsets twice.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where the checkpoint does not hold what the log says.
    pub async fn checkpoint(&self, table: Table) -> Result<()> {
        let log = self.log(table);
        let before = log.load().await?;
        let delta = self.delta_table(table).await?;
        deltalake::checkpoints::create_checkpoint(&delta, None).await?;
        let after = log.load().await?;
        let lost: Vec<&str> = before
            .apps()
            .filter(|(app, next)| after.next(app).is_none_or(|found| found < *next))
            .map(|(app, _)| app)
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let pointer = self.table_path(table).join(crate::log::LOG_FOLDER).join("_last_checkpoint");
        log.store.delete(&pointer).await?;
        Err(Error::data(format!(
            "a checkpoint of table `{}` lost the progress of `{}`",
            table.name(),
            lost.join("`, `")
        ))
        .with_hint("it has been taken out of use again; the log itself is whole"))
    }
}
