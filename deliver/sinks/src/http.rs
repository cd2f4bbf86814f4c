//! The HTTP client of the sinks: no redirects, no proxies, public addresses only unless allowed, a time-out and bounded sizes.
//!
//! It also decides what an answer means: a rate limit, an outage or a time-out is tried again; anything else that is not a success
//! is refused, with the service's own words.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwether_base::{Clock, Error, Result};
use reqwest::{Certificate, Client, Method, Response, header, redirect};
use rustls::CertificateError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::address::{self, NotPublic, PublicOnly};
use crate::duration;
use crate::secret::Redactor;
use crate::sink::Failure;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A longer time-out would hold up the pages behind it.
const MAX_TIMEOUT: Duration = Duration::from_secs(120);

/// Nothing larger is sent. Every service has a lower limit, which its sink keeps.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

/// More of an answer is not read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Length of the words of a service in a reason.
const MAX_REASON_CHARS: usize = 300;

/// A service that asks for a longer pause is asked again after this one.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Settings that all sinks with a network connection have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSettings {
    /// Time for one request, connecting included.
    #[serde(default = "default_timeout", with = "duration")]
    pub timeout: Duration,
    /// Allows private, loopback and other addresses that are not public, and addresses without TLS.
    #[serde(default)]
    pub allow_private: bool,
    /// Certificates (PEM) of authorities that are trusted besides those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// The client of one sink.
pub(crate) struct Http {
    client: Client,
    allow_private: bool,
    clock: Arc<dyn Clock>,
}

/// One request.
pub(crate) struct Call<'a> {
    /// Name of the service in reasons.
    pub(crate) service: &'static str,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Removes the secrets of the request from the answer.
    pub(crate) redactor: &'a Redactor,
    /// The setting with the credential, for hints.
    pub(crate) credential: &'static str,
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

// === impl NetworkSettings ===

impl NetworkSettings {
    /// Adds what is wrong with the settings.
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        if self.timeout < Duration::from_millis(100) || self.timeout > MAX_TIMEOUT {
            problems.push("`timeout` must be from 100ms to 2m".to_owned());
        }
    }

    /// Adds what is wrong with an address that stands in the configuration.
    pub(crate) fn url_problems(&self, name: &str, text: &str, problems: &mut Vec<String>) {
        match Url::parse(text) {
            Err(error) => problems.push(format!("`{name}` is not a URL: {error}; write it with https:// or http://")),
            Ok(url) => problems.extend(self.url_problem(name, &url)),
        }
    }

    fn url_problem(&self, name: &str, url: &Url) -> Option<String> {
        if !url.username().is_empty() || url.password().is_some() {
            return Some(format!("`{name}` holds a user name or password; use the settings for credentials instead"));
        }
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private => {}
            "http" => {
                return Some(format!(
                    "`{name}` must begin with https://, or set `allow_private = true` if the service is in your own network"
                ));
            }
            other => return Some(format!("`{name}` must begin with https://, not {other}:")),
        }
        if !self.allow_private
            && let Err(not_public) = address::check_literal(url.host().as_ref())
        {
            return Some(format!("`{name}`: {not_public}"));
        }
        None
    }

    /// Checks an address that was read from a secret.
    pub(crate) fn check_url(&self, name: &str, url: &Url) -> Result<(), Failure> {
        self.url_problem(name, url).map_or(Ok(()), |reason| Err(Failure::Refused { reason }))
    }

    /// Reads the certificates of `ca_file`.
    pub(crate) fn authorities(&self) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let read = std::fs::read(path);
        let pem = read
            .map_err(|error| Error::config(format!("cannot read `ca_file` {}", path.display())).with_source(error))?;
        Ok(Some(pem))
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self { timeout: DEFAULT_TIMEOUT, allow_private: false, ca_file: None }
    }
}

fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT
}

// === impl Http ===

impl Http {
    /// Creates a client.
    ///
    /// # Errors
    ///
    /// `Config` if `ca_file` cannot be read or holds no certificate.
    pub(crate) fn new(settings: &NetworkSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut builder = Client::builder()
            .timeout(settings.timeout)
            .connect_timeout(settings.timeout)
            .redirect(redirect::Policy::none())
            // A proxy would resolve names itself.
            .no_proxy()
            .user_agent(concat!("bellwether/", env!("CARGO_PKG_VERSION")));
        if !settings.allow_private {
            builder = builder.dns_resolver(Arc::new(PublicOnly));
        }
        if let Some(pem) = settings.authorities()? {
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Error::config("`ca_file` holds no certificate").with_hint("it must be a PEM file"));
            }
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client =
            builder.build().map_err(|error| Error::config("cannot create an HTTP client").with_source(error))?;
        Ok(Self { client, allow_private: settings.allow_private, clock })
    }

    /// Sends a request and returns the answer if it is a success.
    ///
    /// # Errors
    ///
    /// The meaning of the answer, or of its absence.
    pub(crate) async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let Call { service, redactor, credential, .. } = call;
        if call.body.len() > MAX_BODY_BYTES {
            let reason =
                format!("the message for {service} has {} bytes; at most {MAX_BODY_BYTES} are sent", call.body.len());
            return Err(Failure::Refused { reason });
        }
        if !self.allow_private
            && let Err(not_public) = address::check_literal(call.url.host().as_ref())
        {
            return Err(Failure::Refused { reason: format!("{service}: {not_public}") });
        }
        let mut request = self.client.request(call.method, call.url).body(call.body);
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(connection_failure(service, error, redactor)),
        };
        let status = response.status().as_u16();
        let after = self.retry_after(&response);
        let moved_to = location(&response);
        let body = match read(&mut response).await {
            Ok(body) => body,
            // The service has decided; only its words are missing.
            Err(_) if !response.status().is_success() => String::new(),
            Err(error) => return Err(connection_failure(service, error, redactor)),
        };
        if (200..300).contains(&status) {
            return Ok(Answer { status, body });
        }
        let words = redactor.line(&service_words(&body), MAX_REASON_CHARS);
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let reason = format!("{service} answered {status}{words}");
        match status {
            408 | 425 | 429 | 500.. => Err(Failure::Later { reason, after }),
            300..400 => {
                let to = moved_to.map(|host| format!(" to `{host}`")).unwrap_or_default();
                let hint = "; hint: redirects are not followed, give the final address";
                Err(Failure::Refused { reason: format!("{service} answered {status}, a redirect{to}{hint}") })
            }
            _ => Err(Failure::Refused { reason: format!("{reason}{}", hint(status, credential)) }),
        }
    }

    /// Reads `Retry-After`, which is a number of seconds or a time.
    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim();
        let after = match value.parse::<u64>() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let until = httpdate::parse_http_date(value).ok()?;
                let now = u64::try_from(self.clock.now_micros()).unwrap_or(0);
                let now: SystemTime = UNIX_EPOCH + Duration::from_micros(now);
                until.duration_since(now).unwrap_or_default()
            }
        };
        Some(after.min(MAX_RETRY_AFTER))
    }
}

/// Returns the host of a redirect. The rest of the address may be secret.
fn location(response: &Response) -> Option<String> {
    let value = response.headers().get(header::LOCATION)?.to_str().ok()?;
    response.url().join(value).ok()?.host_str().map(str::to_owned)
}

/// Reads an answer up to its limit.
async fn read(response: &mut Response) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let left = MAX_ANSWER_BYTES - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == MAX_ANSWER_BYTES {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Returns the message of an error as services write it, or else the answer as it is.
pub(crate) fn service_words(body: &str) -> String {
    let Ok(Value::Object(answer)) = serde_json::from_str::<Value>(body) else { return body.to_owned() };
    let mut words = Vec::new();
    for name in ["message", "error", "detail", "errors"] {
        match answer.get(name) {
            Some(Value::String(text)) => words.push(text.clone()),
            Some(Value::Null) | None => {}
            Some(other) => words.push(other.to_string()),
        }
    }
    if words.is_empty() { body.to_owned() } else { words.join("; ") }
}

/// Returns the usual remedy for a status.
fn hint(status: u16, credential: &str) -> String {
    match status {
        401 | 403 => format!("; hint: the credential was revoked or lacks a permission, replace `{credential}`"),
        404 | 410 => format!("; hint: the address is wrong or was deleted at the service, check `{credential}`"),
        _ => String::new(),
    }
}

/// Returns what a failed connection means.
fn connection_failure(service: &str, error: reqwest::Error, redactor: &Redactor) -> Failure {
    if error.is_timeout() {
        return Failure::Later { reason: format!("{service} did not answer within the time-out"), after: None };
    }
    // The address may be secret.
    let error = error.without_url();
    let reason = format!("cannot reach {service}: {}", redactor.line(&innermost(&error), MAX_REASON_CHARS));
    match permanent(&error) {
        Some(hint) => Failure::Refused { reason: format!("{reason}{hint}") },
        None if error.is_builder() => Failure::Refused { reason },
        None => Failure::Later { reason, after: None },
    }
}

/// Returns the text of the deepest cause, which says the most.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error.to_string();
    each_cause(error, &mut |cause| deepest = cause.to_string());
    deepest
}

/// Returns a hint if a connection fails in a way that time does not heal: a certificate, or an address that is not allowed.
pub(crate) fn permanent(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut found = None;
    each_cause(error, &mut |cause| {
        if cause.is::<NotPublic>() {
            found = Some("");
        } else if let Some(rustls::Error::InvalidCertificate(reason)) = cause.downcast_ref::<rustls::Error>() {
            found = Some(certificate_hint(reason));
        }
    });
    found
}

fn certificate_hint(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            "; hint: renew the certificate of the server, or set the clock of this machine"
        }
        _ => "; hint: check the host name, or name the authority of its certificate in `ca_file`",
    }
}

/// Visits an error and all its causes. An I/O error hides the error that it wraps from `source`.
fn each_cause(error: &(dyn StdError + 'static), visit: &mut dyn FnMut(&(dyn StdError + 'static))) {
    visit(error);
    if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        each_cause(inner, visit);
    } else if let Some(source) = error.source() {
        each_cause(source, visit);
    }
}
