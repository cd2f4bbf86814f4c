//! Tests sessions over rows in memory: their present time, their limits, and queries of nested columns and JSON.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::settings::{Gauge, Present};
use bellwether_base::ErrorKind;
use datafusion::arrow::array::{ArrayRef, AsArray, StringViewArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::arrow::json::ReaderBuilder;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

#[tokio::test]
async fn the_present_is_as_set_and_later_rows_do_not_exist() {
    let present = Present::default();
    let settings = SessionSettings { present: Some(present.clone()), ..SessionSettings::default() };
    let session = Session::in_memory(settings).expect("opens");
    let schema = Table::Quarantine.arrow_schema();
    let (name, time) = ("reason", "quarantined_at");
    let some = schema.project(&[schema.index_of(name).expect("is"), schema.index_of(time).expect("is")]);
    let some: SchemaRef = Arc::new(some.expect("two columns"));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringViewArray::from(vec!["a", "b", "c"])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_000_000, 2_000_000, 3_000_000]).with_timezone("UTC")),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&some), columns).expect("rows");
    session.put(Table::Quarantine, some, vec![rows]).expect("are put");
    let sql = "SELECT count(*) AS rows, CAST(max(date_part('epoch', now())) AS BIGINT) AS now FROM quarantine";
    for (micros, expected) in [(1_000_000, [1, 1]), (2_500_000, [2, 2]), (9_000_000, [3, 9])] {
        present.set(micros);
        let answer = session.execute(sql).await.expect("runs").collect().await.expect("answers");
        let number = |column: usize| answer[0].column(column).as_primitive::<Int64Type>().value(0);
        assert_eq!([number(0), number(1)], expected);
    }
}

fn session(settings: SessionSettings) -> Session {
    Session::in_memory(settings).expect("opens")
}

/// Returns all rows of an answer as text, with a bar between cells.
async fn ask(session: &Session, sql: &str) -> Result<Vec<String>> {
    let batches = session.execute(sql).await?.collect().await?;
    let options = FormatOptions::default().with_null("∅");
    let mut rows = Vec::new();
    for batch in &batches {
        let columns: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("can be shown"))
            .collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    Ok(rows)
}

const LIMIT: usize = 64 << 20;

fn small() -> Session {
    session(SessionSettings {
        memory_limit_bytes: LIMIT,
        timeout: Some(Duration::from_secs(20)),
        ..SessionSettings::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_result_exceeds_the_memory_of_the_session() {
    let session = small();
    for sql in [
        // Arguments are constants, which are folded during planning.
        "SELECT length(repeat('x', 2000000000))",
        "SELECT length(lpad('x', 2000000000))",
        "SELECT length(rpad('x', 1000000000, 'äö'))",
        "SELECT cardinality(array_repeat(1, 1000000000))",
        "SELECT cardinality(array_repeat(array_repeat(1, 100000), 100000))",
        "SELECT cardinality(range(1000000000))",
        "SELECT cardinality(range(1000000000, 0, -1))",
        "SELECT cardinality(generate_series(1, 2000000000, 1))",
        "SELECT cardinality(generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2030-01-01', INTERVAL '1 second'))",
        "SELECT cardinality(array_resize([1], 1000000000, 2))",
        "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))",
        "SELECT length(replace(repeat('x', 1000000), '', repeat('y', 1000000)))",
        "SELECT length(regexp_replace(repeat('x', 1000000), 'x', repeat('y', 1000000), 'g'))",
        "SELECT length(array_to_string(array_repeat('x', 100000), repeat(',', 10000)))",
        // A little from each row.
        "SELECT sum(length(repeat('x', value))) FROM generate_series(1, 100000)",
        "SELECT sum(length(repeat('x', 1000000 + value % 2))) FROM generate_series(1, 100000)",
        "SELECT sum(length(concat(repeat('x', 20000 + value % 2), repeat('y', 20000)))) FROM generate_series(1, 10000)",
        "SELECT sum(cardinality(range(value))) FROM generate_series(1, 1000000)",
    ] {
        let error = ask(&session, sql).await.expect_err(sql);
        assert!(
            error.kind() == ErrorKind::Unavailable && error.message().contains("memory"),
            "{sql}: {}",
            error.chain()
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("--memory-limit")), "{sql}: {}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_function_answers_as_an_unbounded_one() {
    let session = small();
    for (sql, answer) in [
        ("SELECT repeat('ab', 3), repeat(NULL, 2), repeat('x', -1)", "ababab|∅|"),
        ("SELECT length(repeat('x', 1000000))", "1000000"),
        ("SELECT lpad('7', 3, '0'), rpad('7', 3), lpad('äöü', 2)", "007|7  |äö"),
        ("SELECT replace('aXbX', 'X', '--'), regexp_replace('abc', '(b)', '[\\1]')", "a--b--|a[b]c"),
        ("SELECT concat('a', NULL, 1), concat_ws('-', 'a', 'b'), 'a' || 'b'", "a1|a-b|ab"),
        ("SELECT range(3), generate_series(1, 3), range(5, 0, -2)", "[0, 1, 2]|[1, 2, 3]|[5, 3, 1]"),
        ("SELECT array_repeat('x', 2), array_resize([1], 2, 9), array_concat([1], [2])", "[x, x]|[1, 9]|[1, 2]"),
        ("SELECT array_to_string([1, 2], '+'), array_append([1], 2), [1, 2]", "1+2|[1, 2]|[1, 2]"),
        // More in all than is allowed at once, in parts.
        (
            "SELECT sum(length(replace(repeat('x', 900), 'x', repeat('y', 1 + value % 2)))) FROM generate_series(1, 8192)",
            "11059200",
        ),
        (
            "SELECT sum(length(regexp_replace(repeat('ab', 100 + value % 2), 'z', repeat('y', 100), 'g'))) FROM generate_series(1, 8192)",
            "1646592",
        ),
    ] {
        assert_eq!(
            ask(&session, sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain())),
            [answer],
            "{sql}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_the_engine_accounts_for_is_held_to_the_limit() {
    let session = small();
    for sql in [
        "SELECT length(string_agg(repeat('x', 1000), ',')) FROM generate_series(1, 10000000)",
        "SELECT cardinality(array_agg(value)) FROM generate_series(1, 100000000)",
        "SELECT cardinality(array_agg(DISTINCT value)) FROM generate_series(1, 10000000)",
        "SELECT median(value) FROM generate_series(1, 100000000)",
    ] {
        let error = ask(&session, sql).await.expect_err(sql);
        assert!(error.kind() == ErrorKind::Unavailable && error.hint().is_some(), "{sql}: {}", error.chain());
    }
}

#[test]
fn a_statement_is_stopped_at_its_timeout() {
    let timeout = Some(Duration::from_millis(600));
    let settings = SessionSettings { timeout, threads: Some(1), ..SessionSettings::default() };
    for sql in [
        "SELECT count(*) FROM generate_series(1, 100000) AS a CROSS JOIN generate_series(1, 10000000) AS b",
        "SELECT count(*) FROM generate_series(1, 100000) AS a JOIN generate_series(1, 10000000) AS b ON a.value < b.value",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
        "SELECT max(sin(value)) FROM generate_series(1, 1000000000000)",
        "SELECT value FROM generate_series(1, 1000000000000) WHERE value < 0",
        "SELECT value FROM generate_series(1, 1000000000000) LIMIT 10 OFFSET 100000000000",
    ] {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
        let begun = std::time::Instant::now();
        let error = runtime.block_on(async { ask(&session(settings.clone()), sql).await }).expect_err(sql);
        assert!(error.message().contains("took longer than 0.6 s"), "{sql}: {}", error.chain());
        assert!(error.hint().is_some_and(|hint| hint.contains("--timeout")), "{sql}");
        assert!(begun.elapsed() < Duration::from_secs(6), "{sql}: {:?}", begun.elapsed());
        // A runtime waits for a task that does not pause.
        drop(runtime);
        assert!(begun.elapsed() < Duration::from_secs(9), "{sql} went on: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_off_says_so() {
    for (rows, most, whole) in [(0, 5, true), (5, 5, true), (6, 5, false), (50_000, 20_000, false), (9, 0, false)] {
        let session = session(SessionSettings { max_rows: Some(most), ..SessionSettings::default() });
        let sql = format!("SELECT value FROM generate_series(1, {rows})");
        let mut answer = session.execute(&sql).await.expect("runs");
        let (mut found, mut error) = (0, None);
        while let Some(batch) = answer.batches.next().await {
            match batch {
                Ok(batch) => found += batch.num_rows() as u64,
                Err(found) => error = Some(found),
            }
        }
        assert_eq!(found, if whole { rows } else { most }, "{rows} of {most}");
        let hint = error.as_ref().and_then(Error::hint);
        assert_eq!(hint.is_some_and(|hint| hint.contains("--max-rows")), !whole, "{rows} of {most}: {error:?}");
    }
}

#[tokio::test]
async fn the_gauge_sees_memory_that_the_engine_does_not_account_for() {
    // From the second check on, the process holds more than the limit.
    static LOOKS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    static GAVE_UP: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    static GIVES_UP_AT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let gauge = Gauge {
        used_bytes: || if LOOKS.fetch_add(1, Ordering::Relaxed) == 0 { 1000 } else { 1 << 30 },
        give_up: || {
            GAVE_UP.fetch_add(1, Ordering::Relaxed);
        },
        give_up_at: |bytes| GIVES_UP_AT.store(bytes.unwrap_or(0), Ordering::Relaxed),
    };
    let engine = EngineSettings { memory_limit_bytes: LIMIT, gauge: Some(gauge), ..EngineSettings::default() };
    let session =
        Engine::in_memory(engine).and_then(|engine| engine.session(SessionSettings::default())).expect("opens");
    let answer = session.execute("SELECT count(*) FROM generate_series(1, 1000000000000)").await;
    let error = match answer {
        Ok(answer) => answer.collect().await.expect_err("is stopped"),
        Err(error) => error,
    };
    assert!(error.message().contains("memory"), "{}", error.chain());
    assert!(GAVE_UP.load(Ordering::Relaxed) > 0, "it was far beyond the limit");
    assert_eq!(GIVES_UP_AT.load(Ordering::Relaxed), 0, "the process does not give up for a later statement");
}

/// Opens a session over two runs with a map, a list of structs, and JSON.
fn nested() -> Session {
    let session = session(SessionSettings::default());
    let whole = Table::Events.arrow_schema();
    let row = |id: &str, region: &str, tool: &str, extra: &str| {
        format!(
            r#"{{"run_id": "{id}", "event_type": "run.completed", "segments": {{"region": "{region}"}},
                "tool_calls": [{{"name": "{tool}", "failed": false}}, {{"name": "mail", "failed": true}}], "extra": {extra}}}"#
        )
    };
    let text = [
        row("a", "eu", "search", r#""{\"channel\": \"web\", \"n\": 7, \"deep\": {\"list\": [1, {\"x\": true}]}}""#),
        row("b", "us", "pay", r#""{\"channel\": \"app\", \"n\": 8.5}""#),
    ]
    .concat();
    let names =
        ["run_id", "event_type", "segments", "tool_calls", "extra"].map(|name| whole.index_of(name).expect("is there"));
    let fields: Vec<_> = names.iter().map(|place| open(whole.field(*place))).collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let mut reader = ReaderBuilder::new(Arc::clone(&schema)).build_decoder().expect("reads");
    reader.decode(text.as_bytes()).expect("is JSON");
    let rows = reader.flush().expect("rows").expect("some");
    session.put(Table::Events, schema, vec![rows]).expect("are put");
    session
}

/// Makes a field and all fields inside it nullable.
fn open(field: &Field) -> Field {
    let kind = match field.data_type() {
        DataType::List(item) => DataType::List(Arc::new(open(item))),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| Arc::new(open(field))).collect()),
        other => other.clone(),
    };
    Field::new(field.name(), kind, true)
}

#[tokio::test]
async fn nested_columns_work_in_every_clause_over_views_joins_and_unions() {
    let session = nested();
    // The shape of the views: a union, an expansion with EXCEPT, a join, and a filter around a nested column.
    let view = "WITH base AS (SELECT * EXCEPT (event_type) FROM events WHERE event_type = 'run.completed'), \
                both AS (SELECT * FROM base WHERE run_id = 'a' UNION ALL SELECT * FROM base WHERE run_id <> 'a'), \
                v AS (SELECT l.run_id, r.segments, r.tool_calls, r.extra FROM both AS l LEFT JOIN both AS r ON l.run_id = r.run_id) ";
    for (rest, answer) in [
        ("SELECT segments['region'], count(*) FROM v GROUP BY 1 ORDER BY 1", "eu|1 us|1"),
        ("SELECT tool_calls[1]['name'] AS tool, count(*) FROM v GROUP BY tool ORDER BY tool", "pay|1 search|1"),
        ("SELECT tool_calls[1].name FROM v WHERE segments['region'] = 'us'", "pay"),
        ("SELECT v.tool_calls[2].failed FROM v ORDER BY v.tool_calls[1].name LIMIT 1", "true"),
        (
            "SELECT segments['region'], segments FROM v WHERE segments['region'] IS NOT NULL ORDER BY 1 LIMIT 1",
            "eu|{region: eu}",
        ),
        ("SELECT run_id FROM v GROUP BY run_id HAVING max(segments['region']) = 'eu'", "a"),
        ("SELECT x.run_id FROM v AS x JOIN v AS y ON x.segments['region'] = y.segments['region'] ORDER BY 1", "a b"),
        (
            "SELECT run_id, row_number() OVER (PARTITION BY segments['region'] ORDER BY tool_calls[1]['name']) FROM v ORDER BY 1",
            "a|1 b|1",
        ),
        ("SELECT run_id FROM v WHERE segments['region'] IN (SELECT segments['region'] FROM v WHERE run_id = 'b')", "b"),
        ("SELECT DISTINCT tool_calls[2]['name'] FROM v", "mail"),
        (
            "SELECT call.name FROM (SELECT unnest(tool_calls) AS call FROM v) WHERE NOT call.failed ORDER BY 1",
            "pay search",
        ),
        (
            "SELECT call['name'], count(*) FROM (SELECT unnest(tool_calls) AS call FROM v) GROUP BY 1 ORDER BY 1",
            "mail|2 pay|1 search|1",
        ),
        ("SELECT key, count(*) FROM (SELECT unnest(map_keys(segments)) AS key FROM v) GROUP BY key", "region|2"),
    ] {
        let sql = format!("{view}{rest}");
        let rows = ask(&session, &sql).await.unwrap_or_else(|error| panic!("{rest}: {}", error.chain()));
        assert_eq!(rows.join(" "), answer, "{rest}");
    }
}

#[tokio::test]
async fn unnest_as_in_other_engines_is_refused_with_a_hint() {
    let session = nested();
    for sql in [
        "SELECT e.run_id, call.name FROM events AS e, LATERAL unnest(e.tool_calls) AS t(call)",
        "SELECT e.run_id, call.name FROM events AS e CROSS JOIN unnest(e.tool_calls) AS t(call)",
        "SELECT e.run_id, c.call FROM events AS e CROSS JOIN LATERAL (SELECT unnest(e.tool_calls) AS call) AS c",
    ] {
        let error = ask(&session, sql).await.expect_err(sql);
        assert!(error.hint().is_some_and(|hint| hint.contains("unnest in a subquery")), "{sql}: {}", error.chain());
    }
}

#[tokio::test]
async fn json_can_be_searched_grouped_and_cast() {
    let session = nested();
    for (sql, answer) in [
        ("SELECT extra ->> 'channel', count(*) FROM events GROUP BY 1 ORDER BY 1", "app|1 web|1"),
        ("SELECT run_id FROM events WHERE extra ->> 'channel' = 'web'", "a"),
        ("SELECT extra -> 'deep' -> 'list' -> 1 ->> 'x' FROM events WHERE run_id = 'a'", "true"),
        ("SELECT extra -> 'channel' FROM events ORDER BY 1", "\"app\" \"web\""),
        ("SELECT CAST(extra -> 'n' AS DOUBLE) FROM events ORDER BY 1", "7.0 8.5"),
        ("SELECT (extra ->> 'n')::double + 1 FROM events ORDER BY 1", "8.0 9.5"),
        (
            "SELECT json_get_str(extra, 'channel'), json_get_int(extra, 'n'), json_get_float(extra, 'n') FROM events ORDER BY 1",
            "app|∅|8.5 web|7|7.0",
        ),
        (
            "SELECT json_get(extra, 'deep', 'list', 0), json_get_bool(extra, 'deep', 'list', 1, 'x') FROM events WHERE run_id = 'a'",
            "1|true",
        ),
        ("SELECT json_length(extra), json_contains(extra, 'deep') FROM events ORDER BY run_id", "3|true 2|false"),
        ("SELECT unnest(json_get_array(extra, 'deep', 'list')) FROM events WHERE run_id = 'a'", "1 {\"x\": true}"),
        (
            "SELECT unnest(json_object_keys(extra)) AS k, count(*) FROM events GROUP BY k ORDER BY k",
            "channel|2 deep|1 n|2",
        ),
        ("SELECT count(*) FROM events AS l JOIN events AS r ON l.extra ->> 'channel' = r.extra ->> 'channel'", "2"),
    ] {
        let rows = ask(&session, sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
        assert_eq!(rows.join(" "), answer, "{sql}");
    }
}

#[tokio::test]
async fn describe_shows_types_in_words() {
    let session = session(SessionSettings::default());
    for sql in ["DESCRIBE runs", "DESCRIBE events", "SHOW COLUMNS FROM runs"] {
        let rows = ask(&session, sql).await.expect(sql);
        let of = |name: &str| rows.iter().find(|row| row.contains(&format!("{name}|"))).cloned().unwrap_or_default();
        assert!(of("segments").contains("segments|map of text by text|YES|"), "{sql}: {}", of("segments"));
        assert!(rows.iter().all(|row| !row.contains("metadata") && !row.contains("Field {")), "{sql}: {rows:?}");
    }
    let columns = ask(&session, "DESCRIBE information_schema.tables").await.expect("the engine's own");
    assert!(columns.iter().any(|row| row.starts_with("table_name|")), "{columns:?}");
    let error = ask(&session, "DESCRIBE nothing").await.expect_err("is not there");
    assert!(error.message().contains("nothing"), "{}", error.chain());
}
