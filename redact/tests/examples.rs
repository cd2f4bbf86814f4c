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
        ("PESEL 44051401359", "PESEL [NATIONAL_ID_1]"),
        ("his national ID number is 44051401359", "his national ID number is [NATIONAL_ID_1]"),
        ("CPF: 52998224725 or 529982247-25", "CPF: [NATIONAL_ID_1] or [NATIONAL_ID_1]"),
        ("FR 1 84 05 2A 004 006 28", "FR [NATIONAL_ID_1]"),
        ("nie x1234567l", "nie [NATIONAL_ID_1]"),
        ("paid with card_4111111111111111 and visa4111111111111111x", "paid with card_[CARD_1] and visa[CARD_1]x"),
        ("555-0199 ext, 001-415-555-2671x123", "555-0199 ext, [PHONE_1]"),
        ("(11) 98765-4321, 98765 43210, Handy 0171/1234567", "[PHONE_1], [PHONE_2], Handy [PHONE_3]"),
        ("IN 2341 2341 2346 and ABCPE1234F", "IN [NATIONAL_ID_1] and [NATIONAL_ID_2]"),
        ("BR 529.982.247-25", "BR [NATIONAL_ID_1]"),
        ("from 203.0.113.9:8080 and 2001:db8::7334", "from [IP_1]:8080 and [IP_2]"),
        ("AKIAIOSFODNN7EXAMPLE", "[SECRET_1]"),
        ("use ghp_16C7e42F292c6912E7710c838347Ae178B4a", "use [SECRET_1]"),
        ("sk-proj-abcDEF123456789012345", "[SECRET_1]"),
        ("password: hunter22, ok", "password: [SECRET_1], ok"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [SECRET_1]"),
        ("t9Kq2ZxV7bLm4Rw8PcY1Qd6H", "[SECRET_1]"),
        ("uXQwvBZrtYpLmNSDfgHJkqWErTyuIOpa", "[SECRET_1]"),
        ("Wq3/aZ81kPq+Tn/0bYxMm2/QvRc7Hs9e", "[SECRET_1]"),
        ("API key is zxcvbnmqwrtpsdfghjkl", "API key is [SECRET_1]"),
        ("key: QWRTYPSDFGHJKLZX, end", "key: [SECRET_1], end"),
        ("my token is zxcvbnmqwrtpsdfg", "my token is [SECRET_1]"),
        ("card 4222222222222 of Visa", "card [CARD_1] of Visa"),
        ("the secret is zXcVbNmQwRtPlKj", "the secret is [SECRET_1]"),
        ("Authorization: Basic YW5uOmh1bnRlcg==", "Authorization: Basic [SECRET_1]"),
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
        "ConversationSummaryBufferMemoryRetriever, HTTPSConnectionURLPool, getUserByIdOrNameAndOrgIdOrRole",
        "key: internationalisation, primary key: order-line-number-2, token: end_of_text",
        "ticket 44051401359 and order 52998224725",
        "orders_4111111111111112, 0a4111111111111111bc and a4111111111111111",
        "call_9hRn0JXoBm3iZqWcT5uVaKdL and chatcmpl-9hRn0JXoBm3iZqWcT5uVaKdLpQ",
        "4222222222222 is a barcode, Chrome/13.0.832.0, rv:1.9.5.20",
        "ab345678-2341-2341-2346-0a3456789012",
        "src/Bin/Aa1/Bb2/Cc3/Dd4/Ee5/Documents9",
        "ISBN 0-08-036609-0 and 978-1-09-351670-8",
        "version 1.2.3.4 and v1.2.3.4 and 1.2.3.4.5",
        "commit 12345678a, ids 12345678-z",
        "the hotel 12345678, retelling 1234567 times",
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
    let redactor = Redactor::default();
    let mut session = redactor.session_of(b"later: [EMAIL_3]");
    assert_eq!(session.text("a@x.org"), "[EMAIL_4]");
}

#[test]
fn keyed_placeholders_join_runs_and_depend_on_the_key() {
    let of = |key: &str| {
        let policy = Policy { key: Some(key.as_bytes().to_vec()), ..Policy::default() };
        Redactor::new(&policy).expect("compiles").session().text("a@x.org").into_owned()
    };
    let (one, two) = ("the first of two keys", "the second of two");
    assert_eq!(of(one), of(one));
    assert_ne!(of(one), of(two));
    assert_eq!(redacted(&of(one)), of(one), "a second pass keeps it");
    let short = Redactor::new(&Policy { key: Some(b"too short".to_vec()), ..Policy::default() }).expect_err("refused");
    assert_eq!(short.to_string(), "has 9 bytes; a key must have at least 16");
}

#[test]
fn names_are_whole_words_in_any_case_and_kinds_can_be_kept() {
    let policy = Policy { names: vec!["Ann".into(), "Ann Lee".into()], keep: vec![Kind::Ip], ..Policy::default() };
    let redactor = Redactor::new(&policy).expect("compiles");
    let answer = redactor.session().text("ANN LEE, ann, Annabel at 203.0.113.9").into_owned();
    assert_eq!(answer, "[NAME_1], [NAME_2], Annabel at 203.0.113.9");
    assert_ne!(redactor.version(), Redactor::new(&Policy::default()).expect("compiles").version());
    for bad in ["A", "", "77", &"x".repeat(101)] {
        let policy = Policy { names: vec!["Ann".into(), bad.into()], ..Policy::default() };
        let error = Redactor::new(&policy).expect_err("refused").to_string();
        assert!(error.starts_with("has an invalid entry at position 2;"), "{error}");
    }
    let policy = Policy { names: vec!["Jörg Müller".into(), "Ann Lee".into(), "Ann".into()], ..Policy::default() };
    let redactor = Redactor::new(&policy).expect("compiles");
    let answer = redactor.session().text("JÖRG MÜLLER, jörg müller, Jörg Müllerin and ann leeds").into_owned();
    assert_eq!(answer, "[NAME_1], [NAME_2], Jörg Müllerin and [NAME_3] leeds");
    assert!(!format!("{policy:?}").contains("Lee"));
}

#[test]
fn json_keeps_order_numbers_and_spaces() {
    let document = r#"{ "a" : 1.50, "z":[ "a@x.org", {"b\n":"x\u0040y.org"} ], "a":1e3, "a":null }"#;
    let expected = r#"{ "a" : 1.50, "z":[ "[EMAIL_1]", {"b\n":"[EMAIL_2]"} ], "a":1e3, "a":null }"#;
    assert_eq!(redacted_json(document), expected);
}

#[test]
fn keys_of_json_are_redacted_too() {
    assert_eq!(redacted_json(r#"{"a@x.org":{"b@x.org":"a@x.org"}}"#), r#"{"[EMAIL_1]":{"[EMAIL_2]":"[EMAIL_1]"}}"#);
}

#[test]
fn the_key_of_a_json_value_says_what_it_is() {
    assert_eq!(redacted_json(r#"{"password":"a b","tokens":12}"#), r#"{"password":"[SECRET_1]","tokens":12}"#);
    assert_eq!(redacted_json(r#"{"bsn":["111222333"]}"#), r#"{"bsn":["[NATIONAL_ID_1]"]}"#);
    assert_eq!(redacted_json(r#"{"count":111222333}"#), r#"{"count":111222333}"#);
    let document =
        r#"{"dbPassword":"a","stripe_secret_key":"b","token":"the","max_tokens":"9","cache_key":"9f2c41ab03d29f2c"}"#;
    let expected = r#"{"dbPassword":"[SECRET_1]","stripe_secret_key":"[SECRET_2]","token":"the","max_tokens":"9","cache_key":"9f2c41ab03d29f2c"}"#;
    assert_eq!(redacted_json(document), expected);
    assert_eq!(
        redacted_json(r#"{"pesel":44051401359,"n":44051401359}"#),
        r#"{"pesel":"[NATIONAL_ID_1]","n":44051401359}"#
    );
    assert_eq!(redacted_json(r#"{"userPhone":"5551234567"}"#), r#"{"userPhone":"[PHONE_1]"}"#);
    let document = r#"{"tool_call_id":"t9Kq2ZxV7bLm4Rw8PcY1Qd6H","traceId":"t9Kq2ZxV7bLm4Rw8PcY1Qd6H","note":"t9Kq2ZxV7bLm4Rw8PcY1Qd6H"}"#;
    assert_eq!(
        redacted_json(document),
        document.replace(r#""note":"t9Kq2ZxV7bLm4Rw8PcY1Qd6H""#, r#""note":"[SECRET_1]""#)
    );
    let twice = redacted_json(r#"{"api_key":"x"}"#);
    assert_eq!(redacted_json(&twice), twice);
}

#[test]
fn a_document_inside_a_string_is_redacted() {
    let document = r#"{"arguments":"{\"to\":\"a@x.org\",\"password\":\"hunter22\"}"}"#;
    let expected = r#"{"arguments":"{\"to\":\"[EMAIL_1]\",\"password\":\"[SECRET_1]\"}"}"#;
    assert_eq!(redacted_json(document), expected);
}
