//! Whatever the page, every request is valid JSON within the limits of its service.

use std::path::Path;
use std::sync::Arc;

use bellwether_sinks::page::{Page, Severity, Status};
use bellwether_sinks::{Notice, Sink};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use crate::common::server::{Recorded, Server};
use crate::common::{page_of, secret, sink};

/// A sink, and the greatest size of a request.
struct Limited {
    sink: Arc<dyn Sink>,
    bytes: usize,
}

fn limited(server: &Server, dir: &Path) -> Vec<Limited> {
    let key = secret(dir, "key", "a-key-of-at-least-24-bytes");
    let url = server.url();
    let address = secret(dir, "url", &url);
    let kind = |text: String, bytes: usize| Limited { sink: sink(&format!("{text}\nallow_private = true")), bytes };
    vec![
        kind(format!("kind = \"slack\"\nurl = {address}"), 60_000),
        kind(format!("kind = \"teams\"\nurl = {address}"), 28 * 1024),
        kind(format!("kind = \"alertmanager\"\nurls = [\"{url}\"]"), 2 * 1024 * 1024),
        kind(format!("kind = \"pagerduty\"\nrouting_key = {key}\nurl = \"{url}\""), 512 * 1024),
        kind(format!("kind = \"opsgenie\"\napi_key = {key}\nurl = \"{url}\""), 128 * 1024),
        kind(format!("kind = \"webhook\"\nurl = \"{url}\"\nkeys = [{key}]"), 600 * 1024),
    ]
}

/// Checks what no schema can say.
fn check_totals(kind: &str, request: &Recorded) {
    let body: Value = request.json();
    if kind == "slack" {
        let text: usize = body["blocks"].as_array().expect("blocks").iter().map(text_units).sum();
        assert!(text <= 13_000, "{text}");
    }
    if kind == "opsgenie" && request.target.contains("/description?") {
        assert!(text_units(&body["description"]) <= 15_000);
    } else if kind == "opsgenie" {
        let details = body["details"].as_object().expect("details");
        let total: usize = details.iter().map(|(name, value)| name.encode_utf16().count() + text_units(value)).sum();
        assert!(total <= 8000, "{total}");
    }
}

fn text_units(value: &Value) -> usize {
    match value {
        Value::String(text) => text.encode_utf16().count(),
        Value::Array(values) => values.iter().map(text_units).sum(),
        Value::Object(fields) => fields.values().map(text_units).sum(),
        _ => 0,
    }
}

/// Sends a notice to all sinks and checks what arrives. The server checks the contracts.
async fn check(notice: &Notice, server: &Server, sinks: &[Limited]) {
    for limited in sinks {
        let kind = limited.sink.kind();
        limited.sink.send(notice, None).await.unwrap_or_else(|failure| panic!("{kind}: {failure:?}"));
        for request in server.requests() {
            assert!(request.body.len() <= limited.bytes, "{kind}: {} bytes", request.body.len());
            check_totals(kind, &request);
        }
    }
}

/// Text of any characters and length, long and strange ones included.
fn any_text() -> impl Strategy<Value = String> {
    let strange = prop::sample::select(vec![
        "<!channel>",
        "&",
        "\"",
        "\\",
        "\n",
        "\u{0}",
        "\u{202e}",
        "*_`~",
        "😀",
        "é",
        " ",
        "x",
    ]);
    (vec(prop_oneof![strange.prop_map(str::to_owned), ".{0,3}"], 0..12), 0_usize..60)
        .prop_map(|(parts, times)| parts.concat().repeat(times))
}

fn any_page() -> impl Strategy<Value = Page> {
    let severity = prop::sample::select(vec![Severity::Info, Severity::Ticket, Severity::Page]);
    (any_text(), any_text(), 0_usize..15, severity, any::<i64>(), any::<bool>()).prop_map(
        |(one, other, count, severity, time, test)| {
            let mut page = page_of(&one, count);
            (page.title, page.severity, page.started_at, page.test) = (other.clone(), severity, time, test);
            if let Some(reproduce) = &mut page.evidence.reproduce {
                reproduce.sql = other;
            }
            page.incident = format!("incident {count}");
            page.alert_id = format!("{count}");
            page.status = Status::Firing;
            page
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn every_limit_is_kept(pages in vec(any_page(), 1..5), copies in 1_usize..12, missed in vec(any_text(), 0..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let server = Server::start(Vec::new()).await;
            let sinks = limited(&server, dir.path());
            let pages = if copies > 9 { pages.iter().cycle().take(pages.len() * copies).cloned().collect() } else { pages };
            let group = vec![("task".to_owned(), "t".to_owned())];
            let notice = Notice { route: "r".to_owned(), group, pages, missed, evidence_only: copies % 3 == 1 };
            check(&notice, &server, &sinks).await;
        });
    }
}

#[tokio::test]
async fn the_largest_page_keeps_every_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Vec::new()).await;
    let sinks = limited(&server, dir.path());
    for text in ["<&>\"\n".repeat(2000), "😀".repeat(10_000), "_".repeat(10_000), "\\\"".repeat(5000)] {
        let notice = |pages: usize, count: usize| Notice {
            route: text.clone(),
            group: vec![(text.clone(), text.clone()); 20],
            pages: vec![page_of(&text, count); pages],
            missed: vec![text.clone(); 100],
            evidence_only: count == 3,
        };
        check(&notice(1, 60), &server, &sinks).await;
        check(&notice(30, 3), &server, &sinks).await;
    }
}
