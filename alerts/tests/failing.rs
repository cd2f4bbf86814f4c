//! Rules that fail to evaluate: the rows that they can be judged on are judged at once, the others later, and other rules are
//! not affected.

use std::time::Duration;

use crate::common::{BEGIN, Cell, cell, rows};
use bellwether_alerts::engine::Status;
use bellwether_alerts::record::AlertRow;
use bellwether_alerts::{BudgetSettings, Contracts, Engine, Rule, Rules};
use bellwether_base::{Clock, SystemClock};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;

/// An hour, microseconds.
const HOUR: i64 = 3_600_000_000;

fn rule(name: &str, source: &str, sql: &str, detector: &str) -> Rule {
    let series = if source == "tables" { "[\"task\"]" } else { "[\"tenant\", \"task\"]" };
    let text = format!(
        "name = \"{name}\"\ndoc = \"A rule.\"\nseverity = \"ticket\"\nsource = \"{source}\"\nseries = {series}\n\
         value = \"failures\"\nsql = \"\"\"\n{sql}\n\"\"\"\ndetector = {detector}\n"
    );
    Rule::parse(&text, "test").unwrap_or_else(|broken| panic!("{}", broken.why))
}

/// Fires on single failures. Its query fails on a row whose model is not a number.
fn touchy() -> Rule {
    let sql = "SELECT window_start, tenant, task, sum(failure) AS events, sum(runs + CAST(model AS BIGINT)) AS runs \
               FROM metrics GROUP BY window_start, tenant, task";
    rule("touchy", "metrics", sql, "{ kind = \"occurrence\" }")
}

fn engine(rules: Vec<Rule>) -> Engine {
    let rules = Rules { rules, ..Rules::default() };
    Engine::new(&rules, &Contracts::new(), &BudgetSettings::default()).expect("starts")
}

/// Rules and tasks of the alerts that fire.
fn firing(rows: &[AlertRow]) -> Vec<(String, String)> {
    let firing = rows.iter().filter(|row| row.state == "firing" && row.state_from == "pending");
    firing.map(|row| (row.rule.clone(), row.task.clone().unwrap_or_default())).collect()
}

fn pair(rule: &str, task: &str) -> (String, String) {
    (rule.to_owned(), task.to_owned())
}

#[tokio::test]
async fn rows_that_fail_are_set_apart_and_neither_other_rows_nor_other_rules_are_affected() {
    let plain = rule(
        "plain",
        "metrics",
        "SELECT window_start, tenant, task, sum(failure) AS events, sum(runs) AS runs FROM metrics GROUP BY 1, 2, 3",
        "{ kind = \"occurrence\" }",
    );
    let mut engine = engine(vec![touchy(), plain]);
    let mut cells = Vec::new();
    for minute in 0..40 {
        for task in ["a", "c", "d"] {
            cells.push(cell(minute, task, 5, 1));
        }
        cells.push(Cell { model: "poison", ..cell(minute, "b", 5, 1) });
    }
    cells.push(Cell { model: "poison", ..cell(7, "d", 5, 1) });
    engine.at(0, true);
    engine.take(Table::Metrics, vec![rows(&cells)]).await.expect("takes");
    let fired = firing(&engine.evaluate(BEGIN + 40, BEGIN + 40, None));
    let expected =
        [("plain", "a"), ("plain", "b"), ("plain", "c"), ("plain", "d")].map(|(rule, task)| pair(rule, task));
    let touchy = ["a", "c", "d"].map(|task| pair("touchy", task));
    let mut all: Vec<_> = fired.clone();
    all.sort();
    assert_eq!(all, [&expected[..], &touchy[..]].concat());
    let failures = |engine: &Engine, name: &str| {
        let found = engine.failures().find(|(rule, _)| rule.name == name);
        found.map(|(_, failures)| failures.clone()).expect("it is there")
    };
    assert_eq!((failures(&engine, "touchy").total, failures(&engine, "touchy").in_a_row), (1, 1));
    assert!(failures(&engine, "touchy").last_error.is_some_and(|why| why.contains("poison")));
    assert_eq!(failures(&engine, "plain").total, 0);
    // The rule works again after an evaluation that works. A series with no row that could be judged is not judged.
    let good: Vec<Cell<'_>> = ["a", "b"].iter().map(|task| cell(41, task, 5, 1)).collect();
    engine.take(Table::Metrics, vec![rows(&good)]).await.expect("takes");
    assert_eq!(failures(&engine, "touchy").in_a_row, 0);
    assert!(matches!(engine.statuses()[0].1, Status::Watching));
    assert_eq!(firing(&engine.evaluate(BEGIN + 42, BEGIN + 42, None)), []);
    // Trying rows again does not disturb the evaluation of others.
    engine.at(HOUR / 60, true);
    engine.retry().await.expect("asks");
    engine.take(Table::Metrics, vec![rows(&[cell(42, "e", 5, 1)])]).await.expect("takes");
    let mut others = firing(&engine.evaluate(BEGIN + 43, BEGIN + 43, None));
    others.sort();
    assert_eq!(others, [pair("plain", "e"), pair("touchy", "e")]);
    // After all attempts the rows are given up, and the others of the series are judged.
    for hour in 1..12 {
        engine.at(hour * HOUR, true);
        engine.retry().await.expect("asks");
    }
    assert_eq!(failures(&engine, "touchy").given_up, 41);
    assert_eq!(firing(&engine.evaluate(BEGIN + 44, BEGIN + 44, None)), [pair("touchy", "b")]);
}

#[tokio::test]
async fn rows_that_waited_while_a_rule_failed_are_judged_as_if_it_had_not() {
    let canary = |from: i64, to: i64| -> Vec<Cell<'static>> {
        (from..to)
            .flat_map(|minute| {
                let bad = if minute < 30 { 0 } else { 2 };
                let of =
                    |release, stage, runs, failures| Cell { release, stage, ..cell(minute, "pay", runs, failures) };
                [of("v1", "full", 10, 1), of("v2", "canary", 4, bad)]
            })
            .collect()
    };
    let heals_at = SystemClock.now_micros() + 2_000_000;
    let sql = format!(
        "SELECT window_start, tenant, task, release_id, stage, runs, \
         CASE WHEN now() < to_timestamp_micros({heals_at}) THEN CAST(task AS BIGINT) ELSE failure END AS events \
         FROM metrics"
    );
    let rules = || vec![rule("heals", "metrics", &sql, "{ kind = \"regression\" }")];
    let mut live = engine(rules());
    live.at(0, true);
    live.take(Table::Metrics, vec![rows(&canary(0, 60))]).await.expect("takes");
    assert!(matches!(live.statuses()[0].1, Status::Broken(_)), "{:?}", live.statuses());
    assert_eq!(live.evaluate(BEGIN + 60, BEGIN + 60, None), [], "incomplete windows are not judged");
    // While the rule pauses, it is not evaluated, and new rows wait with the others.
    live.take(Table::Metrics, vec![rows(&canary(60, 90))]).await.expect("takes");
    live.retry().await.expect("asks nothing");
    assert_eq!(live.failures().next().map(|(_, failures)| failures.total), Some(1));
    let left = heals_at - SystemClock.now_micros();
    std::thread::sleep(Duration::from_micros(u64::try_from(left).unwrap_or(0) + 10_000));
    live.at(HOUR, true);
    live.retry().await.expect("asks");
    live.take(Table::Metrics, vec![rows(&canary(90, 120))]).await.expect("takes");
    let told = live.evaluate(BEGIN + 120, BEGIN + 120, None);
    assert!(matches!(live.statuses()[0].1, Status::Watching), "{:?}", live.statuses());
    let mut whole = engine(rules());
    whole.take(Table::Metrics, vec![rows(&canary(0, 120))]).await.expect("takes");
    assert_eq!(told, whole.evaluate(BEGIN + 120, BEGIN + 120, None));
    assert_eq!(firing(&told), [pair("heals", "pay")]);
}

#[tokio::test]
async fn an_idle_task_in_whole_tables_stops_no_other_and_infinity_is_beyond_every_bound() {
    let value = |sql: &str| format!("SELECT task, {sql} AS value FROM metrics GROUP BY task");
    let above = "{ kind = \"threshold\", above = 10.0, hold = 0 }";
    let below = "{ kind = \"threshold\", below = -10.0, hold = 0 }";
    let mut engine = engine(vec![
        rule("exact", "tables", &value("CAST(sum(failure) AS DECIMAL(20, 0)) * 100 / sum(runs)"), above),
        rule("fails", "tables", &value("sum(nope)"), above),
        rule("infinite", "tables", &value("CAST(sum(failure) AS DOUBLE) / sum(success)"), above),
        rule("minus", "tables", &value("-CAST(sum(failure) AS DOUBLE) / sum(success)"), below),
        rule("whole", "tables", &value("sum(failure) * 100 / sum(runs)"), above),
    ]);
    let session = Session::in_memory(SessionSettings::default()).expect("opens");
    let cells = [cell(0, "busy", 10, 5), cell(0, "down", 3, 3), cell(0, "idle", 0, 0)];
    session.put(Table::Metrics, Table::Metrics.arrow_schema(), vec![rows(&cells)]).expect("are put");
    engine.at(0, true);
    engine.ask_tables(&session, BEGIN).await;
    let told = engine.evaluate(BEGIN, BEGIN, Some(BEGIN));
    let mut all = firing(&told);
    all.sort();
    let both = |rule: &str| [pair(rule, "busy"), pair(rule, "down")];
    let expected = [&both("exact")[..], &[pair("infinite", "down"), pair("minus", "down")], &both("whole")].concat();
    assert_eq!(all, expected);
    let title = told.iter().find(|row| row.rule == "infinite" && row.state == "firing").map(|row| row.title.as_str());
    assert_eq!(title, Some("down: failures 10.0 → ∞"));
    // A failed rule is tried again after a pause, whatever its own interval.
    let total = |engine: &Engine| {
        let fails = engine.failures().find(|(rule, _)| rule.name == "fails");
        fails.map(|(_, failures)| failures.total)
    };
    assert_eq!(total(&engine), Some(1));
    engine.at(1_000_000, true);
    engine.ask_tables(&session, BEGIN).await;
    assert_eq!(total(&engine), Some(1), "it pauses");
    engine.at(HOUR, true);
    engine.ask_tables(&session, BEGIN).await;
    assert_eq!(total(&engine), Some(2));
}

#[test]
fn a_bound_that_no_value_can_exceed_is_refused() {
    let text = "name = \"far\"\ndoc = \"Far.\"\nseverity = \"info\"\nsource = \"tables\"\nvalue = \"v\"\nsql = \"SELECT 1 AS value\"\n\
                detector = { kind = \"threshold\", above = 1e13 }\n";
    let why = Rule::parse(text, "test").expect_err("it is refused").why;
    assert!(why.contains("which no value can exceed"), "{why}");
}

#[tokio::test]
async fn a_rule_is_given_the_columns_that_its_plan_needs_and_a_wrong_name_is_reported() {
    let occurrence = "{ kind = \"occurrence\" }";
    let nested =
        "SELECT window_start, tenant, task, failure AS events, runs /* success */ FROM (SELECT * FROM metrics)";
    let wrong = "SELECT window_start, tenant, task, failur AS events, runs, success FROM metrics";
    let by_time = "SELECT window_start, tenant, task, failure AS events, runs FROM metrics WHERE NOW() > window_start";
    let mut engine = engine(vec![
        rule("nested", "metrics", nested, occurrence),
        rule("wrong", "metrics", wrong, occurrence),
        rule("by_time", "metrics", by_time, occurrence),
    ]);
    let columns = engine.columns(Table::Metrics).await;
    assert_eq!(columns, ["window_start", "tenant", "task", "runs", "failure"]);
    assert!(engine.columns(Table::Events).await.is_empty());
    let whole = rows(&[cell(0, "pay", 5, 1)]);
    let places: Vec<usize> = columns.iter().map(|name| whole.schema().index_of(name).expect(name)).collect();
    engine.take(Table::Metrics, vec![whole.project(&places).expect("columns")]).await.expect("takes");
    let told = firing(&engine.evaluate(BEGIN + 1, BEGIN + 1, None));
    assert_eq!(told, [pair("nested", "pay"), pair("by_time", "pay")]);
    let statuses = engine.statuses();
    let (_, status, _) = statuses.iter().find(|(rule, ..)| rule.name == "wrong").expect("is there");
    assert_eq!(
        **status,
        Status::Broken("there is no column `failur`; hint: did you mean `failure`?".to_owned()),
        "not a column that was merely left out of the rows"
    );
}
