//! Gives Kafka clients their tokens, and renews each token before it expires.
//!
//! librdkafka asks for tokens by events. The safe client answers them only while it is polled, and passes no extensions on, so
//! this module sets the tokens itself: the first one before the client connects, the next ones from a thread that ends with the
//! client. All unsafe code is inside one function.

use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_login::{Login, Token};
use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

/// Interval at which a thread checks whether a new token is due or its client has been dropped.
const LOOK: Duration = Duration::from_secs(1);

/// Pause after a failure, microseconds.
const AFTER_A_FAILURE_MICROS: i64 = 10_000_000;

/// Size of the buffer for librdkafka's error text, bytes.
const EXPLANATION_BYTES: usize = 512;

/// A client that takes tokens.
pub trait TakesTokens: Send + Sync + 'static {
    /// Returns librdkafka's client, which exists at least as long as `self`.
    fn native(&self) -> *mut RDKafka;
}

impl<C: ConsumerContext + 'static> TakesTokens for BaseConsumer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext + 'static> TakesTokens for ThreadedProducer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

/// Gives a short-lived client its token, if it needs one. The token is not renewed.
///
/// # Errors
/// As [`Login::token`]; `Config` if the client refuses the token.
pub fn log_in(client: &impl TakesTokens, login: Option<&Login>) -> Result<()> {
    match login {
        Some(login) => set(client, &login.token()?),
        None => Ok(()),
    }
}

/// Gives a client tokens for as long as it exists, if it needs them. If the source of tokens does not answer, it is asked again.
///
/// # Errors
/// `Config` if the source of tokens refuses this client, or the client refuses the token.
pub fn keep_logged_in(client: &Arc<impl TakesTokens>, login: Option<&Login>) -> Result<()> {
    let Some(login) = login.cloned() else { return Ok(()) };
    let first = login.token().and_then(|token| set(client.as_ref(), &token).map(|()| due_again(&login, &token)));
    let due_micros = match first {
        Ok(due_micros) => due_micros,
        Err(error) if error.kind() == ErrorKind::Unavailable => failed(&login, &error),
        Err(error) => return Err(error),
    };
    let client = Arc::downgrade(client);
    std::thread::Builder::new()
        .name("kafka-login".to_owned())
        .spawn(move || renew(&client, &login, due_micros))
        .map_err(|source| {
            Error::unavailable("the system gives no thread for the login to Kafka").with_source(source)
        })?;
    Ok(())
}

/// Sets a new token whenever one is due, until the client is dropped.
fn renew(client: &Weak<impl TakesTokens>, login: &Login, mut due_micros: i64) {
    while client.strong_count() > 0 {
        std::thread::sleep(LOOK);
        if login.now_micros() < due_micros {
            continue;
        }
        // The client is not kept alive while the token is fetched: a consumer must leave its group as soon as it is dropped.
        let token = login.token();
        let Some(client) = client.upgrade() else { return };
        due_micros = token
            .and_then(|token| set(client.as_ref(), &token).map(|()| due_again(login, &token)))
            .unwrap_or_else(|error| failed(login, &error));
    }
}

/// Returns when the token after this one is due: after four fifths of the time that it has left.
fn due_again(login: &Login, token: &Token) -> i64 {
    let now = login.now_micros();
    now + (token.expires_micros - now) / 5 * 4
}

/// Reports a failure, and returns when to try again.
fn failed(login: &Login, error: &Error) -> i64 {
    let hint = error.hint().unwrap_or_default();
    tracing::warn!(error = %error.chain(), hint, "no new token for Kafka; trying again");
    login.now_micros() + AFTER_A_FAILURE_MICROS
}

/// Sets the token of a client.
#[expect(unsafe_code, reason = "rdkafka passes no extensions to librdkafka")]
fn set(client: &impl TakesTokens, token: &Token) -> Result<()> {
    let text = |text: &str| {
        CString::new(text).map_err(|source| Error::config("a token for Kafka has a null character").with_source(source))
    };
    let (value, principal) = (text(&token.value)?, text(&token.principal)?);
    let extensions = token
        .extensions
        .iter()
        .flat_map(|(name, value)| [name, value])
        .map(|part| text(part))
        .collect::<Result<Vec<_>>>()?;
    let mut pointers: Vec<*const c_char> = extensions.iter().map(|part| part.as_ptr()).collect();
    let mut explanation: [c_char; EXPLANATION_BYTES] = [0; EXPLANATION_BYTES];
    // SAFETY: the caller borrows the client for the whole call. librdkafka copies all strings, which live until then, and writes at
    // most as much of an explanation as the array holds, with a null at its end.
    let (code, explained) = unsafe {
        let code = bindings::rd_kafka_oauthbearer_set_token(
            client.native(),
            value.as_ptr(),
            token.expires_micros / 1000,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            explanation.as_mut_ptr(),
            explanation.len(),
        );
        (code, CStr::from_ptr(explanation.as_ptr()).to_string_lossy().into_owned())
    };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        _ => Err(Error::config(format!("the Kafka client refuses its token: {explained}"))
            .with_hint("check `kafka.security` and `kafka.properties`")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::config::ClientConfig;

    use super::*;

    fn token(value: &str, extension: &str) -> Token {
        let extensions = BTreeMap::from([("logicalCluster".to_owned(), extension.to_owned())]);
        Token {
            value: value.to_owned(),
            extensions,
            principal: "bellwether".to_owned(),
            issued_micros: 0,
            expires_micros: i64::MAX / 2,
        }
    }

    #[test]
    fn a_client_takes_a_token_with_extensions_and_says_why_it_refuses_one() {
        let config = |mechanism: &str| {
            let mut config = ClientConfig::new();
            config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", mechanism);
            config.set("sasl.username", "x").set("sasl.password", "x");
            config.create::<BaseConsumer>().expect("a client")
        };
        let client = config("OAUTHBEARER");
        set(&client, &token("ey.J.x", "lkc-1")).expect("taken");
        let error = set(&client, &token("ey.J.x", "a\u{1}b")).expect_err("refused");
        assert!(error.message().starts_with("the Kafka client refuses its token: "), "{}", error.message());
        let error = set(&config("PLAIN"), &token("ey.J.x", "lkc-1")).expect_err("refused");
        assert!(error.message().contains("OAUTHBEARER is not"), "{}", error.message());
        assert!(!error.chain().contains("ey.J"), "{}", error.chain());
    }
}
