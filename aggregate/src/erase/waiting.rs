//! Waits until aggregate has read the rows to be erased.

use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_lake::{CommitLog, Lake, Layout};
use bellwether_tables::Table;

use super::EraseProgress;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until all rows of `events` up to a version are in `metrics`, as long as that makes progress.
///
/// # Errors
/// `Unavailable` if it makes none for as long as `patience` says.
pub(super) async fn until_read(
    lake: &Lake,
    version: i64,
    patience: Duration,
    progress: &mut impl FnMut(EraseProgress),
) -> Result<()> {
    let clock = lake.clock();
    let patience = i64::try_from(patience.as_micros()).unwrap_or(i64::MAX);
    let (mut moved_at, mut last) = (clock.now_micros(), None);
    loop {
        let next = Layout::reads_next(&lake.log(Table::Metrics).load().await?);
        if !brings_rows(lake, next, version).await? {
            return Ok(());
        }
        if last != Some(next) {
            (moved_at, last) = (clock.now_micros(), Some(next));
        }
        if clock.now_micros() - moved_at > patience {
            return Err(Error::unavailable(format!(
                "no aggregator reads `events`: version {version} is not in `metrics`, which reads version {next} next"
            ))
            .with_hint(
                "rows must be counted before they are erased: start `bellwether run`, or run \
                 `bellwether aggregate --until-caught-up`, and try again; nothing was erased",
            ));
        }
        progress(EraseProgress::Waits { version });
        clock.sleep(LOOK).await;
    }
}

/// Returns true if some version of `events` in this span adds rows.
pub(super) async fn brings_rows(lake: &Lake, from: i64, to: i64) -> Result<bool> {
    let log = lake.log(Table::Events);
    for version in from..=to {
        if log.entry(version).await?.is_some_and(|entry| entry.brings_rows()) {
            return Ok(true);
        }
    }
    Ok(false)
}
