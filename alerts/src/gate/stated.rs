//! How many runs of a release state what, weighted by 1 / sampling probability: the coverage of each metric.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use bellwether_base::Result;

/// The query over the rows of `metrics` that were read. Sums are over rows, so that parts add up.
pub(super) const SQL: &str = "\
SELECT CAST(release_id AS VARCHAR) AS release_id, CAST(cost_currency AS VARCHAR) AS cost_currency,
    sum(CAST(runs AS DOUBLE) * weight_micros) AS runs,
    sum(CAST(success + failure + error + timeout + abandoned AS DOUBLE) * weight_micros) AS judged,
    sum(CAST(schema_applicable AS DOUBLE) * weight_micros) AS schema,
    sum(CAST(latency_runs AS DOUBLE) * weight_micros) AS latency,
    sum(CAST(cost_runs AS DOUBLE) * weight_micros) AS cost
FROM metrics
WHERE stage IN ('canary', 'full')
GROUP BY 1, 2";

/// Weighted runs of one release.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stated {
    pub(super) runs: f64,
    pub(super) judged: f64,
    pub(super) schema: f64,
    pub(super) latency: f64,
    /// With a cost, by currency.
    pub(super) cost: BTreeMap<String, f64>,
}

// === impl Stated ===

impl Stated {
    /// Adds the rows of [`SQL`] to baseline and canary.
    pub(super) fn add(arms: &mut [Self; 2], releases: [&str; 2], rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            let texts = [cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?];
            let numbers = (2..7)
                .map(|place| cast(batch.column(place), &DataType::Float64))
                .collect::<std::result::Result<Vec<_>, _>>()?;
            for row in 0..batch.num_rows() {
                let release = texts[0].as_string::<i32>().value(row);
                let Some(place) = releases.iter().position(|known| *known == release) else { continue };
                let number = |place: usize| {
                    let column = &numbers[place];
                    if column.is_valid(row) { column.as_primitive::<Float64Type>().value(row) } else { 0.0 }
                };
                let arm = &mut arms[place];
                arm.runs += number(0);
                arm.judged += number(1);
                arm.schema += number(2);
                arm.latency += number(3);
                let currency = if texts[1].is_valid(row) { texts[1].as_string::<i32>().value(row) } else { "" };
                if !currency.is_empty() {
                    *arm.cost.entry(currency.to_owned()).or_default() += number(4);
                }
            }
        }
        Ok(())
    }
}
