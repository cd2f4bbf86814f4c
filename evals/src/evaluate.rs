//! One evaluation of a week: draws its sample from `events`, and compares it with the candidates in the table.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bellwether_base::{Error, Result, Week};
use bellwether_lake::values_of;
use bellwether_queries::{Session, quoted};
use bellwether_sample::Plan;
use futures::StreamExt;
use serde::Deserialize;

use crate::draw::{Detail, Draw, Drawn, TooFine};
use crate::facts::{LOOK_BACK, Medians, Releases, RunFacts, between, facts_sql};
use crate::row::{CandidateRow, Change};
use crate::settings::EvalsSettings;

/// Run ids of one query for their weeks.
const IDS_AT_ONCE: usize = 500;

/// Draws the sample of a week.
///
/// # Errors
/// As the session's statements.
pub async fn sample(session: &Session, week: Week, settings: &EvalsSettings) -> Result<(Plan, Vec<Drawn>)> {
    let mut detail = Detail::Full;
    loop {
        let mut draw = Draw::new(&week.to_string(), settings.budget(), settings.outlier_factor, detail);
        let add = |run| draw.add(run).map_or_else(ControlFlow::Break, ControlFlow::Continue);
        match Box::pin(runs(session, week, add)).await? {
            None => return Ok(draw.finish()),
            Some(TooFine(coarser)) if coarser > detail => detail = coarser,
            Some(_) => {
                return Err(Error::data(format!("runs of {week} have too many stages and classes to sample")));
            }
        }
    }
}

/// Reads the runs of a week one after another, in any order, until `each` breaks. Returns what it broke with.
///
/// # Errors
/// As the session's statements.
pub async fn runs<B>(
    session: &Session,
    week: Week,
    mut each: impl FnMut(RunFacts) -> ControlFlow<B>,
) -> Result<Option<B>> {
    let medians = Medians::read(session, week).await?;
    let releases = Releases::read(session, week).await?;
    let mut answer = session.execute(&facts_sql(week)).await?;
    while let Some(batch) = answer.batches.next().await {
        for mut run in values_of::<RunFacts>(&batch?)? {
            medians.give(&mut run);
            releases.give(&mut run);
            if let ControlFlow::Break(with) = each(run) {
                return Ok(Some(with));
            }
        }
    }
    Ok(None)
}

/// Reads the candidates of a week that are in the table: of several rows about one run, the last.
///
/// # Errors
/// As the session's statements.
pub async fn known(session: &Session, week: Week) -> Result<BTreeMap<String, CandidateRow>> {
    let sql = format!("SELECT * FROM candidates WHERE week = '{week}'");
    let mut known: BTreeMap<String, CandidateRow> = BTreeMap::new();
    let mut answer = session.execute(&sql).await?;
    while let Some(batch) = answer.batches.next().await {
        for row in values_of::<CandidateRow>(&batch?)? {
            match known.get(&row.candidate_id) {
                Some(other) if other.number >= row.number => {}
                _ => {
                    known.insert(row.candidate_id.clone(), row);
                }
            }
        }
    }
    known.retain(|_, row| row.change == Change::Taken);
    Ok(known)
}

/// Returns the rows that turn the candidates in the table into those of a sample. Their commit is not known yet.
pub fn changes(week: Week, mut known: BTreeMap<String, CandidateRow>, sample: Vec<Drawn>) -> Vec<CandidateRow> {
    let mut rows: Vec<CandidateRow> = Vec::new();
    for drawn in sample {
        let row = CandidateRow::of(week, drawn);
        match known.remove(&row.candidate_id) {
            Some(before) if before.says_the_same(&row) => {}
            _ => rows.push(row),
        }
    }
    rows.extend(known.into_values().map(|row| CandidateRow { change: Change::Withdrawn, ..row }));
    rows.sort_by(|left, right| left.candidate_id.cmp(&right.candidate_id));
    rows
}

#[derive(Deserialize)]
struct Moment {
    at: i64,
}

/// Returns the weeks in which runs with these ids ended.
///
/// # Errors
/// As the session's statements.
pub async fn weeks_of(session: &Session, run_ids: &BTreeSet<String>) -> Result<BTreeSet<Week>> {
    let ids: Vec<String> = run_ids.iter().map(|id| quoted(id)).collect();
    let mut weeks = BTreeSet::new();
    for some in ids.chunks(IDS_AT_ONCE) {
        weeks.extend(weeks_where(session, &format!("run_id IN ({})", some.join(", "))).await?);
    }
    Ok(weeks)
}

/// Returns all weeks in which runs ended.
///
/// # Errors
/// As the session's statements.
pub async fn all_weeks(session: &Session) -> Result<BTreeSet<Week>> {
    Box::pin(weeks_where(session, "true")).await
}

/// Returns the later weeks in which runs ended and whose releases are compared with those of the given weeks.
///
/// # Errors
/// As the session's statements.
pub async fn compared_to(session: &Session, weeks: &BTreeSet<Week>) -> Result<BTreeSet<Week>> {
    let (Some(first), Some(last)) = (weeks.first(), weeks.last()) else { return Ok(BTreeSet::new()) };
    let condition = between("ended_at", first.later(1), last.later(LOOK_BACK + 1));
    let mut later = Box::pin(weeks_where(session, &condition)).await?;
    later.retain(|week| weeks.iter().any(|earlier| (1..=LOOK_BACK).contains(&week.since(*earlier))));
    Ok(later)
}

async fn weeks_where(session: &Session, condition: &str) -> Result<BTreeSet<Week>> {
    let sql = format!(
        "SELECT DISTINCT date_trunc('week', ended_at) AS at FROM events \
         WHERE event_type = 'run.completed' AND ended_at IS NOT NULL AND {condition}"
    );
    let mut weeks = BTreeSet::new();
    for batch in session.execute(&sql).await?.collect().await? {
        weeks.extend(values_of::<Moment>(&batch)?.into_iter().map(|moment| Week::of(moment.at)));
    }
    Ok(weeks)
}

/// Returns the weeks that have rows in `candidates`.
///
/// # Errors
/// As the session's statements.
pub async fn sampled_weeks(session: &Session) -> Result<BTreeSet<Week>> {
    let mut weeks = BTreeSet::new();
    let sql = "SELECT DISTINCT date_trunc('week', ended_at) AS at FROM candidates";
    for batch in session.execute(sql).await?.collect().await? {
        weeks.extend(values_of::<Moment>(&batch)?.into_iter().map(|moment| Week::of(moment.at)));
    }
    Ok(weeks)
}
