//! Slack and Teams.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether_sinks::{Failure, Notice, Sink};
use insta::assert_json_snapshot;

use crate::common::server::{Reply, Server};
use crate::common::{acknowledged, notice, page, resolved, secret, sink};

const POSTED: &str = "{\"ok\":true,\"channel\":\"C0123\",\"ts\":\"1503435956.000247\"}";

fn bot(server: &Server, dir: &Path) -> Arc<dyn Sink> {
    let token = secret(dir, "token", "xoxb-1234567890");
    sink(&format!(
        "kind = \"slack\"\ntoken = {token}\nchannel = \"#on-call\"\napi = \"{}/api\"\nallow_private = true",
        server.url()
    ))
}

#[tokio::test]
async fn a_webhook_of_slack_gets_a_message_within_block_kit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let url = secret(dir.path(), "url", &format!("{}/services/T0000000/B0000000/XXXXXXXX", server.url()));
    let sink = sink(&format!("kind = \"slack\"\nurl = {url}\nallow_private = true"));
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    assert_eq!((receipt.reference.as_str(), receipt.answer.as_str()), ("", "ok"));
    let request = server.request();
    assert_eq!(request.target, "/services/T0000000/B0000000/XXXXXXXX");
    assert_json_snapshot!("slack_firing", request.json());
}

#[tokio::test]
async fn a_group_is_one_message_of_slack() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::new(200, POSTED)]).await;
    let mut group = notice(vec![page(), resolved(page())]);
    group.group = vec![("task".to_owned(), "checkout".to_owned())];
    group.missed = vec!["checkout: latency".to_owned(), "search: latency".to_owned()];
    bot(&server, dir.path()).send(&group, None).await.unwrap();
    let request = server.request();
    assert_json_snapshot!("slack_group", request.json());
}

#[tokio::test]
async fn a_bot_updates_its_message_and_replies_in_the_thread() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start((0..5).map(|_| Reply::new(200, POSTED)).collect()).await;
    let sink = bot(&server, dir.path());
    let posted = sink.send(&notice(vec![page()]), None).await.unwrap();
    let acknowledged = sink.send(&notice(vec![acknowledged(page())]), Some(&posted)).await.unwrap();
    assert_eq!(posted.reference, acknowledged.reference);
    sink.send(&notice(vec![resolved(page())]), Some(&acknowledged)).await.unwrap();
    let requests = server.requests();
    let methods: Vec<&str> = requests.iter().map(|request| request.target.as_str()).collect();
    let (post, update) = ("/api/chat.postMessage", "/api/chat.update");
    assert_eq!(methods, [post, update, post, update, post]);
    for request in &requests {
        assert_eq!(request.header("authorization"), "Bearer xoxb-1234567890");
    }
    assert_eq!(requests[0].json()["channel"], "#on-call");
    let update = requests[3].json();
    assert_eq!((update["channel"].as_str(), update["ts"].as_str()), (Some("C0123"), Some("1503435956.000247")));
    assert_json_snapshot!("slack_reply", requests[4].json());
}

#[tokio::test]
async fn evidence_that_follows_edits_the_message_of_a_bot_and_is_nothing_for_a_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start((0..2).map(|_| Reply::new(200, POSTED)).collect()).await;
    let bot = bot(&server, dir.path());
    let posted = bot.send(&notice(vec![page()]), None).await.unwrap();
    let evidence = Notice { evidence_only: true, ..notice(vec![page()]) };
    let updated = bot.send(&evidence, Some(&posted)).await.unwrap();
    assert_eq!((updated.reference, updated.answer.as_str()), (posted.reference, "updated 1503435956.000247"));
    let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/api/chat.postMessage", "/api/chat.update"], "no reply, which would notify people");
    let url = secret(dir.path(), "url", &server.url());
    let webhook = sink(&format!("kind = \"slack\"\nurl = {url}\nallow_private = true"));
    assert!(bot.takes_late_evidence() && !webhook.takes_late_evidence());
}

#[tokio::test]
async fn a_message_that_was_deleted_is_posted_again() {
    let dir = tempfile::tempdir().unwrap();
    let gone = "{\"ok\":false,\"error\":\"message_not_found\"}";
    let server = Server::start(vec![Reply::new(200, POSTED), Reply::new(200, gone), Reply::new(200, POSTED)]).await;
    let sink = bot(&server, dir.path());
    let posted = sink.send(&notice(vec![page()]), None).await.unwrap();
    sink.send(&notice(vec![resolved(page())]), Some(&posted)).await.unwrap();
    let last = server.requests().pop().unwrap();
    assert_eq!(last.target, "/api/chat.postMessage");
    assert_eq!(last.json()["thread_ts"], serde_json::Value::Null);
}

#[tokio::test]
async fn errors_of_the_bot_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    for (error, later, expected) in [
        ("ratelimited", true, "Slack answered `ratelimited` to chat.postMessage"),
        ("internal_error", true, "Slack answered `internal_error`"),
        ("token_revoked", false, "replace the bot's `token`"),
        ("channel_not_found", false, "invite the bot to it"),
        ("missing_scope", false, "`chat:write`"),
        ("invalid_blocks", false, "Slack answered `invalid_blocks` to chat.postMessage"),
    ] {
        let body = format!("{{\"ok\":false,\"error\":\"{error}\"}}");
        let server = Server::start(vec![Reply::new(200, &body)]).await;
        match bot(&server, dir.path()).send(&notice(vec![page()]), None).await.unwrap_err() {
            Failure::Later { reason, after } => {
                assert!(later && reason.contains(expected), "{reason}");
                assert_eq!(after, (error == "ratelimited").then_some(Duration::from_secs(60)));
            }
            Failure::Refused { reason } => assert!(!later && reason.contains(expected), "{reason}"),
        }
    }
    let server = Server::start(vec![Reply::new(200, "<html>log in</html>")]).await;
    let failure = bot(&server, dir.path()).send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(matches!(failure, Failure::Refused { reason } if reason.contains("not from Slack's API")));
}

#[tokio::test]
async fn a_workflow_of_teams_gets_a_card() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(vec![Reply::new(202, "")]).await;
    let url = secret(dir.path(), "url", &format!("{}/workflows/abcdefgh/triggers/manual?sig=qwertyuiop", server.url()));
    let sink = sink(&format!("kind = \"teams\"\nurl = {url}\nallow_private = true"));
    let receipt = sink.send(&notice(vec![page()]), None).await.unwrap();
    assert_eq!(receipt.answer, "202");
    let request = server.request();
    assert_eq!(request.target, "/workflows/abcdefgh/triggers/manual?sig=qwertyuiop");
    assert_json_snapshot!("teams_firing", request.json());
}

#[tokio::test]
async fn a_failure_inside_of_a_successful_answer_of_teams_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let throttled =
        "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x";
    let failed = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413";
    let server = Server::start(vec![Reply::new(200, throttled), Reply::new(200, failed)]).await;
    let url = secret(dir.path(), "url", &server.url());
    let sink = sink(&format!("kind = \"teams\"\nurl = {url}\nallow_private = true"));
    assert!(matches!(sink.send(&notice(vec![page()]), None).await.unwrap_err(), Failure::Later { .. }));
    assert!(matches!(sink.send(&notice(vec![page()]), None).await.unwrap_err(), Failure::Refused { .. }));
}
