//! Encodes one Parquet file, with a writer for each column that has a value, and row groups bounded in rows.
//!
//! As long as the distinct values of a column are known in every chunk, our own dictionary encoder takes it. From the first
//! other chunk on, all its rows go to the Parquet crate's writer. The same holds for the fields of records in lists.
//!
//! `events` has more than a hundred columns, and most are null in most files. Such a column costs only a counter here, and
//! the file lacks it: every reader of Delta tables treats a missing column as null, as in files older than the column.

use std::collections::BTreeMap;
use std::io::Sink;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, new_empty_array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::file::properties::{EnabledStatistics, WriterPropertiesPtr};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;

use crate::encoder::dictionary::{DictionaryChunk, DictionaryColumn, Repeated};
use crate::encoder::list::{Levels, ListColumn};
use crate::encoder::{Chunk, EncodedFile, handed_on, unpacked};
use crate::parquet_file::{Pages, ROW_GROUP_ROWS, properties};
use crate::statistics::Statistics;
use crate::stored::Stored;
use bellwether_base::{Error, Result};
use bellwether_tables::Table;

/// Approximate size of the footer. Bloom filters and page indexes take up to an eighth of the pages in addition.
const FOOTER_BYTES: usize = 32 << 10;

/// Encodes the rows of one file.
pub(super) struct FileEncoder {
    shape: &'static Shape,
    columns: Vec<ColumnEncoder>,
    /// Rows in the open row group.
    open: usize,
    groups: Vec<Group>,
    rows: usize,
    statistics: Statistics,
    handed_on: Vec<RecordBatch>,
    handed_on_bytes: usize,
    /// Reusable columns without a value, by their position in the table's schema.
    without_value: BTreeMap<usize, ArrayRef>,
}

/// The common part of all files of a table with the same compression.
struct Shape {
    /// Extension of the files' names.
    extension: &'static str,
    /// Columns of the file: those of the table, without the partition column.
    fields: Vec<FieldRef>,
    /// Their positions in the table's schema.
    places: Vec<usize>,
    /// One for each column of the file.
    makers: Vec<Maker>,
    properties: WriterPropertiesPtr,
}

/// Creates the writers of one column, or of one field of the records in a list.
pub(super) struct Maker {
    pub(super) field: FieldRef,
    factory: ArrowRowGroupWriterFactory,
    /// The Parquet columns that store it.
    leaves: Vec<ColumnDescPtr>,
    form: Form,
    pub(super) properties: WriterPropertiesPtr,
}

/// The form of a column, which decides whether dictionary columns can store it.
enum Form {
    /// Single values without a Bloom filter: a dictionary column can.
    Single,
    /// Lists of records of single values: a dictionary column for each field can.
    List(Vec<Maker>),
    /// Any other form: none can.
    Other,
}

/// One column of the open row group. Rows without a value are only counted until a row with a value arrives.
#[derive(Default)]
struct ColumnEncoder {
    open: Option<Open>,
    absent: usize,
}

/// The writer of a column's rows.
enum Open {
    Dictionary(DictionaryColumn),
    List(ListColumn),
    Writers(Vec<ArrowColumnWriter>),
}

/// A closed row group. A column without any value is `None`.
struct Group {
    rows: usize,
    columns: Vec<Option<Vec<ClosedLeaf>>>,
}

/// A Parquet column of a closed row group.
pub(super) enum ClosedLeaf {
    Dictionary(DictionaryChunk),
    Chunk(Box<ArrowColumnChunk>),
}

// === impl FileEncoder ===

impl FileEncoder {
    pub(super) fn new(table: Table, pages: Pages) -> Self {
        let shape = shape(table, pages);
        Self {
            shape,
            columns: shape.fields.iter().map(|_| ColumnEncoder::default()).collect(),
            open: 0,
            groups: Vec::new(),
            rows: 0,
            statistics: Statistics::new(table, &shape.fields),
            handed_on: Vec::new(),
            handed_on_bytes: 0,
            without_value: BTreeMap::new(),
        }
    }

    /// Returns the approximate memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let open = self.columns.iter().filter_map(|column| column.open.as_ref());
        let closed = self.groups.iter().flat_map(|group| &group.columns).flatten().flatten();
        open.map(Open::memory_size).sum::<usize>() + closed.map(ClosedLeaf::bytes).sum::<usize>() + self.handed_on_bytes
    }

    pub(super) fn push(&mut self, chunk: &Chunk, hand_on: Option<&(SchemaRef, Vec<usize>)>) -> Result<()> {
        let columns: Vec<Option<&ArrayRef>> =
            self.shape.places.iter().map(|place| chunk.columns[*place].as_ref()).collect();
        self.statistics.note(chunk.rows, &columns);
        if let Some(hand_on) = hand_on {
            let batch = handed_on(chunk, hand_on, &mut self.without_value)?;
            self.handed_on_bytes += batch.get_array_memory_size();
            self.handed_on.push(batch);
        }
        self.rows += chunk.rows;
        let mut from = 0;
        while from < chunk.rows {
            let length = (chunk.rows - from).min(ROW_GROUP_ROWS - self.open);
            for (place, column) in columns.iter().enumerate() {
                let part = column.map(|column| match length == chunk.rows {
                    true => ArrayRef::clone(column),
                    false => column.slice(from, length),
                });
                self.columns[place].push(&self.shape.makers[place], length, part)?;
            }
            from += length;
            self.open += length;
            if self.open == ROW_GROUP_ROWS {
                self.close_group()?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self, value: Option<String>) -> Result<EncodedFile> {
        if self.open > 0 {
            self.close_group()?;
        }
        let present: Vec<usize> = (0..self.shape.fields.len())
            .filter(|place| {
                !self.shape.fields[*place].is_nullable()
                    || self.groups.iter().any(|group| group.columns[*place].is_some())
            })
            .collect();
        let schema =
            Schema::new(present.iter().map(|place| FieldRef::clone(&self.shape.fields[*place])).collect::<Vec<_>>());
        let schema = ArrowSchemaConverter::new().convert(&schema).stored()?;
        let properties = WriterPropertiesPtr::clone(&self.shape.properties);
        let pages: usize =
            self.groups.iter().flat_map(|group| &group.columns).flatten().flatten().map(ClosedLeaf::bytes).sum();
        let file = Vec::with_capacity(pages + pages / 8 + FOOTER_BYTES);
        let mut writer = SerializedFileWriter::new(file, schema.root_schema_ptr(), properties).stored()?;
        for mut group in self.groups {
            let mut out = writer.next_row_group().stored()?;
            for place in &present {
                let leaves = match group.columns[*place].take() {
                    Some(leaves) => leaves,
                    None => {
                        let column = ColumnEncoder { open: None, absent: group.rows };
                        column.close_with_values(&self.shape.makers[*place])?
                    }
                };
                for leaf in leaves {
                    match leaf {
                        ClosedLeaf::Dictionary(DictionaryChunk { bytes, close }) => {
                            out.append_column(&bytes, *close).stored()?
                        }
                        ClosedLeaf::Chunk(chunk) => chunk.append_to_row_group(&mut out).stored()?,
                    }
                }
            }
            out.close().stored()?;
        }
        let bytes = writer.into_inner().stored()?.into();
        let stats = self.statistics.json();
        let extension = self.shape.extension;
        Ok(EncodedFile { value, bytes, extension, rows: self.rows, stats, handed_on: self.handed_on })
    }

    fn close_group(&mut self) -> Result<()> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter_mut().enumerate() {
            let column = std::mem::take(column);
            columns.push(match column.open {
                Some(_) => Some(column.close_with_values(&self.shape.makers[place])?),
                None => None,
            });
        }
        self.groups.push(Group { rows: std::mem::take(&mut self.open), columns });
        Ok(())
    }
}

// === impl ColumnEncoder ===

impl ColumnEncoder {
    fn push(&mut self, maker: &Maker, rows: usize, column: Option<ArrayRef>) -> Result<()> {
        let Some(column) = column.filter(|column| !is_absent(column, &maker.field)) else {
            self.absent += rows;
            return Ok(());
        };
        match &maker.form {
            Form::Single => {
                let dictionary = || Open::Dictionary(DictionaryColumn::new(maker.descriptor()));
                if let Open::Dictionary(dictionary) = self.open.get_or_insert_with(dictionary)
                    && let Some(repeated) = Repeated::of(&column)
                {
                    dictionary.push_absent(std::mem::take(&mut self.absent));
                    dictionary.push(&repeated, rows);
                    if dictionary.is_too_large() {
                        self.give_to_writers(maker)?;
                    }
                    return Ok(());
                }
            }
            Form::List(makers) => {
                if let Open::List(list) = self.open.get_or_insert_with(|| Open::List(ListColumn::new(makers))) {
                    list.push_absent(makers, std::mem::take(&mut self.absent))?;
                    return list.push(makers, column.as_list());
                }
            }
            Form::Other => {}
        }
        self.give_to_writers(maker)?;
        self.write_absent(maker)?;
        self.write(maker, &unpacked(&column, &DataType::Utf8)?)
    }

    fn close_with_values(mut self, maker: &Maker) -> Result<Vec<ClosedLeaf>> {
        match (self.open.take(), &maker.form) {
            (Some(Open::Dictionary(mut dictionary)), _) => {
                dictionary.push_absent(self.absent);
                Ok(vec![ClosedLeaf::Dictionary(dictionary.close(&maker.properties, None)?)])
            }
            (Some(Open::List(mut list)), Form::List(makers)) => {
                list.push_absent(makers, self.absent)?;
                list.close(makers)
            }
            (None, _) if matches!(maker.field.data_type(), DataType::List(_)) && !maker.field.is_nullable() => {
                // All lists are empty, so the fields of their records do not matter.
                let lengths = vec![0; self.absent];
                let mut levels = Levels::of(&lengths);
                let close = |leaf: &ColumnDescPtr| {
                    DictionaryColumn::new(leaf.clone()).close(&maker.properties, Some(&mut levels))
                };
                maker.leaves.iter().map(close).map(|chunk| Ok(ClosedLeaf::Dictionary(chunk?))).collect()
            }
            (open, _) => {
                self.open = open;
                self.write_absent(maker)?;
                let writers = match self.open {
                    Some(Open::Writers(writers)) => writers,
                    _ => Vec::new(),
                };
                writers.into_iter().map(|writer| Ok(ClosedLeaf::Chunk(Box::new(writer.close().stored()?)))).collect()
            }
        }
    }

    /// Moves the rows of a dictionary column to the Parquet crate's writers.
    fn give_to_writers(&mut self, maker: &Maker) -> Result<()> {
        match self.open.take() {
            Some(Open::Dictionary(dictionary)) => self.write(maker, &dictionary.array(maker.field.data_type())?),
            other => {
                self.open = other;
                Ok(())
            }
        }
    }

    fn write_absent(&mut self, maker: &Maker) -> Result<()> {
        match std::mem::take(&mut self.absent) {
            0 => Ok(()),
            rows => self.write(maker, &absent(&maker.field, rows)),
        }
    }

    fn write(&mut self, maker: &Maker, column: &ArrayRef) -> Result<()> {
        if self.open.is_none() {
            self.open = Some(Open::Writers(maker.factory.create_column_writers(0).stored()?));
        }
        let Some(Open::Writers(writers)) = &mut self.open else {
            return Err(Error::bug("a column is written in two ways at once"));
        };
        // Texts may have another layout than in the schema; within lists, the writer accepts that only if the field has it.
        let field = match column.data_type() {
            list @ DataType::List(_) => &maker.field.as_ref().clone().with_data_type(list.clone()),
            _ => maker.field.as_ref(),
        };
        for (writer, leaf) in writers.iter_mut().zip(compute_leaves(field, column).stored()?) {
            writer.write(&leaf).stored()?;
        }
        Ok(())
    }
}

// === impl Open ===

impl Open {
    /// Returns the approximate memory in bytes.
    fn memory_size(&self) -> usize {
        match self {
            Self::Dictionary(dictionary) => dictionary.memory_size(),
            Self::List(list) => list.memory_size(),
            Self::Writers(writers) => writers.iter().map(ArrowColumnWriter::memory_size).sum(),
        }
    }
}

// === impl ClosedLeaf ===

impl ClosedLeaf {
    fn bytes(&self) -> usize {
        match self {
            Self::Dictionary(chunk) => chunk.bytes.len(),
            Self::Chunk(chunk) => usize::try_from(chunk.close().bytes_written).unwrap_or(usize::MAX),
        }
    }
}

// === impl Maker ===

impl Maker {
    /// Returns the only Parquet column.
    pub(super) fn descriptor(&self) -> ColumnDescPtr {
        ColumnDescPtr::clone(&self.leaves[0])
    }

    /// Creates a writer for the only Parquet column.
    pub(super) fn writer(&self) -> Result<ArrowColumnWriter> {
        self.factory.create_column_writers(0).stored()?.pop().ok_or_else(|| Error::bug("a column has no writer"))
    }
}

/// Returns true if no row has a value: each is null, or, in a required list column, an empty list.
fn is_absent(column: &ArrayRef, field: &Field) -> bool {
    if column.null_count() == column.len() {
        return true;
    }
    let lists = column.as_list_opt::<i32>().filter(|_| !field.is_nullable());
    lists.is_some_and(|lists| lists.offsets().first() == lists.offsets().last())
}

/// Returns rows without a value: empty lists for a required list column, nulls otherwise.
pub(crate) fn absent(field: &Field, rows: usize) -> ArrayRef {
    match field.data_type() {
        DataType::List(element) if !field.is_nullable() => {
            let values = new_empty_array(element.data_type());
            Arc::new(ListArray::new(Arc::clone(element), OffsetBuffer::new_zeroed(rows), values, None))
        }
        other => new_null_array(other, rows),
    }
}

/// Returns the shape of a table's files; each is made once.
fn shape(table: Table, pages: Pages) -> &'static Shape {
    static SHAPES: OnceLock<BTreeMap<(Table, Pages), Shape>> = OnceLock::new();
    let shapes = SHAPES.get_or_init(|| {
        let kinds = Table::ALL.into_iter().flat_map(|table| [(table, Pages::Compressed), (table, Pages::Plain)]);
        let made = |(table, pages)| make(table, pages).expect("the schemas of the tables are types of Parquet");
        kinds.map(|kind| (kind, made(kind))).collect()
    });
    &shapes[&(table, pages)]
}

fn make(table: Table, pages: Pages) -> Result<Shape> {
    let whole = table.arrow_schema();
    let places: Vec<usize> = (0..whole.fields().len())
        .filter(|place| Some(whole.field(*place).name().as_str()) != table.partition_column())
        .collect();
    let fields: Vec<FieldRef> = places.iter().map(|place| FieldRef::clone(&whole.fields()[*place])).collect();
    let properties = Arc::new(properties(table, pages)?);
    let makers = fields.iter().map(|field| maker(field, &properties)).collect::<Result<Vec<_>>>()?;
    Ok(Shape { extension: pages.extension(), fields, places, makers, properties })
}

/// Creates the maker of one column.
fn maker(field: &FieldRef, properties: &WriterPropertiesPtr) -> Result<Maker> {
    let maker = maker_within(field, FieldRef::clone(field), properties)?;
    let DataType::List(element) = field.data_type() else { return Ok(maker) };
    let DataType::Struct(fields) = element.data_type() else { return Ok(maker) };
    let flat = maker.leaves.len() == fields.len() && !field.is_nullable() && !element.is_nullable();
    // Statistics of a field of records would have to distinguish rows without records from records without a value.
    let unbounded = |leaf: &ColumnDescPtr| properties.statistics_enabled(leaf.path()) == EnabledStatistics::None;
    if !flat || !maker.leaves.iter().all(unbounded) {
        return Ok(maker);
    }
    let alone = |one: &FieldRef| {
        let record = DataType::Struct(vec![FieldRef::clone(one)].into());
        let element = element.as_ref().clone().with_data_type(record);
        let list = field.as_ref().clone().with_data_type(DataType::List(Arc::new(element)));
        maker_within(&Arc::new(list), FieldRef::clone(one), properties)
    };
    let makers = fields.iter().map(alone).collect::<Result<_>>()?;
    Ok(Maker { form: Form::List(makers), ..maker })
}

/// Creates the maker of a field within a column of the file.
fn maker_within(column: &FieldRef, field: FieldRef, properties: &WriterPropertiesPtr) -> Result<Maker> {
    let schema = Arc::new(Schema::new(vec![FieldRef::clone(column)]));
    let parquet = ArrowSchemaConverter::new().convert(&schema).stored()?;
    let properties = WriterPropertiesPtr::clone(properties);
    let file: SerializedFileWriter<Sink> =
        SerializedFileWriter::new(std::io::sink(), parquet.root_schema_ptr(), WriterPropertiesPtr::clone(&properties))
            .map_err(|source| Error::bug(format!("column `{}` cannot be written", field.name())).with_source(source))?;
    let leaves = parquet.columns().to_vec();
    let single = |leaf: &ColumnDescPtr| {
        leaf.max_def_level() <= 1
            && leaf.max_rep_level() == 0
            && properties.bloom_filter_properties(leaf.path()).is_none()
    };
    let form = if leaves.iter().all(single) { Form::Single } else { Form::Other };
    Ok(Maker { field, factory: ArrowRowGroupWriterFactory::new(&file, schema), leaves, form, properties })
}
