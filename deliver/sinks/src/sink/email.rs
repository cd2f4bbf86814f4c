//! E-mail by SMTP. The messages of one incident are one thread: the first has a known Message-ID, which the others refer to.

mod body;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bellwether_base::{Clock, Error, Result};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use serde::{Deserialize, Serialize};

use crate::address;
use crate::http::{NetworkSettings, innermost, permanent};
use crate::secret::{Redactor, Secret};
use crate::sink::{Failure, Notice, Receipt, Sink};
use crate::text;

const KIND: &str = "email";

const MAX_RECIPIENTS: usize = 50;

/// Length of a subject. Clients show less.
const MAX_SUBJECT: usize = 200;

/// Settings of e-mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// The mail server.
    pub host: String,
    /// Port of the server; by default the one that belongs to `tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default)]
    pub tls: TlsMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The sender, such as "Bellwether <bellwether@example.org>".
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    #[serde(flatten)]
    pub network: NetworkSettings,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Begins in plain text and must switch to TLS. Port 587.
    #[default]
    Starttls,
    /// TLS from the start. Port 465.
    Tls,
    /// No encryption, for a relay in the own network. Port 25.
    None,
}

pub(crate) struct Email {
    settings: EmailSettings,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// The parameters of TLS, made once: reading the certificates of the system takes time.
    tls: Option<TlsParameters>,
    clock: Arc<dyn Clock>,
}

// === impl EmailSettings ===

impl EmailSettings {
    pub(crate) fn problems(&self, problems: &mut Vec<String>) {
        self.network.problems(problems);
        if self.host.is_empty() || url::Host::parse(&self.host).is_err() {
            problems.push(format!("`host` must be the name of a mail server, not `{}`", text::line(&self.host, 80)));
        }
        for (name, address) in std::iter::once(("from", &self.from)).chain(self.to.iter().map(|to| ("to", to))) {
            if address.parse::<Mailbox>().is_err() {
                let address = text::line(address, 80);
                problems.push(format!(
                    "`{address}` in `{name}` is not an e-mail address, such as \"Name <name@example.org>\""
                ));
            }
        }
        if self.to.is_empty() || self.to.len() > MAX_RECIPIENTS {
            problems.push(format!("`to` must name 1 to {MAX_RECIPIENTS} recipients"));
        }
        if self.username.is_some() != self.password.is_some() {
            problems.push("`username` and `password` belong together".to_owned());
        }
        if self.tls == TlsMode::None && !self.network.allow_private {
            problems.push(
                "`tls = \"none\"` needs `allow_private = true`: mail is sent unencrypted in your own network only"
                    .to_owned(),
            );
        }
        if self.tls == TlsMode::None && self.password.is_some() {
            problems
                .push("`tls = \"none\"` would send the password in plain text; use \"starttls\" or \"tls\"".to_owned());
        }
        problems.extend(self.password.as_ref().and_then(|secret| secret.problem("password")));
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            TlsMode::Starttls => 587,
            TlsMode::Tls => 465,
            TlsMode::None => 25,
        })
    }

    fn tls_parameters(&self) -> Result<Option<TlsParameters>> {
        if self.tls == TlsMode::None {
            return Ok(None);
        }
        // The certificate is checked against the name, whatever address the connection goes to.
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(pem) = self.network.authorities()? {
            let certificate = Certificate::from_pem(&pem);
            let certificate = certificate.map_err(|error| {
                Error::config("`ca_file` holds no certificate").with_source(error).with_hint("it must be a PEM file")
            })?;
            builder = builder.add_root_certificate(certificate);
        }
        builder.build_rustls().map(Some).map_err(|error| Error::config("cannot prepare TLS").with_source(error))
    }
}

// === impl Email ===

impl Email {
    pub(crate) fn new(settings: EmailSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let mailbox = |text: &String| {
            text.parse::<Mailbox>().map_err(|error| Error::config("an e-mail address is not valid").with_source(error))
        };
        let from = mailbox(&settings.from)?;
        let to = settings.to.iter().map(mailbox).collect::<Result<_>>()?;
        let tls = settings.tls_parameters()?;
        Ok(Self { settings, from, to, tls, clock })
    }

    /// Connects to an address of the server that was checked.
    async fn transport(&self, redactor: &mut Redactor) -> Result<AsyncSmtpTransport<Tokio1Executor>, Failure> {
        let network = &self.settings.network;
        let host = self.settings.host.trim_matches(['[', ']']);
        let found = address::resolve(host, self.settings.port(), network.allow_private).await.map_err(|error| {
            let reason = format!("cannot reach the mail server `{host}`: {}", innermost(&error));
            match permanent(&error) {
                Some(_) => Failure::Refused { reason },
                None => Failure::Later { reason, after: None },
            }
        })?;
        let Some(address) = found.first() else {
            return Err(Failure::Later { reason: format!("the mail server `{host}` has no address"), after: None });
        };
        let tls = match (self.settings.tls, self.tls.clone()) {
            (TlsMode::Starttls, Some(tls)) => Tls::Required(tls),
            (TlsMode::Tls, Some(tls)) => Tls::Wrapper(tls),
            _ => Tls::None,
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
            .port(address.port())
            .timeout(Some(network.timeout))
            .tls(tls);
        if let (Some(username), Some(password)) = (&self.settings.username, &self.settings.password) {
            let password = password.read().await?;
            redactor.add(&password);
            builder = builder.credentials(Credentials::new(username.clone(), password.expose().to_owned()));
        }
        Ok(builder.build())
    }

    /// Returns the message of a notice, and the Message-ID of the first one of its thread.
    fn message(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<(lettre::Message, String), Failure> {
        let words = body::Body::new(notice);
        let domain = self.from.email.domain();
        let first = earlier.map(|receipt| receipt.reference.clone()).filter(|reference| !reference.is_empty());
        let root = first.clone().unwrap_or_else(|| format!("<{}@{domain}>", text::hash(&thread(notice))));
        let now = u64::try_from(self.clock.now_micros()).unwrap_or(0);
        // A message that is sent twice has the same id, so that clients show it once.
        let id = match first {
            Some(_) => format!("<{}@{domain}>", text::hash(&format!("{root} {} {}", words.subject, words.plain))),
            None => root.clone(),
        };
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .subject(text::line(&words.subject, MAX_SUBJECT))
            .message_id(Some(id.clone()))
            .date(UNIX_EPOCH + Duration::from_micros(now));
        if id != root {
            builder = builder.in_reply_to(root.clone()).references(root.clone());
        }
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let parts = MultiPart::alternative_plain_html(words.plain, words.html);
        let message = builder
            .multipart(parts)
            .map_err(|error| Failure::Refused { reason: format!("cannot write an e-mail: {error}") })?;
        Ok((message, root))
    }
}

#[async_trait]
impl Sink for Email {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> Result<Receipt, Failure> {
        let (message, root) = self.message(notice, earlier)?;
        let mut redactor = Redactor::default();
        let transport = self.transport(&mut redactor).await?;
        // A time-out of the library ends one step of a conversation, but a slow server has many.
        let limit = self.clock.sleep(self.settings.network.timeout.saturating_mul(3));
        let answer = tokio::select! {
            biased;
            answer = transport.send(message) => answer,
            () = limit => {
                return Err(Failure::Later { reason: "the mail server did not answer within the time-out".to_owned(), after: None });
            }
        };
        match answer {
            Ok(response) => {
                let said: Vec<&str> = response.message().collect();
                let answer = format!("{} {}", response.code(), redactor.line(&said.join(" "), 200));
                Ok(Receipt { reference: root, answer })
            }
            Err(error) => Err(failure(&error, &redactor)),
        }
    }
}

/// Returns the key of a thread: the group, or else the incident.
fn thread(notice: &Notice) -> String {
    let incident = notice.pages.first().map_or("", |page| page.incident.as_str());
    format!("{}\n{:?}\n{incident}", notice.route, notice.group)
}

/// Returns what an error of the library means.
fn failure(error: &lettre::transport::smtp::Error, redactor: &Redactor) -> Failure {
    let said = redactor.line(&innermost(error), 300);
    if let Some(status) = error.status() {
        let code = u16::from(status);
        let reason = format!("the mail server answered {code}: {said}");
        if error.is_transient() {
            return Failure::Later { reason, after: None };
        }
        let hint = match code {
            530 | 534 | 535 => "; hint: check `username` and `password`",
            550 | 551 | 553 => "; hint: check `from` and `to`",
            _ => "",
        };
        return Failure::Refused { reason: format!("{reason}{hint}") };
    }
    if error.is_timeout() {
        return Failure::Later { reason: "the mail server did not answer within the time-out".to_owned(), after: None };
    }
    let reason = format!("cannot send by the mail server: {said}");
    match permanent(error) {
        Some(hint) => Failure::Refused { reason: format!("{reason}{hint}") },
        // The server lacks something that the settings ask for, such as STARTTLS.
        None if error.is_client() => Failure::Refused { reason: format!("{reason}; hint: check `tls` and `port`") },
        None => Failure::Later { reason, after: None },
    }
}
