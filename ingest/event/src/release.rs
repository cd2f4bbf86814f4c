//! Releases: the fingerprint that says whether two releases behave alike, and a cache, because nearly every message
//! repeats the release of the one before it byte for byte.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::ids::hex;
use crate::json::{Fast, Known, Wrong, right};
use crate::parse::parse;
use crate::reason::{Problem, Reason};
use crate::schema;
use crate::surrogate::mended;
use crate::value::{is_sha256, length_fits};

/// Releases remembered by their bytes; beyond that the cache starts anew, which costs time and nothing else.
const CACHED: usize = 1024;

/// Places for releases by how they begin.
const HEADS: usize = 256;

/// Bytes that a release's place is found by: those of its id, as producers write it.
const HEAD_BYTES: usize = 32;

/// Characters of a release's id at most.
const ID_CHARACTERS: usize = 128;

/// Fields of a release that say which one it is or what a provider reported, not how it behaves.
const NOT_BEHAVIOUR: [&str; 3] = ["id", "fingerprint", "parent_id"];
const REPORTED_BY_PROVIDER: [&str; 2] = ["responded", "system_fingerprint"];

/// The versioned bundle of prompt, model and configuration that a run used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its id, as the producer names it.
    pub id: String,
    /// `sha256:` of the canonical JSON (RFC 8785) of all that can change behaviour.
    pub fingerprint: String,
    /// The fingerprint that the producer stated, where it differs.
    pub stated_fingerprint: Option<String>,
    /// The whole release as canonical JSON.
    pub json: String,
    /// Model asked for, else model that answered.
    pub model: Option<String>,
    /// Provider of the model.
    pub provider: Option<String>,
    /// Model asked for.
    pub requested: Option<String>,
    /// Model that answered.
    pub responded: Option<String>,
    /// Name of the prompt.
    pub prompt_name: Option<String>,
    /// Version of the prompt.
    pub prompt_version: Option<String>,
    /// Pointers to the texts that were cut for the columns; `json` has them whole.
    pub cut: Vec<&'static str>,
}

impl Release {
    /// Reads a release: an object with an id. Anything else in it is kept as it was sent.
    fn of(mut value: Value) -> Option<Self> {
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

/// Takes out fields of the contract that are null, so that they are as if they had not been sent. What is free in a release,
/// its parameters and unknown fields, is as it was sent.
fn drop_nulls(release: &mut Value) {
    let Some(fields) = release.as_object_mut() else { return };
    fields.retain(|name, value| !value.is_null() || !schema::release_knows(&format!("/{name}")));
    for (name, part) in fields.iter_mut() {
        if let Some(part) = part.as_object_mut() {
            part.retain(|field, value| !value.is_null() || !schema::release_knows(&format!("/{name}/{field}")));
        }
    }
}

/// sha256 over the canonical JSON of a release without what does not change behaviour.
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

/// A release, and the bytes it was sent as.
#[derive(Clone, Debug)]
struct Sent {
    text: Box<str>,
    release: Arc<Release>,
}

/// Releases by the bytes they were sent as.
#[derive(Debug)]
pub(crate) struct ReleaseCache {
    known: HashMap<u128, Arc<Release>>,
    /// Some of them by how they begin, so that neither their end has to be looked for nor all of them to be hashed. Which
    /// is there is a matter of speed alone.
    by_head: Box<[Option<Sent>]>,
}

impl Default for ReleaseCache {
    fn default() -> Self {
        Self { known: HashMap::new(), by_head: vec![None; HEADS].into_boxed_slice() }
    }
}

impl Known for ReleaseCache {
    #[inline]
    fn length_in(&self, text: &str) -> usize {
        self.alike(text).filter(|known| text.starts_with(&*known.text)).map_or(0, |known| known.text.len())
    }
}

/// The place of a text that begins like that.
#[inline]
fn head_place(text: &str) -> Option<usize> {
    let head = text.as_bytes().first_chunk::<HEAD_BYTES>()?;
    usize::try_from(xxh3_64(head) % HEADS as u64).ok()
}

impl ReleaseCache {
    /// The release of these bytes, which are JSON; checked when first seen.
    pub(crate) fn get(&mut self, text: &str) -> Fast<Arc<Release>> {
        if let Some(known) = self.alike(text).filter(|known| *known.text == *text) {
            return Ok(Arc::clone(&known.release));
        }
        let release = self.by_all_bytes(text)?;
        if let Some(place) = head_place(text) {
            self.by_head[place] = Some(Sent { text: text.into(), release: Arc::clone(&release) });
        }
        Ok(release)
    }

    /// The release of all that begin like the text whose place it is.
    #[inline]
    fn alike(&self, text: &str) -> Option<&Sent> {
        self.by_head[head_place(text)?].as_ref()
    }

    fn by_all_bytes(&mut self, text: &str) -> Fast<Arc<Release>> {
        let key = xxh3_128(text.as_bytes());
        if let Some(release) = self.known.get(&key) {
            return Ok(Arc::clone(release));
        }
        let (value, found) = parse(&mended(text));
        // Which of two ids is meant is not said; of anything else that stands twice the last is taken. A number that is none
        // has no canonical form.
        let bearable = |problem: &Problem| problem.reason == Reason::DuplicateKey && problem.pointer != "/id";
        right(found.iter().all(bearable))?;
        let release = Release::of(value.ok_or(Wrong)?).ok_or(Wrong)?;
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
    fn a_release_with_nulls_is_the_one_without_them_and_texts_are_cut_for_columns_alone() {
        let release = |value: &Value| Release::of(value.clone()).expect("a release");
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
            assert_eq!(Release::of(wrong.clone()), None, "{wrong}");
        }
    }

    #[test]
    fn the_fingerprint_ignores_names_and_what_the_provider_reports() {
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
