//! Series that may fall silent together: the tasks of one tenant, the tenants of one fleet.
//!
//! If a task's producer dies, the task is silent while the others continue. On a holiday, or if the whole app is down,
//! most series are silent at once; that is a single question and should be asked once. A [`Crowd`] knows the runs of
//! every series by slot and the usual number in each, and determines which series recently had next to none of their
//! expected runs. It uses counts only, never alerts, so its result is a function of the windows alone.
//!
//! Series form a tree: `(tenant, task)` below `(tenant)` below the root. An inner node is silent if at least half of
//! its judgeable children are. A node is *excused* if at least half of its siblings, or of the siblings of one of its
//! ancestors, are silent: the alert then belongs to the node above, provided that at least two of that node's children
//! are silent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bellwether_stats::packed;
use bellwether_stats::rhythm::{HISTORY_HOURS, QUIET_FRACTION, Rhythm};

use crate::detector::{DAY, HOUR};
use crate::hours::Hours;
use crate::observation::Minute;
use crate::season::Season;

/// The value that stands for all series of a level in a series' key.
pub const ALL: &str = "(all)";

/// Expected runs from which on a series can be judged.
const MIN_EXPECTED: f64 = 3.0;

/// Minutes to look back for them.
const LOOKBACK: i64 = HOUR;

/// Minutes of slots to keep: the day in use, and the reach of a correction.
const KEPT: i64 = 2 * DAY;

/// The children of a node in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ChildSummary {
    /// Children that are expected to have runs.
    pub(crate) judged: u32,
    /// Those of them with next to none.
    pub(crate) silent: u32,
    /// Sum of the children's traffic as fractions of the usual, each at most 1.
    pub(crate) present: f64,
}

/// The contribution of one series to a common silence in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct SilenceTotals {
    /// Runs of the slot and expected runs, both as effective independent runs.
    pub(crate) runs: f64,
    pub(crate) expected: f64,
    /// 1/κ′.
    pub(crate) variance: f64,
}

packed!(SilenceTotals { runs, expected, variance });

/// The activity of a node in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Not judgeable: few runs are usual.
    #[default]
    Unknown,
    /// Runs arrive.
    Active,
    /// No runs arrive.
    Silent,
}

/// One node of the tree.
#[derive(Clone, Debug, Default)]
struct Node {
    parent: Option<usize>,
    children: Vec<usize>,
    /// Runs by slot; leaves only.
    slots: Slots,
    /// Usual traffic by day, with its time zone; leaves only.
    rhythms: BTreeMap<i64, Option<(Arc<Rhythm>, Season)>>,
}

/// Runs by slot, for the last days.
#[derive(Clone, Debug, Default)]
struct Slots {
    first: i64,
    runs: VecDeque<u16>,
    /// Numbers that are negative or too large for the list, by slot.
    wide: BTreeMap<i64, i64>,
}

/// All nodes in one slot.
#[derive(Clone, Debug, Default, PartialEq)]
struct SlotState {
    activities: Vec<Activity>,
    /// Series that recently had runs, whether or not any were expected; a bit each.
    present: Vec<u64>,
    /// Inner nodes, in order.
    shares: Vec<(usize, ChildSummary)>,
    /// Silent leaves, in order.
    silence: Vec<(usize, SilenceTotals)>,
}

// === impl Slots ===

impl Slots {
    fn add(&mut self, slot: i64, more: i64) {
        if self.runs.is_empty() {
            self.first = slot;
        }
        // A slot far from the others means a wrong clock: the list must not grow to it.
        if slot < self.first - KEPT || slot - self.first > 4 * KEPT {
            let sum = self.wide.entry(slot).or_default();
            *sum = sum.saturating_add(more);
            return;
        }
        while slot < self.first {
            self.runs.push_front(0);
            self.first -= 1;
        }
        let place = usize::try_from(slot - self.first).unwrap_or(0);
        if self.runs.len() <= place {
            self.runs.resize(place + 1, 0);
        }
        let sum = self.get(slot).saturating_add(more);
        match u16::try_from(sum) {
            Ok(small) => {
                self.wide.remove(&slot);
                self.runs[place] = small;
            }
            Err(_) => {
                self.wide.insert(slot, sum);
            }
        }
    }

    fn get(&self, slot: i64) -> i64 {
        if let Some(wide) = self.wide.get(&slot) {
            return *wide;
        }
        let place = usize::try_from(slot - self.first).ok();
        place.and_then(|place| self.runs.get(place)).map_or(0, |runs| i64::from(*runs))
    }

    fn forget_before(&mut self, slot: i64) {
        while self.first < slot && self.runs.pop_front().is_some() {
            self.first += 1;
        }
        if self.wide.first_key_value().is_some_and(|(first, _)| *first < slot) {
            self.wide = self.wide.split_off(&slot);
        }
    }
}

// === impl SlotState ===

impl SlotState {
    fn share(&self, node: usize) -> Option<ChildSummary> {
        self.shares.binary_search_by_key(&node, |share| share.0).ok().map(|place| self.shares[place].1)
    }

    fn is_present(&self, node: usize) -> bool {
        self.present.get(node / 64).is_some_and(|bits| bits >> (node % 64) & 1 == 1)
    }
}

/// The series of a rule.
#[derive(Clone, Debug)]
pub struct Crowd {
    minutes: i64,
    names: BTreeMap<Vec<String>, usize>,
    nodes: Vec<Node>,
    states: BTreeMap<i64, SlotState>,
    /// First slot to compute, or to compute again.
    dirty_from: Option<i64>,
    next: i64,
}

/// The position of a series in a crowd.
#[derive(Clone, Copy, Debug)]
pub struct CrowdMember<'a> {
    pub crowd: &'a Crowd,
    pub node: usize,
}

// === impl ChildSummary ===

impl ChildSummary {
    /// Returns the mean traffic of the children as a fraction of the usual.
    fn mean(&self) -> f64 {
        if self.judged > 0 { self.present / f64::from(self.judged) } else { 0.0 }
    }
}

// === impl Crowd ===

impl Crowd {
    /// Creates an empty crowd with slots of `minutes`.
    pub fn new(minutes: i64) -> Self {
        let (names, nodes, states) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { minutes: minutes.max(1), names, nodes, states, dirty_from: None, next: i64::MIN }
    }

    /// Returns the node of a series by its key; a prefix of the key names an ancestor.
    pub fn node(&self, values: &[String]) -> Option<usize> {
        self.names.get(values).copied()
    }

    /// Adds runs of a series, or a correction.
    pub fn add(&mut self, values: &[String], window: Minute, runs: i64) {
        let node = self.place(values);
        let slot = window.div_euclid(self.minutes);
        self.nodes[node].slots.add(slot, runs);
        self.dirty_from = Some(self.dirty_from.map_or(slot, |dirty_from| dirty_from.min(slot)));
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

    /// Returns the keys of the ancestors of a series that have at least two children.
    pub fn ancestors<'a>(&self, values: &'a [String]) -> Vec<&'a [String]> {
        let above = (0..values.len()).map(|length| &values[..length]);
        above.filter(|values| self.node(values).is_some_and(|node| self.nodes[node].children.len() > 1)).collect()
    }

    /// Computes all slots that end by `to`, and corrected ones again. `hours` returns the past of a series by its key.
    /// Returns the first minute before `judged` at which the activity of a node changed.
    pub fn update<'a>(
        &mut self,
        to: Minute,
        judged: Minute,
        hours: impl Fn(&[String]) -> Option<&'a Hours>,
    ) -> Option<Minute> {
        let end = to.div_euclid(self.minutes);
        let dirty_from = self.dirty_from.take();
        let kept = KEPT / self.minutes;
        // Slots beyond the reach of a correction are not computed again. Slots without runs are computed too.
        let begin = match self.next {
            i64::MIN => dirty_from?,
            next => dirty_from.map_or(next, |slot| slot.clamp(next - kept, next)),
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
            let state = self.slot(slot);
            // A late run changes the amounts slightly; what matters is the activity.
            let same = self.states.get(&slot).is_none_or(|before| before.activities == state.activities);
            self.states.insert(slot, state);
            if !same && start < judged {
                differs = differs.or(Some(start));
            }
        }
        self.next = self.next.max(end);
        // Those of older days are learned again if a correction needs them.
        let today = ((self.next - 1) * self.minutes).div_euclid(DAY);
        self.nodes.iter_mut().for_each(|node| node.rhythms = node.rhythms.split_off(&today));
        if self.dirty_from.is_none() && dirty_from.is_some_and(|slot| slot >= end) {
            self.dirty_from = dirty_from;
        }
        differs
    }

    fn forget(&mut self, first: i64) {
        self.states = self.states.split_off(&first);
        for node in &mut self.nodes {
            node.slots.forget_before(first - LOOKBACK / self.minutes);
        }
    }

    fn slot(&self, slot: i64) -> SlotState {
        let count = self.nodes.len();
        let mut state = SlotState {
            activities: vec![Activity::Unknown; count],
            present: vec![0; count.div_ceil(64)],
            ..SlotState::default()
        };
        let mut shares = vec![ChildSummary::default(); count];
        // Parents have lower indices than their children.
        for node in (0..self.nodes.len()).rev() {
            let it = &self.nodes[node];
            let (activity, present) = if it.children.is_empty() {
                match it.rhythms.get(&(slot * self.minutes).div_euclid(DAY)) {
                    Some(Some((rhythm, season))) => {
                        let (activity, present, silence) = self.leaf(it, slot, rhythm, *season);
                        if activity == Activity::Silent {
                            state.silence.push((node, silence));
                        }
                        let is_present = match activity {
                            Activity::Active => true,
                            Activity::Silent => false,
                            Activity::Unknown => self.is_present(it, slot, rhythm, *season),
                        };
                        state.present[node / 64] |= u64::from(is_present) << (node % 64);
                        (activity, present)
                    }
                    _ => (Activity::Unknown, 0.0),
                }
            } else {
                let share = shares[node];
                state.shares.push((node, share));
                let activity = match share.judged {
                    0 => Activity::Unknown,
                    judged if share.silent > 0 && 2 * share.silent >= judged => Activity::Silent,
                    _ => Activity::Active,
                };
                (activity, share.mean())
            };
            state.activities[node] = activity;
            if let Some(parent) = it.parent.filter(|_| activity != Activity::Unknown) {
                let above = &mut shares[parent];
                above.judged += 1;
                above.silent += u32::from(activity == Activity::Silent);
                above.present += present;
            }
        }
        state.shares.reverse();
        state.silence.reverse();
        state
    }

    /// Judges a series in a slot, looking back over as many slots as it takes to expect some runs.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn leaf(&self, it: &Node, slot: i64, rhythm: &Rhythm, season: Season) -> (Activity, f64, SilenceTotals) {
        let (mut expected, mut runs) = (0.0, 0.0);
        let (c, a_slot) = (rhythm.clumping(), self.minutes as f64 / HOUR as f64);
        let mut now = SilenceTotals::default();
        for back in 0..LOOKBACK / self.minutes {
            let at = slot - back;
            let usual = rhythm.usual(season.local_hour((at * self.minutes).div_euclid(HOUR)));
            let found = it.slots.get(at).max(0) as f64;
            (expected, runs) = (expected + usual.expected * a_slot, runs + found);
            if back == 0 {
                let variance = if usual.shape > 0.0 { 1.0 / usual.shape } else { 1.0 };
                now = SilenceTotals { runs: c * found, expected: c * expected, variance };
            }
            if expected >= MIN_EXPECTED {
                let silent = runs <= QUIET_FRACTION * expected;
                return (if silent { Activity::Silent } else { Activity::Active }, (runs / expected).min(1.0), now);
            }
        }
        (Activity::Unknown, 0.0, SilenceTotals::default())
    }

    /// Returns true if a series had more than next to none of its usual runs in the last hour.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn is_present(&self, it: &Node, slot: i64, rhythm: &Rhythm, season: Season) -> bool {
        let back = LOOKBACK / self.minutes;
        let runs = (slot - back + 1..=slot).map(|slot| it.slots.get(slot)).sum::<i64>().max(0) as f64;
        runs > QUIET_FRACTION * rhythm.usual(season.local_hour((slot * self.minutes).div_euclid(HOUR))).mean
    }

    fn at(&self, slot: i64) -> Option<&SlotState> {
        self.states.get(&slot)
    }
}

/// Learns the usual traffic of a series on a day, counted from the epoch.
pub(crate) fn rhythm(hours: &Hours, day: i64) -> Option<Rhythm> {
    let end = day * 24;
    Rhythm::learn(&hours.runs_by_clock(end - HISTORY_HOURS, end), hours.season().local_hour(end))
}

// === impl Among ===

impl CrowdMember<'_> {
    /// Returns true if it is an inner node.
    pub(crate) fn is_above(&self) -> bool {
        self.crowd.nodes.get(self.node).is_some_and(|node| !node.children.is_empty())
    }

    /// Returns true if it has siblings, which may become judgeable later than itself.
    pub(crate) fn has_siblings(&self) -> bool {
        let parent = self.crowd.nodes.get(self.node).and_then(|node| node.parent);
        parent.and_then(|parent| self.crowd.nodes.get(parent)).is_some_and(|parent| parent.children.len() > 1)
    }

    /// Returns its usual traffic on a day, if it is known.
    pub(crate) fn rhythm(&self, day: i64) -> Option<Arc<Rhythm>> {
        let known = self.crowd.nodes.get(self.node)?.rhythms.get(&day)?;
        known.as_ref().map(|(rhythm, _)| Arc::clone(rhythm))
    }

    /// Returns its activity in a slot.
    pub(crate) fn activity(&self, slot: i64) -> Activity {
        self.crowd.at(slot).and_then(|state| state.activities.get(self.node)).copied().unwrap_or_default()
    }

    /// Returns the state of its children in a slot.
    pub(crate) fn share(&self, slot: i64) -> ChildSummary {
        self.crowd.at(slot).and_then(|state| state.share(self.node)).unwrap_or_default()
    }

    /// Compares it with other series in a slot: returns whether most judgeable ones are silent as well, and their
    /// traffic as a fraction of the usual, none without judgeable ones.
    pub(crate) fn others(&self, slot: i64) -> (bool, Option<f64>) {
        let Some(state) = self.crowd.at(slot) else { return (false, None) };
        let (mut node, mut present) = (self.node, None);
        while let Some(parent) = self.crowd.nodes.get(node).and_then(|node| node.parent) {
            let (Some(share), Some(activity)) = (state.share(parent), state.activities.get(node)) else { break };
            let own = *activity != Activity::Unknown;
            let judged = share.judged - u32::from(own);
            let silent = share.silent - u32::from(*activity == Activity::Silent);
            if silent > 0 && 2 * silent >= judged {
                return (true, None);
            }
            if judged > 0 && present.is_none() {
                // Its own traffic, next to none if it is judged, is left out.
                present = Some((share.present / f64::from(judged)).min(1.0));
            }
            node = parent;
        }
        (false, present)
    }

    /// Returns the children's traffic as a fraction of the usual in the slots before one: over the last hours or over a
    /// day, whichever is lower.
    pub(crate) fn level(&self, slot: i64) -> f64 {
        let over = |minutes: i64| {
            let slots = slot - minutes / self.crowd.minutes..slot;
            let shares = slots.filter_map(|slot| self.crowd.at(slot)?.share(self.node));
            let (sum, count) = shares
                .filter(|share| share.judged > 0)
                .fold((0.0, 0.0), |(sum, count), share| (sum + share.mean(), count + 1.0));
            if count > 0.0 { sum / count } else { 1.0 }
        };
        over(3 * HOUR).min(over(26 * HOUR))
    }

    /// Returns the contribution of a silent series below it to a common silence.
    pub(crate) fn silence(&self, node: usize, slot: i64) -> SilenceTotals {
        let Some(state) = self.crowd.at(slot) else { return SilenceTotals::default() };
        let place = state.silence.binary_search_by_key(&node, |silence| silence.0);
        place.map_or_else(|_| SilenceTotals::default(), |place| state.silence[place].1)
    }

    /// Returns the number of judgeable series below it in a slot.
    pub(crate) fn judged(&self, slot: i64) -> usize {
        self.below(slot, |activity| activity != Activity::Unknown).len()
    }

    /// Returns the series below it that are silent in a slot.
    pub(crate) fn silent(&self, slot: i64) -> Vec<usize> {
        self.below(slot, |activity| activity == Activity::Silent)
    }

    fn below(&self, slot: i64, is: impl Fn(Activity) -> bool) -> Vec<usize> {
        let Some(state) = self.crowd.at(slot) else { return Vec::new() };
        let (mut found, mut left) = (Vec::new(), vec![self.node]);
        while let Some(node) = left.pop() {
            let it = &self.crowd.nodes[node];
            left.extend(&it.children);
            if it.children.is_empty() && state.activities.get(node).is_some_and(|activity| is(*activity)) {
                found.push(node);
            }
        }
        found.sort_unstable();
        found
    }

    /// Returns how many of the given series have runs again in a slot.
    pub(crate) fn present(&self, series: &[usize], slot: i64) -> usize {
        let Some(state) = self.crowd.at(slot) else { return 0 };
        series.iter().filter(|node| state.is_present(**node)).count()
    }
}
