//! Eval candidates: failed runs of the alert's task and release that were sampled for review.

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use serde::Deserialize;

use crate::ask::moment;
use crate::comparison;
use crate::record::AlertRecord;

/// Most candidates on a page.
const MOST: usize = 5;

/// How far back runs are looked for if the start of the change is not known, microseconds.
const BEFORE: i64 = 86_400_000_000;

#[derive(Debug, Deserialize)]
struct Candidate {
    candidate_id: String,
}

/// Returns the ids of sampled runs of the alert's task and release that failed since the change began, the most severe first, whether
/// they were reviewed or not. Reads the table, because the view also joins the reviews, which takes longer.
pub(crate) async fn candidates(session: &Session, record: &AlertRecord) -> Result<Vec<String>> {
    let mut conditions = vec![
        format!("ended_at >= {}", moment(record.since.unwrap_or(record.at.saturating_sub(BEFORE)))),
        format!("ended_at < {}", moment(record.at)),
    ];
    let release = record.release_id.as_deref();
    let of = [("tenant", comparison::tenant(record)), ("task", comparison::task(record)), ("release_id", release)];
    conditions.extend(of.into_iter().filter_map(|(column, value)| Some(format!("{column} = {}", quoted(value?)))));
    let query = format!(
        "SELECT candidate_id FROM (
            SELECT *, row_number() OVER (PARTITION BY candidate_id ORDER BY number DESC) AS newest FROM candidates WHERE {}
        ) AS numbered WHERE newest = 1 AND change = 'taken' AND kind = 'failure'
        ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END, ended_at DESC, candidate_id
        LIMIT {MOST}",
        conditions.join(" AND ")
    );
    Ok(session.rows::<Candidate>(&query).await?.into_iter().map(|candidate| candidate.candidate_id).collect())
}
