//! The metrics of each task in both weeks and on each day, and the differences between the weeks.

use std::collections::BTreeMap;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use serde_json::{Map, Value};

use crate::change::{Difference, Figure, MEASURES, Measure};
use crate::gathered::{Scope, moment};

/// A tenant and a task.
pub(crate) type TaskKey = (String, String);

/// The metrics of a task over some time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Metrics(Map<String, Value>);

/// A day of a task, for charts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Day {
    pub(crate) success: Option<Figure>,
    pub(crate) cost: Option<Figure>,
}

/// A task in a week.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TaskWeek {
    pub(crate) key: TaskKey,
    /// None if the task had no runs.
    pub(crate) now: Option<Metrics>,
    pub(crate) before: Option<Metrics>,
    /// The days of the week before and of the week.
    pub(crate) days: Vec<Day>,
}

/// A clear change of a task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) key: TaskKey,
    pub(crate) measure: &'static Measure,
    pub(crate) before: f64,
    pub(crate) now: f64,
    pub(crate) difference: Difference,
    pub(crate) currency: String,
}

/// The clear changes between two weeks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) worse: Vec<Change>,
    pub(crate) better: Vec<Change>,
    /// How many figures were compared.
    pub(crate) comparisons: usize,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn figure(&self, measure: &Measure) -> Option<Figure> {
        Figure::of(&self.0, measure.column)
    }

    pub(crate) fn number(&self, column: &str) -> Option<f64> {
        self.0.get(column).and_then(Value::as_f64)
    }

    pub(crate) fn runs(&self) -> f64 {
        self.number("runs").unwrap_or_default()
    }

    pub(crate) fn currency(&self) -> &str {
        self.0.get("cost_currency").and_then(Value::as_str).unwrap_or_default()
    }
}

// === impl TaskWeek ===

impl TaskWeek {
    pub(crate) fn runs(&self) -> f64 {
        self.now.as_ref().map_or(0.0, Metrics::runs)
    }

    /// Returns the figures of both weeks that can be compared, by measure. Costs in different currencies cannot.
    fn pairs(&self) -> impl Iterator<Item = (&'static Measure, Figure, Figure)> {
        let both = self.now.as_ref().zip(self.before.as_ref());
        both.into_iter().flat_map(|(now, before)| {
            MEASURES.iter().filter_map(|measure| {
                let comparable = measure.column != "cost_per_completed_task" || now.currency() == before.currency();
                comparable.then_some(())?;
                Some((measure, now.figure(measure)?, before.figure(measure)?))
            })
        })
    }
}

/// Reads the tasks of a week, most runs first.
pub(crate) async fn read(session: &Session, week: Week, scope: &Scope) -> Result<Vec<TaskWeek>> {
    let mut now = between(session, (week.start(), week.end()), scope).await?;
    let mut before = between(session, (week.before().start(), week.before().end()), scope).await?;
    let keys: std::collections::BTreeSet<TaskKey> = now.keys().chain(before.keys()).cloned().collect();
    let mut days: BTreeMap<TaskKey, Vec<Day>> = BTreeMap::new();
    for (place, day) in (-Week::DAYS..Week::DAYS).enumerate() {
        for (key, metrics) in between(session, week.day(day), scope).await? {
            let all =
                days.entry(key).or_insert_with(|| vec![Day::default(); 2 * usize::try_from(Week::DAYS).unwrap_or(7)]);
            all[place] = Day {
                success: Figure::of(&metrics.0, "success_rate"),
                cost: Figure::of(&metrics.0, "cost_per_completed_task"),
            };
        }
    }
    let mut tasks: Vec<TaskWeek> = keys
        .into_iter()
        .map(|key| TaskWeek {
            now: now.remove(&key),
            before: before.remove(&key),
            days: days.remove(&key).unwrap_or_default(),
            key,
        })
        .collect();
    tasks.sort_by(|one, other| other.runs().total_cmp(&one.runs()).then_with(|| one.key.cmp(&other.key)));
    Ok(tasks)
}

/// Returns whether any task ran between two moments.
pub(crate) async fn any_run(session: &Session, (from, to): (i64, i64), scope: &Scope) -> Result<bool> {
    Ok(!between(session, (from, to), scope).await?.is_empty())
}

async fn between(session: &Session, (from, to): (i64, i64), scope: &Scope) -> Result<BTreeMap<TaskKey, Metrics>> {
    let sql = format!(
        "SELECT * FROM tasks_between({}, {}) WHERE {} AND runs > 0",
        moment(from),
        moment(to),
        scope.condition()
    );
    let text =
        |row: &Map<String, Value>, name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows: Vec<Map<String, Value>> = session.rows(&sql).await?;
    Ok(rows.into_iter().map(|row| ((text(&row, "tenant"), text(&row, "task")), Metrics(row))).collect())
}

/// Finds the clear changes: the most important measures first, and of one measure the tasks with most runs.
pub(crate) fn changes(tasks: &[TaskWeek]) -> Changes {
    let comparisons = tasks.iter().map(|task| task.pairs().count()).sum();
    let mut changes = Changes { comparisons, ..Changes::default() };
    for measure in &MEASURES {
        for task in tasks {
            let Some((_, now, before)) = task.pairs().find(|(of, ..)| *of == measure) else { continue };
            let difference = now.since(before, comparisons);
            if !difference.is_clear() {
                continue;
            }
            let change = Change {
                key: task.key.clone(),
                measure,
                before: before.value,
                now: now.value,
                difference,
                currency: task.now.as_ref().map(|now| now.currency().to_owned()).unwrap_or_default(),
            };
            if difference.is_better(measure) { &mut changes.better } else { &mut changes.worse }.push(change);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metrics(value: Value) -> Option<Metrics> {
        match value {
            Value::Object(row) => Some(Metrics(row)),
            _ => None,
        }
    }

    fn task(name: &str, before: Value, now: Value) -> TaskWeek {
        TaskWeek { key: (String::new(), name.to_owned()), now: metrics(now), before: metrics(before), days: Vec::new() }
    }

    #[test]
    fn clear_changes_are_listed_by_direction_and_importance() {
        let rate = |value: f64| {
            json!({"success_rate": value, "success_rate_low": value - 0.01, "success_rate_high": value + 0.01,
            "escalation_rate": 1.0 - value, "escalation_rate_low": 0.99 - value, "escalation_rate_high": 1.01 - value, "runs": 100})
        };
        let tasks = [
            task("worse", rate(0.9), rate(0.7)),
            task("same", rate(0.8), rate(0.805)),
            task("better", rate(0.5), rate(0.6)),
            task("new", Value::Null, rate(0.1)),
        ];
        let found = changes(&tasks);
        assert_eq!(found.comparisons, 6);
        let names = |changes: &[Change]| -> Vec<String> {
            changes.iter().map(|change| format!("{} {}", change.key.1, change.measure.name)).collect()
        };
        assert_eq!(names(&found.worse), ["worse task success", "worse escalation rate"]);
        assert_eq!(names(&found.better), ["better task success", "better escalation rate"]);
    }

    #[test]
    fn costs_in_different_currencies_are_not_compared() {
        let cost = |value: f64, currency: &str| {
            json!({"cost_per_completed_task": value, "cost_per_completed_task_low": value,
            "cost_per_completed_task_high": value, "cost_currency": currency})
        };
        assert_eq!(changes(&[task("t", cost(1.0, "EUR"), cost(2.0, "USD"))]).comparisons, 0);
        assert_eq!(changes(&[task("t", cost(1.0, "EUR"), cost(2.0, "EUR"))]).worse.len(), 1);
    }
}
