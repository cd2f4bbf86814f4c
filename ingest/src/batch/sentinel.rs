//! Writes every field of the contract, and an unknown one at every level, and finds each value in the table again.

use std::collections::BTreeSet;

use arrow::json::ArrayWriter;
use bellwether_event::{Limits, schema};
use serde_json::{Map, Value, json};

use super::tests::{NOW, message, table};
use super::{BatchBuilder, Pushed};

/// Builds an event with a distinct value in every field, and records the values that must come back.
struct Maker {
    root: Value,
    last: u64,
    /// Expected strings, with the pointer of their field.
    texts: Vec<(String, String)>,
    /// Expected numbers, with the pointer of their field.
    numbers: Vec<(String, f64)>,
    /// The value of every flag.
    flag: bool,
}

impl Maker {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn resolved(&self, definition: &Value) -> Value {
        let named = definition.get("$ref").or_else(|| definition.pointer("/anyOf/0/$ref")).and_then(Value::as_str);
        named.map_or_else(|| definition.clone(), |name| self.root.pointer(&name[1..]).expect("a definition").clone())
    }

    fn value(&mut self, definition: &Value, at: &str) -> Value {
        let definition = self.resolved(definition);
        if let Some(words) = definition.get("enum").and_then(Value::as_array) {
            let word = words.iter().rfind(|word| word.is_string()).expect("a word").clone();
            self.texts.push((at.to_owned(), word.as_str().expect("text").to_owned()));
            return word;
        }
        let kind = match definition.get("type") {
            Some(Value::Array(kinds)) => kinds[0].as_str().expect("a type").to_owned(),
            Some(kind) => kind.as_str().expect("a type").to_owned(),
            None => panic!("{at} has no type"),
        };
        match kind.as_str() {
            "object" => self.object(&definition, at),
            "array" => {
                let each = &definition["items"];
                // A flag may decide which column an entry goes to: try both values.
                let entries = [true, false].map(|flag| {
                    self.flag = flag;
                    self.value(each, &format!("{at}/{}", u8::from(!flag)))
                });
                self.flag = true;
                json!(entries)
            }
            "boolean" => json!(self.flag),
            "integer" => {
                let number = 1000 + self.next();
                self.numbers.push((at.to_owned(), number as f64));
                json!(number)
            }
            "number" => self.number(&definition, at),
            "string" => {
                let text = self.text(&definition);
                let found = if definition.get("format").is_some() { text[11..23].to_owned() } else { text.clone() };
                // Amounts are stored in nano-units if they have a column, and as strings elsewhere.
                match text.parse::<f64>() {
                    Ok(amount) if at.ends_with("/amount") => self.numbers.push((at.to_owned(), amount * 1e9)),
                    _ => self.texts.push((at.to_owned(), found)),
                }
                json!(text)
            }
            other => panic!("{other} at {at}"),
        }
    }

    fn object(&mut self, definition: &Value, at: &str) -> Value {
        let mut fields = Map::new();
        for (name, definition) in definition.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if at.is_empty() && matches!(name.as_str(), "data" | "type") {
                continue;
            }
            fields.insert(name.clone(), self.value(definition, &format!("{at}/{name}")));
        }
        let free = match definition.get("additionalProperties") {
            Some(each) => self.value(each, &format!("{at}/free")),
            None => {
                let text = format!("unknown-{}", self.next());
                self.texts.push((format!("{at}/unknown"), text.clone()));
                json!({ "deep": [text] })
            }
        };
        fields.insert(format!("key-{}", self.last), free);
        Value::Object(fields)
    }

    fn number(&mut self, definition: &Value, at: &str) -> Value {
        let n = self.next() as f64;
        let bounded = definition.get("maximum").and_then(Value::as_f64) == Some(1.0);
        let number = if bounded { n / 1024.0 } else { n + 0.5 };
        let micros = at.ends_with("_ms") && !at.contains("/steps/");
        self.numbers.push((at.to_owned(), if micros { number * 1000.0 } else { number }));
        json!(number)
    }

    fn text(&mut self, definition: &Value) -> String {
        let n = self.next();
        if definition.get("format").is_some() {
            return format!("2026-11-23T10:00:{:02}.{n:03}Z", n % 60);
        }
        match definition.get("pattern").and_then(Value::as_str) {
            None => format!("text-{n}"),
            Some("^[A-Z]{3}$") => "EUR".to_owned(),
            Some("^sha256:[0-9a-f]{64}$") => format!("sha256:{n:064x}"),
            Some("^[0-9a-f]{32}$") => format!("{n:032x}"),
            Some("^[0-9a-f]{16}$") => format!("{n:016x}"),
            Some(pattern) if pattern.starts_with("^run-event") => "run-event/1.7".to_owned(),
            Some(pattern) if pattern.starts_with("^[0-9]") => format!("0.{n:06}"),
            Some(pattern) => panic!("no value is known to match {pattern}"),
        }
    }
}

/// Returns all numbers in a text.
fn numbers_in(text: &str) -> BTreeSet<u64> {
    text.split(|char: char| !(char.is_ascii_digit() || char == '.'))
        .filter_map(|word| word.trim_matches('.').parse::<f64>().ok())
        .map(f64::to_bits)
        .collect()
}

#[test]
fn every_field_is_found_in_the_table() {
    let root: Value = serde_json::from_str(schema()).expect("JSON");
    let kinds = [
        ("run.completed", "completed"),
        ("run.score", "score"),
        ("run.review", "review"),
        ("run.escalated", "escalation"),
        ("run.policy_exception", "policy_exception"),
    ];
    for (event_type, definition) in kinds {
        let mut maker = Maker { root: root.clone(), last: 0, texts: Vec::new(), numbers: Vec::new(), flag: true };
        let mut event = maker.object(&root, "");
        event["type"] = json!(event_type);
        event["data"] = maker.value(&json!({ "$ref": format!("#/$defs/{definition}") }), "/data");
        let mut builder = BatchBuilder::new(Limits { content_bytes: Some(usize::MAX), ..Limits::default() });
        let body = event.to_string();
        let pushed = builder.push(&message(0, body.as_bytes()), NOW);
        assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {body}");
        let mut writer = ArrayWriter::new(Vec::new());
        writer.write(&table(&builder.finish().expect("finishes").0)).expect("writes");
        writer.finish().expect("writes");
        let row = String::from_utf8(writer.into_inner()).expect("text");
        let numbers = numbers_in(&row);
        let lost: Vec<&str> = maker
            .texts
            .iter()
            .filter(|(_, text)| !row.contains(text.as_str()))
            .map(|(pointer, _)| pointer.as_str())
            .chain(
                maker
                    .numbers
                    .iter()
                    .filter(|(_, number)| !numbers.contains(&number.to_bits()))
                    .map(|(pointer, _)| pointer.as_str()),
            )
            .collect();
        assert!(lost.is_empty(), "{event_type}: {lost:?} are lost\n{body}\n{row}");
        assert!(maker.texts.len() + maker.numbers.len() >= 10, "{event_type} has fields");
        let read: Value = serde_json::from_str(&row).expect("JSON");
        let truncated = read[0]["truncated"].as_object().cloned().unwrap_or_default();
        assert!(truncated.values().all(|done| done == "stated"), "{event_type}: {truncated:?}");
    }
}
