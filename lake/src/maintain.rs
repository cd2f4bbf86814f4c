//! Maintenance, by which a table that gets a commit a second stays as quick to open and to read as a young one, for years.
//!
//! * `compact` rewrites small files as one, and `fold` makes one row of the partial rows of a window and group meanwhile.
//! * `checkpoint` writes log checkpoints, so that opening does not read the whole history.
//! * `clean` removes old log entries, and the files that they replaced. `record` keeps what an audit needs to know of them, and
//!   `needed` says what followers still have to read.
//! * `unnamed` removes files that were written and never committed.
//! * `retain` removes rows that were kept for long enough.
//! * `erase` writes files again without some rows, and `erased` keeps their contributions to `metrics`. `scan` searches all
//!   objects for identifiers, which `tokens` finds as whole words.
//! * `witness` decides whether the clock can be trusted with the age of anything.
//!
//! Rules: everything is checked before it counts. A rewritten file is read again and compared row by row, a checkpoint is opened
//! again and compared with the log, and entries are replayed against the checkpoint that stands for them before they go. A
//! rewrite says `dataChange: false`, so readers that follow the log skip it. Several processes may maintain one root at once.

mod checkpoint;
mod clean;
mod compact;
mod erase;
mod erased;
mod fold;
mod listing;
mod needed;
mod record;
mod retain;
mod scan;
mod tokens;
mod unnamed;
mod witness;

use std::time::Duration;

use bellwether_base::Result;
use bellwether_tables::Table;

use crate::commit::CommitLog;
use crate::root::Lake;
use compact::Compacted;

pub use erase::{Edit, Edited, Rewriting};
pub use fold::Fold;
pub(crate) use listing::LogListing;
pub use record::{CleanedLog, CleanedPartition, CleanedRange};
pub use retain::Retention;
pub use scan::{Held, Holder, Scanned};
pub use tokens::Tokens;
pub(crate) use unnamed::written_micros;

/// Determines when maintenance does something.
#[derive(Clone, Copy, Debug)]
pub struct MaintainSettings {
    /// Versions between log checkpoints. Fewer make opening quicker and cost more writing.
    pub checkpoint_versions: i64,
    /// Number of small files of one partition value and similar size that are worth a rewrite. Fewer are enough if they make
    /// a file of at least half of `compact_bytes`, which is no longer small.
    pub compact_files: usize,
    /// Most bytes of Parquet that one rewrite reads. Its memory is about eight times as much (docs/performance.md).
    pub compact_bytes: i64,
    /// Largest rewritten file, in bytes, of which all columns are compared at once with the replaced ones. The columns of a
    /// larger file are compared in groups, which bounds the memory.
    pub compare_bytes: usize,
    /// How long replaced files, and the log entries before the newest ones, stay. A reader that takes longer with one version of
    /// a table finds files gone.
    pub keep_replaced: Duration,
    /// How long files stay that were written and that no commit names. A commit that names an older one is refused.
    pub keep_unnamed: Duration,
}

impl Default for MaintainSettings {
    fn default() -> Self {
        Self {
            checkpoint_versions: 100,
            compact_files: 64,
            compact_bytes: 8 * 1024 * 1024,
            compare_bytes: 2 * 1024 * 1024,
            keep_replaced: Duration::from_secs(2 * 3600),
            keep_unnamed: Duration::from_secs(7 * 86_400),
        }
    }
}

/// The modes of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Everything that is due.
    Do,
    /// Nothing: it only finds out what is due.
    Plan,
}

/// A number of objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number.
    pub count: u64,
    /// Bytes in all.
    pub bytes: u64,
}

/// Why something that is old enough stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Until a follower has read this version.
    Follower {
        /// The follower.
        name: &'static str,
        /// Version that it reads next.
        version: i64,
    },
    /// Until this time, microseconds since the epoch: only from then on is it certain that so much time has passed.
    Clock {
        /// The time.
        until_micros: i64,
        /// By how much the clock had moved between two rounds of maintenance, microseconds, if it had moved too far.
        moved_micros: Option<i64>,
    },
}

/// The changes that maintenance made to a table, or would make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// A log checkpoint was written.
    pub checkpointed: bool,
    /// Files that were replaced by one.
    pub files_compacted: usize,
    /// Their bytes.
    pub bytes_compacted: i64,
    /// Rows by which there are fewer since partial rows were folded.
    pub rows_folded: u64,
    /// Log entries and log checkpoints that were removed.
    pub log: Amount,
    /// Replaced files that were removed.
    pub replaced: Amount,
    /// Files without a commit that were removed.
    pub unnamed: Amount,
    /// Files that were removed because their rows were kept for long enough.
    pub expired: Amount,
    /// Their rows.
    pub expired_rows: u64,
    /// Days by which the history would become shorter at once, if that was refused; otherwise 0.
    pub refused_days: i64,
    /// Why not more of the log and of the replaced files was removed.
    pub waits: Option<Waits>,
}

// === impl Amount ===

impl Amount {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.bytes += more.bytes;
    }
}

// === impl Maintained ===

impl Maintained {
    /// True if something was done, or is to be done.
    pub fn is_some(&self) -> bool {
        *self != Self { waits: self.waits, refused_days: self.refused_days, ..Self::default() }
    }

    /// Adds a further round.
    pub fn add(&mut self, more: Self) {
        self.checkpointed |= more.checkpointed;
        self.files_compacted += more.files_compacted;
        self.bytes_compacted += more.bytes_compacted;
        self.rows_folded += more.rows_folded;
        self.log += more.log;
        self.replaced += more.replaced;
        self.unnamed += more.unnamed;
        self.expired += more.expired;
        self.expired_rows += more.expired_rows;
        self.refused_days = more.refused_days;
        self.waits = more.waits;
    }
}

// === impl Lake ===

impl Lake {
    /// Does what is due for a table, one step of each kind: rewrites some small files, writes a log checkpoint, and after one,
    /// cleans up a part of the log.
    ///
    /// # Errors
    /// As [`Lake::checkpoint`], [`Lake::compact`] and [`Lake::clean_up`]; an error leaves the table intact.
    pub async fn maintain(&self, table: Table, settings: &MaintainSettings) -> Result<Maintained> {
        self.maintain_with(table, settings, None).await
    }

    /// As [`Lake::maintain`]; also folds partial rows while it rewrites their files, if `fold` is given.
    ///
    /// # Errors
    /// As [`Lake::maintain`], and those of the fold.
    pub async fn maintain_with(
        &self,
        table: Table,
        settings: &MaintainSettings,
        fold: Option<&dyn Fold>,
    ) -> Result<Maintained> {
        let Compacted { files: files_compacted, bytes: bytes_compacted, rows_folded } =
            Box::pin(self.compact_some(table, settings, fold)).await?;
        let log = self.log(table);
        let behind = log.load().await?.version - log.checkpoint_version().await?.unwrap_or(0);
        let checkpointed = behind >= settings.checkpoint_versions;
        if checkpointed {
            self.checkpoint(table).await?;
        }
        // There is nothing more to clean up until another checkpoint stands for more entries, or time has passed.
        let cleaned = match checkpointed {
            true => Box::pin(self.clean_up(table, settings, Act::Do)).await?,
            false => Maintained::default(),
        };
        Ok(Maintained { checkpointed, files_compacted, bytes_compacted, rows_folded, ..cleaned })
    }

    /// Finds out what [`Lake::maintain`] and [`Lake::remove_unnamed`] would do for a table, were they called until nothing is
    /// left. Changes nothing.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the log is torn.
    pub async fn plan_maintenance(&self, table: Table, settings: &MaintainSettings) -> Result<Maintained> {
        let (files_compacted, bytes_compacted) = self.plan_compaction(table, settings).await?;
        let log = self.log(table);
        let behind = log.load().await?.version - log.checkpoint_version().await?.unwrap_or(0);
        let cleaned = Box::pin(self.clean_up(table, settings, Act::Plan)).await?;
        let unnamed = Box::pin(self.remove_unnamed(table, settings, Act::Plan)).await?;
        let checkpointed = behind >= settings.checkpoint_versions;
        Ok(Maintained { checkpointed, files_compacted, bytes_compacted, unnamed, ..cleaned })
    }
}
