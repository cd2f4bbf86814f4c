//! Reading JSON for what is wrong with it: keys that stand twice, and where it is not JSON.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::reason::{Problem, Reason};
use crate::schema::escape;

/// Numbers that JSON does not have, as many languages write them, and in their place one of the same length.
const NOT_NUMBERS: [(&str, &str); 3] = [("-Infinity", "0        "), ("Infinity", "0       "), ("NaN", "0  ")];

/// Of these so many are told of; then the message is left at that.
const NOT_NUMBERS_TOLD: usize = 50;

/// Reads a message, as far as it is JSON. Where it has numbers that JSON does not have, it is read on with others.
pub(crate) fn parse(text: &str) -> (Option<Value>, Vec<Problem>) {
    let mut found = Vec::new();
    let mut text = text.to_owned();
    for _ in 0..NOT_NUMBERS_TOLD {
        let (mut duplicates, path) = (Vec::new(), RefCell::new(String::new()));
        let error = match parse_once(&text, &path, &mut duplicates) {
            Ok(value) => {
                found.append(&mut duplicates);
                return (Some(value), found);
            }
            Err(error) => error,
        };
        let place = place_of(&text, &error);
        if let Some(number) = number_beyond(&text, place, &error) {
            let what = "number too large for a 64-bit float: omit the field or write null";
            found.push(Problem::new(Reason::OutOfRange, path.into_inner(), what));
            let other = format!("0{}", " ".repeat(number.len() - 1));
            text.replace_range(number, &other);
            continue;
        }
        let near = |(name, _): &&(&str, &str)| (place.saturating_sub(2)..=place).any(|at| starts_at(&text, at, name));
        let Some((name, other)) = NOT_NUMBERS.iter().find(near) else {
            found.push(not_json(&error, path.into_inner()));
            break;
        };
        let what = format!("`{name}` is not JSON: omit the field or write null");
        found.push(Problem::new(Reason::NotJson, path.into_inner(), what));
        let at = (place.saturating_sub(2)..=place).find(|at| starts_at(&text, *at, name)).unwrap_or(place);
        text.replace_range(at..at + name.len(), other);
    }
    (None, found)
}

fn starts_at(text: &str, at: usize, name: &str) -> bool {
    text.as_bytes().get(at..).is_some_and(|rest| rest.starts_with(name.as_bytes()))
}

/// Bytes before the place that an error names by line and column.
fn place_of(text: &str, error: &serde_json::Error) -> usize {
    let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    line + error.column().saturating_sub(1)
}

/// Where a number stands that is JSON, and that no double holds.
fn number_beyond(text: &str, place: usize, error: &serde_json::Error) -> Option<Range<usize>> {
    if !error.to_string().starts_with("number out of range") {
        return None;
    }
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let (before, after) = text.as_bytes().split_at_checked(place)?;
    let from = place - before.iter().rev().take_while(|byte| is_part(byte)).count();
    let end = place + after.iter().take_while(|byte| is_part(byte)).count();
    (from < end).then_some(from..end)
}

fn not_json(error: &serde_json::Error, path: String) -> Problem {
    let at = format!("line {}, column {}", error.line(), error.column());
    if error.to_string().starts_with("trailing characters") {
        let what = format!("second JSON value at {at}: send one event per message");
        return Problem::new(Reason::TrailingData, "", what);
    }
    // Where a message breaks off says nothing of the field it breaks off in.
    let path = if error.is_eof() { String::new() } else { path };
    Problem::new(Reason::NotJson, path, format!("invalid JSON: {error}"))
}

/// Reads one JSON value; keys that stand twice are added to the problems.
fn parse_once(text: &str, path: &RefCell<String>, found: &mut Vec<Problem>) -> Result<Value, serde_json::Error> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Tree { path, duplicates: &duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    found.append(&mut duplicates.into_inner());
    read
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    path: &'a RefCell<String>,
    duplicates: &'a RefCell<Vec<Problem>>,
}

impl Tree<'_> {
    /// Reads an entry one step further down. After an error the path says where it was.
    fn below<T, E>(self, step: &str, read: impl FnOnce(Self) -> Result<T, E>) -> Result<T, E> {
        let length = self.path.borrow().len();
        self.path.borrow_mut().push_str(&format!("/{}", escape(step)));
        let value = read(self)?;
        self.path.borrow_mut().truncate(length);
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
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
                let what = format!("key `{name}` occurs twice: remove one");
                self.duplicates.borrow_mut().push(Problem::new(Reason::DuplicateKey, pointer, what));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(Reason, String)> {
        parse(text).1.into_iter().map(|problem| (problem.reason, problem.pointer)).collect()
    }

    #[test]
    fn numbers_that_are_none_are_told_of_where_they_stand_and_the_rest_is_read() {
        let text = "{\"a\": [1, NaN],\n \"b\": {\"c\": -Infinity, \"c\": Infinity}, \"d\": \"NaN\"}";
        let expected = ["/a/1", "/b/c", "/b/c"].map(|pointer| (Reason::NotJson, pointer.to_owned()));
        let mut expected = expected.to_vec();
        expected.push((Reason::DuplicateKey, "/b/c".to_owned()));
        assert_eq!(told(text), expected);
        assert_eq!(parse(text).0, Some(serde_json::json!({ "a": [1, 0], "b": { "c": 0 }, "d": "NaN" })));
        assert_eq!(
            told(r#"{"a": [-1.5e999, 1e+400]}"#),
            ["/a/0", "/a/1"].map(|at| (Reason::OutOfRange, at.to_owned()))
        );
        assert_eq!(told("1e999"), [(Reason::OutOfRange, String::new())]);
        assert_eq!(told("NaN"), [(Reason::NotJson, String::new())]);
        assert!(parse(&format!("[{}1]", "NaN,".repeat(200))).0.is_none());
    }

    #[test]
    fn what_is_no_json_is_told_of_by_its_field_unless_it_breaks_off() {
        assert_eq!(told(r#"{"a": {"b": tru}}"#), [(Reason::NotJson, "/a/b".to_owned())]);
        assert_eq!(told(r#"{"a": {"b": 1"#), [(Reason::NotJson, String::new())]);
        assert_eq!(told("{}{}"), [(Reason::TrailingData, String::new())]);
        assert_eq!(told("hello"), [(Reason::NotJson, String::new())]);
    }
}
