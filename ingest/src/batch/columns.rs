//! Growing columns: plain vectors that values are appended to, and lists of records made of them.
//!
//! Most columns have a value in few rows, and most of the others in all. So a value comes with its row, a row without one costs
//! nothing, and which rows have one is written down where the one changes into the other. A column that never gets a value is
//! left out.
//!
//! Rule: rows come in order, and each gets a value at most once.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, BooleanBufferBuilder, DictionaryArray,
    ListArray, MapBuilder, MapFieldNames, NullBufferBuilder, PrimitiveArray, StringArray, StringViewBuilder,
    StructArray, new_empty_array, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Field, Fields, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type,
};
use bellwether_tables::ColumnType;

pub(super) type Text = Sparse<Texts>;
pub(super) type Long = Sparse<Numbers<Int64Type>>;
pub(super) type Integer = Sparse<Numbers<Int32Type>>;
pub(super) type Double = Sparse<Numbers<Float64Type>>;
pub(super) type Flag = Sparse<BooleanBufferBuilder>;
pub(super) type Date = Sparse<Numbers<Date32Type>>;
pub(super) type Time = Sparse<Numbers<TimestampMicrosecondType>>;

/// A column that grows row by row.
pub(super) trait Column {
    fn fresh() -> Self;
    /// So many rows, in the type its schema gives it, or a text as [`Chunk`](bellwether_lake::Chunk) may have it too; none
    /// where no row has a value. The column is empty afterwards.
    fn done(&mut self, kind: ColumnType, rows: usize) -> Option<ArrayRef>;
}

/// Texts of which few differ: each is kept once, and a row has the number of its own.
pub(super) struct Labels {
    texts: Texts,
    /// Of the first [`FEW`] texts.
    gists: Vec<Gist>,
    /// Of the other texts.
    numbers: HashMap<Box<str>, u32>,
    of_row: Sparse<Numbers<UInt32Type>>,
}

/// So many texts are compared with one after the other, which takes less than a hash.
const FEW: usize = 8;

/// The length of a text, and its first and last bytes: all there is of one that is no longer than [`Gist::WHOLE`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gist {
    length: usize,
    ends: [u64; 2],
}

// === impl Gist ===

impl Gist {
    const WHOLE: usize = 16;

    fn of(text: &[u8]) -> Self {
        let short = || match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => [u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()],
            _ => [text.iter().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)), 0],
        };
        let ends = match (text.first_chunk(), text.last_chunk()) {
            (Some(first), Some(last)) => [u64::from_le_bytes(*first), u64::from_le_bytes(*last)],
            _ => short(),
        };
        Self { length: text.len(), ends }
    }
}

// === impl Labels ===

impl Labels {
    /// Gives a row its text; rows before it that have not got one have none.
    pub(super) fn put(&mut self, row: usize, text: &str) {
        let number = self.number_of(text);
        self.of_row.put(row, number);
    }

    pub(super) fn put_option(&mut self, row: usize, text: Option<&str>) {
        if let Some(text) = text {
            self.put(row, text);
        }
    }

    fn number_of(&mut self, text: &str) -> u32 {
        let gist = Gist::of(text.as_bytes());
        let same = |at: usize| gist.length <= Gist::WHOLE || self.texts.at(at) == text.as_bytes();
        let found = self.gists.iter().enumerate().find(|(at, known)| **known == gist && same(*at));
        let found = found.and_then(|(at, _)| u32::try_from(at).ok());
        if let Some(number) = found.or_else(|| self.numbers.get(text).copied()) {
            return number;
        }
        let number = u32::try_from(self.texts.rows()).expect("a chunk has some thousand rows");
        self.texts.push(text);
        if self.gists.len() < FEW {
            self.gists.push(gist);
        } else {
            self.numbers.insert(text.into(), number);
        }
        number
    }
}

impl Column for Labels {
    fn fresh() -> Self {
        Self { texts: Texts::like(None), gists: Vec::new(), numbers: HashMap::new(), of_row: Sparse::fresh() }
    }

    fn done(&mut self, kind: ColumnType, rows: usize) -> Option<ArrayRef> {
        let of_row = self.of_row.done(kind, rows)?;
        self.gists.clear();
        self.numbers.clear();
        let next = Texts::like(Some(&self.texts));
        let texts = std::mem::replace(&mut self.texts, next).array(None);
        Some(Arc::new(DictionaryArray::<UInt32Type>::new(of_row.as_primitive().clone(), texts)))
    }
}

/// A column that is filled when all rows are there.
pub(super) struct Later;

impl Column for Later {
    fn fresh() -> Self {
        Self
    }
    fn done(&mut self, _kind: ColumnType, _rows: usize) -> Option<ArrayRef> {
        None
    }
}

/// The values of a column, one for each row; a row without one has any.
pub(super) trait Values {
    /// Without rows, with room for as many as another has; for none without another.
    fn like(last: Option<&Self>) -> Self;
    fn rows(&self) -> usize;
    fn append_any(&mut self, rows: usize);
    fn array(self, nulls: Option<NullBuffer>) -> ArrayRef;
}

/// Values that one of a kind can be appended to.
pub(super) trait Push<T>: Values {
    fn push(&mut self, value: T);
}

/// Numbers.
pub(super) struct Numbers<T: ArrowPrimitiveType>(Vec<T::Native>);

impl<T: ArrowPrimitiveType> Values for Numbers<T> {
    fn like(last: Option<&Self>) -> Self {
        Self(Vec::with_capacity(last.map_or(0, Self::rows)))
    }
    fn rows(&self) -> usize {
        self.0.len()
    }
    fn append_any(&mut self, rows: usize) {
        self.0.resize(self.0.len() + rows, T::default_value());
    }
    fn array(self, nulls: Option<NullBuffer>) -> ArrayRef {
        let array = PrimitiveArray::<T>::new(ScalarBuffer::from(self.0), nulls);
        Arc::new(match T::DATA_TYPE {
            DataType::Timestamp(unit, _) => array.with_data_type(DataType::Timestamp(unit, Some("UTC".into()))),
            _ => array,
        })
    }
}

impl<T: ArrowPrimitiveType> Push<T::Native> for Numbers<T> {
    #[inline]
    fn push(&mut self, value: T::Native) {
        self.0.push(value);
    }
}

impl Values for BooleanBufferBuilder {
    fn like(last: Option<&Self>) -> Self {
        Self::new(last.map_or(0, Self::rows))
    }
    fn rows(&self) -> usize {
        self.len()
    }
    fn append_any(&mut self, rows: usize) {
        self.append_n(rows, false);
    }
    fn array(mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        Arc::new(BooleanArray::new(self.finish(), nulls))
    }
}

impl Push<bool> for BooleanBufferBuilder {
    #[inline]
    fn push(&mut self, value: bool) {
        self.append(value);
    }
}

/// Texts, one after the other, and where each ends.
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl Values for Texts {
    fn like(last: Option<&Self>) -> Self {
        let mut ends = Vec::with_capacity(last.map_or(1, |last| last.ends.len()));
        ends.push(0);
        // With an eighth to spare: as many rows are rarely as long to the byte, and for one more all would be copied, and as
        // much again be reserved for as long as the rows are in memory.
        let bytes = last.map_or(0, |last| last.bytes.len() + last.bytes.len() / 8);
        Self { bytes: Vec::with_capacity(bytes), ends }
    }
    fn rows(&self) -> usize {
        self.ends.len() - 1
    }
    fn append_any(&mut self, rows: usize) {
        let end = self.ends[self.rows()];
        self.ends.resize(self.ends.len() + rows, end);
    }
    fn array(self, nulls: Option<NullBuffer>) -> ArrayRef {
        let ends = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        Arc::new(StringArray::new(ends, Buffer::from_vec(self.bytes), nulls))
    }
}

// === impl Texts ===

impl Texts {
    fn at(&self, row: usize) -> &[u8] {
        let end = |at: usize| usize::try_from(self.ends[at]).expect("ends rise from 0");
        &self.bytes[end(row)..end(row + 1)]
    }
}

impl<T: AsRef<str>> Push<T> for Texts {
    #[inline]
    fn push(&mut self, value: T) {
        self.bytes.extend_from_slice(value.as_ref().as_bytes());
        self.ends.push(i32::try_from(self.bytes.len()).expect("a chunk has some megabytes"));
    }
}

/// A column of single values.
pub(super) struct Sparse<V> {
    /// Up to the last row that has a value.
    values: V,
    /// Which of the rows have a value, as far as it is written down.
    present: NullBufferBuilder,
}

// === impl Sparse ===

impl<V: Values> Sparse<V> {
    fn like(last: Option<&V>) -> Self {
        Self { values: V::like(last), present: NullBufferBuilder::new(0) }
    }

    /// Gives a row its value; rows before it that have not got one have none.
    #[inline]
    pub(super) fn put<T>(&mut self, row: usize, value: T)
    where
        V: Push<T>,
    {
        if self.values.rows() < row {
            self.pass_over(row);
        }
        self.values.push(value);
    }

    #[inline]
    pub(super) fn put_option<T>(&mut self, row: usize, value: Option<T>)
    where
        V: Push<T>,
    {
        if let Some(value) = value {
            self.put(row, value);
        }
    }

    #[inline(never)]
    fn pass_over(&mut self, row: usize) {
        let rows = self.values.rows();
        self.present.append_n_non_nulls(rows - self.present.len());
        // A column that has a value in every row needs no bits, and gets none as long as no null is appended.
        if rows < row {
            self.present.append_n_nulls(row - rows);
            self.values.append_any(row - rows);
        }
    }
}

impl<V: Values> Column for Sparse<V> {
    fn fresh() -> Self {
        Self::like(None)
    }

    fn done(&mut self, _kind: ColumnType, rows: usize) -> Option<ArrayRef> {
        if self.values.rows() == 0 {
            return None;
        }
        self.pass_over(rows);
        // The next chunk is about as large, and growing by doubling would copy it several times.
        let next = Self::like(Some(&self.values));
        let Self { values, mut present } = std::mem::replace(self, next);
        Some(values.array(present.finish()))
    }
}

/// A column of text by text.
pub(super) struct TextMap {
    builder: MapBuilder<StringViewBuilder, StringViewBuilder>,
}

// === impl TextMap ===

impl TextMap {
    /// Gives a row its pairs.
    pub(super) fn put<'a>(&mut self, row: usize, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        self.pass_over(row);
        for (name, value) in pairs {
            self.builder.keys().append_value(name);
            self.builder.values().append_value(value);
        }
        self.close(true);
    }

    fn pass_over(&mut self, row: usize) {
        for _ in self.builder.len()..row {
            self.close(false);
        }
    }

    fn close(&mut self, valid: bool) {
        self.builder.append(valid).expect("a key and a value were appended each time");
    }
}

impl Column for TextMap {
    fn fresh() -> Self {
        let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        let text = StringViewBuilder::new;
        Self { builder: MapBuilder::new(Some(names), text(), text()) }
    }

    fn done(&mut self, _kind: ColumnType, rows: usize) -> Option<ArrayRef> {
        if self.builder.is_empty() {
            return None;
        }
        self.pass_over(rows);
        Some(Arc::new(self.builder.finish()))
    }
}

/// The fields of a record, each a column.
pub(super) trait Record {
    fn fresh() -> Self;
    /// The columns, of so many rows.
    fn columns(&mut self, fields: &'static [bellwether_tables::Column], rows: usize) -> Vec<Option<ArrayRef>>;
}

/// A column of lists of records.
pub(super) struct Lists<R> {
    /// Records up to the end of each row's list, for the rows before the last one that has a record.
    ends: Vec<i32>,
    total: usize,
    pub(super) records: R,
}

// === impl Lists ===

impl<R> Lists<R> {
    /// Adds a record to the list of a row, and gives the record's own row.
    pub(super) fn add(&mut self, row: usize) -> usize {
        self.close(row);
        self.total += 1;
        self.total - 1
    }

    /// The lists of the rows before this one are whole.
    fn close(&mut self, row: usize) {
        let end = i32::try_from(self.total).expect("a chunk has some megabytes");
        self.ends.resize(row.max(self.ends.len()), end);
    }
}

impl<R: Record> Column for Lists<R> {
    fn fresh() -> Self {
        Self { ends: Vec::new(), total: 0, records: R::fresh() }
    }

    fn done(&mut self, kind: ColumnType, rows: usize) -> Option<ArrayRef> {
        let fields = match kind {
            ColumnType::List(fields) => fields,
            _ => &[],
        };
        if self.total == 0 {
            return None;
        }
        self.close(rows);
        let length = std::mem::take(&mut self.total);
        let types = bellwether_tables::arrow_fields(fields);
        let columns = self.records.columns(fields, length).into_iter().zip(&types);
        let columns: Vec<ArrayRef> = columns
            .map(|(column, field)| match (column, field.data_type()) {
                (Some(column), _) => column,
                (None, DataType::List(element)) => {
                    let (values, offsets) = (new_empty_array(element.data_type()), OffsetBuffer::new_zeroed(length));
                    Arc::new(ListArray::new(Arc::clone(element), offsets, values, None))
                }
                (None, other) => new_null_array(other, length),
            })
            .collect();
        let types: Fields = types
            .iter()
            .zip(&columns)
            .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
            .collect();
        let records = StructArray::try_new_with_length(types.clone(), columns, None, length)
            .expect("records are appended field by field in the order of their schema");
        let element = Arc::new(Field::new("element", DataType::Struct(types), false));
        let offsets = OffsetBuffer::new(std::iter::once(0).chain(self.ends.drain(..)).collect());
        Some(Arc::new(ListArray::new(element, offsets, Arc::new(records), None)))
    }
}

/// Makes a set of columns in the order of a schema.
macro_rules! column_set {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        pub(super) struct $name { $(pub(super) $field: $type,)* }
        impl $crate::batch::columns::Record for $name {
            fn fresh() -> Self {
                Self { $($field: <$type as $crate::batch::columns::Column>::fresh(),)* }
            }
            fn columns(
                &mut self,
                fields: &'static [bellwether_tables::Column],
                rows: usize,
            ) -> Vec<Option<arrow::array::ArrayRef>> {
                let mut kinds = fields.iter().map(|field| field.kind);
                vec![$({
                    let kind = kinds.next().unwrap_or(bellwether_tables::ColumnType::Text);
                    $crate::batch::columns::Column::done(&mut self.$field, kind, rows)
                },)*]
            }
        }
    };
}
pub(super) use column_set;
