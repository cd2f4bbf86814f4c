//! Compares a roll-up with its source, for audits: both are folded by the windows of the roll-up and must be equal bit for bit.
//!
//! Both sides are read piece by piece, folded and sorted in bounded memory, and compared as they come out.

use std::sync::Arc;

use bellwether_base::Result;
use bellwether_lake::{AddedFile, Lake, RollUp};

use super::fold;
use super::rows::{Rows, Wanted};
use crate::compare::{self, Compared};
use crate::kept::whole_windows_from;

/// Memory for folding and sorting both sides; what does not fit is spilled to disk.
const MEMORY_BYTES: usize = 256 << 20;

/// A roll-up and its source, each as of one version. The source is the later one.
#[derive(Clone, Debug)]
pub struct Sides {
    /// The roll-up.
    pub rollup: RollUp,
    /// Its files.
    pub files: Vec<AddedFile>,
    /// The files of its source.
    pub source: Vec<AddedFile>,
    /// The number up to which the roll-up holds the rows of its source.
    pub rolled_to: i64,
    /// The time from which on both hold everything, microseconds since the epoch.
    pub kept_from: i64,
}

/// Compares the windows that a roll-up and its source still hold whole.
///
/// # Errors
/// `Unavailable` if storage does not answer, or there is not enough memory; `Data` if a file is gone or unreadable.
pub async fn compare(lake: &Lake, sides: Sides) -> Result<Compared> {
    let Sides { rollup, files, source, rolled_to, kept_from } = sides;
    let since = whole_windows_from(kept_from, rollup.window_micros());
    let rows = |table, files, to| {
        let wanted = Wanted { since, ..Wanted::between(i64::MIN, to) };
        Arc::new(Rows::new(lake, table, files, wanted, Arc::new(|_| {})))
    };
    let context = fold::session(MEMORY_BYTES)?;
    let sql = fold::groups(rollup);
    let table = fold::run(&context, rows(rollup.table(), files, i64::MAX), &sql).await?;
    let computed = fold::run(&context, rows(rollup.source(), source, rolled_to), &sql).await?;
    compare::compare(table, computed).await
}
