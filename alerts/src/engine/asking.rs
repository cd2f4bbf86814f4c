//! Runs the queries of rules, and divides the rows if a query fails.
//!
//! Queries are sums over rows, so that rows may be evaluated in any parts. If a query fails on some rows, these are found by
//! halving: first by series, then row by row. All others are judged at once.

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::DataType;
use bellwether_base::{Error, Result};
use bellwether_queries::{Session, timed_out};
use bellwether_tables::Table;

use std::collections::BTreeMap;

use super::Status;
use super::active_rule::ActiveRule;
use super::attempts::Apart;
use crate::contract::Contracts;
use crate::observe::{Observation, SEPARATOR, check_columns, folded, observations};
use crate::rule::Rule;
use bellwether_detect::Minute;

/// Most queries to find the series that fail, and the rows that fail in each.
const QUERIES: usize = 256;
const QUERIES_A_SERIES: usize = 32;

/// Why a query failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: String,
    /// It may succeed on some of the rows.
    parts: bool,
}

type QueryResult<T> = std::result::Result<T, Failed>;

/// The sessions and the time of an evaluation.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    /// For all rules, with plans that stay. Its tables hold only the rows that all rules are evaluated on.
    pub(super) session: &'a Session,
    /// For rows that one rule alone is evaluated on.
    pub(super) apart: &'a Session,
    pub(super) contracts: &'a Contracts,
    pub(super) now: i64,
    /// False while history is replayed: there is no time to wait.
    pub(super) live: bool,
}

/// Rows of one series, if the columns tell.
struct Unit {
    series: Option<String>,
    rows: RecordBatch,
}

// === impl Failed ===

impl Failed {
    fn whole(why: String) -> Self {
        Self { why, parts: false }
    }

    /// A statement that exceeds the time limit would exceed it on many of its parts.
    fn running(error: Error) -> Self {
        let parts = !timed_out(&error);
        Self { why: error_text(error), parts }
    }
}

// === impl Asking ===

impl Asking<'_> {
    /// Evaluates a rule on rows that are in its table already.
    pub(super) async fn take(self, watched: &mut ActiveRule, table: Table, rows: &[RecordBatch]) -> Result<()> {
        if self.live && watched.attempts.pauses(self.now) {
            watched.attempts.wait(rows.to_vec());
            return Ok(());
        }
        match ask_again(self.session, watched).await {
            Ok(found) => {
                watched.add(found, self.contracts);
                watched.worked();
                Ok(())
            }
            Err(failed) => {
                Box::pin(self.take_parts(watched, table, rows, failed)).await?;
                self.apart.put(table, table.arrow_schema(), Vec::new())
            }
        }
    }

    /// Tries the rows that wait.
    pub(super) async fn retry(self, watched: &mut ActiveRule, table: Table) -> Result<()> {
        let mut waiting = watched.attempts.take_waiting(self.now).into_iter();
        for rows in waiting.by_ref() {
            match self.ask_about(watched, table, rows.clone()).await? {
                Ok(()) => watched.worked(),
                Err(failed) => {
                    Box::pin(self.take_parts(watched, table, &rows, failed)).await?;
                    if watched.attempts.pauses(self.now) {
                        break;
                    }
                }
            }
        }
        waiting.for_each(|rows| watched.attempts.wait(rows));
        for apart in watched.attempts.take_apart(self.now) {
            match self.ask_about(watched, table, vec![apart.rows.clone()]).await? {
                Ok(()) => {}
                Err(_) => {
                    let again = apart.again(&watched.rule.name, self.now);
                    watched.attempts.put_apart(again);
                }
            }
        }
        self.apart.put(table, table.arrow_schema(), Vec::new())
    }

    /// Judges those rows that a query can evaluate, after it failed on all of them.
    async fn take_parts(
        self,
        watched: &mut ActiveRule,
        table: Table,
        rows: &[RecordBatch],
        failed: Failed,
    ) -> Result<()> {
        let Failed { why, parts } = failed;
        // In a replay, a rule that failed on all rows is not tried on parts a second time.
        let parts = parts && (self.live || watched.attempts.failures.in_a_row == 0 || watched.attempts.failures.worked);
        let mut left: Vec<RecordBatch> = rows.to_vec();
        let mut some = false;
        if parts {
            (left, some) = self.halve(watched, table, units_of(&watched.rule, rows)?).await?;
        }
        if left.is_empty() && some {
            watched.attempts.failures.worked = true;
            watched.failed(why, self.now, false);
            return Ok(());
        }
        watched.failed(why, self.now, self.live);
        if self.live {
            watched.attempts.wait(left);
        } else {
            watched.attempts.fall_behind();
        }
        Ok(())
    }

    /// Finds the series on whose rows a query fails. Returns the rows that are still untried when no queries are left, and whether
    /// any rows were judged.
    async fn halve(self, watched: &mut ActiveRule, table: Table, units: Vec<Unit>) -> Result<(Vec<RecordBatch>, bool)> {
        // Series that failed before will probably fail again: the others are judged with one query.
        let known = |unit: &Unit| unit.series.as_ref().is_some_and(|series| watched.attempts.bad.contains_key(series));
        let (suspects, others): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(known);
        let (mut stack, mut bad) = (vec![others], Vec::new());
        let mut queries = QUERIES;
        let mut some = false;
        for unit in suspects {
            stack.push(vec![unit]);
        }
        while let Some(mut part) = stack.pop() {
            if part.is_empty() {
                continue;
            }
            if queries == 0 {
                stack.push(part);
                break;
            }
            queries -= 1;
            let rows = part.iter().map(|unit| unit.rows.clone()).collect();
            match self.ask_about(watched, table, rows).await? {
                Ok(()) => some = true,
                Err(_) if part.len() == 1 => bad.append(&mut part),
                Err(_) => {
                    let half = part.split_off(part.len() / 2);
                    stack.extend([part, half]);
                }
            }
        }
        let left: Vec<RecordBatch> = stack.into_iter().flatten().map(|unit| unit.rows).collect();
        for unit in bad {
            some |= self.halve_rows(watched, table, unit).await?;
        }
        Ok((left, some))
    }

    /// Finds the rows of a series on which a query fails, and sets them apart. Returns true if others were judged.
    async fn halve_rows(self, watched: &mut ActiveRule, table: Table, unit: Unit) -> Result<bool> {
        let name = unit.series.clone().unwrap_or_default();
        let hopeless = watched.attempts.bad.get(&name).copied().unwrap_or(false);
        let mut queries = if hopeless { 0 } else { QUERIES_A_SERIES };
        let (mut stack, mut bad, mut some) = (vec![unit.rows], Vec::new(), false);
        while let Some(rows) = stack.pop() {
            let count = rows.num_rows();
            if count == 1 || queries < 2 {
                bad.push(rows);
                continue;
            }
            for part in [rows.slice(0, count / 2), rows.slice(count / 2, count - count / 2)] {
                queries -= 1;
                match self.ask_about(watched, table, vec![part.clone()]).await? {
                    Ok(()) => some = true,
                    Err(_) => stack.push(part),
                }
            }
        }
        watched.attempts.bad.insert(name, !some);
        // A series with no row that could be judged must wait: without its rows it would look silent.
        let series = if some { None } else { unit.series };
        for rows in bad {
            let apart = Apart::new(&watched.rule.name, rows, series.clone(), self.now);
            watched.attempts.put_apart(apart);
        }
        Ok(some)
    }

    async fn ask_about(
        self,
        watched: &mut ActiveRule,
        table: Table,
        rows: Vec<RecordBatch>,
    ) -> Result<QueryResult<()>> {
        if rows.is_empty() {
            return Ok(Ok(()));
        }
        self.apart.put(table, table.arrow_schema(), rows)?;
        Ok(Box::pin(ask(self.apart, &watched.rule, 0)).await.map(|found| watched.add(found, self.contracts)))
    }
}

/// Divides rows by series if the table has the columns of the series; otherwise returns them together.
fn units_of(rule: &Rule, rows: &[RecordBatch]) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for batch in rows {
        let columns: Option<Vec<&ArrayRef>> = rule.series.iter().map(|name| batch.column_by_name(name)).collect();
        let Some(columns) = columns.filter(|columns| !columns.is_empty()) else {
            units.push(Unit { series: None, rows: batch.clone() });
            continue;
        };
        let texts = columns
            .into_iter()
            .map(|column| cast(column, &DataType::Utf8))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let mut places: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (row, place) in (0..batch.num_rows()).zip(0_u32..) {
            let values: Vec<&str> = texts.iter().map(|text| text.as_string::<i32>().value(row)).collect();
            places.entry(values.join(&SEPARATOR.to_string())).or_default().push(place);
        }
        for (series, places) in places {
            units.push(Unit { series: Some(series), rows: take_record_batch(batch, &UInt32Array::from(places))? });
        }
    }
    Ok(units)
}

/// Returns an error as text for the state of a rule.
fn error_text(error: Error) -> String {
    match error.hint() {
        Some(hint) => format!("{}; hint: {hint}", error.message()),
        None => error.message().to_owned(),
    }
}

/// Evaluates a rule on new rows. Its query is planned once: rows come every few seconds, and planning costs more than running
/// most queries.
async fn ask_again(session: &Session, watched: &mut ActiveRule) -> QueryResult<Vec<Observation>> {
    let rule = &watched.rule;
    if watched.planned.is_none() {
        let planned = session.plan_once(&rule.sql).await.map_err(|error| Failed::whole(error_text(error)))?;
        if let Some(planned) = &planned {
            check_columns(rule, &planned.schema()).map_err(Failed::whole)?;
        }
        watched.planned = planned;
    }
    // A query that depends on the time is planned each time.
    let Some(planned) = &watched.planned else { return ask(session, rule, 0).await };
    let answer = session.run(planned).await.map_err(Failed::running)?;
    read(rule, &answer, 0).map_err(|why| Failed { why, parts: true })
}

/// Runs the query of a rule, and returns its observations.
pub(super) async fn ask(session: &Session, rule: &Rule, now: Minute) -> QueryResult<Vec<Observation>> {
    let answer = session.execute(&rule.sql).await.map_err(|error| Failed::whole(error_text(error)))?;
    check_columns(rule, &answer.schema).map_err(Failed::whole)?;
    let answer = answer.collect().await.map_err(Failed::running)?;
    read(rule, &answer, now).map_err(|why| Failed { why, parts: true })
}

/// Returns the observations in the result of a rule's query.
fn read(rule: &Rule, answer: &[RecordBatch], now: Minute) -> std::result::Result<Vec<Observation>, String> {
    let mut found = Vec::new();
    for batch in answer {
        found.extend(observations(rule, batch, now)?);
    }
    Ok(folded(found))
}

/// Runs a rule's query, and returns an observation for each row of its result.
///
/// # Errors
/// Describes why the query failed.
pub(crate) async fn ask_rows(session: &Session, rule: &Rule) -> std::result::Result<Vec<Observation>, String> {
    let answer = session.execute(&rule.sql).await.map_err(error_text)?;
    check_columns(rule, &answer.schema)?;
    let mut found = Vec::new();
    for batch in answer.collect().await.map_err(error_text)? {
        found.append(&mut observations(rule, &batch, 0)?);
    }
    Ok(found)
}

/// Runs a rule's query once, for `rules check`. Returns the number of observations.
///
/// # Errors
/// Describes why the query failed.
pub async fn try_rule(session: &Session, rule: &Rule) -> std::result::Result<usize, String> {
    ask(session, rule, 0).await.map(|found| found.len()).map_err(|failed| failed.why)
}

// === impl ActiveRule ===

impl ActiveRule {
    /// Notes that an evaluation worked.
    pub(super) fn worked(&mut self) {
        self.attempts.succeeded();
        if matches!(self.status, Status::Broken(_)) {
            self.status = if self.families.is_empty() { Status::Waiting } else { Status::Watching };
        }
    }

    /// Notes that an evaluation failed.
    pub(super) fn failed(&mut self, why: String, now: i64, pausing: bool) {
        self.status = Status::Broken(why.clone());
        // The tables that the plan reads may be replaced before the next attempt.
        self.planned = None;
        self.attempts.failed(&self.rule.name, why, now, pausing);
    }
}
