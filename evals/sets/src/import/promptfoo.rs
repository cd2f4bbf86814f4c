//! promptfoo: the file of `promptfoo eval -o FILE.json`.

use bellwether_base::{Error, Result};
use chrono::TimeDelta;
use serde_json::Value;

use super::{Outcome, Status, time, unnamed};

/// Value of `failureReason` for a provider that failed. A failed assertion is 1.
const ERROR: u64 = 2;

pub(super) fn outcomes(file: &Value) -> Result<Vec<Outcome>> {
    let run = &file["results"];
    let (Some(results), Some(eval)) = (run["results"].as_array(), file["evalId"].as_str()) else {
        return Err(Error::config("the file has no `evalId` or no `results.results`")
            .with_hint("write it with `promptfoo eval -o results.json`"));
    };
    let started = time(&run["timestamp"], "results.timestamp")?;
    let mut found = Vec::with_capacity(results.len());
    for (number, result) in results.iter().enumerate() {
        let metadata = [&result["testCase"]["metadata"], &result["metadata"]];
        let Some(case_id) = metadata.iter().find_map(|it| it["case_id"].as_str()) else {
            return Err(unnamed(number + 1));
        };
        let latency_ms = result["latencyMs"].as_f64().unwrap_or(0.0).clamp(0.0, 1e9);
        let tokens = &result["tokenUsage"];
        let tokens = tokens["prompt"].as_u64().zip(tokens["completion"].as_u64()).filter(|used| *used != (0, 0));
        let passed = result["success"].as_bool() == Some(true);
        let failed = result["failureReason"].as_u64() == Some(ERROR);
        // The cast is exact enough: the value is bounded above, and the tool writes whole milliseconds.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by clamp")]
        let took = TimeDelta::milliseconds(latency_ms as i64);
        found.push(Outcome {
            run_id: format!("promptfoo:{eval}:{}:{}", result["testIdx"], result["promptIdx"])
                + &result["id"].as_str().map(|id| format!(":{id}")).unwrap_or_default(),
            case_id: case_id.to_owned(),
            case_version: metadata.iter().find_map(|it| it["case_version"].as_u64()),
            task: metadata.iter().find_map(|it| it["task"].as_str()).map(str::to_owned),
            model: result["provider"]["id"].as_str().map(str::to_owned),
            started,
            ended: started + took,
            latency_ms,
            status: match (passed, failed) {
                (true, _) => Status::Success,
                (false, true) => Status::Error,
                (false, false) => Status::Failure,
            },
            tokens,
            scores: result["score"].as_f64().map(|value| ("promptfoo".to_owned(), value)).into_iter().collect(),
        });
    }
    Ok(found)
}
