//! The suggestion to go back to an earlier release.
//!
//! It is made only if the release under judgement is worse than its baseline in the same windows, if that baseline still serves
//! traffic, and if no alert fires about it.

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use bellwether_sinks::page::Rollback;
use serde::Deserialize;

use crate::ask::moment;
use crate::comparison;
use crate::record::AlertRecord;
use crate::slices::cut;

/// How long ago the baseline may have served its last run, microseconds.
const RECENT: i64 = 3_600_000_000;

#[derive(Debug, Deserialize)]
struct Served {
    release_id: String,
    runs: i64,
}

#[derive(Debug, Deserialize)]
struct Count {
    number: i64,
}

/// Returns the release to go back to; `None` unless all conditions hold.
pub(crate) async fn rollback(session: &Session, record: &AlertRecord) -> Result<Option<Rollback>> {
    let (Some(release), "concurrent", true) = (&record.release_id, record.baseline.as_str(), record.is_firing()) else {
        return Ok(None);
    };
    let Some(good) = serving(session, record, release).await? else { return Ok(None) };
    if is_blamed(session, &good.release_id).await? {
        return Ok(None);
    }
    let reason = format!(
        "{} is worse than {} in the same minutes; {} served {} runs of the last hour, and no alert fires about it.",
        cut(release),
        cut(&good.release_id),
        cut(&good.release_id),
        good.runs
    );
    Ok(Some(Rollback { release: good.release_id, reason }))
}

/// Returns the baseline if it served runs lately. Of several, it is the one that served most.
async fn serving(session: &Session, record: &AlertRecord, release: &str) -> Result<Option<Served>> {
    let mut conditions = vec![match &record.baseline_release {
        Some(baseline) => format!("release_id = {}", quoted(baseline)),
        None => format!("release_id <> {} AND stage = 'full'", quoted(release)),
    }];
    for (column, value) in [("tenant", comparison::tenant(record)), ("task", comparison::task(record))] {
        conditions.extend(value.map(|value| format!("{column} = {}", quoted(value))));
    }
    let query = format!(
        "SELECT release_id, whole(weighted_sum(runs, weight_micros)) AS runs FROM metrics \
         WHERE {} AND window_start >= {} AND window_start < {} GROUP BY release_id HAVING sum(runs) > 0 ORDER BY runs DESC, release_id LIMIT 1",
        conditions.join(" AND "),
        moment(record.at.saturating_sub(RECENT)),
        moment(record.at)
    );
    Ok(session.rows::<Served>(&query).await?.into_iter().next())
}

/// Returns true if an alert about a release may fire: if it does by its last row, or by its last transition.
async fn is_blamed(session: &Session, release: &str) -> Result<bool> {
    let query = format!(
        "SELECT count(*) AS number FROM (
            SELECT state, row_number() OVER (PARTITION BY alert_id ORDER BY evaluation DESC, at DESC) AS by_row,
                row_number() OVER (PARTITION BY alert_id ORDER BY at DESC, evaluation DESC) AS by_time
            FROM alerts WHERE release_id = {}
        ) AS numbered WHERE state = 'firing' AND (by_row = 1 OR by_time = 1)",
        quoted(release)
    );
    Ok(session.rows::<Count>(&query).await?.first().is_none_or(|count| count.number > 0))
}
