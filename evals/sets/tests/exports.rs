//! Exports, without the tools.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema};
use bellwether_base::{Error, Result};
use bellwether_evalsets::case::INPUT_BYTES;
use bellwether_evalsets::export::MANIFEST_FILE;
use bellwether_evalsets::{EvalCase, EvalSet, ExportFile, Exported, Grading, Unfit, formats};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::{AWKWARD, as_it_is, awkward, case, text_for};

fn export(set: &EvalSet, format: &str, redactor: &dyn bellwether_evalsets::Redactor) -> Result<Exported> {
    bellwether_evalsets::export(set, format, redactor, Unfit::Refuse)
}

#[test]
fn every_export_is_the_same_whatever_the_order_of_the_cases() {
    let mut turned = awkward(AWKWARD).cases().to_vec();
    turned.reverse();
    let turned = EvalSet::new("refunds", 3, turned).expect("a set");
    for format in formats() {
        let first = export(&awkward(AWKWARD), format.name(), &as_it_is).expect("an export");
        assert_eq!(first, export(&turned, format.name(), &as_it_is).expect("again"), "{}", format.name());
        assert!(first.files.len() >= 2, "{}: files and a manifest", format.name());
    }
    assert_eq!(formats().len(), 15);
}

#[test]
fn every_text_of_every_export_passes_the_second_redaction() {
    let mut secret = case("case-1", "my card is SECRET");
    secret.expected = Some("SECRET".to_owned());
    secret.grading = vec![Grading::Rubric("never say SECRET".to_owned())];
    secret.tags = vec!["SECRET".to_owned()];
    secret.provenance.reviewer = Some("SECRET".to_owned());
    let set = EvalSet::new("refunds", 1, vec![secret]).expect("a set");
    let redactor = |text: &str| Ok(text.replace("SECRET", "<CARD>"));
    for format in formats() {
        for file in export(&set, format.name(), &redactor).expect("an export").files {
            let text = String::from_utf8_lossy(&file.bytes).into_owned();
            assert!(!text.contains("SECRET"), "{}: {}", format.name(), file.path);
        }
    }
    let fails = |_: &str| Err(Error::unavailable("no redactor"));
    assert!(export(&set, "csv", &fails).is_err(), "fail closed");
}

/// Adds the texts of a JSON value, and those of JSON inside of them.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            found.push(text.clone());
            if let Ok(inner @ (Value::Array(_) | Value::Object(_))) = serde_json::from_str(text) {
                texts(&inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}

/// Returns all texts of a file.
fn texts_of(file: &ExportFile) -> Vec<String> {
    let mut found = Vec::new();
    if file.path.ends_with(".parquet") {
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.bytes.clone())).expect("Parquet");
        for batch in reader.build().expect("a reader") {
            for column in batch.expect("rows").columns() {
                found.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
            }
        }
        return found;
    }
    let text = String::from_utf8(file.bytes.clone()).expect("UTF-8");
    if file.path.ends_with(".csv") {
        let mut reader = arrow::csv::ReaderBuilder::new(cells()).with_header(true).build(text.as_bytes()).expect("CSV");
        let rows = reader.next().expect("rows").expect("rows");
        found.extend(
            rows.columns().iter().flat_map(|column| column.as_string::<i32>().iter().flatten().map(str::to_owned)),
        );
        return found;
    }
    match serde_json::from_str(&text) {
        Ok(value) => texts(&value, &mut found),
        // A line break inside a text is escaped, so that each line is one value.
        Err(_) if file.path.ends_with(".jsonl") => {
            text.split_terminator('\n').for_each(|line| texts(&serde_json::from_str(line).expect("JSON"), &mut found));
        }
        Err(_) => {
            let is_text = [".md", ".py"].iter().any(|end| file.path.ends_with(end));
            assert!(is_text, "{}", file.path);
        }
    }
    found
}

fn cells() -> Arc<Schema> {
    Arc::new(Schema::new((0..11).map(|n| Field::new(n.to_string(), DataType::Utf8, true)).collect::<Vec<_>>()))
}

#[test]
fn awkward_texts_come_through_every_format_unchanged() {
    for format in formats() {
        let text = text_for(*format);
        let exported = export(&awkward(&text), format.name(), &as_it_is).expect("an export");
        let found: Vec<String> = exported.files.iter().flat_map(texts_of).collect();
        assert!(found.contains(&text), "{}: {found:#?}", format.name());
        let conversation = found.iter().any(|text| text.contains("مرحبا 🦀 {{ braces }} {% x %}"));
        assert!(conversation, "{}: {found:#?}", format.name());
    }
}

#[test]
fn every_format_keeps_all_rules_and_says_which_set_a_case_is_of() {
    let mut one = case("case-1", "x");
    let rules = [
        Grading::Equals("yes".to_owned()),
        Grading::Contains("a part".to_owned()),
        Grading::NotContains("never this".to_owned()),
        Grading::Regex("^y.s$".to_owned()),
        Grading::Rubric("be polite".to_owned()),
    ];
    one.grading = rules.to_vec();
    let set = EvalSet::new("refunds", 7, vec![one]).expect("a set");
    for format in formats() {
        let exported = export(&set, format.name(), &as_it_is).expect("an export");
        let files = || exported.files.iter().filter(|file| file.path != MANIFEST_FILE);
        let raw = |file: &ExportFile| texts_of(file).join("\n") + &String::from_utf8_lossy(&file.bytes);
        // JSON inside of JSON or of CSV has its quotes escaped.
        let all: String =
            files().map(raw).collect::<String>().replace('\\', "").replace("\"\"", "\"").replace(": ", ":");
        for text in ["a part", "never this", "^y.s$", "be polite"] {
            assert!(all.contains(text), "{}: {text}: {all}", format.name());
        }
        let versions = ["\"set_version\":7", "\"set_version\":\"7\""];
        let says = all.contains("\"set\":\"refunds\"") && versions.iter().any(|version| all.contains(version));
        assert!(says, "{}: {all}", format.name());
    }
}

#[test]
fn cases_that_do_not_fit_are_left_out_on_request_and_listed() {
    let mut missing = case("case-1", "x");
    missing.input.clear();
    missing.content_ref = Some("s3://runs/r1".to_owned());
    let mut erased = case("case-2", "x");
    (erased.erased, erased.expected) = (true, None);
    erased.input.clear();
    let mut unanswered = case("case-3", "x");
    unanswered.expected = None;
    unanswered.grading = vec![Grading::Contains("a".to_owned())];
    let set = |cases: &[&EvalCase]| {
        EvalSet::new("refunds", 1, cases.iter().map(|case| (*case).clone()).collect()).expect("a set")
    };
    let good = case("case-4", "x");
    let all = set(&[&missing, &erased, &unanswered, &good]);
    let error = export(&all, "inspect", &as_it_is).expect_err("two do not fit");
    assert!(error.message().ends_with("its input is not stored here (and case `case-3`)"), "{error}");
    let without = |set: &EvalSet| bellwether_evalsets::export(set, "inspect", &as_it_is, Unfit::LeaveOut);
    let exported = without(&all).expect("an export");
    let left: Vec<&str> = exported.left_out.iter().map(|one| one.case.as_str()).collect();
    assert_eq!(left, ["case-1", "case-2", "case-3"]);
    let manifest: Value = serde_json::from_slice(&exported.files[1].bytes).expect("JSON");
    assert_eq!((&manifest["cases"], manifest["left_out"].as_array().map(Vec::len)), (&Value::from(1), Some(3)));
    assert!(exported.left_out[0].reason.contains("s3://runs/r1"), "{:?}", exported.left_out);
    // Erased cases need no permission to be left out. An export without cases is an error.
    assert_eq!(export(&set(&[&erased, &good]), "inspect", &as_it_is).expect("an export").left_out.len(), 1);
    assert!(without(&set(&[&missing, &erased])).expect_err("nothing is left").message().contains("`case-1`"));
    assert!(without(&set(&[&erased])).expect_err("nothing is left").message().contains("were erased"));
}

#[test]
fn a_case_beyond_the_size_of_a_format_is_refused_by_name_and_fits_others() {
    // Each of these characters takes six bytes of JSON.
    let set = EvalSet::new("refunds", 1, vec![case("case-1", &"\u{1}".repeat(INPUT_BYTES))]).expect("a set");
    for format in formats() {
        let limit = format.limits().case_bytes;
        match export(&set, format.name(), &as_it_is) {
            Ok(_) => assert!(limit > 6 * INPUT_BYTES, "{}", format.name()),
            Err(error) => {
                assert!(limit <= 6 * INPUT_BYTES, "{}: {error}", format.name());
                let says = format!("case `case-1` as {}: it has 62", format.name());
                assert!(error.message().contains(&says) && error.message().contains(&limit.to_string()), "{error}");
                assert_eq!(
                    error.hint(),
                    Some("shorten the case, or export as inspect; or leave such cases out with --skip-unfit")
                );
            }
        }
    }
    for name in ["braintrust", "langfuse"] {
        assert!(export(&set, name, &as_it_is).is_err(), "{name}");
    }
}

#[test]
fn values_that_a_format_cannot_hold_are_refused_by_name() {
    let refused = |case, format: &str, says: &str| {
        let set = EvalSet::new("refunds", 1, vec![case]).expect("a set");
        let error = export(&set, format, &as_it_is).expect_err(format);
        assert!(error.message().contains(says) && error.message().contains("case-1"), "{error}");
        assert!(error.hint().is_some());
    };
    let with = |change: &dyn Fn(&mut EvalCase)| {
        let mut case = case("case-1", "x");
        change(&mut case);
        case
    };
    for format in ["langfuse", "langsmith", "phoenix", "csv"] {
        refused(with(&|case| case.input[0].content = "a\0b".to_owned()), format, "U+0000");
    }
    refused(with(&|case| case.expected = Some("file:///etc/passwd".to_owned())), "promptfoo", "from a file");
    refused(with(&|case| case.expected = Some("{{ x }} endraw".to_owned())), "promptfoo", "endraw");
    let no_answer = with(&|case| {
        case.expected = None;
        case.grading = vec![Grading::Contains("a".to_owned())];
    });
    refused(no_answer.clone(), "inspect", "needs an expected answer");
    let set = EvalSet::new("refunds", 1, vec![no_answer]).expect("a set");
    assert!(export(&set, "promptfoo", &as_it_is).is_ok(), "promptfoo needs no expected answer");
    let missing = with(&|case| {
        case.input.clear();
        case.content_ref = Some("s3://runs/r1".to_owned());
    });
    refused(missing, "csv", "not stored here");
    let error = export(&awkward(AWKWARD), "excel", &as_it_is).expect_err("unknown");
    assert!(error.hint().expect("names").contains("huggingface"));
}
