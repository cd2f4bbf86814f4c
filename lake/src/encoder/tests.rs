use super::*;
use crate::schema::arrow_type;
use arrow::array::{Date32Array, Int32Array, Int64Array, StringViewArray};
use arrow::compute::concat_batches;
use proptest::prelude::*;
use std::sync::Arc;

const DAY: i32 = 20_781;

/// Rows of `quarantine` at these offsets of partition 0; the odd ones have no time and no pointer.
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
    // Each case is some files of Parquet.
    #![proptest_config(ProptestConfig::with_cases(24))]

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

/// A chunk of `events` of which only what must be there is.
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

/// More than one row group, and not a multiple of it.
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

#[test]
fn texts_one_after_the_other_are_the_same_rows_as_views() {
    let encoded = |plain: bool| {
        let mut encoder = RowEncoder::new(Table::Events).handing_on(&["run_id", "offset"]).expect("columns");
        let mut chunk = bare(5, &[DAY, DAY + 1]);
        for column in chunk.columns.iter_mut().flatten().filter(|_| plain) {
            if *column.data_type() == DataType::Utf8View {
                *column = cast(column, &DataType::Utf8).expect("a text");
            }
        }
        encoder.push(&chunk).expect("fits");
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

#[test]
fn a_file_of_few_rows_is_not_compressed_and_says_so_in_its_name() {
    for (rows, compressed) in [(1, false), (256, false), (257, true)] {
        let batch = quarantined(&(0..rows).collect::<Vec<_>>());
        let encoded = EncodedRows::of(Table::Quarantine, &batch).expect("encodes");
        let [file] = encoded.files() else { panic!("one file: {encoded:?}") };
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone());
        let metadata = Arc::clone(reader.expect("Parquet").metadata());
        let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
        let zstd =
            columns.filter(|column| matches!(column.compression(), parquet::basic::Compression::ZSTD(_))).count();
        assert_eq!(zstd, if compressed { batch.num_columns() } else { 0 }, "{rows} rows");
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
    assert_eq!(encoder.push(&chunk).expect_err("a run has an id").kind(), crate::ErrorKind::Bug);
    chunk.columns[run_id] = Some(Arc::new(StringViewArray::from(vec!["one row"])));
    assert!(encoder.push(&chunk).is_err());
    assert_eq!(encoder.finish().expect("closes").rows(), 0);
}
