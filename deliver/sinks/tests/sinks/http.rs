//! What answers mean, which addresses are reached, and what of a secret appears.

use std::sync::Arc;
use std::time::Duration;

use bellwether_sinks::{Failure, Sink};
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::common::server::{Reply, Server};
use crate::common::{notice, page, secret, sink};

/// Returns a webhook without a secret.
fn webhook(server: &Server) -> Arc<dyn Sink> {
    sink(&format!("kind = \"webhook\"\nurl = \"{}/hook\"\nallow_private = true\ntimeout = \"500ms\"", server.url()))
}

/// Sends a page to a server that gives one answer.
async fn answered(reply: Reply) -> Failure {
    let server = Server::start(vec![reply]).await;
    webhook(&server).send(&notice(vec![page()]), None).await.expect_err("a failure")
}

fn later(failure: Failure) -> (String, Option<Duration>) {
    match failure {
        Failure::Later { reason, after } => (reason, after),
        Failure::Refused { reason } => panic!("refused: {reason}"),
    }
}

fn refused(failure: Failure) -> String {
    match failure {
        Failure::Refused { reason } => reason,
        Failure::Later { reason, .. } => panic!("later: {reason}"),
    }
}

#[tokio::test]
async fn a_rate_limit_is_obeyed_in_both_forms() {
    let (reason, after) = later(answered(Reply::new(429, "slow down").header("retry-after", "17")).await);
    assert_eq!(reason, "the webhook answered 429: slow down");
    assert_eq!(after, Some(Duration::from_secs(17)));
    // Half a minute after the clock of the tests.
    let date = "Mon, 21 Sep 2026 14:13:50 GMT";
    assert_eq!(later(answered(Reply::new(429, "").header("retry-after", date)).await).1, Some(Duration::from_secs(30)));
    let past = "Mon, 21 Sep 2026 14:00:00 GMT";
    assert_eq!(later(answered(Reply::new(503, "").header("retry-after", past)).await).1, Some(Duration::ZERO));
    assert_eq!(later(answered(Reply::new(429, "").header("retry-after", "soon")).await).1, None);
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(later(answered(Reply::new(429, "").header("retry-after", "999999999")).await).1, hour);
}

#[tokio::test]
async fn an_outage_is_tried_again_and_an_error_is_not() {
    for status in [408, 425, 500, 502, 503, 504] {
        later(answered(Reply::new(status, "")).await);
    }
    for status in [400, 401, 403, 404, 409, 410, 413, 422] {
        refused(answered(Reply::new(status, "")).await);
    }
}

#[tokio::test]
async fn a_refusal_has_the_words_of_the_service_and_a_hint() {
    let body = "{\"message\": \"Could not\\nauthenticate\", \"took\": 0.1, \"errors\": [\"no key\"]}";
    let reason = refused(answered(Reply::new(401, body)).await);
    assert_eq!(
        reason,
        "the webhook answered 401: Could not authenticate; [\"no key\"]; hint: the credential was revoked or lacks a permission, \
         replace `url`"
    );
    let reason = refused(answered(Reply::new(404, &"x".repeat(100_000))).await);
    assert!(reason.len() < 500 && reason.contains("x…; hint: the address is wrong or was deleted"), "{reason}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server =
        Server::start(vec![Reply::new(307, "").header("location", "http://elsewhere.example/secret-path")]).await;
    let reason = refused(webhook(&server).send(&notice(vec![page()]), None).await.unwrap_err());
    assert_eq!(
        reason,
        "the webhook answered 307, a redirect to `elsewhere.example`; hint: redirects are not followed, give the final address"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_slow_or_absent_service_is_tried_again() {
    let (reason, _) = later(answered(Reply::new(200, "").after(Duration::from_secs(5))).await);
    assert_eq!(reason, "the webhook did not answer within the time-out");
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let sink = sink(&format!("kind = \"webhook\"\nurl = \"http://127.0.0.1:{unused}/\"\nallow_private = true"));
    let (reason, _) = later(sink.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.starts_with("cannot reach the webhook: ") && reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused_before_a_request() {
    let server = Server::start(Vec::new()).await;
    let dir = tempfile::tempdir().unwrap();
    let named = sink(&format!("kind = \"webhook\"\nurl = \"https://localhost:{}/\"", server.port));
    let reason = refused(named.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.contains("is not a public address; hint: set `allow_private = true`"), "{reason}");
    // The same for an address in a secret, which no check of the configuration sees.
    for host in ["127.0.0.1", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"] {
        let url = secret(dir.path(), "url", &format!("https://{host}:{}/", server.port));
        let reason = refused(
            sink(&format!("kind = \"teams\"\nurl = {url}")).send(&notice(vec![page()]), None).await.unwrap_err(),
        );
        assert!(reason.contains("is not a public address"), "{host}: {reason}");
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn secrets_are_removed_from_what_a_service_answers() {
    let dir = tempfile::tempdir().unwrap();
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let path = "/hooks/T0123456789/abcdefghijkl";
    let body = format!("no hook {path} for bearer-token-77, key {key}");
    let server = Server::start(vec![Reply::new(403, &body), Reply::new(200, &body)]).await;
    let url = secret(dir.path(), "url", &format!("{}{path}", server.url()));
    let token = secret(dir.path(), "token", "bearer-token-77");
    let key = secret(dir.path(), "key", key);
    let sink = sink(&format!("kind = \"webhook\"\nurl = {url}\ntoken = {token}\nkeys = [{key}]\nallow_private = true"));
    let reason = refused(sink.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.contains("no hook /hooks/[secret]/[secret] for [secret], key [secret]"), "{reason}");
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    assert_eq!(receipt.answer, "200 no hook /hooks/[secret]/[secret] for [secret], key [secret]");
}

#[tokio::test]
async fn a_missing_secret_is_named_and_tried_again() {
    let sink = sink("kind = \"teams\"\nurl = { file = \"/nowhere/secret\" }");
    let (reason, _) = later(sink.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.starts_with("cannot read the secret in file `/nowhere/secret`: "), "{reason}");
}

#[tokio::test]
async fn a_secret_that_is_no_address_is_refused_without_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    let url = secret(dir.path(), "url", "hooks.example/T0123456789");
    let sink = sink(&format!("kind = \"slack\"\nurl = {url}"));
    let reason = refused(sink.send(&notice(vec![page()]), None).await.unwrap_err());
    assert_eq!(
        reason,
        "the secret `url` is not a URL: relative URL without a base; hint: copy the whole address, with https://"
    );
}

/// Starts a server with a certificate, and returns its port.
async fn tls_server(CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair>) -> u16 {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(socket).await else { continue };
            let mut buffer = vec![0; 65536];
            while stream.read(&mut buffer).await.is_ok_and(|read| read == buffer.len()) {}
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
                .await
                .expect("writes");
            stream.shutdown().await.ok();
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_that_expired_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 4, 1));
    let signing_key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&signing_key).unwrap();
    std::fs::write(&ca, cert.pem()).unwrap();
    let port = tls_server(CertifiedKey { cert, signing_key }).await;
    let trusting = sink(&format!(
        "kind = \"webhook\"\nurl = \"https://localhost:{port}/\"\nallow_private = true\nca_file = \"{}\"\n",
        ca.display()
    ));
    let reason = refused(trusting.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.contains("expired") && reason.contains("renew the certificate"), "{reason}");
}

#[tokio::test]
async fn a_certificate_must_be_from_a_known_authority() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let certified = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let port = tls_server(certified).await;
    let text = format!("kind = \"webhook\"\nurl = \"https://localhost:{port}/\"\nallow_private = true\n");
    let reason = refused(sink(&text).send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.contains("certificate") && reason.contains("`ca_file`"), "{reason}");
    let trusting = sink(&format!("{text}ca_file = \"{}\"\n", ca.display()));
    assert_eq!(trusting.send(&notice(vec![page()]), None).await.unwrap().answer, "200 ok");
    let wrong_name = sink(&format!(
        "kind = \"webhook\"\nurl = \"https://127.0.0.1:{port}/\"\nallow_private = true\nca_file = \"{}\"\n",
        ca.display()
    ));
    let reason = refused(wrong_name.send(&notice(vec![page()]), None).await.unwrap_err());
    assert!(reason.contains("check the host name"), "{reason}");
}
