//! Nothing is found in what is passed over. With a list of names, every text is searched by all detectors; without one, most texts
//! and most strings of documents are passed over by their classes of bytes. Both give the same result.

use bellwether_redact::{Policy, Redactor};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

/// Values of each kind, values that nearly are one, words that introduce one, and what joins or ends them.
const PARTS: &[&str] = &[
    "a@b.org",
    "ann.lee+x@mail.example.org",
    "a@",
    "@",
    "@b.org",
    "https://ann:secret@x.org/",
    "://",
    "4111 1111 1111 1111",
    "4111111111111111",
    "card_4111111111111111",
    "378282246310005",
    "4222222222222",
    "GB82 WEST 1234 5698 7654 32",
    "GB82-WEST-1234-5698-7654-32",
    "DE89370400440532013000",
    "GB82",
    "GB8",
    "AB123456C",
    "ab 12 34 56 c",
    "AB 12 34",
    "12345678Z",
    "12345678-z",
    "0.12345678Z",
    "X1234567L",
    "x-1234567-l",
    "1 84 05 2A 004 006 28",
    "184052A00400628",
    "RSSMRA85T10A562S",
    "ABCPE1234F",
    "52998224725",
    "529.982.247-25",
    "86 095 742 719",
    "111222333",
    "078-05-1120",
    "943 476 5919",
    "9434765919",
    "2341 2341 2346",
    "255081416802538",
    "+44 20 7946 0958",
    "(415) 555-2671",
    "415\u{2011}555\u{2013}2671",
    "5551234567",
    "5551234567x12",
    "020 7946 0958",
    "98765 43210",
    "2026-11-30",
    "2026-11-30 10",
    "9434-76-59 19",
    "+2026-11-30",
    "10:12:13",
    "1.5",
    "12.3456789",
    "1700000000000",
    "203.0.113.9",
    "1.2.3.4.5",
    "2001:db8::7334",
    "1:2:3:4:5:6:7:8",
    "::ffff:1.2.3.4",
    "std::net",
    "t9Kq2ZxV7bLm4Rw8PcY1Qd6H",
    "uXQwvBZrtYpLmNSDfgHJkqWErTyuIOpa",
    "Wq3/aZ81kPq+Tn/0bYxMm2/QvRc7Hs9e",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "AKIAIOSFODNN7EXAMPLE",
    "call_9hRn0JXoBm3iZqWcT5uVaKdL",
    "get_reservation_details",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    "eyJaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbb.cccccc",
    "-----BEGIN RSA PRIVATE KEY-----",
    "-----END RSA PRIVATE KEY-----",
    "----",
    "password",
    "pass_word",
    "api key",
    "token",
    "contraseña",
    "Authorization",
    "hunter22",
    "zxcvbnmqwrtpsdfghjkl",
    "Bearer abc.def-123456",
    "bearer ",
    ": Basic YW5uOmh1bnRlcg==",
    "phone",
    "card",
    "ssn",
    "nie",
    "version",
    " is ",
    ": ",
    "=",
    "==",
    "\"",
    "'",
    "\\",
    "\n",
    "\t",
    "/",
    ".",
    "-",
    "_",
    "+",
    "(",
    ")",
    " ",
    "  ",
    "\u{a0}",
    "é",
    "n",
    "x",
    "1",
    "12",
    "a word",
];

fn text() -> impl Strategy<Value = String> {
    let cut = (select(PARTS), any::<prop::sample::Index>()).prop_map(|(part, at)| {
        let places: Vec<usize> = part.char_indices().map(|(at, _)| at).collect();
        part[..places[at.index(places.len())]].to_owned()
    });
    let part = prop_oneof![
        8 => select(PARTS).prop_map(str::to_owned),
        2 => cut,
        1 => "[0-9]{1,20}",
        1 => "[a-zA-Z0-9_./+~-]{10,60}",
        1 => "[ -~]{0,70}",
        1 => "[0-9 ./()-]{1,20}",
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn key() -> impl Strategy<Value = String> {
    let names =
        ["a", "id", "call_id", "password", "dbPassword", "api_key", "token", "authorization", "cookie", "phone", "bsn"];
    prop_oneof![4 => select(names.to_vec()).prop_map(str::to_owned), 1 => text()]
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => text().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => (0..10_000_000_000_u64).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key(), inner.clone()), 0..4).prop_map(|fields| fields.into_iter().collect()),
            inner.prop_map(|inner| Value::from(inner.to_string())),
        ]
    })
}

/// Returns a redactor that searches every text: it looks for a name that is in none.
fn searching_all() -> Redactor {
    let policy = Policy { names: vec!["Nobody of this name".to_owned()], ..Policy::default() };
    Redactor::new(&policy).expect("compiles")
}

/// Writes a document with escapes in place of some characters.
fn escaped(document: &Value, every: usize) -> String {
    let text = document.to_string();
    let (mut escaped, mut in_string, mut after_backslash) = (String::with_capacity(text.len()), false, false);
    for (at, one) in text.chars().enumerate() {
        let is_plain = in_string && !after_backslash && !matches!(one, '"' | '\\');
        match one {
            '/' if is_plain && at.is_multiple_of(2) => escaped.push_str("\\/"),
            _ if is_plain && at.is_multiple_of(every) => {
                one.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
            }
            _ => escaped.push(one),
        }
        in_string ^= one == '"' && !after_backslash;
        after_backslash = one == '\\' && !after_backslash;
    }
    escaped
}

/// Escapes hide the name of a secret, and a list ends before another key.
#[test]
fn a_key_with_escapes_names_its_value_wherever_the_suspects_are() {
    let redactor = Redactor::default();
    for (document, expected) in [
        (r#"{"pas\u0073word":"\"\""}"#, r#"{"pas\u0073word":"[SECRET_1]"}"#),
        (r#"{"pas\u0073word" : ["null", 7]}"#, r#"{"pas\u0073word" : ["[SECRET_1]", 7]}"#),
        (
            r#"{"api_key":[1000000000],"p\u0061ssword":"null"}"#,
            r#"{"api_key":["[SECRET_1]"],"p\u0061ssword":"[SECRET_2]"}"#,
        ),
        (
            r#"{"a":[["x"],"a@x.org"],"phone":[{"b":[]},5551234567]}"#,
            r#"{"a":[["x"],"[EMAIL_1]"],"phone":[{"b":[]},"[PHONE_1]"]}"#,
        ),
    ] {
        assert_eq!(redactor.session().json(document), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_text_is_redacted_as_if_it_were_searched_by_all_detectors(name in key(), text in text()) {
        let (redactor, all) = (Redactor::default(), searching_all());
        prop_assert_eq!(redactor.session().text_of(&name, &text), all.session().text_of(&name, &text));
    }

    #[test]
    fn a_document_is_redacted_as_if_all_its_strings_were_searched(document in document(), every in 5..200_usize) {
        let (redactor, all) = (Redactor::default(), searching_all());
        for text in [document.to_string(), escaped(&document, every), format!("{document:#}")] {
            prop_assert_eq!(redactor.session().json(&text), all.session().json(&text), "{}", text);
        }
    }
}
