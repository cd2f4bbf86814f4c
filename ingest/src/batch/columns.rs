//! Column builders: vectors of values, and lists of records made of them.
//!
//! Most columns have a value either in few rows or in all of them. Each value is therefore added with its row number, a row
//! without a value costs nothing, and null bits are written only when rows with and without values alternate. A column without
//! any value is left out.
//!
//! Rule: values are added in row order, at most one for each row.

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

/// Builds a column row by row.
pub(super) trait ColumnBuilder {
    fn new() -> Self;
    /// Returns the column with `rows` rows, in the type of its schema or in another encoding of strings that
    /// [`Chunk`](bellwether_lake::Chunk) allows; `None` if no row has a value. Empties the builder.
    fn finish(&mut self, column_type: ColumnType, rows: usize) -> Option<ArrayRef>;
}

/// A column of strings with few distinct values: each value is stored once, and rows refer to it by number.
pub(super) struct Labels {
    texts: Texts,
    /// Gists of the first [`FEW`] strings.
    gists: Vec<Gist>,
    /// Numbers of all other strings.
    numbers: HashMap<Box<str>, u32>,
    of_row: Sparse<Numbers<UInt32Type>>,
}

/// Strings compared one by one before hashing: that is faster than a hash.
const FEW: usize = 8;

/// The length of a string and its first and last bytes. They determine a string of at most [`Gist::WHOLE`] bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gist {
    length: usize,
    ends: [u64; 2],
}

// === impl Gist ===

impl Gist {
    const WHOLE: usize = 16;

    fn new(text: &[u8]) -> Self {
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
    /// Sets the string of a row. Earlier rows without a string are null.
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
        let gist = Gist::new(text.as_bytes());
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

impl ColumnBuilder for Labels {
    fn new() -> Self {
        Self { texts: Texts::like(None), gists: Vec::new(), numbers: HashMap::new(), of_row: Sparse::new() }
    }

    fn finish(&mut self, column_type: ColumnType, rows: usize) -> Option<ArrayRef> {
        let of_row = self.of_row.finish(column_type, rows)?;
        self.gists.clear();
        self.numbers.clear();
        let next = Texts::like(Some(&self.texts));
        let texts = std::mem::replace(&mut self.texts, next).array(None);
        Some(Arc::new(DictionaryArray::<UInt32Type>::new(of_row.as_primitive().clone(), texts)))
    }
}

/// A column that is filled after all rows have been added.
pub(super) struct FilledLater;

impl ColumnBuilder for FilledLater {
    fn new() -> Self {
        Self
    }
    fn finish(&mut self, _column_type: ColumnType, _rows: usize) -> Option<ArrayRef> {
        None
    }
}

/// The values of a column, one for each row. The value of a null row is arbitrary.
pub(super) trait Values {
    /// Creates an empty set of values with the capacity of `last`.
    fn like(last: Option<&Self>) -> Self;
    fn rows(&self) -> usize;
    fn append_any(&mut self, rows: usize);
    fn array(self, nulls: Option<NullBuffer>) -> ArrayRef;
}

/// Values to which a value of type `T` can be appended.
pub(super) trait Push<T>: Values {
    fn push(&mut self, value: T);
}

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

/// Concatenated strings, and the end of each.
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl Values for Texts {
    fn like(last: Option<&Self>) -> Self {
        let mut ends = Vec::with_capacity(last.map_or(1, |last| last.ends.len()));
        ends.push(0);
        // An eighth to spare: the next chunk rarely has exactly as many bytes, and growing by doubling would copy all of them and
        // double the memory.
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
    /// Values up to the last row that has one.
    values: V,
    /// Null bits, which may lag behind the values.
    present: NullBufferBuilder,
}

// === impl Sparse ===

impl<V: Values> Sparse<V> {
    fn like(last: Option<&V>) -> Self {
        Self { values: V::like(last), present: NullBufferBuilder::new(0) }
    }

    /// Sets the value of a row. Earlier rows without a value are null.
    #[inline]
    pub(super) fn put<T>(&mut self, row: usize, value: T)
    where
        V: Push<T>,
    {
        if self.values.rows() < row {
            self.extend_to(row);
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
    fn extend_to(&mut self, row: usize) {
        let rows = self.values.rows();
        self.present.append_n_non_nulls(rows - self.present.len());
        // A column without nulls needs no bits, and the builder allocates none until a null is appended.
        if rows < row {
            self.present.append_n_nulls(row - rows);
            self.values.append_any(row - rows);
        }
    }
}

impl<V: Values> ColumnBuilder for Sparse<V> {
    fn new() -> Self {
        Self::like(None)
    }

    fn finish(&mut self, _column_type: ColumnType, rows: usize) -> Option<ArrayRef> {
        if self.values.rows() == 0 {
            return None;
        }
        self.extend_to(rows);
        // The next chunk has about the same size; growing by doubling would copy it several times.
        let next = Self::like(Some(&self.values));
        let Self { values, mut present } = std::mem::replace(self, next);
        Some(values.array(present.finish()))
    }
}

/// A column of maps from strings to strings.
pub(super) struct TextMap {
    builder: MapBuilder<StringViewBuilder, StringViewBuilder>,
}

// === impl TextMap ===

impl TextMap {
    /// Sets the pairs of a row.
    pub(super) fn put<'a>(&mut self, row: usize, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        self.extend_to(row);
        for (name, value) in pairs {
            self.builder.keys().append_value(name);
            self.builder.values().append_value(value);
        }
        self.close(true);
    }

    fn extend_to(&mut self, row: usize) {
        for _ in self.builder.len()..row {
            self.close(false);
        }
    }

    fn close(&mut self, valid: bool) {
        self.builder.append(valid).expect("a key and a value were appended each time");
    }
}

impl ColumnBuilder for TextMap {
    fn new() -> Self {
        let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        let text = StringViewBuilder::new;
        Self { builder: MapBuilder::new(Some(names), text(), text()) }
    }

    fn finish(&mut self, _column_type: ColumnType, rows: usize) -> Option<ArrayRef> {
        if self.builder.is_empty() {
            return None;
        }
        self.extend_to(rows);
        Some(Arc::new(self.builder.finish()))
    }
}

/// A record with one column for each field.
pub(super) trait ColumnSet {
    fn new() -> Self;
    /// Returns the columns with `rows` rows.
    fn columns(&mut self, fields: &'static [bellwether_tables::Column], rows: usize) -> Vec<Option<ArrayRef>>;
}

/// A column of lists of records.
pub(super) struct Lists<R> {
    /// Number of records up to the end of each row's list, for the rows before the last one with a record.
    ends: Vec<i32>,
    total: usize,
    pub(super) records: R,
}

// === impl Lists ===

impl<R> Lists<R> {
    /// Adds a record to the list of a row, and returns the row number of the record.
    pub(super) fn add(&mut self, row: usize) -> usize {
        self.close(row);
        self.total += 1;
        self.total - 1
    }

    /// Ends the lists of all rows before this one.
    fn close(&mut self, row: usize) {
        let end = i32::try_from(self.total).expect("a chunk has some megabytes");
        self.ends.resize(row.max(self.ends.len()), end);
    }
}

impl<R: ColumnSet> ColumnBuilder for Lists<R> {
    fn new() -> Self {
        Self { ends: Vec::new(), total: 0, records: R::new() }
    }

    fn finish(&mut self, column_type: ColumnType, rows: usize) -> Option<ArrayRef> {
        let fields = match column_type {
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

/// Defines a set of columns in the order of a schema.
macro_rules! column_set {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        pub(super) struct $name { $(pub(super) $field: $type,)* }
        impl $crate::batch::columns::ColumnSet for $name {
            fn new() -> Self {
                Self { $($field: <$type as $crate::batch::columns::ColumnBuilder>::new(),)* }
            }
            fn columns(
                &mut self,
                fields: &'static [bellwether_tables::Column],
                rows: usize,
            ) -> Vec<Option<arrow::array::ArrayRef>> {
                let mut types = fields.iter().map(|field| field.kind);
                vec![$({
                    let column_type = types.next().unwrap_or(bellwether_tables::ColumnType::Text);
                    $crate::batch::columns::ColumnBuilder::finish(&mut self.$field, column_type, rows)
                },)*]
            }
        }
    };
}
pub(super) use column_set;
