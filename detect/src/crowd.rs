//! Many series that may fall silent together: tasks of one tenant, tenants of one fleet.
//!
//! A task whose producer died is silent while the others go on. On a holiday, or where the whole app is down, most are
//! silent at once: that is one question, and is asked once. A [`Crowd`] knows the runs of every series by slot, and what is
//! usual in each; of a moment it tells which series have next to none of the runs that could be expected lately. It looks at
//! counts only, never at alerts, so that what it says is a function of the windows alone.
//!
//! Series form a tree: `(tenant, task)` below `(tenant)` below the whole. A node is silent where at least half of the
//! children are that have anything to say. A node is *excused* where at least half of its siblings, or of those of a node
//! above it, are silent: then it is the node above that is asked about, if two of its children are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellwether_stats::rhythm::{NEXT_TO_NOTHING, REMEMBERED, Rhythm};

use crate::detector::{DAY, HOUR};
use crate::hours::Hours;
use crate::observation::Minute;
use crate::season::Season;

/// Name of what stands for all series of a level, in place of the value that tells them apart.
pub const ALL: &str = "(all)";

/// Runs that have to be expected for a series to have anything to say.
const TELLING: f64 = 3.0;

/// Minutes that are looked back for them.
const BACK: i64 = HOUR;

/// Minutes of slots that are kept: the day that is read, and what a correction may go back to.
const KEPT: i64 = 2 * DAY;

/// The children of a node in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Share {
    /// Children that could be expected to have runs.
    pub(crate) telling: u32,
    /// Those of them that have next to none.
    pub(crate) silent: u32,
    /// Σ of the parts of the usual that are there, none above 1.
    pub(crate) present: f64,
}

/// What one series adds to a silence of several in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Missing {
    /// Runs of the slot, and those expected, both as so many independent ones.
    pub(crate) runs: f64,
    pub(crate) expected: f64,
    /// 1/κ′.
    pub(crate) variance: f64,
}

/// What a node has to say in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Nothing: few runs are usual.
    #[default]
    None,
    /// Runs come.
    Going,
    /// None come.
    Silent,
}

/// One node of the tree.
#[derive(Clone, Debug, Default)]
struct Node {
    parent: Option<usize>,
    children: Vec<usize>,
    /// Runs by slot; of leaves.
    slots: BTreeMap<i64, i64>,
    /// What is usual on a day, and the clock it goes by; of leaves.
    rhythms: BTreeMap<i64, Option<(Arc<Rhythm>, Season)>>,
}

/// All nodes in one slot.
#[derive(Clone, Debug, Default, PartialEq)]
struct Settled {
    voices: Vec<Voice>,
    shares: Vec<Share>,
    missing: Vec<Missing>,
    /// Series that have had runs lately, whether any could be expected or not.
    there: Vec<bool>,
}

/// The series of a rule.
#[derive(Clone, Debug)]
pub struct Crowd {
    minutes: i64,
    names: BTreeMap<Vec<String>, usize>,
    nodes: Vec<Node>,
    settled: BTreeMap<i64, Settled>,
    /// First slot that has to be settled, or settled again.
    touched: Option<i64>,
    next: i64,
}

/// Where a series stands in a crowd.
#[derive(Clone, Copy, Debug)]
pub struct Among<'a> {
    /// The crowd.
    pub crowd: &'a Crowd,
    /// Its node.
    pub node: usize,
}

// === impl Share ===

impl Share {
    /// The mean part of the usual that is there.
    fn mean(&self) -> f64 {
        if self.telling > 0 { self.present / f64::from(self.telling) } else { 0.0 }
    }
}

// === impl Crowd ===

impl Crowd {
    /// Nobody yet; slots have so many minutes.
    pub fn new(minutes: i64) -> Self {
        let (names, nodes, settled) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { minutes: minutes.max(1), names, nodes, settled, touched: None, next: i64::MIN }
    }

    /// The node of a series, by the values that tell it apart; its first ones alone name those above it.
    pub fn node(&self, values: &[String]) -> Option<usize> {
        self.names.get(values).copied()
    }

    /// Adds runs of a series, or a correction.
    pub fn add(&mut self, values: &[String], window: Minute, runs: i64) {
        let node = self.place(values);
        let slot = window.div_euclid(self.minutes);
        *self.nodes[node].slots.entry(slot).or_default() += runs;
        self.touched = Some(self.touched.map_or(slot, |touched| touched.min(slot)));
    }

    fn place(&mut self, values: &[String]) -> usize {
        if let Some(node) = self.names.get(values) {
            return *node;
        }
        let parent = values.split_last().map(|(_, above)| self.place(above));
        let node = self.nodes.len();
        self.nodes.push(Node { parent, ..Node::default() });
        self.names.insert(values.to_vec(), node);
        if let Some(parent) = parent {
            self.nodes[parent].children.push(node);
        }
        node
    }

    /// Nodes above some series that have at least two children: the first values of those.
    pub fn above<'a>(&self, values: &'a [String]) -> Vec<&'a [String]> {
        let above = (0..values.len()).map(|length| &values[..length]);
        above.filter(|values| self.node(values).is_some_and(|node| self.nodes[node].children.len() > 1)).collect()
    }

    /// Works out all slots that end up to a moment, and again those that were corrected. The hours of a series are asked
    /// for by its values. Returns the first minute before `judged` of which something else is said now than was.
    pub fn settle<'a>(
        &mut self,
        to: Minute,
        judged: Minute,
        hours: impl Fn(&[String]) -> Option<&'a Hours>,
    ) -> Option<Minute> {
        let end = to.div_euclid(self.minutes);
        let touched = self.touched.take();
        let kept = KEPT / self.minutes;
        // What no correction can reach is not worked out again. A day on which nothing comes is no reason to leave it out.
        let begin = match self.next {
            i64::MIN => touched?,
            next => touched.map_or(next, |slot| slot.clamp(next - kept, next)),
        };
        self.forget(begin.min(end) - kept);
        let leaves: Vec<(Vec<String>, usize)> = self
            .names
            .iter()
            .filter(|(_, node)| self.nodes[**node].children.is_empty())
            .map(|(values, node)| (values.clone(), *node))
            .collect();
        let mut differs = None;
        for slot in begin..end {
            let start = slot * self.minutes;
            let day = start.div_euclid(DAY);
            for (values, node) in &leaves {
                self.nodes[*node].rhythms.entry(day).or_insert_with(|| {
                    let hours = hours(values)?;
                    Some((Arc::new(rhythm(hours, day)?), hours.season()))
                });
            }
            let settled = self.slot(slot);
            // A late run changes how much there is by a little; what counts is who has a voice.
            let same = self.settled.get(&slot).is_none_or(|before| before.voices == settled.voices);
            self.settled.insert(slot, settled);
            if !same && start < judged {
                differs = differs.or(Some(start));
            }
        }
        self.next = self.next.max(end);
        if self.touched.is_none() && touched.is_some_and(|slot| slot >= end) {
            self.touched = touched;
        }
        differs
    }

    fn forget(&mut self, first: i64) {
        self.settled = self.settled.split_off(&first);
        for node in &mut self.nodes {
            node.slots = node.slots.split_off(&(first - BACK / self.minutes));
            node.rhythms = node.rhythms.split_off(&(first * self.minutes).div_euclid(DAY));
        }
    }

    fn slot(&self, slot: i64) -> Settled {
        let count = self.nodes.len();
        let mut settled = Settled {
            voices: vec![Voice::None; count],
            shares: vec![Share::default(); count],
            missing: vec![Missing::default(); count],
            there: vec![false; count],
        };
        // Nodes above come before those below: parents are placed first.
        for node in (0..self.nodes.len()).rev() {
            let it = &self.nodes[node];
            let (voice, present) = if it.children.is_empty() {
                match it.rhythms.get(&(slot * self.minutes).div_euclid(DAY)) {
                    Some(Some((rhythm, season))) => {
                        let (voice, present, missing) = self.leaf(it, slot, rhythm, *season);
                        settled.missing[node] = missing;
                        settled.there[node] = match voice {
                            Voice::Going => true,
                            Voice::Silent => false,
                            Voice::None => self.is_there(it, slot, rhythm, *season),
                        };
                        (voice, present)
                    }
                    _ => (Voice::None, 0.0),
                }
            } else {
                let share = settled.shares[node];
                let voice = match share.telling {
                    0 => Voice::None,
                    telling if share.silent > 0 && 2 * share.silent >= telling => Voice::Silent,
                    _ => Voice::Going,
                };
                (voice, share.mean())
            };
            settled.voices[node] = voice;
            if let Some(parent) = it.parent.filter(|_| voice != Voice::None) {
                let above = &mut settled.shares[parent];
                above.telling += 1;
                above.silent += u32::from(voice == Voice::Silent);
                above.present += present;
            }
        }
        settled
    }

    /// A series in a slot: as many slots back as it takes to have expected some runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn leaf(&self, it: &Node, slot: i64, rhythm: &Rhythm, season: Season) -> (Voice, f64, Missing) {
        let (mut expected, mut runs) = (0.0, 0.0);
        let (c, a_slot) = (rhythm.clumping(), self.minutes as f64 / HOUR as f64);
        let mut now = Missing::default();
        for back in 0..BACK / self.minutes {
            let at = slot - back;
            let usual = rhythm.usual(season.local_hour((at * self.minutes).div_euclid(HOUR)));
            let found = it.slots.get(&at).copied().unwrap_or(0).max(0) as f64;
            (expected, runs) = (expected + usual.expected * a_slot, runs + found);
            if back == 0 {
                let variance = if usual.shape > 0.0 { 1.0 / usual.shape } else { 1.0 };
                now = Missing { runs: c * found, expected: c * expected, variance };
            }
            if expected >= TELLING {
                let silent = runs <= NEXT_TO_NOTHING * expected;
                return (if silent { Voice::Silent } else { Voice::Going }, (runs / expected).min(1.0), now);
            }
        }
        (Voice::None, 0.0, Missing::default())
    }

    /// True where a series has had more than next to nothing of the usual in the last hour.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn is_there(&self, it: &Node, slot: i64, rhythm: &Rhythm, season: Season) -> bool {
        let back = BACK / self.minutes;
        let runs = it.slots.range(slot - back + 1..=slot).map(|(_, runs)| *runs).sum::<i64>().max(0) as f64;
        runs > NEXT_TO_NOTHING * rhythm.usual(season.local_hour((slot * self.minutes).div_euclid(HOUR))).mean
    }

    fn at(&self, slot: i64) -> Option<&Settled> {
        self.settled.get(&slot)
    }
}

/// What is usual for a series on a day, counted from the epoch.
pub(crate) fn rhythm(hours: &Hours, day: i64) -> Option<Rhythm> {
    let end = day * 24;
    Rhythm::learn(&hours.runs_by_clock(end - REMEMBERED, end), hours.season().local_hour(end))
}

// === impl Among ===

impl Among<'_> {
    /// True where it stands for others.
    pub(crate) fn is_above(&self) -> bool {
        self.crowd.nodes.get(self.node).is_some_and(|node| !node.children.is_empty())
    }

    /// True where it has siblings, of which some may have something to say later than it has.
    pub(crate) fn has_siblings(&self) -> bool {
        let parent = self.crowd.nodes.get(self.node).and_then(|node| node.parent);
        parent.and_then(|parent| self.crowd.nodes.get(parent)).is_some_and(|parent| parent.children.len() > 1)
    }

    /// What it has to say in a slot.
    pub(crate) fn voice(&self, slot: i64) -> Voice {
        self.crowd.at(slot).and_then(|settled| settled.voices.get(self.node)).copied().unwrap_or_default()
    }

    /// What its children have to say in a slot.
    pub(crate) fn share(&self, slot: i64) -> Share {
        self.crowd.at(slot).and_then(|settled| settled.shares.get(self.node)).copied().unwrap_or_default()
    }

    /// What others say of a slot: whether most of those that tell fell silent with it; how much of the usual they have,
    /// none where there are no others that tell.
    pub(crate) fn others(&self, slot: i64) -> (bool, Option<f64>) {
        let Some(settled) = self.crowd.at(slot) else { return (false, None) };
        let (mut node, mut present) = (self.node, None);
        while let Some(parent) = self.crowd.nodes.get(node).and_then(|node| node.parent) {
            let (Some(share), Some(voice)) = (settled.shares.get(parent), settled.voices.get(node)) else { break };
            let own = *voice != Voice::None;
            let telling = share.telling - u32::from(own);
            let silent = share.silent - u32::from(*voice == Voice::Silent);
            if silent > 0 && 2 * silent >= telling {
                return (true, None);
            }
            if telling > 0 && present.is_none() {
                // Its own part, of which it has next to none where it is judged, is left out.
                present = Some((share.present / f64::from(telling)).min(1.0));
            }
            node = parent;
        }
        (false, present)
    }

    /// How much of the usual the children had in the slots before one: in the last hours where they tell, or in a day.
    pub(crate) fn level(&self, slot: i64) -> f64 {
        let over = |minutes: i64| {
            let slots = slot - minutes / self.crowd.minutes..slot;
            let shares = slots.filter_map(|slot| Some(self.crowd.at(slot)?.shares.get(self.node)?).copied());
            let (sum, count) = shares
                .filter(|share| share.telling > 0)
                .fold((0.0, 0.0), |(sum, count), share| (sum + share.mean(), count + 1.0));
            if count > 0.0 { sum / count } else { 1.0 }
        };
        over(3 * HOUR).min(over(26 * HOUR))
    }

    /// What a series below it adds to a silence.
    pub(crate) fn missing(&self, node: usize, slot: i64) -> Missing {
        self.crowd.at(slot).and_then(|settled| settled.missing.get(node)).copied().unwrap_or_default()
    }

    /// How many of the series below it tell in a slot.
    pub(crate) fn telling(&self, slot: i64) -> usize {
        self.below(slot, |voice| voice != Voice::None).len()
    }

    /// The series below it that are silent in a slot.
    pub(crate) fn silent(&self, slot: i64) -> Vec<usize> {
        self.below(slot, |voice| voice == Voice::Silent)
    }

    fn below(&self, slot: i64, is: impl Fn(Voice) -> bool) -> Vec<usize> {
        let Some(settled) = self.crowd.at(slot) else { return Vec::new() };
        let (mut found, mut left) = (Vec::new(), vec![self.node]);
        while let Some(node) = left.pop() {
            let it = &self.crowd.nodes[node];
            left.extend(&it.children);
            if it.children.is_empty() && settled.voices.get(node).is_some_and(|voice| is(*voice)) {
                found.push(node);
            }
        }
        found.sort_unstable();
        found
    }

    /// How many of some series have runs again in a slot.
    pub(crate) fn there(&self, series: &[usize], slot: i64) -> usize {
        let Some(settled) = self.crowd.at(slot) else { return 0 };
        series.iter().filter(|node| settled.there.get(**node) == Some(&true)).count()
    }
}
