//! Releases: their fingerprint, which is equal for releases that behave alike, and a cache, because nearly every message
//! repeats a recent release byte for byte.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::ids::hex;
use crate::json::{KnownValues, Malformed, Parsed, ensure};
use crate::parse::parse;
use crate::reason::{Problem, Reason};
use crate::schema;
use crate::surrogate::replace_lone_surrogates;
use crate::value::{is_sha256, length_fits};

/// Most releases cached by their bytes. A full cache is cleared, which costs only time.
const CACHED: usize = 1024;

/// Slots for releases by their first bytes.
const HEADS: usize = 256;

/// First bytes of a release that select its slot. Producers usually write the id within them.
const HEAD_BYTES: usize = 32;

/// Most characters of a release's id.
const ID_CHARACTERS: usize = 128;

// Fields that identify a release or are reported by the provider, and do not determine its behaviour.
const NOT_BEHAVIOUR: [&str; 3] = ["id", "fingerprint", "parent_id"];
const REPORTED_BY_PROVIDER: [&str; 2] = ["responded", "system_fingerprint"];

/// The versioned bundle of prompt, model and configuration that a run used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Id chosen by the producer.
    pub id: String,
    /// `sha256:` and the hash of the canonical JSON (RFC 8785) of every field that can change behaviour.
    pub fingerprint: String,
    /// The fingerprint that the producer stated, if it differs.
    pub stated_fingerprint: Option<String>,
    /// The whole release as canonical JSON.
    pub json: String,
    /// The requested model, else the one that responded.
    pub model: Option<String>,
    pub provider: Option<String>,
    /// The requested model.
    pub requested: Option<String>,
    /// The model that responded.
    pub responded: Option<String>,
    pub prompt_name: Option<String>,
    pub prompt_version: Option<String>,
    /// Pointers to the strings that were cut for the columns; `json` has them whole.
    pub cut: Vec<&'static str>,
}

impl Release {
    /// Reads a release: an object with an id. All other fields are kept as sent.
    fn from_json(mut value: Value) -> Option<Self> {
        drop_nulls(&mut value);
        let id = text_at(&value, "/id").filter(|id| length_fits(id, 1, ID_CHARACTERS))?.to_owned();
        let fingerprint = fingerprint(&value)?;
        let mut cut = Vec::new();
        let mut text = |path: &'static str, most: usize| {
            let text = text_at(&value, path.strip_prefix("/data/release")?)?;
            let end = text.char_indices().nth(most).map(|(end, _)| end);
            cut.extend(end.map(|_| path));
            Some(text[..end.unwrap_or(text.len())].to_owned())
        };
        let (requested, responded) =
            (text("/data/release/model/requested", 256), text("/data/release/model/responded", 256));
        let provider = text("/data/release/model/provider", 64);
        let prompt_name = text("/data/release/prompt/name", 256);
        let prompt_version = text("/data/release/prompt/version", 128);
        let stated = text_at(&value, "/fingerprint").map(str::to_ascii_lowercase);
        Some(Self {
            id,
            stated_fingerprint: stated.filter(|stated| is_sha256(stated) && *stated != fingerprint),
            fingerprint,
            json: serde_json_canonicalizer::to_string(&value).ok()?,
            model: requested.clone().or_else(|| responded.clone()),
            provider,
            requested,
            responded,
            prompt_name,
            prompt_version,
            cut,
        })
    }
}

fn text_at<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str)
}

/// Removes null fields of the contract, which count as absent. Parameters and unknown fields stay as sent.
fn drop_nulls(release: &mut Value) {
    let Some(fields) = release.as_object_mut() else { return };
    fields.retain(|name, value| !value.is_null() || !schema::release_defines(&format!("/{name}")));
    for (name, part) in fields.iter_mut() {
        if let Some(part) = part.as_object_mut() {
            part.retain(|field, value| !value.is_null() || !schema::release_defines(&format!("/{name}/{field}")));
        }
    }
}

/// Hashes the canonical JSON of a release without the fields that do not change behaviour.
fn fingerprint(release: &Value) -> Option<String> {
    let mut behaviour = release.clone();
    let fields = behaviour.as_object_mut()?;
    for name in NOT_BEHAVIOUR {
        fields.remove(name);
    }
    if let Some(model) = fields.get_mut("model").and_then(Value::as_object_mut) {
        for name in REPORTED_BY_PROVIDER {
            model.remove(name);
        }
    }
    let canonical = serde_json_canonicalizer::to_vec(&behaviour).ok()?;
    Some(format!("sha256:{}", hex(&Sha256::digest(canonical))))
}

/// A release, and its JSON text as sent.
#[derive(Clone, Debug)]
struct SeenRelease {
    text: Box<str>,
    release: Arc<Release>,
}

/// Releases by their JSON text as sent.
#[derive(Debug)]
pub(crate) struct ReleaseCache {
    known: HashMap<u128, Arc<Release>>,
    /// Recent releases by their first bytes. A hit saves finding the end of the release and hashing all of it; a miss costs
    /// only time.
    by_head: Box<[Option<SeenRelease>]>,
}

impl Default for ReleaseCache {
    fn default() -> Self {
        Self { known: HashMap::new(), by_head: vec![None; HEADS].into_boxed_slice() }
    }
}

impl KnownValues for ReleaseCache {
    #[inline]
    fn known_length(&self, text: &str) -> usize {
        self.with_same_head(text).filter(|known| text.starts_with(&*known.text)).map_or(0, |known| known.text.len())
    }
}

/// Returns the slot of a text; `None` if the text is too short.
#[inline]
fn head_slot(text: &str) -> Option<usize> {
    let head = text.as_bytes().first_chunk::<HEAD_BYTES>()?;
    usize::try_from(xxh3_64(head) % HEADS as u64).ok()
}

impl ReleaseCache {
    /// Returns the release of a JSON text, which is validated when first seen.
    pub(crate) fn get(&mut self, text: &str) -> Parsed<Arc<Release>> {
        if let Some(known) = self.with_same_head(text).filter(|known| *known.text == *text) {
            return Ok(Arc::clone(&known.release));
        }
        let release = self.by_all_bytes(text)?;
        if let Some(slot) = head_slot(text) {
            self.by_head[slot] = Some(SeenRelease { text: text.into(), release: Arc::clone(&release) });
        }
        Ok(release)
    }

    /// Returns the release in the slot of a text. Its text may differ.
    #[inline]
    fn with_same_head(&self, text: &str) -> Option<&SeenRelease> {
        self.by_head[head_slot(text)?].as_ref()
    }

    fn by_all_bytes(&mut self, text: &str) -> Parsed<Arc<Release>> {
        let key = xxh3_128(text.as_bytes());
        if let Some(release) = self.known.get(&key) {
            return Ok(Arc::clone(release));
        }
        let (value, found) = parse(&replace_lone_surrogates(text));
        // A duplicate id is ambiguous; of any other duplicate key the last value counts. An invalid number has no canonical
        // form.
        let tolerable = |problem: &Problem| problem.reason == Reason::DuplicateKey && problem.pointer != "/id";
        ensure(found.iter().all(tolerable))?;
        let release = Release::from_json(value.ok_or(Malformed)?).ok_or(Malformed)?;
        let release = Arc::new(release);
        if self.known.len() >= CACHED {
            self.known.clear();
        }
        self.known.insert(key, Arc::clone(&release));
        Ok(release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_json_matches_the_example_of_rfc_8785() {
        let value: Value =
            serde_json::from_str(r#"{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#)
                .expect("JSON");
        assert_eq!(
            serde_json_canonicalizer::to_string(&value).expect("canonical"),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
    }

    #[test]
    fn null_fields_count_as_absent_and_strings_are_cut_for_columns_only() {
        let release = |value: &Value| Release::from_json(value.clone()).expect("a release");
        let plain = release(&json!({ "id": "1", "model": { "requested": "m" }, "params": { "stop": null } }));
        let nulls = json!({
            "id": "1", "prompt": null, "model": { "requested": "m", "responded": null }, "params": { "stop": null },
            "fingerprint": null, "tools": null,
        });
        assert_eq!(release(&nulls), plain);
        assert_ne!(plain.fingerprint, release(&json!({ "id": "1", "model": { "requested": "m" } })).fingerprint);
        let long = release(&json!({ "id": "1", "prompt": { "version": "é".repeat(129) } }));
        assert_eq!(long.prompt_version, Some("é".repeat(128)));
        assert_eq!(long.cut, ["/data/release/prompt/version"]);
        assert!(long.json.contains(&"é".repeat(129)));
        for wrong in
            [json!({}), json!({ "id": null }), json!({ "id": "" }), json!({ "id": "x".repeat(129) }), json!([])]
        {
            assert_eq!(Release::from_json(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn the_fingerprint_ignores_names_and_fields_that_the_provider_reports() {
        let one = json!({"id": "1", "model": {"requested": "m", "responded": "m-1"}, "params": {"t": 0.2}});
        let two =
            json!({"params": {"t": 0.2}, "model": {"responded": "m-2", "requested": "m"}, "id": "2", "parent_id": "1"});
        let other = json!({"id": "1", "model": {"requested": "m", "responded": "m-1"}, "params": {"t": 0.3}});
        assert_eq!(fingerprint(&one), fingerprint(&two));
        assert_ne!(fingerprint(&one), fingerprint(&other));
        assert_eq!(
            fingerprint(&json!({"id": "1"})).as_deref(),
            Some("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
            "sha256 of {{}}"
        );
    }
}
