//! The releases of a task: which exist, which one is the baseline, and the span in which both have runs.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use bellwether_base::Result;
use bellwether_detect::Minute;
use bellwether_queries::{Session, quoted};

use super::answer::{BaselineChoice, Unknown};
use super::rows::OFFLINE;
use crate::observe::MINUTE_MICROS;
use crate::read::moment;

/// Minutes before a canary in which the traffic of other releases counts.
const BEFORE: i64 = 7 * 1440;

/// Near names that are listed.
const NEAR: usize = 3;

/// The windows of a release in the stages that are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) first: Minute,
    /// The last window.
    pub(super) last: Minute,
    pub(super) runs: i64,
    /// It had runs as a canary.
    pub(super) trial: bool,
}

/// The releases of a task with runs, by name.
pub(super) type Releases = BTreeMap<String, Life>;

/// Reads the releases of a task.
pub(super) async fn releases(session: &Session, task: &str, offline: bool, since: Option<Minute>) -> Result<Releases> {
    let stages = if offline { quoted(OFFLINE) } else { "'canary', 'full'".to_owned() };
    let since = since.map_or_else(String::new, |since| format!(" AND window_start >= {}", moment(since)));
    let sql = format!(
        "SELECT release_id, stage, CAST(min(window_start) AS BIGINT), CAST(max(window_start) AS BIGINT), sum(runs) FROM metrics \
         WHERE task = {} AND stage IN ({stages}){since} GROUP BY release_id, stage HAVING sum(runs) > 0",
        quoted(task)
    );
    let mut found = Releases::new();
    for batch in session.execute(&sql).await?.collect().await? {
        let (texts, numbers) = (texts(&batch, 2)?, numbers(&batch, 2)?);
        for row in 0..batch.num_rows() {
            let [first, last, runs] = [0, 1, 2].map(|place| numbers[place][row]);
            let (first, last) = (first.div_euclid(MINUTE_MICROS), last.div_euclid(MINUTE_MICROS));
            let trial = texts[1][row] == "canary";
            let life = found.entry(texts[0][row].clone()).or_insert(Life { first, last, runs: 0, trial });
            *life = Life {
                first: life.first.min(first),
                last: life.last.max(last),
                runs: life.runs.saturating_add(runs),
                trial: life.trial || trial,
            };
        }
    }
    Ok(found)
}

/// Returns the release that most recently began as a canary.
pub(super) fn newest_canary(releases: &Releases) -> Option<String> {
    releases.iter().filter(|(_, life)| life.trial).max_by_key(|(_, life)| life.first).map(|(name, _)| name.clone())
}

/// Chooses the baseline: that of the contract, otherwise the release with most runs in full rollout in the week before the canary
/// began or, if there was none, beside it.
pub(super) async fn baseline(
    session: &Session,
    task: &str,
    canary: (&str, Life),
    offline: bool,
    contract: Option<&str>,
) -> Result<Option<(String, BaselineChoice)>> {
    if let Some(named) = contract.filter(|named| *named != canary.0) {
        return Ok(Some((named.to_owned(), BaselineChoice::Contract)));
    }
    let (release, life) = canary;
    let stage = if offline { OFFLINE } else { "full" };
    for (from, to) in [(life.first - BEFORE, life.first), (life.first, life.last + 1)] {
        // An evaluation may be older than a week, and both releases may be evaluated in the same minute.
        let span = if offline {
            format!("window_start < {}", moment(to))
        } else {
            format!("window_start >= {} AND window_start < {}", moment(from), moment(to))
        };
        let sql = format!(
            "SELECT release_id FROM metrics WHERE task = {} AND stage = {} AND release_id <> {} AND {span} \
             GROUP BY release_id HAVING sum(runs) > 0 ORDER BY sum(runs) DESC, release_id LIMIT 1",
            quoted(task),
            quoted(stage),
            quoted(release)
        );
        for batch in session.execute(&sql).await?.collect().await? {
            if let Some(name) = texts(&batch, 1)?.remove(0).into_iter().next() {
                return Ok(Some((name, BaselineChoice::Traffic)));
            }
        }
    }
    Ok(None)
}

/// Returns the tasks that the tables have.
pub(super) async fn tasks(session: &Session) -> Result<Vec<String>> {
    let sql = "SELECT task FROM metrics GROUP BY task HAVING sum(runs) > 0";
    let mut found = Vec::new();
    for batch in session.execute(sql).await?.collect().await? {
        found.append(&mut texts(&batch, 1)?.remove(0));
    }
    Ok(found)
}

/// Describes a name that the tables do not have.
pub(super) fn unknown(what: &'static str, name: &str, known: impl IntoIterator<Item = String>) -> Unknown {
    let mut near: Vec<String> = known.into_iter().filter(|other| other != name).collect();
    near.sort_by(|a, b| strsim::jaro_winkler(b, name).total_cmp(&strsim::jaro_winkler(a, name)).then_with(|| a.cmp(b)));
    near.truncate(NEAR);
    Unknown { what, name: name.to_owned(), near }
}

/// Returns the first columns as texts.
pub(super) fn texts(batch: &RecordBatch, count: usize) -> Result<Vec<Vec<String>>> {
    (0..count)
        .map(|place| {
            let column = cast(batch.column(place), &DataType::Utf8)?;
            let column = column.as_string::<i32>();
            Ok((0..column.len())
                .map(|row| if column.is_valid(row) { column.value(row).to_owned() } else { String::new() })
                .collect())
        })
        .collect()
}

/// Returns the columns from a place on as whole numbers.
pub(super) fn numbers(batch: &RecordBatch, from: usize) -> Result<Vec<Vec<i64>>> {
    (from..batch.num_columns())
        .map(|place| {
            let column = cast(batch.column(place), &DataType::Int64)?;
            let column = column.as_primitive::<Int64Type>();
            Ok(column.iter().map(Option::unwrap_or_default).collect())
        })
        .collect()
}
