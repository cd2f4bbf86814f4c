//! The contributions of erased runs to `metrics`: anonymous rows, which stay when the runs go.
//!
//! `metrics` equals its definition over `events` plus these rows, bit for bit. They are in one file, which holds those of all
//! erasures so far, folded. It is written before the runs leave `events`; the commit that takes them names the file by a number
//! ([`AppId::Erased`]). A file that no version of `events` names belongs to an erasure that did not happen. An odd number names no
//! file: nothing was contributed.

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_tables::{AppId, Table};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use super::record::delete;
use crate::commit::Snapshot;
use crate::encoder::RowEncoder;
use crate::log::AddedFile;
use crate::parquet_file;
use crate::root::Lake;
use crate::stored::{Stored, from_store};

/// Bits of a number that tell simultaneous erasures apart; those above count erasures.
const DISTINCT_BITS: u32 = 32;

/// Files that stay beside the newest one, for readers of earlier versions of `events`.
const OLDER_FILES: usize = 20;

// === impl Lake ===

impl Lake {
    /// Returns the number of the file of erased contributions that a version of `events` names; none if nothing was erased.
    pub fn erased_number(events: &Snapshot) -> Option<i64> {
        events.next(&AppId::Erased.to_string())
    }

    /// Reads erased contributions, as rows of `metrics`.
    ///
    /// # Errors
    /// `Data` if the file is gone or unreadable; `Unavailable` if storage does not answer.
    pub async fn erased_rows(&self, number: Option<i64>) -> Result<Vec<RecordBatch>> {
        let Some(number) = number.filter(|number| number % 2 == 0) else { return Ok(Vec::new()) };
        let path = self.erased_path(number);
        let bytes = match self.objects().get(&path).await {
            Ok(found) => found.bytes().await.stored()?,
            Err(source @ object_store::Error::NotFound { .. }) => {
                return Err(Error::data(format!("`{path}` is missing, the contributions of erased runs"))
                    .with_hint("restore that file from a copy; if runs were erased meanwhile, try again")
                    .with_source(source));
            }
            Err(source) => return Err(from_store(source)),
        };
        let file = AddedFile {
            path: path.to_string(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            rows: None,
            partition_values: std::collections::BTreeMap::new(),
            data_change: true,
            stats: None,
        };
        let work = move || parquet_file::batches(Table::Metrics, &file, bytes, None)?.collect();
        self.work().run("the Parquet reader", work).await
    }

    /// Writes erased contributions under a new number, greater than the one before, and returns it.
    ///
    /// # Errors
    /// `Unavailable` if storage does not accept the file.
    pub async fn store_erased(&self, before: Option<i64>, rows: &[RecordBatch]) -> Result<i64> {
        let mut encoder = RowEncoder::new(Table::Metrics);
        for batch in rows {
            encoder.push(&batch.into())?;
        }
        let encoded = encoder.finish()?;
        let bytes = encoded.files().first().map(|file| file.bytes.clone());
        let (_, distinct) = self.clock().unique_id().as_u64_pair();
        let distinct = i64::try_from(distinct & u64::from(u32::MAX)).unwrap_or(0);
        let count = before.map_or(0, |before| before >> DISTINCT_BITS) + 1;
        let number = count << DISTINCT_BITS | distinct & !1;
        let Some(bytes) = bytes else { return Ok(number | 1) };
        let payload = PutPayload::from(bytes);
        self.objects().put_opts(&self.erased_path(number), payload, PutMode::Create.into()).await.stored()?;
        Ok(number)
    }

    /// Removes the files of earlier numbers than the one that `events` names now: all of them, or those that no reader of a
    /// recent version needs.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub async fn discard_erased(&self, now: i64, all: bool) -> Result<()> {
        let folder = self.erased_folder();
        let mut numbers: Vec<i64> = Vec::new();
        let mut objects = self.objects().list(Some(&folder));
        while let Some(object) = objects.try_next().await.stored()? {
            let name = object.location.filename().and_then(|name| name.strip_suffix(".parquet"));
            // One of the same count belongs to an erasure that was fenced by this one, or killed before its commit.
            let is_past = |number: &i64| *number != now && *number >> DISTINCT_BITS <= now >> DISTINCT_BITS;
            numbers.extend(name.and_then(|name| name.parse::<i64>().ok()).filter(is_past));
        }
        numbers.sort_unstable();
        let stay = if all { 0 } else { OLDER_FILES };
        for number in numbers.iter().rev().skip(stay) {
            delete(self, &self.erased_path(*number)).await?;
        }
        Ok(())
    }

    /// Removes a file of erased contributions that no version of `events` names. A failure is harmless: a later erasure removes it.
    pub async fn forget_erased(&self, number: i64) {
        if let Err(error) = delete(self, &self.erased_path(number)).await {
            tracing::debug!(error = %error.chain(), "cannot remove an unused file");
        }
    }

    fn erased_path(&self, number: i64) -> Path {
        self.erased_folder().join(format!("{number:020}.parquet"))
    }

    fn erased_folder(&self) -> Path {
        self.own_folder().join("erased")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};
    use bellwether_base::SystemClock;
    use serde_json::{Map, Value, json};

    use super::*;

    /// One row of `metrics`.
    fn row() -> RecordBatch {
        let schema = Table::Metrics.arrow_schema();
        let value = |field: &Arc<Field>| match field.data_type() {
            DataType::Utf8View => json!("x"),
            DataType::List(_) => json!([]),
            DataType::Binary => json!(""),
            DataType::Boolean => json!(false),
            _ => json!(0),
        };
        let row: Map<String, Value> =
            schema.fields().iter().map(|field| (field.name().clone(), value(field))).collect();
        let mut decoder = arrow::json::ReaderBuilder::new(schema).build_decoder().expect("a decoder");
        decoder.serialize(&[row]).expect("rows");
        decoder.flush().expect("rows").expect("some")
    }

    #[tokio::test]
    async fn contributions_are_read_by_the_number_that_events_names() {
        let store = Arc::new(object_store::memory::InMemory::new());
        let lake = Lake::on_store(store, Arc::new(SystemClock)).await.expect("opens");
        let rows = async |number| {
            lake.erased_rows(number).await.map(|rows| rows.iter().map(RecordBatch::num_rows).sum::<usize>())
        };
        assert_eq!(rows(None).await.expect("reads"), 0);
        let first = lake.store_erased(None, &[row()]).await.expect("writes");
        let next = lake.store_erased(Some(first), &[row(), row()]).await.expect("writes");
        let beside = lake.store_erased(Some(first), &[row()]).await.expect("writes");
        assert!(first > 0 && next > first && beside > first && next != beside, "{first} {next} {beside}");
        let on = Snapshot::new(1, BTreeMap::from([("erase/contributions".to_owned(), next)]));
        assert_eq!(rows(Lake::erased_number(&on)).await.expect("reads"), 2);
        let none = lake.store_erased(Some(next), &[]).await.expect("writes");
        assert_eq!(rows(Some(none)).await.expect("reads"), 0, "no file");
        let later = lake.store_erased(Some(next), &[row()]).await.expect("writes");
        lake.discard_erased(next, true).await.expect("removes");
        for gone in [first, beside] {
            let error = rows(Some(gone)).await.expect_err("gone");
            assert_eq!(error.kind(), bellwether_base::ErrorKind::Data);
        }
        assert_eq!(rows(Some(next)).await.expect("reads"), 2);
        assert_eq!(rows(Some(later)).await.expect("reads"), 1, "of an erasure that may be going on");
    }
}
