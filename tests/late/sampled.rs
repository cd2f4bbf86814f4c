//! The sample of a week of real agent runs (`../shared/data/tau2`): the queue shows each failure signature while the budget lasts, and
//! estimates from it cover the truth at the stated rate.
//!
//! docs/evals.md has the figures. `make sampling` writes them; without BELLWETHER_WRITE the test fails if they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;

use bellwether_base::Week;
use bellwether_evals::class::{Class, Judgement};
use bellwether_evals::draw::{Detail, Draw, Drawn};
use bellwether_evals::facts::RunFacts;
use bellwether_evals::{EvalsSettings, evaluate};
use bellwether_stats::figure::percent;
use bellwether_stats::survey::{Estimate, Survey};
use serde_json::{Value, json};

use super::feed::{Feed, NOW};
use crate::common::repository;
use crate::pipeline::tau2;

/// Samples whose estimates are compared with the truth.
const SAMPLES: u32 = 400;

/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// Budgets whose queues are compared.
const BUDGETS: [u32; 4] = [10, 25, 50, 100];

/// Markers of the generated part of the page.
const BEGIN: &str = "<!-- measured: begin; written by `make sampling` -->";
const END: &str = "<!-- measured: end -->";

/// Runs of one week with their judgements.
struct Production {
    runs: Vec<(RunFacts, Judgement)>,
}

/// A property of runs, and what samples say about it.
struct Estimated {
    name: String,
    runs: f64,
    in_queue: usize,
    /// By Horvitz and Thompson, as a share of the known number of runs; by Hájek.
    by: [Method; 2],
}

/// Shares that one method estimates.
struct Method {
    of_week: Estimate,
    /// Number of samples whose interval has the truth in it, and the mean of their estimates.
    covered: u32,
    mean: f64,
}

fn settings(budget: u32) -> EvalsSettings {
    EvalsSettings { weekly_budget: budget, ..EvalsSettings::default() }
}

/// Returns the recorded runs as events of the week before the newest one, in equal steps.
fn events() -> Option<Vec<Value>> {
    let recorded = tau2::recorded()?;
    let week = Week::of(Week::of(NOW).start() - 1);
    let step = (week.end() - week.start()) / i64::try_from(recorded.len()).expect("few");
    let time = |micros: i64| {
        let moment = arrow::temporal_conversions::timestamp_us_to_datetime(micros).expect("in range");
        json!(moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
    };
    let moved = |(place, run): (i64, &Value)| {
        let mut event = tau2::event(run);
        let ended = week.start() + place * step;
        (event["data"]["started_at"], event["data"]["ended_at"]) = (time(ended - 1_000_000), time(ended));
        event
    };
    Some((0..).zip(&recorded).map(moved).collect())
}

// === impl Production ===

impl Production {
    /// Reads the runs as the role `evals` does.
    async fn read() -> Option<Self> {
        let mut feed = Feed::new().await;
        feed.commit_events(&events()?).await;
        let session = feed.session().await;
        let mut runs = Vec::new();
        let all = |run: RunFacts| {
            let judgement = Judgement::of(&run, EvalsSettings::default().outlier_factor);
            runs.push((run, judgement));
            ControlFlow::<()>::Continue(())
        };
        let broke = Box::pin(evaluate::runs(&session, Week::of(Week::of(NOW).start() - 1), all)).await.expect("reads");
        assert_eq!(broke, None);
        Some(Self { runs })
    }

    fn failed(&self) -> Self {
        Self { runs: self.runs.iter().filter(|(run, _)| failed(run)).cloned().collect() }
    }

    fn sample(&self, salt: &str, settings: &EvalsSettings) -> Vec<Drawn> {
        let mut draw = Draw::new(salt, settings.budget(), settings.outlier_factor, Detail::Full);
        for (run, _) in &self.runs {
            draw.add(run.clone()).expect("few cells");
        }
        draw.finish().1
    }

    fn signatures(&self) -> BTreeSet<&str> {
        self.runs.iter().map(|(_, it)| it.signature.as_str()).filter(|signature| !signature.is_empty()).collect()
    }
}

fn failed(run: &RunFacts) -> bool {
    run.outcome() == "failure"
}

fn seen(sample: &[Drawn]) -> BTreeSet<&str> {
    sample.iter().map(|one| one.judged.judgement.signature.as_str()).filter(|signature| !signature.is_empty()).collect()
}

/// A property of runs: a failure class, or that the task failed.
type Property = (String, Box<dyn Fn(&RunFacts, &Judgement) -> bool>);

fn properties(production: &Production) -> Vec<Property> {
    let mut properties: Vec<Property> = vec![("the task failed".to_owned(), Box::new(|run, _| failed(run)))];
    for class in Class::FAILURES {
        let holds = move |_: &RunFacts, judgement: &Judgement| judgement.classes.contains(&class);
        if production.runs.iter().any(|(run, judgement)| holds(run, judgement)) {
            properties.push((format!("`{}`", class.name()), Box::new(holds)));
        }
    }
    properties
}

/// Estimates the share of a property by both methods.
fn estimate(sample: &[Drawn], (_, holds): &Property, all: f64) -> [Estimate; 2] {
    let mut survey = Survey::default();
    for one in sample {
        let y = f64::from(u8::from(holds(&one.judged.run, &one.judged.judgement)));
        survey.add(y, one.probability, 1).expect("a probability");
    }
    let mut total = survey.total(CONFIDENCE).expect("rows");
    total.value /= all;
    total.interval.low /= all;
    total.interval.high = (total.interval.high / all).min(1.0);
    [total, survey.mean(CONFIDENCE).expect("rows")]
}

/// Estimates each property from the sample of the week, and from many samples.
fn estimates(production: &Production) -> Vec<Estimated> {
    let (properties, all) = (properties(production), number(production.runs.len()));
    let week = production.sample("2026-W47", &settings(50));
    let of_week = |property: &Property| Estimated {
        name: property.0.clone(),
        runs: number(production.runs.iter().filter(|(run, judgement)| (property.1)(run, judgement)).count()),
        in_queue: week.iter().filter(|one| (property.1)(&one.judged.run, &one.judged.judgement)).count(),
        by: estimate(&week, property, all).map(|of_week| Method { of_week, covered: 0, mean: 0.0 }),
    };
    let mut found: Vec<Estimated> = properties.iter().map(of_week).collect();
    for seed in 0..SAMPLES {
        let sample = production.sample(&format!("sample {seed}"), &settings(50));
        assert_eq!(seen(&sample), production.signatures(), "sample {seed}");
        for (property, estimated) in properties.iter().zip(&mut found) {
            let truth = estimated.runs / all;
            for (one, method) in estimate(&sample, property, all).iter().zip(&mut estimated.by) {
                let covers = one.interval.low <= truth + 1e-9 && truth <= one.interval.high + 1e-9;
                method.covered += u32::from(covers);
                method.mean += one.value / f64::from(SAMPLES);
            }
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Returns the generated part of the page.
fn part(production: &Production, estimates: &[Estimated]) -> String {
    let (all, failures) = (number(production.runs.len()), production.failed());
    let mut text = format!(
        "{} runs of the tau2 benchmark, of which {} failed their task, as one week, and a queue of 50. Shares with 95 % intervals, by \
         Horvitz and Thompson and by Hájek, and how many of {SAMPLES} such samples have an interval with the true share in it:\n\n\
         | property of a run | true share | in the queue | Horvitz–Thompson | covered | Hájek | covered |\n\
         |---|---:|---:|---|---:|---|---:|\n",
        production.runs.len(),
        failures.runs.len()
    );
    for one in estimates {
        let mut row = vec![one.name.clone(), percent(one.runs / all), one.in_queue.to_string()];
        for method in &one.by {
            let Estimate { value, interval, .. } = method.of_week;
            row.push(format!("{} ({} to {})", percent(value), percent(interval.low), percent(interval.high)));
            row.push(method.covered.to_string());
        }
        writeln!(text, "| {} |", row.join(" | ")).expect("a text");
    }
    text.push_str("\nFailure signatures in the queue, by budget:\n\n| runs | signatures |");
    for budget in BUDGETS {
        write!(text, " {budget} |").expect("a text");
    }
    text.push_str("\n|---|---:|---:|---:|---:|---:|\n");
    for (name, of) in [("all", production), ("only those that failed their task", &failures)] {
        let of_budget = |budget: u32| seen(&of.sample("2026-W47", &settings(budget))).len().to_string();
        let cells: Vec<String> = BUDGETS.map(of_budget).to_vec();
        writeln!(text, "| {name} | {} | {} |", of.signatures().len(), cells.join(" | ")).expect("a text");
    }
    text
}

fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{part}\n{END}{after}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_real_failures_shows_every_signature_and_its_estimates_cover_the_truth() {
    let Some(production) = Box::pin(Production::read()).await else { return };
    assert_eq!((production.runs.len(), production.failed().runs.len()), (1128, 341));
    // Also if only the failed runs are sampled.
    for of in [&production, &production.failed()] {
        let sample = of.sample("2026-W47", &settings(50));
        assert_eq!((sample.len(), seen(&sample)), (50, of.signatures()));
    }
    let mut members: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, judgement) in &production.runs {
        *members.entry(&judgement.signature).or_default() += 1;
    }
    for one in production.sample("2026-W47", &settings(50)) {
        let signature = one.judged.judgement.signature.as_str();
        assert!(signature.is_empty() || one.signature_members == members[signature], "{signature}");
    }
    let estimates = estimates(&production);
    assert!(estimates.len() > 5, "{} properties", estimates.len());
    // Three standard errors of a share among the samples.
    let room = 3.0 * (CONFIDENCE * (1.0 - CONFIDENCE) / f64::from(SAMPLES)).sqrt();
    for one in &estimates {
        for Method { covered, mean, .. } in &one.by {
            let rate = f64::from(*covered) / f64::from(SAMPLES);
            assert!(rate >= CONFIDENCE - room, "{}: covered in {rate}", one.name);
            let truth = one.runs / number(production.runs.len());
            assert!((mean / truth - 1.0).abs() < 0.1, "{}: {mean} for {truth}", one.name);
        }
    }
    let path = repository("docs/evals.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let new = replaced(&page, &part(&production, &estimates)).expect("it has the markers");
    if std::env::var_os("BELLWETHER_WRITE").is_some() {
        std::fs::write(&path, new).expect("writes");
    } else {
        assert_eq!(page, new, "docs/evals.md: run `make sampling`");
    }
}
