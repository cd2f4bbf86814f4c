//! Which part of the runs states what the rule measures.

use bellwether_base::Result;
use bellwether_queries::Session;
use serde::Deserialize;

use crate::comparison::Comparison;
use crate::measure::Measure;

#[derive(Debug, Deserialize)]
struct Stated {
    stated: Option<f64>,
    runs: Option<f64>,
}

/// Returns the fraction of the runs under judgement that state the metric; `None` if every run does, or there are none.
pub(crate) async fn stated(session: &Session, comparison: &Comparison, measure: &Measure) -> Result<Option<f64>> {
    let Some(stated) = measure.stated else { return Ok(None) };
    let query = format!(
        "SELECT weighted_sum({stated}, weight_micros) AS stated, weighted_sum(runs, weight_micros) AS runs FROM metrics WHERE {}",
        comparison.is_own("window_start")
    );
    let found = session.rows::<Stated>(&query).await?.into_iter().next();
    let share = found.and_then(|found| Some(found.stated? / found.runs.filter(|runs| *runs > 0.0)?));
    Ok(share.map(|share| share.clamp(0.0, 1.0)))
}
