//! The rolling metrics for Prometheus. They are the rows of `rolling_history` as last written, so that a scraped value and one
//! queried in SQL agree; latencies are a histogram too, from the sketch of the same row.
//!
//! The number of series is bounded: each span shows the groups with the most runs, and another gauge counts the groups left
//! out. `groups` reads rows; this file turns them into families of metrics.

mod groups;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use bellwether_base::{Error, Result};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary};
use prometheus::{Opts, Registry};

use self::groups::{Group, Latencies};

/// Number of spans, among which the series are divided.
const SPANS: usize = bellwether_metrics::SPANS.len();

/// Figures: the rest of the name, the column of `rolling_history`, and the help.
const FIGURES: [(&str, &str, &str); 15] = [
    ("runs", "runs", "Runs of the span, weighted by 1 / sampling probability"),
    ("runs_observed", "runs_observed", "Runs of the span, unweighted"),
    ("judged", "judged", "Runs with a known outcome"),
    ("coverage", "coverage", "Share of runs with a known outcome"),
    ("success", "success", "Runs that succeeded"),
    ("success_rate", "success_rate", "Share of judged runs that succeeded"),
    ("escalated", "escalated", "Runs handed to a person"),
    ("escalation_rate", "escalation_rate", "Share of runs handed to a person"),
    ("schema_applicable", "schema_applicable", "Answers checked against a schema"),
    ("schema_valid", "schema_valid", "Checked answers that fit their schema"),
    ("schema_adherence", "schema_adherence", "Share of checked answers that fit their schema"),
    ("tool_failure_rate", "tool_failure_rate", "Share of tool calls that failed"),
    ("policy_exceptions_per_1000", "policy_exceptions_per_1000", "Policy exceptions per 1,000 runs"),
    ("cost_coverage", "cost_coverage", "Share of runs that state a cost"),
    ("tokens_coverage", "tokens_coverage", "Share of runs that state tokens"),
];

/// Figures with the label `currency`; a group with several currencies has none of them.
const COSTS: [(&str, &str, &str); 3] = [
    ("cost", "cost_total", "Cost of the runs that state one"),
    ("cost_success", "cost_success", "Completed tasks of the runs that state a cost"),
    ("cost_per_completed_task", "cost_per_completed_task", "Cost per completed task of the runs that state a cost"),
];

/// Quantiles of latency, and their columns in milliseconds.
const QUANTILES: [(f64, &str); 4] =
    [(0.5, "latency_ms_p50"), (0.9, "latency_ms_p90"), (0.95, "latency_ms_p95"), (0.99, "latency_ms_p99")];

/// Upper bounds of the buckets of latency, microseconds. Runs take from a fraction of a second to several minutes.
const BOUNDS: [u64; 13] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_000_000,
    4_000_000,
    8_000_000,
    15_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    900_000_000,
];

/// Series of a group in one span. A summary also has a sum and a count, and a histogram a last bucket as well.
const SERIES_OF_A_GROUP: usize = FIGURES.len() + COSTS.len() + QUANTILES.len() + 2 + BOUNDS.len() + 3;

/// The families of metrics, in the order of [`Exported::collect`].
const LATENCY: (&str, &str) =
    ("latency_seconds", "Duration of the runs that ended in the span; read it without rate(), because the span moves");
const LATENCY_QUANTILES: (&str, &str) =
    ("latency_quantiles_seconds", "Duration of the same runs: quantiles, within 1 %");
const AS_OF: (&str, &str) = ("as_of_timestamp_seconds", "End of the span");
const HIDDEN: (&str, &str) = (
    "groups_hidden",
    "Groups (tenant, task, release and stage) with the fewest runs, which the other metrics leave out",
);

/// The rolling metrics as they were last written. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Exported {
    descriptions: Arc<Vec<Desc>>,
    /// Most groups of a span.
    most_groups: usize,
    spans: Arc<Mutex<BTreeMap<String, Span>>>,
}

/// The groups of one span.
#[derive(Debug)]
pub(crate) struct Span {
    as_of_micros: i64,
    hidden: usize,
    groups: Vec<Group>,
}

// === impl Exported ===

impl Exported {
    /// Registers the metrics, which have no series until rows are shown and never more than `most_series`.
    pub(crate) fn register(registry: &Registry, most_series: usize) -> Result<Self> {
        let wrong =
            |source: prometheus::Error| Error::bug("a metric of tasks cannot be registered").with_source(source);
        let names = FIGURES.iter().chain(&COSTS).map(|(name, _, help)| (*name, *help));
        let names = names.chain([LATENCY, LATENCY_QUANTILES, AS_OF, HIDDEN]);
        let describe = |(name, help): (&str, &str)| {
            let options = Opts::new(format!("bellwether_task_{name}"), help);
            Desc::new(options.fq_name(), options.help, vec!["span".to_owned()], HashMap::new())
        };
        let descriptions = names.map(describe).collect::<prometheus::Result<Vec<_>>>().map_err(wrong)?;
        let most_groups = most_series.saturating_sub(2 * SPANS) / SPANS / SERIES_OF_A_GROUP;
        let exported = Self { descriptions: Arc::new(descriptions), most_groups, spans: Arc::default() };
        registry.register(Box::new(exported.clone())).map_err(wrong)?;
        Ok(exported)
    }

    /// Shows rows of `rolling_history` with the sketches of their latencies, and replaces those shown before for the same
    /// spans.
    pub(crate) fn show(&self, rows: &RecordBatch, latency_sketches: &ArrayRef) -> Result<()> {
        let new = groups::read(rows, latency_sketches, self.most_groups)?;
        self.lock().extend(new);
        Ok(())
    }

    /// Shows nothing until the next rows: another process has newer ones.
    pub(crate) fn hide(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Span>> {
        // Only whole spans are replaced under the lock, so a poisoned one still guards valid values.
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Exported {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let spans = self.lock();
        let groups = || spans.values().flat_map(|span| &span.groups);
        let mut all = Vec::with_capacity(self.descriptions.len());
        for place in 0..FIGURES.len() {
            all.push(groups().filter_map(|group| Some(gauge(&group.labels, None, group.figures[place]?))).collect());
        }
        for place in 0..COSTS.len() {
            let metric = |group: &Group| {
                let currency = Some(("currency", group.currency.as_deref()?));
                Some(gauge(&group.labels, currency, group.costs[place]?))
            };
            all.push(groups().filter_map(metric).collect());
        }
        all.push(groups().filter_map(|group| Some(histogram(&group.labels, group.latencies.as_ref()?))).collect());
        all.push(groups().filter_map(|group| Some(summary(&group.labels, group.latencies.as_ref()?))).collect());
        let of_span = |name: &str, value: f64| gauge(&[("span", name.to_owned())], None, value);
        all.push(spans.iter().map(|(name, span)| of_span(name, span.as_of_micros as f64 / 1e6)).collect());
        all.push(spans.iter().map(|(name, span)| of_span(name, span.hidden as f64)).collect());
        self.descriptions.iter().zip(all).map(|(description, metrics)| family(description, metrics)).collect()
    }
}

fn family(description: &Desc, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(description.fq_name.clone());
    family.set_help(description.help.clone());
    let is = |name: &str| description.fq_name.strip_prefix("bellwether_task_") == Some(name);
    family.set_field_type(match () {
        () if is(LATENCY.0) => MetricType::HISTOGRAM,
        () if is(LATENCY_QUANTILES.0) => MetricType::SUMMARY,
        () => MetricType::GAUGE,
    });
    family.set_metric(metrics);
    family
}

/// Returns label pairs in order of their names, as Prometheus compares them.
fn pairs(labels: &[(&'static str, String)], more: Option<(&str, &str)>) -> Vec<LabelPair> {
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(more);
    let mut pairs: Vec<LabelPair> = all
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        })
        .collect();
    pairs.sort_by(|a, b| a.name().cmp(b.name()));
    pairs
}

fn gauge(labels: &[(&'static str, String)], more: Option<(&str, &str)>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels, more));
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: &[(&'static str, String)], latencies: &Latencies) -> Metric {
    let bucket = |(bound, count): (&u64, &u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(*count);
        bucket
    };
    let mut histogram = Histogram::default();
    histogram.set_bucket(BOUNDS.iter().zip(&latencies.up_to).map(bucket).collect());
    histogram.set_sample_count(latencies.count);
    histogram.set_sample_sum(latencies.seconds_sum);
    let mut metric = Metric::from_label(pairs(labels, None));
    metric.set_histogram(histogram);
    metric
}

fn summary(labels: &[(&'static str, String)], latencies: &Latencies) -> Metric {
    let quantile = |((share, _), seconds): (&(f64, &str), &Option<f64>)| {
        let mut quantile = Quantile::default();
        quantile.set_quantile(*share);
        quantile.set_value((*seconds)?);
        Some(quantile)
    };
    let mut summary = Summary::default();
    summary.set_quantile(QUANTILES.iter().zip(&latencies.quantile_seconds).filter_map(quantile).collect());
    summary.set_sample_count(latencies.count);
    summary.set_sample_sum(latencies.seconds_sum);
    let mut metric = Metric::from_label(pairs(labels, None));
    metric.set_summary(summary);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, BinaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use bellwether_stats::sketch::Sketch;
    use bellwether_tables::Table;

    /// One group: task, runs, success rate and latencies in microseconds.
    type Row<'a> = (&'a str, i64, Option<f64>, &'a [u64]);

    /// Returns rows of a span, and the sketches of their latencies.
    fn rows(span: &str, groups: &[Row<'_>]) -> (RecordBatch, ArrayRef) {
        let whole = Table::RollingHistory.arrow_schema();
        let mean = |latencies: &[u64]| {
            (!latencies.is_empty()).then(|| latencies.iter().sum::<u64>() as f64 / 1e3 / latencies.len() as f64)
        };
        let columns = whole.fields().iter().map(|field| {
            let column: ArrayRef = match field.name().as_str() {
                "span" => Arc::new(StringArray::from(vec![span; groups.len()])),
                "as_of" => Arc::new(TimestampMicrosecondArray::from(vec![60_500_000; groups.len()])),
                "task" => Arc::new(groups.iter().map(|group| Some(group.0)).collect::<StringArray>()),
                "tenant" | "release_id" | "stage" => Arc::new(StringArray::from(vec![""; groups.len()])),
                "runs" => Arc::new(groups.iter().map(|group| Some(group.1)).collect::<Int64Array>()),
                "success_rate" => Arc::new(groups.iter().map(|group| group.2).collect::<Float64Array>()),
                "latency_ms_mean" => Arc::new(groups.iter().map(|group| mean(group.3)).collect::<Float64Array>()),
                _ => arrow::array::new_null_array(field.data_type(), groups.len()),
            };
            (field.name().clone(), column)
        });
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        let sketch = |group: &Row<'_>| {
            let mut sketch = Sketch::new();
            group.3.iter().for_each(|value| sketch.add(*value, 1));
            Some(sketch.encode())
        };
        (rows.expect("rows"), Arc::new(groups.iter().map(sketch).collect::<BinaryArray>()))
    }

    fn show(exported: &Exported, span: &str, groups: &[Row<'_>]) {
        let (rows, sketches) = rows(span, groups);
        exported.show(&rows, &sketches).expect("shows");
    }

    fn scraped(registry: &Registry, name: &str) -> Vec<Metric> {
        let family = registry.gather().into_iter().find(|family| family.name() == name);
        family.map(|family| family.get_metric().to_vec()).unwrap_or_default()
    }

    /// Returns the values of a gauge by task.
    fn values(registry: &Registry, name: &str) -> Vec<(String, f64)> {
        let label = |metric: &Metric| {
            metric.get_label().iter().find(|pair| pair.name() == "task").map(|pair| pair.value().to_owned())
        };
        let metrics = scraped(registry, name);
        metrics.iter().map(|metric| (label(metric).unwrap_or_default(), metric.get_gauge().get_value())).collect()
    }

    #[test]
    fn the_rows_last_written_are_shown_and_unknown_figures_have_no_series() {
        let registry = Registry::new();
        let exported = Exported::register(&registry, 100_000).expect("registers");
        assert!(registry.gather().is_empty());
        show(&exported, "5m", &[("a", 10, Some(0.5), &[]), ("b", 4, Some(0.25), &[])]);
        let name = "bellwether_task_success_rate";
        assert_eq!(values(&registry, name), [("a".to_owned(), 0.5), ("b".to_owned(), 0.25)]);
        assert_eq!(values(&registry, "bellwether_task_as_of_timestamp_seconds")[0].1, 60.5);
        show(&exported, "5m", &[("a", 10, None, &[])]);
        assert_eq!(values(&registry, name), []);
        assert_eq!(values(&registry, "bellwether_task_runs"), [("a".to_owned(), 10.0)]);
        exported.hide();
        assert!(registry.gather().is_empty(), "a process that stands by shows nothing");
    }

    #[test]
    fn the_groups_with_the_most_runs_stay_within_the_bound_of_series() {
        let registry = Registry::new();
        let most = 5 * SPANS * SERIES_OF_A_GROUP + 2 * SPANS;
        let exported = Exported::register(&registry, most).expect("registers");
        let names: Vec<String> = (0..9).map(|n| format!("task-{n}")).collect();
        let groups: Vec<Row<'_>> =
            names.iter().zip(1..).map(|(name, runs)| (name.as_str(), runs, Some(0.5), &[7_u64][..])).collect();
        for (span, _) in bellwether_metrics::SPANS {
            show(&exported, span, &groups);
        }
        let shown = values(&registry, "bellwether_task_runs");
        assert_eq!(shown.len(), 5 * SPANS);
        assert!(shown.iter().all(|(_, runs)| *runs >= 5.0), "{shown:?}");
        assert!(values(&registry, "bellwether_task_groups_hidden").iter().all(|(_, hidden)| *hidden == 4.0));
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("encodes");
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= most, "{series} series");
    }

    #[test]
    fn latencies_are_a_histogram_of_seconds() {
        let registry = Registry::new();
        let exported = Exported::register(&registry, 100_000).expect("registers");
        show(&exported, "1h", &[("a", 4, None, &[50_000, 700_000, 700_000, 2_000_000_000]), ("none", 2, None, &[])]);
        let metrics = scraped(&registry, "bellwether_task_latency_seconds");
        assert_eq!(metrics.len(), 1, "a group without latencies has no histogram");
        let histogram = metrics[0].get_histogram();
        let count = |bound: f64| {
            histogram.get_bucket().iter().find(|bucket| bucket.upper_bound() == bound).map(Bucket::cumulative_count)
        };
        assert_eq!([0.1, 0.5, 1.0, 900.0].map(count), [Some(1), Some(1), Some(3), Some(3)]);
        assert_eq!(histogram.get_sample_count(), 4);
        assert!((histogram.get_sample_sum() - 2001.45).abs() < 1e-6, "{}", histogram.get_sample_sum());
    }
}
