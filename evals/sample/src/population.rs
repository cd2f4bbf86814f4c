//! The candidates of a week, and the sample drawn from them.
//!
//! A population is a set: its plan, its sample and all probabilities are functions of its members alone. A run that is
//! withdrawn, because a late verdict clears it, leaves the population as if it had never been in it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bellwether_stats::Invalid;

use crate::allocate::{Budget, Cell, Kind, Plan, plan};
use crate::run::{Rank, Run};
use crate::weight::{LEVELS, Weight};

/// A run that may be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Why it is a candidate.
    pub kind: Kind,
    /// Task, release, stage and failure class, as one text.
    pub stratum: String,
    /// Failure signature; empty if there is none.
    pub signature: String,
    /// Weight in the draw.
    pub weight: Weight,
    /// True if it is taken in any case, such as a critical exception.
    pub must_take: bool,
    /// Probability with which its producer reported it, above 0 and at most 1.
    pub producer_probability: f64,
}

/// The candidates of a week, by run.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    salt: String,
    members: BTreeMap<Run, Candidate>,
}

/// A run that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The run.
    pub run: Run,
    /// The candidate.
    pub candidate: Candidate,
    /// Place of its group in the plan's groups; `None` for a must-take.
    pub group: Option<usize>,
    /// Probability with which the plan takes it, given that it was reported.
    pub probability: f64,
    /// Probability with which it was reported and taken. Its inverse is the weight of the run in every estimate.
    pub inclusion_probability: f64,
}

/// A sample: a plan, and the runs that it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Division of the budget.
    pub plan: Plan,
    /// Runs taken, in order of their identity.
    pub taken: Vec<Taken>,
    /// Candidates not taken, by signature; without those of the empty signature.
    pub suppressed: BTreeMap<String, u64>,
}

// === impl Population ===

impl Population {
    /// Creates an empty population. The salt names the sample, such as `2026-W14`.
    pub fn new(salt: impl Into<String>) -> Self {
        Self { salt: salt.into(), members: BTreeMap::new() }
    }

    /// Adds a run, or replaces what was known of it; returns what was known.
    ///
    /// # Errors
    /// The producer's probability is not above 0 and at most 1.
    pub fn insert(&mut self, run: Run, candidate: Candidate) -> Result<Option<Candidate>, Invalid> {
        let probability = candidate.producer_probability;
        if !(probability > 0.0 && probability <= 1.0) {
            return Err(Invalid::new("producer_probability", probability, "above 0 and at most 1"));
        }
        Ok(self.members.insert(run, candidate))
    }

    /// Removes a run; returns what was known of it.
    pub fn withdraw(&mut self, run: &Run) -> Option<Candidate> {
        self.members.remove(run)
    }

    /// Adds the members of another part of the same week. If both know a run, the greater statement counts (by
    /// must-take, weight, kind, stratum, signature and probability), so that parts can be merged in any order.
    ///
    /// # Errors
    /// The salts differ.
    pub fn merge(&mut self, other: Self) -> Result<(), Invalid> {
        if self.salt != other.salt {
            return Err(Invalid::new("salt", other.salt, "that of the population it is merged into"));
        }
        for (run, candidate) in other.members {
            match self.members.entry(run) {
                Entry::Vacant(place) => {
                    place.insert(candidate);
                }
                Entry::Occupied(mut place) => {
                    if place.get().order(&candidate).is_lt() {
                        place.insert(candidate);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns true if it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns the members in order of their identity.
    pub fn members(&self) -> impl Iterator<Item = (&Run, &Candidate)> {
        self.members.iter()
    }

    /// Returns the counts that a plan needs.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells: BTreeMap<(Kind, &str, &str), Cell> = BTreeMap::new();
        for candidate in self.members.values() {
            let cell = cells.entry(candidate.cell()).or_insert_with(|| Cell {
                kind: candidate.kind,
                stratum: candidate.stratum.clone(),
                signature: candidate.signature.clone(),
                must_take: 0,
                members: [0; LEVELS],
            });
            if candidate.must_take {
                cell.must_take += 1;
            } else {
                cell.members[candidate.weight.level()] += 1;
            }
        }
        cells.into_values().collect()
    }

    /// Draws the sample of a budget.
    pub fn draw(&self, budget: &Budget) -> Sample {
        self.draw_planned(plan(&self.cells(), budget))
    }

    /// Draws the sample of a plan, which must be that of [`Self::cells`]: members of other cells are not taken.
    pub fn draw_planned(&self, plan: Plan) -> Sample {
        let groups = plan.group_of_cells();
        let by_name: BTreeMap<(Kind, &str, &str), Option<usize>> = plan
            .cells
            .iter()
            .zip(groups)
            .map(|(cell, group)| ((cell.kind, cell.signature.as_str(), cell.stratum.as_str()), group))
            .collect();
        let mut taken = Vec::new();
        let mut drawn: Vec<Vec<(Rank, &Run, &Candidate)>> = vec![Vec::new(); plan.groups.len()];
        for (run, candidate) in &self.members {
            if candidate.must_take {
                taken.push(Taken::new(run, candidate, None, 1.0));
            } else if let Some(Some(group)) = by_name.get(&candidate.cell()) {
                drawn[*group].push((Rank::of(run.hash(&self.salt), candidate.weight), run, candidate));
            }
        }
        for (place, (group, mut members)) in plan.groups.iter().zip(drawn).enumerate() {
            let take = usize::try_from(group.take).unwrap_or(usize::MAX).min(members.len());
            if take < members.len() && take > 0 {
                members.select_nth_unstable_by(take - 1, |left, right| (left.0, left.1).cmp(&(right.0, right.1)));
            }
            taken.extend(members.into_iter().take(take).map(|(_, run, candidate)| {
                Taken::new(run, candidate, Some(place), group.probability[candidate.weight.level()])
            }));
        }
        taken.sort_by(|left, right| left.run.cmp(&right.run));
        let suppressed = self.suppressed(&taken);
        Sample { plan, taken, suppressed }
    }

    fn suppressed(&self, taken: &[Taken]) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for candidate in self.members.values().filter(|candidate| !candidate.signature.is_empty()) {
            *counts.entry(candidate.signature.clone()).or_default() += 1;
        }
        for one in taken {
            if let Some(count) = counts.get_mut(&one.candidate.signature) {
                *count -= 1;
            }
        }
        counts
    }
}

// === impl Candidate ===

impl Candidate {
    /// Returns the name of its cell, in the order of [`Plan::cells`].
    fn cell(&self) -> (Kind, &str, &str) {
        (self.kind, &self.signature, &self.stratum)
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let key = |one: &Self| (one.must_take, one.weight, one.kind);
        key(self)
            .cmp(&key(other))
            .then_with(|| (&self.stratum, &self.signature).cmp(&(&other.stratum, &other.signature)))
            .then_with(|| self.producer_probability.total_cmp(&other.producer_probability))
    }
}

// === impl Taken ===

impl Taken {
    fn new(run: &Run, candidate: &Candidate, group: Option<usize>, probability: f64) -> Self {
        let inclusion_probability = probability * candidate.producer_probability;
        Self { run: run.clone(), candidate: candidate.clone(), group, probability, inclusion_probability }
    }

    /// Returns the number of runs that it stands for.
    pub fn weight(&self) -> f64 {
        1.0 / self.inclusion_probability
    }
}
