//! Text from events that tries to be more than text.

use serde_json::Value;

use crate::common::server::Server;
use crate::common::{notice, page_of, secret, sink};

const HOSTILE: &str = "<!channel> <@U1> <https://evil.example|click> &lt; *bold* _it_ ~no~ `code` ```\n> quote\r\n\u{0}\u{1b}[31m\u{202e} \
    [a](javascript:alert(1)) <script> {{DATE(2026-01-01,SHORT)}} ${x} <at>all</at> \" ' \\ %0a";

/// Returns all strings of a value.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(values) => values.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn slack_shows_hostile_text_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let url = secret(dir.path(), "url", &server.url());
    let sink = sink(&format!("kind = \"slack\"\nurl = {url}\nallow_private = true"));
    sink.send(&notice(vec![page_of(HOSTILE, 4)]), None).await.unwrap();
    let request = server.request().json();
    let mut mrkdwn = strings(&request["text"]);
    for block in request["blocks"].as_array().unwrap() {
        // A header is plain text, which knows no markup.
        if block["type"] != "header" {
            mrkdwn.extend(strings(block));
        }
    }
    for text in mrkdwn {
        // The only angle brackets are those of the links that were given as links.
        for part in text.split('<').skip(1) {
            assert!(
                part.starts_with("https://example.org/?q=%3C!channel%3E&amp;x=%7Cy|") && part.contains('>'),
                "{text}"
            );
        }
        assert!(!text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "").contains('&'), "{text}");
        assert!(
            !text.contains("*bold") && !text.contains("`code") && !text.contains("~no") && !text.contains("_it_"),
            "{text}"
        );
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    }
}

#[tokio::test]
async fn teams_shows_hostile_text_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let url = secret(dir.path(), "url", &server.url());
    let sink = sink(&format!("kind = \"teams\"\nurl = {url}\nallow_private = true"));
    sink.send(&notice(vec![page_of(HOSTILE, 4)]), None).await.unwrap();
    let request = server.request().json();
    // The contract, which the server checks, allows runs of text only, which know no Markdown.
    for text in strings(&request) {
        assert!(!text.contains("{{") && !text.contains("${") && !text.contains("<at>"), "{text}");
    }
}

#[tokio::test]
async fn the_others_get_one_line_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let key = secret(dir.path(), "key", "0123456789");
    let (url, allow) = (server.url(), "allow_private = true");
    for (text, one_line) in [
        (format!("kind = \"pagerduty\"\nrouting_key = {key}\nurl = \"{url}\"\n{allow}"), "/payload/summary"),
        (format!("kind = \"opsgenie\"\napi_key = {key}\nurl = \"{url}\"\n{allow}"), "/message"),
        (format!("kind = \"alertmanager\"\nurls = [\"{url}\"]\n{allow}"), "/0/annotations/summary"),
    ] {
        sink(&text).send(&notice(vec![page_of(HOSTILE, 4)]), None).await.unwrap();
        let request = server.request().json();
        let summary = request.pointer(one_line).and_then(Value::as_str).unwrap();
        assert!(!summary.contains('\n') && summary.contains("<!channel>"), "{summary}");
        for text in strings(&request) {
            assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        }
    }
}
