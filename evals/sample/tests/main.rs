//! Tests of the sample as a whole: its laws, its coverage of signatures and strata, and the truth of its estimates.

mod estimates;
mod laws;

use bellwether_sample::{Budget, Candidate, Kind, Population, Run, Weight};

/// SplitMix64 (Steele, Lea & Flood 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn uniform(&mut self) -> f64 {
        bellwether_sample::run::uniform(self.next())
    }
}

pub(crate) fn run(n: u64) -> Run {
    Run { tenant: "acme".to_owned(), source: "desk".to_owned(), run_id: format!("run-{n}"), attempt: 1 }
}

pub(crate) const BUDGET: Budget = Budget { items: 50, per_signature: 5, uncertain_share: 0.1, control_share: 0.2 };

/// Returns a candidate of a week: one large incident, many small signatures, some critical exceptions, and controls.
pub(crate) fn candidate(random: &mut Random) -> Candidate {
    let (kind, signature) = match random.below(100) {
        0..40 => (Kind::Failure, "tool=refund|error=timeout".to_owned()),
        40..60 => (Kind::Failure, format!("rule={}", random.below(20))),
        60..65 => (Kind::Uncertain, String::new()),
        _ => (Kind::Control, String::new()),
    };
    Candidate {
        kind,
        stratum: format!("refunds|r{}|{}", random.below(3), ["canary", "full"][random.below(2) as usize]),
        signature,
        weight: Weight::of_level(u8::try_from(random.below(6)).expect("small")),
        must_take: kind == Kind::Failure && random.below(200) == 0,
        producer_probability: [1.0, 1.0, 0.25][random.below(3) as usize],
    }
}

pub(crate) fn week(seed: u64, size: u64) -> Population {
    let mut random = Random(seed);
    let mut population = Population::new("2026-W14");
    for n in 0..size {
        population.insert(run(n), candidate(&mut random)).expect("a valid probability");
    }
    population
}
