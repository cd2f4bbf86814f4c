//! The published JSON Schema, and a validator that reports every problem of a value with its remedy.
//!
//! The validator implements only the keywords that the schema uses; a test walks the schema and fails on any other.

use std::sync::LazyLock;

use serde_json::{Map, Number, Value};

use crate::parse::parse;
use crate::pattern::{CASES, pattern_fits, pattern_words};
use crate::reason::{Problem, Reason};
use crate::surrogate::replace_lone_surrogates;
use crate::units;

static ROOT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(schema()).expect("the schema of this crate is JSON, as a test shows"));

/// The consequence of a problem, from the `x-on-error` keywords of a value and of all that contains it.
#[derive(Clone, Copy)]
struct OnError {
    /// The event is rejected.
    rejects: bool,
    /// The value is kept as sent.
    keeps: bool,
}

/// A location in an event.
#[derive(Clone, Copy)]
struct Location<'a> {
    pointer: &'a str,
    on_error: OnError,
}

/// Returns the published JSON Schema (2020-12) as text.
pub const fn schema() -> &'static str {
    include_str!("schema.json")
}

/// Returns every problem of a value, including those that do not reject the event.
pub fn problems(value: &Value) -> Vec<Problem> {
    let mut found = Vec::new();
    check_event(value, &mut found);
    found
}

/// Returns every problem of a message that does not depend on the current time (JSON, nesting and schema), including those that
/// do not reject it.
pub fn check(message: &str, max_depth: usize) -> Vec<Problem> {
    let (value, mut found) = parsed(message.strip_prefix('\u{feff}').unwrap_or(message), max_depth);
    if let Some(value) = value {
        check_event(&value, &mut found);
    }
    found
}

/// Parses a message, and returns the problems of its JSON. The value is absent if the message is too deep or not JSON.
pub(crate) fn parsed(message: &str, max_depth: usize) -> (Option<Value>, Vec<Problem>) {
    if depth(message.as_bytes()) > max_depth {
        let explanation = format!("objects and arrays are nested more than {max_depth} levels deep: flatten them");
        return (None, vec![Problem::new(Reason::TooDeep, "", explanation)]);
    }
    let (value, mut found) = parse(&replace_lone_surrogates(message));
    if let Some(event) = &value {
        for problem in &mut found {
            let twice = problem.reason == Reason::DuplicateKey;
            if !twice && problem.reason != Reason::OutOfRange {
                continue;
            }
            // A release is hashed, and an invalid number has no canonical form.
            let hashed = !twice && problem.pointer.starts_with("/data/release/");
            problem.rejects = hashed || rejects_at(event, &problem.pointer);
            if twice && !problem.rejects {
                problem.message.push_str("; the event is kept with an unspecified one of them");
            }
        }
    }
    (value, found)
}

/// Checks a value against the whole schema.
pub(crate) fn check_event(value: &Value, found: &mut Vec<Problem>) {
    check_schema(&ROOT, value, Location { pointer: "", on_error: OnError { rejects: true, keeps: false } }, found);
}

/// Checks a value against the schema of one field of the envelope.
pub(crate) fn check_field(name: &str, value: &Value, pointer: &str, found: &mut Vec<Problem>) {
    if let Some(schema) = ROOT.get("properties").and_then(|fields| fields.get(name)) {
        check_schema(schema, value, Location { pointer, on_error: OnError { rejects: true, keeps: false } }, found);
    }
}

/// Returns true if the contract defines a field of a release at this pointer.
pub(crate) fn release_defines(pointer: &str) -> bool {
    let mut schema = ROOT.pointer("/$defs/release");
    for name in pointer.split('/').skip(1) {
        schema = schema.and_then(|schema| schema.get("properties")?.get(name));
    }
    schema.is_some()
}

/// Returns true if a malformed value at this pointer rejects the event.
fn rejects_at(event: &Value, pointer: &str) -> bool {
    let mut schema = &*ROOT;
    for (level, name) in pointer.split('/').skip(1).enumerate() {
        let name = name.replace("~1", "/").replace("~0", "~");
        let Some(next) = resolved(schema).get("properties").and_then(|fields| fields.get(&name)) else { return false };
        if next.get("x-on-error").and_then(Value::as_str) != Some("reject") {
            return false;
        }
        schema = if level == 0 && name == "data" { data_schema(event).unwrap_or(next) } else { next };
    }
    true
}

/// Returns the schema of an event's data.
fn data_schema(event: &Value) -> Option<&'static Value> {
    let named = event.get("type").and_then(Value::as_str).unwrap_or("run.completed");
    let fits = |part: &&Value| {
        let of = part.pointer("/if/properties/type");
        of.and_then(|of| of.get("const")).and_then(Value::as_str) == Some(named)
            || of.and_then(|of| of.pointer("/enum/0")).and_then(Value::as_str) == Some(named)
    };
    let part = ROOT.get("allOf")?.as_array()?.iter().find(fits)?;
    part.pointer("/then/properties/data").map(resolved)
}

/// Follows a schema that only refers to another, or to another and null.
fn resolved(schema: &'static Value) -> &'static Value {
    let named = schema.get("$ref").or_else(|| schema.pointer("/anyOf/0/$ref"));
    named.and_then(Value::as_str).and_then(|name| ROOT.pointer(name.strip_prefix('#')?)).unwrap_or(schema)
}

/// Returns the deepest nesting of objects and arrays.
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

// === checking a value against a schema ===

impl Location<'_> {
    /// Returns the location of a field with this schema.
    fn field<'b>(self, pointer: &'b str, schema: &Value) -> Location<'b> {
        let stated = schema.get("x-on-error").and_then(Value::as_str);
        let OnError { rejects, keeps } = self.on_error;
        let on_error = OnError { rejects: rejects && stated == Some("reject"), keeps: keeps || stated == Some("keep") };
        Location { pointer, on_error }
    }

    /// Returns the location of an array entry: its problems have the consequence of the array's.
    fn entry<'b>(self, pointer: &'b str) -> Location<'b> {
        Location { pointer, on_error: self.on_error }
    }

    /// Creates a problem here. The message adds the consequence if the event is not rejected.
    fn problem(self, reason: Reason, explanation: String) -> Problem {
        let OnError { rejects, keeps } = self.on_error;
        let kept = match (rejects, keeps) {
            (true, _) => "",
            (false, true) => "; the value is kept as sent",
            (false, false) => "; the event is kept without it",
        };
        Problem { rejects, ..Problem::new(reason, self.pointer, explanation + kept) }
    }

    /// Creates a problem here that only changes the value, as the message says.
    fn change(self, reason: Reason, explanation: String) -> Problem {
        Problem { rejects: false, ..Problem::new(reason, self.pointer, explanation) }
    }
}

fn check_schema(schema: &'static Value, value: &Value, at: Location<'_>, found: &mut Vec<Problem>) {
    let schema = resolved(schema);
    if !type_fits(schema, value) {
        let explanation = format!("expected {}, found {}", describe(schema), name_of(value));
        found.push(at.problem(Reason::WrongType, explanation));
        return;
    }
    check_words(schema, value, at, found);
    match value {
        Value::String(text) => check_text(schema, text, at, found),
        Value::Number(number) => check_number(schema, number, at, found),
        Value::Array(entries) => check_list(schema, entries, at, found),
        Value::Object(fields) => check_object(schema, fields, at, found),
        Value::Null | Value::Bool(_) => {}
    }
    for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        check_conditional(part, value, at, found);
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        check_choices(choices, value, at, found);
    }
}

fn check_conditional(part: &'static Value, value: &Value, at: Location<'_>, found: &mut Vec<Problem>) {
    if let (Some(condition), Some(then)) = (part.get("if"), part.get("then")) {
        let mut unmet = Vec::new();
        check_schema(condition, value, at, &mut unmet);
        if unmet.is_empty() {
            check_consequence(then, value, at, found);
        }
    }
}

/// Checks the `then` part of a condition.
fn check_consequence(then: &'static Value, value: &Value, at: Location<'_>, found: &mut Vec<Problem>) {
    let Some(fields) = value.as_object() else { return };
    let present = |name: &str| fields.get(name).filter(|value| !value.is_null());
    for name in then.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if present(name).is_none() {
            let schema = ROOT.get("properties").and_then(|fields| fields.get(name));
            found.push(missing(name, schema, at));
        }
    }
    if let (Some(schema), Some(data)) = (then.pointer("/properties/data"), present("data")) {
        check_schema(schema, data, Location { pointer: "/data", on_error: at.on_error }, found);
    }
}

fn check_choices(choices: &'static [Value], value: &Value, at: Location<'_>, found: &mut Vec<Problem>) {
    let fits = choices.iter().any(|choice| {
        let mut unmet = Vec::new();
        check_schema(choice, value, at, &mut unmet);
        unmet.is_empty()
    });
    if !fits {
        let names: Vec<String> = choices
            .iter()
            .filter_map(|choice| choice.pointer("/required/0").and_then(Value::as_str))
            .map(|name| format!("`{name}`"))
            .collect();
        let explanation = format!("add at least one of {}", names.join(", "));
        found.push(at.problem(Reason::MissingField, explanation));
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

fn check_words(schema: &Value, value: &Value, at: Location<'_>, found: &mut Vec<Problem>) {
    let known = match (schema.get("enum").and_then(Value::as_array), schema.get("const")) {
        (Some(words), _) => words.contains(value),
        (None, Some(word)) => word == value,
        (None, None) => true,
    };
    if !known {
        let explanation = format!("unknown value; expected {}", describe(schema));
        found.push(at.problem(Reason::UnknownValue, explanation).with_value(shorten(value)));
    }
}

fn check_text(schema: &Value, text: &str, at: Location<'_>, found: &mut Vec<Problem>) {
    let length = text.chars().count() as u64;
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(least) = limit("minLength").filter(|least| length < *least) {
        let explanation = format!("has {length} characters; the minimum is {least}");
        found.push(at.problem(Reason::TooShort, explanation));
    }
    if let Some(most) = limit("maxLength").filter(|most| length > *most) {
        let explanation = format!("has {length} characters; the maximum is {most}");
        found.push(at.problem(Reason::TooLong, explanation));
    }
    if let Some(most) = limit("x-cut").filter(|most| length > *most) {
        let explanation = format!("has {length} characters; only the first {most} are kept");
        found.push(at.change(Reason::TooLong, explanation));
    }
    if schema.get("format").is_some() && units::rfc3339_micros(text).is_none() {
        let explanation = "expected an RFC 3339 time with a time zone, like 2026-11-23T10:00:00.250Z";
        found.push(at.problem(Reason::TimeFormat, explanation.to_owned()).with_value(shorten(&Value::from(text))));
        return;
    }
    check_pattern(schema, text, at, found);
    if let Some(most) = schema.get("x-maximum")
        && units::decimal_nanos(text).is_some()
        && units::amount_nanos(text).is_none()
    {
        let explanation = format!("out of range; the largest amount is {most}");
        found.push(at.problem(Reason::OutOfRange, explanation).with_value(shorten(&Value::from(text))));
    }
}

fn check_pattern(schema: &Value, text: &str, at: Location<'_>, found: &mut Vec<Problem>) {
    let unmet = |name: &str| schema.get(name).and_then(Value::as_str).filter(|pattern| !pattern_fits(pattern, text));
    if let Some(pattern) = unmet("pattern") {
        let problem = if schema.get("format").is_some() {
            at.problem(year_reason(text), year_words(text).to_owned())
        } else {
            let reason = if at.pointer == "/spec" { Reason::UnknownSpec } else { Reason::Pattern };
            at.problem(reason, format!("expected {}", pattern_words(pattern)))
        };
        // A value that differs only in case is corrected and kept.
        let kept = CASES.contains(&pattern)
            && [text.to_ascii_lowercase(), text.to_ascii_uppercase()].iter().any(|text| pattern_fits(pattern, text));
        let problem = if kept {
            at.change(Reason::Pattern, format!("expected {}; the case is corrected", pattern_words(pattern)))
        } else {
            problem
        };
        found.push(problem.with_value(shorten(&Value::from(text))));
    }
    if unmet("x-pattern").is_some() {
        let explanation = format!("{}; treated as unknown", year_words(text));
        found.push(at.change(year_reason(text), explanation).with_value(shorten(&Value::from(text))));
    }
}

fn year_reason(time: &str) -> Reason {
    if time < "2" { Reason::TimeTooOld } else { Reason::TimeInFuture }
}

fn year_words(time: &str) -> &'static str {
    if time.starts_with("0001-01-01T00:00:00") {
        "this is Go's zero time: set the field"
    } else {
        "the year is outside 1970 to 2199: check the producer's clock and units"
    }
}

fn check_number(schema: &Value, number: &Number, at: Location<'_>, found: &mut Vec<Problem>) {
    let Some(number) = number.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let below = bound("minimum").is_some_and(|least| number < least)
        || bound("exclusiveMinimum").is_some_and(|least| number <= least);
    if below || bound("maximum").is_some_and(|most| number > most) {
        let explanation = format!("out of range; expected {}", describe(schema));
        found.push(at.problem(Reason::OutOfRange, explanation).with_value(number.to_string()));
    } else if let Some(least) = bound("x-minimum").filter(|least| number < *least) {
        let explanation = format!("below {least}; treated as {least}");
        found.push(at.change(Reason::OutOfRange, explanation).with_value(number.to_string()));
    }
}

fn check_list(schema: &'static Value, entries: &[Value], at: Location<'_>, found: &mut Vec<Problem>) {
    check_size(schema, entries.len(), at, found);
    if let Some(each) = schema.get("items") {
        for (n, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.is_null()) {
            check_schema(each, entry, at.entry(&format!("{}/{n}", at.pointer)), found);
        }
    }
}

fn check_size(schema: &Value, entries: usize, at: Location<'_>, found: &mut Vec<Problem>) {
    if let Some(most) = schema.get("x-cut").and_then(Value::as_u64).filter(|most| entries as u64 > *most) {
        found.push(at.change(Reason::TooMany, format!("has {entries} entries; only the first {most} are kept")));
    }
}

fn check_object(schema: &'static Value, fields: &Map<String, Value>, at: Location<'_>, found: &mut Vec<Problem>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if fields.get(name).is_none_or(Value::is_null) {
            found.push(missing(name, properties.and_then(|properties| properties.get(name)), at));
        }
    }
    check_size(schema, fields.len(), at, found);
    // A null field counts as absent.
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let known = properties.and_then(|properties| properties.get(name));
        if let Some(schema) = known.or_else(|| schema.get("additionalProperties")) {
            check_schema(schema, value, at.field(&format!("{}/{}", at.pointer, escape(name)), schema), found);
        }
    }
}

/// Reports a required field that is absent or null.
fn missing(name: &str, schema: Option<&'static Value>, at: Location<'_>) -> Problem {
    let explanation = match schema.map(resolved) {
        Some(schema) => format!("add `{name}`: {}", describe(schema)),
        None => format!("add `{name}`"),
    };
    let pointer = format!("{}/{}", at.pointer, escape(name));
    let at = schema.map_or(at.entry(&pointer), |schema| at.field(&pointer, schema));
    at.problem(Reason::MissingField, explanation)
}

pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn shorten(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Describes the values that a schema accepts.
fn describe(schema: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words = words.iter().filter(|word| !word.is_null());
        let words: Vec<String> = words.map(|word| format!("`{}`", shorten(word))).collect();
        return format!("one of {}", words.join(", "));
    }
    if schema.get("format").is_some() {
        return "an RFC 3339 time with a time zone, like 2026-11-23T10:00:00.250Z".to_owned();
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        return pattern_words(pattern).to_owned();
    }
    let kinds: Vec<&str> = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        Some(kind) => kind.as_str().into_iter().collect(),
        None => vec!["object"],
    };
    let bound = |name: &str| schema.get(name).map(ToString::to_string);
    let words: Vec<String> = kinds
        .iter()
        .filter(|kind| **kind != "null")
        .map(|kind| match *kind {
            "string" => match bound("maxLength").or_else(|| bound("x-cut")) {
                Some(most) => format!("a string of at most {most} characters"),
                None => "a string".to_owned(),
            },
            "integer" | "number" => {
                let name = if *kind == "integer" { "an integer" } else { "a number" };
                let most = bound("maximum");
                match (bound("minimum"), bound("exclusiveMinimum"), most) {
                    (Some(least), _, Some(most)) => format!("{name} from {least} to {most}"),
                    (Some(least), _, None) => format!("{name} of at least {least}"),
                    (None, Some(least), Some(most)) => format!("{name} above {least} and at most {most}"),
                    (None, Some(least), None) => format!("{name} above {least}"),
                    (None, None, Some(most)) => format!("{name} of at most {most}"),
                    (None, None, None) => name.to_owned(),
                }
            }
            "boolean" => "a boolean".to_owned(),
            "array" => "an array".to_owned(),
            _ => "an object".to_owned(),
        })
        .collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::pattern_of;

    const KEYWORDS: [&str; 33] = [
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
        "additionalProperties",
        "$ref",
        "$defs",
        "x-known-values",
        "x-on-error",
        "x-cut",
        "x-pattern",
        "x-minimum",
        "x-maximum",
        "$comment",
        "examples",
    ];

    fn walk(schema: &Value) {
        let Some(fields) = schema.as_object() else { return };
        for (name, value) in fields {
            assert!(KEYWORDS.contains(&name.as_str()), "the validator does not implement `{name}`");
            match name.as_str() {
                "x-on-error" => assert!(value == "reject" || value == "keep", "{value}"),
                "pattern" | "x-pattern" => assert!(pattern_of(value.as_str().expect("text")).is_some(), "{value}"),
                "format" => assert_eq!(value, "date-time"),
                "properties" | "$defs" => value.as_object().expect("object").values().for_each(walk),
                "allOf" | "anyOf" => value.as_array().expect("list").iter().for_each(walk),
                "if" | "then" | "items" | "additionalProperties" => walk(value),
                _ => {}
            }
        }
    }

    #[test]
    fn the_validator_implements_every_keyword_of_the_schema() {
        walk(&ROOT);
    }

    #[test]
    fn depth_counts_nesting_outside_strings_only() {
        assert_eq!(depth(br#"{"a":[{"b":"[[[\"[{"}]}"#), 3);
    }
}
