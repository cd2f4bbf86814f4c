//! Rows of the table `alerts`.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::json::ArrayWriter;
use bellwether_base::{Error, Result};
use bellwether_sinks::page::Severity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One row. Times are microseconds since the epoch; columns are described in `tables/src/alerts.rs`. As JSON it has all columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertRow {
    pub evaluation: i64,
    pub metrics_version: i64,
    pub complete_to: i64,
    pub evaluated_at: i64,
    pub alert_id: String,
    pub rule: String,
    pub severity: String,
    pub owner: Option<String>,
    pub runbook: Option<String>,
    pub labels: BTreeMap<String, Option<String>>,
    pub tenant: Option<String>,
    pub task: Option<String>,
    pub release_id: Option<String>,
    pub baseline_release: Option<String>,
    pub at: i64,
    pub state_from: String,
    pub state: String,
    pub stale: bool,
    pub change: String,
    pub was: Option<i64>,
    pub title: String,
    pub detector: String,
    pub baseline: String,
    pub baseline_events: Option<u64>,
    pub baseline_runs: Option<u64>,
    pub canary_events: Option<u64>,
    pub canary_runs: Option<u64>,
    pub baseline_value: Option<f64>,
    pub canary_value: Option<f64>,
    pub effect_kind: String,
    pub effect: Option<f64>,
    pub effect_low: Option<f64>,
    pub effect_high: Option<f64>,
    pub false_alarm: Option<f64>,
    pub false_alarm_unit: Option<String>,
    pub since: Option<i64>,
    pub notes: String,
    pub sql: String,
    /// The other columns.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

// === impl AlertRow ===

impl AlertRow {
    /// Returns the severity. One that this version does not know counts as a page, so that it is not overlooked.
    pub fn urgency(&self) -> Severity {
        match self.severity.as_str() {
            "info" => Severity::Info,
            "ticket" => Severity::Ticket,
            _ => Severity::Page,
        }
    }

    /// Returns the label by which routes, silences and groups know this alert: a label of the rule or series, or one of `rule`,
    /// `severity`, `owner`, `tenant`, `task`, `release_id`. An absent one is empty.
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
        let own = || self.labels.get(name).and_then(Option::as_deref);
        named.or_else(own).unwrap_or_default()
    }

    /// Makes an alert that has these labels, to see which routes would take it.
    pub fn of_labels(labels: BTreeMap<String, String>) -> Self {
        let named = |name: &str| labels.get(name).cloned();
        Self {
            rule: named("rule").unwrap_or_default(),
            severity: named("severity").unwrap_or_else(|| "page".to_owned()),
            owner: named("owner"),
            tenant: named("tenant"),
            task: named("task"),
            release_id: named("release_id"),
            labels: labels.into_iter().map(|(name, value)| (name, Some(value))).collect(),
            ..Self::default()
        }
    }

    /// Returns all labels of [`AlertRow::label`] that have a value.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let named = ["rule", "severity", "owner", "tenant", "task", "release_id"];
        let names = self.labels.keys().map(String::as_str).chain(named);
        names
            .map(|name| (name.to_owned(), self.label(name).to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }
}

/// Turns the rows of a batch into values, by the names of its columns. Times become numbers.
///
/// # Errors
/// `Data` if the rows do not fit the type.
pub(crate) fn values_of<T: DeserializeOwned>(batch: &RecordBatch) -> Result<Vec<T>> {
    let wrong = |error: String| Error::data(format!("rows of a table cannot be read: {error}"));
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let is_time = matches!(field.data_type(), DataType::Timestamp(..));
        let kind = if is_time { DataType::Int64 } else { field.data_type().clone() };
        columns.push(if is_time { cast(column, &kind)? } else { column.clone() });
        fields.push(Field::new(field.name(), kind, field.is_nullable()));
    }
    let numbers = RecordBatch::try_new(Schema::new(fields).into(), columns)?;
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(&numbers)?;
    writer.finish()?;
    match writer.into_inner() {
        text if text.is_empty() => Ok(Vec::new()),
        text => serde_json::from_slice(&text).map_err(|error| wrong(error.to_string())),
    }
}
