//! Results of evaluation tools as `run.completed` events of stage `offline_eval`.
//!
//! Each result becomes one run. The id of its case is the segment `case_id`, by which the gate pairs the runs of two
//! releases. The ids of runs derive from the file, so that importing it twice adds nothing.

mod inspect;
mod promptfoo;

use bellwether_base::{Error, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

/// Tools that write results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultFormat {
    /// The JSON of `promptfoo eval -o FILE.json`.
    Promptfoo,
    /// A log of Inspect AI in JSON.
    Inspect,
}

/// Facts that the events state besides the results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Source of the events.
    pub source: String,
    /// Id of the release that was evaluated.
    pub release: String,
    /// Task of the runs; without one, each result needs it in its metadata.
    pub task: Option<String>,
}

/// One result, whichever tool wrote it.
struct Outcome {
    run_id: String,
    case_id: String,
    case_version: Option<u64>,
    task: Option<String>,
    model: Option<String>,
    started: DateTime<Utc>,
    ended: DateTime<Utc>,
    latency_ms: f64,
    status: Status,
    tokens: Option<(u64, u64)>,
    /// Name and value of each score.
    scores: Vec<(String, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Status {
    Success,
    Failure,
    Error,
}

/// Reads a file of results.
///
/// # Errors
/// `Config` if the file is not of the format, or a result names no case or task.
pub fn import(text: &str, format: ResultFormat, of: &Imported) -> Result<Vec<Value>> {
    let file: Value = serde_json::from_str(text).map_err(|source| {
        let hint = match format {
            ResultFormat::Promptfoo => "write it with `promptfoo eval -o results.json`",
            ResultFormat::Inspect => "convert an `.eval` file with `inspect log convert --to json`",
        };
        Error::config("the results are not JSON").with_hint(hint).with_source(source)
    })?;
    let outcomes = match format {
        ResultFormat::Promptfoo => promptfoo::outcomes(&file)?,
        ResultFormat::Inspect => inspect::outcomes(&file)?,
    };
    outcomes.into_iter().map(|outcome| event(outcome, of)).collect()
}

fn event(outcome: Outcome, of: &Imported) -> Result<Value> {
    let Some(task) = of.task.clone().or(outcome.task) else {
        return Err(Error::config(format!("the result of case `{}` names no task", outcome.case_id))
            .with_hint("add --task TASK"));
    };
    let status = match outcome.status {
        Status::Success => "success",
        Status::Failure => "failure",
        Status::Error => "error",
    };
    let mut release = json!({ "id": of.release });
    if let Some(model) = outcome.model {
        release["model"] = json!({ "requested": model });
    }
    let mut segments = json!({ "case_id": outcome.case_id });
    if let Some(version) = outcome.case_version {
        segments["case_version"] = Value::from(version.to_string());
    }
    let mut data = json!({
        "task": task, "release": release, "rollout": { "stage": "offline_eval" },
        "started_at": text_of(outcome.started), "ended_at": text_of(outcome.ended),
        "outcome": { "status": status }, "latency": { "total_ms": outcome.latency_ms }, "segments": segments,
    });
    if let Some((input, output)) = outcome.tokens {
        data["tokens"] = json!({ "input": input, "output": output });
    }
    let score = |(name, value): &(String, f64)| json!({ "name": name, "value": value, "kind": "code", "evaluator": { "id": of.source } });
    if !outcome.scores.is_empty() {
        data["scores"] = outcome.scores.iter().map(score).collect();
    }
    Ok(json!({
        "spec": "run-event/1", "type": "run.completed", "id": format!("{}:completed", outcome.run_id),
        "source": of.source, "time": text_of(outcome.ended), "run_id": outcome.run_id, "data": data,
    }))
}

fn text_of(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Returns the time at a place of a file.
fn time(value: &Value, name: &str) -> Result<DateTime<Utc>> {
    value.as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map(|time| time.to_utc()).ok_or_else(|| {
        Error::config(format!("the results have no time `{name}`")).with_hint("use the file that the tool wrote")
    })
}

/// Makes the error of a result without the id of its case.
fn unnamed(number: usize) -> Error {
    Error::config(format!("result {number} names no case"))
        .with_hint("evaluate an exported set: it has `case_id` in the metadata of each case")
}
