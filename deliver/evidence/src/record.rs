//! A row of the table `alerts`, as a reader of the table sees it.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_lake::values_of;
use bellwether_sinks::page::Severity;
use serde::{Deserialize, Deserializer, Serialize};

/// One transition of one alert: the columns of `alerts` that delivery and pages need, by their names. Times are microseconds since
/// the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// Number of the evaluation.
    pub evaluation: i64,
    /// Version of `metrics`.
    pub metrics_version: i64,
    /// Version of `events` after the last one that was read.
    pub events_version: i64,
    /// Windows before this time were complete.
    pub complete_to: i64,
    /// Time of the evaluation.
    pub evaluated_at: i64,
    pub alert_id: String,
    pub rule: String,
    pub severity: String,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub runbook: Option<String>,
    #[serde(deserialize_with = "with_values")]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub tenant: Option<String>,
    #[serde(default)]
    pub task: Option<String>,
    #[serde(default)]
    pub release_id: Option<String>,
    #[serde(default)]
    pub baseline_release: Option<String>,
    /// End of the window that caused the transition.
    pub at: i64,
    pub state_from: String,
    pub state: String,
    pub stale: bool,
    pub why: String,
    /// How the row changes earlier ones: `new`, `late`, `restated`, `moved` or `retracted`.
    pub change: String,
    /// Earlier time of a transition that moved.
    #[serde(default)]
    pub was: Option<i64>,
    pub title: String,
    pub detector: String,
    /// Kind of baseline.
    pub baseline: String,
    #[serde(default)]
    pub baseline_events: Option<i64>,
    #[serde(default)]
    pub baseline_runs: Option<i64>,
    #[serde(default)]
    pub canary_events: Option<i64>,
    #[serde(default)]
    pub canary_runs: Option<i64>,
    #[serde(default)]
    pub baseline_value: Option<f64>,
    #[serde(default)]
    pub canary_value: Option<f64>,
    pub effect_kind: String,
    #[serde(default)]
    pub effect: Option<f64>,
    #[serde(default)]
    pub effect_low: Option<f64>,
    #[serde(default)]
    pub effect_high: Option<f64>,
    #[serde(default)]
    pub log_e: Option<f64>,
    #[serde(default)]
    pub threshold: Option<f64>,
    #[serde(default)]
    pub false_alarm: Option<f64>,
    #[serde(default)]
    pub false_alarm_unit: Option<String>,
    #[serde(default)]
    pub since: Option<i64>,
    pub notes: String,
    pub sql: String,
}

// === impl AlertRecord ===

impl AlertRecord {
    /// Reads the rows of a batch of `alerts`, which may have further columns.
    ///
    /// # Errors
    /// `Data` if a column is missing or has another type.
    pub fn read(batch: &RecordBatch) -> Result<Vec<Self>> {
        values_of(batch).map_err(|source| Error::data("rows of `alerts` cannot be read").with_source(source))
    }

    /// Creates an alert with these labels, to see who would be notified.
    pub fn of_labels(labels: BTreeMap<String, String>) -> Self {
        let named = |name: &str| labels.get(name).cloned();
        Self {
            rule: named("rule").unwrap_or_default(),
            severity: named("severity").unwrap_or_else(|| "page".to_owned()),
            owner: named("owner"),
            tenant: named("tenant"),
            task: named("task"),
            release_id: named("release_id"),
            labels,
            ..Self::default()
        }
    }

    /// Returns true if the alert fires by this row.
    pub fn is_firing(&self) -> bool {
        self.state == "firing"
    }

    /// Returns the severity. One that this version does not know counts as a page, so that it is not overlooked.
    pub fn urgency(&self) -> Severity {
        match self.severity.as_str() {
            "info" => Severity::Info,
            "ticket" => Severity::Ticket,
            _ => Severity::Page,
        }
    }

    /// Returns the label by which routes, groups and maintenance windows know this alert: a label of the rule or series, or one of
    /// `rule`, `severity`, `owner`, `tenant`, `task`, `release_id`. An absent one is empty.
    pub fn label(&self, name: &str) -> &str {
        let named = match name {
            "rule" => Some(self.rule.as_str()),
            "severity" => Some(self.severity.as_str()),
            "owner" => self.owner.as_deref(),
            "tenant" => self.tenant.as_deref(),
            "task" => self.task.as_deref(),
            "release_id" => self.release_id.as_deref(),
            _ => None,
        };
        named.or_else(|| self.labels.get(name).map(String::as_str)).unwrap_or_default()
    }
}

/// Reads labels without those that have no value.
fn with_values<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let all = BTreeMap::<String, Option<String>>::deserialize(from)?;
    Ok(all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_tables::{ColumnType, Table};
    use serde_json::{Value, json};

    /// Returns a row with a value in every column.
    fn full() -> serde_json::Map<String, Value> {
        let value = |kind| match kind {
            ColumnType::Text => json!("text"),
            ColumnType::Boolean => json!(true),
            ColumnType::Double => json!(0.1),
            ColumnType::TextMap => json!({"task": "refund \"triage\""}),
            ColumnType::List(_) => json!([]),
            _ => json!(1_795_543_200_000_001_i64),
        };
        Table::Alerts.columns().iter().map(|column| (column.name.to_owned(), value(column.kind))).collect()
    }

    fn batch(row: &serde_json::Map<String, Value>) -> RecordBatch {
        let mut decoder =
            arrow::json::ReaderBuilder::new(Table::Alerts.arrow_schema()).build_decoder().expect("a decoder");
        decoder.serialize(std::slice::from_ref(row)).expect("fits");
        decoder.flush().expect("fits").expect("a row")
    }

    #[test]
    fn a_record_has_the_columns_of_the_table_and_their_values() {
        let row = full();
        let records = AlertRecord::read(&batch(&row)).expect("reads");
        let Value::Object(read) = serde_json::to_value(&records[0]).expect("JSON") else { panic!("an object") };
        for (name, value) in &read {
            assert_eq!(row.get(name), Some(value), "{name}");
        }
        let left_out: Vec<&String> = row.keys().filter(|name| !read.contains_key(*name)).collect();
        assert_eq!(left_out, ["strata"], "columns that no page needs");
    }

    #[test]
    fn optional_columns_may_be_null_and_a_missing_one_is_reported() {
        let mut row = full();
        for column in Table::Alerts.columns().iter().filter(|column| !column.required) {
            row.remove(column.name);
        }
        let record = AlertRecord::read(&batch(&row)).expect("reads").remove(0);
        assert_eq!((record.tenant, record.effect, record.since), (None, None, None));
        row["labels"] = json!({"task": "t", "tenant": null});
        let record = AlertRecord::read(&batch(&row)).expect("reads").remove(0);
        assert_eq!(record.labels, BTreeMap::from([("task".to_owned(), "t".to_owned())]), "a label without a value");
        let short = batch(&row).project(&[0, 1]).expect("columns");
        let error = AlertRecord::read(&short).expect_err("columns are missing");
        assert!(error.chain().contains("missing field"), "{}", error.chain());
    }
}
