//! Tests all shipped rules together over a few fleets without a fault.

use bellwether_bench::all_rules::{Arguments, run};

#[test]
fn all_shipped_rules_together_stay_within_the_budget() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let arguments = Arguments {
        seeds: number("FLEET_SEEDS", 3),
        faults: number("FLEET_FAULTS", 0),
        first: number("FLEET_FIRST", 20_000),
        page: None,
    };
    assert!(run(&arguments).expect("the rules run"), "more pages than the budget allows");
}
