//! Growing columns: the builders that rows are appended to, and lists of records made of them.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    MapBuilder, MapFieldNames, StringViewBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use bellwether_lake::schema::{self, Kind};

pub(super) type Text = StringViewBuilder;
pub(super) type Long = Int64Builder;
pub(super) type Integer = Int32Builder;
pub(super) type Double = Float64Builder;
pub(super) type Flag = BooleanBuilder;
pub(super) type Date = Date32Builder;

/// A column that grows row by row. After a batch it makes room for as many rows again: the next one is about as large, and
/// growing by doubling would copy every column several times and leave a third of its memory unused.
pub(super) trait Column {
    fn fresh() -> Self;
    /// The rows so far, in the type its schema gives it; the column is empty afterwards.
    fn done(&mut self, kind: Kind) -> ArrayRef;
}

macro_rules! plain_columns {
    ($($builder:ty),*) => { $(
        impl Column for $builder {
            fn fresh() -> Self {
                Self::new()
            }
            fn done(&mut self, _kind: Kind) -> ArrayRef {
                let rows = self.len();
                let array = Arc::new(self.finish());
                *self = Self::with_capacity(rows);
                array
            }
        }
    )* };
}
plain_columns!(Text, Long, Integer, Double, Flag, Date);

/// A column of times.
pub(super) struct Time(pub(super) TimestampMicrosecondBuilder);

impl Column for Time {
    fn fresh() -> Self {
        Self(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
    }
    fn done(&mut self, _kind: Kind) -> ArrayRef {
        let rows = self.0.len();
        let array = Arc::new(self.0.finish());
        self.0 = TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC");
        array
    }
}

/// A column of text by text.
pub(super) struct TextMap(pub(super) MapBuilder<StringViewBuilder, StringViewBuilder>);

impl Column for TextMap {
    fn fresh() -> Self {
        let names = MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() };
        Self(MapBuilder::new(Some(names), Text::new(), Text::new()))
    }
    fn done(&mut self, _kind: Kind) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

/// The fields of a record inside a list.
pub(super) trait Record {
    fn fresh() -> Self;
    fn columns(&mut self, fields: &'static [schema::Column]) -> Vec<ArrayRef>;
}

/// A column of lists of records.
pub(super) struct Lists<R> {
    lengths: Vec<usize>,
    open: usize,
    total: usize,
    pub(super) records: R,
}

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

    fn done(&mut self, kind: Kind) -> ArrayRef {
        let fields = match kind {
            Kind::List(fields) => fields,
            _ => &[],
        };
        let columns = self.records.columns(fields);
        let types = schema::arrow_fields(fields);
        let length = std::mem::take(&mut self.total);
        let records = StructArray::try_new_with_length(types.clone(), columns, None, length)
            .expect("records are appended field by field in the order of their schema");
        let element = Arc::new(Field::new("element", DataType::Struct(types), false));
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
        Arc::new(ListArray::new(element, offsets, Arc::new(records), None))
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
            fn columns(&mut self, fields: &'static [bellwether_lake::schema::Column]) -> Vec<arrow::array::ArrayRef> {
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
