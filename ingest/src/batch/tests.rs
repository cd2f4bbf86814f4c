use super::*;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use bellwether_tables::ColumnType;
use proptest::prelude::*;

use super::columns::{ColumnBuilder, Labels};

pub(super) const NOW: i64 = 1_795_543_200_000_000; // 2026-11-24T18:00:00Z

pub(super) fn message(offset: i64, payload: &[u8]) -> Message<'_> {
    Message { topic: "runs", offset, payload: Some(payload), ..Message::default() }
}

fn minimal(run_id: &str) -> Vec<u8> {
    format!(
        r#"{{"spec":"run-event/1","run_id":"{run_id}","data":{{"task":"t","release":{{"id":"1"}},
        "started_at":"2026-11-23T10:00:00Z","ended_at":"2026-11-23T10:00:01Z","outcome":{{"status":"success"}}}}}}"#
    )
    .into_bytes()
}

fn examples() -> Vec<String> {
    let text = include_str!("../../event/tests/golden/examples.json");
    let examples: Vec<serde_json::Value> = serde_json::from_str(text).expect("JSON");
    examples.iter().map(ToString::to_string).collect()
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column).expect("a column").as_string_view();
    column.is_valid(row).then(|| column.value(row))
}

fn long(batch: &RecordBatch, column: &str, row: usize) -> i64 {
    batch.column_by_name(column).expect("a column").as_primitive::<Int64Type>().value(row)
}

/// Returns all rows by offset.
pub(super) fn table(rows: &EncodedRows) -> RecordBatch {
    let batches = rows.batches().expect("decodes");
    let batch = concat_batches(&rows.table().arrow_schema(), &batches).expect("one schema");
    let offsets = batch.column_by_name("offset").expect("a column");
    take_record_batch(&batch, &sort_to_indices(offsets, None, None).expect("sorts")).expect("rows")
}

#[test]
fn the_examples_become_the_rows_they_describe() {
    let mut builder = BatchBuilder::new(Limits::default());
    for (offset, example) in (0..).zip(examples()) {
        let pushed = builder.push(&message(offset, example.as_bytes()), NOW);
        assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {example}");
    }
    let (events, quarantine) = builder.finish().expect("finishes");
    let (events, quarantine) = (table(&events), table(&quarantine));
    assert_eq!((events.num_rows(), quarantine.num_rows()), (6, 0));
    assert_eq!(text(&events, "task", 0), Some("refund_triage"));
    assert_eq!(long(&events, "cost_nanos", 0), 4_713_000);
    assert_eq!(long(&events, "tool_calls_total", 0), 2);
    assert_eq!(long(&events, "tool_calls_failed", 0), 1);
    assert_eq!(long(&events, "policy_exceptions_medium", 0), 1);
    assert_eq!(text(&events, "escalation_reason_code", 0), Some("low_confidence"));
    let errors = events.column_by_name("field_errors").expect("there").as_list::<i32>().value(0);
    assert_eq!(errors.as_struct().column(0).as_string_view().value(0), "/amount");
    let scores = events.column_by_name("scores").expect("there").as_list::<i32>().value(1);
    assert_eq!(scores.as_struct().column(0).as_string_view().value(0), "task_success");
    assert_eq!(text(&events, "review_decision", 2), Some("reject"));
    assert_eq!(text(&events, "escalation_reason_code", 3), Some("user_requested"));
    assert_eq!(long(&events, "policy_exceptions_critical", 4), 1);
    assert_eq!(text(&events, "stage", 5), Some("full"));
}

#[test]
fn cloud_events_are_unwrapped_in_both_modes_with_whole_events_and_bare_data() {
    let whole = String::from_utf8(minimal("r-1")).expect("text");
    let value: serde_json::Value = serde_json::from_str(&whole).expect("JSON");
    let data = value["data"].to_string();
    let structured = |data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"e-1","source":"app","type":"io.x.run.completed.v1","subject":"r-1",
            "time":"2026-11-23T10:00:02Z","data":{data}}}"#
        )
    };
    let envelope = bellwether_event::Envelope {
        id: Some("e-1"),
        source: Some("app"),
        event_type: Some("io.x.run.completed.v1"),
        time: Some("2026-11-23T10:00:02Z"),
        subject: Some("r-1"),
    };
    let (around_whole, around_data) = (structured(&whole), structured(&data));
    let mut builder = BatchBuilder::new(Limits::default());
    let cases = [
        Message { content_type: Some("application/cloudevents+json"), ..message(0, around_whole.as_bytes()) },
        message(1, around_data.as_bytes()),
        Message { envelope, ..message(2, whole.as_bytes()) },
        Message { envelope, content_type: Some("application/json"), ..message(3, data.as_bytes()) },
    ];
    for case in &cases {
        let pushed = builder.push(case, NOW);
        assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?} {}", case.offset);
    }
    let events = table(&builder.finish().expect("finishes").0);
    for row in 0..4 {
        assert_eq!(text(&events, "source", row), Some("app"), "row {row}");
        assert_eq!(text(&events, "event_id", row), Some("e-1"), "row {row}");
        assert_eq!(text(&events, "run_id", row), Some("r-1"), "row {row}");
    }
}

/// Decodes a message, and returns some columns of its event as text, or the problems with their pointers.
fn outcome(message: &Message<'_>) -> Result<String, Vec<String>> {
    let mut decoder = Decoder::new(Limits::default());
    let seen = |event: &bellwether_event::Event<'_>| {
        format!("{} {} {} {:?}", event.event_type.name(), event.id, event.run_id, event.extra)
    };
    decode(&mut decoder, message, NOW, seen).map_err(|rejection| {
        let describe = |problem: &bellwether_event::Problem| format!("{} {}", problem.reason.code(), problem.pointer);
        rejection.problems.iter().map(describe).collect()
    })
}

#[test]
fn the_data_of_a_cloud_event_may_be_json_a_json_string_or_base64() {
    let data = r#"{"policy_id":"p","severity":"low"}"#;
    let event = |data: &str, more: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"e-1","source":"app","type":"run.policy_exception","subject":"r-1",{more}
            "time":"2026-11-23T10:00:02Z",{data}}}"#
        )
    };
    let whole = |event: &str| {
        format!(r#"{{"spec":"run-event/1","run_id":"r-1","type":"run.policy_exception","data":{event}}}"#)
    };
    let text_of = |json: &str| serde_json::Value::from(json).to_string();
    // The bytes of `data`, in base64.
    let base64 = "eyJwb2xpY3lfaWQiOiJwIiwic2V2ZXJpdHkiOiJsb3cifQ==";
    for data in [
        format!(r#""data":{data}"#),
        format!(r#""data":{}"#, text_of(data)),
        format!(r#""data_base64":"{base64}""#),
        format!(r#""data":null,"data_base64":"{base64}""#),
        format!(r#""data":{}"#, whole(data)),
        format!(r#""data":{}"#, text_of(&whole(data))),
    ] {
        let body = event(&data, "");
        let expected = "run.policy_exception e-1 r-1 None";
        assert_eq!(outcome(&message(0, body.as_bytes())).as_deref(), Ok(expected), "{body}");
        let marked = format!("\u{feff}{body}");
        assert_eq!(outcome(&message(0, marked.as_bytes())).as_deref(), Ok(expected), "{body}");
        let headed = Message {
            content_type: Some("Application/CloudEvents+JSON; charset=UTF-8"),
            ..message(0, body.as_bytes())
        };
        assert_eq!(outcome(&headed).as_deref(), Ok(expected), "{body}");
        let body = event(&data, r#""traceparent":"00-1","dataschema":"s","#);
        let kept =
            r#"run.policy_exception e-1 r-1 Some("{\"cloudevent\":{\"traceparent\":\"00-1\",\"dataschema\":\"s\"}}")"#;
        assert_eq!(outcome(&message(0, body.as_bytes())).as_deref(), Ok(kept), "{body}");
    }
    let written = text_of(&String::from_utf8(minimal("r-1")).expect("text"));
    assert_eq!(outcome(&message(0, written.as_bytes())).as_deref(), Ok("run.completed r-1:completed:1:0 r-1 None"));
}

#[test]
fn problems_of_a_cloud_event_are_reported_at_its_own_fields() {
    let data = r#"{"policy_id":"p","severity":"low"}"#;
    let good = r#"{"specversion":"1.0","id":"e","source":"app","type":"run.policy_exception","subject":"r","time":"2026-11-23T10:00:02Z","data":DATA}"#;
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).replace("DATA", data)
    };
    let whole = r#"{"spec":"run-event/1","run_id":"r","type":"run.policy_exception","data":{"severity":"low"}}"#;
    for (body, expected) in [
        (changed(r#""id":"e""#, r#""id":"""#), vec!["too_short /id"]),
        (changed(r#""id":"e""#, &format!(r#""id":"{}""#, "x".repeat(129))), vec!["too_long /id"]),
        (changed(r#""id":"e""#, r#""id":7"#), vec!["wrong_type /id"]),
        (changed(r#""id":"e""#, r#""id":"e","id":"f""#), vec!["duplicate_key /id"]),
        (changed(r#""source":"app""#, r#""source":"""#), vec!["too_short /source"]),
        (changed("policy_exception\"", "policy_exceptional\""), vec!["unknown_value /type"]),
        (changed("2026-11-23T10:00:02Z", "10:00"), vec!["time_format /time"]),
        (changed("2026-11-23T10:00:02Z", "2016-11-23T10:00:02Z"), vec!["time_too_old /time"]),
        (changed(r#""time":"2026-11-23T10:00:02Z","#, ""), vec!["missing_field /time"]),
        (changed(r#""subject":"r","#, ""), vec!["missing_field /subject"]),
        (changed(r#""subject":"r""#, r#""subject":"""#), vec!["too_short /subject", "too_short /subject"]),
        (changed("\"1.0\"", "\"0.3\""), vec!["unknown_spec /specversion"]),
        (good.replace("DATA", "7"), vec!["wrong_type /data"]),
        (good.replace("DATA", r#"{"severity":"low"}"#), vec!["missing_field /data/policy_id"]),
        (good.replace("DATA", whole), vec!["missing_field /data/data/policy_id"]),
        (good.replace("\"data\":DATA", r#""data_base64":"?""#), vec!["pattern /data_base64"]),
        (good.replace(",\"data\":DATA", ""), vec!["missing_field /data"]),
        (format!("[{}]", good.replace("DATA", data)), vec!["unsupported_framing "]),
    ] {
        let found = outcome(&message(0, body.as_bytes())).expect_err(&body);
        if expected.len() == 1 && found.len() > 1 {
            assert!(found.contains(&expected[0].to_owned()), "{body}: {found:?}");
        } else {
            assert_eq!(found, expected, "{body}");
        }
    }
    let batch = Message { content_type: Some("application/cloudevents-batch+json"), ..message(0, b"[]") };
    assert_eq!(outcome(&batch), Err(vec!["unsupported_framing ".to_owned()]));
    // In binary mode the attributes are headers, and pointers refer to the body.
    let envelope = bellwether_event::Envelope {
        id: Some(""),
        event_type: Some("run.policy_exception"),
        time: Some("2026-11-23T10:00:02Z"),
        ..Default::default()
    };
    let binary = Message { envelope, ..message(0, br#"{"severity":"low"}"#) };
    let found = outcome(&binary).expect_err("rejected");
    let expected = ["missing_field /ce_subject", "missing_field /policy_id", "too_short /ce_id"];
    assert_eq!(found, expected);
    let unreadable = Message { unreadable_header: Some("ce_id"), ..binary };
    assert_eq!(outcome(&unreadable), Err(vec!["invalid_utf8 /ce_id".to_owned()]));
}

#[test]
fn the_decoder_and_the_list_of_problems_agree_on_every_frame() {
    let decoder = Decoder::new(Limits::default());
    for body in [&b"{}"[..], b"", b"\0\0\0\0\x07{}", b"[]", b"null", b"\xff", br#"{"specversion":"1.0"}"#, b"\"{}\""] {
        let message = message(0, body);
        let problems = crate::decode::problems(&decoder, &message, NOW);
        let rejected: Vec<String> = problems
            .iter()
            .filter(|problem| problem.rejects)
            .map(|problem| format!("{} {}", problem.reason.code(), problem.pointer))
            .collect();
        assert_eq!(outcome(&message), Err(rejected), "{body:?}");
    }
}

#[test]
fn unsupported_framings_and_tombstones_are_recognised() {
    let mut builder = BatchBuilder::new(Limits::default());
    for (payload, reason) in [
        (None, "tombstone"),
        (Some(&b""[..]), "tombstone"),
        (Some(&b"\x00\x00\x00\x00\x07{}"[..]), "unsupported_framing"),
        (Some(&b"\x0a\x10otlp"[..]), "unsupported_framing"),
        (Some(&b"{\"a\":1}{\"b\":2}"[..]), "trailing_data"),
        (Some(&b"\xff\xfe"[..]), "invalid_utf8"),
    ] {
        let pushed = builder.push(&Message { payload, ..message(0, b"") }, NOW);
        assert_eq!(pushed, Pushed::Quarantined(reason));
    }
    let quarantine = table(&builder.finish().expect("finishes").1);
    assert_eq!(quarantine.num_rows(), 6);
    assert_eq!(text(&quarantine, "sha256", 0).map(str::len), Some(64));
}

#[test]
fn the_expected_answer_of_a_review_is_kept_as_sent() {
    let review = |expected: &str| {
        format!(
            r#"{{"spec":"run-event/1","type":"run.review","run_id":"r-1","time":"2026-11-23T10:00:00Z",
            "data":{{"review_id":"v-1","decision":"reject","labels":["tone"],"expected":{expected}}}}}"#
        )
    };
    let sent = [r#"{ "b": 1.50, "a": [] }"#, r#""cut \ud83d\ude00""#, "null"];
    let mut builder = BatchBuilder::new(Limits::default());
    for (offset, expected) in (0..).zip(sent) {
        let pushed = builder.push(&message(offset, review(expected).as_bytes()), NOW);
        assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {expected}");
    }
    let events = table(&builder.finish().expect("finishes").0);
    for (row, expected) in sent.into_iter().enumerate() {
        let json = format!(r#"{{"expected":{expected},"expected_ref":null,"labels":["tone"]}}"#);
        assert_eq!(text(&events, "review_json", row), Some(json.as_str()));
    }
}

#[test]
fn leases_and_retirements_are_kept_and_a_malformed_end_is_left_out() {
    let stated = |fields: &str| {
        format!(
            r#"{{"spec":"run-event/1","type":"run.review","run_id":"r-1","time":"2026-11-23T10:00:00Z",
            "data":{{"review_id":"v-1","decision":"skip","sets_outcome":false,{fields}}}}}"#
        )
    };
    let sent = [r#""leased_until":"2026-11-23T10:15:00Z""#, r#""retired":true"#, r#""leased_until":"soon""#];
    let mut builder = BatchBuilder::new(Limits::default());
    for (offset, fields) in (0..).zip(sent) {
        let pushed = builder.push(&message(offset, stated(fields).as_bytes()), NOW);
        assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {fields}");
    }
    let events = table(&builder.finish().expect("finishes").0);
    let until = events.column_by_name("review_leased_until").expect("a column");
    let until = until.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let retired = events.column_by_name("review_retired").expect("a column").as_boolean();
    assert_eq!(until.iter().collect::<Vec<_>>(), [Some(1_795_428_900_000_000), None, None]);
    assert_eq!(retired.iter().collect::<Vec<_>>(), [None, Some(true), None]);
}

#[test]
fn rows_keep_their_own_release_among_many() {
    let mut builder = RowBuilder::new(Limits::default());
    for _chunk in 0..2 {
        let mut expected = Vec::new();
        for row in 0..700_i64 {
            // Every third row is a score, which has no release; the others have one of 200.
            let release = (row % 3 != 0).then(|| format!("release-{}", row % 200));
            let body = match &release {
                Some(id) => {
                    String::from_utf8(minimal("r")).expect("text").replace(r#""id":"1""#, &format!(r#""id":"{id}""#))
                }
                None => examples()[1].clone(),
            };
            assert!(matches!(builder.push(&message(row, body.as_bytes()), NOW), Pushed::Event(_)), "{body}");
            expected.push(release);
        }
        let columns = builder.finish().0.columns;
        let schema = Table::Events.columns();
        let place = |name: &str| schema.iter().position(|column| column.name == name).expect("a column");
        let ids = cast(columns[place("release_id")].as_ref().expect("some"), &DataType::Utf8View).expect("texts");
        let ids = ids.as_string_view();
        assert_eq!(ids.iter().map(|id| id.map(str::to_owned)).collect::<Vec<_>>(), expected);
        assert!(columns[place("model")].is_none(), "no release states a model");
    }
}

proptest! {
    #[test]
    fn labels_are_distinguished_whatever_they_begin_and_end_with(
        texts in prop::collection::vec(prop::option::weighted(0.9, "[ab]{0,3}(a{8}|b{8}|)(ab|ba|)(b{8}|)[ab]"), 1..80)
    ) {
        let mut labels = Labels::new();
        for _chunk in 0..2 {
            for (row, text) in texts.iter().enumerate() {
                labels.put_option(row, text.as_deref());
            }
            match labels.finish(ColumnType::Text, texts.len()) {
                None => prop_assert!(texts.iter().all(Option::is_none)),
                Some(array) => {
                    let array = cast(&array, &DataType::Utf8View).expect("texts");
                    let found: Vec<_> = array.as_string_view().iter().map(|text| text.map(str::to_owned)).collect();
                    prop_assert_eq!(&found, &texts);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_message_becomes_one_row_with_its_own_offset(
        kinds in prop::collection::vec((0..4_u8, prop::collection::vec(any::<u8>(), 0..60)), 1..40)
    ) {
        let mut builder = BatchBuilder::new(Limits::default());
        let mut good = Vec::new();
        for (offset, (kind, bytes)) in (0..).zip(&kinds) {
            let payload = match kind {
                0 => minimal(&format!("run-{offset}")),
                1 => examples()[0].clone().into_bytes(),
                2 => bytes.clone(),
                _ => { let mut torn = minimal("x"); torn.truncate(bytes.len() * 3); torn }
            };
            if matches!(builder.push(&message(offset, &payload), NOW), Pushed::Event(_)) {
                good.push((offset, *kind));
            }
        }
        prop_assert_eq!(builder.rows(), kinds.len());
        let (events, quarantine) = builder.finish().expect("finishes");
    let (events, quarantine) = (table(&events), table(&quarantine));
        prop_assert_eq!(events.num_rows() + quarantine.num_rows(), kinds.len());
        for (row, (offset, kind)) in good.iter().enumerate() {
            prop_assert_eq!(long(&events, "offset", row), *offset);
            if *kind == 0 {
                let run_id = format!("run-{offset}");
                prop_assert_eq!(text(&events, "run_id", row), Some(run_id.as_str()));
            }
        }
        let offsets: Vec<i64> = (0..quarantine.num_rows()).map(|row| long(&quarantine, "offset", row)).collect();
        prop_assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

fn first_row(batch: &RecordBatch) -> serde_json::Value {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write(batch).expect("writes");
    writer.finish().expect("finishes");
    let rows: serde_json::Value = serde_json::from_slice(&writer.into_inner()).expect("JSON");
    rows[0].clone()
}

#[test]
fn a_value_that_a_limit_would_cut_in_two_is_redacted_as_a_whole() {
    // The limit is in the middle of the address or of the card, which a part of it would not be recognised as.
    let across = |limit: usize, value: &str| format!("{} {value}, and more", "é".repeat(limit - 1 - value.len() / 2));
    let (address, card) = ("annabel.lee@example.org", "4111 1111 1111 1111");
    let event = serde_json::json!({
        "spec": "run-event/1", "run_id": "r-1", "data": {
            "task": "t", "release": {"id": "1"},
            "outcome": {"status": "failure", "reason_code": across(64, address)},
            "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:00:01Z",
            "validation": {"valid": false, "fields": [
                {"path": across(512, address), "valid": false, "message": across(512, card)},
            ]},
            "scores": [{"name": "n", "kind": "code", "evaluator": {"id": "e"}, "value": 1.0, "explanation": across(1024, address)}],
            "segments": {"a": across(128, card), "b": "é".repeat(200)},
        }
    });
    let mut builder = BatchBuilder::new(Limits::default());
    let pushed = builder.push(&message(0, event.to_string().as_bytes()), NOW);
    assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}");
    let row = first_row(&table(&builder.finish().expect("finishes").0));
    for part in ["annabel", "lee", "4111", "1111"] {
        assert!(!row.to_string().contains(part), "{part}: {row}");
    }
    let length = |value: &serde_json::Value| value.as_str().expect("a text").chars().count();
    let error = &row["field_errors"][0];
    for (text, limit, kind) in [
        (&row["outcome_reason_code"], 64, "EMAIL"),
        (&error["path"], 512, "EMAIL"),
        (&error["message"], 512, "CARD"),
        (&row["scores"][0]["explanation"], 1024, "EMAIL"),
        (&row["segments"]["a"], 128, "CARD"),
        (&row["segments"]["b"], 128, ""),
    ] {
        assert!(length(text) <= limit && length(text) > limit - 20, "{limit}: {text}");
        assert!(kind.is_empty() || text.to_string().contains(&format!("[{kind}")), "{text}");
    }
    assert_eq!(row["truncated"]["/data/outcome/reason_code"], "cut", "{row}");
    assert_eq!(row["redaction"]["EMAIL"], "3");
}

#[test]
fn content_is_redacted_before_it_becomes_a_row_and_counted_by_kind() {
    let secret = "ann@example.org";
    let event = serde_json::json!({
        "spec": "run-event/1", "run_id": "r-1", "data": {
            "task": "t", "release": {"id": "1"}, "outcome": {"status": "failure"},
            "started_at": "2026-11-23T10:00:00Z", "ended_at": "2026-11-23T10:00:01Z",
            "content": {"input": format!("write to {secret}, not to [EMAIL_4]")},
            "steps": [{"name": "s", "note": secret}],
            "validation": {"valid": false, "fields": [{"path": "/a", "valid": false, "message": format!("{secret} is wrong")}]},
            "policy_exceptions": [{"policy_id": "p", "severity": "low", "native_result": {"type": "t", "value": secret}}],
            "scores": [{"name": "n", "kind": "code", "evaluator": {"id": "e"}, "value": 1.0, "explanation": format!("{secret} is right"), "reference": {"to": secret}}],
            "unknown": {"card": "4111 1111 1111 1111", "to": secret},
        }
    });
    let mut builder = BatchBuilder::new(Limits { content_bytes: Some(1000), ..Limits::default() });
    let pushed = builder.push(&message(0, event.to_string().as_bytes()), NOW);
    assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}");
    let row = first_row(&table(&builder.finish().expect("finishes").0));
    assert!(!row.to_string().contains(secret) && !row.to_string().contains("4111 1111"), "{row}");
    assert_eq!(row["content_json"], r#"{"input":"write to [EMAIL_5], not to [EMAIL_4]"}"#);
    assert_eq!(row["steps_json"], r#"[{"name":"s","note":"[EMAIL_5]"}]"#);
    assert_eq!(row["field_errors"][0]["message"], "[EMAIL_5] is wrong");
    assert_eq!(row["scores"][0]["explanation"], "[EMAIL_5] is right", "{row}");
    assert_eq!(row["redaction"]["policy"], "3");
    assert_eq!(row["redaction"]["CARD"], "1");
    assert!(row["redaction"]["EMAIL"].as_str().expect("a count").parse::<u64>().expect("a number") >= 5, "{row}");
}
