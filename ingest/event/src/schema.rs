//! The published JSON Schema, and a reader that holds a value against it and says every problem with what to do.
//!
//! The reader knows the keywords that the schema uses, no more; a test walks the schema and fails on any other.

use std::cell::RefCell;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::reason::{Problem, Reason};
use crate::units;

/// Problems of one message that are listed at most; the rest follows once these are mended.
const LISTED: usize = 50;

static ROOT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(schema()).expect("the schema of this crate is JSON, as a test shows"));

/// The published JSON Schema (2020-12) as text.
pub const fn schema() -> &'static str {
    include_str!("schema.json")
}

/// Every problem of a value, by the schema.
pub fn problems(value: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    check_schema(&ROOT, value, "", &mut found);
    found
}

/// Every problem of a message that is not about the time of day: JSON, nesting, schema.
pub fn check(message: &str, max_depth: usize) -> Vec<Problem> {
    let mut found = Vec::new();
    if depth(message.as_bytes()) > max_depth {
        return vec![too_deep(max_depth)];
    }
    match parse(message, "", &mut found) {
        Ok(value) => check_schema(&ROOT, &value, "", &mut found),
        Err(problem) => found.push(problem),
    }
    found.truncate(LISTED);
    found
}

/// Holds a value against one definition of the schema.
pub(crate) fn check_definition(name: &str, value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    if let Some(schema) = ROOT.get("$defs").and_then(|definitions| definitions.get(name)) {
        check_schema(schema, value, pointer, found);
    }
}

/// What a message is told that is nested too deeply.
pub(crate) fn too_deep(max_depth: usize) -> Problem {
    Problem::new(Reason::TooDeep, "", format!("objects and lists are nested deeper than {max_depth}: flatten them"))
}

/// Deepest nesting of objects and lists.
pub(crate) fn depth(text: &[u8]) -> usize {
    let (mut deepest, mut now, mut in_text, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !in_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

// === holding a value against a schema ===

fn check_schema(schema: &Value, value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        if let Some(schema) = target.strip_prefix('#').and_then(|path| ROOT.pointer(path)) {
            check_schema(schema, value, pointer, found);
        }
        return;
    }
    if !type_fits(schema, value) {
        let what = format!("this is {}; write {}", name_of(value), describe(schema));
        found.push(Problem::new(Reason::WrongType, pointer, what));
        return;
    }
    check_words(schema, value, pointer, found);
    match value {
        Value::String(text) => check_text(schema, text, pointer, found),
        Value::Number(number) => check_number(schema, number, pointer, found),
        Value::Array(entries) => check_list(schema, entries, pointer, found),
        Value::Object(fields) => check_object(schema, fields, pointer, found),
        Value::Null | Value::Bool(_) => {}
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        check_conditional(part, value, pointer, found);
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        check_choices(choices, value, pointer, found);
    }
}

fn check_conditional(part: &Value, value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    if let (Some(condition), Some(then)) = (part.get("if"), part.get("then")) {
        let mut unmet = Vec::new();
        check_schema(condition, value, pointer, &mut unmet);
        if unmet.is_empty() {
            check_schema(then, value, pointer, found);
        }
    }
}

fn check_choices(choices: &[Value], value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    let fits = choices.iter().any(|choice| {
        let mut unmet = Vec::new();
        check_schema(choice, value, pointer, &mut unmet);
        unmet.is_empty()
    });
    if !fits {
        let names: Vec<String> = choices
            .iter()
            .filter_map(|choice| choice.pointer("/required/0").and_then(Value::as_str))
            .map(|name| format!("`{name}`"))
            .collect();
        let what = format!("add at least one of {}", names.join(", "));
        found.push(Problem::new(Reason::MissingField, pointer, what));
    }
}

fn type_fits(schema: &Value, value: &Value) -> bool {
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_number().is_some_and(is_whole),
        _ => false,
    };
    match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(fits),
        Some(kind) => kind.as_str().is_some_and(fits),
    }
}

fn is_whole(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn check_words(schema: &Value, value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    let known = match (schema.get("enum").and_then(Value::as_array), schema.get("const")) {
        (Some(words), _) => words.contains(value),
        (None, Some(word)) => word == value,
        (None, None) => true,
    };
    if !known {
        let what = format!("not a known value; write {}", describe(schema));
        found.push(Problem::new(Reason::UnknownValue, pointer, what).with_value(shorten(value)));
    }
}

fn check_text(schema: &Value, text: &str, pointer: &str, found: &mut Vec<Problem>) {
    let length = text.chars().count() as u64;
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(least) = limit("minLength").filter(|least| length < *least) {
        let what = format!("has {length} characters; at least {least} are needed");
        found.push(Problem::new(Reason::TooShort, pointer, what));
    }
    if let Some(most) = limit("maxLength").filter(|most| length > *most) {
        let what = format!("has {length} characters; at most {most} fit: shorten it");
        found.push(Problem::new(Reason::TooLong, pointer, what));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !pattern_fits(pattern, text)
    {
        let reason = if pointer == "/spec" { Reason::UnknownSpec } else { Reason::Pattern };
        let what = format!("write it in the form {}", pattern_words(pattern));
        found.push(Problem::new(reason, pointer, what).with_value(shorten(&Value::from(text))));
    }
    if schema.get("format").is_some() && units::rfc3339_micros(text).is_none() {
        let what = "not an RFC 3339 time with a zone; write it like 2026-11-23T10:00:00.250Z";
        found.push(Problem::new(Reason::TimeFormat, pointer, what).with_value(shorten(&Value::from(text))));
    }
}

fn check_number(schema: &Value, number: &Number, pointer: &str, found: &mut Vec<Problem>) {
    let Some(number) = number.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let below = bound("minimum").is_some_and(|least| number < least)
        || bound("exclusiveMinimum").is_some_and(|least| number <= least);
    if below || bound("maximum").is_some_and(|most| number > most) {
        let what = format!("out of range; write {}", describe(schema));
        found.push(Problem::new(Reason::OutOfRange, pointer, what).with_value(number.to_string()));
    }
}

fn check_list(schema: &Value, entries: &[Value], pointer: &str, found: &mut Vec<Problem>) {
    let most = schema.get("maxItems").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if entries.len() as u64 > most {
        let what = format!("has {} entries; at most {most} fit: send the ones that matter", entries.len());
        found.push(Problem::new(Reason::TooMany, pointer, what));
    }
    if let Some(each) = schema.get("items") {
        for (n, entry) in entries.iter().enumerate() {
            check_schema(each, entry, &format!("{pointer}/{n}"), found);
        }
    }
}

fn check_object(schema: &Value, fields: &Map<String, Value>, pointer: &str, found: &mut Vec<Problem>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            let what = match properties.and_then(|properties| properties.get(name)) {
                Some(schema) => format!("add `{name}`: {}", describe(schema)),
                None => format!("add `{name}`"),
            };
            found.push(Problem::new(Reason::MissingField, format!("{pointer}/{}", escape(name)), what));
        }
    }
    let most = schema.get("maxProperties").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if fields.len() as u64 > most {
        let what = format!("has {} entries; at most {most} fit", fields.len());
        found.push(Problem::new(Reason::TooMany, pointer, what));
    }
    for (name, value) in fields {
        let known = properties.and_then(|properties| properties.get(name));
        if let Some(schema) = known.or_else(|| schema.get("additionalProperties")) {
            check_schema(schema, value, &format!("{pointer}/{}", escape(name)), found);
        }
    }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn shorten(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What a schema asks for, in words.
fn describe(schema: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words.iter().map(|word| format!("`{}`", shorten(word))).collect();
        return format!("one of {}", words.join(", "));
    }
    if schema.get("format").is_some() {
        return "an RFC 3339 time with a zone, like 2026-11-23T10:00:00.250Z".to_owned();
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        return format!("a text of the form {}", pattern_words(pattern));
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        Some(kind) => kind.as_str().into_iter().collect(),
        None => vec!["object"],
    };
    let bound = |name: &str| schema.get(name).map(ToString::to_string);
    let words: Vec<String> = kinds
        .iter()
        .map(|kind| match *kind {
            "string" => match bound("maxLength") {
                Some(most) => format!("a text of at most {most} characters"),
                None => "a text".to_owned(),
            },
            "integer" | "number" => {
                let name = if *kind == "integer" { "a whole number" } else { "a number" };
                let least = bound("minimum").map(|least| format!(" from {least}"));
                let above = bound("exclusiveMinimum").map(|least| format!(" above {least}"));
                let most = bound("maximum").map(|most| format!(" up to {most}"));
                [Some(name.to_owned()), least, above, most].into_iter().flatten().collect()
            }
            "boolean" => "true or false".to_owned(),
            "array" => "a list".to_owned(),
            "null" => "null".to_owned(),
            _ => "an object".to_owned(),
        })
        .collect();
    words.join(" or ")
}

/// How a pattern is checked, and how it reads in words.
type Pattern = (fn(&str) -> bool, &'static str);

/// The patterns of the schema.
fn pattern_of(pattern: &str) -> Option<Pattern> {
    fn hex(text: &str, digits: usize) -> bool {
        text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
    Some(match pattern {
        r"^run-event/1(\.[0-9]+)?$" => (spec_is_known, "`run-event/1` or `run-event/1.N`"),
        "^sha256:[0-9a-f]{64}$" => (
            |text| text.strip_prefix("sha256:").is_some_and(|digits| hex(digits, 64)),
            "`sha256:` and 64 hexadecimal digits",
        ),
        r"^[0-9]{1,9}(\.[0-9]{1,12})?$" => {
            (|text| units::amount_nanos(text).is_some(), "`0.004713`: at most 9 digits, a point and at most 12 more")
        }
        "^[A-Z]{3}$" => {
            (|text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()), "`USD` (ISO 4217)")
        }
        "^[0-9a-f]{32}$" => (|text| hex(text, 32), "32 hexadecimal digits"),
        "^[0-9a-f]{16}$" => (|text| hex(text, 16), "16 hexadecimal digits"),
        _ => return None,
    })
}

/// True for `run-event/1` and its minors.
pub(crate) fn spec_is_known(spec: &str) -> bool {
    match spec.strip_prefix("run-event/1") {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('.')
            .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())),
        None => false,
    }
}

fn pattern_fits(pattern: &str, text: &str) -> bool {
    pattern_of(pattern).is_some_and(|(fits, _)| fits(text))
}

fn pattern_words(pattern: &str) -> &str {
    pattern_of(pattern).map_or(pattern, |(_, words)| words)
}

// === reading JSON with its duplicate keys ===

/// Reads one JSON value; keys that stand twice are added to the problems.
pub(crate) fn parse(text: &str, pointer: &str, found: &mut Vec<Problem>) -> Result<Value, Problem> {
    let path = RefCell::new(pointer.to_owned());
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Tree { path: &path, duplicates: &duplicates }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    found.append(&mut duplicates.into_inner());
    read.map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        if error.to_string().starts_with("trailing characters") {
            let what = format!("a second value begins at {at}: send one event a message");
            return Problem::new(Reason::TrailingData, pointer, what);
        }
        let what = format!("not JSON at {at}: {error}");
        Problem::new(Reason::NotJson, pointer, what)
    })
}

#[derive(Clone, Copy)]
struct Tree<'a> {
    path: &'a RefCell<String>,
    duplicates: &'a RefCell<Vec<Problem>>,
}

impl Tree<'_> {
    /// Reads an entry one step further down.
    fn below<T>(self, step: &str, read: impl FnOnce(Self) -> T) -> T {
        let length = self.path.borrow().len();
        self.path.borrow_mut().push_str(&format!("/{}", escape(step)));
        let value = read(self);
        self.path.borrow_mut().truncate(length);
        value
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
                let what = format!("`{name}` stands twice: keep the one that is meant");
                self.duplicates.borrow_mut().push(Problem::new(Reason::DuplicateKey, pointer, what));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYWORDS: [&str; 30] = [
        "$schema",
        "$id",
        "title",
        "description",
        "default",
        "type",
        "required",
        "properties",
        "allOf",
        "anyOf",
        "if",
        "then",
        "const",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maxProperties",
        "additionalProperties",
        "$ref",
        "$defs",
        "x-known-values",
        "$comment",
        "examples",
    ];

    fn walk(schema: &Value) {
        let Some(fields) = schema.as_object() else { return };
        for (name, value) in fields {
            assert!(KEYWORDS.contains(&name.as_str()), "the reader does not know `{name}`");
            match name.as_str() {
                "pattern" => assert!(pattern_of(value.as_str().expect("text")).is_some(), "{value}"),
                "format" => assert_eq!(value, "date-time"),
                "properties" | "$defs" => value.as_object().expect("object").values().for_each(walk),
                "allOf" | "anyOf" => value.as_array().expect("list").iter().for_each(walk),
                "if" | "then" | "items" | "additionalProperties" => walk(value),
                _ => {}
            }
        }
    }

    #[test]
    fn the_reader_knows_every_keyword_of_the_schema() {
        walk(&ROOT);
    }

    #[test]
    fn depth_counts_nesting_and_not_text() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[{"}]}"#), 3);
    }
}
