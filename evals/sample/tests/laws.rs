//! The sample is a function of the set of candidates, and keeps its promises about budget, caps and coverage.

use bellwether_sample::{Budget, Kind, Population, Sample};
use proptest::prelude::*;

use crate::{BUDGET, Random, candidate, run, week};

fn members(population: &Population) -> Vec<(bellwether_sample::Run, bellwether_sample::Candidate)> {
    population.members().map(|(run, candidate)| (run.clone(), candidate.clone())).collect()
}

fn filled(members: impl IntoIterator<Item = (bellwether_sample::Run, bellwether_sample::Candidate)>) -> Population {
    let mut population = Population::new("2026-W14");
    for (run, candidate) in members {
        population.insert(run, candidate).expect("valid");
    }
    population
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn order_replay_and_split_into_shards_change_nothing(seed in any::<u64>(), size in 0_u64..400, shards in 1_usize..5) {
        let all = week(seed, size);
        let drawn = all.draw(&BUDGET);
        let mut backwards = members(&all);
        backwards.reverse();
        let replayed = backwards.iter().chain(&members(&all)).cloned().collect::<Vec<_>>();
        prop_assert_eq!(&filled(replayed).draw(&BUDGET), &drawn);
        let mut parts = vec![Population::new("2026-W14"); shards];
        for (place, (run, candidate)) in members(&all).into_iter().enumerate() {
            parts[place % shards].insert(run, candidate).expect("valid");
        }
        let mut merged = Population::new("2026-W14");
        parts.into_iter().rev().for_each(|part| merged.merge(part).expect("the same week"));
        prop_assert_eq!(&merged.draw(&BUDGET), &drawn);
    }

    #[test]
    fn a_withdrawn_run_was_never_there(seed in any::<u64>(), size in 1_u64..300, gone in any::<prop::sample::Index>()) {
        let mut all = week(seed, size);
        let gone = run(gone.index(usize::try_from(size).expect("small")) as u64);
        let without = filled(members(&all).into_iter().filter(|(run, _)| *run != gone));
        let known = all.withdraw(&gone);
        prop_assert!(known.is_some());
        prop_assert_eq!(all.draw(&BUDGET), without.draw(&BUDGET));
        all.insert(gone, known.expect("it was there")).expect("valid");
        prop_assert_eq!(all.draw(&BUDGET), week(seed, size).draw(&BUDGET));
    }

    #[test]
    fn budget_caps_and_probabilities_hold(
        seed in any::<u64>(), size in 0_u64..600, items in 0_u64..120, per_signature in 1_u64..9,
    ) {
        let population = week(seed, size);
        let budget = Budget { items, per_signature, ..BUDGET };
        let Sample { plan, taken, suppressed } = population.draw(&budget);
        let must_take = population.members().filter(|(_, candidate)| candidate.must_take).count() as u64;
        prop_assert_eq!(plan.must_take, must_take);
        prop_assert_eq!(taken.len() as u64, plan.taken());
        prop_assert_eq!(taken.len() as u64, must_take + items.saturating_sub(must_take).min(plan.taken() - must_take));
        prop_assert_eq!(plan.over_budget, must_take.saturating_sub(items));
        for one in &taken {
            prop_assert!(one.probability > 0.0 && one.probability <= 1.0);
            prop_assert_eq!(one.probability == 1.0 && one.group.is_none(), one.candidate.must_take);
        }
        for (signature, suppressed) in &suppressed {
            let of_it = |one: &bellwether_sample::Candidate| one.signature == *signature;
            let there = population.members().filter(|(_, candidate)| of_it(candidate)).count() as u64;
            let found = taken.iter().filter(|one| of_it(&one.candidate)).count() as u64;
            let sampled = taken.iter().filter(|one| of_it(&one.candidate) && !one.candidate.must_take).count() as u64;
            prop_assert_eq!(there - found, *suppressed);
            prop_assert!(sampled <= per_signature, "{} of {}", sampled, signature);
        }
        // Whatever can be taken has a probability, and the probabilities of a group add up to its places.
        let groups = plan.group_of_cells();
        for (cell, group) in plan.cells.iter().zip(groups) {
            let places = items > must_take;
            prop_assert!(cell.sampled() == 0 || group.is_some() || !places || cell.kind != Kind::Failure, "{:?}", cell);
        }
        for group in &plan.groups {
            let sum: f64 = group.members.iter().zip(group.probability).map(|(n, p)| *n as f64 * p).sum();
            prop_assert!((sum - group.take as f64).abs() < 1e-9, "{} of {:?}", sum, group);
        }
    }
}

#[test]
fn every_signature_and_every_stratum_is_there_while_the_budget_lasts() {
    let sample = week(3, 2_000).draw(&BUDGET);
    assert_eq!(sample.taken.len(), 50);
    for (name, share) in &sample.plan.signatures {
        assert!(share.covered && sample.taken.iter().any(|one| one.candidate.signature == *name), "{name}");
    }
    for (name, share) in &sample.plan.strata {
        assert!(share.covered && sample.taken.iter().any(|one| one.candidate.stratum == *name), "{name}");
    }
    assert!(sample.suppressed["tool=refund|error=timeout"] > 700, "{:?}", sample.suppressed);
}

#[test]
fn one_run_more_changes_few_places() {
    let mut random = Random(71);
    let mut population = week(8, 1_500);
    let before = population.draw(&BUDGET);
    let mut changed = Vec::new();
    for n in 0..40 {
        population.insert(run(10_000 + n), candidate(&mut random)).expect("valid");
        let after = population.draw(&BUDGET);
        let kept = before.taken.iter().filter(|one| after.taken.iter().any(|other| other.run == one.run)).count();
        changed.push(before.taken.len() - kept);
        population.withdraw(&run(10_000 + n));
    }
    let mean = changed.iter().sum::<usize>() as f64 / changed.len() as f64;
    assert!(mean < 3.0, "{mean} of 50 places changed on average: {changed:?}");
}

#[test]
fn populations_of_different_weeks_do_not_mix_and_impossible_probabilities_are_refused() {
    let mut population = week(1, 3);
    assert!(population.merge(Population::new("2026-W15")).is_err());
    let mut wrong = candidate(&mut Random(1));
    wrong.producer_probability = 0.0;
    assert!(population.insert(run(9), wrong.clone()).is_err());
    wrong.producer_probability = f64::NAN;
    assert!(population.insert(run(9), wrong).is_err());
    assert_eq!(population.len(), 3);
}

#[test]
fn without_budget_only_critical_runs_are_taken_and_more_than_the_budget_is_said_so() {
    let mut population = week(4, 300);
    for n in 0..7 {
        let mut critical = candidate(&mut Random(n));
        critical.must_take = true;
        population.insert(run(n), critical).expect("valid");
    }
    let must_take = population.members().filter(|(_, candidate)| candidate.must_take).count() as u64;
    let sample = population.draw(&Budget { items: 2, ..BUDGET });
    assert_eq!((sample.taken.len() as u64, sample.plan.over_budget), (must_take, must_take - 2));
    assert!(sample.taken.iter().all(|one| one.candidate.must_take && one.probability == 1.0));
}
