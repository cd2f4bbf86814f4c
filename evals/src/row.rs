//! Rows of the table `candidates`.

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result, Week};
use bellwether_sample::Kind;
use bellwether_sample::weight::Severity;
use bellwether_tables::Table;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::draw::Drawn;

/// Whether a run entered the sample or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Taken,
    Withdrawn,
}

/// One row; the columns are described in `tables/src/candidates.rs`. Times are microseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CandidateRow {
    pub number: i64,
    pub events_version: i64,
    pub written_at: i64,
    pub change: Change,
    pub week: String,
    pub candidate_id: String,
    pub tenant: String,
    pub source: String,
    pub run_id: String,
    pub attempt: i64,
    pub ended_at: i64,
    #[serde(default)]
    pub task: Option<String>,
    #[serde(default)]
    pub release_id: Option<String>,
    #[serde(default)]
    pub release_fingerprint: Option<String>,
    #[serde(default)]
    pub stage: Option<String>,
    #[serde(default)]
    pub outcome_status: Option<String>,
    pub kind: String,
    pub class: String,
    pub classes: String,
    pub severity: String,
    pub signature: String,
    pub must_take: bool,
    pub draw_weight: f64,
    pub sampling_probability: f64,
    pub probability: f64,
    pub inclusion_probability: f64,
    pub group_members: i64,
    pub signature_members: i64,
    pub signature_taken: i64,
}

// === impl CandidateRow ===

impl CandidateRow {
    /// Returns the row of a run that is in the sample of a week. The commit is not known yet.
    pub fn of(week: Week, drawn: Drawn) -> Self {
        let Drawn { judged, .. } = &drawn;
        let (run, judgement) = (&judged.run, &judged.judgement);
        let classes: Vec<&str> = judgement.classes.iter().map(|class| class.name()).collect();
        let sampled = run.sampling_probability.filter(|kept| *kept > 0.0 && *kept <= 1.0).unwrap_or(1.0);
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            number: 0,
            events_version: 0,
            written_at: 0,
            change: Change::Taken,
            week: week.to_string(),
            candidate_id: candidate_id(&run.tenant, &run.source, &run.run_id, run.attempt),
            tenant: run.tenant.clone(),
            source: run.source.clone(),
            run_id: run.run_id.clone(),
            attempt: run.attempt,
            ended_at: run.ended_at,
            task: run.task.clone(),
            release_id: run.release_id.clone(),
            release_fingerprint: run.release_fingerprint.clone(),
            stage: run.stage.clone(),
            outcome_status: run.outcome_status.clone(),
            kind: kind(judgement.kind()).to_owned(),
            class: judgement.class().name().to_owned(),
            classes: classes.join(","),
            severity: severity(judgement.severity).to_owned(),
            signature: drawn.signature.clone(),
            must_take: drawn.must_take,
            draw_weight: judged.weight.value(),
            sampling_probability: sampled,
            probability: drawn.probability,
            inclusion_probability: drawn.probability * sampled,
            group_members: count(drawn.group_members),
            signature_members: count(drawn.signature_members),
            signature_taken: count(drawn.signature_taken),
        }
    }

    /// Returns true if both rows say the same about a run.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let bare = |row: &Self| Self { number: 0, events_version: 0, written_at: 0, ..row.clone() };
        bare(self) == bare(other)
    }
}

/// Returns the id of a candidate: 16 hexadecimal digits.
pub fn candidate_id(tenant: &str, source: &str, run_id: &str, attempt: i64) -> String {
    let mut hash = Sha256::new();
    for part in [tenant, source, run_id, &attempt.to_string()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the name of a kind, as in the table.
pub(crate) const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Failure => "failure",
        Kind::Uncertain => "uncertain",
        Kind::Control => "control",
    }
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

/// Returns rows as a batch of the table.
///
/// # Errors
/// `Bug` if they do not fit the table.
pub fn batch(rows: &[CandidateRow]) -> Result<RecordBatch> {
    let wrong = |source| Error::bug("rows of `candidates` do not fit the table").with_source(source);
    let schema = Table::Candidates.arrow_schema();
    let mut decoder = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().map_err(wrong)?;
    decoder.serialize(rows).map_err(wrong)?;
    Ok(decoder.flush().map_err(wrong)?.unwrap_or_else(|| RecordBatch::new_empty(schema)))
}
