//! Attacks on the boundary between tenants: nothing that a token of one tenant can send returns a word of another.

use bellwether_serve::{Scope, ServerSettings};
use serde_json::json;

use super::{RIVAL, Served, settings, tables, text, tokens};

/// Statements by which somebody may hope to see more.
pub(super) const STATEMENTS: &[&str] = &[
    "SELECT * FROM runs",
    "SELECT * FROM events",
    "SELECT * FROM metrics",
    "SELECT * FROM metrics_hourly",
    "SELECT * FROM releases",
    "SELECT * FROM rolling_history",
    "SELECT * FROM alerts",
    "SELECT * FROM candidates",
    "SELECT * FROM quarantine",
    "SELECT * FROM rolling",
    "SELECT * FROM release_summary",
    "SELECT * FROM metrics_1m",
    "SELECT * FROM last_day",
    "SELECT * FROM tool_calls",
    "SELECT * FROM stale_sources",
    "SELECT * FROM orphans",
    "SELECT * FROM freshness",
    "SELECT * FROM completeness",
    "SELECT * FROM ingest_progress",
    "SELECT * FROM runs WHERE tenant <> 'acme'",
    "SELECT * FROM runs WHERE tenant = 'glob' || 'ex'",
    "SELECT * FROM runs WHERE tenant = 'acme' OR true",
    "SELECT * FROM bellwether.public.runs",
    "SELECT * FROM \"bellwether\".\"public\".\"events\"",
    "SELECT task FROM runs UNION ALL SELECT task FROM events UNION SELECT task FROM metrics",
    "WITH events AS (SELECT * FROM runs), runs AS (SELECT * FROM events) SELECT * FROM runs",
    "WITH RECURSIVE r AS (SELECT task FROM events UNION ALL SELECT task FROM r WHERE false) SELECT * FROM r",
    "SELECT * FROM runs a JOIN events b ON a.run_id <> b.run_id",
    "SELECT * FROM runs a FULL JOIN metrics b ON false",
    "SELECT (SELECT max(task) FROM events) AS a, (SELECT string_agg(DISTINCT tenant, ',') FROM metrics) AS b",
    "SELECT array_agg(task) FROM events",
    "SELECT max(tenant), max(task), max(run_id), max(source), max(release_id) FROM events",
    "SELECT DISTINCT tenant FROM events",
    "SELECT tenant, count(*) FROM runs GROUP BY ROLLUP (tenant)",
    "SELECT lag(task) OVER (ORDER BY tenant DESC) AS a FROM events",
    "SELECT * FROM tasks_between(TIMESTAMP '2026-11-01', TIMESTAMP '2026-12-01')",
    "SELECT * FROM rolling_at(TIMESTAMP '2026-11-24 18:00:00')",
    "EXPLAIN SELECT * FROM runs WHERE task > 'm'",
    "EXPLAIN VERBOSE SELECT * FROM events",
    "EXPLAIN ANALYZE SELECT * FROM events",
    "EXPLAIN ANALYZE VERBOSE SELECT * FROM events WHERE run_id > 'm'",
    "EXPLAIN FORMAT TREE SELECT * FROM events",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM information_schema.columns",
    "SELECT * FROM information_schema.views",
    "SELECT * FROM information_schema.df_settings",
    "SELECT * FROM information_schema.routines",
    "SHOW TABLES",
    "SHOW ALL",
    "DESCRIBE runs",
    "SHOW COLUMNS FROM events",
    "SELECT * FROM ingest_numbers",
    // Errors that show a value.
    "SELECT CAST(run_id AS BIGINT) FROM events",
    "SELECT CAST(task AS TIMESTAMP) FROM events WHERE tenant > 'b'",
    "SELECT * FROM events WHERE CAST(run_id AS BIGINT) = 1",
    "SELECT arrow_cast(tenant, 'Int32') FROM events",
    "SELECT 1 / (CASE WHEN tenant = 'acme' THEN 1 ELSE 0 END) AS a FROM events",
    "SELECT to_timestamp(source) FROM events",
    "SELECT * FROM events WHERE regexp_like(tenant, '(')",
    "SELECT * FROM events ORDER BY CAST(task AS INT)",
    "SELECT sum(CAST(release_id AS DOUBLE)) FROM metrics",
    "SELECT * FROM events WHERE tenant IN (SELECT CAST(task AS INT)::text FROM events)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_tenant_asks_returns_a_word_of_another() {
    let feed = Box::pin(tables()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.toml");
    let texts = tokens(
        &file,
        &[("acme", Scope::Read, Some("acme")), ("chief", Scope::Admin, Some("acme")), ("all", Scope::Read, None)],
    );
    let served = Served::start(&feed, ServerSettings { tokens: Some(file), ..settings() }).await;
    let mut answers = 0;
    for token in &texts[..2] {
        for sql in STATEMENTS {
            let response = served.post(&json!({ "sql": sql })).bearer_auth(token).send().await.expect("answers");
            let (status, body) = (response.status(), text(response).await);
            let shown = body.replace("glob' || 'ex", "");
            assert!(!shown.contains(RIVAL), "{sql}\n{status} {body}");
            assert!(status == 200 || status == 400 || status == 422, "{sql}: {status} {body}");
            answers += usize::from(body.contains("acme"));
        }
        // The same by parameters.
        let body =
            json!({ "sql": "SELECT count(*) AS n FROM runs WHERE tenant = $1 OR $2", "parameters": [RIVAL, true] });
        let response = served.post(&body).bearer_auth(token).send().await.expect("answers");
        assert_eq!(text(response).await.trim_end(), "[{\"n\":100}]", "only the tenant's own");
        for path in [
            "/v1/tasks",
            "/v1/releases",
            "/v1/rolling?span=90d",
            "/v1/series?task=globex-task&since=36500d",
            "/v1/series?task=acme-task&since=36500d",
            "/v1/alerts",
            "/v1/alerts/x",
            "/v1/runs/globex-3",
            "/v1/candidates",
            "/v1/candidates?state=decided",
            "/v1/candidates/x",
            "/v1/rolling?span=90d&tenant=globex",
            "/v1/releases?tenant=globex",
            "/v1/statements",
            "/v1/openapi.json",
            "/v1/gate?task=globex-tas&canary=globex-v2",
            "/v1/gate?task=acme-task&canary=globex-v2",
            "/v1/gate?task=acme-task&canary=acme-v2",
            "/v1/gate?task=acme-task&tenant=globex",
        ] {
            let response = served.get(path).bearer_auth(token).send().await.expect("answers");
            let (status, body) = (response.status(), text(response).await);
            // An answer may repeat the words of its question.
            let asked = ["globex-task", "globex-tas", "globex-v2", "globex-3"].iter().any(|word| path.contains(word));
            let repeated =
                ["`globex-task`", "`globex-tas`", "`globex-v2`", "\"globex-tas\"", "\"globex-v2\"", "\"globex-task\""];
            let shown = repeated.iter().filter(|_| asked).fold(body.clone(), |text, word| text.replace(word, ""));
            assert!(!shown.contains(RIVAL), "{path}\n{status} {body}");
            answers += usize::from(body.contains("acme"));
        }
        assert_eq!(
            served
                .get("/v1/gate?task=acme-task&tenant=globex")
                .bearer_auth(token)
                .send()
                .await
                .expect("answers")
                .status(),
            403
        );
    }
    assert!(answers > 40, "{answers} answers have rows of the tenant itself");
    // The same statements are answered for all tenants without a boundary, so that the words would be seen.
    let response = served.post(&json!({ "sql": STATEMENTS[0] })).bearer_auth(&texts[2]).send().await.expect("answers");
    assert!(text(response).await.contains(RIVAL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_one_tenant_are_not_kept_for_another() {
    let feed = Box::pin(tables()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.toml");
    let texts = tokens(
        &file,
        &[
            ("acme", Scope::Read, Some("acme")),
            ("globex", Scope::Read, Some(RIVAL)),
            ("none", Scope::Read, Some("none")),
        ],
    );
    let served = Served::start(&feed, ServerSettings { tokens: Some(file), ..settings() }).await;
    let mut tags = Vec::new();
    for (token, own, other) in [(&texts[0], "acme", RIVAL), (&texts[1], RIVAL, "acme")] {
        let request = || served.get("/v1/rolling?span=90d").bearer_auth(token);
        let response = request().send().await.expect("answers");
        tags.push(response.headers()["etag"].clone());
        assert_eq!(response.headers()["cache-control"], "private, no-cache");
        let body = text(response).await;
        assert!(body.contains(own) && !body.contains(other), "{body}");
        // The tag of another tenant is worth nothing.
        let response = request().header("if-none-match", &tags[0]).send().await.expect("answers");
        assert_eq!(response.status().as_u16(), if own == "acme" { 304 } else { 200 });
    }
    assert_ne!(tags[0], tags[1]);
    let response = served.get("/v1/rolling?span=90d").bearer_auth(&texts[2]).send().await.expect("answers");
    assert_eq!(text(response).await.trim_end(), "[]");
    for path in ["/v1/rolling", "/v1/openapi.json", "/v1/nothing", "/"] {
        assert_eq!(served.get(path).send().await.expect("answers").status(), 401, "{path}");
        assert_eq!(served.get(path).bearer_auth("bellwether_0").send().await.expect("answers").status(), 401, "{path}");
    }
}
