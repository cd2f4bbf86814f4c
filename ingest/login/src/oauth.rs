//! OAuth 2 client credentials (RFC 6749, 4.4): a token endpoint gives a token for the id and secret of a client.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwether_base::{Error, Result};
use reqwest::{Certificate, Client, Response, StatusCode, header, redirect};
use serde::Deserialize;
use serde_json::Value;
use url::{Host, Url, form_urlencoded};

use crate::Token;

/// Time for one request, connecting included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read. Tokens are sent in headers, so real ones are far smaller.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Most characters of the endpoint's explanation that an error quotes.
const MAX_REASON_CHARS: usize = 200;

/// A client of a token endpoint.
#[derive(Clone)]
pub struct OAuthSettings {
    /// URL of the token endpoint.
    pub token_url: Url,
    pub client_id: String,
    pub client_secret: String,
    /// Scopes, separated by spaces.
    pub scope: Option<String>,
    /// File (PEM) with certificate authorities to trust for the endpoint, in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// SASL extensions that are sent to the broker with the token, such as `logicalCluster` for Confluent Cloud.
    pub extensions: BTreeMap<String, String>,
}

/// The answer of a token endpoint (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    /// Seconds; some endpoints write them as a string.
    expires_in: Option<Value>,
}

/// The error response of a token endpoint (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

impl fmt::Debug for OAuthSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthSettings")
            .field("token_url", &self.token_url.as_str())
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

// === impl OAuthSettings ===

impl OAuthSettings {
    /// Returns the problem with the address of a token endpoint, in words that follow the name of its key; `None` if it can be used.
    pub fn url_problem(url: &Url) -> Option<&'static str> {
        let is_this_machine = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
            None => false,
        };
        match url.scheme() {
            _ if !url.username().is_empty() || url.password().is_some() => {
                Some("holds a user name or password; set `client_id` and `client_secret` instead")
            }
            "https" => None,
            "http" if is_this_machine => None,
            _ => Some("must begin with https://, because the secret of the client is sent to it"),
        }
    }

    /// Returns the problem with an extension, in words that follow its name; `None` if it can be sent (RFC 7628, 3.1).
    pub fn extension_problem(name: &str, value: &str) -> Option<&'static str> {
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_value = value.bytes().all(|byte| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic());
        match () {
            () if !is_name => Some("is not a name of an extension; use letters only"),
            () if name == "auth" => Some("is reserved for the token"),
            () if !is_value => Some("has a character that cannot be sent; use printable ASCII"),
            () => None,
        }
    }

    /// Fetches a token.
    pub(crate) async fn token(&self, now_micros: i64) -> Result<Token> {
        let endpoint = self.token_url.as_str();
        let no_answer = |source: reqwest::Error| {
            Error::unavailable(format!("the token endpoint `{endpoint}` does not answer: {}", innermost(&source)))
                .with_hint(
                    "check `kafka.security.token_url`, and `kafka.security.token_ca_file` if its authority is your own",
                )
        };
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .extend_pairs(self.scope.iter().map(|scope| ("scope", scope)))
            .finish();
        // RFC 6749, 2.3.1: the id and the secret are form-encoded before they are joined.
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let request = self
            .client()?
            .post(self.token_url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .basic_auth(encoded(&self.client_id), Some(encoded(&self.client_secret)))
            .body(form);
        let answer = request.send().await.map_err(no_answer)?;
        let status = answer.status();
        let body = body(answer).await;
        match status.is_success() {
            true => self.granted(&body.map_err(no_answer)?, now_micros),
            // If the body cannot be read, the status alone explains the refusal.
            false => Err(refusal(endpoint, status, &body.unwrap_or_default())),
        }
    }

    fn client(&self) -> Result<Client> {
        let mut builder = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none());
        if let Some(file) = &self.ca_file {
            let refuse = |source: Box<dyn StdError + Send + Sync>| {
                Error::config(format!("`{}` has no certificates that can be read", file.display()))
                    .with_hint("name a PEM file in `kafka.security.token_ca_file`")
                    .with_source(source)
            };
            let pem = std::fs::read(file).map_err(|source| refuse(source.into()))?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(|source| refuse(source.into()))?;
            if authorities.is_empty() {
                return Err(refuse("it has no certificate".into()));
            }
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        builder
            .build()
            .map_err(|source| Error::bug("the client of the token endpoint cannot be set up").with_source(source))
    }

    /// Reads the answer of the endpoint.
    fn granted(&self, body: &[u8], now_micros: i64) -> Result<Token> {
        let endpoint = self.token_url.as_str();
        let refuse = |what: &str| {
            Error::config(format!("the answer of the token endpoint `{endpoint}` {what}"))
                .with_hint("check `kafka.security.token_url`: it must be the token endpoint of OAuth 2")
        };
        // The body may hold a token, so no error quotes it.
        let granted: Granted = serde_json::from_slice(body).map_err(|_| refuse("has no `access_token`"))?;
        let value = granted.access_token;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if value.is_empty() || !value.bytes().all(is_token) {
            return Err(refuse("has an `access_token` with characters that no bearer token has"));
        }
        // Some servers send text or fractions.
        let seconds: Option<f64> = match granted.expires_in {
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(number) => number.as_f64(),
            None => None,
        };
        let expires_micros = seconds
            .filter(|seconds| seconds.is_finite())
            // The cast saturates.
            .map(|seconds| now_micros.saturating_add((seconds * 1e6) as i64))
            .or_else(|| expiry_of(&value))
            .ok_or_else(|| refuse("has neither `expires_in` nor a JWT with `exp`"))?;
        if expires_micros <= now_micros {
            return Err(refuse("has a token that has expired")
                .with_hint("compare the clocks of this machine and of the token endpoint"));
        }
        Ok(Token {
            value,
            extensions: self.extensions.clone(),
            principal: self.client_id.clone(),
            issued_micros: now_micros,
            expires_micros,
        })
    }
}

/// Reads a body up to the limit.
async fn body(mut answer: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            body.truncate(MAX_ANSWER_BYTES);
            break;
        }
    }
    Ok(body)
}

/// Converts an unsuccessful answer into an error.
fn refusal(endpoint: &str, status: StatusCode, body: &[u8]) -> Error {
    let reason = match serde_json::from_slice(body) {
        Ok(Refused { error, error_description: Some(more) }) => format!("{error}: {more}"),
        Ok(Refused { error, .. }) => error,
        Err(_) => status.canonical_reason().unwrap_or("no reason").to_owned(),
    };
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect();
    let what = format!("the token endpoint `{endpoint}` answers {}: {reason}", status.as_u16());
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Error::unavailable(what),
        status if status.is_server_error() => Error::unavailable(what),
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::config(what)
            .with_hint("check `client_id`, `client_secret` and `scope` of `kafka.security`, and the client's rights"),
        _ => {
            Error::config(what).with_hint("check `kafka.security.token_url`: it must be the token endpoint of OAuth 2")
        }
    }
}

/// Returns when a JWT expires, microseconds since the epoch.
fn expiry_of(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims["exp"].as_i64()?.checked_mul(1_000_000)
}

fn innermost(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::thread::JoinHandle;

    use bellwether_base::{Clock, ErrorKind, SystemClock};

    use super::*;
    use crate::{Login, LoginSettings};

    /// Answers one request after another with these statuses and bodies, and returns the requests.
    fn endpoint(answers: &[(u16, &str)]) -> (Url, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = Url::parse(&format!("http://{}/token", listener.local_addr().expect("an address"))).expect("a URL");
        let answers: Vec<(u16, String)> = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let served = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|(status, body)| {
                    let (mut stream, _) = listener.accept().expect("a request");
                    let (mut request, mut part) = (String::new(), [0; 4096]);
                    while !request.contains("grant_type") {
                        let read = stream.read(&mut part).expect("reads");
                        request.push_str(&String::from_utf8_lossy(&part[..read]));
                    }
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                    stream.write_all((head + &body).as_bytes()).expect("answers");
                    request
                })
                .collect()
        });
        (url, served)
    }

    fn settings(token_url: Url) -> OAuthSettings {
        OAuthSettings {
            token_url,
            client_id: "bell ringer".to_owned(),
            client_secret: "s3cret/+:".to_owned(),
            scope: Some("kafka read".to_owned()),
            ca_file: None,
            extensions: BTreeMap::from([("logicalCluster".to_owned(), "lkc-1".to_owned())]),
        }
    }

    fn login(settings: OAuthSettings) -> Login {
        Login::new(LoginSettings::OAuth(settings), Arc::new(SystemClock))
    }

    #[test]
    fn a_client_asks_as_rfc_6749_says_and_sends_extensions_behind_the_token() {
        let (url, served) = endpoint(&[(200, r#"{"access_token": "ey.J.x", "expires_in": 3600}"#)]);
        let login = login(settings(url));
        let token = login.token().expect("a token");
        assert_eq!((token.value.as_str(), &token.extensions["logicalCluster"][..]), ("ey.J.x", "lkc-1"));
        assert_eq!(token.expires_micros - token.issued_micros, 3_600_000_000);
        assert_eq!(login.clone().token().expect("the same"), token, "the clients of a process share it");
        let request = served.join().expect("served").remove(0);
        // base64("bell+ringer:s3cret%2F%2B%3A")
        assert!(request.contains("authorization: Basic YmVsbCtyaW5nZXI6czNjcmV0JTJGJTJCJTNB"), "{request}");
        assert!(request.ends_with("grant_type=client_credentials&scope=kafka+read"), "{request}");
        assert!(!format!("{login:?} {token:?}").contains("s3cret") && !format!("{token:?}").contains("ey.J"));
    }

    #[test]
    fn a_token_is_fetched_again_before_it_expires() {
        // Some endpoints write the seconds as a text, or with a fraction.
        let (url, served) = endpoint(&[
            (200, r#"{"access_token": "first", "expires_in": "1.5"}"#),
            (200, r#"{"access_token": "second", "expires_in": 3600}"#),
        ]);
        let login = login(settings(url));
        assert_eq!(login.token().expect("a token").value, "first");
        let half = SystemClock.now_micros() + 750_001;
        while SystemClock.now_micros() < half {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(login.token().expect("a token").value, "second");
        served.join().expect("served");
    }

    #[test]
    fn a_token_without_a_lifetime_has_that_of_its_claims() {
        let soon = SystemClock.now_micros() / 1_000_000 + 60;
        let jwt = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp": {soon}}}"#)));
        let (url, served) = endpoint(&[(200, &format!(r#"{{"access_token": "{jwt}"}}"#))]);
        assert_eq!(login(settings(url)).token().expect("a token").expires_micros, soon * 1_000_000);
        served.join().expect("served");
    }

    #[test]
    fn each_answer_that_is_no_token_says_what_to_do() {
        for (status, body, kind, message, hint) in [
            (
                401,
                r#"{"error": "invalid_client", "error_description": "unknown client"}"#,
                ErrorKind::Config,
                "answers 401: invalid_client: unknown client",
                "client_secret",
            ),
            (404, "<html>", ErrorKind::Config, "answers 404: Not Found", "token_url"),
            (503, "", ErrorKind::Unavailable, "answers 503: Service Unavailable", ""),
            (200, r#"{"token": "x"}"#, ErrorKind::Config, "has no `access_token`", "token_url"),
            (
                200,
                r#"{"access_token": "x"}"#,
                ErrorKind::Config,
                "neither `expires_in` nor a JWT with `exp`",
                "token_url",
            ),
            (200, r#"{"access_token": "x", "expires_in": 0}"#, ErrorKind::Config, "has expired", "clocks"),
            (
                200,
                r#"{"access_token": "x\u0001y", "expires_in": 9}"#,
                ErrorKind::Config,
                "no bearer token has",
                "token_url",
            ),
        ] {
            let (url, served) = endpoint(&[(status, body)]);
            let error = login(settings(url)).token().expect_err("refused");
            assert_eq!(error.kind(), kind, "{status} {body}");
            assert!(error.message().contains(message), "{}", error.message());
            assert!(error.hint().unwrap_or_default().contains(hint), "{:?}", error.hint());
            assert!(!error.chain().contains("s3cret"), "{}", error.chain());
            served.join().expect("served");
        }
        let closed = Url::parse("http://127.0.0.1:9/token").expect("a URL");
        let error = login(settings(closed)).token().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("does not answer: "), "{}", error.message());
    }

    #[test]
    fn a_secret_is_not_sent_without_tls_to_another_machine() {
        for (url, accepted) in [
            ("https://login.acme.example/token", true),
            ("http://127.0.0.1:8080/token", true),
            ("http://localhost/token", true),
            ("http://login.acme.example/token", false),
            ("https://bellwether:secret@login.acme.example/token", false),
            ("file:///token", false),
        ] {
            assert_eq!(OAuthSettings::url_problem(&Url::parse(url).expect("a URL")).is_none(), accepted, "{url}");
        }
    }

    #[test]
    fn an_extension_cannot_end_the_message_or_replace_the_token() {
        assert_eq!(OAuthSettings::extension_problem("logicalCluster", "lkc-1"), None);
        for (name, value) in [("auth", "Bearer x"), ("a b", "x"), ("", "x"), ("a", "x\u{1}auth=y"), ("a", "ü")] {
            assert!(OAuthSettings::extension_problem(name, value).is_some(), "{name}={value}");
        }
    }
}
