//! The content of a run without its texts.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::value::RawObject;

/// Fields of the content that say where a text is, or what its hash is.
const REFERENCES: [&str; 4] = ["input_ref", "output_ref", "input_sha256", "output_sha256"];

/// Longest reference that is kept, in bytes.
const REFERENCE_BYTES: usize = 2048;

/// Returns the references and hashes of a content, if it has any, and the pointers of what was removed.
pub(crate) fn references<'a>(content: &RawObject<'_>) -> (Option<RawObject<'a>>, Vec<&'static str>) {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
    let (mut kept, mut removed) = (BTreeMap::new(), Vec::new());
    for (name, value) in &fields {
        let value: &RawValue = value;
        let is_reference = value.get().starts_with('"') && value.get().len() <= REFERENCE_BYTES;
        match name.as_str() {
            _ if value.get() == "null" => {}
            name if REFERENCES.contains(&name) && is_reference => drop(kept.insert(name, value)),
            "input" => removed.push("/data/content/input"),
            "output" => removed.push("/data/content/output"),
            _ => removed.push("/data/content"),
        }
    }
    let text = serde_json::to_string(&kept).unwrap_or_default();
    ((!kept.is_empty()).then(|| RawObject::new(text)), removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_hashes_stay_without_the_texts() {
        let of = |text: &str| {
            let (kept, removed) = references(&RawObject::new(text.to_owned()));
            (kept.map(|kept| kept.get().to_owned()), removed)
        };
        let all = r#"{"output": ["b"], "input": "a", "input_ref": "s3://b/k", "input_sha256": "sha256:00", "note": 1, "output_ref": null}"#;
        let (kept, removed) = of(all);
        assert_eq!(kept.as_deref(), Some(r#"{"input_ref":"s3://b/k","input_sha256":"sha256:00"}"#));
        assert_eq!(removed, ["/data/content/input", "/data/content", "/data/content/output"]);
        assert_eq!(of("{}"), (None, vec![]));
        // A reference is a short text.
        let long = format!(r#"{{"input_ref": "{}", "output_ref": {{"text": "hello"}}}}"#, "x".repeat(3000));
        assert_eq!(of(&long), (None, vec!["/data/content", "/data/content"]));
    }
}
