//! Parses JSON to find its problems: duplicate keys, invalid numbers, and syntax errors with their positions.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::reason::{Problem, Reason};
use crate::schema::escape;

/// Number literals that many languages write but JSON does not allow, each with a replacement of the same length.
const NOT_NUMBERS: [(&str, &str); 3] = [("-Infinity", "0        "), ("Infinity", "0       "), ("NaN", "0  ")];

/// Most invalid numbers reported for one message.
const MAX_INVALID_NUMBERS: usize = 50;

/// Parses a message. Invalid numbers are reported and replaced, so that the problems after them are found too.
pub(crate) fn parse(text: &str) -> (Option<Value>, Vec<Problem>) {
    let mut found = Vec::new();
    let mut text = text.to_owned();
    for _ in 0..MAX_INVALID_NUMBERS {
        let (mut duplicates, path) = (Vec::new(), RefCell::new(String::new()));
        let error = match parse_once(&text, &path, &mut duplicates) {
            Ok(value) => {
                found.append(&mut duplicates);
                return (Some(value), found);
            }
            Err(error) => error,
        };
        let index = index_of(&text, &error);
        if let Some(number) = number_beyond(&text, index, &error) {
            let explanation = "number too large for a 64-bit float: omit the field or write null";
            found.push(Problem::new(Reason::OutOfRange, path.into_inner(), explanation));
            let other = format!("0{}", " ".repeat(number.len() - 1));
            text.replace_range(number, &other);
            continue;
        }
        let near = |(name, _): &&(&str, &str)| (index.saturating_sub(2)..=index).any(|at| starts_at(&text, at, name));
        let Some((name, other)) = NOT_NUMBERS.iter().find(near) else {
            found.push(not_json(&error, path.into_inner()));
            break;
        };
        let explanation = format!("`{name}` is not JSON: omit the field or write null");
        found.push(Problem::new(Reason::NotJson, path.into_inner(), explanation));
        let at = (index.saturating_sub(2)..=index).find(|at| starts_at(&text, *at, name)).unwrap_or(index);
        text.replace_range(at..at + name.len(), other);
    }
    (None, found)
}

fn starts_at(text: &str, at: usize, name: &str) -> bool {
    text.as_bytes().get(at..).is_some_and(|rest| rest.starts_with(name.as_bytes()))
}

/// Returns the byte index of an error's line and column.
fn index_of(text: &str, error: &serde_json::Error) -> usize {
    let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    line + error.column().saturating_sub(1)
}

/// Returns the range of a number that is valid JSON but too large for a double.
fn number_beyond(text: &str, index: usize, error: &serde_json::Error) -> Option<Range<usize>> {
    if !error.to_string().starts_with("number out of range") {
        return None;
    }
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let (before, after) = text.as_bytes().split_at_checked(index)?;
    let from = index - before.iter().rev().take_while(|byte| is_part(byte)).count();
    let end = index + after.iter().take_while(|byte| is_part(byte)).count();
    (from < end).then_some(from..end)
}

fn not_json(error: &serde_json::Error, path: String) -> Problem {
    let at = format!("line {}, column {}", error.line(), error.column());
    if error.to_string().starts_with("trailing characters") {
        let explanation = format!("second JSON value at {at}: send one event per message");
        return Problem::new(Reason::TrailingData, "", explanation);
    }
    // The field in which a truncated message ends is not the cause.
    let path = if error.is_eof() { String::new() } else { path };
    Problem::new(Reason::NotJson, path, format!("invalid JSON: {error}"))
}

/// Parses one JSON value, and adds duplicate keys to the problems.
fn parse_once(text: &str, path: &RefCell<String>, found: &mut Vec<Problem>) -> Result<Value, serde_json::Error> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = TreeVisitor { path, duplicates: &duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    found.append(&mut duplicates.into_inner());
    read
}

/// Builds a [`Value`], tracking the pointer of the value being read.
#[derive(Clone, Copy)]
struct TreeVisitor<'a> {
    path: &'a RefCell<String>,
    duplicates: &'a RefCell<Vec<Problem>>,
}

impl TreeVisitor<'_> {
    /// Reads a value one level down. After an error `path` still points to it.
    fn below<T, E>(self, step: &str, read: impl FnOnce(Self) -> Result<T, E>) -> Result<T, E> {
        let length = self.path.borrow().len();
        self.path.borrow_mut().push_str(&format!("/{}", escape(step)));
        let value = read(self)?;
        self.path.borrow_mut().truncate(length);
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for TreeVisitor<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeVisitor<'_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = self.below(&list.len().to_string(), |tree| entries.next_element_seed(tree))? {
            list.push(entry);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = self.below(&name, |tree| entries.next_value_seed(tree))?;
            if fields.insert(name.clone(), value).is_some() {
                let pointer = format!("{}/{}", self.path.borrow(), escape(&name));
                let explanation = format!("key `{name}` occurs twice: remove one");
                self.duplicates.borrow_mut().push(Problem::new(Reason::DuplicateKey, pointer, explanation));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(Reason, String)> {
        parse(text).1.into_iter().map(|problem| (problem.reason, problem.pointer)).collect()
    }

    #[test]
    fn invalid_numbers_are_reported_at_their_pointers_and_the_rest_is_read() {
        let text = "{\"a\": [1, NaN],\n \"b\": {\"c\": -Infinity, \"c\": Infinity}, \"d\": \"NaN\"}";
        let expected = ["/a/1", "/b/c", "/b/c"].map(|pointer| (Reason::NotJson, pointer.to_owned()));
        let mut expected = expected.to_vec();
        expected.push((Reason::DuplicateKey, "/b/c".to_owned()));
        assert_eq!(found(text), expected);
        assert_eq!(parse(text).0, Some(serde_json::json!({ "a": [1, 0], "b": { "c": 0 }, "d": "NaN" })));
        assert_eq!(
            found(r#"{"a": [-1.5e999, 1e+400]}"#),
            ["/a/0", "/a/1"].map(|at| (Reason::OutOfRange, at.to_owned()))
        );
        assert_eq!(found("1e999"), [(Reason::OutOfRange, String::new())]);
        assert_eq!(found("NaN"), [(Reason::NotJson, String::new())]);
        assert!(parse(&format!("[{}1]", "NaN,".repeat(200))).0.is_none());
    }

    #[test]
    fn a_syntax_error_is_reported_at_its_field_unless_the_text_is_truncated() {
        assert_eq!(found(r#"{"a": {"b": tru}}"#), [(Reason::NotJson, "/a/b".to_owned())]);
        assert_eq!(found(r#"{"a": {"b": 1"#), [(Reason::NotJson, String::new())]);
        assert_eq!(found("{}{}"), [(Reason::TrailingData, String::new())]);
        assert_eq!(found("hello"), [(Reason::NotJson, String::new())]);
    }
}
