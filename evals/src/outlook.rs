//! The outlook of a week: which runs a budget would give, by stratum, before anybody decides to spend it.
//!
//! It is the plan of the sample itself ([`crate::evaluate::sample`]), so a role with the same settings takes exactly these runs.

use std::collections::BTreeMap;

use bellwether_base::{Result, Week};
use bellwether_queries::Session;
use bellwether_sample::allocate::cap;
use bellwether_sample::weight::LEVELS;
use bellwether_sample::{Cell, Kind, Plan};
use serde::Serialize;

use crate::evaluate::sample;
use crate::row::kind;
use crate::settings::EvalsSettings;

/// The sample that a budget gives in a week.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outlook {
    /// ISO week, such as `2026-W49`.
    pub week: String,
    /// Runs that ended in the week, offline evaluations left out.
    pub runs: u64,
    pub budget: u64,
    pub per_signature: u64,
    /// Runs taken, critical ones included.
    pub taken: u64,
    /// Runs that are taken whatever the budget, and how many of them exceed it.
    pub critical: u64,
    pub over_budget: u64,
    /// Failure signatures, and those of which at least one run is taken for certain.
    pub signatures: u64,
    pub signatures_covered: u64,
    /// Failures first, then uncertain runs, then successes; the strata with the most places first.
    pub strata: Vec<Stratum>,
}

/// The sampled runs of one task, release, stage and class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stratum {
    /// failure, uncertain or control.
    pub kind: &'static str,
    /// Tenant (if there is one), task, release, stage and class, joined by ` / `; only stage and class if there are too many strata.
    pub stratum: String,
    pub runs: u64,
    pub critical: u64,
    /// Runs taken; an expectation if the stratum shares places with others.
    pub taken: f64,
    /// Least and greatest inclusion probability of its runs, without the producer's sampling.
    pub probability_low: f64,
    pub probability_high: f64,
    /// Runs that are left out because their failure signature has as many places as it may have.
    pub suppressed: f64,
}

/// Returns what the budget of these settings gives in a week.
///
/// # Errors
/// As [`sample`].
pub async fn outlook(session: &Session, week: Week, settings: &EvalsSettings) -> Result<Outlook> {
    let (plan, drawn) = sample(session, week, settings).await?;
    // A flood of critical runs is sampled too, so the sample knows best how many are taken.
    let taken = drawn.len() as u64;
    let critical = drawn.iter().filter(|one| one.must_take).count() as u64;
    Ok(Outlook { taken, critical, ..planned(&plan, week, settings) })
}

fn planned(plan: &Plan, week: Week, settings: &EvalsSettings) -> Outlook {
    let budget = settings.budget();
    Outlook {
        week: week.to_string(),
        runs: plan.cells.iter().map(|cell| cell.must_take + cell.sampled()).sum(),
        budget: budget.items,
        per_signature: budget.per_signature,
        taken: plan.taken(),
        critical: plan.must_take,
        over_budget: plan.over_budget,
        signatures: plan.signatures.len() as u64,
        signatures_covered: plan.signatures.values().filter(|share| share.covered).count() as u64,
        strata: strata(plan, budget.per_signature),
    }
}

/// Adds up the cells of each stratum.
fn strata(plan: &Plan, per_signature: u64) -> Vec<Stratum> {
    let full = full_signatures(plan, per_signature);
    let mut found: BTreeMap<(Kind, &str), Stratum> = BTreeMap::new();
    for (cell, group) in plan.cells.iter().zip(plan.group_of_cells()) {
        let of_level = group.map_or([0.0; LEVELS], |group| plan.groups[group].probability);
        let stratum = found.entry((cell.kind, &cell.stratum)).or_insert_with(|| Stratum {
            kind: kind(cell.kind),
            stratum: cell.stratum.clone(),
            runs: 0,
            critical: 0,
            taken: 0.0,
            probability_low: 1.0,
            probability_high: 0.0,
            suppressed: 0.0,
        });
        let sampled: f64 = (0..LEVELS).map(|level| number(cell.members[level]) * of_level[level]).sum();
        stratum.runs += cell.must_take + cell.sampled();
        stratum.critical += cell.must_take;
        stratum.taken += number(cell.must_take) + sampled;
        if full.contains(&cell.signature.as_str()) {
            stratum.suppressed += number(cell.sampled()) - sampled;
        }
        for probability in probabilities(cell, of_level) {
            stratum.probability_low = stratum.probability_low.min(probability);
            stratum.probability_high = stratum.probability_high.max(probability);
        }
    }
    let mut found: Vec<((Kind, &str), Stratum)> = found.into_iter().collect();
    found.sort_by(|((one, name), left), ((other, other_name), right)| {
        one.cmp(other).then(right.taken.total_cmp(&left.taken)).then_with(|| name.cmp(other_name))
    });
    found.into_iter().map(|(_, stratum)| stratum).collect()
}

/// Returns the probabilities of the runs of a cell.
fn probabilities(cell: &Cell, of_level: [f64; LEVELS]) -> impl Iterator<Item = f64> {
    let certain = (cell.must_take > 0).then_some(1.0);
    let drawn = (0..LEVELS).filter(|level| cell.members[*level] > 0).map(move |level| of_level[level]);
    certain.into_iter().chain(drawn)
}

/// Returns the signatures that have as many places as they may have. Those that share places have fewer.
fn full_signatures(plan: &Plan, per_signature: u64) -> Vec<&str> {
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    for group in &plan.groups {
        let mut names = group.cells.iter().map(|cell| plan.cells[*cell].signature.as_str());
        if let Some(first) = names.next()
            && !first.is_empty()
            && names.all(|other| other == first)
        {
            *places.entry(first).or_default() += group.take;
        }
    }
    places.into_iter().filter(|(name, taken)| *taken >= cap(name, per_signature)).map(|(name, _)| name).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Detail, Draw};
    use crate::facts::{PolicyException, RunFacts};

    fn run(number: u64, outcome: &str, error: &str) -> RunFacts {
        RunFacts {
            source: "app".to_owned(),
            run_id: format!("r{number}"),
            attempt: 1,
            task: Some("refund".to_owned()),
            release_id: Some(format!("v{}", number % 2)),
            stage: Some("full".to_owned()),
            outcome_status: Some(outcome.to_owned()),
            failure_error_type: Some(error.to_owned()),
            ..RunFacts::default()
        }
    }

    fn of(runs: impl IntoIterator<Item = RunFacts>, settings: &EvalsSettings) -> (Outlook, usize) {
        let mut draw = Draw::new("2026-W49", settings.budget(), settings.outlier_factor, Detail::Full);
        for run in runs {
            draw.add(run).expect("few cells");
        }
        let (plan, drawn) = draw.finish();
        (planned(&plan, Week::of(0), settings), drawn.len())
    }

    /// Ninety failures of one error, ten of another, a hundred successes.
    fn week() -> impl Iterator<Item = RunFacts> {
        let failures = (0..100).map(|number| run(number, "failure", if number < 90 { "Common" } else { "Rare" }));
        failures.chain((100..200).map(|number| run(number, "success", "")))
    }

    #[test]
    fn strata_add_up_to_the_sample_and_a_full_signature_suppresses_the_rest() {
        let settings = EvalsSettings { weekly_budget: 20, per_signature: 4, ..EvalsSettings::default() };
        let (outlook, drawn) = of(week(), &settings);
        let sum = |of: fn(&Stratum) -> f64| outlook.strata.iter().map(of).sum::<f64>();
        assert_eq!((outlook.runs, outlook.taken, drawn), (200, 20, 20));
        assert!((sum(|stratum| stratum.taken) - 20.0).abs() < 1e-9, "{outlook:#?}");
        // Both signatures have four places: 86 and 6 runs are left out.
        assert!((sum(|stratum| stratum.suppressed) - 92.0).abs() < 1e-9, "{outlook:#?}");
        assert_eq!((outlook.signatures, outlook.signatures_covered), (2, 2));
        let kinds: Vec<&str> = outlook.strata.iter().map(|stratum| stratum.kind).collect();
        assert_eq!(kinds, ["failure", "failure", "control", "control"]);
        for stratum in &outlook.strata {
            assert!(stratum.probability_low > 0.0 && stratum.probability_low <= stratum.probability_high);
            assert_eq!(stratum.kind == "control", stratum.suppressed == 0.0, "{stratum:?}");
        }
    }

    #[test]
    fn a_budget_for_everything_takes_all_runs_and_suppresses_none() {
        let settings = EvalsSettings { weekly_budget: 400, per_signature: 400, ..EvalsSettings::default() };
        let (outlook, drawn) = of(week(), &settings);
        assert_eq!(drawn, 200);
        for stratum in &outlook.strata {
            assert_eq!((stratum.probability_low, stratum.suppressed), (1.0, 0.0), "{stratum:?}");
        }
    }

    #[test]
    fn critical_runs_are_taken_beyond_the_budget() {
        let policy = PolicyException { policy_id: "pii".to_owned(), severity: "critical".to_owned() };
        let critical = (0..7)
            .map(|number| RunFacts { policy_exceptions: vec![policy.clone()], ..run(1000 + number, "success", "") });
        let settings = EvalsSettings { weekly_budget: 5, ..EvalsSettings::default() };
        let (outlook, drawn) = of(week().chain(critical), &settings);
        assert_eq!((outlook.taken, outlook.critical, outlook.over_budget, drawn), (7, 7, 2, 7));
        let critical: Vec<&Stratum> = outlook.strata.iter().filter(|stratum| stratum.critical > 0).collect();
        assert!(critical.iter().all(|stratum| stratum.probability_low == 1.0), "{critical:?}");
        let others = outlook.strata.iter().filter(|stratum| stratum.critical == 0);
        assert!(others.clone().count() > 0 && others.clone().all(|stratum| stratum.probability_high == 0.0));
    }
}
