//! Rows of the table `deliveries`.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_lake::{Lake, values_of};
use bellwether_sinks::page::Status;
use bellwether_tables::Table;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A step of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStep {
    Suppressed,
    Planned,
    Failed,
    Sent,
    Refused,
    GivenUp,
}

/// The reason for which a transition is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    New,
    Moved,
    Acknowledged,
    Unacknowledged,
    Repeated,
    /// The incident was sent without its evidence, which is sent once it is ready.
    Evidence,
    Ended,
    Corrected,
}

/// One row. Columns are described in `tables/src/deliveries.rs`; times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRow {
    #[serde(default)]
    pub number: i64,
    #[serde(default)]
    pub alerts_version: i64,
    pub written_at: i64,
    pub step: DeliveryStep,
    pub route: String,
    pub sink: String,
    pub group_labels: BTreeMap<String, String>,
    pub key: String,
    pub incident: String,
    pub alert_id: String,
    #[serde(default)]
    pub tenant: Option<String>,
    pub at: i64,
    pub state: Status,
    pub kind: Kind,
    pub transition: i64,
    pub noticed_at: i64,
    pub attempt: i64,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub missed: Option<bool>,
    #[serde(default)]
    pub receipt: Option<String>,
    #[serde(default)]
    pub answer: Option<String>,
}

/// Returns a hash of some parts as 32 hexadecimal digits.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns rows as a batch of the table.
///
/// # Errors
/// `Bug` if they do not fit the table.
pub fn batch(rows: &[DeliveryRow]) -> Result<RecordBatch> {
    let wrong = |source| Error::bug("rows of `deliveries` do not fit the table").with_source(source);
    let schema = Table::Deliveries.arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().map_err(wrong)?;
    decoder.serialize(rows).map_err(wrong)?;
    Ok(decoder.flush().map_err(wrong)?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

/// Reads all rows, in the order in which they were written.
///
/// # Errors
/// `Unavailable` if the table cannot be read; `Data` if a newer version has written it.
pub async fn load(lake: &Lake) -> Result<Vec<DeliveryRow>> {
    let (_, files) = lake.active_files(Table::Deliveries).await?;
    let mut rows: Vec<DeliveryRow> = Vec::new();
    for file in &files {
        for batch in lake.read(Table::Deliveries, file, None).await? {
            rows.extend(values_of::<DeliveryRow>(&batch)?);
        }
    }
    // Files are in no order, and a rewrite may change that of the rows of a commit.
    rows.sort_by_key(|row| (row.number, row.transition, row.step));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let row = DeliveryRow {
            number: 3,
            alerts_version: 9,
            written_at: 1_000_001,
            step: DeliveryStep::GivenUp,
            route: "r".to_owned(),
            sink: "s".to_owned(),
            group_labels: BTreeMap::from([("task".to_owned(), "refunds".to_owned())]),
            key: hash(&["a", "b"]),
            incident: hash(&["ab"]),
            alert_id: "a".to_owned(),
            tenant: None,
            at: -5,
            state: Status::Acknowledged,
            kind: Kind::Unacknowledged,
            transition: 2,
            noticed_at: 7,
            attempt: 1,
            reason: Some("\"quoted\"\nlines".to_owned()),
            missed: Some(true),
            receipt: None,
            answer: Some(String::new()),
        };
        let ungrouped = DeliveryRow { group_labels: BTreeMap::new(), missed: None, ..row.clone() };
        let rows = vec![row, ungrouped];
        assert_eq!(values_of::<DeliveryRow>(&batch(&rows).expect("fits")).expect("reads"), rows);
        assert_ne!(rows[0].key, rows[0].incident, "parts are kept apart");
    }
}
