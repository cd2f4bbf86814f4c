//! Clients that send half a request, too much, or too slowly, that do not read, and that go away.

use std::time::{Duration, Instant};

use bellwether_serve::ServerSettings;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Served, answer, settings, tables};

/// An answer of a gigabyte.
const ENDLESS: &str =
    "SELECT repeat('x', 1000) AS x FROM unnest(range(0, 1000)) AS a(i), unnest(range(0, 1000)) AS b(j)";

/// The server is patient for a second; a busy machine may take longer.
const SOON: Duration = Duration::from_secs(20);

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.url.trim_start_matches("http://")).await.expect("connects")
}

/// Sends the first bytes of a request, and returns what comes until the server ends the connection.
async fn ended(served: &Served, text: &str) -> String {
    let mut stream = connect(served).await;
    stream.write_all(text.as_bytes()).await.expect("sends");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open after {text:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_requests_end_and_keep_nobody_else_waiting() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, ServerSettings { connections: 20, ..settings() }).await;
    ended(&served, "").await;
    ended(&served, "POST /v1/sql HT").await;
    ended(&served, "GET /v1/tasks HTTP/1.1\r\nHost: localhost\r\nX-A: ").await;
    let answer = ended(&served, &format!("{}{{\"sql\": ", head(100))).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("did not come within 1 s"), "{answer}");
    // A connection that has asked and asks nothing more ends as well.
    let answer = ended(&served, "GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = ended(&served, "\u{16}\u{3}\u{1}\u{2}not HTTP at all\r\n\r\n").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    let long = "a".repeat(100_000);
    let answer = ended(&served, &format!("GET /v1/tasks?task={long} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    // More silent clients than there may be connections delay others by no more than their own time.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(connect(&served).await);
    }
    let began = Instant::now();
    assert_eq!(served.sql("SELECT 1 AS a").await.1, json!([{"a": 1}]));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_too_long_or_deep_are_refused() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, settings()).await;
    let long = "x".repeat(10 << 20);
    // The server does not read it all, so that the client may see the connection end before the answer.
    if let Ok(response) = served.post(&json!({ "sql": format!("SELECT '{long}'") })).send().await {
        assert_eq!(response.status(), 413);
    }
    let answered = ended(&served, &head(10 << 20)).await;
    assert!(answered.starts_with("HTTP/1.1 413") && answered.contains("longer than 256 KiB"), "{answered}");
    for sql in [
        format!("SELECT {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("SELECT {}", vec!["1"; 50_000].join("+")),
        format!("SELECT {}", (0..5_000).map(|n| format!("1 AS c{n}")).collect::<Vec<_>>().join(", ")),
    ] {
        let sent = served.post(&json!({ "sql": sql })).timeout(Duration::from_secs(120)).send().await;
        let status = sent.expect("answers").status();
        assert!([200, 400, 422].contains(&status.as_u16()), "{}: {status}", &sql[..40]);
    }
    served.comes_to_rest().await;
    assert_eq!(served.sql("SELECT 1 AS a").await.1, json!([{"a": 1}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_reading_or_goes_away_leaves_nothing_behind() {
    let feed = Box::pin(tables()).await;
    let served = Served::start(&feed, ServerSettings { statements: 1, ..settings() }).await;
    let ask = async |sql: &str| {
        let mut stream = connect(&served).await;
        let body = json!({ "sql": sql }).to_string();
        stream.write_all(format!("{}{body}", head(body.len())).as_bytes()).await.expect("sends");
        stream
    };
    let running = async || {
        let deadline = Instant::now() + SOON;
        while served.metric("bellwether_serve_statements") < 1.0 {
            assert!(Instant::now() < deadline, "the statement does not begin");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    // It never reads.
    let stalled = ask(ENDLESS).await;
    running().await;
    served.comes_to_rest().await;
    assert!(served.metric("bellwether_serve_cut_total") >= 1.0);
    drop(stalled);
    // It reads some of the answer and goes away.
    let mut gone = ask(ENDLESS).await;
    let mut some = [0; 100_000];
    gone.read_exact(&mut some).await.expect("reads");
    assert!(some.starts_with(b"HTTP/1.1 200"));
    drop(gone);
    served.comes_to_rest().await;
    // It goes away before there is an answer.
    let early = ask(super::sql::LONG).await;
    running().await;
    drop(early);
    served.comes_to_rest().await;
    assert!(served.metric("bellwether_serve_cut_total") >= 3.0);
    // The one place is free again.
    assert_eq!(served.sql("SELECT 1 AS a").await.1, json!([{"a": 1}]));
    assert!(answer(served.get("/v1/statements")).await.1 == json!([]));
}
