//! Inspect AI: a log in JSON. A sample succeeds if each of its scores is `C` (correct), true or at least 1.

use bellwether_base::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Outcome, Status, time, unnamed};
use crate::case::hex;

pub(super) fn outcomes(file: &Value) -> Result<Vec<Outcome>> {
    let (Some(samples), Some(run)) = (file["samples"].as_array(), file["eval"]["run_id"].as_str()) else {
        return Err(Error::config("the log has no `samples` or no `eval.run_id`")
            .with_hint("write it with `--log-format json`, with samples"));
    };
    let model = file["eval"]["model"].as_str();
    let mut found = Vec::with_capacity(samples.len());
    for (number, sample) in samples.iter().enumerate() {
        let Some(case_id) = sample["metadata"]["case_id"].as_str() else { return Err(unnamed(number + 1)) };
        let scores = scores(sample)?;
        let (mut input, mut output) = (0, 0);
        for usage in sample["model_usage"].as_object().into_iter().flat_map(|models| models.values()) {
            input += usage["input_tokens"].as_u64().unwrap_or(0);
            output += usage["output_tokens"].as_u64().unwrap_or(0);
        }
        let status = if !sample["error"].is_null() {
            Status::Error
        } else if scores.is_empty() {
            return Err(Error::config(format!("the sample of case `{case_id}` has no score"))
                .with_hint("wait for the evaluation to end, or score the log with `inspect score`"));
        } else if scores.iter().all(|(_, value)| *value >= 1.0) {
            Status::Success
        } else {
            Status::Failure
        };
        found.push(Outcome {
            // Ids of cases are as long as those of runs may be: their hash is not.
            run_id: format!("inspect:{run}:{}", &hex(&Sha256::digest(case_id))[..32])
                + &format!(":{}", sample["epoch"]),
            case_id: case_id.to_owned(),
            case_version: sample["metadata"]["case_version"].as_u64(),
            task: sample["metadata"]["task"].as_str().map(str::to_owned),
            model: model.map(str::to_owned),
            started: time(&sample["started_at"], "started_at")?,
            ended: time(&sample["completed_at"], "completed_at")?,
            latency_ms: sample["total_time"].as_f64().unwrap_or(0.0) * 1000.0,
            status,
            tokens: (input, output).ne(&(0, 0)).then_some((input, output)),
            scores,
        });
    }
    Ok(found)
}

/// Returns the scores of a sample as numbers: correct 1, partial 0.5, incorrect or no answer 0.
fn scores(sample: &Value) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    for (name, score) in sample["scores"].as_object().into_iter().flatten() {
        let value = match &score["value"] {
            Value::String(grade) => match grade.as_str() {
                "C" => 1.0,
                "P" => 0.5,
                "I" | "N" => 0.0,
                other => {
                    return Err(Error::config(format!("score `{name}` has the grade `{other}`"))
                        .with_hint("use a scorer that grades with C, P, I or N, or with a number"));
                }
            },
            Value::Bool(passed) => f64::from(u8::from(*passed)),
            Value::Number(number) => number.as_f64().unwrap_or(0.0),
            _ => {
                return Err(Error::config(format!("score `{name}` is neither a grade nor a number"))
                    .with_hint("use a scorer with one value for each sample"));
            }
        };
        found.push((name.clone(), value));
    }
    Ok(found)
}
