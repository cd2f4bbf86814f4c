//! Growing columns: plain vectors that rows are appended to, and lists of records made of them.
//!
//! Most columns have a value in few rows, and most of the others in all. So a row with a value only appends it, a row
//! without one is only counted, and which rows have one is written down where the one changes into the other. A column
//! that never gets a value is left out.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, ArrowPrimitiveType, BooleanArray, BooleanBufferBuilder, ListArray, MapBuilder,
    MapFieldNames, NullBufferBuilder, PrimitiveArray, StringArray, StringViewArray, StringViewBuilder, StructArray,
    new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Date32Type, Field, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bellwether_lake::schema::{self, Kind};

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
    /// The rows so far, in the type its schema gives it; none where no row has a value. The column is empty afterwards.
    fn done(&mut self, kind: Kind) -> Option<ArrayRef>;
}

/// A column that is filled when all rows are there.
pub(super) struct Later;

impl Column for Later {
    fn fresh() -> Self {
        Self
    }
    fn done(&mut self, _kind: Kind) -> Option<ArrayRef> {
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
        Arc::new(StringViewArray::from(&StringArray::new(ends, Buffer::from_vec(self.bytes), nulls)))
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
    values: V,
    /// Which of the rows have a value, as far as it is written down.
    present: NullBufferBuilder,
    /// Rows after the last value.
    absent: usize,
}

// === impl Sparse ===

impl<V: Values> Sparse<V> {
    fn like(last: Option<&V>) -> Self {
        Self { values: V::like(last), present: NullBufferBuilder::new(0), absent: 0 }
    }

    #[inline]
    pub(super) fn append_value<T>(&mut self, value: T)
    where
        V: Push<T>,
    {
        self.reached().push(value);
    }

    #[inline]
    pub(super) fn append_option<T>(&mut self, value: Option<T>)
    where
        V: Push<T>,
    {
        match value {
            Some(value) => self.append_value(value),
            None => self.append_null(),
        }
    }

    #[inline]
    pub(super) fn append_null(&mut self) {
        self.absent += 1;
    }

    /// The values, with all rows before the one that is written.
    #[inline]
    fn reached(&mut self) -> &mut V {
        if self.absent > 0 {
            self.note_absent();
        }
        &mut self.values
    }

    #[inline(never)]
    fn note_absent(&mut self) {
        self.present.append_n_non_nulls(self.values.rows() - self.present.len());
        self.present.append_n_nulls(self.absent);
        self.values.append_any(std::mem::take(&mut self.absent));
    }
}

impl<V: Values> Column for Sparse<V> {
    fn fresh() -> Self {
        Self::like(None)
    }

    fn done(&mut self, _kind: Kind) -> Option<ArrayRef> {
        if self.values.rows() == 0 {
            self.absent = 0;
            return None;
        }
        self.reached();
        // The next chunk is about as large, and growing by doubling would copy it several times.
        let next = Self::like(Some(&self.values));
        let Self { values, mut present, .. } = std::mem::replace(self, next);
        present.append_n_non_nulls(values.rows() - present.len());
        Some(values.array(present.finish()))
    }
}

/// A column of text by text.
pub(super) struct TextMap {
    builder: MapBuilder<StringViewBuilder, StringViewBuilder>,
    absent: usize,
}

// === impl TextMap ===

impl TextMap {
    /// Appends a row's pairs; none: the row has no map.
    pub(super) fn append<'a>(&mut self, pairs: Option<impl Iterator<Item = (&'a str, &'a str)>>) {
        let Some(pairs) = pairs else {
            self.absent += 1;
            return;
        };
        self.reach();
        for (name, value) in pairs {
            self.builder.keys().append_value(name);
            self.builder.values().append_value(value);
        }
        self.close(true);
    }

    fn reach(&mut self) {
        for _ in 0..std::mem::take(&mut self.absent) {
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
        Self { builder: MapBuilder::new(Some(names), text(), text()), absent: 0 }
    }

    fn done(&mut self, _kind: Kind) -> Option<ArrayRef> {
        if self.builder.is_empty() {
            self.absent = 0;
            return None;
        }
        self.reach();
        Some(Arc::new(self.builder.finish()))
    }
}

/// The fields of a record, each a column.
pub(super) trait Record {
    fn fresh() -> Self;
    fn columns(&mut self, fields: &'static [schema::Column]) -> Vec<Option<ArrayRef>>;
}

/// A column of lists of records.
pub(super) struct Lists<R> {
    lengths: Vec<usize>,
    open: usize,
    total: usize,
    pub(super) records: R,
}

// === impl Lists ===

impl<R> Lists<R> {
    /// One record has been appended to the list of the row that is being written.
    pub(super) fn added(&mut self) {
        self.open += 1;
        self.total += 1;
    }

    /// The list of the row that is being written is whole.
    pub(super) fn close(&mut self) {
        self.lengths.push(self.open);
        self.open = 0;
    }
}

impl<R: Record> Column for Lists<R> {
    fn fresh() -> Self {
        Self { lengths: Vec::new(), open: 0, total: 0, records: R::fresh() }
    }

    fn done(&mut self, kind: Kind) -> Option<ArrayRef> {
        let fields = match kind {
            Kind::List(fields) => fields,
            _ => &[],
        };
        let length = std::mem::take(&mut self.total);
        if length == 0 {
            self.lengths.clear();
            return None;
        }
        let types = schema::arrow_fields(fields);
        let columns = self.records.columns(fields).into_iter().zip(&types);
        let columns = columns.map(|(column, field)| match (column, field.data_type()) {
            (Some(column), _) => column,
            (None, DataType::List(element)) => {
                let (values, offsets) =
                    (arrow::array::new_empty_array(element.data_type()), OffsetBuffer::new_zeroed(length));
                Arc::new(ListArray::new(Arc::clone(element), offsets, values, None))
            }
            (None, other) => new_null_array(other, length),
        });
        let records = StructArray::try_new_with_length(types.clone(), columns.collect(), None, length)
            .expect("records are appended field by field in the order of their schema");
        let element = Arc::new(Field::new("element", DataType::Struct(types.clone()), false));
        let offsets = OffsetBuffer::from_lengths(self.lengths.drain(..));
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
                fields: &'static [bellwether_lake::schema::Column],
            ) -> Vec<Option<arrow::array::ArrayRef>> {
                let mut kinds = fields.iter().map(|field| field.kind);
                vec![$({
                    let kind = kinds.next().unwrap_or(bellwether_lake::schema::Kind::Text);
                    $crate::batch::columns::Column::done(&mut self.$field, kind)
                },)*]
            }
        }
    };
}
pub(super) use column_set;
