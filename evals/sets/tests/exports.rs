//! Exports, without the tools.

use bellwether_base::Error;
use bellwether_evalsets::{EvalSet, export, formats};

use super::{as_it_is, awkward, case};

#[test]
fn every_export_is_the_same_whatever_the_order_of_the_cases() {
    let mut turned = awkward().cases().to_vec();
    turned.reverse();
    let turned = EvalSet::new("refunds", 3, turned).expect("a set");
    for format in formats() {
        let first = export(&awkward(), format.name(), &as_it_is).expect("an export");
        assert_eq!(first, export(&turned, format.name(), &as_it_is).expect("again"), "{}", format.name());
        assert!(first.files.len() >= 2, "{}: files and a manifest", format.name());
    }
    assert_eq!(formats().len(), 15);
}

#[test]
fn every_text_of_every_export_passes_the_second_redaction() {
    let mut secret = case("case-1", "my card is SECRET");
    secret.expected = Some("SECRET".to_owned());
    secret.grading = vec![bellwether_evalsets::Grading::Rubric("never say SECRET".to_owned())];
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

#[test]
fn values_that_a_format_cannot_hold_are_refused_by_name() {
    let refused = |case, format: &str, says: &str| {
        let set = EvalSet::new("refunds", 1, vec![case]).expect("a set");
        let error = export(&set, format, &as_it_is).expect_err(format);
        assert!(error.message().contains(says) && error.message().contains("case-1"), "{error}");
        assert!(error.hint().is_some());
    };
    let with = |change: &dyn Fn(&mut bellwether_evalsets::EvalCase)| {
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
        case.grading = vec![bellwether_evalsets::Grading::Contains("a".to_owned())];
    });
    refused(no_answer.clone(), "inspect", "needs an expected answer");
    let set = EvalSet::new("refunds", 1, vec![no_answer]).expect("a set");
    assert!(export(&set, "promptfoo", &as_it_is).is_ok(), "promptfoo needs no expected answer");
    let missing = with(&|case| {
        case.input.clear();
        case.content_ref = Some("s3://runs/r1".to_owned());
    });
    refused(missing, "csv", "not stored here");
    let error = export(&awkward(), "excel", &as_it_is).expect_err("unknown");
    assert!(error.hint().expect("names").contains("huggingface"));
}
