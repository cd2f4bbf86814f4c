//! Sessions of tenants: each answers as if only its tenant's rows existed.
//!
//! Two sessions are compared: one with a tenant, over the rows of all tenants, and one without, over a lake with only that
//! tenant's rows.

use crate::common::{append, ask, lake};
use bellwether_base::{Clock, SystemClock};
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, Session, SessionSettings, views};
use bellwether_tables::Table;
use chrono::DateTime;
use serde_json::{Value, json};

/// Tasks, by tenant. Those of others are not numbers, so that a cast that reaches them fails, and names them.
const TASKS: [(&str, &str); 4] = [("acme", "17"), ("acme", "4"), ("globex", "secret-globex"), ("", "secret-nobody")];

/// Returns rows of every table for one tenant and task; the tenant of `alerts` and `releases` may be null.
fn rows_of(place: usize, tenant: &str, task: &str) -> Vec<(Table, Value)> {
    let now = SystemClock.now_micros();
    let minute = (now / 60_000_000 - 5) * 60_000_000;
    let day = now / 86_400_000_000;
    let nullable = if tenant.is_empty() { Value::Null } else { json!(tenant) };
    let partials = json!({ "window_start": minute, "tenant": tenant, "task": task, "release_id": "v1", "runs": 3, "success": 2, "failure": 1 });
    vec![
        (
            Table::Events,
            json!({
                "topic": format!("runs-{tenant}"), "offset": place, "ingested_at": now, "event_date": day,
                "event_type": "run.completed", "event_id": format!("{place}"), "event_time": minute, "run_id": format!("run-{tenant}-{place}"),
                "tenant": tenant, "task": task, "release_id": "v1", "attempt": 1, "ended_at": minute, "outcome_status": "success",
                "segments": { "region": format!("region-{task}") }, "tool_calls_total": 1,
                "tool_calls": [{ "name": format!("tool-{task}"), "status": "ok", "failed": false }],
            }),
        ),
        (Table::Metrics, partials.clone()),
        (Table::MetricsHourly, partials.clone()),
        (Table::MetricsDaily, partials.clone()),
        (Table::Releases, json!({ "tenant": tenant, "task": task, "release_id": "v1", "first_seen": minute })),
        (
            Table::RollingHistory,
            json!({ "span": "5m", "as_of": minute, "written_at": now, "tenant": tenant, "task": task, "release_id": "v1" }),
        ),
        (
            Table::Alerts,
            json!({ "alert_id": format!("{place}"), "rule": format!("rule-{task}"), "tenant": nullable, "task": task, "at": minute, "title": task }),
        ),
        (
            Table::AlertActions,
            json!({ "action_id": format!("{place}"), "kind": "silence", "rule": format!("rule-{task}"), "tenant": nullable, "person": task, "at": now }),
        ),
        (
            Table::Deliveries,
            json!({ "number": 1, "written_at": now, "alert_id": format!("{place}"), "tenant": nullable, "route": task, "at": minute }),
        ),
        (
            Table::Candidates,
            json!({
                "number": 1, "written_at": now, "change": "taken", "week": "2026-W49", "candidate_id": format!("{place}"), "tenant": tenant,
                "task": task, "run_id": format!("run-{tenant}-{place}"), "ended_at": minute, "sampling_probability": 1.0,
                "probability": 0.5, "inclusion_probability": 0.5,
            }),
        ),
        (
            Table::Quarantine,
            json!({ "topic": format!("runs-{tenant}"), "offset": place, "quarantined_at": now, "head": task }),
        ),
    ]
}

/// Writes rows, without columns that the table does not have.
async fn write(lake: &Lake, only: Option<&str>) {
    for (place, (tenant, task)) in TASKS.into_iter().enumerate() {
        if only.is_some_and(|only| only != tenant) {
            continue;
        }
        for (table, mut row) in rows_of(place, tenant, task) {
            // Rejected messages name no tenant.
            if only.is_some() && table == Table::Quarantine {
                continue;
            }
            let known = |name: &String| table.columns().iter().any(|column| column.name == name);
            row.as_object_mut().expect("an object").retain(|name, _| known(name));
            append(lake, table, &[row]).await;
        }
    }
}

fn of(tenant: &str) -> SessionSettings {
    SessionSettings { tenant: Some(tenant.to_owned()), threads: Some(2), ..SessionSettings::default() }
}

/// Statements that try to reach rows of others in every way that SQL offers.
const STATEMENTS: &[&str] = &[
    // Plainly.
    "SELECT tenant, task, run_id FROM events ORDER BY run_id",
    "SELECT count(*), count(tenant), min(task), max(task), count(DISTINCT tenant) FROM events",
    "SELECT count(*) FROM metrics",
    "SELECT count(*) FROM quarantine",
    "SELECT task, tenant FROM alerts ORDER BY task",
    "SELECT person, tenant FROM alert_actions ORDER BY person",
    "SELECT task FROM releases ORDER BY task LIMIT 3",
    "SELECT task FROM rolling_history ORDER BY task DESC",
    // By conditions on the tenant.
    "SELECT task FROM events WHERE tenant = 'globex'",
    "SELECT task FROM events WHERE tenant <> 'acme' OR tenant = ''",
    "SELECT count(*) FROM alerts WHERE tenant IS NULL OR NOT tenant = 'acme'",
    "SELECT task FROM events WHERE tenant IN ('acme', 'globex', '') ORDER BY task",
    "SELECT count(*) FROM metrics WHERE tenant = 'acme' OR true",
    "SELECT task FROM events WHERE tenant LIKE '%' ORDER BY task",
    // By expressions that fail on the rows of others, and would name them.
    "SELECT CAST(task AS BIGINT) AS n FROM events ORDER BY n",
    "SELECT tenant, CAST(task AS BIGINT) AS n FROM events ORDER BY n",
    "SELECT run_id FROM events WHERE CAST(task AS BIGINT) > 3 ORDER BY run_id",
    "SELECT run_id FROM events WHERE tenant = 'acme' AND CAST(task AS BIGINT) > 3 ORDER BY run_id",
    "SELECT sum(CAST(task AS BIGINT)) FROM metrics WHERE CAST(task AS BIGINT) IN (4, 17)",
    "SELECT max(CAST(task AS BIGINT)) FROM metrics GROUP BY CAST(task AS BIGINT) ORDER BY 1",
    "SELECT task FROM metrics ORDER BY CAST(task AS BIGINT)",
    "SELECT count(*) FROM events AS a JOIN events AS b ON CAST(a.task AS BIGINT) = CAST(b.task AS BIGINT)",
    "SELECT CASE WHEN tenant = 'acme' THEN 0 ELSE CAST(task AS BIGINT) END FROM events",
    "SELECT count(*) FROM tool_calls WHERE CAST(task AS BIGINT) > 0",
    // Through joins, subqueries and set operations.
    "SELECT a.task, b.task FROM events AS a CROSS JOIN metrics AS b ORDER BY 1, 2",
    "SELECT a.task, b.tenant FROM events AS a FULL JOIN alerts AS b ON a.task = b.task ORDER BY 1, 2",
    "SELECT task FROM events AS a WHERE EXISTS (SELECT 1 FROM metrics AS b WHERE b.task <> a.task) ORDER BY task",
    "SELECT task FROM events WHERE task NOT IN (SELECT task FROM metrics WHERE runs > 3) ORDER BY task",
    "SELECT (SELECT max(task) FROM events), (SELECT count(*) FROM releases)",
    "SELECT task FROM events UNION SELECT task FROM metrics UNION SELECT task FROM alerts ORDER BY task",
    "WITH RECURSIVE t AS (SELECT task, 1 AS n FROM events UNION ALL SELECT task, n + 1 FROM t WHERE n < 3) SELECT count(*) FROM t",
    "SELECT task, row_number() OVER (ORDER BY task), lag(task) OVER (ORDER BY task) FROM events ORDER BY task",
    "SELECT unnest(map_values(segments)) AS region FROM events ORDER BY region",
    // Through views, and functions that read tables.
    "SELECT tenant, task, completed, weight FROM runs ORDER BY task",
    "SELECT tool, count(*) FROM tool_calls GROUP BY tool ORDER BY tool",
    "SELECT tenant, task, runs, success_rate FROM metrics_1m ORDER BY task",
    "SELECT tenant, task, runs FROM release_summary ORDER BY task",
    "SELECT span, tenant, task, runs FROM rolling ORDER BY span, task",
    "SELECT span, tenant, task, runs FROM rolling_at('{now}') ORDER BY span, task",
    "SELECT CAST(task AS BIGINT) FROM rolling_at('{now}') WHERE span = '24h' ORDER BY 1",
    "SELECT tenant, task, runs FROM tasks_between('2020-01-01', '{now}') ORDER BY task",
    "SELECT table_name, topic, table_rows FROM freshness ORDER BY table_name, topic",
    "SELECT count(*), max(partitions), sum(runs) FROM completeness",
    "SELECT count(*) FROM ingest_progress",
    "SELECT count(*) FROM orphans",
    "SELECT count(*) FROM quarantine_summary",
    // Through the engine's information about tables.
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name",
    "SELECT table_name, column_name FROM information_schema.columns WHERE column_name = 'tenant' ORDER BY table_name",
    "SELECT table_name FROM information_schema.views WHERE table_schema = 'public' AND definition LIKE '%globex%'",
    "DESCRIBE events",
    "SHOW TABLES",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_answered_as_if_its_rows_were_all_there_are() {
    let ((_folder, everybody), (_other, alone)) = (lake().await, lake().await);
    write(&everybody, None).await;
    write(&alone, Some("acme")).await;
    let engine = Engine::open(&everybody, EngineSettings::default()).await.expect("opens");
    let restricted = engine.session(of("acme")).expect("opens");
    let reference = Session::open(&alone, SessionSettings { threads: Some(2), ..SessionSettings::default() }).await;
    let reference = reference.expect("opens");
    let now = DateTime::from_timestamp_micros(SystemClock.now_micros()).expect("a time").format("%F %T").to_string();
    for sql in STATEMENTS.iter().map(|sql| sql.replace("{now}", &now)) {
        let sql = sql.as_str();
        let expected = ask(&reference, sql).await.unwrap_or_else(|error| panic!("alone: {sql}: {}", error.chain()));
        let found = ask(&restricted, sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
        assert_eq!(found, expected, "{sql}");
    }
    // Without a tenant, the same statements see more, or fail on rows of others, so the comparison can fail.
    let unrestricted = engine.session(SessionSettings::default()).expect("opens");
    assert_eq!(ask(&unrestricted, "SELECT count(*) FROM events").await.expect("runs"), ["4"]);
    let error = ask(&unrestricted, "SELECT CAST(task AS BIGINT) FROM events").await.expect_err("fails");
    assert!(error.chain().contains("secret-"), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_and_no_view_shows_a_row_of_another_tenant() {
    let (_folder, lake) = lake().await;
    write(&lake, None).await;
    let engine = Engine::open(&lake, EngineSettings::default()).await.expect("opens");
    let all = engine.session(SessionSettings::default()).expect("opens");
    let sessions = [("acme", "globex"), ("globex", "acme")].map(|(own, other)| {
        (own, other, engine.session(of(own)).expect("opens"), engine.session(of(own)).expect("opens"))
    });
    let names = Table::ALL.iter().map(|table| table.name()).chain(views().iter().map(|view| view.name));
    for name in names {
        let sql = format!("SELECT * FROM {name}");
        let whole = ask(&all, &sql).await.expect(name).join("\n");
        // Sessions in turns, so that a view planned for one would be seen in another.
        for (own, other, first, second) in &sessions {
            for session in [first, second] {
                let found = ask(session, &sql).await.expect(name).join("\n");
                assert!(!found.contains(other) && !found.contains("nobody"), "{own} sees in {name}: {found}");
                let has_tenants = !["quarantine", "quarantine_summary"].contains(&name);
                assert!(!has_tenants || !whole.contains(own) || found.contains(own), "{name}: {found}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_and_their_figures_tell_nothing_of_others() {
    let (_folder, lake) = lake().await;
    write(&lake, None).await;
    let session = Session::open(&lake, of("acme")).await.expect("opens");
    for sql in [
        "EXPLAIN SELECT task FROM events WHERE run_id = 'x'",
        "EXPLAIN VERBOSE SELECT count(*) FROM events",
        "EXPLAIN ANALYZE SELECT task FROM events WHERE task = 'secret-globex'",
        "EXPLAIN ANALYZE SELECT * FROM rolling",
        "EXPLAIN ANALYZE SELECT * FROM rolling_at('2100-01-01')",
        "EXPLAIN ANALYZE SELECT * FROM tasks_between('2000-01-01', '2100-01-01')",
    ] {
        let plan = ask(&session, sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain())).join("\n");
        assert!(plan.contains("TenantRows") && !plan.contains("parquet"), "{sql}: {plan}");
    }
}

#[tokio::test]
async fn rows_without_a_tenant_belong_to_no_session_of_a_tenant() {
    let (_folder, lake) = lake().await;
    write(&lake, None).await;
    let engine = Engine::open(&lake, EngineSettings::default()).await.expect("opens");
    let error = engine.session(of("")).err().expect("is refused");
    assert!(error.message().contains("tenant") && error.hint().is_some(), "{}", error.chain());
    let stranger = engine.session(of("initech")).expect("opens");
    for table in Table::ALL {
        let sql = format!("SELECT count(*) FROM {}", table.name());
        assert_eq!(ask(&stranger, &sql).await.expect("runs"), ["0"], "{sql}");
    }
}
