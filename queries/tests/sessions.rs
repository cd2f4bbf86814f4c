//! Many sessions of one engine: their shared memory, their own limits, and cancelling one.

use std::time::{Duration, Instant};

use crate::common::{append, ask, lake, text};
use bellwether_base::ErrorKind;
use bellwether_queries::{Engine, EngineSettings, ScalarValue, Session, SessionSettings, SmallFiles};
use bellwether_tables::Table;
use datafusion::arrow::datatypes::DataType;
use futures::StreamExt;
use serde_json::json;

/// A join that keeps a hash table of two million numbers while it streams.
const HOLDS_MEMORY: &str = "SELECT b.value FROM generate_series(1, 2000000) AS a \
                            JOIN generate_series(1, 100000000000) AS b ON a.value = b.value % 2000000";

fn engine(memory_limit_bytes: usize) -> Engine {
    Engine::in_memory(EngineSettings { memory_limit_bytes, ..EngineSettings::default() }).expect("starts")
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} within 30 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_statement_returns_its_memory_and_disturbs_no_other_session() {
    let engine = engine(1 << 30);
    let session = engine.session(SessionSettings::default()).expect("opens");
    let other = engine.session(SessionSettings::default()).expect("opens");
    let mut answer = session.execute(HOLDS_MEMORY).await.expect("runs");
    answer.batches.next().await.expect("rows").expect("rows");
    assert!(engine.used_bytes() > 16 << 20, "{} bytes are held", engine.used_bytes());
    let mut running = other.execute("SELECT value FROM generate_series(1, 1000000)").await.expect("runs");
    running.batches.next().await.expect("rows").expect("rows");
    let canceller = session.canceller();
    tokio::spawn(async move { canceller.cancel() }).await.expect("cancels");
    let error = loop {
        match answer.batches.next().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "the statement was cancelled"));
    assert!(answer.batches.next().await.is_none());
    until("the memory is returned", || engine.used_bytes() < 1 << 20).await;
    let rows = running.collect().await.expect("goes on").iter().map(|batch| batch.num_rows()).sum::<usize>();
    assert!(rows > 900_000, "{rows}");
    assert_eq!(ask(&session, "SELECT 1").await.expect("is usable"), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_plans_or_returns_nothing_yet_is_cancelled_too() {
    let session = engine(1 << 30).session(SessionSettings::default()).expect("opens");
    let canceller = session.canceller();
    let cancel = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        canceller.cancel();
    });
    let begun = Instant::now();
    let error = ask(&session, "SELECT count(*) FROM generate_series(1, 1000000000000)").await.expect_err("stops");
    assert_eq!(error.message(), "the statement was cancelled");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    cancel.await.expect("cancels");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_share_the_memory_of_their_engine() {
    let settings = || SessionSettings { threads: Some(1), ..SessionSettings::default() };
    let large = engine(1 << 30);
    let mut answer = large.session(settings()).expect("opens").execute(HOLDS_MEMORY).await.expect("runs");
    answer.batches.next().await.expect("rows").expect("rows");
    let one = large.used_bytes();
    assert!(one > 16 << 20, "{one} bytes are held");
    drop(answer);
    // Room for one statement, but not for two.
    let engine = engine(one * 7 / 4);
    let (first, second) = (engine.session(settings()).expect("opens"), engine.session(settings()).expect("opens"));
    let mut answer = first.execute(HOLDS_MEMORY).await.expect("runs");
    answer.batches.next().await.expect("rows").expect("rows");
    let error = async { second.execute(HOLDS_MEMORY).await?.batches.next().await.expect("an answer") }.await;
    let error = error.expect_err("there is no room for a second one");
    assert!(error.message().contains("memory"), "{}", error.chain());
    drop(answer);
    until("the memory is returned", || engine.used_bytes() < 1 << 20).await;
    let mut answer = second.execute(HOLDS_MEMORY).await.expect("runs");
    answer.batches.next().await.expect("rows").expect("there is room now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_held_to_its_own_limits_within_the_engines() {
    let engine = engine(1 << 30);
    let small = SessionSettings { memory_limit_bytes: 16 << 20, max_rows: Some(2), ..SessionSettings::default() };
    let small = engine.session(small).expect("opens");
    let large = engine.session(SessionSettings { memory_limit_bytes: usize::MAX, ..SessionSettings::default() });
    let large = large.expect("opens");
    for sql in
        ["SELECT cardinality(array_agg(value)) FROM generate_series(1, 4000000)", "SELECT length(repeat('x', 8000000))"]
    {
        let error = ask(&small, sql).await.expect_err(sql);
        assert!(error.message().contains("memory"), "{sql}: {}", error.chain());
        assert_eq!(ask(&large, sql).await.expect(sql).len(), 1);
    }
    let rows = "SELECT value FROM generate_series(1, 3)";
    assert!(ask(&small, rows).await.expect_err("too many").message().contains("more than 2 rows"));
    assert_eq!(ask(&large, rows).await.expect("runs").len(), 3);
    let beyond = ask(&large, "SELECT length(repeat('x', 500000000))").await.expect_err("beyond the engine's limit");
    assert!(beyond.message().contains("memory"), "{}", beyond.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_session_sees_each_commit_and_a_statement_sees_one_version() {
    let (_folder, lake) = lake().await;
    let engine = Engine::open(&lake, EngineSettings::default()).await.expect("opens");
    for round in 1..=3_usize {
        append(&lake, Table::Metrics, &[json!({ "window_start": round, "runs": 1 })]).await;
        let sessions = (0..8).map(|_| engine.session(SessionSettings::default()).expect("opens"));
        let sql = "SELECT count(*) AS stored, (SELECT count(*) FROM metrics_1m WHERE runs > 0) AS seen FROM metrics";
        let asked: Vec<_> =
            sessions.map(|session| tokio::spawn(async move { ask(&session, sql).await.expect("runs") })).collect();
        for found in asked {
            assert_eq!(found.await.expect("joins"), [format!("{round}|{round}")]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_progress_of_a_statement_counts_the_rows_and_bytes_that_it_has_read() {
    let (_folder, lake) = lake().await;
    for file in 0..3 {
        let rows: Vec<_> = (0..100).map(|row| json!({ "window_start": file * 100 + row, "runs": row })).collect();
        append(&lake, Table::Metrics, &rows).await;
    }
    let session = Session::open(&lake, SessionSettings::default()).await.expect("opens");
    let answer = session.execute("SELECT sum(runs) FROM metrics").await.expect("runs");
    let progress = answer.progress.clone();
    assert_eq!(text(&answer.collect().await.expect("answers")), ["14850"]);
    let read = progress.read();
    assert_eq!((read.rows, read.bytes > 0), (300, true), "{read:?}");
}

#[tokio::test]
async fn parameters_have_types_and_are_never_sql() {
    let engine = engine(1 << 28);
    let rows = crate::common::rows(
        Table::Metrics,
        &[json!({ "task": "pay", "runs": 3 }), json!({ "task": "' OR ''='", "runs": 4 })],
    );
    engine.put(Table::Metrics, Table::Metrics.arrow_schema(), vec![rows]);
    let session = engine.session(SessionSettings::default()).expect("opens");
    let by_task =
        session.prepare("SELECT runs FROM metrics WHERE task = $1 AND runs >= $2", &[]).await.expect("prepares");
    assert_eq!(by_task.parameters(), [DataType::Utf8View, DataType::Int64]);
    assert_eq!(by_task.schema().field(0).name(), "runs");
    for (task, least, expected) in
        [("pay", "3", &["3"][..]), ("pay", "4", &[]), ("' OR ''='", "0", &["4"]), ("x' OR 1=1 --", "0", &[])]
    {
        let values = [ScalarValue::from(task), ScalarValue::from(least)];
        let answer = session.execute_prepared(&by_task, &values).await.expect("runs").collect().await.expect("runs");
        assert_eq!(text(&answer), expected, "{task} {least}");
    }
    let few = session.execute_prepared(&by_task, &[ScalarValue::from("pay")]).await.err().expect("is refused");
    assert!(few.message().contains("2 parameters") && few.message().contains("1 values"), "{}", few.message());
    let wrong = [ScalarValue::from("pay"), ScalarValue::from("many")];
    let wrong = session.execute_prepared(&by_task, &wrong).await.err().expect("is refused");
    assert!(wrong.message().contains("parameter $2 is `many`"), "{}", wrong.message());
    // A type that the statement does not determine must be declared.
    let unknown = session.prepare("SELECT $1 AS x", &[]).await.expect_err("is refused");
    assert!(unknown.hint().is_some_and(|hint| hint.contains("CAST($1")), "{}", unknown.chain());
    let cast =
        session.prepare("SELECT CAST($1 AS BIGINT) AS x, (SELECT $2::date) AS y", &[]).await.expect("as it hints");
    assert_eq!(cast.parameters(), [DataType::Int64, DataType::Date32]);
    let declared = session.prepare(
        "SELECT $1 AS x, task FROM metrics ORDER BY runs LIMIT $2",
        &[Some(DataType::Int64), Some(DataType::Int64)],
    );
    let declared = declared.await.expect("prepares");
    assert_eq!(declared.schema().field(0).data_type(), &DataType::Int64);
    let answer = session.execute_prepared(&declared, &[ScalarValue::from(7_i64), ScalarValue::from(1_i64)]).await;
    assert_eq!(text(&answer.expect("runs").collect().await.expect("runs")), ["7|pay"]);
    assert!(session.prepare("DELETE FROM metrics WHERE task = $1", &[]).await.is_err());
    let named = session.prepare("SELECT * FROM metrics WHERE task = $task", &[]).await.expect_err("is refused");
    assert!(named.hint().is_some_and(|hint| hint.contains("$1")), "{}", named.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_small_files_in_memory_give_the_same_answers_as_the_files() {
    let (_folder, lake) = lake().await;
    let minute = |n: i64| 1_764_000_000_000_000_i64 / 60_000_000 * 60_000_000 + n * 60_000_000;
    let day = |n: i64| minute(n).div_euclid(86_400_000_000);
    for n in 0..24 {
        // Some files have more rows, so that a bound of bytes keeps the others.
        let rows = (0..if n % 3 == 0 { 60 } else { 2 }).map(
            |row| json!({ "window_start": minute(n), "task": format!("task-{row:03}"), "runs": n, "success": row }),
        );
        append(&lake, Table::Metrics, &rows.collect::<Vec<_>>()).await;
        append(
            &lake,
            Table::Events,
            &[json!({
                "event_type": "run.completed", "run_id": format!("r{n}"), "event_time": minute(n), "event_date": day(n),
                "task": "task-001", "offset": n, "segments": { "plan": if n % 2 == 0 { "free" } else { "paid" } },
            })],
        )
        .await;
    }
    let newest = lake.active_files(Table::Metrics).await.expect("lists");
    let mut sizes: Vec<u64> = newest.1.iter().map(|file| u64::try_from(file.size).expect("positive")).collect();
    sizes.sort_unstable();
    let half: u64 = sizes[..12].iter().sum();
    let at = [(Table::Metrics, newest.0 - 2)];
    let mut engines = Vec::new();
    for bytes in [0, half, u64::MAX] {
        let small_files = SmallFiles { tables: &[Table::Events, Table::Metrics], bytes };
        let settings = EngineSettings { small_files, ..EngineSettings::default() };
        engines.push(Engine::frozen(&lake, settings, &at).await.expect("opens"));
    }
    // The engines do not see rows that are written later.
    append(&lake, Table::Events, &[json!({ "event_type": "run.completed", "run_id": "later", "event_date": day(0) })])
        .await;
    for sql in [
        "SELECT * FROM metrics ORDER BY window_start, task",
        "SELECT task, sum(runs), sum(success), count(*) FROM metrics WHERE success > 1 GROUP BY task ORDER BY task",
        "SELECT count(*), min(event_time), max(event_date) FROM events WHERE event_date >= DATE '2025-11-24'",
        "SELECT run_id, segments['plan'] FROM events WHERE segments['plan'] = 'free' ORDER BY run_id",
        "SELECT * FROM runs ORDER BY run_id",
        "SELECT count(*) FROM events AS one JOIN metrics AS other ON one.task = other.task",
        "SELECT count(*) FROM metrics WHERE task = NULL",
    ] {
        let mut answers = Vec::new();
        for engine in &engines {
            let session = engine.session(SessionSettings::default()).expect("opens");
            answers.push(ask(&session, sql).await.expect(sql));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{sql}: {answers:?}");
        assert!(!answers[0].is_empty(), "{sql}");
    }
}
