//! The one place that decides who may ask: by token or, without tokens, whoever is on this machine.
//!
//! Without tokens, the server is on loopback. A page in a browser could still ask there by a name that resolves to this machine
//! (DNS rebinding), so a request must name the machine itself in `Host`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use bellwether_base::{Clock, Result};

use crate::refused::{Answered, Refused};
use crate::token::{Scope, Tokens};

/// The name of those who ask without a token.
const LOCAL: &str = "local";

/// The client that makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Name of the token.
    pub(crate) name: Arc<str>,
    pub(crate) scope: Scope,
    /// The only tenant whose rows exist for the caller.
    pub(crate) tenant: Option<Arc<str>>,
}

/// Decides who may ask.
pub(crate) struct Access {
    clock: Arc<dyn Clock>,
    file: Option<TokenFile>,
}

/// A file of tokens, read again whenever it changes.
struct TokenFile {
    path: PathBuf,
    loaded: Mutex<(Stamp, Arc<Tokens>)>,
}

/// Properties that change when a file is replaced or written: its time, its length and, on Unix, its inode number.
type Stamp = (Option<SystemTime>, u64, u64);

// === impl Access ===

impl Access {
    /// Reads the tokens, if a file is named.
    ///
    /// # Errors
    /// `Config` if the file cannot be read or is invalid.
    pub(crate) fn new(file: Option<&Path>, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { clock, file: file.map(TokenFile::open).transpose()? })
    }

    /// Returns true if a caller needs a token.
    pub(crate) fn needs_token(&self) -> bool {
        self.file.is_some()
    }

    /// Returns who sends a request with these headers.
    pub(crate) fn caller(&self, uri: &Uri, headers: &HeaderMap) -> Answered<Caller> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        self.caller_with(uri, headers, given.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim))
    }

    /// Returns who sends a request with these headers and a token, if it has one.
    pub(crate) fn caller_with(&self, uri: &Uri, headers: &HeaderMap, token: Option<&str>) -> Answered<Caller> {
        if !self.needs_token() && !names_this_machine(uri, headers) {
            return Err(Refused::new(StatusCode::FORBIDDEN, "without tokens, the server answers this machine alone")
                .with_hint("ask http://127.0.0.1 or http://localhost, or set `api.tokens_file`"));
        }
        self.holder(token).map_err(|refused| match refused.status {
            StatusCode::UNAUTHORIZED if refused.hint.is_none() => refused
                .with_hint("send the header `Authorization: Bearer TOKEN`; `bellwether serve token add` makes a token"),
            _ => refused,
        })
    }

    /// Returns who has a token; without tokens, whoever is on this machine.
    pub(crate) fn holder(&self, given: Option<&str>) -> Answered<Caller> {
        let Some(file) = &self.file else {
            return Ok(Caller { name: LOCAL.into(), scope: Scope::Admin, tenant: None });
        };
        let tokens = file.current().map_err(|error| {
            tracing::error!(reason = %error.chain(), "the file of tokens cannot be read; all requests are refused");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the tokens of the server cannot be read")
        })?;
        let unknown = || Refused::new(StatusCode::UNAUTHORIZED, "the request has no valid token");
        let token = given.and_then(|text| tokens.find(text)).ok_or_else(unknown)?;
        if token.has_expired(self.clock.now_micros()) {
            return Err(Refused::new(StatusCode::UNAUTHORIZED, format!("the token `{}` has expired", token.name))
                .with_hint("ask whoever runs the server for another one"));
        }
        Ok(Caller {
            name: token.name.as_str().into(),
            scope: token.scope,
            tenant: token.tenant.as_deref().map(Arc::from),
        })
    }
}

// === impl TokenFile ===

impl TokenFile {
    fn open(path: &Path) -> Result<Self> {
        let stamp = stamp(path);
        let loaded = Mutex::new((stamp, Arc::new(Tokens::load(path)?)));
        Ok(Self { path: path.to_owned(), loaded })
    }

    /// Returns the tokens as the file holds them now. A file that becomes invalid permits nothing.
    fn current(&self) -> Result<Arc<Tokens>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if loaded.0 != now || now.0.is_none() {
            *loaded = (now, Arc::new(Tokens::load(&self.path)?));
        }
        Ok(Arc::clone(&loaded.1))
    }
}

fn stamp(path: &Path) -> Stamp {
    let Ok(meta) = std::fs::metadata(path) else { return (None, 0, 0) };
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&meta);
    #[cfg(not(unix))]
    let number = 0;
    (meta.modified().ok(), meta.len(), number)
}

/// Returns true if a request names this machine by its own name or address.
fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(host) = uri.authority().map(|authority| authority.as_str()).or(host) else { return false };
    let Ok(authority) = host.parse::<axum::http::uri::Authority>() else { return false };
    matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use bellwether_base::ManualClock;

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn without_tokens_only_requests_to_this_machine_by_name_are_answered() {
        let access = Access::new(None, Arc::new(ManualClock::at(0))).expect("no file");
        let ask = |host: &str| access.caller(&Uri::from_static("/v1/tasks"), &headers(&[(header::HOST, host)]));
        for host in ["localhost:9465", "127.0.0.1:9465", "[::1]:9465", "localhost"] {
            assert_eq!(ask(host).expect(host).tenant, None);
        }
        for host in
            ["evil.example:9465", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example"]
        {
            assert_eq!(ask(host).expect_err(host).status, StatusCode::FORBIDDEN);
        }
        assert!(access.caller(&Uri::from_static("/v1/tasks"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn a_change_of_the_file_counts_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tokens.toml");
        let mut tokens = Tokens::default();
        let first = tokens.add("first", Scope::Read, Some("acme".to_owned()), None).expect("added");
        let ends = Some("1970-01-01T00:00:10Z".to_owned());
        let ended = tokens.add("ended", Scope::Read, None, ends).expect("added");
        tokens.save(&file).expect("saved");
        let clock = ManualClock::at(9_000_000);
        let access = Access::new(Some(&file), Arc::new(clock.clone())).expect("read");
        let ask = |value: &str| {
            access.caller(
                &Uri::from_static("/"),
                &headers(&[(header::HOST, "localhost"), (header::AUTHORIZATION, value)]),
            )
        };
        let bearer = |token: &str| format!("Bearer {token}");
        let caller = ask(&bearer(&first)).expect("known");
        assert_eq!((&*caller.name, caller.tenant.as_deref()), ("first", Some("acme")));
        for wrong in ["", "Bearer", "Bearer ", "Basic abc", &first, &bearer(&first[1..])] {
            assert_eq!(ask(wrong).expect_err(wrong).status, StatusCode::UNAUTHORIZED);
        }
        assert!(ask(&bearer(&ended)).is_ok());
        clock.advance(1_000_000);
        assert!(ask(&bearer(&ended)).expect_err("expired").message.contains("`ended` has expired"));
        tokens.revoke("first");
        tokens.save(&file).expect("saved");
        assert_eq!(ask(&bearer(&first)).expect_err("revoked").status, StatusCode::UNAUTHORIZED);
        std::fs::write(&file, "not TOML").expect("written");
        assert_eq!(ask(&bearer(&ended)).expect_err("invalid").status, StatusCode::SERVICE_UNAVAILABLE);
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(ask(&bearer(&ended)).expect_err("gone").status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
