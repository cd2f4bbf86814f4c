//! The sample of a week: which of its runs are reviewed, and with which probability each was taken.
//!
//! Runs stream by once, in any order. For each cell (kind, stratum, signature) the draw counts the runs by weight and keeps those
//! with the least ranks, as many as a plan can take. The plan then follows from the counts, and the sample from the plan: it is
//! the sample that [`bellwether_sample::Population`] draws, in memory that depends on the number of cells and the budget.
//!
//! Cells are bounded too. If signatures or strata are too many, the draw starts again with coarser ones ([`Detail`]). Whether it
//! does depends on the runs alone, not on their order.

use std::collections::{BTreeMap, BinaryHeap};

use bellwether_sample::allocate::Group;
use bellwether_sample::inclusion::probabilities;
use bellwether_sample::run::Rank;
use bellwether_sample::weight::LEVELS;
use bellwether_sample::{Budget, Cell, Kind, Plan, Run, Weight, plan};

use crate::class::Judgement;
use crate::facts::RunFacts;

/// Most cells of a draw.
const MOST_CELLS: usize = 4096;

/// Most runs that are taken whatever the budget. Beyond this many critical exceptions a week, a sample of them is taken.
const MOST_CRITICAL: usize = 2000;

/// The detail in which signatures and strata are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Tenant, task, release, stage and class; signatures as they are, within their tenant.
    Full,
    /// Signatures by tenant, task and class only.
    Signatures,
    /// Strata by stage and class only, of all tenants.
    Strata,
}

/// A run with its judgement.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub run: RunFacts,
    pub judgement: Judgement,
    pub weight: Weight,
}

/// A run in the sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    pub judged: Judged,
    /// Signature by which it was drawn.
    pub signature: String,
    pub must_take: bool,
    /// Probability with which the plan takes it.
    pub probability: f64,
    /// Runs among which it was drawn.
    pub group_members: u64,
    /// Runs of its signature, and those of them in the sample.
    pub signature_members: u64,
    pub signature_taken: u64,
}

/// A run that a cell keeps, in the order in which a plan takes runs.
struct Kept {
    rank: Rank,
    id: Run,
    judged: Judged,
}

/// The runs with the least ranks.
struct Least {
    most: usize,
    kept: BinaryHeap<Kept>,
}

struct Members {
    cell: Cell,
    least: Least,
}

/// A draw under way.
pub struct Draw {
    salt: String,
    detail: Detail,
    budget: Budget,
    outlier_factor: f64,
    critical: Least,
    critical_runs: u64,
    cells: BTreeMap<(Kind, String, String), Members>,
}

/// A draw has more cells than it may keep: it must start again with this detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFine(pub Detail);

// === impl Detail ===

impl Detail {
    fn stratum(self, run: &RunFacts, judgement: &Judgement) -> String {
        let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
        let class = judgement.class().name().to_owned();
        let parts = match self {
            Self::Full | Self::Signatures => vec![text(&run.task), text(&run.release_id), text(&run.stage), class],
            Self::Strata => return [text(&run.stage), class].join(" / "),
        };
        let tenant = (!run.tenant.is_empty()).then(|| run.tenant.clone());
        tenant.into_iter().chain(parts).collect::<Vec<_>>().join(" / ")
    }

    /// Returns the signature of a run, as it is written to the table.
    fn signature(self, run: &RunFacts, judgement: &Judgement) -> String {
        let class = judgement.class().name();
        match (judgement.kind(), self) {
            (Kind::Failure, Self::Full) => judgement.signature.clone(),
            (Kind::Failure, Self::Signatures) => format!("{class} task={}", run.task.as_deref().unwrap_or_default()),
            (Kind::Failure, Self::Strata) => class.to_owned(),
            (Kind::Uncertain | Kind::Control, _) => String::new(),
        }
    }

    /// Returns the name under which the runs of a signature are counted. It has the tenant, because each tenant has its own places.
    fn counted(self, tenant: &str, signature: &str) -> String {
        match self {
            Self::Full | Self::Signatures if !tenant.is_empty() && !signature.is_empty() => {
                [tenant, signature].join(" | ")
            }
            _ => signature.to_owned(),
        }
    }
}

// === impl Kept ===

impl Kept {
    fn order(&self) -> (Rank, &Run) {
        (self.rank, &self.id)
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Kept {}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

// === impl Least ===

impl Least {
    fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::new() }
    }

    fn push(&mut self, one: Kept) {
        let full = self.kept.len() >= self.most;
        if full && self.kept.peek().is_none_or(|greatest| *greatest <= one) {
            return;
        }
        if full {
            self.kept.pop();
        }
        self.kept.push(one);
    }

    fn in_order(self) -> Vec<Kept> {
        self.kept.into_sorted_vec()
    }
}

// === impl Draw ===

impl Draw {
    /// Starts a draw. The salt names the sample.
    pub fn new(salt: &str, budget: Budget, outlier_factor: f64, detail: Detail) -> Self {
        Self {
            salt: salt.to_owned(),
            detail,
            budget,
            outlier_factor,
            critical: Least::new(MOST_CRITICAL),
            critical_runs: 0,
            cells: BTreeMap::new(),
        }
    }

    /// Takes in a run.
    ///
    /// # Errors
    /// [`TooFine`] if there are too many cells: the draw is of no use.
    pub fn add(&mut self, run: RunFacts) -> Result<(), TooFine> {
        let judgement = Judgement::of(&run, self.outlier_factor);
        let weight = Weight::of(judgement.severity, run.novelty, judgement.uncertainty);
        let id = Run {
            tenant: run.tenant.clone(),
            source: run.source.clone(),
            run_id: run.run_id.clone(),
            attempt: run.attempt,
        };
        let is_critical = run.policy_exceptions.iter().any(|one| one.severity == "critical");
        let (kind, stratum) = (judgement.kind(), self.detail.stratum(&run, &judgement));
        let signature = self.detail.counted(&run.tenant, &self.detail.signature(&run, &judgement));
        let most = usize::try_from(self.budget.items).unwrap_or(usize::MAX);
        let cells = self.cells.len();
        let key = (kind, signature.clone(), stratum.clone());
        if !self.cells.contains_key(&key) && cells >= MOST_CELLS {
            return match self.detail {
                Detail::Full => Err(TooFine(Detail::Signatures)),
                Detail::Signatures | Detail::Strata => Err(TooFine(Detail::Strata)),
            };
        }
        let members = self.cells.entry(key).or_insert_with(|| Members {
            cell: Cell { kind, stratum, signature, must_take: 0, members: [0; LEVELS] },
            least: Least::new(most),
        });
        let rank = Rank::of(id.hash(&self.salt), if is_critical { Weight::ONE } else { weight });
        let kept = Kept { rank, id, judged: Judged { run, judgement, weight } };
        if is_critical {
            members.cell.must_take += 1;
            self.critical_runs += 1;
            self.critical.push(kept);
        } else {
            members.cell.members[weight.level()] += 1;
            members.least.push(kept);
        }
        Ok(())
    }

    /// Returns the plan of the budget, and the sample.
    pub fn finish(self) -> (Plan, Vec<Drawn>) {
        let mut cells: Vec<Members> = self.cells.into_values().collect();
        let counts: Vec<Cell> = cells.iter().map(|members| members.cell.clone()).collect();
        let plan = plan(&counts, &self.budget);
        let named = |cell: &Cell| (cell.kind, cell.signature.clone(), cell.stratum.clone());
        let places: BTreeMap<_, _> = plan.cells.iter().map(named).zip(plan.group_of_cells()).collect();
        let mut drawn = critical_runs(self.critical, self.critical_runs, self.detail);
        let mut groups: Vec<Vec<Kept>> = plan.groups.iter().map(|_| Vec::new()).collect();
        for members in &mut cells {
            if let Some(Some(group)) = places.get(&named(&members.cell)) {
                let least = std::mem::replace(&mut members.least, Least::new(0));
                groups[*group].extend(least.kept);
            }
        }
        for (group, mut kept) in plan.groups.iter().zip(groups) {
            kept.sort_unstable();
            kept.truncate(usize::try_from(group.take).unwrap_or(usize::MAX));
            drawn.extend(kept.into_iter().map(|kept| of_group(kept, group, self.detail)));
        }
        count_signatures(&plan, self.detail, &mut drawn);
        (plan, drawn)
    }
}

/// Returns the runs that are taken whatever the budget. If there are too many, a sample of them, each with the same probability.
fn critical_runs(least: Least, all: u64, detail: Detail) -> Vec<Drawn> {
    let mut counts = [0; LEVELS];
    counts[Weight::ONE.level()] = all;
    let kept = least.in_order();
    let probability = probabilities(&counts, kept.len() as u64)[Weight::ONE.level()];
    let of = |kept: Kept| Drawn {
        signature: detail.signature(&kept.judged.run, &kept.judged.judgement),
        must_take: true,
        probability,
        group_members: all,
        signature_members: 0,
        signature_taken: 0,
        judged: kept.judged,
    };
    kept.into_iter().map(of).collect()
}

fn of_group(kept: Kept, group: &Group, detail: Detail) -> Drawn {
    Drawn {
        signature: detail.signature(&kept.judged.run, &kept.judged.judgement),
        must_take: false,
        probability: group.probability[kept.judged.weight.level()],
        group_members: group.members.iter().sum(),
        signature_members: 0,
        signature_taken: 0,
        judged: kept.judged,
    }
}

fn count_signatures(plan: &Plan, detail: Detail, drawn: &mut [Drawn]) {
    let counted = |one: &Drawn| detail.counted(&one.judged.run.tenant, &one.signature);
    let mut taken: BTreeMap<String, u64> = BTreeMap::new();
    for one in drawn.iter() {
        *taken.entry(counted(one)).or_default() += 1;
    }
    for one in drawn {
        let name = counted(one);
        one.signature_taken = taken.get(&name).copied().unwrap_or(1);
        let members = plan.signatures.get(&name).map(|share| share.members);
        one.signature_members = members.unwrap_or(one.group_members).max(one.signature_taken);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use bellwether_sample::weight::Novelty;

    use super::*;
    use crate::facts::PolicyException;
    use crate::settings::EvalsSettings;

    fn run(number: usize, outcome: &str) -> RunFacts {
        RunFacts {
            source: "app".to_owned(),
            run_id: format!("r{number}"),
            attempt: 1,
            task: Some(format!("t{}", number % 3)),
            outcome_status: Some(outcome.to_owned()),
            failure_error_type: Some(format!("E{}", number % 2)),
            ..RunFacts::default()
        }
    }

    fn critical(number: usize) -> RunFacts {
        let policy = PolicyException { policy_id: "pii".to_owned(), severity: "critical".to_owned() };
        RunFacts { policy_exceptions: vec![policy], ..run(number, "success") }
    }

    fn drawn(runs: impl IntoIterator<Item = RunFacts>) -> (Plan, Vec<Drawn>) {
        let settings = EvalsSettings::default();
        let mut draw = Draw::new("2026-W49", settings.budget(), settings.outlier_factor, Detail::Full);
        for run in runs {
            draw.add(run).expect("few cells");
        }
        draw.finish()
    }

    fn ids(drawn: &[Drawn]) -> Vec<String> {
        let mut ids: Vec<String> = drawn.iter().map(|one| one.judged.run.run_id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    fn mixed() -> Vec<RunFacts> {
        let of = |number: usize| match number % 10 {
            0..=5 => run(number, "success"),
            6 | 7 => run(number, "failure"),
            8 => run(number, "timeout"),
            _ if number.is_multiple_of(50) => critical(number),
            _ => run(number, "unknown"),
        };
        (0..1000).map(of).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_order_of_runs_changes_nothing(runs in Just(mixed()).prop_shuffle()) {
            let (plan, sample) = drawn(mixed());
            let (other_plan, mut other) = drawn(runs);
            let by_id = |one: &Drawn| one.judged.run.run_id.clone();
            let mut sample = sample;
            sample.sort_by_key(by_id);
            other.sort_by_key(by_id);
            prop_assert_eq!(plan, other_plan);
            prop_assert_eq!(sample, other);
        }
    }

    #[test]
    fn the_budget_is_used_and_each_signature_is_seen() {
        let (plan, sample) = drawn(mixed());
        assert_eq!(sample.len(), 50);
        assert_eq!(plan.taken(), 50);
        for (name, share) in &plan.signatures {
            assert!(share.covered && sample.iter().any(|one| one.signature == *name), "{name}");
        }
        assert!(sample.iter().any(|one| one.judged.judgement.kind() == Kind::Control));
        assert!(sample.iter().any(|one| one.judged.judgement.kind() == Kind::Uncertain));
    }

    #[test]
    fn all_critical_exceptions_are_taken_beyond_the_budget() {
        let runs = (0..120).map(critical).chain((120..400).map(|number| run(number, "failure")));
        let (_, sample) = drawn(runs);
        let of_critical = sample.iter().filter(|one| one.must_take);
        assert_eq!(of_critical.clone().count(), 120);
        assert!(of_critical.clone().all(|one| one.probability == 1.0));
        assert_eq!(sample.len(), 120, "they use up the budget");
    }

    #[test]
    fn a_flood_of_critical_exceptions_is_sampled_with_a_known_probability() {
        let (_, sample) = drawn((0..2 * MOST_CRITICAL).map(critical));
        assert_eq!(sample.len(), MOST_CRITICAL);
        assert!(sample.iter().all(|one| (one.probability - 0.5).abs() < 1e-9), "{}", sample[0].probability);
    }

    #[test]
    fn too_many_signatures_make_the_draw_coarser_and_memory_stays_bounded() {
        let settings = EvalsSettings::default();
        let runs = || {
            (0..MOST_CELLS + 10)
                .map(|number| RunFacts { failure_error_type: Some(number.to_string()), ..run(number, "failure") })
        };
        let add = |detail: Detail| {
            let mut draw = Draw::new("w", settings.budget(), settings.outlier_factor, detail);
            runs().try_for_each(|run| draw.add(run)).map(|()| draw.finish().1)
        };
        assert_eq!(add(Detail::Full).expect_err("too fine"), TooFine(Detail::Signatures));
        let coarse = add(Detail::Signatures).expect("three signatures");
        assert_eq!(coarse.len(), 15, "five of each");
    }

    #[test]
    fn tenants_have_places_and_counts_of_their_own() {
        let of = |tenant: &str, numbers: std::ops::Range<usize>| {
            let tenant = tenant.to_owned();
            numbers.map(move |number| RunFacts {
                tenant: tenant.clone(),
                task: Some("refund".to_owned()),
                release_id: Some("v1".to_owned()),
                failure_error_type: Some("Boom".to_owned()),
                ..run(number, "failure")
            })
        };
        let (plan, sample) = drawn(of("a", 0..100).chain(of("b", 100..107)));
        let taken = |tenant: &str| sample.iter().filter(|one| one.judged.run.tenant == tenant).collect::<Vec<_>>();
        assert_eq!((taken("a").len(), taken("b").len(), plan.strata.len()), (5, 5, 2), "five of each");
        for (tenant, members) in [("a", 100), ("b", 7)] {
            let counts = |one: &Drawn| (one.signature_members, one.signature_taken);
            assert!(taken(tenant).iter().all(|one| counts(one) == (members, 5)), "{sample:?}");
        }
        assert_eq!(taken("a")[0].signature, taken("b")[0].signature, "the signature names the cause alone");
    }

    #[test]
    fn failures_without_a_stated_cause_fill_the_budget() {
        let plain = |number: usize| RunFacts { failure_error_type: None, ..run(number, "failure") };
        let (_, sample) = drawn((0..300).map(plain));
        assert!(sample[0].signature.ends_with(" | unexplained"), "{}", sample[0].signature);
        assert_eq!(sample.len(), 50);
    }

    #[test]
    fn few_failures_of_a_new_release_are_in_a_crowded_sample() {
        // Sixty signatures for fifty places; each has a hundred failures of the old release and two of the other one.
        let failures = |release: &'static str, numbers: std::ops::Range<usize>, novelty: Novelty| {
            numbers.map(move |number| RunFacts {
                failure_error_type: Some(format!("E{}", number % 60)),
                release_id: Some(release.to_owned()),
                novelty,
                ..run(number, "failure")
            })
        };
        let expected = |novelty: Novelty| {
            let runs = failures("old", 0..6_000, Novelty::Known).chain(failures("other", 6_000..6_120, novelty));
            let (plan, _) = drawn(runs);
            let of_other = plan.strata.iter().find(|(name, _)| name.contains("other")).expect("a stratum");
            of_other.1.expected
        };
        let (known, new) = (expected(Novelty::Known), expected(Novelty::New));
        assert!(new > 3.0 * known, "four times as likely: {new} instead of {known}");
    }

    #[test]
    fn a_run_that_leaves_makes_room_for_the_next_one_of_its_group() {
        let failures: Vec<RunFacts> = (0..40).map(|number| run(number * 21, "failure")).collect();
        let (_, before) = drawn(failures.clone());
        let gone = before[0].judged.run.run_id.clone();
        let (_, after) = drawn(failures.into_iter().filter(|run| run.run_id != gone));
        let stay: Vec<String> = ids(&before).into_iter().filter(|id| *id != gone).collect();
        assert_eq!(after.len(), before.len());
        assert!(stay.iter().all(|id| ids(&after).contains(id)), "the others stay");
    }
}
