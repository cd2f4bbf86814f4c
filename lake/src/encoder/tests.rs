use super::*;
use arrow::array::{Date32Array, DictionaryArray, Int32Array, Int64Array, ListArray, StringViewArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::concat_batches;
use bellwether_tables::arrow_type;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::ColumnChunkMetaData;
use proptest::prelude::*;
use std::sync::Arc;

const DAY: i32 = 20_781;

/// Returns rows of `quarantine` at these offsets of partition 0; those at odd offsets have no Kafka timestamp.
fn quarantined(offsets: &[i64]) -> RecordBatch {
    let schema = Table::Quarantine.arrow_schema();
    let column = |field: &FieldRef| -> ArrayRef {
        let texts = |value: &str| Arc::new(StringViewArray::from_iter_values(offsets.iter().map(|_| value)));
        match (field.name().as_str(), field.data_type()) {
            ("offset", _) => Arc::new(Int64Array::from(offsets.to_vec())),
            ("sha256", _) => {
                Arc::new(StringViewArray::from_iter_values(offsets.iter().map(|n| format!("hash of {n}"))))
            }
            (_, DataType::Utf8View) => texts("t"),
            (_, DataType::Int32) => Arc::new(Int32Array::from(vec![0; offsets.len()])),
            (_, DataType::Int64) => Arc::new(Int64Array::from(offsets.to_vec())),
            ("quarantined_at", DataType::Timestamp(..)) => {
                let times = arrow::array::TimestampMicrosecondArray::from(offsets.to_vec());
                Arc::new(times.with_timezone("UTC"))
            }
            (_, DataType::Map(..)) => arrow::array::new_null_array(field.data_type(), offsets.len()),
            _ => {
                let odd = |n: &i64| (n % 2 == 0).then_some(*n);
                let times: arrow::array::TimestampMicrosecondArray = offsets.iter().map(odd).collect();
                Arc::new(times.with_timezone("UTC"))
            }
        }
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect()).expect("rows of quarantine")
}

fn whole(rows: &EncodedRows) -> RecordBatch {
    concat_batches(&rows.table().arrow_schema(), &rows.batches().expect("decodes")).expect("one schema")
}

fn offsets(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("offset").expect("there").as_primitive::<Int64Type>().values().to_vec()
}

proptest! {
    // Few cases, because each writes some Parquet files.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 10, ..ProptestConfig::default() })]

    #[test]
    fn however_rows_are_cut_into_chunks_they_come_out_as_they_went_in(
        cuts in prop::collection::vec(0..70_usize, 1..8)
    ) {
        let mut encoder = RowEncoder::new(Table::Quarantine);
        let mut put = Vec::new();
        for cut in cuts {
            let from = i64::try_from(put.len()).expect("few");
            let chunk: Vec<i64> = (from..from + i64::try_from(cut).expect("few")).collect();
            put.extend(&chunk);
            encoder.push(&(&quarantined(&chunk)).into()).expect("fits");
        }
        prop_assert_eq!(encoder.rows(), put.len());
        let rows = encoder.finish().expect("closes");
        prop_assert_eq!(whole(&rows), quarantined(&put));
        prop_assert_eq!(rows.rows(), put.len());
        prop_assert_eq!(encoder.rows(), 0);
    }

    #[test]
    fn what_is_kept_is_what_was_asked_for_and_spans_say_so(kept in prop::collection::vec(any::<bool>(), 1..60)) {
        let all: Vec<i64> = (0..).take(kept.len()).collect();
        let rows = EncodedRows::of(Table::Quarantine, &quarantined(&all)).expect("encodes");
        let wanted = |offset: i64| kept[usize::try_from(offset).expect("from 0")];
        let rest = rows.kept(|topic, partition, offset| topic == "t" && partition == 0 && wanted(offset)).expect("keeps");
        let left: Vec<i64> = all.iter().copied().filter(|offset| wanted(*offset)).collect();
        prop_assert_eq!(&whole(&rest), &quarantined(&left));
        let spans: Vec<Span> = left.first().zip(left.last()).map(|(first, last)| {
            Span { topic: "t".to_owned(), partition: 0, first: *first, next: last + 1, rows: left.len() }
        }).into_iter().collect();
        prop_assert_eq!(rest.spans(), &spans);
    }
}

/// Returns a chunk of `events` with only the required columns.
fn bare(rows: usize, days: &[i32]) -> Chunk {
    let columns = Table::Events.columns().iter().map(|column| -> Option<ArrayRef> {
        if !column.required {
            return None;
        }
        Some(match arrow_type(column.kind) {
            DataType::Utf8View => Arc::new(StringViewArray::from_iter_values(
                (0..rows).map(|n| if n % 2 == 0 { "even" } else { "an odd one of a longer text" }),
            )),
            DataType::Boolean => Arc::new(BooleanArray::from(vec![false; rows])),
            DataType::Int32 => Arc::new(Int32Array::from(vec![0; rows])),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values((0..).take(rows))),
            DataType::Date32 => Arc::new(Date32Array::from_iter_values((0..rows).map(|n| days[n % days.len()]))),
            DataType::Timestamp(..) => {
                let times = arrow::array::TimestampMicrosecondArray::from_iter_values((0..).take(rows));
                Arc::new(times.with_timezone("UTC"))
            }
            DataType::List(_) => return None,
            other => panic!("no value for {other}"),
        })
    });
    Chunk { rows, columns: columns.collect() }
}

#[test]
fn a_column_without_values_is_not_in_the_file_and_lists_are_empty_not_null() {
    let mut encoder = RowEncoder::new(Table::Events);
    encoder.push(&bare(3, &[DAY])).expect("fits");
    let rows = encoder.finish().expect("closes");
    let [file] = rows.files() else { panic!("one day, one file: {rows:?}") };
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone());
    let names: Vec<String> =
        reader.expect("Parquet").schema().fields().iter().map(|field| field.name().clone()).collect();
    assert!(names.contains(&"run_id".to_owned()) && names.contains(&"tool_calls".to_owned()), "{names:?}");
    assert!(!names.contains(&"task".to_owned()) && !names.contains(&"event_date".to_owned()), "{names:?}");
    let batch = whole(&rows);
    let calls = batch.column_by_name("tool_calls").expect("there").as_list::<i32>();
    assert_eq!((calls.null_count(), calls.values().len()), (0, 0));
    assert_eq!(batch.column_by_name("task").expect("there").null_count(), 3);
    let stats: serde_json::Value = serde_json::from_str(&file.stats).expect("JSON");
    assert_eq!(stats["nullCount"]["cost_nanos"], 3);
}

#[test]
fn a_value_that_comes_late_has_its_row_whatever_the_row_group() {
    let rows = ROWS_OF_GROUPS;
    let mut encoder = RowEncoder::new(Table::Events);
    let task = Table::Events.arrow_schema().index_of("task").expect("there");
    for (n, with_task) in [(rows, false), (rows, true), (5, false)] {
        let mut chunk = bare(n, &[DAY]);
        chunk.columns[task] = with_task
            .then(|| Arc::new(StringViewArray::from_iter((0..n).map(|row| (row == n - 1).then_some("x")))) as _);
        encoder.push(&chunk).expect("fits");
    }
    let batch = whole(&encoder.finish().expect("closes"));
    let tasks = batch.column_by_name("task").expect("there").as_string_view();
    let found: Vec<usize> = (0..tasks.len()).filter(|row| tasks.is_valid(*row)).collect();
    assert_eq!((tasks.len(), found), (2 * rows + 5, vec![2 * rows - 1]));
    assert_eq!(tasks.value(2 * rows - 1), "x");
}

/// Rows of a chunk: two of them are more than one row group, and not a multiple of it.
const ROWS_OF_GROUPS: usize = parquet_file::ROW_GROUP_ROWS / 2 + 1000;

#[test]
fn each_day_is_a_file_and_columns_are_handed_on_with_its_rows() {
    let mut encoder = RowEncoder::new(Table::Events).handing_on(&["task", "offset"]).expect("columns");
    encoder.push(&bare(5, &[DAY, DAY + 1])).expect("fits");
    encoder.push(&bare(2, &[DAY + 1])).expect("fits");
    let rows = encoder.finish().expect("closes");
    let handed: Vec<Vec<i64>> =
        rows.files().iter().map(|file| file.handed_on.iter().flat_map(offsets).collect()).collect();
    assert_eq!(handed, [vec![0, 2, 4], vec![1, 3, 0, 1]]);
    let values: Vec<_> = rows.files().iter().map(|file| file.value.as_deref()).collect();
    assert_eq!(values, [Some("2026-11-24"), Some("2026-11-25")]);
    let kept = rows.kept(|_, _, offset| offset > 0).expect("keeps");
    assert_eq!(kept.files()[0].handed_on[0].schema(), rows.files()[0].handed_on[0].schema());
    assert_eq!(kept.rows(), 5);
}

/// Returns a list of one record for each row, with a value in every field.
fn calls(rows: usize) -> ArrayRef {
    let schema = Table::Events.arrow_schema();
    let DataType::List(element) = schema.field_with_name("tool_calls").expect("there").data_type() else {
        panic!("a list")
    };
    let DataType::Struct(fields) = element.data_type() else { panic!("records") };
    let values = |field: &FieldRef| -> ArrayRef {
        let texts = StringViewArray::from_iter_values((0..rows).map(|row| format!("{} of row {row}", field.name())));
        match field.data_type() {
            DataType::Utf8View => Arc::new(texts),
            DataType::Boolean => Arc::new(BooleanArray::from(vec![true; rows])),
            other => cast(&Int32Array::from_iter_values((0..).take(rows)), other).expect("a number"),
        }
    };
    let records = StructArray::new(fields.clone(), fields.iter().map(values).collect(), None);
    let one_each = OffsetBuffer::from_lengths(std::iter::repeat_n(1, rows));
    Arc::new(ListArray::new(Arc::clone(element), one_each, Arc::new(records), None))
}

/// Returns lists of tool calls with so many records in each row; a kind decides whether a field has one value, few, many or
/// none.
fn lists(lengths: &[usize], kinds: &[u8]) -> ArrayRef {
    let records: usize = lengths.iter().sum();
    let schema = Table::Events.arrow_schema();
    let DataType::List(element) = schema.field_with_name("tool_calls").expect("there").data_type() else {
        panic!("a list")
    };
    let DataType::Struct(fields) = element.data_type() else { panic!("records") };
    let values = |(field, kind): (&FieldRef, &u8)| -> ArrayRef {
        let number = |record: usize| match kind % 4 {
            0 => Some(7),
            1 => Some(record % 3),
            2 => Some(record),
            _ => None,
        };
        let gap = |record: usize| kind / 4 % 2 == 1 && record % 4 == 1;
        let numbers: Vec<Option<usize>> = (0..records)
            .map(|record| match field.is_nullable() {
                true => number(record).filter(|_| !gap(record)),
                false => Some(number(record).unwrap_or(0)),
            })
            .collect();
        let text = |number: usize| format!("{} {number}", field.name());
        match field.data_type() {
            DataType::Utf8View if kind / 8 == 0 => {
                let texts = StringArray::from_iter_values((0..records.max(8)).map(text));
                let keys = UInt32Array::from_iter(numbers.iter().map(|n| n.map(|n| u32::try_from(n).expect("few"))));
                Arc::new(DictionaryArray::new(keys, Arc::new(texts)))
            }
            DataType::Utf8View => Arc::new(StringArray::from_iter(numbers.iter().map(|n| n.map(text)))),
            DataType::Boolean => Arc::new(BooleanArray::from_iter(numbers.iter().map(|n| n.map(|n| n % 2 == 1)))),
            other => {
                let numbers = numbers.iter().map(|n| n.map(|n| i64::try_from(n).expect("few")));
                cast(&Int64Array::from_iter(numbers), other).expect("a number")
            }
        }
    };
    let columns: Vec<ArrayRef> = fields.iter().zip(kinds.iter().cycle()).map(values).collect();
    let typed =
        |(field, column): (&FieldRef, &ArrayRef)| field.as_ref().clone().with_data_type(column.data_type().clone());
    let types: arrow::datatypes::Fields = fields.iter().zip(&columns).map(typed).collect();
    let records = StructArray::new(types.clone(), columns, None);
    let element = element.as_ref().clone().with_data_type(DataType::Struct(types));
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Arc::new(ListArray::new(Arc::new(element), offsets, Arc::new(records), None))
}

/// Writes lists to a file; returns the lists read back, and the original ones.
fn through_a_file(parts: &[(Vec<usize>, Vec<u8>)]) -> (ArrayRef, ArrayRef) {
    let schema = Table::Events.arrow_schema();
    let place = schema.index_of("tool_calls").expect("there");
    let mut encoder = RowEncoder::new(Table::Events);
    let mut put: Vec<ArrayRef> = Vec::new();
    for (lengths, kinds) in parts {
        let list = lists(lengths, kinds);
        let mut chunk = bare(lengths.len(), &[DAY]);
        put.push(cast(&list, schema.field(place).data_type()).expect("the table's layout"));
        chunk.columns[place] = (lengths.iter().sum::<usize>() > 0 || kinds[0] % 2 == 0).then_some(list);
        encoder.push(&chunk).expect("fits");
    }
    let rows = encoder.finish().expect("closes");
    for (name, column) in footer(&rows.files()[0]) {
        let dictionary = column.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY);
        // The C++ reader refuses a dictionary of booleans.
        assert!(!dictionary || column.column_type() != parquet::basic::Type::BOOLEAN, "{name}");
        assert_eq!(column.dictionary_page_offset().is_some(), dictionary, "{name}");
    }
    let batch = whole(&rows);
    let put: Vec<&dyn Array> = put.iter().map(AsRef::as_ref).collect();
    (ArrayRef::clone(batch.column(place)), arrow::compute::concat(&put).expect("one type"))
}

proptest! {
    #[test]
    fn records_of_lists_come_out_as_they_went_in_whatever_their_fields_have(
        parts in prop::collection::vec(
            (prop::collection::vec(0..4_usize, 1..60), prop::collection::vec(0..16_u8, 1..17)), 1..5)
    ) {
        let (found, put) = through_a_file(&parts);
        prop_assert_eq!(&found, &put);
    }
}

#[test]
fn records_of_lists_that_fill_pages_and_a_row_group_come_out_as_they_went_in() {
    let lengths = |rows: usize| (0..rows).map(|row| [0, 2, 1, 0, 3][row % 5]).collect::<Vec<_>>();
    let kinds: Vec<u8> = (0..16).collect();
    let rest: Vec<u8> = (0..16).rev().collect();
    let (found, put) =
        through_a_file(&[(lengths(45_000), kinds.clone()), (lengths(ROWS_OF_GROUPS), kinds), (lengths(50_000), rest)]);
    assert_eq!(&found, &put);
}

/// Replaces views by contiguous texts in a type.
fn without_views(data_type: &DataType) -> DataType {
    let plain = |field: &FieldRef| field.as_ref().clone().with_data_type(without_views(field.data_type()));
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::List(element) => DataType::List(Arc::new(plain(element))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(plain).collect()),
        other => other.clone(),
    }
}

#[test]
fn texts_one_after_the_other_are_the_same_rows_as_views() {
    let place = Table::Events.arrow_schema().index_of("tool_calls").expect("there");
    let encoded = |plain: bool| {
        let handed_on = ["run_id", "offset", "tool_calls"];
        let mut encoder = RowEncoder::new(Table::Events).handing_on(&handed_on).expect("columns");
        let mut chunk = bare(5, &[DAY, DAY + 1]);
        chunk.columns[place] = Some(calls(5));
        for column in chunk.columns.iter_mut().flatten().filter(|_| plain) {
            *column = cast(column, &without_views(column.data_type())).expect("a text");
        }
        encoder.push(&chunk).expect("fits");
        encoder.push(&bare(2, &[DAY])).expect("fits");
        encoder.finish().expect("closes")
    };
    let (views, plain) = (encoded(false), encoded(true));
    assert_eq!(plain.spans(), views.spans());
    assert_eq!(plain.files().len(), 2);
    for (plain, views) in plain.files().iter().zip(views.files()) {
        assert_eq!((&plain.bytes, &plain.stats), (&views.bytes, &views.stats));
        assert_eq!(plain.handed_on, views.handed_on, "a reader has views");
    }
}

/// A column of a chunk: as a dictionary, as texts, or absent.
#[derive(Clone, Debug)]
enum Part {
    Labels(Vec<Option<u8>>),
    Texts(Vec<Option<u8>>),
    Absent(usize),
}

fn part() -> impl Strategy<Value = Part> {
    // Runs of one value and stretches of varied values, so that both halves of the encoding meet at all lengths.
    let stretch = (prop::option::weighted(0.8, 0..20_u8), 1..40_usize, any::<bool>());
    let rows = prop::collection::vec(stretch, 1..12).prop_map(|stretches| {
        let each = |(value, rows, varied): (Option<u8>, usize, bool)| {
            (0..rows).map(move |row| {
                value.map(|value| if varied { value.wrapping_add((row as u8).wrapping_mul(7)) % 20 } else { value })
            })
        };
        stretches.into_iter().flat_map(each).collect::<Vec<_>>()
    });
    prop_oneof![
        6 => rows.clone().prop_map(Part::Labels),
        1 => rows.prop_map(Part::Texts),
        2 => (1..60_usize).prop_map(Part::Absent),
    ]
}

fn label(value: u8) -> Option<String> {
    // One of the values is null, as for a release that lacks the field.
    (value != 7).then(|| "x".repeat(usize::from(value % 5)) + &value.to_string())
}

proptest! {
    #[test]
    fn labels_come_out_as_they_went_in_whatever_comes_between(parts in prop::collection::vec(part(), 1..6)) {
        let mut encoder = RowEncoder::new(Table::Events).handing_on(&["task"]).expect("a column");
        let task = Table::Events.arrow_schema().index_of("task").expect("there");
        let mut put = Vec::new();
        for part in &parts {
            let (rows, column): (usize, Option<ArrayRef>) = match part {
                Part::Labels(values) => {
                    let texts = Arc::new(StringArray::from_iter((0..20).map(label)));
                    let keys: UInt32Array = values.iter().map(|value| value.map(u32::from)).collect();
                    (values.len(), Some(Arc::new(DictionaryArray::new(keys, texts))))
                }
                Part::Texts(values) => {
                    let texts = values.iter().map(|value| value.and_then(label));
                    (values.len(), Some(Arc::new(StringArray::from_iter(texts))))
                }
                Part::Absent(rows) => (*rows, None),
            };
            match part {
                Part::Labels(values) | Part::Texts(values) => put.extend(values.iter().map(|value| value.and_then(label))),
                Part::Absent(rows) => put.extend(vec![None; *rows]),
            }
            let mut chunk = bare(rows, &[DAY]);
            chunk.columns[task] = column;
            encoder.push(&chunk).expect("fits");
        }
        let rows = encoder.finish().expect("closes");
        let wanted = StringViewArray::from_iter(put);
        let batch = whole(&rows);
        prop_assert_eq!(batch.column_by_name("task").expect("there").as_string_view(), &wanted);
        let handed = &rows.files()[0].handed_on;
        let handed = concat_batches(&handed[0].schema(), handed).expect("one schema");
        prop_assert_eq!(handed.column(0).as_string_view(), &wanted);
    }

    #[test]
    fn a_number_that_is_every_rows_comes_out_whatever_comes_after(
        parts in prop::collection::vec((any::<i64>(), 1..50_usize, any::<bool>()), 1..5)
    ) {
        let mut encoder = RowEncoder::new(Table::Events);
        let schema = Table::Events.arrow_schema();
        let mut put = Vec::new();
        for (number, rows, same) in parts {
            let numbers: Vec<i64> = (0..).take(rows).map(|row| if same { number } else { number ^ row }).collect();
            let whole = Int64Array::from(numbers.clone());
            let mut chunk = bare(rows, &[DAY]);
            for name in ["weight_micros", "event_time", "attempt"] {
                let place = schema.index_of(name).expect("there");
                let array: ArrayRef = match schema.field(place).data_type() {
                    DataType::Int32 => Arc::new(Int32Array::from_iter_values(numbers.iter().map(|n| *n as i32))),
                    other => cast(&whole, other).expect("64 bits"),
                };
                chunk.columns[place] = Some(array);
            }
            put.extend(numbers);
            encoder.push(&chunk).expect("fits");
        }
        let batch = whole(&encoder.finish().expect("closes"));
        let of = |name: &str| -> Vec<i64> {
            let column = cast(batch.column_by_name(name).expect("there"), &DataType::Int64).expect("a number");
            column.as_primitive::<Int64Type>().values().to_vec()
        };
        prop_assert_eq!(&of("weight_micros"), &put);
        prop_assert_eq!(&of("event_time"), &put);
        prop_assert_eq!(of("attempt"), put.iter().map(|n| i64::from(*n as i32)).collect::<Vec<_>>());
    }
}

/// Returns the metadata of each column chunk from the footer of a file.
fn footer(file: &EncodedFile) -> Vec<(String, ColumnChunkMetaData)> {
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone());
    let metadata = Arc::clone(reader.expect("Parquet").metadata());
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    columns.map(|column| (column.column_path().string(), column.clone())).collect()
}

fn footer_of_tasks(file: &EncodedFile) -> Vec<ColumnChunkMetaData> {
    footer(file).into_iter().filter(|(name, _)| name == "task").map(|(_, column)| column).collect()
}

#[test]
fn labels_of_more_than_a_page_and_a_row_group_are_a_dictionary_with_bounds() {
    let rows = ROWS_OF_GROUPS;
    let mut encoder = RowEncoder::new(Table::Events);
    let task = Table::Events.arrow_schema().index_of("task").expect("there");
    let texts = Arc::new(StringArray::from(vec!["b", "a", "c", "never used"]));
    for _ in 0..2 {
        let mut chunk = bare(rows, &[DAY]);
        let keys = UInt32Array::from_iter((0..rows).map(|row| (!row.is_multiple_of(5)).then_some([0, 1, 2][row % 3])));
        chunk.columns[task] = Some(Arc::new(DictionaryArray::new(keys, texts.clone())));
        encoder.push(&chunk).expect("fits");
    }
    let encoded = encoder.finish().expect("closes");
    let [file] = encoded.files() else { panic!("one day: {encoded:?}") };
    let chunks = footer_of_tasks(file);
    assert_eq!(chunks.len(), 2, "row groups");
    for chunk in &chunks {
        let statistics = chunk.statistics().expect("readers prune by tasks");
        assert_eq!((statistics.min_bytes_opt(), statistics.max_bytes_opt()), (Some(&b"a"[..]), Some(&b"c"[..])));
        assert!(statistics.null_count_opt().is_some_and(|nulls| nulls.abs_diff(chunk.num_values() as u64 / 5) < 4));
        assert!(chunk.encodings().any(|encoding| encoding == Encoding::RLE_DICTIONARY));
        let bits = chunk.compressed_size() * 8 / chunk.num_values();
        assert!(bits <= 3, "two bits for one of three, and one for whether there is one; not {bits}");
    }
    let batch = whole(&encoded);
    let tasks = batch.column_by_name("task").expect("there").as_string_view();
    for row in 0..2 * rows {
        let here = row % rows;
        let wanted = (!here.is_multiple_of(5)).then_some(["b", "a", "c"][here % 3]);
        assert_eq!(tasks.is_valid(row).then(|| tasks.value(row)), wanted, "row {row}");
    }
}

#[test]
fn labels_that_are_not_few_are_given_to_the_writer_that_compresses() {
    let mut encoder = RowEncoder::new(Table::Events);
    let task = Table::Events.arrow_schema().index_of("task").expect("there");
    let text = |n: u32| format!("{n:>1000}");
    for part in 0..3 {
        let mut chunk = bare(600, &[DAY]);
        let texts = Arc::new(StringArray::from_iter_values((0..600).map(|n| text(part * 600 + n))));
        chunk.columns[task] = Some(Arc::new(DictionaryArray::new((0..600).collect::<UInt32Array>(), texts)));
        encoder.push(&chunk).expect("fits");
    }
    let encoded = encoder.finish().expect("closes");
    let [chunk] = &footer_of_tasks(&encoded.files()[0])[..] else { panic!("one row group") };
    assert!(matches!(chunk.compression(), Compression::ZSTD(_)));
    assert!(chunk.compressed_size() < 100_000, "{}", chunk.compressed_size());
    let batch = whole(&encoded);
    let tasks = batch.column_by_name("task").expect("there").as_string_view();
    assert!((0..1800).zip(tasks).all(|(n, found)| found == Some(&text(n))));
}

#[test]
fn a_file_of_few_rows_is_not_compressed_and_says_so_in_its_name() {
    for (rows, compressed) in [(1, false), (256, false), (257, true)] {
        let batch = quarantined(&(0..rows).collect::<Vec<_>>());
        let encoded = EncodedRows::of(Table::Quarantine, &batch).expect("encodes");
        let [file] = encoded.files() else { panic!("one file: {encoded:?}") };
        // A column with one integer in every row is never compressed.
        let (of_one_value, others): (Vec<_>, Vec<_>) =
            footer(file).into_iter().partition(|column| column.0 == "partition");
        let zstd = |columns: &[(String, ColumnChunkMetaData)]| {
            columns.iter().filter(|column| matches!(column.1.compression(), Compression::ZSTD(_))).count()
        };
        assert_eq!(zstd(&others), if compressed { others.len() } else { 0 }, "{rows} rows");
        assert_eq!((of_one_value.len(), zstd(&of_one_value)), (1, 0));
        assert_eq!(file.extension, if compressed { "zstd.parquet" } else { "parquet" });
        assert_eq!(whole(&encoded), batch);
    }
}

#[test]
fn without_a_reader_nothing_is_handed_on() {
    let mut encoder = RowEncoder::new(Table::Events).handing_on(&[]).expect("no columns");
    encoder.push(&bare(2, &[DAY])).expect("fits");
    let rows = encoder.finish().expect("closes");
    assert_eq!((rows.rows(), rows.files()[0].handed_on.len()), (2, 0));
}

#[test]
fn rows_of_another_schema_are_refused() {
    let mut encoder = RowEncoder::new(Table::Events);
    let run_id = Table::Events.arrow_schema().index_of("run_id").expect("there");
    let mut chunk = bare(2, &[DAY]);
    chunk.columns[run_id] = None;
    assert_eq!(encoder.push(&chunk).expect_err("a run has an id").kind(), bellwether_base::ErrorKind::Bug);
    chunk.columns[run_id] = Some(Arc::new(StringViewArray::from(vec!["one row"])));
    assert!(encoder.push(&chunk).is_err());
    assert_eq!(encoder.finish().expect("closes").rows(), 0);
}
