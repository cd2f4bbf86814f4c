//! The targets of the bench, on few seeds: what `make bench-detection QUICK=1` runs.

use bellwether_bench_detection::suite::{Plan, run};

#[test]
fn every_target_holds_on_few_seeds_as_far_as_chance_can_tell() {
    let results = run(&Plan::QUICK, |_| ()).expect("the scenarios run");
    assert!(results.targets.len() >= 20, "{} targets", results.targets.len());
    let failed: Vec<_> = results.targets.iter().filter(|target| target.surely_fails()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // The tables are not empty if they have to say something.
    for row in results.releases.iter().chain(&results.past).chain(&results.others) {
        assert!(row.alarmed.is_some() || row.false_a_week.is_some() || row.other.is_some(), "{row:?}");
    }
}

#[test]
fn the_same_seeds_give_the_same_numbers() {
    let plan = Plan { seeds: 2, nulls: 4, ..Plan::QUICK };
    let text = || {
        let results = run(&plan, |_| ()).expect("the scenarios run");
        serde_json::to_string(&results).expect("numbers")
    };
    assert_eq!(text(), text());
}
