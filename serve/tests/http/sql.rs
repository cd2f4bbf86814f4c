//! `POST /v1/sql`: forms of the answer, parameters, limits, cancellation and the audit log.

use std::io::Cursor;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::util::display::array_value_to_string;
use bellwether_serve::{Scope, ServerSettings};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::{Served, answer, settings, tables, text, tokens};

/// Computes for a long time with little memory.
pub(super) const LONG: &str = "SELECT count(*) AS n FROM unnest(range(0, 200000)) AS a(i), unnest(range(0, 200000)) AS b(j) \
                               WHERE (i * j) % 7 = 3";

/// Returns a statement that answers so many thousands of rows of a kilobyte.
fn wide(thousands: u32) -> String {
    format!("SELECT repeat('x', 1000) AS x FROM unnest(range(0, 1000)) AS a(i), unnest(range(0, {thousands})) AS b(j)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_answered_in_each_form() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let sql = "SELECT task, count(*) AS runs FROM runs GROUP BY task ORDER BY task";
    let (status, rows) = served.sql(sql).await;
    assert_eq!(
        (status.as_u16(), &rows),
        (200, &json!([{"task": "acme-task", "runs": 100}, {"task": "globex-task", "runs": 150}]))
    );

    let ask = |format: &str| served.post(&json!({ "sql": sql })).query(&[("format", format)]);
    let response = ask("csv").send().await.expect("answers");
    assert_eq!(response.headers()["content-type"], "text/csv");
    assert_eq!(text(response).await, "task,runs\nacme-task,100\nglobex-task,150\n");
    let response =
        served.post(&json!({ "sql": sql })).header("accept", "application/x-ndjson").send().await.expect("answers");
    assert_eq!(
        text(response).await,
        "{\"task\":\"acme-task\",\"runs\":100}\n{\"task\":\"globex-task\",\"runs\":150}\n"
    );
    let (status, error) = answer(ask("xml")).await;
    assert!(
        status == 400 && error["error"].as_str().is_some_and(|error| error.contains("json, csv, ndjson, arrow")),
        "{error}"
    );

    // An answer in one part, and one in many.
    for (sql, rows, first) in [(sql.to_owned(), 2, "acme-task".to_owned()), (wide(20), 20_000, "x".repeat(1000))] {
        let ask = async |format: &str| {
            let asked = served.post(&json!({ "sql": sql })).query(&[("format", format)]);
            let response = asked.send().await.expect("answers");
            assert_eq!(response.status(), 200);
            response.bytes().await.expect("a whole answer")
        };
        let arrow = StreamReader::try_new(Cursor::new(ask("arrow").await), None).expect("Arrow");
        let parquet = ParquetRecordBatchReaderBuilder::try_new(ask("parquet").await).expect("Parquet").build();
        let arrow: Vec<RecordBatch> = arrow.map(|batch| batch.expect("rows")).collect();
        let parquet: Vec<RecordBatch> = parquet.expect("Parquet").map(|batch| batch.expect("rows")).collect();
        for read in [arrow, parquet] {
            assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            assert_eq!(array_value_to_string(read[0].column(0), 0).expect("text"), first);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_are_values_and_errors_say_what_to_do() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let sql = "SELECT count(*) AS n FROM runs WHERE task = $1 AND attempt >= $2";
    let ask = |parameters: Value| answer(served.post(&json!({ "sql": sql, "parameters": parameters })));
    assert_eq!(ask(json!(["acme-task", 0])).await.1, json!([{"n": 100}]));
    assert_eq!(ask(json!(["' OR '1'='1", 0])).await.1, json!([{"n": 0}]), "a value is never SQL");
    for nothing in [json!([null, 0]), json!(["acme-task", null])] {
        assert_eq!(
            ask(nothing.clone()).await.1,
            json!([{"n": 0}]),
            "a comparison with null holds for no row: {nothing}"
        );
    }
    for (body, status, expected) in [
        (json!({ "sql": sql, "parameters": ["a"] }), 400, "2 parameters, and 1 values"),
        (json!({ "sql": sql, "parameters": ["a", [1]] }), 400, "parameter $2 is a list"),
        (json!({ "sql": sql, "parameters": ["a", "many"] }), 400, "parameter $2 is `many`"),
        (json!({ "sql": "SELECT (1" }), 400, "cannot parse"),
        (json!({ "sql": "SELECT * FROM run" }), 400, "runs"),
        (json!({ "sql": "" }), 400, ""),
        (json!({ "query": "SELECT 1" }), 400, "query"),
        (json!({ "sql": "SELECT 1; SELECT 2" }), 400, "one"),
        (json!({ "sql": "CREATE TABLE t AS SELECT 1" }), 400, ""),
        (json!({ "sql": "INSERT INTO events SELECT * FROM events" }), 400, ""),
        (json!({ "sql": "COPY (SELECT 1) TO '/tmp/stolen.csv'" }), 400, ""),
        (json!({ "sql": "SET datafusion.execution.batch_size = 1" }), 400, ""),
        (json!({ "sql": "SELECT * FROM '/etc/passwd'" }), 400, ""),
        (json!({ "sql": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'" }), 400, ""),
    ] {
        let (found, error) = answer(served.post(&body)).await;
        let message = error.to_string();
        assert_eq!(found.as_u16(), status, "{body}: {message}");
        assert!(error["error"].is_string() && message.contains(expected), "{body}: {message}");
    }
    // A page of another site can send forms and text, and cannot send JSON.
    let (status, _) = answer(served.post(&json!({ "sql": "SELECT 1" })).header("content-type", "text/plain")).await;
    assert!([200, 415].contains(&status.as_u16()));
    let plain = reqwest::Client::new().post(format!("{}/v1/sql", served.url)).body("{\"sql\": \"SELECT 1\"}");
    assert_eq!(answer(plain).await.0, 415);
    served.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_end_a_statement_with_an_error_that_names_the_setting() {
    let feed = Box::pin(tables()).await;
    let limited = ServerSettings {
        timeout: Duration::from_millis(1500),
        max_rows: 5000,
        max_bytes: 1 << 20,
        memory_bytes: 64 << 20,
        ..settings()
    };
    let served = Served::start(&feed, limited).await;
    for (sql, expected) in [
        (LONG.to_owned(), "api.timeout"),
        ("SELECT i FROM unnest(range(0, 6000)) AS a(i)".to_owned(), "api.max_rows"),
        (wide(2), "api.max_bytes"),
        ("SELECT repeat('x', 100000000) AS x FROM unnest(range(0, 100)) AS a(i)".to_owned(), "api.memory_bytes"),
    ] {
        let response = served.post(&json!({ "sql": sql })).send().await.expect("answers");
        let status = response.status();
        // An answer that has begun can only be broken off.
        let Ok(body) = response.text().await else { continue };
        assert_eq!(status, 422, "{sql}: {body}");
        assert!(body.contains(expected), "{sql}: {body}");
    }
    served.comes_to_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_waits_for_its_place_and_is_refused_if_there_is_none() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, ServerSettings { statements: 1, ..settings() }).await;
    let long = tokio::spawn(served.post(&json!({ "sql": LONG })).send());
    while served.metric("bellwether_serve_statements") < 1.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let response = served.post(&json!({ "sql": "SELECT 1" })).send().await.expect("answers");
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    long.abort();
    served.comes_to_rest().await;
    assert_eq!(served.sql("SELECT 1 AS a").await.1, json!([{"a": 1}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_on_record_and_may_be_cancelled_by_its_caller_or_an_admin() {
    let feed = Box::pin(tables()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, audit) = (folder.path().join("tokens.toml"), folder.path().join("audit.ndjson"));
    let texts = tokens(&file, &[("ann", Scope::Read, None), ("ben", Scope::Read, None), ("ops", Scope::Admin, None)]);
    let guarded = ServerSettings { tokens: Some(file), audit: Some(audit.clone()), ..settings() };
    let served = Served::start(&feed, guarded).await;
    let [ann, ben, ops] = [&texts[0], &texts[1], &texts[2]];
    for canceller in [ann, ops] {
        let running = tokio::spawn(served.post(&json!({ "sql": LONG })).bearer_auth(ann).send());
        let id = loop {
            let (_, listed) = answer(served.get("/v1/statements").bearer_auth(ops)).await;
            if let Some(id) = listed[0]["id"].as_str() {
                assert_eq!((listed[0]["caller"].as_str(), listed[0]["sql"].as_str()), (Some("ann"), Some(LONG)));
                break id.to_owned();
            }
        };
        let path = format!("/v1/statements/{id}");
        assert_eq!(answer(served.get("/v1/statements").bearer_auth(ben)).await.1, json!([]), "not ben's");
        assert_eq!(answer(served.delete(&path).bearer_auth(ben)).await.0, 404);
        assert_eq!(answer(served.delete(&path).bearer_auth(canceller)).await.0, 204);
        let response = running.await.expect("joins").expect("answers");
        assert_eq!(response.status(), 503);
        assert!(text(response).await.contains("cancelled"));
    }
    let private = json!({ "sql": "SELECT count(*) AS n FROM runs WHERE task = $1", "parameters": ["a private value"] });
    assert_eq!(answer(served.post(&private).bearer_auth(ben)).await.1, json!([{"n": 0}]));
    answer(served.get("/v1/rolling?span=24h").bearer_auth(ben)).await;
    let log = std::fs::read_to_string(&audit).expect("a log");
    assert!(!log.contains("private value") && texts.iter().all(|token| !log.contains(token)), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |caller: &str, event: &str| {
        lines.iter().filter(|line| line["caller"] == caller && line["event"] == event).collect::<Vec<_>>()
    };
    assert_eq!(of("ann", "asked").iter().filter(|line| line["text"] == LONG).count(), 2);
    let ended = of("ann", "answered");
    let mut ended = ended.iter().filter(|line| line["endpoint"] == "POST /v1/sql");
    assert!(ended.all(|line| line["status"] == 503 && line["error"].is_string()), "{log}");
    let asked = of("ben", "asked");
    assert_eq!((asked.len(), &asked[0]["text"]), (1, &json!("SELECT count(*) AS n FROM runs WHERE task = $1")));
    let done = of("ben", "answered");
    assert!(
        done.iter().any(|line| line["request"] == asked[0]["request"] && line["rows"] == 1 && line["status"] == 200),
        "{log}"
    );
    assert!(done.iter().any(|line| line["endpoint"] == "GET /v1/rolling" && line["text"] == "span=24h"), "{log}");
}
