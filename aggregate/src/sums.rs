//! Computes rows of `metrics` from contributions, by the definition in the metrics crate.
//!
//! A row of `metrics` takes a few kilobytes while it is summed, and old or scattered events make nearly as many rows as there
//! are runs. So memory is bounded in two places: at most [`GROUPS_AT_ONCE`] groups are summed at a time, and the rows go to
//! storage as files of about [`FILE_ROWS`], to be committed together.

use std::collections::HashSet;
use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use bellwether_base::{Error, Result};
use bellwether_lake::{DataFile, Lake};
use bellwether_metrics::GROUP;
use bellwether_tables::Table;
use datafusion::prelude::SessionContext;
use xxhash_rust::xxh3::xxh3_64;

use crate::kept::since;
use crate::recompute::saturated;
use crate::rolling_history::newest_end_micros;
use crate::sql;

/// Groups that are summed at a time.
const GROUPS_AT_ONCE: usize = 4096;

/// Rows of `metrics` after which a file is written.
const FILE_ROWS: usize = 8192;

const MINUTE_MICROS: i64 = 60_000_000;

/// The planned definitions of runs and of metrics.
pub(crate) struct Definitions {
    pub(crate) runs: sql::Definition,
    pub(crate) metrics: sql::Definition,
}

/// Sums contributions from some versions of `events`, part by part, so that memory does not grow with their number.
pub(crate) struct Sums<'a> {
    lake: &'a Lake,
    definition: &'a sql::Definition,
    at_once: usize,
    versions: Range<i64>,
    /// Windows that start before this, microseconds since the epoch, are left out.
    from_micros: i64,
    /// Rows of the relation `contributions` that are not summed yet.
    rows: Vec<RecordBatch>,
    /// Rows of `metrics` that are not in a file yet.
    partials: Vec<RecordBatch>,
    written: Written,
}

/// Rows of `metrics` in storage, which no commit names yet.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) files: Vec<DataFile>,
    /// Rows with a sum that does not fit its column.
    pub(crate) saturated: usize,
    /// End of the newest window.
    pub(crate) newest_end: Option<i64>,
}

// === impl Definitions ===

impl Definitions {
    pub(crate) async fn plan(context: &SessionContext) -> Result<Self> {
        let relation = ("contributions", sql::contributions_schema());
        let metrics = sql::Definition::new(context, &[relation], bellwether_metrics::metrics_sql()).await?;
        Ok(Self { runs: sql::runs_definition(context).await?, metrics })
    }
}

// === impl Sums ===

impl<'a> Sums<'a> {
    /// Sums as soon as there are `at_once` contributions.
    pub(crate) fn new(lake: &'a Lake, definition: &'a sql::Definition, at_once: usize, versions: Range<i64>) -> Self {
        Self {
            lake,
            definition,
            at_once,
            versions,
            from_micros: i64::MIN,
            rows: Vec::new(),
            partials: Vec::new(),
            written: Written::default(),
        }
    }

    /// Leaves out windows that start before a moment, microseconds since the epoch.
    pub(crate) fn since(self, from_micros: i64) -> Self {
        Self { from_micros, ..self }
    }

    pub(crate) async fn add(&mut self, contributions: RecordBatch) -> Result<()> {
        if contributions.num_rows() > 0 {
            self.rows.push(contributions);
        }
        if self.rows.iter().map(RecordBatch::num_rows).sum::<usize>() >= self.at_once {
            self.sum().await?;
        }
        Ok(())
    }

    async fn sum(&mut self) -> Result<()> {
        for rows in in_parts(std::mem::take(&mut self.rows), GROUPS_AT_ONCE)? {
            let answer = self.definition.run([rows]).await?;
            let count = answer.iter().map(RecordBatch::num_rows).sum();
            let provenance = [
                ("events_from", sql::constant(self.versions.start, count)),
                ("events_to", sql::constant(self.versions.end, count)),
            ];
            let rows = sql::rows_of(Table::Metrics, &answer, &provenance)?;
            self.partials.push(since(&rows, "window_start", self.from_micros)?);
            if self.partials.iter().map(RecordBatch::num_rows).sum::<usize>() >= FILE_ROWS {
                self.write().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let partials = concat_batches(&Table::Metrics.arrow_schema(), &std::mem::take(&mut self.partials))?;
        self.written.saturated += saturated(&partials);
        self.written.newest_end = self.written.newest_end.max(newest_end_micros(&partials)?);
        let files = self.lake.write(Table::Metrics, &partials).await?;
        self.written.files.extend(files.into_iter().map(|written| written.file));
        Ok(())
    }

    /// Returns the rows of `metrics`, in storage.
    pub(crate) async fn finish(mut self) -> Result<Written> {
        if !self.rows.is_empty() {
            self.sum().await?;
        }
        if self.partials.iter().any(|partials| partials.num_rows() > 0) {
            self.write().await?;
        }
        Ok(self.written)
    }
}

/// Divides contributions into parts of about `groups_at_once` groups. All contributions to a group are in one part, so that
/// it becomes one row.
fn in_parts(rows: Vec<RecordBatch>, groups_at_once: usize) -> Result<Vec<Vec<RecordBatch>>> {
    if rows.iter().map(RecordBatch::num_rows).sum::<usize>() <= groups_at_once {
        return Ok(vec![rows]);
    }
    let hashes = rows.iter().map(hashes).collect::<Result<Vec<Vec<u64>>>>()?;
    let groups = hashes.iter().flatten().collect::<HashSet<&u64>>().len();
    if groups <= groups_at_once {
        return Ok(vec![rows]);
    }
    let count = groups.div_ceil(groups_at_once);
    let mut parts: Vec<Vec<RecordBatch>> = (0..count).map(|_| Vec::new()).collect();
    for (batch, hashes) in rows.iter().zip(&hashes) {
        let mut places: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (row, hash) in (0_u32..).zip(hashes) {
            places[usize::try_from(*hash % count as u64).unwrap_or(0)].push(row);
        }
        for (part, places) in parts.iter_mut().zip(places).filter(|(_, places)| !places.is_empty()) {
            part.push(take_record_batch(batch, &UInt32Array::from(places))?);
        }
    }
    Ok(parts)
}

/// Returns a hash of the window and group of each contribution.
fn hashes(contributions: &RecordBatch) -> Result<Vec<u64>> {
    let column = |name: &str| {
        contributions.column_by_name(name).ok_or_else(|| Error::bug(format!("contributions lack column `{name}`")))
    };
    let mixed = |hash: u64, value: u64| (hash.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let ended = column("ended_at")?.as_primitive::<TimestampMicrosecondType>();
    let minutes = ended.values().iter().map(|micros| mixed(0, micros.div_euclid(MINUTE_MICROS).cast_unsigned()));
    let mut hashes: Vec<u64> = minutes.collect();
    for name in GROUP {
        let values = column(name)?;
        if *values.data_type() == DataType::Int64 {
            let numbers = values.as_primitive::<Int64Type>().values();
            hashes.iter_mut().zip(numbers).for_each(|(hash, number)| *hash = mixed(*hash, number.cast_unsigned()));
        } else {
            // Null and empty are one group.
            let texts = values.as_string_view().iter().map(|text| xxh3_64(text.unwrap_or("").as_bytes()));
            hashes.iter_mut().zip(texts).for_each(|(hash, text)| *hash = mixed(*hash, text));
        }
    }
    // The upper bits are mixed best.
    hashes.iter_mut().for_each(|hash| *hash ^= *hash >> 32);
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::{Map, Value, json};

    use super::*;

    /// Contributions with a time of ending, a task and a weight.
    fn contributions(of: &[(i64, &str, i64)]) -> RecordBatch {
        let schema = sql::contributions_schema();
        let rows: Vec<Map<String, Value>> = of
            .iter()
            .enumerate()
            .map(|(n, (ended, task, weight))| {
                let texts = ["tenant", "release_id", "release_fingerprint", "stage", "outcome_status"];
                let mut row: Map<String, Value> = texts.map(|name| (name.to_owned(), json!("x"))).into_iter().collect();
                let stated = [("ended_at", json!(ended)), ("weight_micros", json!(weight)), ("sign", json!(1))];
                row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
                row.extend([("task", json!(task)), ("run_id", json!(n.to_string()))].map(|(k, v)| (k.to_owned(), v)));
                row
            })
            .collect();
        let mut decoder =
            arrow::json::ReaderBuilder::new(schema).with_batch_size(rows.len()).build_decoder().expect("a decoder");
        decoder.serialize(&rows).expect("rows");
        decoder.flush().expect("rows").expect("some")
    }

    #[test]
    fn a_group_is_in_one_part_and_no_row_is_lost() {
        let tasks: Vec<String> = (0..40).map(|n| format!("t{n}")).collect();
        let all: Vec<(i64, &str, i64)> = (0..600)
            .map(|n: i64| {
                let task = tasks[usize::try_from(n % 40).expect("small")].as_str();
                (n % 3 * MINUTE_MICROS + n, task, [1_000_000, 2_000_000][usize::try_from(n % 2).expect("small")])
            })
            .collect();
        let rows: Vec<RecordBatch> = all.chunks(70).map(contributions).collect();
        let parts = in_parts(rows.clone(), 16).expect("divides");
        assert!(parts.len() > 4, "{}", parts.len());
        let mut part_of: BTreeMap<(i64, String, i64), BTreeSet<usize>> = BTreeMap::new();
        for (part, batch) in parts.iter().enumerate().flat_map(|(n, part)| part.iter().map(move |batch| (n, batch))) {
            let ended = batch.column_by_name("ended_at").expect("there").as_primitive::<TimestampMicrosecondType>();
            let weights = batch.column_by_name("weight_micros").expect("there").as_primitive::<Int64Type>();
            let tasks = batch.column_by_name("task").expect("there").as_string_view();
            for row in 0..batch.num_rows() {
                let group = (ended.value(row) / MINUTE_MICROS, tasks.value(row).to_owned(), weights.value(row));
                part_of.entry(group).or_default().insert(part);
            }
        }
        assert!(part_of.values().all(|parts| parts.len() == 1), "{part_of:?}");
        assert_eq!(part_of.len(), 120);
        assert_eq!(parts.iter().flatten().map(RecordBatch::num_rows).sum::<usize>(), 600);
        assert_eq!(in_parts(rows, 120).expect("leaves them").len(), 1, "few groups stay together, however many rows");
    }
}
