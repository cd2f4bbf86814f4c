//! The reader compared with `serde_json`, and its limits.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::*;

const LEVELS: usize = 100;

impl KnownValues for () {
    fn known_length(&self, _text: &str) -> usize {
        0
    }
}

/// Reads the whole text through every typed method of the reader.
fn read(text: &str) -> Parsed<Value> {
    let mut reader = JsonReader::new(text, LEVELS, &());
    let value = value(&mut reader)?;
    reader.expect_end().map(|()| value)
}

fn value(reader: &mut JsonReader<'_, '_>) -> Parsed<Value> {
    Ok(match reader.peek() {
        b'"' => Value::from(reader.text()?),
        b'{' => {
            let mut fields = Map::new();
            reader.object(|reader, key| {
                fields.insert(key.into_owned(), value(reader)?);
                Ok(())
            })?;
            Value::Object(fields)
        }
        b'[' => {
            let mut entries = Vec::new();
            reader.list(|reader| {
                entries.push(value(reader)?);
                Ok(())
            })?;
            Value::Array(entries)
        }
        b't' | b'f' => Value::from(reader.boolean()?),
        b'n' => {
            ensure(reader.null()?)?;
            Value::Null
        }
        _ => match reader.number()? {
            JsonNumber::Integer(number) => Value::from(number),
            JsonNumber::Real(number) => Value::from(number),
        },
    })
}

fn raw(text: &str) -> Parsed<&str> {
    let mut reader = JsonReader::new(text, LEVELS, &());
    let raw = reader.raw()?;
    reader.expect_end().map(|()| raw)
}

/// The reader returns doubles for integers of more than 18 digits; `serde_json` returns integers if 64 bits hold them.
fn as_doubles(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::from(number.as_f64()),
        Value::Array(entries) => entries.iter_mut().for_each(as_doubles),
        Value::Object(fields) => fields.values_mut().for_each(as_doubles),
        _ => {}
    }
}

/// Compares the reader with `serde_json`, which gets the text with lone surrogates replaced.
fn same_as_serde(text: &str) -> Result<(), TestCaseError> {
    let whole = replace_lone_surrogates(text);
    prop_assert_eq!(whole.len(), text.len());
    let (mut ours, mut theirs) = (read(text), serde_json::from_str::<Value>(&whole));
    ours.iter_mut().for_each(as_doubles);
    theirs.iter_mut().for_each(as_doubles);
    prop_assert_eq!(ours.ok(), theirs.ok(), "{}", text);
    let (ours, theirs) = (raw(text), serde_json::from_str::<&RawValue>(text));
    prop_assert_eq!(ours.ok(), theirs.ok().map(RawValue::get), "{}", text);
    Ok(())
}

#[test]
fn the_reader_accepts_and_refuses_the_same_texts_as_serde_json() {
    let texts = [
        "",
        " ",
        "null",
        "nul",
        "nulll",
        "true",
        "tru",
        "false",
        "fals",
        "x",
        "\u{0}",
        "null\u{0}",
        "[",
        "]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[]",
        "[[]",
        "[[]]",
        "{}",
        "{,}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{"a":1 "b":2}"#,
        r#"{1:2}"#,
        r#"{"a":1,"b":[{}]}"#,
        " { \"a\" :\t1 ,\r\n\"b\": [ 1 , 2 ] } ",
        "\u{a0}1",
        "0",
        "-0",
        "-",
        "00",
        "01",
        "-01",
        "1.",
        ".5",
        "1.5",
        "-1.5",
        "1e",
        "1e5",
        "1E+5",
        "1e-5",
        "1e+",
        "1.e5",
        "1.5e3",
        "1e400",
        "-1e400",
        "1e-400",
        "0e0",
        "+1",
        "0x1",
        "123456789012345678",
        "-123456789012345678",
        "1234567890123456789",
        "9223372036854775808",
        "18446744073709551616",
        "0.1",
        "0.30000000000000004",
        "9007199254740993",
        "9007199254740993.0",
        "123456789012345.6",
        "12345678901234.56",
        "0.000000000000001",
        "0.0000000000000000001",
        "NaN",
        "Infinity",
        "--1",
        "1-",
        r#""""#,
        r#"""#,
        r#""a"#,
        "\"a\nb\"",
        "\"\u{7f}é→𝄞\"",
        r#""\"\\\/\b\f\n\r\t""#,
        r#""\x""#,
        r#""\"#,
        r#""\u00e9""#,
        r#""\u00E9\u0000""#,
        r#""\u00g0""#,
        r#""\u12""#,
        r#""\ud834\udd1e""#,
        r#""\ud834""#,
        r#""\ud834x""#,
        r#""\ud834\n""#,
        r#""\ud834\u0041""#,
        r#""\udd1e""#,
        r#""\é""#,
        r#""01234567\n01234567\"0123456""#,
        r#"{"\u0061":1}"#,
        r#"["\ud834"]"#,
        r#"{"\ud834":["\udd1e"]}"#,
        r#""\\ud834 \\\ud834 \ud834\ud834\udd1e\udd1e""#,
        r#""\ud834\u00g0""#,
        r#""\ud834\u"#,
        r#""\uD83D\uDE00\uD83D""#,
        "'a'",
        "[1]2",
        "[1],",
    ];
    for text in texts {
        same_as_serde(text).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn nesting_is_accepted_up_to_the_limit() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let skips = |text: &str, levels| JsonReader::new(text, levels, &()).raw().is_ok();
    assert!(skips(&nested(5), 5) && !skips(&nested(6), 5));
    assert!(skips("[[[]],[[]],[[]]]", 3), "closed levels do not count");
    assert!(skips(r#"{"a":{"b":{}},"c":[[]]}"#, 3) && !skips(r#"{"a":{"b":{}},"c":[[]]}"#, 2));
    assert!(!skips(&"[".repeat(1_000_000), LEVELS));
}

#[test]
fn the_end_of_plain_text_is_found_at_every_index() {
    for length in 0..40 {
        for at in 0..=length {
            for stop in ['"', '\\', '\u{0}', '\u{1f}'] {
                let plain = "é".repeat(at);
                let text = format!("{plain}{stop}{}", " \u{7f}!#[]".repeat(length - at));
                assert_eq!(end_of_plain(text.as_bytes(), 0), plain.len(), "{text:?}");
            }
        }
    }
}

#[test]
fn a_lone_surrogate_is_replaced_in_keys_in_values_and_in_raw_text() {
    let text = r#"{"a\ud83d":["b\ude00c","\ud83d\ude00","\\ud83d"]}"#;
    let expected = serde_json::json!({ "a\u{fffd}": ["b\u{fffd}c", "😀", "\\ud83d"] });
    assert_eq!(read(text), Ok(expected));
    let mut reader = JsonReader::new(text, LEVELS, &());
    let repaired = reader.repaired_raw().expect("JSON");
    assert_eq!(repaired, r#"{"a\ufffd":["b\ufffdc","\ud83d\ude00","\\ud83d"]}"#);
    assert!(matches!(JsonReader::new("[1,\"é\"]", LEVELS, &()).repaired_raw(), Ok(Cow::Borrowed("[1,\"é\"]"))));
}

fn some_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z\"\\n]{0,20}", inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_as_serde_json_reads_it(text in "[\\[\\]{},:\" \\\\/nulltruefalse0-9.eE+é\u{0}-\u{1f}-]{0,24}") {
        same_as_serde(&text)?;
    }

    #[test]
    fn any_json_with_any_byte_changed_is_read_as_serde_json_reads_it(
        value in some_json(), pretty in any::<bool>(), place in any::<prop::sample::Index>(), byte in "[\\[\\]{},:\" \\\\0-9.e\u{0}-]",
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
        same_as_serde(&text)?;
        let at = place.index(text.len() + 1);
        if text.is_char_boundary(at) {
            same_as_serde(&format!("{}{byte}{}", &text[..at], &text[at..]))?;
            same_as_serde(&text[..at])?;
            let after: String = text[at..].chars().skip(1).collect();
            same_as_serde(&format!("{}{byte}{after}", &text[..at]))?;
        }
    }

    #[test]
    fn any_string_survives_in_both_spellings(text in any::<String>()) {
        let plain = serde_json::to_string(&text).expect("JSON");
        prop_assert_eq!(read(&plain), Ok(Value::from(text.as_str())));
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        prop_assert_eq!(read(&format!("\"{escaped}\"")), Ok(Value::from(text)));
    }

    #[test]
    fn any_double_is_read_back_to_the_bit(bits in any::<u64>(), digits in 0..20_usize) {
        let number = f64::from_bits(bits);
        prop_assume!(number.is_finite());
        for text in [format!("{number:?}"), format!("{number:e}"), format!("{:.digits$}", number % 1e9)] {
            let expected: f64 = text.parse().expect("a number");
            let found = match JsonReader::new(&text, 0, &()).number() {
                Ok(JsonNumber::Real(found)) => found,
                #[expect(clippy::cast_precision_loss, reason = "the nearest double is expected")]
                Ok(JsonNumber::Integer(found)) => found as f64,
                Err(Malformed) => f64::NAN,
            };
            prop_assert_eq!(found.to_bits(), expected.to_bits(), "{}", text);
        }
    }

    #[test]
    fn any_integer_is_read_exactly(integer in -999_999_999_999_999_999_i64..=999_999_999_999_999_999) {
        prop_assert_eq!(JsonReader::new(&integer.to_string(), 0, &()).number(), Ok(JsonNumber::Integer(integer)));
    }
}
