//! Estimates from drawn samples: unbiased, and covering the truth at the stated rate.

use bellwether_sample::survey::Survey;
use bellwether_sample::{Budget, Candidate, Plan, Population, Sample, plan};

use crate::{BUDGET, Random, candidate, run};

/// A week of one population under many salts: each is a sample of its own.
fn weeks(size: u64, repetitions: u64, mut each: impl FnMut(&Population, &Sample)) {
    let mut random = Random(11);
    let candidates: Vec<_> = (0..size)
        .map(|_| {
            let mut one = candidate(&mut random);
            one.producer_probability = 1.0;
            one
        })
        .collect();
    // The plan depends on counts alone, so all weeks have the same.
    let mut planned = None;
    for week in 0..repetitions {
        let mut population = Population::new(format!("week {week}"));
        for (n, candidate) in candidates.iter().enumerate() {
            population.insert(run(n as u64), candidate.clone()).expect("valid");
        }
        let known = planned.get_or_insert_with(|| plan(&population.cells(), &BUDGET));
        each(&population, &population.draw_planned(known.clone()));
    }
}

fn probability(plan: &Plan, candidate: &Candidate) -> f64 {
    if candidate.must_take {
        return 1.0;
    }
    let own = plan.cells.iter().position(|cell| {
        (cell.kind, &cell.stratum, &cell.signature) == (candidate.kind, &candidate.stratum, &candidate.signature)
    });
    let group = plan.group_of_cells()[own.expect("its cell")];
    group.map_or(0.0, |group| plan.groups[group].probability[candidate.weight.level()])
}

#[test]
fn runs_are_taken_as_often_as_their_probability_says() {
    let (mut taken, mut expected, mut repetitions) = (vec![0.0; 400], Vec::new(), 0.0_f64);
    weeks(400, 3_000, |population, sample| {
        repetitions += 1.0;
        if expected.is_empty() {
            expected = population.members().map(|(_, candidate)| probability(&sample.plan, candidate)).collect();
        }
        let order: std::collections::BTreeMap<_, _> =
            population.members().enumerate().map(|(place, (run, _))| (run, place)).collect();
        for one in &sample.taken {
            taken[order[&one.run]] += 1.0;
        }
    });
    for (taken, expected) in taken.iter().zip(&expected) {
        let (p, expected) = (*expected, expected * repetitions);
        // Five standard errors: of 400 runs, none should exceed them.
        let room = 5.0 * (repetitions * p * (1.0 - p)).sqrt() + 1e-6;
        assert!((taken - expected).abs() <= room, "taken {taken}, expected {expected}");
    }
}

#[test]
fn totals_and_shares_of_a_budget_of_fifty_cover_the_truth() {
    // Persons will find that a fixed set of the runs truly failed: most of the heavy ones, few of the light ones.
    let failed = |n: u64, weight: f64| Random(n).uniform() < 0.1 + 0.8 * weight / 32.0;
    let (mut totals, mut shares, mut sum, mut repetitions, mut truth) = (0.0, 0.0, 0.0, 0.0, 0.0);
    weeks(1_000, 1_500, |population, sample| {
        let number = |run: &bellwether_sample::Run| -> u64 { run.run_id[4..].parse().expect("a number") };
        let y = |run: &bellwether_sample::Run, weight: f64| f64::from(u8::from(failed(number(run), weight)));
        truth = population.members().map(|(run, candidate)| y(run, candidate.weight.value())).sum();
        let mut survey = Survey::default();
        for one in &sample.taken {
            survey.add(y(&one.run, one.candidate.weight.value()), one.inclusion_probability, 1).expect("valid");
        }
        let (total, share) = (survey.total(0.9).expect("rows"), survey.mean(0.9).expect("rows"));
        let covers = |found: &bellwether_sample::survey::Estimate, truth: f64| {
            f64::from(u8::from(found.interval.low <= truth && truth <= found.interval.high))
        };
        totals += covers(&total, truth);
        shares += covers(&share, truth / 1_000.0);
        sum += total.value;
        repetitions += 1.0;
    });
    assert!(totals / repetitions >= 0.9, "intervals of the total cover {}", totals / repetitions);
    assert!(shares / repetitions >= 0.9, "intervals of the share cover {}", shares / repetitions);
    let bias = sum / repetitions / truth - 1.0;
    assert!(bias.abs() < 0.03, "the total is off by {bias}");
}

#[test]
fn the_producers_sampling_is_folded_in() {
    let mut population = Population::new("w");
    let mut random = Random(2);
    for n in 0..20 {
        let mut one = candidate(&mut random);
        one.producer_probability = 0.25;
        population.insert(run(n), one).expect("valid");
    }
    let sample = population.draw(&Budget { items: 1_000, per_signature: 1_000, ..BUDGET });
    assert_eq!(sample.taken.len(), 20);
    assert!(sample.taken.iter().all(|one| one.inclusion_probability == 0.25 && one.weight() == 4.0));
}
