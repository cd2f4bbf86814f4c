//! A notice as a document for programs: `bellwether.page/1`, described by `docs/page.schema.json`.

use serde_json::{Value, json};

use crate::sink::Notice;
use crate::text;

/// Address of the schema of the document.
pub(crate) const SCHEMA: &str = "urn:bellwether:page:1";

/// Name and version of the document. A field may be added within a version; none is removed or changes its meaning.
pub(crate) const FORMAT: &str = "bellwether.page/1";

/// Length of strings, and entries of arrays and objects, from everything to little. Ids are shorter than the last length.
const LEVELS: [(usize, usize); 5] = [(20_000, 200), (4000, 100), (1000, 50), (500, 20), (300, 10)];

/// Returns the document of a notice, cut so that it has at most about `limit` bytes.
pub(crate) fn document(notice: &Notice, limit: usize) -> Value {
    let group: Vec<Value> = notice.group.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let whole = json!({
        "format": FORMAT,
        "route": notice.route,
        "group": group,
        "pages": notice.pages,
        "missed": notice.missed,
        "evidence_only": notice.evidence_only,
    });
    let mut document = whole;
    for (chars, entries) in LEVELS {
        shrink(&mut document, chars, entries);
        if document.to_string().len() <= limit {
            break;
        }
    }
    // As many pages as fit. There is always one.
    while document.to_string().len() > limit && document["pages"].as_array().is_some_and(|pages| pages.len() > 1) {
        if let Some(pages) = document["pages"].as_array_mut() {
            pages.truncate(pages.len().div_ceil(2));
        }
    }
    document
}

/// Cuts strings, arrays and objects with free keys.
fn shrink(value: &mut Value, chars: usize, entries: usize) {
    match value {
        Value::String(string) => *string = text::cut(string, chars),
        Value::Array(values) => {
            values.truncate(entries);
            values.iter_mut().for_each(|value| shrink(value, chars, entries));
        }
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if name == "labels"
                    && let Value::Object(labels) = value
                {
                    let kept = std::mem::take(labels).into_iter().take(entries);
                    *labels = kept.map(|(name, value)| (text::cut(&name, chars), value)).collect();
                }
                shrink(value, chars, entries);
            }
        }
        _ => {}
    }
}
