//! Encodes a column with few values in one row group with Parquet's dictionary encoding: each value is written once, and
//! each row refers to its value by number.
//!
//! The writer of the Parquet crate hashes the value of every row to find its number, and does not accept numbers that the
//! caller knows already. In `events`, half of the columns with values have known numbers: fields of a release, names with few
//! values, and integers that are equal in every row. They made up half of the cost of encoding.
//!
//! This is our own code because `run` as a service processes 144,000 events per CPU-second with it, and 125,000 without
//! (docs/decisions/0003).
//!
//! Source: Encodings.md of the Parquet format, "Plain", "Run Length Encoding / Bit-Packing Hybrid" and "Dictionary Encoding".
//! Data pages have version 1, like those of all other columns.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow::array::{UInt32Array, new_null_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt32Type};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask, PageType, Type};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::encoder::list::{Levels, encoded};
use crate::stored::Stored;
use bellwether_base::{Error, Result};

/// Most bytes of values in a dictionary, as in the Parquet crate. Values that repeat so rarely are better compressed.
const MOST_BYTES: usize = 1 << 20;

/// Most rows in a data page, as in the Parquet crate.
pub(super) const PAGE_ROWS: usize = 20_000;

/// Number of equal values in succession from which a run is shorter than packing them.
const RUN: usize = 16;

/// Longest text that is written as a bound in the statistics, in bytes.
const LONGEST_BOUND: usize = 64;

/// The number of a row without a value.
const ABSENT: u32 = u32::MAX;

/// Rows with known distinct values.
pub(super) enum Repeated<'a> {
    /// Each row has one of few texts.
    Texts(&'a DictionaryArray<UInt32Type>),
    /// Every row has this integer, in PLAIN encoding.
    Constant(Vec<u8>),
}

/// A column of the open row group. For a field of records in lists, each record counts as a row.
pub(super) struct DictionaryColumn {
    descriptor: ColumnDescPtr,
    /// Values in PLAIN encoding, in the order of their numbers.
    values: Vec<u8>,
    /// The number of each value, by its bytes.
    numbers: HashMap<Box<[u8]>, u32>,
    /// The number of each row's value.
    rows: Vec<u32>,
}

/// A data page, not written yet.
struct Body {
    rows: usize,
    /// Number of values, nulls and lists without records.
    values: usize,
    bytes: Vec<u8>,
}

/// A column of a closed row group: its pages, and its metadata for the footer.
pub(super) struct DictionaryChunk {
    pub(super) bytes: Bytes,
    pub(super) close: Box<ColumnCloseResult>,
}

// === impl Repeated ===

impl<'a> Repeated<'a> {
    /// Returns `None` if the distinct values of the column are not known.
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        match column.data_type() {
            DataType::Dictionary(..) => column.as_dictionary_opt().map(Self::Texts),
            DataType::Int32 => constant::<Int32Type, 4>(column, i32::to_le_bytes),
            DataType::Int64 => constant::<Int64Type, 8>(column, i64::to_le_bytes),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                constant::<TimestampMicrosecondType, 8>(column, i64::to_le_bytes)
            }
            _ => None,
        }
    }
}

fn constant<'a, T: ArrowPrimitiveType, const N: usize>(
    column: &ArrayRef,
    plain: impl Fn(T::Native) -> [u8; N],
) -> Option<Repeated<'a>> {
    let numbers: &PrimitiveArray<T> = column.as_primitive();
    let first = numbers.values().first()?;
    let same = numbers.null_count() == 0 && numbers.values().iter().all(|number| number == first);
    same.then(|| Repeated::Constant(plain(*first).to_vec()))
}

// === impl DictionaryColumn ===

impl DictionaryColumn {
    pub(super) fn new(descriptor: ColumnDescPtr) -> Self {
        Self { descriptor, values: Vec::new(), numbers: HashMap::new(), rows: Vec::new() }
    }

    /// Returns the approximate memory in bytes.
    pub(super) fn memory_size(&self) -> usize {
        2 * self.values.len() + size_of_val(&*self.rows)
    }

    /// Returns true if the values have become too many for a dictionary.
    pub(super) fn is_too_large(&self) -> bool {
        self.values.len() > MOST_BYTES
    }

    pub(super) fn push_absent(&mut self, rows: usize) {
        self.rows.resize(self.rows.len() + rows, ABSENT);
    }

    /// Adds rows.
    pub(super) fn push(&mut self, repeated: &Repeated<'_>, rows: usize) {
        match repeated {
            Repeated::Texts(texts) => self.push_texts(texts),
            Repeated::Constant(plain) => {
                let number = self.number_of(plain);
                self.rows.resize(self.rows.len() + rows, number);
            }
        }
    }

    fn push_texts(&mut self, texts: &DictionaryArray<UInt32Type>) {
        let values = texts.values().as_string::<i32>();
        // Only values that a row has are written: a slice of a dictionary array holds the values of the whole array.
        let mut met: Vec<Option<u32>> = vec![None; values.len()];
        let mut plain = Vec::new();
        self.rows.reserve(texts.len());
        for key in texts.keys_iter() {
            let number = match key {
                None => ABSENT,
                Some(key) => match met[key] {
                    Some(number) => number,
                    None => {
                        let number = match values.is_null(key) {
                            true => ABSENT,
                            false => {
                                plain.clear();
                                plain.extend_from_slice(&length_of(values.value(key)));
                                plain.extend_from_slice(values.value(key).as_bytes());
                                self.number_of(&plain)
                            }
                        };
                        *met[key].insert(number)
                    }
                },
            };
            self.rows.push(number);
        }
    }

    fn number_of(&mut self, plain: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(plain) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).expect("a row group has fewer rows");
        self.numbers.insert(plain.into(), number);
        self.values.extend_from_slice(plain);
        number
    }

    /// Returns the rows so far as an array of a type, for the Parquet crate's writer.
    pub(super) fn array(&self, data_type: &DataType) -> Result<ArrayRef> {
        if self.numbers.is_empty() {
            return Ok(new_null_array(data_type, self.rows.len()));
        }
        let rows: UInt32Array = self.rows.iter().map(|number| (*number != ABSENT).then_some(*number)).collect();
        let values: ArrayRef = match self.descriptor.physical_type() {
            Type::INT32 => Arc::new(PrimitiveArray::<Int32Type>::from_iter_values(
                self.values.as_chunks().0.iter().map(|plain| i32::from_le_bytes(*plain)),
            )),
            Type::INT64 => Arc::new(PrimitiveArray::<Int64Type>::from_iter_values(
                self.values.as_chunks().0.iter().map(|plain| i64::from_le_bytes(*plain)),
            )),
            _ => Arc::new(StringArray::from_iter_values(self.texts()?)),
        };
        let array = take(&values, &rows, None)?;
        Ok(match data_type {
            // The writer accepts texts in this layout too.
            DataType::Utf8View => array,
            other => cast(&array, other)?,
        })
    }

    /// Returns the values in the order of their numbers.
    fn in_order(&self) -> Vec<&[u8]> {
        let mut values: Vec<(&u32, &[u8])> = self.numbers.iter().map(|(plain, number)| (number, &**plain)).collect();
        values.sort_unstable_by_key(|(number, _)| **number);
        values.into_iter().map(|(_, plain)| plain).collect()
    }

    fn texts(&self) -> Result<Vec<&str>> {
        let text = |plain| str::from_utf8(text_of(plain)).map_err(|_| Error::bug("a text of a column is not UTF-8"));
        self.in_order().into_iter().map(text).collect()
    }

    /// Writes the pages. A field of records in lists needs the levels of the lists.
    ///
    /// # Errors
    /// `Bug` if the Parquet crate does not accept them.
    pub(super) fn close(
        self,
        properties: &WriterProperties,
        lists: Option<&mut Levels<'_>>,
    ) -> Result<DictionaryChunk> {
        let bodies = match lists {
            Some(lists) => self.pages_of_lists(lists),
            None => self.rows.chunks(PAGE_ROWS).map(|rows| self.page(rows)).collect(),
        };
        let sum = |part: fn(&Body) -> usize| bodies.iter().map(part).sum::<usize>();
        let (rows, values) = (sum(|body| body.rows), sum(|body| body.values));
        // Without a value there are no numbers to write, and some readers do not accept an empty dictionary of booleans.
        let dictionary = (!self.numbers.is_empty()).then(|| properties.dictionary_page_encoding());
        let encoding = dictionary.map_or(Encoding::PLAIN, |_| properties.dictionary_data_page_encoding());
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let of_dictionary = dictionary.map(|encoding| stats(PageType::DICTIONARY_PAGE, encoding, 1));
        let of_pages = stats(PageType::DATA_PAGE, encoding, i32::try_from(bodies.len()).unwrap_or(i32::MAX));
        let encodings: Vec<Encoding> = dictionary.into_iter().chain([Encoding::RLE, encoding]).collect();
        let (bytes, data_at, index) = self.write(bodies, dictionary, encoding)?;
        let mut metadata = ColumnChunkMetaData::builder(self.descriptor.clone())
            .set_compression(Compression::UNCOMPRESSED)
            .set_encodings_mask(EncodingMask::new_from_encodings(encodings.iter()))
            .set_page_encoding_stats(of_dictionary.into_iter().chain([of_pages]).collect())
            .set_total_compressed_size(signed(bytes.len())?)
            .set_total_uncompressed_size(signed(bytes.len())?)
            .set_num_values(signed(values)?)
            .set_dictionary_page_offset(dictionary.map(|_| 0))
            .set_data_page_offset(data_at);
        if properties.statistics_enabled(self.descriptor.path()) != EnabledStatistics::None {
            metadata = metadata.set_statistics(self.statistics());
        }
        let close = Box::new(ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: rows as u64,
            metadata: metadata.build().stored()?,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(index),
        });
        Ok(DictionaryChunk { bytes, close })
    }

    /// Writes the pages with their headers; returns the bytes, the offset of the first data page, and the index of all.
    fn write(
        &self,
        bodies: Vec<Body>,
        dictionary: Option<Encoding>,
        encoding: Encoding,
    ) -> Result<(Bytes, i64, OffsetIndexMetaData)> {
        let mut sink = TrackedWrite::new(Vec::new());
        let mut writer = SerializedPageWriter::new(&mut sink);
        let mut write = |page: Page| -> Result<PageWriteSpec> {
            let size = page.buffer().len();
            writer.write_page(CompressedPage::new(page, size)).stored()
        };
        let mut data_at = 0;
        if let Some(encoding) = dictionary {
            let (buf, num_values) = (self.values.clone().into(), count(self.numbers.len()));
            let page = write(Page::DictionaryPage { buf, num_values, encoding, is_sorted: false })?;
            data_at = signed(page.bytes_written)?;
        }
        let mut index = OffsetIndexBuilder::new();
        for Body { rows, values, bytes } in bodies {
            let page = write(Page::DataPage {
                buf: bytes.into(),
                num_values: count(values),
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            })?;
            let size = i32::try_from(page.bytes_written).map_err(|_| Error::bug("a page is too large"))?;
            index.append_row_count(signed(rows)?);
            index.append_offset_and_size(signed(page.offset)?, size);
        }
        Ok((sink.into_inner().stored()?.into(), data_at, index.build()))
    }

    /// Encodes a data page of a column outside of lists.
    fn page(&self, rows: &[u32]) -> Body {
        let mut bytes = Vec::new();
        if self.descriptor.max_def_level() > 0 {
            bytes = encoded(rows.iter().map(|number| u32::from(*number != ABSENT)), 1);
        }
        self.append_numbers(rows, &mut bytes);
        Body { rows: rows.len(), values: rows.len(), bytes }
    }

    fn pages_of_lists(&self, lists: &mut Levels<'_>) -> Vec<Body> {
        let level = |level: i16| u32::try_from(level).expect("a level is not negative");
        let most = [level(self.descriptor.max_rep_level()), level(self.descriptor.max_def_level())];
        let pages = lists.pages();
        let page = |page| {
            let (rows, records, values) = lists.extent(page);
            let mut bytes = Vec::new();
            lists.append(page, most, |record| self.rows[record] != ABSENT, &mut bytes);
            self.append_numbers(&self.rows[records], &mut bytes);
            Body { rows, values, bytes }
        };
        (0..pages).map(page).collect()
    }

    /// Appends the bit width of numbers, and then the numbers of the rows that have a value.
    fn append_numbers(&self, rows: &[u32], page: &mut Vec<u8>) {
        if self.numbers.is_empty() {
            return;
        }
        let width = u32::BITS - count(self.numbers.len()).saturating_sub(1).leading_zeros();
        page.push(u8::try_from(width).expect("numbers have 32 bits"));
        match rows.contains(&ABSENT) {
            true => {
                let present: Vec<u32> = rows.iter().copied().filter(|number| *number != ABSENT).collect();
                hybrid(&present, width, page);
            }
            false => hybrid(rows, width, page),
        }
    }

    /// Returns the least and greatest value, and the number of rows without one.
    fn statistics(&self) -> Statistics {
        let nulls = Some(self.rows.iter().filter(|number| **number == ABSENT).count() as u64);
        let values = self.in_order();
        match self.descriptor.physical_type() {
            Type::INT32 => {
                let numbers = || values.iter().filter_map(|plain| Some(i32::from_le_bytes((*plain).try_into().ok()?)));
                Statistics::int32(numbers().min(), numbers().max(), None, nulls, false)
            }
            Type::INT64 => {
                let numbers = || values.iter().filter_map(|plain| Some(i64::from_le_bytes((*plain).try_into().ok()?)));
                Statistics::int64(numbers().min(), numbers().max(), None, nulls, false)
            }
            _ => {
                let texts = || values.iter().map(|plain| text_of(plain));
                let short = texts().all(|text| text.len() <= LONGEST_BOUND);
                let bound = |text: Option<&[u8]>| text.filter(|_| short).map(ByteArray::from);
                Statistics::byte_array(bound(texts().min()), bound(texts().max()), None, nulls, false)
            }
        }
    }
}

/// Encodes the length of a text as in PLAIN.
fn length_of(text: &str) -> [u8; 4] {
    u32::try_from(text.len()).expect("a message has some megabytes").to_le_bytes()
}

fn text_of(plain: &[u8]) -> &[u8] {
    plain.get(size_of::<u32>()..).unwrap_or_default()
}

fn signed(size: impl TryInto<i64>) -> Result<i64> {
    size.try_into().map_err(|_| Error::bug("a column is too large"))
}

fn count(values: usize) -> u32 {
    u32::try_from(values).expect("a row group has fewer values")
}

/// Encodes numbers in the RLE/bit-packing hybrid: a long run of one number as its length, others packed in groups of eight.
pub(super) fn hybrid(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    let (mut packed, mut at) = (0, 0);
    while let Some(number) = numbers.get(at) {
        let run = numbers[at..].iter().take_while(|next| *next == number).count();
        // Packed numbers come in groups of eight, so the first numbers of the run complete the group before it.
        let given = (packed..at).len().next_multiple_of(8) - (packed..at).len();
        if run >= given + RUN {
            pack(&numbers[packed..at + given], width, out);
            let count = (run - given) as u64;
            varint(count << 1, out);
            out.extend_from_slice(&number.to_le_bytes()[..width.div_ceil(8) as usize]);
            packed = at + run;
        }
        at += run;
    }
    pack(&numbers[packed..], width, out);
}

/// Packs numbers, the first in the lowest bits; the last group of eight is filled with zeros.
fn pack(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let eights = numbers.len().div_ceil(8);
    varint((eights as u64) << 1 | 1, out);
    let end = out.len() + eights * width as usize;
    let (mut bits, mut held) = (0_u64, 0);
    for number in numbers {
        bits |= u64::from(*number) << held;
        held += width;
        if held >= u32::BITS {
            out.extend_from_slice(&bits.to_le_bytes()[..4]);
            bits >>= u32::BITS;
            held -= u32::BITS;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..held.div_ceil(8) as usize]);
    out.resize(end, 0);
}

/// Encodes an unsigned number in groups of seven bits, the lowest first (ULEB128).
fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}
