//! Unit tests of rules: a file of rows, and the states that they must lead to. Files end in `.test.toml`.
//!
//! ```toml
//! rule = "success_regression"
//!
//! [[test]]
//! name = "a bad canary pages within two hours"
//! rows = [
//!     { from = "0m", to = "3h", task = "refunds", release_id = "v1", stage = "full", success = [18, 19], failure = [2, 1] },
//!     { from = "1h", to = "3h", task = "refunds", release_id = "v2", stage = "canary", success = 5, failure = 5 },
//! ]
//! expect = [{ task = "refunds", release_id = "v2", state = "firing", after = "1h", before = "2h" }]
//! ```
//!
//! A row represents one row of the rule's table in every minute from `from` to `to`, or in one of every few with `every`. A
//! list of numbers repeats, and `{n}` in a text is the number of the row, from 0. Columns without a value are 0 or empty; `runs` is the
//! sum of the outcomes.
//!
//! For a rule with source `tables`, each row names its `table`. The rule is evaluated as often as live: a row exists from its
//! minute on, and `now()` is the minute of the evaluation.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_detect::Minute;
use bellwether_queries::{Present, Session, SessionSettings};
use bellwether_tables::ColumnType;
use bellwether_tables::Table;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::contract::Contracts;
use crate::engine::{BudgetSettings, Engine};
use crate::read::{Schedule, ask_over_time};
use crate::record::{AlertRow, ChangeKind};
use crate::rule::{Rule, Rules, Source};

/// First minute of a test: Monday, 2026-01-05 00:00 UTC.
const BEGIN: Minute = 29_459_520;

/// Length of the longest test, minutes: a quarter.
const MOST: i64 = 92 * 1440;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    rule: String,
    #[serde(default)]
    contracts: Contracts,
    test: Vec<RuleTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTest {
    name: String,
    rows: Vec<BTreeMap<String, toml::Value>>,
    #[serde(default)]
    expect: Vec<Expect>,
}

#[derive(Deserialize)]
struct Expect {
    state: String,
    #[serde(default)]
    never: bool,
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    before: Option<String>,
    #[serde(flatten)]
    labels: BTreeMap<String, String>,
}

/// The outcome of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Name of the test.
    pub name: String,
    /// Expectations that failed.
    pub failures: Vec<String>,
}

/// Runs the tests of a file.
///
/// # Errors
/// `Config` if the file or its rule is wrong.
pub async fn run(path: &Path, rules: &Rules) -> Result<Vec<Outcome>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::config(format!("`{name}` cannot be read")).with_source(source))?;
    let wrong = |why: String| {
        Error::config(format!("`{name}` is not a valid rule test: {why}"))
            .with_hint("see the example in docs/alerts.md")
    };
    let file: TestFile = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    if let Some(broken) = rules.broken.iter().find(|broken| broken.name == file.rule) {
        return Err(wrong(format!("its rule `{}` cannot be used: {}", file.rule, broken.why)));
    }
    let Some(rule) = rules.rules.iter().find(|rule| rule.name == file.rule) else {
        return Err(wrong(format!("no rule is named `{}`", file.rule)));
    };
    let only = Rules { rules: vec![rule.clone()], ..Rules::default() };
    let mut outcomes = Vec::new();
    for test in &file.test {
        let mut engine = Engine::new(&only, &file.contracts, &BudgetSettings { pages: 0.1, tickets: 0.1, infos: 0.1 })?;
        let found =
            transitions(&mut engine, rule, test).await.map_err(|why| wrong(format!("test `{}`: {why}", test.name)))?;
        if let Some(why) = engine.failures().find_map(|(_, failures)| failures.last_error.clone()) {
            return Err(wrong(format!("rule `{}` fails: {why}", file.rule)));
        }
        let mut failures = Vec::new();
        for expect in &test.expect {
            failures.extend(expect.compare(&found).map_err(&wrong)?);
        }
        outcomes.push(Outcome { name: test.name.clone(), failures });
    }
    Ok(outcomes)
}

/// Rows of a test by day and table, and its last minute.
struct TestRows {
    days: BTreeMap<i64, BTreeMap<Table, Vec<Map<String, Value>>>>,
    end: i64,
}

/// Returns all transitions of a test.
async fn transitions(engine: &mut Engine, rule: &Rule, test: &RuleTest) -> std::result::Result<Vec<AlertRow>, String> {
    let made = test_rows(rule, test)?;
    match rule.source {
        Source::Tables => over_tables(engine, rule, made).await,
        Source::Metrics | Source::Events => over_rows(engine, made).await,
    }
}

fn test_rows(rule: &Rule, test: &RuleTest) -> std::result::Result<TestRows, String> {
    let mut made = TestRows { days: BTreeMap::new(), end: 0 };
    for row in &test.rows {
        let table = table_of(rule, row)?;
        let (from, to) = (minutes_of(row, "from")?.unwrap_or(0), minutes_of(row, "to")?.ok_or("a row lacks `to`")?);
        let every = minutes_of(row, "every")?.unwrap_or(1).max(1);
        if to <= from || to > MOST {
            return Err(format!(
                "a row lasts from {from} to {to} minutes; it must end after it begins, within 92 days"
            ));
        }
        made.end = made.end.max(to);
        for (index, minute) in (from..to).step_by(usize::try_from(every).unwrap_or(1)).enumerate() {
            let of_day = made.days.entry(minute / 1440).or_default();
            of_day.entry(table).or_default().push(self::made(table, row, BEGIN + minute, index)?);
        }
    }
    Ok(made)
}

/// Returns the table of a row.
fn table_of(rule: &Rule, row: &BTreeMap<String, toml::Value>) -> std::result::Result<Table, String> {
    let named = match row.get("table") {
        None => None,
        Some(name) => Some(
            Table::ALL
                .into_iter()
                .find(|table| name.as_str() == Some(table.name()))
                .ok_or_else(|| format!("`table` is {name}, which is not a table"))?,
        ),
    };
    match (rule.source.table(), named) {
        (None, None) => Err(format!("rule `{}` reads whole tables: each row must name its `table`", rule.name)),
        (None, Some(table)) | (Some(table), None) => Ok(table),
        (Some(table), Some(named)) if table == named => Ok(table),
        (Some(table), Some(named)) => {
            Err(format!("rule `{}` reads `{}`, but a row has table `{}`", rule.name, table.name(), named.name()))
        }
    }
}

async fn over_rows(engine: &mut Engine, made: TestRows) -> std::result::Result<Vec<AlertRow>, String> {
    let mut rows = Vec::new();
    for (day, tables) in made.days {
        rows.extend(engine.evaluate(BEGIN + day * 1440, BEGIN + day * 1440, None));
        for (table, made) in tables {
            engine.take(table, vec![batch(table, &made)?]).await.map_err(|error| error.chain())?;
        }
        let to = BEGIN + ((day + 1) * 1440).min(made.end);
        rows.extend(engine.evaluate(to, to, None));
    }
    Ok(rows)
}

async fn over_tables(engine: &mut Engine, rule: &Rule, made: TestRows) -> std::result::Result<Vec<AlertRow>, String> {
    let schedule = Schedule { from: BEGIN, to: BEGIN + made.end, every: rule.every };
    let present = Present::default();
    let settings = SessionSettings { threads: Some(1), present: Some(present.clone()), ..SessionSettings::default() };
    let session = Session::in_memory(settings).map_err(|error| error.chain())?;
    let mut whole: BTreeMap<Table, Vec<RecordBatch>> = BTreeMap::new();
    for (table, made) in made.days.into_values().flatten() {
        whole.entry(table).or_default().push(batch(table, &made)?);
    }
    for (table, batches) in whole {
        session.put(table, table.arrow_schema(), batches).map_err(|error| error.chain())?;
    }
    Ok(ask_over_time(engine, &session, &present, schedule).await)
}

fn minutes_of(row: &BTreeMap<String, toml::Value>, key: &str) -> std::result::Result<Option<i64>, String> {
    match row.get(key) {
        None => Ok(None),
        Some(toml::Value::String(text)) => duration(text).map(Some),
        Some(other) => {
            Err(format!("`{key}` is `{other}`; it must be a time since the start of the test, such as \"90m\""))
        }
    }
}

fn duration(text: &str) -> std::result::Result<i64, String> {
    if text.trim_start_matches('0').trim_matches(['m', 's', 'h']).is_empty() {
        return Ok(0);
    }
    let parsed = humantime::parse_duration(text).map_err(|error| format!("`{text}` is not a duration: {error}"))?;
    Ok(i64::try_from(parsed.as_secs() / 60).unwrap_or(i64::MAX))
}

/// Returns one row of the table.
fn made(
    table: Table,
    row: &BTreeMap<String, toml::Value>,
    minute: Minute,
    index: usize,
) -> std::result::Result<Map<String, Value>, String> {
    let micros = minute * 60_000_000;
    let mut made: Map<String, Value> = table
        .columns()
        .iter()
        .filter(|column| column.required)
        .map(|column| (column.name.to_owned(), default_value(column.name, column.kind)))
        .collect();
    for name in [
        "window_start",
        "event_time",
        "ended_at",
        "started_at",
        "ingested_at",
        "first_seen",
        "written_at",
        "quarantined_at",
        "evaluated_at",
    ] {
        if table.columns().iter().any(|column| column.name == name) {
            made.insert(name.to_owned(), json!(micros));
        }
    }
    if table == Table::Events {
        made.insert("event_date".to_owned(), json!(minute.div_euclid(1440)));
        made.insert("event_type".to_owned(), json!("run.completed"));
        made.insert("run_id".to_owned(), json!(format!("run-{minute}-{index}-{}", row.len())));
        made.insert("stage".to_owned(), json!("full"));
    }
    for (key, value) in row.iter().filter(|(key, _)| !["from", "to", "every", "table"].contains(&key.as_str())) {
        if !table.columns().iter().any(|column| column.name == *key) {
            return Err(format!("`{}` has no column `{key}`", table.name()));
        }
        let value = match value {
            toml::Value::Array(list)
                if list.iter().all(|item| item.is_integer() || item.is_float() || item.is_str())
                    && !list.is_empty() =>
            {
                &list[index % list.len()]
            }
            value => value,
        };
        let value = match value {
            toml::Value::String(text) => json!(text.replace("{n}", &index.to_string())),
            other => serde_json::to_value(other).map_err(|error| error.to_string())?,
        };
        made.insert(key.clone(), value);
    }
    if table == Table::Metrics && !row.contains_key("runs") {
        let outcomes = ["success", "failure", "error", "timeout", "abandoned", "unknown"];
        let runs: i64 = outcomes.iter().filter_map(|name| made.get(*name)?.as_i64()).sum();
        made.insert("runs".to_owned(), json!(runs));
    }
    Ok(made)
}

/// Returns the value of a required column that a row leaves out.
fn default_value(name: &str, kind: ColumnType) -> Value {
    match (name, kind) {
        ("stage", _) => json!("full"),
        ("weight_micros", _) => json!(1_000_000),
        (_, ColumnType::Text | ColumnType::Binary) => json!(""),
        (_, ColumnType::Boolean) => json!(false),
        (_, ColumnType::LongList) => json!(vec![0; 32]),
        (_, ColumnType::List(_)) => json!([]),
        (_, ColumnType::TextMap) => json!({}),
        (_, ColumnType::BigInteger) => json!("0"),
        (_, ColumnType::Integer | ColumnType::Long | ColumnType::Double | ColumnType::Timestamp | ColumnType::Date) => {
            json!(0)
        }
    }
}

fn batch(table: Table, rows: &[Map<String, Value>]) -> std::result::Result<RecordBatch, String> {
    let schema = table.arrow_schema();
    let text = |error: arrow::error::ArrowError| error.to_string();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone())
        .with_batch_size(rows.len().max(1))
        .build_decoder()
        .map_err(text)?;
    decoder.serialize(rows).map_err(text)?;
    Ok(decoder.flush().map_err(text)?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

// === impl Expect ===

impl Expect {
    fn compare(&self, rows: &[AlertRow]) -> std::result::Result<Option<String>, String> {
        if bellwether_detect::AlertState::from_name(&self.state).is_none() {
            return Err(format!("state is `{}`; it must be inactive, pending, firing or resolved", self.state));
        }
        let time = |text: &Option<String>| text.as_deref().map(duration).transpose();
        let (after, before) = (time(&self.after)?.unwrap_or(0), time(&self.before)?.unwrap_or(MOST));
        let matches = |row: &&AlertRow| {
            !matches!(row.change, ChangeKind::Retracted | ChangeKind::Restated)
                && row.state == self.state
                && self.labels.iter().all(|(name, value)| row.labels.get(name).is_some_and(|found| found == value))
        };
        let minute = |row: &AlertRow| row.at / 60_000_000 - BEGIN;
        let found: Vec<i64> =
            rows.iter().filter(matches).map(minute).filter(|at| (after..=before).contains(at)).collect();
        let who = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
        let span = format!("from {after} to {before} min");
        Ok(match (self.never, found.first()) {
            (false, None) => {
                let others: Vec<String> =
                    rows.iter().map(|row| format!("{} at {} min", row.state, minute(row))).collect();
                let others = if others.is_empty() {
                    "there were no transitions".to_owned()
                } else {
                    format!("transitions: {}", others.join(", "))
                };
                Some(format!("{who} is not {} {span}; {others}", self.state))
            }
            (true, Some(at)) => Some(format!("{who} is {} at {at} min, but must never be {span}", self.state)),
            _ => None,
        })
    }
}
