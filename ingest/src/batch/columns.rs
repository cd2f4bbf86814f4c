//! Growing columns: the builders that rows are appended to, and lists of records made of them.
//!
//! Most columns have a value in few rows. A row without one is only counted; nulls are written, many at once, when a
//! value comes after them, and a column that never gets one is left out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, ArrowPrimitiveType, BooleanBuilder, ListArray, MapBuilder, MapFieldNames,
    PrimitiveBuilder, StringViewBuilder, StructArray, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Date32Type, Field, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use bellwether_lake::schema::{self, Kind};

pub(super) type Text = Sparse<StringViewBuilder>;
pub(super) type Long = Sparse<PrimitiveBuilder<Int64Type>>;
pub(super) type Integer = Sparse<PrimitiveBuilder<Int32Type>>;
pub(super) type Double = Sparse<PrimitiveBuilder<Float64Type>>;
pub(super) type Flag = Sparse<BooleanBuilder>;
pub(super) type Date = Sparse<PrimitiveBuilder<Date32Type>>;
pub(super) type Time = Sparse<PrimitiveBuilder<TimestampMicrosecondType>>;

/// A column that grows row by row.
pub(super) trait Column {
    fn fresh() -> Self;
    /// The rows so far, in the type its schema gives it; none where no row has a value. The column is empty afterwards.
    fn done(&mut self, kind: Kind) -> Option<ArrayRef>;
}

/// A builder of Arrow's.
pub(super) trait Builder: ArrayBuilder {
    /// With room for so many rows.
    fn with_room(rows: usize) -> Self;
    fn nulls(&mut self, rows: usize);
}

impl<T: ArrowPrimitiveType> Builder for PrimitiveBuilder<T> {
    fn with_room(rows: usize) -> Self {
        Self::with_capacity(rows).with_data_type(match T::DATA_TYPE {
            DataType::Timestamp(unit, _) => DataType::Timestamp(unit, Some("UTC".into())),
            other => other,
        })
    }
    fn nulls(&mut self, rows: usize) {
        self.append_nulls(rows);
    }
}

impl Builder for BooleanBuilder {
    fn with_room(rows: usize) -> Self {
        Self::with_capacity(rows)
    }
    fn nulls(&mut self, rows: usize) {
        self.append_nulls(rows);
    }
}

impl Builder for StringViewBuilder {
    fn with_room(rows: usize) -> Self {
        Self::with_capacity(rows)
    }
    fn nulls(&mut self, rows: usize) {
        for _ in 0..rows {
            self.append_null();
        }
    }
}

/// A column of single values.
pub(super) struct Sparse<B> {
    builder: B,
    /// Rows after the last value.
    absent: usize,
}

// === impl Sparse ===

impl<B: Builder> Sparse<B> {
    #[inline]
    pub(super) fn append_null(&mut self) {
        self.absent += 1;
    }

    /// The builder, with all rows before the one that is written.
    #[inline]
    fn reached(&mut self) -> &mut B {
        if self.absent > 0 {
            self.builder.nulls(std::mem::take(&mut self.absent));
        }
        &mut self.builder
    }
}

impl<B: Builder> Column for Sparse<B> {
    fn fresh() -> Self {
        Self { builder: B::with_room(0), absent: 0 }
    }

    fn done(&mut self, _kind: Kind) -> Option<ArrayRef> {
        if self.builder.is_empty() {
            self.absent = 0;
            return None;
        }
        let builder = self.reached();
        let array = builder.finish();
        // The next chunk is about as large, and growing by doubling would copy it several times.
        *builder = B::with_room(array.len());
        Some(array)
    }
}

impl<T: ArrowPrimitiveType> Sparse<PrimitiveBuilder<T>> {
    #[inline]
    pub(super) fn append_value(&mut self, value: T::Native) {
        self.reached().append_value(value);
    }

    #[inline]
    pub(super) fn append_option(&mut self, value: Option<T::Native>) {
        match value {
            Some(value) => self.append_value(value),
            None => self.append_null(),
        }
    }
}

impl Sparse<BooleanBuilder> {
    #[inline]
    pub(super) fn append_value(&mut self, value: bool) {
        self.reached().append_value(value);
    }

    #[inline]
    pub(super) fn append_option(&mut self, value: Option<bool>) {
        match value {
            Some(value) => self.append_value(value),
            None => self.append_null(),
        }
    }
}

impl Sparse<StringViewBuilder> {
    #[inline]
    pub(super) fn append_value(&mut self, value: impl AsRef<str>) {
        self.reached().append_value(value);
    }

    #[inline]
    pub(super) fn append_option(&mut self, value: Option<impl AsRef<str>>) {
        match value {
            Some(value) => self.append_value(value),
            None => self.append_null(),
        }
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
