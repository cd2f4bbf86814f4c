//! The plan of a sample: how many runs are taken of each signature and stratum.
//!
//! A plan is a function of counts and a budget, never of ranks, so inclusion probabilities follow from it exactly.
//!
//! 1. Must-take runs are all taken. They count towards the budget and may exceed it.
//! 2. The rest of the budget is divided among failures, uncertain runs and success controls. Places that one kind
//!    cannot fill go to the others.
//! 3. Each signature gets a place, the strongest first; strength is √Σweight, so large and severe ones come first. If
//!    the budget is smaller than the number of signatures, the weakest share some places: no run has probability 0.
//! 4. Strata without a run in the sample get a place through one of their signatures, as long as its cap allows.
//! 5. The remaining places go, one by one, to the signature with the greatest strength / √(k (k + 1)), up to its cap.
//!    This is the method of Huntington and Hill, a division in proportion to strength in whole numbers (Neyman's
//!    allocation, JRSS 97, 1934, for equal variances; exact in whole numbers: Wright, "The equivalence of Neyman
//!    optimum allocation and Hill's method", American Statistician 66, 2012).
//! 6. Within a signature, its strata are groups of their own if it has a place for each; otherwise those of step 4 are,
//!    and the others form one group.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use crate::inclusion::probabilities;
use crate::signature::Signature as FailureSignature;
use crate::weight::{LEVELS, Weight};

/// Why a run is a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It failed, or has a policy exception, a bad verdict or bad feedback.
    Failure,
    /// Its verdicts disagree or are near their threshold.
    Uncertain,
    /// It passed, and shows how many failures pass unseen.
    Control,
}

/// A weekly budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Runs to review.
    pub items: u64,
    /// Runs of one signature at most, without must-takes; at least 1. Runs without a signature, or without any known cause, have
    /// no cap.
    pub per_signature: u64,
    /// Share of the budget for uncertain runs, 0 to 1.
    pub uncertain_share: f64,
    /// Share of the budget for success controls, 0 to 1.
    pub control_share: f64,
}

/// Counts of the candidates that share kind, stratum and signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Kind of all of them.
    pub kind: Kind,
    /// Task, release, stage and failure class, as one text.
    pub stratum: String,
    /// Failure signature; empty if there is none.
    pub signature: String,
    /// Number that must be taken.
    pub must_take: u64,
    /// Number of the others by weight.
    pub members: [u64; LEVELS],
}

/// Runs among which places are drawn by rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Kind of all of them.
    pub kind: Kind,
    /// Places of the cells in [`Plan::cells`].
    pub cells: Vec<usize>,
    /// Number by weight, without must-takes.
    pub members: [u64; LEVELS],
    /// Number taken.
    pub take: u64,
    /// Inclusion probability by weight.
    pub probability: [f64; LEVELS],
}

/// How many candidates of a signature or of a stratum are taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Share {
    /// Candidates, must-takes included.
    pub members: u64,
    /// Number that must be taken.
    pub must_take: u64,
    /// Number taken, must-takes included: exact if no group of several cells is concerned, else its expectation.
    pub expected: f64,
    /// True if at least one is taken for certain.
    pub covered: bool,
}

/// A division of a budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Counts that were planned, in order of kind, signature and stratum.
    pub cells: Vec<Cell>,
    /// Groups and their takes. Cells without a place in any group have only must-takes, or the budget is used up.
    pub groups: Vec<Group>,
    /// Runs taken in any case.
    pub must_take: u64,
    /// Must-takes beyond the budget.
    pub over_budget: u64,
    /// By signature, without the empty one.
    pub signatures: BTreeMap<String, Share>,
    /// By stratum.
    pub strata: BTreeMap<String, Share>,
}

/// Divides a budget among cells. Cells with equal kind, stratum and signature are added up.
pub fn plan(cells: &[Cell], budget: &Budget) -> Plan {
    let cells = folded(cells);
    let must_take: u64 = cells.iter().map(|cell| cell.must_take).sum();
    let places = divided(&cells, budget.items.saturating_sub(must_take), budget);
    let groups = [Kind::Failure, Kind::Uncertain, Kind::Control]
        .into_iter()
        .zip(places)
        .flat_map(|(kind, places)| Division::new(&cells, kind, places, budget.per_signature.max(1)).groups())
        .collect();
    let mut plan = Plan {
        cells,
        groups,
        must_take,
        over_budget: must_take.saturating_sub(budget.items),
        signatures: BTreeMap::new(),
        strata: BTreeMap::new(),
    };
    plan.summarise();
    plan
}

// === impl Plan ===

impl Plan {
    /// Returns the number of runs taken.
    pub fn taken(&self) -> u64 {
        self.must_take + self.groups.iter().map(|group| group.take).sum::<u64>()
    }

    /// Returns the group of each cell; `None` if it has no group.
    pub fn group_of_cells(&self) -> Vec<Option<usize>> {
        let mut found = vec![None; self.cells.len()];
        for (place, group) in self.groups.iter().enumerate() {
            group.cells.iter().for_each(|cell| found[*cell] = Some(place));
        }
        found
    }

    fn summarise(&mut self) {
        let groups = self.group_of_cells();
        let (mut signatures, mut strata) = (BTreeMap::new(), BTreeMap::new());
        for (cell, group) in self.cells.iter().zip(groups) {
            let group_found = group.map(|group| &self.groups[group]);
            let sampled: f64 = group_found.map_or(0.0, |group| {
                (0..LEVELS).map(|level| number(cell.members[level]) * group.probability[level]).sum()
            });
            let alone = group_found.is_some_and(|group| group.take > 0 && group.cells.len() == 1);
            let one_signature = group_found.is_some_and(|group| {
                group.take > 0 && group.cells.iter().all(|other| self.cells[*other].signature == cell.signature)
            });
            let add = |share: &mut Share, covered: bool| {
                share.members += cell.must_take + cell.members.iter().sum::<u64>();
                share.must_take += cell.must_take;
                share.expected += number(cell.must_take) + sampled;
                share.covered |= covered || cell.must_take > 0;
            };
            add(strata.entry(cell.stratum.clone()).or_default(), alone);
            if !cell.signature.is_empty() {
                add(signatures.entry(cell.signature.clone()).or_default(), one_signature);
            }
        }
        self.signatures = signatures;
        self.strata = strata;
    }
}

// === impl Share ===

impl Share {
    /// Returns the expected number of candidates that are not taken.
    pub fn suppressed(&self) -> f64 {
        number(self.members) - self.expected
    }
}

/// Adds up cells with equal names, and sorts them.
fn folded(cells: &[Cell]) -> Vec<Cell> {
    let mut sums: BTreeMap<(Kind, &str, &str), Cell> = BTreeMap::new();
    for cell in cells {
        let sum = sums.entry((cell.kind, &cell.signature, &cell.stratum)).or_insert_with(|| Cell {
            must_take: 0,
            members: [0; LEVELS],
            ..cell.clone()
        });
        sum.must_take += cell.must_take;
        sum.members.iter_mut().zip(cell.members).for_each(|(sum, more)| *sum += more);
    }
    sums.into_values().collect()
}

/// Divides places among failures, uncertain runs and controls.
fn divided(cells: &[Cell], places: u64, budget: &Budget) -> [u64; 3] {
    let there = |kind: Kind| cells.iter().filter(|cell| cell.kind == kind).map(Cell::sampled).sum::<u64>();
    let members = [there(Kind::Failure), there(Kind::Uncertain), there(Kind::Control)];
    let share = |share: f64, members: u64| -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the budget")]
        let wanted = (number(places) * share.clamp(0.0, 1.0)).round() as u64;
        wanted.min(members)
    };
    let control = share(budget.control_share, members[2]);
    let uncertain = share(budget.uncertain_share, members[1]).min(places - control);
    let mut found = [(places - control - uncertain).min(room(cells, Kind::Failure, budget)), uncertain, control];
    // Failures cannot use more than their caps allow; the rest goes to uncertain runs, then to controls.
    for (place, kind) in [(1, Kind::Uncertain), (2, Kind::Control), (0, Kind::Failure)] {
        let left = places - found.iter().sum::<u64>();
        found[place] += left.min(room(cells, kind, budget).saturating_sub(found[place]));
    }
    found
}

/// Returns the number of places that a kind can fill within the caps.
fn room(cells: &[Cell], kind: Kind, budget: &Budget) -> u64 {
    let mut by_signature: BTreeMap<&str, u64> = BTreeMap::new();
    for cell in cells.iter().filter(|cell| cell.kind == kind) {
        *by_signature.entry(&cell.signature).or_default() += cell.sampled();
    }
    by_signature.into_iter().map(|(name, members)| members.min(cap(name, budget.per_signature.max(1)))).sum()
}

/// Returns the most runs of a signature that may be taken. Runs without a signature or a known cause need not be alike, so there is no
/// cap for them.
pub fn cap(signature: &str, per_signature: u64) -> u64 {
    if signature.is_empty() || FailureSignature::is_unexplained(signature) { u64::MAX } else { per_signature }
}

// === impl Cell ===

impl Cell {
    /// Returns the number that takes part in the draw.
    pub fn sampled(&self) -> u64 {
        self.members.iter().sum()
    }

    fn strength(&self) -> f64 {
        weight_of(&self.members).sqrt()
    }
}

fn weight_of(members: &[u64; LEVELS]) -> f64 {
    (0_u8..).zip(members).map(|(level, count)| number(*count) * Weight::of_level(level).value()).sum()
}

/// One signature of a kind while places are divided.
#[derive(Debug)]
struct Signature<'a> {
    name: &'a str,
    cells: Vec<usize>,
    /// Cells that get a group of their own in any case.
    wanted: BTreeSet<usize>,
    strength: f64,
    limit: u64,
    places: u64,
}

impl Signature<'_> {
    fn full(&self) -> bool {
        self.places >= self.limit
    }

    /// Returns true if each stratum has a group of its own.
    fn apart(&self) -> bool {
        self.places >= self.cells.len() as u64
    }
}

/// A stratum: its weight, and its signatures and cells.
type Places = (f64, Vec<(usize, usize)>);

/// The division of the places of one kind.
struct Division<'a> {
    cells: &'a [Cell],
    kind: Kind,
    places: u64,
    signatures: Vec<Signature<'a>>,
    /// Number of the strongest signatures with places of their own; the others share `pooled` places.
    own: usize,
    pooled: u64,
}

impl<'a> Division<'a> {
    fn new(cells: &'a [Cell], kind: Kind, places: u64, per_signature: u64) -> Self {
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (place, cell) in cells.iter().enumerate().filter(|(_, cell)| cell.kind == kind && cell.sampled() > 0) {
            by_name.entry(&cell.signature).or_default().push(place);
        }
        let signatures = by_name.into_iter().map(|(name, of_name)| {
            let members = of_name.iter().map(|cell| cells[*cell].sampled()).sum();
            let weight: f64 = of_name.iter().map(|cell| weight_of(&cells[*cell].members)).sum();
            let limit = cap(name, per_signature).min(members);
            let wanted = BTreeSet::new();
            Signature { name, cells: of_name, wanted, strength: weight.sqrt(), limit, places: 0 }
        });
        let mut signatures: Vec<Signature<'a>> = signatures.collect();
        signatures.sort_by(|left, right| by_strength((left.strength, left.name), (right.strength, right.name)));
        let mut division = Self { cells, kind, places, own: signatures.len(), signatures, pooled: 0 };
        division.one_each(per_signature);
        division.cover_strata();
        division.fill();
        division
    }

    /// Gives each signature a place; the weakest share some if there are too few.
    fn one_each(&mut self, per_signature: u64) {
        let count = self.signatures.len() as u64;
        if self.places < count {
            self.pooled = (self.places / 2).max(1).min(per_signature).min(self.places);
            self.own = usize::try_from(self.places - self.pooled).unwrap_or(0);
        }
        self.signatures[..self.own].iter_mut().for_each(|signature| signature.places = 1);
        self.places -= self.pooled + self.own as u64;
    }

    /// Gives each stratum without a certain place one, the strongest strata first.
    fn cover_strata(&mut self) {
        let mut strata: BTreeMap<&str, Places> = BTreeMap::new();
        for (place, signature) in self.signatures[..self.own].iter().enumerate() {
            for cell in &signature.cells {
                let stratum = strata.entry(&self.cells[*cell].stratum).or_default();
                stratum.0 += weight_of(&self.cells[*cell].members);
                stratum.1.push((place, *cell));
            }
        }
        let mut order: Vec<_> = strata.into_iter().collect();
        order.sort_by(|(a, (left, _)), (b, (right, _))| by_strength((*left, a), (*right, b)));
        for (_, (_, members)) in order {
            let covered = |(signature, cell): &(usize, usize)| {
                let signature = &self.signatures[*signature];
                signature.apart() || signature.wanted.contains(cell)
            };
            if self.places == 0 || members.iter().any(covered) {
                continue;
            }
            let free = members.iter().filter(|(signature, _)| !self.signatures[*signature].full());
            let best = free.min_by(|(_, left), (_, right)| {
                let (left, right) = (&self.cells[*left], &self.cells[*right]);
                by_strength((left.strength(), &left.signature), (right.strength(), &right.signature))
            });
            if let Some((signature, cell)) = best {
                self.signatures[*signature].wanted.insert(*cell);
                self.signatures[*signature].places += 1;
                self.places -= 1;
            }
        }
    }

    /// Gives the remaining places away in proportion to strength.
    fn fill(&mut self) {
        let own = &mut self.signatures[..self.own];
        let shares: Vec<Claim> =
            own.iter().map(|signature| (signature.strength, signature.places, signature.limit)).collect();
        for (signature, places) in own.iter_mut().zip(hill(&shares, self.places)) {
            signature.places = places;
        }
    }

    fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for signature in &self.signatures[..self.own] {
            if signature.apart() {
                let claims: Vec<Claim> = signature
                    .cells
                    .iter()
                    .map(|cell| (self.cells[*cell].strength(), 1, self.cells[*cell].sampled()))
                    .collect();
                let more = signature.places - signature.cells.len() as u64;
                let takes = hill(&claims, more);
                groups.extend(signature.cells.iter().zip(takes).map(|(cell, take)| self.group(vec![*cell], take)));
            } else {
                groups.extend(signature.wanted.iter().map(|cell| self.group(vec![*cell], 1)));
                let rest = signature.cells.iter().copied().filter(|cell| !signature.wanted.contains(cell)).collect();
                groups.push(self.group(rest, signature.places - signature.wanted.len() as u64));
            }
        }
        if self.pooled > 0 {
            let cells = self.signatures[self.own..].iter().flat_map(|signature| signature.cells.clone()).collect();
            groups.push(self.group(cells, self.pooled));
        }
        groups
    }

    fn group(&self, cells: Vec<usize>, take: u64) -> Group {
        let mut members = [0; LEVELS];
        for cell in &cells {
            members.iter_mut().zip(self.cells[*cell].members).for_each(|(sum, more)| *sum += more);
        }
        let take = take.min(members.iter().sum());
        Group { kind: self.kind, probability: probabilities(&members, take), cells, members, take }
    }
}

/// A claim to places: strength, places so far, greatest number of places.
type Claim = (f64, u64, u64);

/// Gives up to `more` places, each to the greatest strength / √(k (k + 1)); returns the places of each claim.
fn hill(claims: &[Claim], mut more: u64) -> Vec<u64> {
    #[derive(PartialEq)]
    struct Next(f64, usize);
    impl Eq for Next {}
    impl PartialOrd for Next {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Next {
        fn cmp(&self, other: &Self) -> Ordering {
            self.0.total_cmp(&other.0).then_with(|| other.1.cmp(&self.1))
        }
    }
    let quotient = |strength: f64, places: u64| strength / (number(places) * (number(places) + 1.0)).sqrt();
    let mut places: Vec<u64> = claims.iter().map(|claim| claim.1).collect();
    let open = claims.iter().enumerate().filter(|(_, claim)| claim.1 < claim.2);
    let mut heap: BinaryHeap<Next> = open.map(|(place, claim)| Next(quotient(claim.0, claim.1), place)).collect();
    while more > 0 {
        let Some(Next(_, place)) = heap.pop() else { break };
        places[place] += 1;
        more -= 1;
        if places[place] < claims[place].2 {
            heap.push(Next(quotient(claims[place].0, places[place]), place));
        }
    }
    places
}

/// Orders by falling strength, then by name.
fn by_strength(left: (f64, &str), right: (f64, &str)) -> Ordering {
    right.0.total_cmp(&left.0).then_with(|| left.1.cmp(right.1))
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
