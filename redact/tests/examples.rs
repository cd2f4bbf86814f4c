//! One example or more for each detector, for texts that must stay, and for the policy.

use bellwether_redact::{Kind, Policy, Redactor};

use crate::{redacted, redacted_json};

#[test]
fn each_detector_finds_its_examples() {
    let cases = [
        ("mail ann.lee+x@mail.example.org.", "mail [EMAIL_1]."),
        ("mail <jörg@müller.example>", "mail <[EMAIL_1]>"),
        ("call +44 20 7946 0958 now", "call [PHONE_1] now"),
        ("(415) 555-2671 or 415-555-2671", "[PHONE_1] or [PHONE_1]"),
        ("phone: 5551234567", "phone: [PHONE_1]"),
        ("415\u{2011}555\u{2011}2671 or 415\u{2013}555\u{2013}2671", "[PHONE_1] or [PHONE_1]"),
        ("the password is hunter22", "the password is [SECRET_1]"),
        ("card 4111 1111 1111 1111, exp", "card [CARD_1], exp"),
        ("card 378282246310005", "card [CARD_1]"),
        ("IBAN GB82 WEST 1234 5698 7654 32 or DE89370400440532013000", "IBAN [IBAN_1] or [IBAN_2]"),
        ("US 078-05-1120", "US [NATIONAL_ID_1]"),
        ("UK AB 12 34 56 C and NHS 943 476 5919", "UK [NATIONAL_ID_1] and NHS [NATIONAL_ID_2]"),
        ("DE Steuer-ID 86095742719 or 86 095 742 719", "DE Steuer-ID [NATIONAL_ID_1] or [NATIONAL_ID_1]"),
        ("FR 2 55 08 14 168 025 38", "FR [NATIONAL_ID_1]"),
        ("ES 12345678Z and X1234567L", "ES [NATIONAL_ID_1] and [NATIONAL_ID_2]"),
        ("IT RSSMRA85T10A562S", "IT [NATIONAL_ID_1]"),
        ("NL BSN 111222333", "NL BSN [NATIONAL_ID_1]"),
        ("PL 44051401359", "PL [NATIONAL_ID_1]"),
        ("IN 2341 2341 2346 and ABCPE1234F", "IN [NATIONAL_ID_1] and [NATIONAL_ID_2]"),
        ("BR 529.982.247-25", "BR [NATIONAL_ID_1]"),
        ("from 203.0.113.9:8080 and 2001:db8::7334", "from [IP_1]:8080 and [IP_2]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET_1]"),
        ("use ghp_16C7e42F292c6912E7710c838347Ae178B4a", "use [SECRET_1]"),
        ("sk-proj-abcDEF123456789012345", "[SECRET_1]"),
        ("password: hunter22, ok", "password: [SECRET_1], ok"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [SECRET_1]"),
        ("t9Kq2ZxV7bLm4Rw8PcY1Qd6H", "[SECRET_1]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "[JWT_1]"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a [PEM_1] b"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE cut", "a [PEM_1]"),
        ("postgres://ann:s3cret@db.example.org:5432/x", "[URL_CREDENTIALS_1]/x"),
    ];
    for (text, expected) in cases {
        assert_eq!(redacted(text), expected, "{text}");
        assert_eq!(redacted(expected), expected, "a second pass changes nothing");
    }
}

#[test]
fn ordinary_text_stays() {
    let stays = [
        "order #W2378156 of 2026-11-30 10:12:13, total 1,234.56",
        "2026-11-30T10:12:13.123456Z took 1700000000000 ns",
        "run 7d9f1c1e-5e0b-4c8c-9a58-0f6a3f5d2c11, sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "gpt-4.1-mini-2025-04-14 and claude-sonnet-4-5-20250929",
        "SKU 4111111111111112 has a wrong check digit",
        "sk-learn-something-or-other, task-scheduler-for-everything",
        "see https://example.org/a/b?c=d and std::net::Ipv4Addr at 127.0.0.1",
        "ConversationSummaryBufferMemoryRetriever",
        "scores 0.1234567890, 0.44051401359 and 0,44051401359 of 12.52998224725",
        "the password is wrong, and your secret is safe",
        "at noon @home, 50% @ 3 a.m.",
        "[EMAIL_1] and [CARD_2]",
    ];
    for text in stays {
        assert_eq!(redacted(text), text);
    }
}

#[test]
fn equal_values_share_a_placeholder_within_a_run_and_are_counted() {
    let redactor = Redactor::new(&Policy::default()).expect("compiles");
    let mut session = redactor.session();
    assert_eq!(session.text("a@x.org b@x.org a@x.org"), "[EMAIL_1] [EMAIL_2] [EMAIL_1]");
    assert_eq!(session.json(r#"{"to":"b@x.org","card":4111111111111111}"#), r#"{"to":"[EMAIL_2]","card":"[CARD_1]"}"#);
    assert_eq!(session.text("4111-1111-1111-1111"), "[CARD_1]", "grouping does not make another card");
    assert_eq!(session.counts().collect::<Vec<_>>(), [("CARD", 2), ("EMAIL", 4)]);
}

#[test]
fn new_placeholders_differ_from_those_that_a_text_contains() {
    assert_eq!(redacted("[EMAIL_7] wrote to a@x.org"), "[EMAIL_7] wrote to [EMAIL_8]");
    let redactor = Redactor::new(&Policy::default()).expect("compiles");
    let mut session = redactor.session();
    session.reserve("later: [EMAIL_3]");
    assert_eq!(session.text("a@x.org"), "[EMAIL_4]");
}

#[test]
fn keyed_placeholders_join_runs_and_depend_on_the_key() {
    let of = |key: &str| {
        let policy = Policy { key: Some(key.as_bytes().to_vec()), ..Policy::default() };
        Redactor::new(&policy).expect("compiles").session().text("a@x.org").into_owned()
    };
    assert_eq!(of("one"), of("one"));
    assert_ne!(of("one"), of("two"));
    assert_eq!(redacted(&of("one")), of("one"), "a second pass keeps it");
    assert!(Redactor::new(&Policy { key: Some(Vec::new()), ..Policy::default() }).is_err());
}

#[test]
fn names_are_whole_words_in_any_case_and_kinds_can_be_kept() {
    let policy = Policy { names: vec!["Ann".into(), "Ann Lee".into()], keep: vec![Kind::Ip], ..Policy::default() };
    let redactor = Redactor::new(&policy).expect("compiles");
    let answer = redactor.session().text("ANN LEE, ann, Annabel at 203.0.113.9").into_owned();
    assert_eq!(answer, "[NAME_1], [NAME_2], Annabel at 203.0.113.9");
    assert_ne!(redactor.version(), Redactor::new(&Policy::default()).expect("compiles").version());
    assert!(Redactor::new(&Policy { names: vec!["A".into()], ..Policy::default() }).is_err());
    assert!(!format!("{policy:?}").contains("Lee"));
}

#[test]
fn json_keeps_keys_order_numbers_and_spaces() {
    let document = r#"{ "a@x.org" : 1.50, "z":[ "a@x.org", {"b\n":"x\u0040y.org"} ], "a":1e3, "a":null }"#;
    let expected = r#"{ "a@x.org" : 1.50, "z":[ "[EMAIL_1]", {"b\n":"[EMAIL_2]"} ], "a":1e3, "a":null }"#;
    assert_eq!(redacted_json(document), expected);
}

#[test]
fn the_key_of_a_json_value_says_what_it_is() {
    assert_eq!(redacted_json(r#"{"password":"a b","tokens":12}"#), r#"{"password":"[SECRET_1]","tokens":12}"#);
    assert_eq!(redacted_json(r#"{"bsn":["111222333"]}"#), r#"{"bsn":["[NATIONAL_ID_1]"]}"#);
    assert_eq!(redacted_json(r#"{"count":111222333}"#), r#"{"count":111222333}"#);
    let twice = redacted_json(r#"{"api_key":"x"}"#);
    assert_eq!(redacted_json(&twice), twice);
}

#[test]
fn a_document_inside_a_string_is_redacted() {
    let document = r#"{"arguments":"{\"to\":\"a@x.org\",\"password\":\"hunter22\"}"}"#;
    let expected = r#"{"arguments":"{\"to\":\"[EMAIL_1]\",\"password\":\"[SECRET_1]\"}"}"#;
    assert_eq!(redacted_json(document), expected);
}
