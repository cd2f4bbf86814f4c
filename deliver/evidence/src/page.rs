//! The page of an alert: what its row says, and the parts that the tables tell.

use bellwether_base::Result;
use bellwether_queries::{Session, quoted};
use bellwether_sinks::Page;
use bellwether_sinks::page::{Coverage, Link, Status};
use serde::Deserialize;

use crate::ask::{moment, shown};
use crate::candidates::candidates;
use crate::changes::changes;
use crate::comparison::Comparison;
use crate::cost;
use crate::coverage;
use crate::examples::examples;
use crate::links::Links;
use crate::measure::Measure;
use crate::numbers;
use crate::record::AlertRecord;
use crate::reproduce::{self, Checked};
use crate::rollback::rollback;
use crate::runs::{Run, runs};
use crate::slices::decompose;

/// How much time a dashboard shows before the change and after the transition, microseconds.
const AROUND: i64 = 3_600_000_000;

/// The tables that a session sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Those that the alert was evaluated on.
    OfAlert,
    /// The newest ones, because the earlier ones are gone.
    Newest,
}

#[derive(Debug, Deserialize)]
struct Began {
    at: Option<i64>,
}

/// Makes the page of an alert from its row alone, for when there is no time to read tables.
pub fn minimal(record: &AlertRecord, links: &Links) -> Page {
    let mut evidence = numbers::evidence(record);
    evidence.coverage = (record.complete_to > 0).then_some(Coverage { complete_to: record.complete_to, stated: None });
    evidence.reproduce = reproduce::reproduce(record, false);
    evidence.notes.extend(links.problems().iter().cloned());
    let status = if ["firing", "pending"].contains(&record.state.as_str()) { Status::Firing } else { Status::Resolved };
    Page {
        incident: incident(record, record.at),
        alert_id: record.alert_id.clone(),
        status,
        severity: record.urgency(),
        rule: record.rule.clone(),
        owner: record.owner.clone(),
        labels: record.labels.clone(),
        tenant: record.tenant.clone(),
        task: record.task.clone(),
        release: record.release_id.clone(),
        baseline_release: record.baseline_release.clone(),
        title: record.title.clone(),
        started_at: record.at,
        ended_at: (status == Status::Resolved).then_some(record.at),
        acknowledgement: None,
        test: false,
        evidence,
        links: page_links(record, links),
        suppressed: Vec::new(),
    }
}

/// Makes the page of an alert with everything that the tables tell. A part that fails is absent, and a note says so.
///
/// `versions` says which tables the session sees. The caller owns the deadline: dropping the future stops all statements.
pub async fn build(session: &Session, versions: &Versions, record: &AlertRecord, links: &Links) -> Page {
    let mut page = minimal(record, links);
    let mut notes = Vec::new();
    if let Some(Some(at)) = part("time at which it began to fire", Box::pin(began(session, record)).await, &mut notes) {
        page.started_at = at;
        page.incident = incident(record, at);
    }
    if record.is_firing() {
        Box::pin(explain(session, record, links, &mut page, &mut notes)).await;
    }
    let checked = match versions {
        Versions::OfAlert if !record.sql.is_empty() => {
            part("check of the SQL", Box::pin(reproduce::check(session, record)).await, &mut notes)
        }
        Versions::OfAlert => None,
        Versions::Newest => {
            let gone =
                "The tables that the alert was evaluated on no longer exist; the evidence is from the newest ones.";
            notes.push(gone.to_owned());
            None
        }
    };
    page.evidence.reproduce = reproduce::reproduce(record, checked == Some(Checked::Same));
    if let Some(Checked::No(reason)) = checked {
        notes.push(reason);
    }
    page.evidence.notes.extend(notes);
    page
}

/// Adds the parts that explain an alert that fires.
async fn explain(session: &Session, record: &AlertRecord, links: &Links, page: &mut Page, notes: &mut Vec<String>) {
    let measure = Measure::of(record);
    let (changed, rolled_back, sampled, examined) = futures::join!(
        Box::pin(changes(session, record)),
        Box::pin(rollback(session, record)),
        Box::pin(candidates(session, record)),
        Box::pin(examine(session, record, measure.as_ref()))
    );
    if let Some(changed) = part("configuration of the release", changed, notes) {
        page.evidence.changes = changed.changes;
        notes.extend(changed.notes);
    }
    page.evidence.rollback = part("suggestion to roll back", rolled_back, notes).flatten();
    page.evidence.eval_candidates = part("runs that were sampled for review", sampled, notes).unwrap_or_default();
    let (Some(measure), Some(Some(examined))) = (measure, part("runs of the alert", examined, notes)) else { return };
    let Examined { comparison, runs, stated, cost } = examined;
    page.evidence.coverage =
        Some(Coverage { complete_to: record.complete_to, stated: part("coverage", stated, notes).flatten() });
    page.evidence.cost = part("cost", cost, notes).flatten();
    let Some(runs) = part("slices and the examples", runs, notes).filter(|runs| !runs.is_empty()) else { return };
    let found = decompose(&runs, &measure);
    (page.evidence.mix, page.evidence.slices) = (found.mix, found.slices);
    page.evidence.examples = examples(&runs, measure.kind, links);
    notes.push(described(&runs, &comparison));
    notes.extend(found.notes);
}

/// The runs of an alert, with the sums over them. Each may have failed by itself.
struct Examined {
    comparison: Comparison,
    runs: Result<Vec<Run>>,
    stated: Result<Option<f64>>,
    cost: Result<Option<bellwether_sinks::page::CostImpact>>,
}

/// Reads the runs of both sides; `None` if the rule judges no runs that are known here.
async fn examine(session: &Session, record: &AlertRecord, measure: Option<&Measure>) -> Result<Option<Examined>> {
    let Some(measure) = measure else { return Ok(None) };
    let whole = Comparison::of(record);
    let comparison = Box::pin(whole.narrowed(session)).await?;
    // Sums are read from `metrics`, over the whole time since the change.
    let whole = whole.at_distance_of(&comparison);
    let (runs, stated, cost) = futures::join!(
        Box::pin(runs(session, &comparison, measure)),
        Box::pin(coverage::stated(session, &whole, measure)),
        Box::pin(cost::impact(session, &whole, measure))
    );
    Ok(Some(Examined { comparison, runs, stated, cost }))
}

/// Says which runs were examined.
fn described(runs: &[Run], comparison: &Comparison) -> String {
    let own = runs.iter().filter(|run| run.own).count();
    let sample = if comparison.is_sampled() { "a sample of " } else { "" };
    format!(
        "Slices, mix and examples are of {sample}{own} runs from {} to {}, against {} runs of {}.",
        shown(comparison.from),
        shown(comparison.to),
        runs.len() - own,
        comparison.against()
    )
}

/// Returns the time at which the alert began to fire; `None` if no row says so.
async fn began(session: &Session, record: &AlertRecord) -> Result<Option<i64>> {
    let query = format!(
        "SELECT max(at) AS at FROM alerts WHERE alert_id = {} AND state = 'firing' AND state_from <> 'firing' \
         AND change <> 'retracted' AND evaluation <= {} AND at <= {}",
        quoted(&record.alert_id),
        record.evaluation,
        moment(record.at)
    );
    Ok(session.rows::<Began>(&query).await?.first().and_then(|began| began.at))
}

fn incident(record: &AlertRecord, began: i64) -> String {
    format!("{}-{}", record.alert_id, began.div_euclid(1_000_000))
}

/// Takes a part, or notes that it is missing.
fn part<T>(name: &str, found: Result<T>, notes: &mut Vec<String>) -> Option<T> {
    found.map_err(|error| notes.push(format!("The {name} cannot be shown: {}.", error.message()))).ok()
}

/// Returns the links of the alert itself.
fn page_links(record: &AlertRecord, links: &Links) -> Vec<Link> {
    let value = |placeholder: &str| match placeholder {
        "tenant" => record.tenant.clone(),
        "task" => record.task.clone(),
        "release" => record.release_id.clone(),
        "baseline" => record.baseline_release.clone(),
        "rule" => Some(record.rule.clone()),
        "alert_id" => Some(record.alert_id.clone()),
        "from" => Some(record.since.unwrap_or(record.at).saturating_sub(AROUND).div_euclid(1000).to_string()),
        "to" => Some(record.at.saturating_add(AROUND).div_euclid(1000).to_string()),
        _ => None,
    };
    let runbook = record.runbook.as_deref().and_then(|runbook| links.runbook(runbook));
    runbook.into_iter().chain(links.dashboard(value)).collect()
}
