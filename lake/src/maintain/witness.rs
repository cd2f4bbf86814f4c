//! Measures the time that has certainly passed. Maintenance removes by age, and a clock may jump, by an hour or a year, and back.
//!
//! Each round of maintenance notes the time in a file under the root. As long as no two rounds are further apart than
//! [`LONGEST_PAUSE`], time has passed as the clock says. After a longer step, or a step back, counting starts again: something
//! that must be two hours old then stays until there were two hours of rounds. So a clock that is a year ahead removes nothing
//! that a reader still has open, and neither does the first round after a year without one.

use std::time::Duration;

use bellwether_base::{Error, Result};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};

use super::Waits;
use crate::root::Lake;
use crate::stored::{Stored, from_store};

/// Longest time between two rounds for which the clock is believed. A weekly job is still continuous.
const LONGEST_PAUSE: Duration = Duration::from_secs(8 * 86_400);

/// The clock may be so much behind the one of the round before: other machines have other clocks.
const STEP_BACK: Duration = Duration::from_secs(10 * 60);

/// The file is written again once it is so old.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// Time of the newest round, microseconds since the epoch.
    at_micros: i64,
    /// Time of the first round since which the clock is believed.
    since_micros: i64,
    /// By how much the clock had moved just before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moved_micros: Option<i64>,
}

/// The time, and how long it has been passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) now_micros: i64,
    since_micros: i64,
    moved_micros: Option<i64>,
}

// === impl Witness ===

impl Witness {
    /// Returns the latest time that is surely so long ago.
    ///
    /// # Errors
    /// Until when there is none.
    pub(super) fn ago(&self, time: Duration) -> Result<i64, Waits> {
        let time = micros(time);
        let until_micros = self.since_micros.saturating_add(time);
        if self.now_micros < until_micros {
            return Err(Waits::Clock { until_micros, moved_micros: self.moved_micros });
        }
        Ok(self.now_micros.saturating_sub(time))
    }
}

// === impl Lake ===

impl Lake {
    /// Looks at the clock, and notes that.
    pub(super) async fn witness(&self, note: bool) -> Result<Witness> {
        let path = self.own_folder().join("maintained.json");
        let found: Option<Noted> = match self.objects().get(&path).await {
            // A file that is being written, or is nonsense, is no evidence.
            Ok(found) => serde_json::from_slice(&found.bytes().await.stored()?).ok(),
            Err(object_store::Error::NotFound { .. }) => None,
            Err(source) => return Err(from_store(source)),
        };
        let noted = after(found, self.clock().now_micros());
        if let (Some(moved), true) = (noted.moved_micros, note && noted.since_micros == noted.at_micros) {
            let hours = moved / 3_600_000_000;
            tracing::warn!(hours, "the clock has moved far since the last maintenance; nothing is removed for a while");
        }
        let is_due = found.is_none_or(|found| {
            found.since_micros != noted.since_micros || noted.at_micros - found.at_micros >= micros(NOTED_EVERY)
        });
        if note && is_due {
            let text = serde_json::to_vec(&noted)
                .map_err(|source| Error::bug("a note cannot be written as JSON").with_source(source))?;
            self.objects().put_opts(&path, PutPayload::from(text), PutMode::Overwrite.into()).await.stored()?;
        }
        let Noted { at_micros: now_micros, since_micros, moved_micros } = noted;
        Ok(Witness { now_micros, since_micros, moved_micros })
    }

    /// Returns the folder of maintenance's own files.
    pub(super) fn own_folder(&self) -> Path {
        self.base().join("_bellwether")
    }
}

/// Makes the note of a round.
fn after(found: Option<Noted>, now: i64) -> Noted {
    let restarted = |moved_micros| Noted { at_micros: now, since_micros: now, moved_micros };
    let Some(found) = found else { return restarted(None) };
    let moved = now.saturating_sub(found.at_micros);
    if moved > micros(LONGEST_PAUSE) || moved < -micros(STEP_BACK) {
        return restarted(Some(moved));
    }
    Noted { at_micros: now.max(found.at_micros), ..found }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;
    const DAY: i64 = 24 * HOUR;

    fn witness(noted: Noted) -> Witness {
        let Noted { at_micros: now_micros, since_micros, moved_micros } = noted;
        Witness { now_micros, since_micros, moved_micros }
    }

    /// Returns the notes of rounds at these times.
    fn rounds(times: &[i64]) -> Witness {
        let mut noted = None;
        for time in times {
            noted = Some(after(noted, *time));
        }
        witness(noted.expect("a round"))
    }

    #[test]
    fn time_that_rounds_have_seen_pass_is_believed() {
        let two_hours = Duration::from_secs(7200);
        let waits = |until_micros, moved_micros| Err(Waits::Clock { until_micros, moved_micros });
        assert_eq!(rounds(&[DAY]).ago(two_hours), waits(DAY + 2 * HOUR, None), "the first round");
        assert_eq!(rounds(&[DAY, DAY + HOUR, DAY + 2 * HOUR]).ago(two_hours), Ok(DAY));
        assert_eq!(rounds(&[DAY, 2 * DAY, 9 * DAY]).ago(two_hours), Ok(9 * DAY - 2 * HOUR), "a weekly job");
    }

    #[test]
    fn after_a_jump_time_counts_again_in_either_direction() {
        let day = Duration::from_secs(86_400);
        let jumped = 400 * DAY;
        let moved = Some(jumped - 3 * DAY);
        let until = |since: i64, moved_micros| Err(Waits::Clock { until_micros: since + DAY, moved_micros });
        assert_eq!(rounds(&[DAY, 2 * DAY, 3 * DAY, jumped]).ago(day), until(jumped, moved));
        assert_eq!(rounds(&[DAY, 2 * DAY, 3 * DAY, jumped, jumped + DAY - 1]).ago(day), until(jumped, moved));
        assert_eq!(rounds(&[DAY, 2 * DAY, 3 * DAY, jumped, jumped + DAY]).ago(day), Ok(jumped));
        let back = [DAY, 3 * DAY, jumped, 3 * DAY + HOUR];
        assert_eq!(rounds(&back).ago(day), until(3 * DAY + HOUR, Some(3 * DAY + HOUR - jumped)));
        // Two clocks that differ by a minute are no jump.
        assert_eq!(rounds(&[DAY, 2 * DAY, 2 * DAY - HOUR / 60]).ago(day), Ok(DAY));
    }
}
