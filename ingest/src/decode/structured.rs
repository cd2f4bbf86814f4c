//! CloudEvents in structured mode: one JSON object with the attributes and the data (CloudEvents 1.0.2, JSON Event Format,
//! sections 2 and 3).
//!
//! The data is a JSON value, a JSON string that contains JSON, or base64 in `data_base64`. Attributes without a field in the run
//! event are kept as an unknown field `cloudevent`.

use std::borrow::Cow;
use std::fmt;

use bellwether_event::{Problem, Reason, Rejection, replace_lone_surrogates};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Frame, Unframed, is_whole_event, rejected, wrap, written_as_text};

/// Attributes that are read or carry no further information.
const READ: [&str; 9] =
    ["specversion", "id", "source", "type", "time", "subject", "data", "data_base64", "datacontenttype"];

/// The fields of the object, in their order.
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Fields {
    /// Reads the object.
    pub(super) fn read(body: &[u8]) -> Result<Self, Rejection> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let explanation = format!("invalid UTF-8 at byte {}: encode the message as UTF-8", error.valid_up_to());
            rejected(Reason::InvalidUtf8, "", explanation)
        })?;
        serde_json::from_str(&replace_lone_surrogates(text)).map_err(|error| {
            if error.is_data() {
                return rejected(Reason::WrongType, "", "a structured-mode CloudEvent must be a JSON object");
            }
            let explanation = format!("invalid JSON at line {}, column {}", error.line(), error.column());
            rejected(Reason::NotJson, "", explanation)
        })
    }

    /// Takes the event out of the object.
    pub(super) fn unframed<'a>(self) -> Result<Unframed<'a>, Rejection> {
        let mut problems = Vec::new();
        for (n, (name, _)) in self.0.iter().enumerate() {
            if READ.contains(&name.as_str()) && self.0[..n].iter().any(|(known, _)| known == name) {
                let explanation = format!("attribute `{name}` occurs twice: remove one");
                problems.push(Problem::new(Reason::DuplicateKey, format!("/{name}"), explanation));
            }
        }
        let mut text = |name: &str| match serde_json::from_str::<String>(self.get(name)?) {
            Ok(text) => Some(text),
            Err(_) => {
                let explanation = format!("CloudEvents attribute `{name}` must be a string");
                problems.push(Problem::new(Reason::WrongType, format!("/{name}"), explanation));
                None
            }
        };
        let (version, id, source) = (text("specversion"), text("id"), text("source"));
        let (event_type, time, subject) = (text("type"), text("time"), text("subject"));
        if version.as_deref() != Some("1.0") {
            problems.push(Problem::new(
                Reason::UnknownSpec,
                "/specversion",
                "unsupported CloudEvents version: set `specversion` to `1.0`",
            ));
        }
        let data = match self.data() {
            Ok(data) => data,
            Err(problem) => {
                problems.push(problem);
                return Err(Rejection { problems });
            }
        };
        let more = self.further_attributes();
        let whole = is_whole_event(&data);
        let (body, frame) = if whole {
            (with_first(data, &more), Frame::StructuredEvent)
        } else {
            (wrap(&data, subject.as_deref(), &more).into_bytes(), Frame::StructuredData)
        };
        Ok(Unframed {
            body: Cow::Owned(body),
            id: id.map(Cow::Owned),
            source: source.map(Cow::Owned),
            event_type: event_type.map(Cow::Owned),
            time: time.map(Cow::Owned),
            subject: subject.map(Cow::Owned),
            frame,
            problems,
        })
    }

    /// Returns the JSON of a field; null counts as absent.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.get()).filter(|json| *json != "null")
    }

    fn data(&self) -> Result<Vec<u8>, Problem> {
        if let Some(data) = self.get("data") {
            let text = if data.starts_with('"') { written_as_text(data.as_bytes()) } else { None };
            return Ok(text.map_or_else(|| data.as_bytes().to_vec(), String::into_bytes));
        }
        let Some(encoded) = self.get("data_base64") else {
            let explanation = "add `data` with the run event or with its `data`";
            return Err(Problem::new(Reason::MissingField, "/data", explanation));
        };
        let bytes = serde_json::from_str::<String>(encoded).ok().and_then(|text| from_base64(&text));
        bytes.ok_or_else(|| {
            Problem::new(Reason::Pattern, "/data_base64", "invalid base64: encode the data as in RFC 4648, section 4")
        })
    }

    /// Returns the attributes without a field in the run event, as one further field.
    fn further_attributes(&self) -> String {
        let name_of = |name: &str| serde_json::Value::from(name).to_string();
        let more: Vec<String> = self
            .0
            .iter()
            .filter(|(name, _)| !READ.contains(&name.as_str()))
            .map(|(name, value)| format!("{}:{}", name_of(name), value.get()))
            .collect();
        if more.is_empty() { String::new() } else { format!("\"cloudevent\":{{{}}},", more.join(",")) }
    }
}

/// Inserts a field at the beginning of an object. Other values stay unchanged.
fn with_first(object: Vec<u8>, field: &str) -> Vec<u8> {
    let Some(open) = object.iter().position(|byte| *byte == b'{').filter(|_| !field.is_empty()) else { return object };
    [&object[..=open], field.as_bytes(), &object[open + 1..]].concat()
}

/// Decodes base64 with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if digits.len() % 4 == 1 || padding > 2 || padding > 0 && !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut pool, mut bits) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        pool = pool << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(pool >> bits & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_the_examples_of_rfc_4648_section_10() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmFy", "foobar"),
            ("Zg", "f"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        for wrong in ["Z", "Zg=", "Zg===", "Z g=", "Zm9v=", "Zm9-"] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
        assert_eq!(from_base64("+/+/"), Some(vec![0xFB, 0xFF, 0xBF]));
    }
}
