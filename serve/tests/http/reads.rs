//! The read endpoints: their answers are those of the views, and an unchanged answer is not sent again.

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::{MINUTE, NOW, Served, answer, run, settings, tables, text, text_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_endpoint_answers_with_the_rows_of_its_view() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let (from, to) = (text_of(*NOW - 29 * MINUTE), text_of(*NOW - 25 * MINUTE));
    for (path, sql) in [
        ("/v1/tasks", "SELECT * FROM last_day ORDER BY tenant, task"),
        (
            "/v1/releases?task=acme-task",
            "SELECT * FROM release_summary WHERE task = 'acme-task' ORDER BY first_day DESC, release_id, stage",
        ),
        (
            "/v1/rolling?span=90d&tenant=acme",
            "SELECT * FROM rolling WHERE span = '90d' AND tenant = 'acme' ORDER BY task, release_id, stage",
        ),
        ("/v1/rolling", "SELECT * FROM rolling WHERE span = '1h' ORDER BY tenant, task, release_id, stage"),
        (
            &*format!("/v1/series?task=acme-task&since={from}&until={to}&stage=full"),
            &*format!(
                "SELECT * FROM metrics_1m WHERE task = 'acme-task' AND stage = 'full' AND window_start >= '{from}' \
                 AND window_start < '{to}' ORDER BY window_start, release_id"
            ),
        ),
        ("/v1/runs/acme-7", "SELECT * FROM runs WHERE run_id = 'acme-7'"),
        (
            "/v1/candidates",
            "SELECT * FROM current_candidates WHERE state IN ('queued', 'leased', 'second_review') ORDER BY priority",
        ),
        ("/v1/candidates?state=decided", "SELECT * FROM current_candidates WHERE state = 'decided' ORDER BY priority"),
        ("/v1/rolling?span=90d&task=' OR 1=1 --", "SELECT * FROM rolling WHERE false"),
    ] {
        let (status, rows) = answer(served.get(path)).await;
        assert_eq!(status, 200, "{path}: {rows}");
        let (status, expected) = served.sql(sql).await;
        assert_eq!(status, 200, "{sql}: {expected}");
        assert_eq!(rows, expected, "{path}");
        let may_be_empty = path == "/v1/tasks" || path.starts_with("/v1/candidates") || path.contains("OR 1=1");
        assert!(may_be_empty || rows.as_array().is_some_and(|rows| !rows.is_empty()), "{path} has rows");
    }
    let (_, gate) = answer(served.get("/v1/gate?task=acme-task&canary=acme-v2")).await;
    assert_eq!((&gate["decision"], &gate["canary"]), (&json!("hold"), &json!("acme-v2")), "{gate}");
    for (path, status, expected) in [
        ("/v1/rolling?span=2h", 400, "5m, 1h, 24h"),
        ("/v1/rolling?colour=x", 400, "there is no parameter `colour`"),
        ("/v1/rolling?task=a&task=b", 400, "given twice"),
        ("/v1/rolling?limit=0", 400, "1 to 10000"),
        ("/v1/series", 400, "`task` is missing"),
        ("/v1/series?task=a&since=soon", 400, "`since`: `soon` is neither a time nor a duration"),
        ("/v1/runs/nothing", 404, "nothing of this id"),
        ("/v1/alerts?state=loud", 400, "pending"),
        ("/v1/candidates?state=lost", 400, "second_review"),
        ("/v1/candidates/x", 404, "nothing of this id"),
        ("/v1/gate?canary=x", 400, "`task` is missing"),
        ("/v1/nothing", 404, "openapi.json"),
        ("/v1/sql", 405, "no such method"),
    ] {
        let (found, error) = answer(served.get(path)).await;
        assert_eq!(found.as_u16(), status, "{path}: {error}");
        assert!(error.to_string().contains(expected), "{path}: {error}");
    }
    let response =
        served.get("/v1/series?task=acme-task&since=36500d&limit=3&format=ndjson").send().await.expect("answers");
    assert_eq!(response.headers()["bellwether-more"], "true");
    assert_eq!(text(response).await.lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_sent_again_only_once_the_tables_have_changed() {
    let mut feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let path = "/v1/rolling?span=90d&tenant=acme";
    let response = served.get(path).send().await.expect("answers");
    let tag = response.headers()["etag"].clone();
    let before = text(response).await;
    let again = || served.get(path).header("if-none-match", &tag).send();
    // The clock of the tables stands still, and with it the minute.
    for _ in 0..3 {
        let response = again().await.expect("answers");
        assert_eq!((response.status().as_u16(), &response.headers()["etag"]), (304, &tag));
        assert_eq!(text(response).await, "");
    }
    let other = Served::start(&feed, settings()).await;
    let response = other.get(path).header("if-none-match", &tag).send().await.expect("answers");
    assert_eq!(response.status(), 304, "another server of the same tables knows the tag");
    Box::pin(feed.commit(&[run("acme", 200)])).await;
    let changed = loop {
        let response = again().await.expect("answers");
        if response.status() == 200 {
            break response;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_ne!(changed.headers()["etag"], tag);
    let runs = |text: &str| -> i64 {
        let rows: Vec<Value> = serde_json::from_str(text).expect("rows");
        rows.iter().filter_map(|row| row["runs"].as_i64()).sum()
    };
    assert_eq!((runs(&before), runs(&text(changed).await)), (100, 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_of_the_endpoints_is_true_and_so_is_the_page() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let (_, document) = answer(served.get("/v1/openapi.json")).await;
    assert_eq!(document["openapi"], "3.1.0");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/serve.md")).expect("the page");
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 14);
    for (path, operations) in paths {
        assert!(page.contains(&format!("`{path}`")), "docs/serve.md does not mention {path}");
        for (verb, operation) in operations.as_object().expect("operations") {
            for parameter in operation["parameters"].as_array().expect("parameters") {
                let name = parameter["name"].as_str().expect("a name");
                let in_path = path.contains(&format!("{{{name}}}"));
                assert_eq!(parameter["in"] == "path", in_path, "{verb} {path} {name}");
                assert!(page.contains(&format!("`{name}`")), "docs/serve.md does not mention {name}");
            }
            assert!(operation["responses"]["default"].is_object() && operation["summary"].is_string());
            // Every endpoint is there: it may want parameters, but it is known.
            let request = match verb.as_str() {
                "get" => served.get(&path.replace("{id}", "x")),
                "delete" => served.delete(&path.replace("{id}", "x")),
                _ => served.post(&json!({ "sql": "SELECT 1" })),
            };
            let (status, body) = answer(request).await;
            assert!(status != 405 && !body.to_string().contains("no such endpoint"), "{verb} {path}: {status} {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_small_reads_share_one_computation() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let began = std::time::Instant::now();
    let reads = (0..1000).map(|_| served.get("/v1/rolling?span=24h&tenant=acme").send());
    let mut reads = futures::stream::iter(reads).buffer_unordered(50);
    let mut bodies = std::collections::BTreeSet::new();
    while let Some(response) = reads.next().await {
        let response = response.expect("answers");
        assert_eq!(response.status(), 200);
        bodies.insert(text(response).await);
    }
    eprintln!("1000 reads of /v1/rolling: {} ms", began.elapsed().as_millis());
    assert_eq!(bodies.len(), 1);
}
