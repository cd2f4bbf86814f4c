//! Bad input: binary and bidirectional text, great lengths, texts that slow down backtracking, documents that are not JSON.

use std::time::{Duration, Instant};

use bellwether_redact::{NOT_JSON, Policy, Redactor, TOO_LONG};
use proptest::prelude::*;

use crate::{redacted, redacted_json};

#[test]
fn nul_right_to_left_and_emoji_around_a_value_do_not_hide_it() {
    assert_eq!(redacted("\0a@x.org\0"), "\0[EMAIL_1]\0");
    assert_eq!(redacted("דוא״ל: \u{202e}a@x.org\u{202c} ✉️"), "דוא״ל: \u{202e}[EMAIL_1]\u{202c} ✉️");
    assert_eq!(redacted("💳4111111111111111💳"), "💳[CARD_1]💳");
    assert_eq!(redacted("📞+442079460958👨‍👩‍👧"), "📞[PHONE_1]👨‍👩‍👧");
}

#[test]
fn a_text_above_the_limit_is_replaced_and_one_at_the_limit_is_searched() {
    let policy = Policy { max_text_bytes: 1 << 20, ..Policy::default() };
    let redactor = Redactor::new(&policy).expect("compiles");
    let mut text = "word ".repeat((1 << 20) / 5);
    text.truncate((1 << 20) - 8);
    text.push_str(" a@x.org");
    assert_eq!(text.len(), 1 << 20);
    assert!(redactor.session().text(&text).ends_with(" [EMAIL_1]"));
    text.push('!');
    let mut session = redactor.session();
    assert_eq!(session.text(&text), TOO_LONG);
    assert_eq!(session.counts().collect::<Vec<_>>(), [("UNREAD", 1)]);
}

#[test]
fn a_document_that_is_not_json_is_replaced() {
    for document in ["", "{", r#"{"a":"a@x.org""#, "a@x.org", &"[".repeat(1000)] {
        assert_eq!(redacted_json(document), format!("\"{NOT_JSON}\""), "{document}");
    }
}

#[test]
fn nested_documents_are_redacted_at_each_depth() {
    let document = format!("{}\"a@x.org\"{}", r#"{"a":["#.repeat(30), "]}".repeat(30));
    assert_eq!(redacted_json(&document), document.replace("a@x.org", "[EMAIL_1]"));
}

/// Texts that take a backtracking expression quadratic time or more, and those that call every detector at every byte. The work is
/// counted, so that a slow machine changes nothing.
#[test]
fn adversarial_texts_take_work_in_proportion_to_their_length() {
    let parts = [
        "a",
        "a.",
        "a@",
        "a@a.",
        "@",
        "1",
        "1 ",
        "1-",
        "1.",
        "1 2345 ",
        "+1",
        "::",
        "1:",
        ":a",
        "1.1.",
        "eyJ",
        "eyJ.",
        "sk-1/",
        "://",
        "a://b:",
        "a:@",
        "-----BEGIN ",
        "-----BEGIN -----END ",
        "password=",
        "password: [",
        "password is ",
        "key=",
        "GB82 ",
        "GB82WEST1234",
        "[EMAIL_",
        "aA1",
        "bearer ",
        "Authorization: Basic ",
        "XX 11 ",
        "AB 12 ",
        "1 12 12 2A ",
        "4111 1111 ",
        "555 1234567 ",
        "ann ",
        "annann",
    ];
    let policy = Policy { names: ["ann", "annann", "ann ann ann"].map(str::to_owned).to_vec(), ..Policy::default() };
    let redactor = Redactor::new(&policy).expect("compiles");
    let (short, factor) = (1 << 12, 16);
    for part in parts {
        let work = |length: usize| {
            let mut session = redactor.session();
            session.text(&part.repeat(length / part.len()));
            session.bytes_looked_at()
        };
        let (one, many) = (work(short), work(short * factor));
        // Quadratic work would be 256 times as much.
        assert!(many <= one * 17, "`{part}`: {one} bytes looked at for {short}, {many} for {factor} times as many");
        assert!(many <= 200 * (short * factor) as u64, "`{part}`: {many} bytes looked at");
    }
}

/// The count of the work is true: the slowest of these texts takes no longer than its work says.
#[test]
fn a_text_of_the_greatest_length_made_of_the_costliest_parts_is_searched_within_seconds() {
    let redactor = Redactor::default();
    for part in ["1 ", "1 2345 ", "555 1234567 ", "AB 12 ", "password is ", "a:@"] {
        let start = Instant::now();
        drop(redactor.session().text(&part.repeat((1 << 20) / part.len())).into_owned());
        assert!(start.elapsed() < Duration::from_secs(20), "`{part}`: {:?}", start.elapsed());
    }
}

/// Each of these documents would take hours if it were read from its start for every place that is worth a search.
#[test]
fn documents_full_of_values_lists_and_secret_keys_take_seconds() {
    let redactor = Redactor::default();
    let times = 60_000;
    let emails = format!("[{}1]", r#""a@x.org","#.repeat(times));
    let one_string = format!("[\"{}\"]", r#"\"a@x.org\" "#.repeat(times));
    let fields = format!("{{{}\"k\":1}}", r#""phone":5551234567,"#.repeat(times));
    let secrets = format!("{}\"hunter22\"{}", r#"{"password":["#.repeat(100), "]}".repeat(100));
    let secrets = format!("[{}1]", format!("{secrets},").repeat(600));
    let numbers = format!("[{}1]", "5551234567,".repeat(times));
    let start = Instant::now();
    for (document, count) in [(&emails, times), (&one_string, times), (&fields, times), (&secrets, 600), (&numbers, 0)]
    {
        let mut session = redactor.session();
        drop(session.json(document).into_owned());
        let found: u64 = session.counts().map(|(_, count)| count).sum();
        assert_eq!(found, count as u64, "{}", &document[..40]);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn nothing_panics_and_a_second_pass_changes_nothing(text in "(\\PC|[0-9 .:@+/\\-_]|[A-Za-z]){0,80}") {
        let once = redacted(&text);
        prop_assert_eq!(&redacted(&once), &once);
    }

    #[test]
    fn redacted_json_is_json(text in "\\PC{0,60}") {
        let document = serde_json::json!({"a": [text, {"b": "a@x.org"}]}).to_string();
        let answer: serde_json::Value = serde_json::from_str(&redacted_json(&document)).expect("JSON");
        prop_assert!(answer["a"][1]["b"].as_str().expect("text").starts_with("[EMAIL_"));
    }
}
