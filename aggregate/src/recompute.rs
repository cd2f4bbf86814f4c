//! Computes the metrics from scratch, for audits: `metrics`, folded, equals the result bit for bit (L-4).

mod parts;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use bellwether_base::Result;
use bellwether_lake::{AddedFile, Lake};
use bellwether_tables::{Table, metrics};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use crate::compare::Compared;
use crate::rollup::fold;
use crate::rollup::rows::{Rows, Wanted, failed};
use crate::sql;
use parts::Partials;

/// Statements of a part, about: their partial rows are some kilobytes each.
pub const PART_ROWS: i64 = 25_000;

/// Memory for folding and sorting both sides; what does not fit is spilled to disk.
const MEMORY_BYTES: usize = 256 << 20;

/// Most characters of a value in a message: sketches are long.
const SHOWN_CHARACTERS: usize = 60;

/// The rows of `events` of which `metrics` was made.
#[derive(Clone, Debug)]
pub struct Sources {
    /// For each shard, the files that it has read. All these versions of `events` name the same erased contributions.
    pub shards: Vec<Vec<AddedFile>>,
    /// The number of the contributions of erased runs, if there are any.
    pub erased: Option<i64>,
    /// Windows that start before this, microseconds since the epoch, are not compared: some of their events may be gone.
    pub kept_from: i64,
    /// Statements of a part, about; parts are computed one after the other. Usually [`PART_ROWS`].
    pub part_rows: i64,
}

/// Compares files of `metrics` with the same SQL over `events`, both folded, in bounded memory.
///
/// # Errors
/// `Unavailable` if storage does not answer, or there is not enough memory or room for temporary files; `Data` if a file is gone
/// or unreadable.
pub async fn compare(lake: &Lake, metrics: Vec<AddedFile>, sources: &Sources) -> Result<Compared> {
    let context = fold::session(MEMORY_BYTES)?;
    let table = stored(lake, &context, metrics, sources.kept_from).await?;
    let computed = computed(lake, &context, sources).await?;
    crate::compare::compare(table, computed).await
}

/// Computes the metrics from all of `events` and the contributions of erased runs: one row for each window and group.
///
/// # Errors
/// If the files of `events` cannot be read.
pub async fn recompute(lake: &Lake) -> Result<RecordBatch> {
    let (on, files) = lake.snapshot_with_files(Table::Events).await?;
    let sources =
        Sources { shards: vec![files], erased: Lake::erased_number(&on), kept_from: i64::MIN, part_rows: PART_ROWS };
    whole(computed(lake, &fold::session(MEMORY_BYTES)?, &sources).await?).await
}

/// Folds the table `metrics` to one row for each window and group.
///
/// # Errors
/// If the files of `metrics` cannot be read.
pub async fn folded(lake: &Lake) -> Result<RecordBatch> {
    folded_files(lake, lake.active_files(Table::Metrics).await?.1).await
}

/// Folds some files of `metrics`: those of one version.
///
/// # Errors
/// As [`folded`].
pub async fn folded_files(lake: &Lake, files: Vec<AddedFile>) -> Result<RecordBatch> {
    whole(stored(lake, &fold::session(MEMORY_BYTES)?, files, i64::MIN).await?).await
}

async fn stored(
    lake: &Lake,
    context: &SessionContext,
    files: Vec<AddedFile>,
    since: i64,
) -> Result<SendableRecordBatchStream> {
    let wanted = Wanted { since, ..Wanted::between(i64::MIN, i64::MAX) };
    let rows = Rows::new(lake, Table::Metrics, files, wanted, Arc::new(|_| {}));
    fold::run(context, Arc::new(rows), &groups()).await
}

async fn computed(lake: &Lake, context: &SessionContext, sources: &Sources) -> Result<SendableRecordBatchStream> {
    let rows = Box::pin(Partials::of(lake, sources, context.runtime_env())).await?;
    fold::run(context, Arc::new(rows), &groups()).await
}

/// Returns the SQL that folds partial rows of `metrics`, in the order of their groups.
fn groups() -> String {
    let names = Table::Metrics.columns().iter().map(|column| column.name);
    let fold = bellwether_metrics::fold_sql(names.filter(|name| !metrics::PROVENANCE.contains(name)));
    format!("SELECT * FROM ({fold}) ORDER BY {}", bellwether_metrics::KEY.join(", "))
}

/// Collects rows with the types of the table, without provenance.
async fn whole(answer: SendableRecordBatchStream) -> Result<RecordBatch> {
    let answer: Vec<RecordBatch> = answer.try_collect().await.map_err(failed)?;
    let rows = answer.iter().map(RecordBatch::num_rows).sum();
    let provenance: Vec<_> = metrics::PROVENANCE.iter().map(|name| (*name, sql::constant(0, rows))).collect();
    let whole = sql::rows_of(Table::Metrics, &answer, &provenance)?;
    let kept: Vec<usize> = (0..whole.num_columns())
        .filter(|n| !metrics::PROVENANCE.contains(&whole.schema().field(*n).name().as_str()))
        .collect();
    Ok(whole.project(&kept)?)
}

/// Returns the number of rows with a sum that does not fit its column.
pub fn saturated(rows: &RecordBatch) -> usize {
    rows.column_by_name(bellwether_metrics::SATURATED).map_or(0, |column| column.as_boolean().true_count())
}

/// Returns for each row whether a cell is saturated: at a bound of its type, in a row with `saturated`. Such a sum once
/// exceeded that bound, and a recomputation may find a value that a correction has brought back into range.
fn held(table: &RecordBatch, place: usize) -> Vec<bool> {
    let rows = table.num_rows();
    let Some(flags) = table.column_by_name(bellwether_metrics::SATURATED) else { return vec![false; rows] };
    let flags = flags.as_boolean();
    if table.schema().field(place).name() == bellwether_metrics::SATURATED {
        return (0..rows).map(|row| flags.is_valid(row) && flags.value(row)).collect();
    }
    let at = bellwether_metrics::at_bound(std::slice::from_ref(table.column(place)), rows);
    let at = at.map(|at| at.as_boolean().clone()).ok();
    (0..rows)
        .map(|row| flags.is_valid(row) && flags.value(row) && at.as_ref().is_some_and(|at| at.value(row)))
        .collect()
}

/// Describes the first difference between two sets of folded rows; returns `None` if they are equal bit for bit, apart from
/// saturated sums.
pub fn first_difference(table: &RecordBatch, computed: &RecordBatch) -> Option<String> {
    if table.num_rows() != computed.num_rows() {
        let (rows, wanted) = (table.num_rows(), computed.num_rows());
        let odd =
            (0..rows.max(wanted)).find(|row| *row >= rows.min(wanted) || group(table, *row) != group(computed, *row));
        let (row, of) = (odd?, if rows > wanted { table } else { computed });
        return Some(format!(
            "the table has {rows} groups and the computation {wanted}; the first difference is at {}",
            group(of, row)
        ));
    }
    for (n, field) in table.schema().fields().iter().enumerate() {
        let (found, wanted) = (table.column(n), computed.column(n));
        if found != wanted {
            let held = held(table, n);
            // Older rows have null in a column that was added later, which is no difference; a rebuild fills it.
            let later = bellwether_metrics::RECORDED_LATER.contains(&field.name().as_str());
            let known = |row: usize| !(held[row] || later && found.is_null(row));
            let differs = |row: &usize| known(*row) && found.slice(*row, 1) != wanted.slice(*row, 1);
            let Some(row) = (0..table.num_rows()).find(differs) else { continue };
            let (found, wanted) = (shown(found, row), shown(wanted, row));
            let place = group(table, row);
            return Some(format!(
                "column `{}` is {found}, but the computation gives {wanted}, at {place}",
                field.name()
            ));
        }
    }
    None
}

/// Returns the key of a group as text.
pub(crate) fn group(rows: &RecordBatch, row: usize) -> String {
    let named = |name: &&str| Some(format!("{name} {}", shown(rows.column_by_name(name)?, row)));
    bellwether_metrics::KEY.iter().filter_map(named).collect::<Vec<_>>().join(", ")
}

/// Returns a value as text, shortened if it is long.
fn shown(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "null".to_owned();
    }
    let text = array_value_to_string(column, row).unwrap_or_else(|_| "(cannot be shown)".to_owned());
    let short: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
}

#[cfg(test)]
mod tests {
    use bellwether_tables::{ColumnType, Table};
    use datafusion::datasource::MemTable;
    use serde_json::{Map, Value, json};

    use super::*;

    /// Contributions of one group: cost in nano-units, duration in µs, and sign.
    fn contributions(of: &[(i64, i64, i64)]) -> RecordBatch {
        let schema = sql::contributions_schema();
        let rows = of.iter().enumerate().map(|(n, (cost, latency, sign))| {
            let mut row: Map<String, Value> = Map::new();
            for field in schema.fields() {
                let column = Table::Events.columns().iter().find(|column| column.name == field.name());
                let value = match column.map(|column| (column.kind, column.required)) {
                    Some((ColumnType::Text, true)) => json!("x"),
                    Some((ColumnType::Boolean, true)) => json!(false),
                    Some((_, true)) => json!(0),
                    _ => Value::Null,
                };
                row.insert(field.name().clone(), value);
            }
            let stated = [
                ("run_id", json!(format!("r{n}"))),
                ("ended_at", json!(0)),
                ("session_id", json!("s")),
                ("tenant", json!("")),
                ("task", json!("t")),
                ("release_id", json!("v1")),
                ("release_fingerprint", json!("f")),
                ("stage", json!("full")),
                ("outcome_status", json!("success")),
                ("weight_micros", json!(1_000_000)),
                ("cost_nanos", json!(cost)),
                ("cost_currency", json!("USD")),
                ("latency_total_micros", json!(latency)),
                ("sign", json!(sign)),
            ];
            row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
            row
        });
        let rows: Vec<Map<String, Value>> = rows.collect();
        let mut decoder =
            arrow::json::ReaderBuilder::new(schema).with_batch_size(rows.len()).build_decoder().expect("a decoder");
        decoder.serialize(&rows).expect("rows");
        decoder.flush().expect("rows").expect("some")
    }

    /// Returns the rows of `metrics` for each piece, as computed in a step of aggregation.
    async fn pieces(of: &[&[(i64, i64, i64)]]) -> Vec<RecordBatch> {
        let context = sql::session();
        let relation = [("contributions", sql::contributions_schema())];
        let definition =
            sql::Definition::new(&context, &relation, bellwether_metrics::metrics_sql()).await.expect("is planned");
        let mut all = Vec::new();
        for piece in of {
            let answer = definition.run([vec![contributions(piece)]]).await.expect("no number stops it");
            let rows = answer.iter().map(RecordBatch::num_rows).sum();
            let provenance = [("events_from", sql::constant(0, rows)), ("events_to", sql::constant(1, rows))];
            all.push(sql::rows_of(Table::Metrics, &answer, &provenance).expect("rows"));
        }
        all
    }

    async fn fold(rows: Vec<RecordBatch>) -> RecordBatch {
        let table = MemTable::try_new(Table::Metrics.arrow_schema(), vec![rows]).expect("rows of the table");
        let context = sql::session();
        context.register_table("metrics", Arc::new(table)).expect("is registered");
        let answer = context.sql(&groups()).await.expect("is planned");
        whole(answer.execute_stream().await.expect("runs")).await.expect("folds")
    }

    fn value(rows: &RecordBatch, name: &str) -> String {
        array_value_to_string(rows.column_by_name(name).expect(name), 0).expect(name)
    }

    const MOST: &str = "99999999999999999999999999999999999999";

    #[tokio::test]
    async fn sums_that_do_not_fit_are_held_flagged_and_the_same_in_any_order() {
        // Two of these squares exceed 38 digits, and two of these costs exceed 64 bits.
        let great = (9_000_000_000_000_000_000, 9_000_000_000_000_000_000, 1);
        let usual = (1000, 2000, 1);
        for parts in [&[&[great, great, usual][..]][..], &[&[great], &[usual, great]], &[&[usual], &[great], &[great]]]
        {
            let mut rows = pieces(parts).await;
            let folded = fold(rows.clone()).await;
            assert_eq!(value(&folded, "runs"), "3");
            assert_eq!(value(&folded, "saturated"), "true");
            assert_eq!(value(&folded, "latency_micros_squares"), MOST);
            assert_eq!(value(&folded, "cost_nanos_sum"), "18000000000000001000", "what fits is exact");
            assert!(value(&folded, "groups_cost_nanos").contains("9223372036854775807"));
            rows.reverse();
            assert_eq!(first_difference(&fold(rows).await, &folded), None);
            let whole = fold(pieces(&[&[great, great, usual]]).await).await;
            assert_eq!(first_difference(&folded, &whole), None);
        }
        let small = fold(pieces(&[&[usual, usual]]).await).await;
        assert_eq!(
            (value(&small, "saturated").as_str(), value(&small, "cost_nanos_squares").as_str()),
            ("false", "2000000")
        );
        assert_eq!((saturated(&small), saturated(&fold(pieces(&[&[great, great]]).await).await)), (0, 1));
    }

    #[tokio::test]
    async fn what_was_held_stays_flagged_when_it_is_taken_back_and_an_audit_knows() {
        let great = (9_000_000_000_000_000_000, 9_000_000_000_000_000_000, 1);
        let back = (great.0, great.1, -1);
        let usual = (1000, 2000, 1);
        let table = fold(pieces(&[&[great, great, usual], &[back], &[back]]).await).await;
        assert_eq!((value(&table, "runs").as_str(), value(&table, "saturated").as_str()), ("1", "true"));
        assert_eq!(value(&table, "latency_micros_squares"), MOST, "it cannot be known any more");
        assert_eq!(value(&table, "cost_nanos_sum"), "1000", "what fitted is exact");
        let computed = fold(pieces(&[&[usual]]).await).await;
        assert_eq!(value(&computed, "saturated"), "false");
        assert_eq!(first_difference(&table, &computed), None, "only what is flagged differs");
        // A difference in a cell that is not saturated is found.
        let other = fold(pieces(&[&[(1001, 2000, 1)]]).await).await;
        assert!(first_difference(&table, &other).is_some_and(|what| what.contains("cost_nanos_sum")));
        // If each piece is within bounds, nothing is lost: the fold is as wide as necessary.
        let apart = fold(pieces(&[&[great], &[great], &[back], &[usual], &[back]]).await).await;
        assert_eq!(first_difference(&apart, &computed), None);
        assert_eq!(value(&apart, "saturated"), "false");
    }
}
