//! The present state: silences, acknowledgements and feedback, as the actions say in any order.
//!
//! Of several actions on one thing the latest counts, by time and then by id. Times are microseconds since the epoch.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, ActionKind, Matchers, Origin, Precision, Verdict};

/// A silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Id of the action that made it.
    pub id: String,
    /// The alert that it is about; none if it is about labels.
    pub alert_id: Option<String>,
    /// The labels that it is about; empty if it is about one alert.
    pub matchers: Matchers,
    pub tenant: Option<String>,
    pub starts_at: i64,
    /// Planned end.
    pub until: i64,
    /// When a person ended it before.
    pub ended_at: Option<i64>,
    pub person: String,
    pub reason: Option<String>,
    pub at: i64,
    pub origin: Origin,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Id of the action that made it.
    pub id: String,
    pub alert_id: String,
    /// The firing that it is about began at this event time, if known.
    pub firing_since: Option<i64>,
    pub until: Option<i64>,
    pub person: String,
    pub reason: Option<String>,
    pub at: i64,
    pub origin: Origin,
}

/// The actions of people on alerts, and their effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hands {
    /// By time and id, the order in which they count.
    actions: BTreeMap<(i64, String), Action>,
    ids: BTreeSet<String>,
    silences: BTreeMap<String, Silence>,
    acks: BTreeMap<String, Ack>,
    /// The latest verdict on each firing of each alert, with its rule.
    verdicts: BTreeMap<(String, Option<i64>), (String, Verdict)>,
    /// Version of the table that was read.
    pub(super) version: i64,
}

// === impl Silence ===

impl Silence {
    /// Returns when it ends, or has ended.
    pub fn ends_at(&self) -> i64 {
        self.ended_at.map_or(self.until, |ended| ended.min(self.until))
    }

    /// Returns true if it is in force at a moment.
    pub fn is_active(&self, at: i64) -> bool {
        self.starts_at <= at && at < self.ends_at()
    }

    /// Returns true if it is about an alert. `labels` are those of [`matched_labels`](super::matched_labels).
    pub fn covers(&self, labels: &BTreeMap<String, String>, alert_id: &str) -> bool {
        match &self.alert_id {
            Some(own) => own == alert_id,
            None => self.matchers.match_labels(labels),
        }
    }
}

// === impl Hands ===

impl Hands {
    /// Makes the state of some actions. An action whose id occurs twice counts once.
    pub fn of(actions: impl IntoIterator<Item = Action>) -> Self {
        let mut hands = Self::default();
        hands.add(actions);
        hands
    }

    /// Adds actions. Returns how many were new.
    pub fn add(&mut self, actions: impl IntoIterator<Item = Action>) -> usize {
        let mut new = 0;
        for action in actions {
            if self.ids.insert(action.action_id.clone()) {
                self.actions.insert((action.at, action.action_id.clone()), action);
                new += 1;
            }
        }
        if new > 0 {
            self.fold();
        }
        new
    }

    /// Computes the state from all actions. There are few of them: people make them.
    fn fold(&mut self) {
        (self.silences, self.acks, self.verdicts) = Default::default();
        for action in self.actions.values() {
            match (action.kind, &action.alert_id) {
                (ActionKind::Ack, Some(alert)) => {
                    self.acks.insert(alert.clone(), ack(action, alert));
                }
                (ActionKind::Unack, Some(alert)) => {
                    self.acks.remove(alert);
                }
                (ActionKind::Feedback, Some(alert)) => {
                    if let (Some(verdict), Some(rule)) = (action.verdict, &action.rule) {
                        self.verdicts.insert((alert.clone(), action.firing_since), (rule.clone(), verdict));
                    }
                }
                (ActionKind::Silence, _) => {
                    if let Some(silence) = silence(action) {
                        self.silences.insert(silence.id.clone(), silence);
                    }
                }
                _ => {}
            }
        }
        // A silence may be ended by an action of a machine whose clock is behind.
        let ends = self.actions.values().filter(|action| action.kind == ActionKind::Unsilence);
        for (id, at) in ends.filter_map(|action| Some((action.silence_id.as_ref()?, action.at))) {
            if let Some(silence) = self.silences.get_mut(id) {
                let ended = at.max(silence.at);
                silence.ended_at = Some(silence.ended_at.map_or(ended, |earlier| earlier.min(ended)));
            }
        }
    }

    /// Returns true if an action is known.
    pub fn knows(&self, action_id: &str) -> bool {
        self.ids.contains(action_id)
    }

    /// Returns all actions, in the order in which they count.
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// Returns the silence of an alert at a moment; of several, the one that ends last. `labels` are those of
    /// [`matched_labels`](super::matched_labels).
    pub fn silenced(&self, labels: &BTreeMap<String, String>, alert_id: &str, at: i64) -> Option<&Silence> {
        let covering =
            self.silences.values().filter(|silence| silence.is_active(at) && silence.covers(labels, alert_id));
        covering.max_by_key(|silence| (silence.ends_at(), &silence.id))
    }

    /// Returns the acknowledgement of an alert that fires since an event time, at a moment. It ends when it was taken back, at its
    /// own end, and when the alert resolves: an alert that fires again does so later than the acknowledged firing began.
    pub fn acknowledged(&self, alert_id: &str, firing_since: i64, at: i64) -> Option<&Ack> {
        let ack = self.acks.get(alert_id)?;
        let same_firing = firing_since <= ack.firing_since.unwrap_or(ack.at);
        (same_firing && ack.until.is_none_or(|until| at < until)).then_some(ack)
    }

    /// Returns all silences, the ended ones too, by id.
    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values()
    }

    /// Returns a moment for an action on an alert or silence: the present, but later than all earlier actions on it, even if the
    /// clock of another machine is ahead.
    pub fn moment(&self, alert_id: Option<&str>, silence_id: Option<&str>, now: i64) -> i64 {
        let about = |action: &&Action| {
            (alert_id.is_some() && action.alert_id.as_deref() == alert_id)
                || silence_id.is_some_and(|id| action.action_id == id || action.silence_id.as_deref() == Some(id))
        };
        let newest = self.actions.values().filter(about).map(|action| action.at).max();
        newest.map_or(now, |newest| now.max(newest.saturating_add(1)))
    }

    /// Returns the latest verdict on a firing of an alert.
    pub fn verdict(&self, alert_id: &str, firing_since: Option<i64>) -> Option<Verdict> {
        self.verdicts.get(&(alert_id.to_owned(), firing_since)).map(|(_, verdict)| *verdict)
    }

    /// Returns the feedback on each rule that has any.
    pub fn precision(&self) -> BTreeMap<String, Precision> {
        let mut rules: BTreeMap<String, Precision> = BTreeMap::new();
        for (rule, verdict) in self.verdicts.values() {
            rules.entry(rule.clone()).or_default().count(*verdict);
        }
        rules
    }
}

fn ack(action: &Action, alert_id: &str) -> Ack {
    Ack {
        id: action.action_id.clone(),
        alert_id: alert_id.to_owned(),
        firing_since: action.firing_since,
        until: action.until,
        person: action.person.clone(),
        reason: action.reason.clone(),
        at: action.at,
        origin: action.origin,
    }
}

/// Returns the silence that an action makes; none if a later version wrote it in a notation that this one cannot read.
fn silence(action: &Action) -> Option<Silence> {
    let matchers = match &action.matchers {
        Some(text) => Matchers::parse(text).ok()?,
        None => Matchers::default(),
    };
    if action.alert_id.is_none() && action.matchers.is_none() {
        return None;
    }
    Some(Silence {
        id: action.action_id.clone(),
        alert_id: action.alert_id.clone(),
        matchers,
        tenant: action.tenant.clone(),
        starts_at: action.starts_at.unwrap_or(action.at),
        until: action.until?,
        ended_at: None,
        person: action.person.clone(),
        reason: action.reason.clone(),
        at: action.at,
        origin: action.origin,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::action::tests::action;
    use super::*;

    fn ack_of(id: &str, at: i64, since: i64) -> Action {
        Action { firing_since: Some(since), ..action(id, ActionKind::Ack, at) }
    }

    fn silence_of(id: &str, matchers: &str, from: i64, until: i64) -> Action {
        Action {
            alert_id: None,
            matchers: Some(matchers.to_owned()),
            starts_at: Some(from),
            until: Some(until),
            ..action(id, ActionKind::Silence, from)
        }
    }

    fn unsilence_of(id: &str, silence: &str, at: i64) -> Action {
        Action { alert_id: None, silence_id: Some(silence.to_owned()), ..action(id, ActionKind::Unsilence, at) }
    }

    #[test]
    fn an_acknowledgement_ends_with_the_firing_by_unack_and_at_its_end() {
        let hands = Hands::of([ack_of("1", 20, 10)]);
        assert_eq!(hands.acknowledged("a1", 10, 30).map(|ack| ack.person.as_str()), Some("ada"));
        assert!(hands.acknowledged("a1", 9, 30).is_some(), "a correction moved the start of the firing back");
        assert!(
            hands.acknowledged("a1", 11, 30).is_none(),
            "it resolved and fired again, even before the acknowledgement"
        );
        assert!(hands.acknowledged("a2", 10, 30).is_none());
        let hands = Hands::of([ack_of("1", 20, 10), action("2", ActionKind::Unack, 21)]);
        assert!(hands.acknowledged("a1", 10, 30).is_none());
        let hands = Hands::of([Action { until: Some(25), ..ack_of("1", 20, 10) }]);
        assert!(hands.acknowledged("a1", 10, 24).is_some() && hands.acknowledged("a1", 10, 25).is_none());
    }

    #[test]
    fn a_silence_covers_its_labels_from_its_start_to_its_end() {
        let labels = BTreeMap::from([("task".to_owned(), "refund".to_owned())]);
        let other = BTreeMap::from([("task".to_owned(), "other".to_owned())]);
        let mut hands = Hands::of([silence_of("s", "{task=\"refund\"}", 10, 20)]);
        let silenced = |hands: &Hands, labels, at| hands.silenced(labels, "a1", at).map(|silence| silence.id.clone());
        for (at, expected) in [(9, None), (10, Some("s".to_owned())), (19, Some("s".to_owned())), (20, None)] {
            assert_eq!(silenced(&hands, &labels, at), expected, "{at}");
            assert_eq!(silenced(&hands, &other, at), None);
        }
        hands.add([unsilence_of("u", "s", 15)]);
        assert_eq!((silenced(&hands, &labels, 14).is_some(), silenced(&hands, &labels, 15)), (true, None));
        // Of one alert, whatever its labels.
        hands.add([Action { alert_id: Some("a1".to_owned()), matchers: None, ..silence_of("o", "", 30, 40) }]);
        assert_eq!(silenced(&hands, &other, 35), Some("o".to_owned()));
        assert!(hands.silenced(&other, "a2", 35).is_none());
    }

    #[test]
    fn an_action_is_later_than_those_it_takes_back() {
        let hands = Hands::of([ack_of("1", 1000, 10), silence_of("s", "{a=b}", 2000, 3000)]);
        assert_eq!(hands.moment(Some("a1"), None, 5), 1001);
        assert_eq!(hands.moment(Some("a1"), None, 5000), 5000);
        assert_eq!(hands.moment(None, Some("s"), 5), 2001);
        assert_eq!(hands.moment(Some("a2"), None, 5), 5);
    }

    #[test]
    fn the_latest_verdict_on_each_firing_counts() {
        let feedback = |id: &str, at, since, verdict| Action {
            rule: Some("cost".to_owned()),
            verdict: Some(verdict),
            firing_since: Some(since),
            ..action(id, ActionKind::Feedback, at)
        };
        let hands = Hands::of([
            feedback("3", 30, 2, Verdict::Useful),
            feedback("1", 10, 1, Verdict::Useful),
            feedback("2", 20, 1, Verdict::Noise),
        ]);
        assert_eq!(hands.verdict("a1", Some(1)), Some(Verdict::Noise));
        assert_eq!(hands.precision()["cost"], Precision { useful: 1, noise: 1 });
    }

    /// Some action out of a few, so that they meet.
    fn any_action() -> impl Strategy<Value = Action> {
        (0..5_u8, 0..3_u8, 0..4_i64, 0..3_u8, any::<bool>()).prop_map(|(kind, alert, at, other, useful)| {
            let id = format!("{kind}-{alert}-{at}-{other}");
            let silence = format!("2-{alert}-{at}-{}", other / 2);
            let made = match kind {
                0 => ack_of(&id, at, i64::from(other)),
                1 => action(&id, ActionKind::Unack, at),
                2 => silence_of(&id, "{task=\"refund\"}", at, at + 2),
                3 => unsilence_of(&id, &silence, i64::from(other)),
                _ => {
                    let verdict = Some(if useful { Verdict::Useful } else { Verdict::Noise });
                    // The id names the whole action.
                    let id = format!("{id}-{useful}");
                    Action { verdict, rule: Some("r".to_owned()), ..action(&id, ActionKind::Feedback, at) }
                }
            };
            if kind == 2 || kind == 3 { made } else { Action { alert_id: Some(format!("a{alert}")), ..made } }
        })
    }

    proptest! {
        #[test]
        fn the_state_is_the_same_in_any_order_and_with_any_repetition(
            actions in proptest::collection::vec(any_action(), 0..12),
            again in proptest::collection::vec(any::<Index>(), 0..6),
            keys in proptest::collection::vec(any::<u32>(), 18),
            split in any::<Index>(),
        ) {
            let expected = Hands::of(actions.clone());
            let mut mixed = actions.clone();
            if !actions.is_empty() {
                mixed.extend(again.iter().map(|index| index.get(&actions).clone()));
            }
            let mut order: Vec<usize> = (0..mixed.len()).collect();
            order.sort_by_key(|place| keys[*place]);
            let mixed: Vec<Action> = order.into_iter().map(|place| mixed[place].clone()).collect();
            let at = if mixed.is_empty() { 0 } else { split.index(mixed.len()) };
            let mut hands = Hands::of(mixed[..at].to_vec());
            hands.add(mixed[at..].to_vec());
            prop_assert_eq!(hands, expected);
        }
    }
}
