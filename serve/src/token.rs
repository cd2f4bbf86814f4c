//! Tokens: who may ask, what, and about whose rows.
//!
//! The file holds a hash of each token, never the token. A token is 256 random bits, so that no guess and no table of hashes
//! finds one, and a plain SHA-256 is as good as a slow hash. [`Tokens::find`] compares with every entry, and hashes, so that the
//! time it takes tells nothing about tokens.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use bellwether_base::{Error, Result, unique_id};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Begin of each token, by which scanners of leaked secrets recognise it.
const PREFIX: &str = "bellwether_";

/// Random bytes of a token.
const SECRET_BYTES: usize = 32;

/// Longest name of a token, characters.
const NAME_CHARACTERS: usize = 64;

/// First line of the file.
const HEADER: &str =
    "# Tokens of the server of queries, written by `bellwether serve token`. Holds hashes, no secrets.\n";

/// The requests that a token permits. Each scope includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Ask everything, and see and cancel one's own statements.
    Read,
    /// See and cancel the statements of all.
    Admin,
}

/// A token as the file holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name, as in the audit log.
    pub name: String,
    /// Hash of the token: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// The requests that it permits.
    pub scope: Scope,
    /// The only tenant whose rows exist for it; none for all rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// When it ends, RFC 3339; none for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The tokens of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(default)]
    tokens: Vec<Token>,
}

// === impl Token ===

impl Token {
    /// Returns when it ends, microseconds since the epoch; none for never.
    fn ends_at(&self) -> std::result::Result<Option<i64>, String> {
        let Some(text) = &self.expires else { return Ok(None) };
        let time = humantime::parse_rfc3339_weak(text)
            .map_err(|_| format!("token `{}` expires at `{text}`, which is not a time", self.name))?;
        let micros = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Ok(Some(i64::try_from(micros).unwrap_or(i64::MAX)))
    }

    /// Returns true if it has ended at a time, microseconds since the epoch.
    pub fn has_expired(&self, now: i64) -> bool {
        self.ends_at().map_or(true, |ends| ends.is_some_and(|ends| ends <= now))
    }

    fn problem(&self) -> Option<String> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.@".contains(letter);
        if self.name.is_empty() || self.name.len() > NAME_CHARACTERS || !self.name.chars().all(allowed) {
            return Some(format!(
                "the name `{}` must have 1 to {NAME_CHARACTERS} characters: letters, digits, `-`, `_`, `.` and `@`",
                self.name
            ));
        }
        if self.tenant.as_deref() == Some("") {
            return Some(format!("the tenant of token `{}` is empty", self.name));
        }
        let digits = self.hash.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() != 2 * SECRET_BYTES || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Some(format!("the hash of token `{}` is not `sha256:` and 64 hexadecimal digits", self.name));
        }
        self.ends_at().err()
    }
}

// === impl Tokens ===

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// `Config` if it cannot be read or is invalid.
    pub fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(|source| {
            Error::config(format!("cannot read the tokens in `{}`", file.display()))
                .with_hint("make the first one with `bellwether serve token add`")
                .with_source(source)
        })?;
        Self::parse(&text).map_err(|problem| {
            Error::config(format!("the tokens in `{}` are invalid: {problem}", file.display()))
                .with_hint("docs/serve.md describes the file")
        })
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let tokens: Self = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        if let Some(problem) = tokens.tokens.iter().find_map(Token::problem) {
            return Err(problem);
        }
        for (place, token) in tokens.tokens.iter().enumerate() {
            if tokens.tokens[..place].iter().any(|earlier| earlier.name == token.name) {
                return Err(format!("there are two tokens `{}`", token.name));
            }
        }
        Ok(tokens)
    }

    /// Returns all tokens.
    pub fn all(&self) -> &[Token] {
        &self.tokens
    }

    /// Adds a token; returns its text, which is stored nowhere.
    ///
    /// # Errors
    /// `Config` if the name is taken or a field is invalid; `Unavailable` if the system has no random numbers.
    pub fn add(&mut self, name: &str, scope: Scope, tenant: Option<String>, expires: Option<String>) -> Result<String> {
        let mut secret = [0_u8; SECRET_BYTES];
        getrandom::fill(&mut secret)
            .map_err(|error| Error::unavailable(format!("the system gives no random numbers: {error}")))?;
        let text = format!("{PREFIX}{}", hex(&secret));
        let token = Token { name: name.to_owned(), hash: hash(&text), scope, tenant, expires };
        if let Some(problem) = token.problem() {
            return Err(Error::config(problem));
        }
        if self.tokens.iter().any(|known| known.name == name) {
            return Err(Error::config(format!("there is a token `{name}` already"))
                .with_hint("choose another name, or revoke that one first"));
        }
        self.tokens.push(token);
        Ok(text)
    }

    /// Removes a token by its name; returns false if there is none.
    pub fn revoke(&mut self, name: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| token.name != name);
        self.tokens.len() < before
    }

    /// Returns the entry of a token.
    pub fn find(&self, text: &str) -> Option<&Token> {
        let hash = hash(text);
        self.tokens.iter().fold(None, |found, token| if token.hash == hash { Some(token) } else { found })
    }

    /// Replaces a file in one step, readable for its owner alone.
    ///
    /// # Errors
    /// `Config` if it cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let refused = |source: std::io::Error| {
            Error::config(format!("cannot write the tokens to `{}`", file.display())).with_source(source)
        };
        let text = toml::to_string(self)
            .map_err(|source| Error::bug("the tokens cannot be written as TOML").with_source(source))?;
        let new = file.with_extension(format!("{}.new", unique_id().simple()));
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&new).and_then(|mut target| {
            target.write_all(HEADER.as_bytes())?;
            target.write_all(text.as_bytes())?;
            target.sync_all()
        });
        let replaced = written.and_then(|()| fs::rename(&new, file));
        if replaced.is_err() {
            drop(fs::remove_file(&new));
        }
        replaced.map_err(refused)
    }
}

/// Returns the time at which a token ends that is valid for a duration from `now`, microseconds since the epoch.
pub fn expiry(now: i64, valid: Duration) -> String {
    let now = UNIX_EPOCH + Duration::from_micros(now.unsigned_abs());
    humantime::format_rfc3339_seconds(now + valid).to_string()
}

fn hash(text: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(text)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_token_is_found_until_it_is_revoked_and_the_file_does_not_hold_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let mut tokens = Tokens::default();
        let text = tokens.add("grafana", Scope::Read, Some("acme".to_owned()), None).expect("added");
        let other = tokens.add("ops", Scope::Admin, None, Some("2026-12-01T00:00:00Z".to_owned())).expect("added");
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 64 && text != other);
        tokens.save(&file).expect("saved");
        let stored = fs::read_to_string(&file).expect("read");
        assert!(!stored.contains(&text[PREFIX.len()..]) && stored.contains("grafana"), "{stored}");
        let mut again = Tokens::load(&file).expect("loaded");
        assert_eq!(again, tokens);
        let found = again.find(&text).expect("found");
        assert_eq!((found.name.as_str(), found.scope, found.tenant.as_deref()), ("grafana", Scope::Read, Some("acme")));
        assert!(again.find(&text[..text.len() - 1]).is_none() && again.find("").is_none());
        assert!(again.revoke("grafana") && !again.revoke("grafana"));
        assert!(again.find(&text).is_none() && again.find(&other).is_some());
        again.save(&file).expect("replaced");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "no other file is left");
    }

    #[test]
    fn a_token_ends_at_its_time() {
        let mut tokens = Tokens::default();
        let ends = expiry(1_795_543_200 * SECOND, Duration::from_secs(60));
        tokens.add("short", Scope::Read, None, Some(ends)).expect("added");
        let token = &tokens.all()[0];
        assert!(!token.has_expired((1_795_543_260 * SECOND) - 1) && token.has_expired(1_795_543_260 * SECOND));
    }

    #[test]
    fn an_invalid_file_says_what_is_wrong() {
        let hash = format!("sha256:{}", "0".repeat(64));
        let entry = |name: &str, more: &str| {
            format!("[[tokens]]\nname = \"{name}\"\nhash = \"{hash}\"\nscope = \"read\"\n{more}")
        };
        for (text, expected) in [
            (entry("a b", ""), "the name `a b`"),
            (entry("", ""), "1 to 64"),
            (entry("a", "tenant = \"\"\n"), "the tenant of token `a` is empty"),
            (entry("a", "expires = \"soon\"\n"), "expires at `soon`"),
            (entry("a", "").replace(&hash, "sha256:00"), "64 hexadecimal digits"),
            (entry("a", "").replace("\"read\"", "\"write\""), "write"),
            (entry("a", "role = \"x\"\n"), "role"),
            (entry("a", "") + &entry("a", ""), "two tokens `a`"),
        ] {
            let problem = Tokens::parse(&text).expect_err(&text);
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
        assert!(Tokens::parse("").expect("none").all().is_empty());
        let mut tokens = Tokens::default();
        tokens.add("a", Scope::Read, None, None).expect("added");
        assert!(tokens.add("a", Scope::Read, None, None).is_err());
    }
}
