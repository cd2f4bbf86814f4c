//! A ping: a request that says to a service outside "all is well". The service raises an alarm once pings stay away, as a dead
//! man's switch does.

use std::sync::Arc;

use bellwether_base::{Clock, Error, Result};
use reqwest::Method;
use url::Url;

use crate::http::{Call, Http, NetworkSettings};
use crate::secret::{Redactor, SecretValue};
use crate::sink::Failure;

/// The address of a ping. Whoever knows it can say that all is well, so that it is never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingSettings {
    url: SecretValue,
    network: NetworkSettings,
}

/// A client that pings one address.
pub struct Ping {
    url: Url,
    http: Http,
    redactor: Redactor,
}

// === impl PingSettings ===

impl PingSettings {
    /// Checks an address, which must be public and encrypted unless `allow_private` says otherwise. `name` is the setting.
    ///
    /// # Errors
    /// The problem with it, without the address.
    pub fn new(name: &str, url: &str, allow_private: bool) -> std::result::Result<Self, String> {
        let network = NetworkSettings { allow_private, ..NetworkSettings::default() };
        let mut problems = Vec::new();
        network.url_problems(name, url, &mut problems);
        match problems.pop() {
            Some(problem) => Err(problem),
            None => Ok(Self { url: SecretValue::new(url), network }),
        }
    }
}

// === impl Ping ===

impl Ping {
    /// Creates a client.
    ///
    /// # Errors
    /// `Config` if it cannot be created.
    pub fn new(settings: &PingSettings, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut redactor = Redactor::default();
        redactor.add(&settings.url);
        let url = Url::parse(settings.url.expose()).map_err(|source| Error::config("not a URL").with_source(source))?;
        Ok(Self { url, http: Http::new(&settings.network, clock)?, redactor })
    }

    /// Sends one ping, a GET request. Redirects are not followed.
    ///
    /// # Errors
    /// Why it did not arrive, without the secret parts of the address.
    pub async fn send(&self) -> std::result::Result<(), Failure> {
        let call = Call {
            service: "the ping service",
            method: Method::GET,
            url: self.url.clone(),
            headers: Vec::new(),
            body: Vec::new(),
            redactor: &self.redactor,
            credential: "ping_url",
        };
        self.http.send(call).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use bellwether_base::SystemClock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, and returns the request.
    async fn answering(answer: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ping/0123456789abcdef", listener.local_addr().unwrap());
        let server = tokio::task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (url, server)
    }

    fn ping(url: &str) -> Ping {
        Ping::new(&PingSettings::new("heartbeat.ping_url", url, true).unwrap(), Arc::new(SystemClock)).unwrap()
    }

    #[tokio::test]
    async fn a_ping_is_one_get_request() {
        let (url, server) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK").await;
        assert_eq!(ping(&url).send().await, Ok(()));
        assert!(server.await.unwrap().starts_with("GET /ping/0123456789abcdef HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn a_failed_ping_says_why_without_its_address() {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 33\r\n\r\nno check has key 0123456789abcdef";
        let (url, server) = answering(answer).await;
        let Err(Failure::Refused { reason }) = ping(&url).send().await else { panic!("it is refused") };
        server.await.unwrap();
        assert!(
            reason.contains("answered 404: no check has key [secret]") && reason.contains("`ping_url`"),
            "{reason}"
        );
        let (url, server) = answering("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n").await;
        let Err(Failure::Refused { reason }) = ping(&url).send().await else { panic!("it is refused") };
        server.await.unwrap();
        assert!(reason.contains("redirects are not followed"), "{reason}");
    }

    #[test]
    fn an_address_must_be_public_unless_private_ones_are_allowed_and_is_never_shown() {
        let refused = |url: &str| PingSettings::new("heartbeat.ping_url", url, false).unwrap_err();
        assert!(refused("ping").contains("`heartbeat.ping_url` is not a URL"));
        assert!(refused("http://hc-ping.com/0123456789abcdef").contains("must begin with https://"));
        assert!(refused("https://127.0.0.1/x").contains("heartbeat.ping_url"));
        assert!(refused("https://169.254.169.254/x").contains("heartbeat.ping_url"));
        let settings = PingSettings::new("heartbeat.ping_url", "https://hc-ping.com/0123456789abcdef", false).unwrap();
        assert!(!format!("{settings:?}").contains("0123456789abcdef"), "{settings:?}");
    }
}
