//! Tests the targets of the benchmark on few seeds, like `make bench-detection QUICK=1`.

use bellwether_bench_detection::suite::{Plan, run};

#[test]
fn no_target_is_missed_significantly_on_few_seeds() {
    let results = run(&Plan::QUICK, |_| ()).expect("the scenarios run");
    assert!(results.targets.len() >= 20, "{} targets", results.targets.len());
    let failed: Vec<_> = results.targets.iter().filter(|target| target.surely_fails()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // Every row of the tables has a figure.
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
