//! Searches every object under the root for identifiers, as the proof of an erasure.
//!
//! A Parquet file is decoded, whatever wrote it: every text of every column is searched, and so are the raw bytes, in which values
//! may also be plain. All other objects, such as log entries, are searched as bytes. Nothing is left out: not files that no
//! version names any more, nor log checkpoints, nor this program's own records.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, UInt32Type};
use bellwether_base::Result;
use bellwether_tables::Table;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::listing::LogListing;
use super::tokens::Tokens;
use super::unnamed::written_micros;
use crate::log::LOG_FOLDER;
use crate::root::Lake;
use crate::stored::{Stored, from_store};

/// Objects that are searched at a time. Bounds memory.
const AT_ONCE: usize = 4;

/// Log entries that are read at a time.
const ENTRIES_AT_ONCE: usize = 16;

/// Shortest identifier that is searched in the raw bytes of Parquet files: shorter ones are there by chance.
const RAW_BYTES: usize = 6;

/// The outcome of a search.
#[derive(Clone, Debug, Default)]
pub struct Scanned {
    /// Objects that were searched.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that hold an identifier, by path.
    pub held: Vec<Held>,
}

/// An object that holds an identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Path, relative to the root.
    pub path: String,
    /// The table that it belongs to.
    pub table: Option<Table>,
    /// Its kind, which determines when it goes.
    pub holder: Holder,
    /// Columns with an identifier; empty if it is in other bytes.
    pub columns: BTreeSet<String>,
}

/// The kind of an object that holds an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A file of the newest version of a table.
    Live,
    /// A file that a commit has replaced or removed.
    Replaced {
        /// Time of that commit, microseconds since the epoch; none if its entry is gone.
        at_micros: Option<i64>,
    },
    /// A file that no commit names.
    Unnamed {
        /// Time of writing, microseconds since the epoch, if its name says so.
        at_micros: Option<i64>,
    },
    /// A log entry or log checkpoint.
    Log,
    /// Anything else.
    Other,
}

/// The data files that the log of a table names.
#[derive(Default)]
struct Names {
    live: BTreeSet<String>,
    /// Files that remaining entries have taken out, with the times of the entries.
    taken: BTreeMap<String, i64>,
}

// === impl Lake ===

impl Lake {
    /// Searches all objects under the root. Calls `progress` with the number of objects searched so far.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if a log is torn.
    pub async fn scan(&self, tokens: &Tokens, mut progress: impl FnMut(u64)) -> Result<Scanned> {
        let mut scanned = Scanned::default();
        let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
        let base = self.base();
        let raw = &tokens.longer_than(RAW_BYTES);
        let mut searched = std::pin::pin!(
            self.objects()
                .list(Some(&base))
                .map(|object| async move {
                    let path = object.stored()?.location;
                    self.search(path, tokens, raw).await
                })
                .buffer_unordered(AT_ONCE)
        );
        while let Some(searched) = searched.try_next().await? {
            // Another process may have removed it since it was listed.
            let Some((path, bytes, columns)) = searched else { continue };
            scanned.objects += 1;
            scanned.bytes += bytes;
            progress(scanned.objects);
            let Some(columns) = columns else { continue };
            let parts = path.prefix_match(&base).map(|parts| parts.map(|part| part.as_ref().to_owned()).collect());
            found.push((parts.unwrap_or_else(Vec::new).join("/"), columns));
        }
        found.sort();
        let mut names: BTreeMap<Table, Names> = BTreeMap::new();
        for (path, columns) in found {
            let (table, holder) = self.holder_of(&path, &mut names).await?;
            scanned.held.push(Held { path, table, holder, columns });
        }
        Ok(scanned)
    }

    /// Searches one object. Returns its size, and the columns with an identifier if it holds one.
    async fn search(
        &self,
        path: Path,
        tokens: &Tokens,
        raw: &Tokens,
    ) -> Result<Option<(Path, u64, Option<BTreeSet<String>>)>> {
        let bytes = match self.objects().get(&path).await {
            Ok(found) => found.bytes().await.stored()?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(from_store(source)),
        };
        let is_parquet = path.filename().is_some_and(|name| name.ends_with(".parquet"));
        let size = bytes.len() as u64;
        let (tokens, raw) = (tokens.clone(), raw.clone());
        let work = move || match is_parquet {
            true => Ok(in_parquet(&tokens, &raw, bytes)),
            false => Ok(tokens.are_in(&bytes).then(BTreeSet::new)),
        };
        Ok(Some((path, size, self.work().run("the search", work).await?)))
    }

    async fn holder_of(&self, path: &str, known: &mut BTreeMap<Table, Names>) -> Result<(Option<Table>, Holder)> {
        let (folder, rest) = path.split_once('/').unwrap_or((path, ""));
        let Some(table) = Table::ALL.into_iter().find(|table| table.name() == folder) else {
            return Ok((None, Holder::Other));
        };
        if rest.starts_with(LOG_FOLDER) {
            return Ok((Some(table), Holder::Log));
        }
        let names = match known.entry(table) {
            Entry::Occupied(names) => names.into_mut(),
            Entry::Vacant(place) => place.insert(self.names_of(table).await?),
        };
        let holder = match names.taken.get(rest) {
            _ if names.live.contains(rest) => Holder::Live,
            Some(at) => Holder::Replaced { at_micros: Some(*at) },
            None if !rest.ends_with(".parquet") => Holder::Other,
            None => Holder::Unnamed { at_micros: written_micros(rest) },
        };
        Ok((Some(table), holder))
    }

    async fn names_of(&self, table: Table) -> Result<Names> {
        let log = self.log(table);
        let mut names = Names::default();
        let (version, files) = self.active_files(table).await?;
        let first = LogListing::of(&log).await?.first().unwrap_or(0);
        let mut entries = std::pin::pin!(
            futures::stream::iter(first..=version).map(|version| log.entry(version)).buffered(ENTRIES_AT_ONCE)
        );
        while let Some(entry) = entries.try_next().await? {
            let Some(entry) = entry else { continue };
            let at = entry.timestamp_ms.saturating_mul(1000);
            names.taken.extend(entry.removed.into_iter().map(|path| (path, at)));
        }
        names.live = files.into_iter().map(|file| file.path).collect();
        Ok(names)
    }
}

/// Searches a Parquet file. Returns the columns with an identifier, if it holds one. A file that cannot be decoded is searched as
/// bytes only: the audit reports it.
fn in_parquet(tokens: &Tokens, raw: &Tokens, bytes: Bytes) -> Option<BTreeSet<String>> {
    let mut columns = BTreeSet::new();
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    if let Ok(reader) = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes.clone(), options)
        && let Ok(batches) = reader.build()
    {
        for batch in batches.map_while(std::result::Result::ok) {
            in_columns(tokens, &batch, &mut columns);
        }
    }
    (!columns.is_empty() || raw.are_in_parquet(&bytes)).then_some(columns)
}

/// Adds the columns with an identifier.
fn in_columns(tokens: &Tokens, rows: &RecordBatch, found: &mut BTreeSet<String>) {
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !found.contains(field.name()) && is_in(tokens, column) {
            found.insert(field.name().clone());
        }
    }
}

impl Tokens {
    /// Returns true if some text in a column holds one of the identifiers, at any depth.
    pub fn are_in_column(&self, column: &ArrayRef) -> bool {
        is_in(self, column)
    }
}

fn is_in(tokens: &Tokens, column: &ArrayRef) -> bool {
    let in_text = |text: Option<&str>| text.is_some_and(|text| tokens.are_in(text.as_bytes()));
    let in_bytes = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| tokens.are_in(bytes));
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().any(in_text),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().any(in_text),
        DataType::Utf8View => column.as_string_view().iter().any(in_text),
        DataType::Binary => column.as_binary::<i32>().iter().any(in_bytes),
        DataType::LargeBinary => column.as_binary::<i64>().iter().any(in_bytes),
        DataType::BinaryView => column.as_binary_view().iter().any(in_bytes),
        DataType::Struct(_) => column.as_struct().columns().iter().any(|field| is_in(tokens, field)),
        DataType::List(_) => is_in(tokens, column.as_list::<i32>().values()),
        DataType::LargeList(_) => is_in(tokens, column.as_list::<i64>().values()),
        DataType::Map(..) => column.as_map().entries().columns().iter().any(|field| is_in(tokens, field)),
        DataType::Dictionary(..) => {
            column.as_dictionary_opt::<UInt32Type>().is_some_and(|dictionary| is_in(tokens, dictionary.values()))
        }
        _ => false,
    }
}
