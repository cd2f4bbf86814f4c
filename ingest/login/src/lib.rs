//! Logins: tokens with which clients of Kafka authenticate by SASL OAUTHBEARER.
//!
//! * [`OAuthSettings`] fetches a token from a token endpoint, by OAuth 2 client credentials.
//! * [`MskSettings`] signs a token for Amazon MSK, with credentials of IAM.
//!
//! The clients of a process share the tokens of a [`Login`]. Tokens and secrets are never printed.

mod msk;
mod oauth;
mod presign;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_base::{Clock, Error, Result};

pub use msk::{MskSettings, region_of};
pub use oauth::OAuthSettings;
pub use url::Url;

/// The source of tokens.
#[derive(Clone)]
pub enum LoginSettings {
    /// A token endpoint of OAuth 2.
    OAuth(OAuthSettings),
    /// IAM of Amazon MSK.
    Msk(MskSettings),
}

/// A token, and when it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub value: String,
    /// SASL extensions that are sent to the broker with the token.
    pub extensions: BTreeMap<String, String>,
    /// Name of the principal, for the Kafka client's logs.
    pub principal: String,
    /// Microseconds since the epoch.
    pub issued_micros: i64,
    /// Microseconds since the epoch.
    pub expires_micros: i64,
}

/// Fetches tokens and keeps the last one. Cloning shares it.
#[derive(Clone)]
pub struct Login {
    settings: Arc<LoginSettings>,
    clock: Arc<dyn Clock>,
    last: Arc<Mutex<Option<Token>>>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.settings.as_ref() {
            LoginSettings::OAuth(settings) => settings.fmt(f),
            LoginSettings::Msk(settings) => settings.fmt(f),
        }
    }
}

// === impl Login ===

impl Login {
    pub fn new(settings: LoginSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings: Arc::new(settings), clock, last: Arc::default() }
    }

    /// Returns the time, microseconds since the epoch.
    pub fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }

    /// Returns a token with at least half of its lifetime left. Blocks the calling thread for at most 10 s if it has to fetch one.
    ///
    /// # Errors
    /// `Unavailable` if the source of tokens does not answer, `Config` if it refuses the client.
    pub fn token(&self) -> Result<Token> {
        // Other clients wait for the token that the first one fetches. A poisoned lock still holds a whole token.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now_micros();
        if let Some(token) = last.as_ref().filter(|token| now - token.issued_micros < token.expires_micros - now) {
            return Ok(token.clone());
        }
        let token = match self.settings.as_ref() {
            LoginSettings::OAuth(settings) => blocking(settings.token(now))?,
            LoginSettings::Msk(settings) => blocking(settings.token(now))?,
        };
        *last = Some(token.clone());
        Ok(token)
    }
}

/// Runs a future to its end on a separate thread, because the caller may be on a thread that must not block on a runtime.
fn blocking<T: Send>(work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let failed = || Error::bug("the thread that fetches a token for Kafka failed");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| failed().with_source(source))?;
            runtime.block_on(work)
        });
        thread.join().unwrap_or_else(|_| Err(failed()))
    })
}
