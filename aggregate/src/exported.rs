//! The rolling metrics as Prometheus gauges. They are the rows of `rolling_history` as last written, so that a scraped value
//! and one queried in SQL agree.
//!
//! Label values are bounded: each span shows the groups with the most runs, and another gauge counts the groups left out.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use bellwether_base::{Error, Result};
use prometheus::{GaugeVec, IntGauge, Opts, Registry};

/// Most groups of a span: each has one series for each figure.
const MOST_GROUPS: usize = 500;

/// Labels of the series of a figure: columns of the same names.
const LABELS: [&str; 5] = ["span", "tenant", "task", "release_id", "stage"];

/// Figures: columns of `rolling_history`, and their help.
const FIGURES: [(&str, &str); 14] = [
    ("runs", "Runs of the span, weighted by 1 / sampling probability"),
    ("runs_observed", "Runs of the span, unweighted"),
    ("coverage", "Share of runs with a known outcome"),
    ("success_rate", "Share of judged runs that succeeded"),
    ("escalation_rate", "Share of runs handed to a person"),
    ("schema_adherence", "Share of checked answers that fit their schema"),
    ("tool_failure_rate", "Share of tool calls that failed"),
    ("policy_exceptions_per_1000", "Policy exceptions per 1,000 runs"),
    ("latency_ms_p50", "Duration of runs, ms: median"),
    ("latency_ms_p95", "Duration of runs, ms: 95 %"),
    ("latency_ms_mean", "Duration of runs, ms: mean"),
    ("cost_per_completed_task", "Cost per completed task of the runs that state a cost; none with several currencies"),
    ("cost_coverage", "Share of runs that state a cost"),
    ("tokens_coverage", "Share of runs that state tokens"),
];

/// The gauges of all figures.
#[derive(Debug)]
pub(crate) struct Exported {
    gauges: Vec<GaugeVec>,
    hidden: IntGauge,
    shown: BTreeSet<[String; 5]>,
}

// === impl Exported ===

impl Exported {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        let wrong = |source: prometheus::Error| Error::bug("a gauge of tasks cannot be registered").with_source(source);
        let mut gauges = Vec::with_capacity(FIGURES.len());
        for (column, help) in FIGURES {
            let options = Opts::new(format!("bellwether_task_{column}"), help);
            let gauge = GaugeVec::new(options, &LABELS).map_err(wrong)?;
            registry.register(Box::new(gauge.clone())).map_err(wrong)?;
            gauges.push(gauge);
        }
        let help = "Groups (task, release and stage) with the fewest runs, which the task gauges leave out";
        let hidden = IntGauge::new("bellwether_task_groups_hidden", help).map_err(wrong)?;
        registry.register(Box::new(hidden.clone())).map_err(wrong)?;
        Ok(Self { gauges, hidden, shown: BTreeSet::new() })
    }

    /// Shows rows of `rolling_history`, and replaces those shown before for the same spans.
    pub(crate) fn show(&mut self, rows: &RecordBatch) -> Result<()> {
        let column = |name: &str, kind: &DataType| {
            let column = rows.column_by_name(name);
            let column = column.ok_or_else(|| Error::bug(format!("`rolling_history` lacks column `{name}`")))?;
            Ok::<_, Error>(cast(column, kind)?)
        };
        let labels = LABELS.iter().map(|name| column(name, &DataType::Utf8)).collect::<Result<Vec<_>>>()?;
        let figures = FIGURES.iter().map(|(name, _)| column(name, &DataType::Float64)).collect::<Result<Vec<_>>>()?;
        let label = |row: usize| {
            LABELS.map(|name| {
                let place = LABELS.iter().position(|label| *label == name).unwrap_or(0);
                labels[place].as_string::<i32>().value(row).to_owned()
            })
        };
        let runs = figures[0].as_primitive::<Float64Type>();
        let mut order: Vec<usize> = (0..rows.num_rows()).collect();
        order.sort_by(|a, b| runs.value(*b).total_cmp(&runs.value(*a)).then_with(|| label(*a).cmp(&label(*b))));
        let spans: BTreeSet<String> = order.iter().map(|row| label(*row)[0].clone()).collect();
        let mut new = BTreeSet::new();
        let mut hidden = 0;
        for span in &spans {
            let of_span: Vec<usize> = order.iter().copied().filter(|row| label(*row)[0] == *span).collect();
            hidden = hidden.max(of_span.len().saturating_sub(MOST_GROUPS));
            for row in of_span.into_iter().take(MOST_GROUPS) {
                let names = label(row);
                for (gauge, figure) in self.gauges.iter().zip(&figures) {
                    let values = names.each_ref().map(String::as_str);
                    if figure.is_valid(row) {
                        gauge.with_label_values(&values).set(figure.as_primitive::<Float64Type>().value(row));
                    } else {
                        // An unknown figure has no series, rather than zero. There may be none to remove.
                        drop(gauge.remove_label_values(&values));
                    }
                }
                new.insert(names);
            }
        }
        let gone = self.shown.iter().filter(|names| spans.contains(&names[0]) && !new.contains(*names));
        for names in gone {
            for gauge in &self.gauges {
                drop(gauge.remove_label_values(&names.each_ref().map(String::as_str)));
            }
        }
        self.shown.retain(|names| !spans.contains(&names[0]));
        self.shown.append(&mut new);
        self.hidden.set(i64::try_from(hidden).unwrap_or(i64::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
    use bellwether_tables::Table;
    use std::sync::Arc;

    /// Returns rows of a span, from task, runs and success rate of each group.
    fn rows(span: &str, groups: &[(&str, i64, Option<f64>)]) -> RecordBatch {
        let whole = Table::RollingHistory.arrow_schema();
        let columns = whole.fields().iter().map(|field| {
            let column: ArrayRef = match field.name().as_str() {
                "span" => Arc::new(StringArray::from(vec![span; groups.len()])),
                "task" => Arc::new(groups.iter().map(|group| Some(group.0)).collect::<StringArray>()),
                "tenant" | "release_id" | "stage" => Arc::new(StringArray::from(vec![""; groups.len()])),
                "runs" => Arc::new(groups.iter().map(|group| Some(group.1)).collect::<Int64Array>()),
                "success_rate" => Arc::new(groups.iter().map(|group| group.2).collect::<Float64Array>()),
                _ => arrow::array::new_null_array(field.data_type(), groups.len()),
            };
            (field.name().clone(), column)
        });
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("rows")
    }

    fn scraped(registry: &Registry, name: &str) -> Vec<(String, f64)> {
        let family = registry.gather().into_iter().find(|family| family.name() == name);
        let label = |metric: &prometheus::proto::Metric| {
            metric.get_label().iter().find(|pair| pair.name() == "task").map(|pair| pair.value().to_owned())
        };
        let metrics = family.map(|family| family.get_metric().to_vec()).unwrap_or_default();
        metrics.iter().map(|metric| (label(metric).unwrap_or_default(), metric.get_gauge().get_value())).collect()
    }

    #[test]
    fn the_rows_last_written_are_shown_and_unknown_figures_have_no_series() {
        let registry = Registry::new();
        let mut exported = Exported::register(&registry).expect("registers");
        exported.show(&rows("5m", &[("a", 10, Some(0.5)), ("b", 4, Some(0.25))])).expect("shows");
        let name = "bellwether_task_success_rate";
        assert_eq!(scraped(&registry, name), [("a".to_owned(), 0.5), ("b".to_owned(), 0.25)]);
        exported.show(&rows("5m", &[("a", 10, None)])).expect("shows");
        assert_eq!(scraped(&registry, name), []);
        assert_eq!(scraped(&registry, "bellwether_task_runs"), [("a".to_owned(), 10.0)]);
        let names: Vec<String> = (0..MOST_GROUPS + 7).map(|n| format!("task-{n}")).collect();
        let many: Vec<(&str, i64, Option<f64>)> = names.iter().map(|name| (name.as_str(), 1, None)).collect();
        exported.show(&rows("1h", &many)).expect("shows");
        assert_eq!(scraped(&registry, "bellwether_task_runs").len(), MOST_GROUPS + 1);
        assert_eq!(scraped(&registry, "bellwether_task_groups_hidden")[0].1, 7.0);
    }
}
