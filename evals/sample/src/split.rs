//! Clusters of near-duplicates, and their division into regression and hold-out sets.
//!
//! Cases are placed in the order in which they were accepted. A case that is near no other gets a side by the hash of its
//! id. A case near others gets their side. A case near cases of both sides would leak one into the other: it is a
//! *bridge* and belongs to neither. So no case is ever near one of the other side, and a case that was placed keeps its
//! side when later ones come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use crate::run::uniform;
use crate::similar::Fingerprint;

/// The set that a case belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Used at each release.
    Regression,
    /// Kept back.
    HoldOut,
    /// Near cases of both; in neither.
    Bridge,
}

/// A case to place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Unique id.
    pub id: String,
    /// Position in the order of acceptance, such as microseconds; the id decides between equal ones.
    pub accepted: i64,
    /// Fingerprint of its input.
    pub fingerprint: Fingerprint,
    /// The side of a case that was placed before, whatever is near it now.
    pub fixed: Option<Side>,
}

/// Place of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its side.
    pub side: Side,
    /// Id of the earliest case of its cluster; its own for a bridge.
    pub cluster: String,
}

/// Returns the cluster of each case, by id: the id of its earliest member. Cases are in one cluster if a chain of
/// near-duplicates connects them.
pub fn clusters(cases: &[Case]) -> BTreeMap<String, String> {
    let order = in_order(cases);
    let mut known = Known::new(&order);
    for place in 0..order.len() {
        let near = known.near(place);
        known.join(place, &near);
    }
    (0..order.len()).map(|place| (order[place].id.clone(), order[known.root(place)].id.clone())).collect()
}

/// Places cases; `holdout_share` of the clusters are kept back. The salt makes divisions of other sets independent.
pub fn split(cases: &[Case], holdout_share: f64, salt: &str) -> BTreeMap<String, Placed> {
    let order = in_order(cases);
    let mut known = Known::new(&order);
    let mut sides: Vec<Side> = Vec::with_capacity(order.len());
    for (place, case) in order.iter().enumerate() {
        let near = known.near(place);
        let beside: BTreeSet<Side> = near.iter().map(|other| sides[*other]).collect();
        let side = match (case.fixed, beside.first(), beside.len()) {
            (Some(side), ..) => side,
            (None, None, _) if drawn(case, salt) < holdout_share => Side::HoldOut,
            (None, None, _) => Side::Regression,
            (None, Some(side), 1) => *side,
            _ => Side::Bridge,
        };
        sides.push(side);
        // A bridge is not indexed, so it connects nothing.
        if side != Side::Bridge {
            known.join(place, &near);
        }
    }
    let placed = |place: usize, known: &mut Known<'_>| {
        let cluster = if sides[place] == Side::Bridge { place } else { known.root(place) };
        (order[place].id.clone(), Placed { side: sides[place], cluster: order[cluster].id.clone() })
    };
    (0..order.len()).map(|place| placed(place, &mut known)).collect()
}

/// Returns a number between 0 and 1 for a case: XXH3-64 of `salt`, a zero byte and the id.
fn drawn(case: &Case, salt: &str) -> f64 {
    uniform(xxh3_64(&[salt.as_bytes(), b"\0", case.id.as_bytes()].concat()))
}

/// Returns cases in the order of acceptance, each id once.
fn in_order(cases: &[Case]) -> Vec<&Case> {
    let mut order: Vec<&Case> = cases.iter().collect();
    order.sort_by(|left, right| (left.accepted, &left.id).cmp(&(right.accepted, &right.id)));
    let mut seen = BTreeSet::new();
    order.retain(|case| seen.insert(&case.id));
    order
}

/// Cases by band, and a forest of clusters with the earliest case as the root.
struct Known<'a> {
    order: &'a [&'a Case],
    by_band: HashMap<u64, Vec<usize>>,
    parents: Vec<usize>,
}

impl<'a> Known<'a> {
    fn new(order: &'a [&'a Case]) -> Self {
        Self { order, by_band: HashMap::new(), parents: (0..order.len()).collect() }
    }

    /// Returns the indexed cases near a case, in order.
    fn near(&self, place: usize) -> BTreeSet<usize> {
        let own = &self.order[place].fingerprint;
        let same_band: BTreeSet<usize> =
            own.bands().filter_map(|band| self.by_band.get(&band)).flatten().copied().collect();
        same_band.into_iter().filter(|other| own.near(&self.order[*other].fingerprint)).collect()
    }

    /// Indexes a case and unites it with others.
    fn join(&mut self, place: usize, near: &BTreeSet<usize>) {
        for band in self.order[place].fingerprint.bands() {
            self.by_band.entry(band).or_default().push(place);
        }
        for other in near {
            let (left, right) = (self.root(place), self.root(*other));
            self.parents[left.max(right)] = left.min(right);
        }
    }

    fn root(&mut self, mut place: usize) -> usize {
        while self.parents[place] != place {
            self.parents[place] = self.parents[self.parents[place]];
            place = self.parents[place];
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOPICS: [&str; 6] = [
        "please refund the blue jacket that i bought last week because the zipper is broken and i am unhappy with it",
        "where is my parcel, the tracking page has said out for delivery since monday and nobody answers the phone here",
        "i want to change the delivery address of my order before it leaves the warehouse tomorrow morning if possible",
        "my discount code does not work at checkout although the newsletter said that it is valid until sunday evening",
        "can you cancel the subscription to the premium plan and send me a confirmation by letter to my home address",
        "the app crashes when i open the invoices, i have tried to install it again and the error has not gone away",
    ];

    /// Text of a topic with some of its words changed.
    fn text(topic: usize, changed: &[usize]) -> String {
        let words = TOPICS[topic].split(' ').enumerate();
        let words: Vec<String> =
            words.map(|(n, word)| if changed.contains(&n) { format!("{word}q") } else { word.to_owned() }).collect();
        words.join(" ")
    }

    fn case(n: i64, text: &str) -> Case {
        Case { id: format!("case-{n}"), accepted: n, fingerprint: Fingerprint::of(text), fixed: None }
    }

    #[test]
    fn variants_of_a_text_are_one_cluster() {
        let cases: Vec<Case> = (0..18_usize).map(|n| case(n as i64, &text(n % 6, &[n / 6]))).collect();
        let found = clusters(&cases);
        let names: BTreeSet<&String> = found.values().collect();
        assert_eq!(names.len(), 6, "{found:?}");
        assert_eq!(found["case-13"], "case-1");
    }

    #[test]
    fn about_the_wanted_share_is_kept_back() {
        let cases: Vec<Case> = (0..2_000)
            .map(|n| case(n, &format!("{:x} {:x}", n * 7_919_777, n * 104_729_111).replace(char::is_numeric, "k")))
            .collect();
        let held = split(&cases, 0.2, "v1").values().filter(|placed| placed.side == Side::HoldOut).count();
        assert!((330..470).contains(&held), "{held}");
        assert_ne!(split(&cases, 0.2, "v1"), split(&cases, 0.2, "v2"));
    }

    #[test]
    fn a_case_between_both_sides_is_in_neither() {
        // Two ends that are not near each other, and a middle that is near both.
        let ends = [text(0, &[1, 3]), text(0, &[15, 18])];
        let middle = text(0, &[]);
        let near = |left: &str, right: &str| Fingerprint::of(left).near(&Fingerprint::of(right));
        assert!(!near(&ends[0], &ends[1]) && near(&ends[0], &middle) && near(&ends[1], &middle));
        let mut bridges = 0;
        for salt in 0..40 {
            let cases = [case(0, &ends[0]), case(1, &ends[1]), case(2, &middle)];
            let found = split(&cases, 0.5, &salt.to_string());
            let apart = found["case-0"].side != found["case-1"].side;
            assert_eq!(found["case-2"].side == Side::Bridge, apart, "{found:?}");
            bridges += usize::from(apart);
        }
        assert!((8..32).contains(&bridges), "{bridges}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn sides_stay_and_no_near_duplicates_are_on_different_sides(
            inputs in prop::collection::vec((0_usize..6, prop::collection::vec(0_usize..20, 0..4)), 1..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let cases: Vec<Case> = inputs.iter().enumerate().map(|(n, (topic, changed))| case(n as i64, &text(*topic, changed))).collect();
            let all = split(&cases, 0.4, "v1");
            let first = cut.index(cases.len());
            for (id, placed) in split(&cases[..first], 0.4, "v1") {
                prop_assert_eq!(placed.side, all[&id].side, "{} changed its side", id);
            }
            let mut backwards = cases.clone();
            backwards.reverse();
            prop_assert_eq!(&split(&backwards, 0.4, "v1"), &all);
            let of = clusters(&cases);
            for left in &cases {
                for right in &cases {
                    let sides = (all[&left.id].side, all[&right.id].side);
                    let shares_band = left.fingerprint.bands().any(|band| right.fingerprint.bands().any(|other| other == band));
                    if left.fingerprint.near(&right.fingerprint) && shares_band {
                        prop_assert_eq!(&of[&left.id], &of[&right.id]);
                        prop_assert!(sides.0 == sides.1 || sides.0 == Side::Bridge || sides.1 == Side::Bridge);
                    }
                    if all[&left.id].cluster == all[&right.id].cluster {
                        prop_assert_eq!(sides.0, sides.1);
                    }
                }
            }
        }
    }
}
