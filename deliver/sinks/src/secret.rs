//! Secrets: read from a file or the environment at each use, and never printed.
//!
//! A changed file takes effect with the next message, so that a key can be rotated without a restart. A value that stands in the
//! configuration itself is dropped when it is read, and refused by [`Secret::problem`].

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use crate::sink::Failure;
use crate::text;

/// A longer file is not a secret.
const MAX_BYTES: usize = 64 * 1024;

/// Shorter parts of an address are not secret by themselves, and replacing them would make errors unreadable.
const LEAST_PART: usize = 8;

/// Stands for a secret that was removed.
const REMOVED: &str = "[secret]";

/// Where a secret is kept: `{ file = "…" }` or `{ env = "…" }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret(Source);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Env(String),
    /// The secret stands in the configuration. It is not kept.
    Literal,
}

/// The value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SecretValue(String);

/// Removes secrets from text.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
}

// === impl Secret ===

impl Secret {
    /// Returns a secret that is kept in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Returns a secret that is kept in an environment variable.
    pub fn env(name: impl Into<String>) -> Self {
        Self(Source::Env(name.into()))
    }

    /// Returns what is wrong with the setting `name`, without reading the secret.
    pub fn problem(&self, name: &str) -> Option<String> {
        match &self.0 {
            Source::Literal => Some(format!(
                "`{name}` is a secret and must not be written into the configuration; put it into a file and write {name} = \
                 {{ file = \"/path/to/file\" }}, or {name} = {{ env = \"VARIABLE\" }}"
            )),
            Source::File(path) if path.as_os_str().is_empty() => Some(format!("the file of `{name}` has no name")),
            Source::Env(variable) if variable.is_empty() || variable.contains(['=', '\0']) => {
                Some(format!("`{variable}` in `{name}` is not the name of an environment variable"))
            }
            Source::File(_) | Source::Env(_) => None,
        }
    }

    /// Reads the secret, without white space at its end.
    ///
    /// # Errors
    ///
    /// `Later` if it cannot be read or is empty: nothing is lost until someone repairs it.
    pub(crate) async fn read(&self) -> Result<SecretValue, Failure> {
        let (value, origin) = match &self.0 {
            Source::File(path) => {
                let origin = format!("file `{}`", path.display());
                let read = tokio::fs::read(path).await;
                let bytes = read.map_err(|error| later(format!("cannot read the secret in {origin}: {error}")))?;
                if bytes.len() > MAX_BYTES {
                    return Err(later(format!("{origin} is too long for a secret")));
                }
                (String::from_utf8(bytes).map_err(|_| later(format!("{origin} is not text")))?, origin)
            }
            Source::Env(name) => {
                let origin = format!("environment variable `{name}`");
                (std::env::var(name).map_err(|_| later(format!("{origin} is not set, or is not text")))?, origin)
            }
            Source::Literal => return Err(later("a secret is written in the configuration".to_owned())),
        };
        let value = value.trim_start_matches('\u{feff}').trim_end();
        if value.is_empty() {
            return Err(later(format!("{origin} is empty, but should hold a secret")));
        }
        Ok(SecretValue(value.to_owned()))
    }
}

fn later(reason: String) -> Failure {
    Failure::Later { reason, after: None }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match &self.0 {
            Source::File(path) => map.serialize_entry("file", path)?,
            Source::Env(name) => map.serialize_entry("env", name)?,
            Source::Literal => map.serialize_entry("removed", REMOVED)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

// === impl SecretVisitor ===

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{ file = \"…\" }` or `{ env = \"…\" }`")
    }

    // Accepted here, because an error of a parser quotes the line in which it occurs.
    fn visit_str<E: de::Error>(self, _: &str) -> Result<Secret, E> {
        Ok(Secret(Source::Literal))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let source = match map.next_key::<String>()?.as_deref() {
            Some("file") => Source::File(map.next_value()?),
            Some("env") => Source::Env(map.next_value()?),
            _ => return Err(de::Error::custom("a secret is given as `{ file = \"…\" }` or `{ env = \"…\" }`")),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("a secret has either `file` or `env`"));
        }
        Ok(Secret(source))
    }
}

// === impl SecretValue ===

impl SecretValue {
    /// Makes a secret of a text that was read elsewhere.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the secret itself, for a request.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the secret as an address.
    ///
    /// # Errors
    ///
    /// `Refused` if it is none; `name` is the setting.
    pub(crate) fn address(&self, name: &str) -> Result<Url, Failure> {
        Url::parse(&self.0).map_err(|error| Failure::Refused {
            reason: format!("the secret `{name}` is not a URL: {error}; hint: copy the whole address, with https://"),
        })
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REMOVED)
    }
}

// === impl Redactor ===

impl Redactor {
    /// Adds a secret, and if it is an address, the parts of it that grant access.
    pub(crate) fn add(&mut self, value: &SecretValue) {
        self.add_text(value.expose());
        if let Ok(url) = Url::parse(value.expose()) {
            self.add_text(url.as_str());
            self.add_address(&url);
        }
    }

    /// Adds the parts of an address that may grant access: credentials, the path, and values in the query.
    pub(crate) fn add_address(&mut self, url: &Url) {
        let segments = url.path_segments().into_iter().flatten().map(str::to_owned);
        let values = url.query_pairs().map(|(_, value)| value.into_owned());
        let password = url.password().map(str::to_owned);
        for part in segments.chain(values).chain(password).filter(|part| part.len() >= LEAST_PART) {
            self.add_text(&part);
        }
    }

    /// Adds any text, such as an encoded secret.
    pub(crate) fn add_text(&mut self, text: &str) {
        let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for form in [text.to_owned(), encoded] {
            if !form.is_empty() && !self.secrets.contains(&form) {
                self.secrets.push(form);
            }
        }
        // The longest first, so that no rest of a secret remains.
        self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Makes one line of a text that a service answered: without secrets and cut.
    pub(crate) fn line(&self, text: &str, limit: usize) -> String {
        let mut clean = text.to_owned();
        for secret in &self.secrets {
            if clean.contains(secret.as_str()) {
                clean = clean.replace(secret.as_str(), REMOVED);
            }
        }
        text::line(&clean, limit)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor of {} texts", self.secrets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Secret, toml::de::Error> {
        #[derive(Deserialize)]
        struct Holder {
            token: Secret,
        }
        toml::from_str::<Holder>(text).map(|holder| holder.token)
    }

    #[test]
    fn a_secret_in_the_configuration_is_refused_and_not_repeated() {
        let secret = parse("token = \"xoxb-abcdef\"").unwrap();
        let shown =
            format!("{secret:?} {} {}", serde_json::to_string(&secret).unwrap(), secret.problem("token").unwrap());
        assert!(!shown.contains("xoxb"), "{shown}");
        assert!(shown.contains("{ file = "), "{shown}");
    }

    #[test]
    fn a_secret_has_one_source() {
        assert_eq!(parse("token = { env = \"X\" }").unwrap(), Secret::env("X"));
        assert!(parse("token = { env = \"X\", file = \"y\" }").is_err());
        assert!(parse("token = { value = \"y\" }").is_err());
        assert_eq!(parse("token = { env = \"X\" }").unwrap().problem("token"), None);
        assert!(parse("token = { env = \"A=B\" }").unwrap().problem("token").is_some());
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_its_line_feed_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let secret = Secret::file(&path);
        assert!(matches!(secret.read().await, Err(Failure::Later { reason, .. }) if reason.contains("cannot read")));
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(secret.read().await.unwrap().expose(), "first");
        std::fs::write(&path, "second\r\n").unwrap();
        assert_eq!(secret.read().await.unwrap().expose(), "second");
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read().await, Err(Failure::Later { reason, .. }) if reason.contains("is empty")));
        assert_eq!(format!("{:?}", SecretValue("second".to_owned())), "[secret]");
    }

    #[test]
    fn parts_of_a_secret_address_are_removed_from_text() {
        let mut redactor = Redactor::default();
        redactor.add(&SecretValue(
            "https://hooks.example/services/T0000000/B0000000/abcDEF123456?sig=q%2Fwertyuiop".to_owned(),
        ));
        let text = redactor
            .line("no_team: path /services/T0000000/B0000000/abcDEF123456, sig q/wertyuiop or q%2Fwertyuiop", 300);
        assert_eq!(text, "no_team: path /[secret]/[secret]/[secret]/[secret], sig [secret] or [secret]");
    }
}
