//! The generic webhook: CloudEvents, the published schema, signatures.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_sinks::Failure;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::common::server::Server;
use crate::common::{NOW, assert_valid, notice, page, page_of, published, resolved, secret, sink};

#[tokio::test]
async fn an_event_is_a_cloudevent_whose_data_follows_the_published_schema() {
    let server = Server::start(Vec::new()).await;
    let sink = sink(&format!(
        "kind = \"webhook\"\nurl = \"{}/hook?x=1\"\nsource = \"bellwether/eu\"\nallow_private = true",
        server.url()
    ));
    let mut sent = notice(vec![page(), resolved(page())]);
    sent.group = vec![("task".to_owned(), "checkout".to_owned())];
    sent.missed = vec!["checkout: latency".to_owned()];
    sink.send(&sent, None).await.unwrap();
    let request = server.request();
    assert_eq!(request.target, "/hook?x=1");
    assert_eq!(request.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!(request.header("webhook-signature"), "");
    let event = request.json();
    assert_valid(&published("page"), &event["data"]);
    assert_eq!(event["source"], "bellwether/eu");
    assert_eq!(event["subject"], "a1b2c3/1789999000000000");
    let pages: Vec<bellwether_sinks::Page> = serde_json::from_value(event["data"]["pages"].clone()).unwrap();
    assert_eq!(pages, sent.pages);
    insta::assert_json_snapshot!("webhook_event", event);
}

#[tokio::test]
async fn a_huge_page_still_follows_the_published_schema() {
    let server = Server::start(Vec::new()).await;
    let sink = sink(&format!("kind = \"webhook\"\nurl = \"{}\"\nallow_private = true", server.url()));
    for (length, count) in [(10_000, 40), (0, 0)] {
        sink.send(&notice(vec![page_of(&"é".repeat(length), count); 2]), None).await.unwrap();
        let request = server.request();
        assert!(request.body.len() < 600 * 1024, "{}", request.body.len());
        assert_valid(&published("page"), &request.json()["data"]);
    }
}

#[tokio::test]
async fn a_message_that_is_sent_twice_has_the_same_id() {
    let server = Server::start(Vec::new()).await;
    let sink = sink(&format!("kind = \"webhook\"\nurl = \"{}\"\nallow_private = true", server.url()));
    sink.send(&notice(vec![page()]), None).await.unwrap();
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    sink.send(&notice(vec![resolved(page())]), None).await.unwrap();
    let ids: Vec<String> = server.requests().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(receipt.reference, ids[0]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn every_key_signs_so_that_a_key_can_be_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = ("an-old-key-of-24-bytes-or-more", STANDARD.encode([7; 32]));
    let keys = format!("[{}, {}]", secret(dir.path(), "old", old), secret(dir.path(), "new", &format!("whsec_{new}")));
    let server = Server::start(Vec::new()).await;
    let sink = sink(&format!("kind = \"webhook\"\nurl = \"{}\"\nkeys = {keys}\nallow_private = true", server.url()));
    sink.send(&notice(vec![page()]), None).await.unwrap();
    let request = server.request();
    assert_eq!(request.header("webhook-timestamp"), (NOW / 1_000_000).to_string());
    let signed = format!("{}.{}.{}", request.header("webhook-id"), request.header("webhook-timestamp"), request.body);
    let expected: Vec<String> = [old.as_bytes(), &[7; 32]]
        .iter()
        .map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
            mac.update(signed.as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    assert_eq!(request.header("webhook-signature"), expected.join(" "));
}

#[tokio::test]
async fn a_weak_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (key, expected) in [("short", "fewer than 24 bytes"), ("whsec_!!", "is not base64")] {
        let key = secret(dir.path(), "key", key);
        let sink = sink(&format!("kind = \"webhook\"\nurl = \"https://example.org/\"\nkeys = [{key}]"));
        let failure = sink.send(&notice(vec![page()]), None).await.unwrap_err();
        assert!(matches!(&failure, Failure::Refused { reason } if reason.contains(expected)), "{failure:?}");
    }
}
