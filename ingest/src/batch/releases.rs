//! The ten columns that depend only on a row's release. Many rows share few releases, so the values are stored once for each
//! release, and rows refer to them by number.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, StringArray, UInt32Array};
use bellwether_event::Release;
use bellwether_tables::Column;

/// Releases compared one by one before hashing: that is faster than a hash.
const FEW: usize = 16;

type Get = fn(&Release) -> Option<&str>;

/// The columns, with the value of a release in each.
const COLUMNS: [(&str, Get); 10] = [
    ("release_id", |release| Some(&release.id)),
    ("release_fingerprint", |release| Some(&release.fingerprint)),
    ("release_fingerprint_stated", |release| release.stated_fingerprint.as_deref()),
    ("release_json", |release| Some(&release.json)),
    ("model", |release| release.model.as_deref()),
    ("model_provider", |release| release.provider.as_deref()),
    ("model_requested", |release| release.requested.as_deref()),
    ("model_responded", |release| release.responded.as_deref()),
    ("prompt_name", |release| release.prompt_name.as_deref()),
    ("prompt_version", |release| release.prompt_version.as_deref()),
];

/// The releases of the rows so far.
#[derive(Default)]
pub(super) struct ReleaseRows {
    known: Vec<Arc<Release>>,
    /// Numbers of the releases by address, which is unique while `known` holds the release.
    numbers: HashMap<usize, u32>,
    of_row: Vec<Option<u32>>,
}

// === impl ReleaseRows ===

impl ReleaseRows {
    pub(super) fn append(&mut self, release: Option<&Arc<Release>>) {
        let Self { known, numbers, of_row } = self;
        of_row.push(release.map(|release| {
            let few = known.iter().take(FEW).position(|known| Arc::ptr_eq(known, release));
            few.and_then(|number| u32::try_from(number).ok()).unwrap_or_else(|| {
                *numbers.entry(Arc::as_ptr(release).addr()).or_insert_with(|| {
                    known.push(Arc::clone(release));
                    u32::try_from(known.len() - 1).expect("a chunk has some thousand rows")
                })
            })
        }));
    }

    /// Fills in the columns, leaving out those without a value, and removes all rows.
    pub(super) fn finish(&mut self, columns: &mut [Option<ArrayRef>], schema: &[Column]) {
        let of_row = UInt32Array::from(std::mem::take(&mut self.of_row));
        for (name, text) in COLUMNS {
            let texts: StringArray = self.known.iter().map(|release| text(release)).collect();
            let index = schema.iter().position(|column| column.name == name).expect("a column of `events`");
            let some = texts.null_count() < texts.len();
            columns[index] = some.then(|| Arc::new(DictionaryArray::new(of_row.clone(), Arc::new(texts))) as _);
        }
        self.known.clear();
        self.numbers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_tables::Table;

    #[test]
    fn the_columns_are_those_of_the_schema_in_its_order() {
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        let schema: Vec<&str> = Table::Events.columns().iter().map(|column| column.name).collect();
        assert!(schema.windows(names.len()).any(|window| window == names), "{schema:?}");
    }
}
