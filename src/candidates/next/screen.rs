//! The state of the screen. It does no I/O and knows no time: keys, news and times come in, actions go out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bellwether_base::Result;
use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use super::worker::{News, Order};
use crate::candidates::Candidate;
use crate::candidates::case::{Case, Line, Section, Tone};
use crate::candidates::content::Part;
use crate::candidates::statement::{Decision, Lease, Review};

/// Lines of a step through a long text.
const PAGE: usize = 10;

/// Longest name of a failure mode, characters; the limit of the contract.
const LONGEST_MODE: usize = 64;

/// A candidate that this reviewer has.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) case: Case,
    pub(super) lease: Lease,
    /// The tables say that this reviewer has it.
    pub(super) confirmed: bool,
}

/// What the reviewer adds to the next decision.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) eval_case: bool,
    pub(super) failure_mode: Option<String>,
    pub(super) expected: Option<Value>,
}

/// Whether further candidates come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    Taking,
    Nothing,
    Trouble(String),
}

pub(super) enum Action {
    Nothing,
    Quit,
    Order(Box<Order>),
    /// Opens the editor on a text.
    Edit(String),
}

/// The state of the screen. Times are microseconds since the epoch.
pub(super) struct Screen {
    pub(super) reviewer: String,
    pub(super) can_fetch: bool,
    length: Duration,
    /// Candidates at hand; the first one is on the screen.
    cases: VecDeque<Held>,
    /// Reviewed candidates, the latest last, and their decisions.
    done: Vec<(Held, Decision)>,
    /// Statements that are under way, and why one was not sent.
    open: BTreeMap<String, Option<String>>,
    pub(super) draft: Draft,
    /// A failure mode that is being written.
    pub(super) input: Option<String>,
    pub(super) message: Option<Line>,
    pub(super) supply: Supply,
    /// Candidates that wait for a decision, in all.
    pub(super) waiting: usize,
    /// First lines shown on the left and on the right, and which of them scrolls.
    pub(super) tops: [usize; 2],
    pub(super) right: bool,
    /// The next part shall come to the top.
    pub(super) to_next_part: bool,
    since: i64,
    shown_at: i64,
}

// === impl Screen ===

impl Screen {
    pub(super) fn new(reviewer: &str, length: Duration, can_fetch: bool, now: i64) -> Self {
        Self {
            reviewer: reviewer.to_owned(),
            can_fetch,
            length,
            cases: VecDeque::new(),
            done: Vec::new(),
            open: BTreeMap::new(),
            draft: Draft::default(),
            input: None,
            message: None,
            supply: Supply::Taking,
            waiting: 0,
            tops: [0; 2],
            right: false,
            to_next_part: false,
            since: now,
            shown_at: now,
        }
    }

    /// Returns the candidate on the screen.
    pub(super) fn current(&self) -> Option<&Held> {
        self.cases.front()
    }

    pub(super) fn ahead(&self) -> usize {
        self.cases.len().saturating_sub(1)
    }

    pub(super) fn reviewed(&self) -> usize {
        self.done.len()
    }

    /// Returns the parts of the candidate on the screen; the answer that is to be sent comes first.
    pub(super) fn sections(&self) -> Vec<Section> {
        let Some(held) = self.current() else { return Vec::new() };
        let mut sections = held.case.sections(self.can_fetch);
        if let Some(expected) = &self.draft.expected {
            let text = match expected {
                Value::String(text) => text.clone(),
                other => format!("{other:#}"),
            };
            let title = "Your answer: enter sends it, e edits it again, esc drops it".to_owned();
            let lines = vec![Line { text, tone: Tone::Good }];
            sections.insert(0, Section { title, is_content: true, lines });
        }
        sections
    }

    /// Takes in a key.
    pub(super) fn press(&mut self, key: KeyEvent, now: i64) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Action::Quit } else { Action::Nothing };
        }
        if self.input.is_some() {
            self.write(key.code);
            return Action::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => Action::Quit,
            KeyCode::Char('z') => self.undo(now),
            _ if self.cases.is_empty() => Action::Nothing,
            KeyCode::Char('a') => self.decide(Decision::Accept, now),
            KeyCode::Char('r') => self.decide(Decision::Reject, now),
            KeyCode::Char('u') => self.decide(Decision::Unsure, now),
            KeyCode::Char('s') => self.decide(Decision::Skip, now),
            KeyCode::Enter if self.draft.expected.is_some() => self.decide(Decision::Edit, now),
            KeyCode::Esc => {
                self.draft.expected = None;
                Action::Nothing
            }
            KeyCode::Char('e') => self.start(),
            KeyCode::Char('f') => self.fetch(),
            KeyCode::Char('c') => {
                self.draft.eval_case = !self.draft.eval_case;
                self.prolong(now)
            }
            KeyCode::Char('m') => {
                self.input = Some(self.draft.failure_mode.clone().unwrap_or_default());
                Action::Nothing
            }
            other => {
                self.scroll(other);
                self.prolong(now)
            }
        }
    }

    fn write(&mut self, key: KeyCode) {
        let Some(input) = &mut self.input else { return };
        match key {
            KeyCode::Esc => self.input = None,
            KeyCode::Backspace => drop(input.pop()),
            KeyCode::Enter => {
                let text = self.input.take().unwrap_or_default();
                self.draft.failure_mode = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
            }
            KeyCode::Char(letter) if !letter.is_control() && input.chars().count() < LONGEST_MODE => input.push(letter),
            _ => {}
        }
    }

    fn scroll(&mut self, key: KeyCode) {
        let top = &mut self.tops[usize::from(self.right)];
        match key {
            KeyCode::Down | KeyCode::Char('j') => *top = top.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => *top = top.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => *top = top.saturating_add(PAGE),
            KeyCode::PageUp => *top = top.saturating_sub(PAGE),
            KeyCode::Home => *top = 0,
            KeyCode::End => *top = usize::MAX,
            KeyCode::Tab => self.to_next_part = true,
            _ => {}
        }
    }

    fn decide(&mut self, decision: Decision, now: i64) -> Action {
        let Some(held) = self.cases.pop_front() else { return Action::Nothing };
        let draft = std::mem::take(&mut self.draft);
        let decides = matches!(decision, Decision::Accept | Decision::Edit | Decision::Reject);
        let wrong = matches!(decision, Decision::Edit | Decision::Reject);
        let review = Review {
            decision,
            failure_mode: draft.failure_mode.filter(|_| wrong),
            expected: draft.expected.filter(|_| decision == Decision::Edit),
            eval_case: draft.eval_case && decides,
            duration_ms: Some((now - self.shown_at).max(0) / 1000),
        };
        let candidate = held.case.candidate.clone();
        let id: String = candidate.candidate_id.chars().take(8).collect();
        let case = if review.eval_case { ", as an eval case" } else { "" };
        self.say(Tone::Good, format!("{} {id}{case}; z takes it back", decision.name()));
        let order = Order::Review(candidate.clone(), held.lease.clone(), review);
        self.open.insert(candidate.candidate_id, None);
        self.done.push((held, decision));
        self.top(now);
        Action::Order(Box::new(order))
    }

    /// Takes the latest decision back.
    fn undo(&mut self, now: i64) -> Action {
        let Some((held, decision)) = self.done.pop() else {
            self.say(Tone::Dim, "there is no decision to take back".to_owned());
            return Action::Nothing;
        };
        let candidate = held.case.candidate.clone();
        let id: String = candidate.candidate_id.chars().take(8).collect();
        self.say(Tone::Plain, format!("took {} of {id} back", decision.name()));
        self.cases.push_front(held);
        self.draft = Draft::default();
        self.top(now);
        Action::Order(Box::new(Order::Reopen(candidate)))
    }

    fn start(&self) -> Action {
        let Some(held) = self.current() else { return Action::Nothing };
        Action::Edit(match &self.draft.expected {
            Some(Value::String(text)) => text.clone(),
            Some(other) => format!("{other:#}"),
            None => held.case.output(),
        })
    }

    /// Takes in what the reviewer wrote in the editor.
    pub(super) fn edited(&mut self, written: Result<Value>) {
        match written {
            Ok(answer) => {
                self.draft.expected = Some(answer);
                (self.tops, self.right, self.message) = ([0; 2], false, None);
            }
            Err(error) => self.say(Tone::Bad, error.to_string()),
        }
    }

    fn fetch(&mut self) -> Action {
        let Some(held) = self.current() else { return Action::Nothing };
        let there = |name: &str| held.case.fetched.iter().any(|(fetched, _)| *fetched == name);
        let missing =
            held.case.parts().into_iter().find(|(name, part)| matches!(part, Part::Elsewhere { .. }) && !there(name));
        match (missing, self.can_fetch) {
            (Some((name, part)), true) => {
                let id = held.case.candidate.candidate_id.clone();
                self.say(Tone::Dim, format!("fetching the {name} …"));
                Action::Order(Box::new(Order::Fetch(id, name, part)))
            }
            (Some(_), false) => {
                self.say(Tone::Bad, "set `evals.fetch_content` in the configuration to fetch content".to_owned());
                Action::Nothing
            }
            (None, _) => {
                self.say(Tone::Dim, "there is nothing to fetch".to_owned());
                Action::Nothing
            }
        }
    }

    /// Prolongs the lease of the candidate on the screen if its reviewer is at work and a third of it is left.
    fn prolong(&mut self, now: i64) -> Action {
        let third = i64::try_from(self.length.as_micros() / 3).unwrap_or(i64::MAX);
        let two_thirds = third.saturating_mul(2);
        let Some(held) = self.cases.front_mut() else { return Action::Nothing };
        if held.lease.until - now > third || held.lease.until <= now {
            return Action::Nothing;
        }
        let lease = held.lease.clone();
        // Until the answer comes, the lease counts as prolonged; the worker sets its true end.
        held.lease.until = now.saturating_add(two_thirds);
        Action::Order(Box::new(Order::Prolong(held.case.candidate.clone(), lease)))
    }

    /// Takes in news from the worker.
    pub(super) fn receive(&mut self, news: News, now: i64) {
        match news {
            News::Case { case, lease, confirmed } => {
                if self.cases.is_empty() {
                    self.top(now);
                }
                self.supply = Supply::Taking;
                self.cases.push_back(Held { case: *case, lease, confirmed });
            }
            News::Waiting(waiting) => self.waiting = waiting,
            News::Nothing => self.supply = Supply::Nothing,
            News::Trouble(why) => {
                self.say(Tone::Bad, why.clone());
                self.supply = Supply::Trouble(why);
            }
            News::Sent(id) => drop(self.open.remove(&id)),
            News::NotSent { id, why, again } => self.not_sent(&id, why, again, now),
            News::Lease(id, lease) => {
                let held = self.cases.iter_mut().find(|held| held.case.candidate.candidate_id == id);
                held.into_iter().for_each(|held| held.lease = lease.clone());
            }
            News::Fetched(id, name, text) => {
                let held = self.cases.iter_mut().find(|held| held.case.candidate.candidate_id == id);
                match (held, text) {
                    (Some(held), Ok(text)) => {
                        held.case.fetched.push((name, text));
                        self.message = None;
                    }
                    (_, Err(why)) => self.say(Tone::Bad, why),
                    (None, Ok(_)) => {}
                }
            }
        }
    }

    /// Brings a candidate back of which the decision was not sent, or says why there can be none.
    fn not_sent(&mut self, id: &str, why: String, again: bool, now: i64) {
        let place = self.done.iter().position(|(held, _)| held.case.candidate.candidate_id == id);
        let held = place.map(|place| self.done.remove(place).0);
        match (again, held) {
            (true, held) => {
                self.open.insert(id.to_owned(), Some(why.clone()));
                if let Some(held) = held {
                    self.cases.push_front(held);
                    self.draft = Draft::default();
                    self.top(now);
                }
                self.say(Tone::Bad, format!("{why}; decide again"));
            }
            (false, _) => {
                self.open.remove(id);
                self.say(Tone::Bad, why);
            }
        }
    }

    /// Shows the first candidate from its top.
    fn top(&mut self, now: i64) {
        (self.tops, self.right, self.to_next_part, self.shown_at) = ([0; 2], false, false, now);
    }

    fn say(&mut self, tone: Tone, text: String) {
        self.message = Some(Line { text, tone });
    }

    /// Returns the candidates of which no decision has reached the topic.
    pub(super) fn unsent(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }

    /// Returns the time for one candidate so far.
    pub(super) fn pace(&self, now: i64) -> Option<Duration> {
        let reviewed = u32::try_from(self.done.len()).ok().filter(|reviewed| *reviewed > 0)?;
        let spent = u64::try_from((now - self.since).max(0)).unwrap_or(0);
        Some(Duration::from_micros(spent) / reviewed)
    }

    /// Says what was done.
    pub(super) fn summary(&self, now: i64) -> String {
        let reviewed = self.done.len();
        match self.pace(now) {
            Some(pace) => format!(
                "{} reviewed {reviewed} candidate{}, {} s each",
                self.reviewer,
                if reviewed == 1 { "" } else { "s" },
                pace.as_secs()
            ),
            None => format!("{} reviewed no candidate", self.reviewer),
        }
    }
}

/// Returns the first characters of an id, by which people name a candidate.
pub(super) fn short(candidate: &Candidate) -> String {
    candidate.candidate_id.chars().take(8).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use bellwether_base::Error;

    use super::*;
    use crate::candidates::case::tests::example;

    pub(in crate::candidates::next) const NOON: i64 = 1_795_348_800_000_000;
    const SECOND: i64 = 1_000_000;

    /// Returns a screen with candidates at hand.
    pub(in crate::candidates::next) fn with(cases: usize) -> Screen {
        let mut screen = Screen::new("ana", Duration::from_secs(900), false, NOON);
        for number in 0..cases {
            let mut case = example();
            case.candidate.candidate_id = format!("{number:08x}00000000");
            let lease = Lease::new(NOON + 900 * SECOND);
            screen.receive(News::Case { case: Box::new(case), lease, confirmed: true }, NOON);
        }
        screen
    }

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn letters(screen: &mut Screen, text: &str) {
        for letter in text.chars() {
            screen.press(key(KeyCode::Char(letter)), NOON);
        }
    }

    fn review(action: Action) -> (String, Review) {
        match action {
            Action::Order(order) => match *order {
                Order::Review(candidate, _, review) => (candidate.candidate_id, review),
                other => panic!("{other:?}"),
            },
            _ => panic!("no order"),
        }
    }

    fn on_screen(screen: &Screen) -> String {
        screen.current().map(|held| held.case.candidate.candidate_id.clone()).unwrap_or_default()
    }

    #[test]
    fn one_key_decides_and_the_next_candidate_is_there_at_once() {
        let mut screen = with(5);
        let keys = [('a', Decision::Accept), ('r', Decision::Reject), ('u', Decision::Unsure), ('s', Decision::Skip)];
        for (place, (letter, decision)) in keys.into_iter().enumerate() {
            let now = NOON + i64::try_from(place + 1).expect("few") * 40 * SECOND;
            let (id, review) = review(screen.press(key(KeyCode::Char(letter)), now));
            assert_eq!((id, review.decision), (format!("{place:08x}00000000"), decision));
            assert_eq!(review.duration_ms, Some(40_000), "since it came to the screen");
            assert_eq!(on_screen(&screen), format!("{:08x}00000000", place + 1));
        }
        assert_eq!((screen.reviewed(), screen.pace(NOON + 160 * SECOND)), (4, Some(Duration::from_secs(40))));
        assert!(screen.summary(NOON + 160 * SECOND).contains("reviewed 4 candidates, 40 s each"));
    }

    #[test]
    fn keys_without_a_candidate_do_nothing() {
        let mut screen = with(0);
        for letter in "arusecfm z".chars() {
            assert!(matches!(screen.press(key(KeyCode::Char(letter)), NOON), Action::Nothing), "{letter}");
        }
        assert!(screen.input.is_none());
        assert!(matches!(screen.press(key(KeyCode::Char('q')), NOON), Action::Quit));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(matches!(with(1).press(interrupt, NOON), Action::Quit), "not the key c");
        let control = KeyEvent::new(KeyCode::Char('a'), KeyModifiers::CONTROL);
        assert!(matches!(with(1).press(control, NOON), Action::Nothing), "not the key a");
    }

    #[test]
    fn eval_case_and_failure_mode_belong_to_one_decision() {
        let mut screen = with(3);
        letters(&mut screen, "cm");
        letters(&mut screen, "wrong sum");
        screen.press(key(KeyCode::Enter), NOON);
        let (_, with_both) = review(screen.press(key(KeyCode::Char('r')), NOON));
        assert_eq!((with_both.eval_case, with_both.failure_mode.as_deref()), (true, Some("wrong sum")));
        let (_, with_none) = review(screen.press(key(KeyCode::Char('r')), NOON));
        assert_eq!((with_none.eval_case, with_none.failure_mode), (false, None));
        letters(&mut screen, "c");
        let (_, undecided) = review(screen.press(key(KeyCode::Char('u')), NOON));
        assert!(!undecided.eval_case, "no eval case without a decision");
    }

    #[test]
    fn an_answer_is_edited_shown_and_sent_with_enter() {
        let mut screen = with(2);
        screen.press(key(KeyCode::Enter), NOON);
        assert_eq!(screen.reviewed(), 0, "there is no answer yet");
        assert!(matches!(screen.press(key(KeyCode::Char('e')), NOON), Action::Edit(text) if text.is_empty()));
        screen.edited(Err(Error::config("the expected answer is empty")));
        assert!(screen.message.as_ref().is_some_and(|line| line.text.contains("is empty")));
        screen.edited(Ok("refund 12".into()));
        assert!(screen.sections()[0].title.contains("enter sends it"));
        assert!(matches!(screen.press(key(KeyCode::Char('e')), NOON), Action::Edit(text) if text == "refund 12"));
        let (_, edit) = review(screen.press(key(KeyCode::Enter), NOON));
        assert_eq!((edit.decision, edit.expected), (Decision::Edit, Some("refund 12".into())));
        screen.edited(Ok("not this".into()));
        screen.press(key(KeyCode::Esc), NOON);
        let (_, accept) = review(screen.press(key(KeyCode::Char('a')), NOON));
        assert_eq!(accept.expected, None);
    }

    #[test]
    fn undo_reopens_the_latest_decision_and_brings_the_candidate_back() {
        let mut screen = with(2);
        screen.press(key(KeyCode::Char('a')), NOON);
        let Action::Order(order) = screen.press(key(KeyCode::Char('z')), NOON) else { panic!("an order") };
        assert!(matches!(*order, Order::Reopen(candidate) if candidate.candidate_id.starts_with("00000000")));
        assert_eq!((on_screen(&screen).as_str(), screen.reviewed(), screen.ahead()), ("0000000000000000", 0, 1));
        let lease = Lease::new(NOON + 5);
        screen.receive(News::Lease("0000000000000000".to_owned(), lease.clone()), NOON);
        assert_eq!(screen.current().map(|held| held.lease.clone()), Some(lease), "it is leased again");
        assert!(matches!(screen.press(key(KeyCode::Char('z')), NOON), Action::Nothing), "nothing more to take back");
    }

    #[test]
    fn a_decision_that_was_not_sent_brings_the_candidate_back_unless_others_decided() {
        let mut screen = with(2);
        let (id, _) = review(screen.press(key(KeyCode::Char('a')), NOON));
        let why = "the broker is gone".to_owned();
        screen.receive(News::NotSent { id: id.clone(), why, again: true }, NOON);
        assert_eq!((on_screen(&screen), screen.reviewed()), (id.clone(), 0));
        assert_eq!(screen.unsent(), std::slice::from_ref(&id));
        screen.press(key(KeyCode::Char('r')), NOON);
        screen.receive(News::Sent(id.clone()), NOON);
        assert!(screen.unsent().is_empty());
        let (other, _) = review(screen.press(key(KeyCode::Char('a')), NOON));
        let why = "your lease ran out, and ben has decided".to_owned();
        screen.receive(News::NotSent { id: other, why, again: false }, NOON);
        assert!(screen.current().is_none() && screen.unsent().is_empty());
        assert!(screen.message.as_ref().is_some_and(|line| line.text.contains("ben has decided")));
    }

    #[test]
    fn a_lease_is_prolonged_while_its_reviewer_is_at_work_and_only_once() {
        let mut screen = with(1);
        let down = key(KeyCode::Down);
        assert!(matches!(screen.press(down, NOON + 500 * SECOND), Action::Nothing), "much is left");
        let Action::Order(order) = screen.press(down, NOON + 700 * SECOND) else { panic!("an order") };
        assert!(matches!(*order, Order::Prolong(_, lease) if lease.until == NOON + 900 * SECOND));
        assert!(matches!(screen.press(down, NOON + 701 * SECOND), Action::Nothing), "it is under way");
        let mut away = with(1);
        assert!(matches!(away.press(down, NOON + 901 * SECOND), Action::Nothing), "it ran out");
    }

    #[test]
    fn content_is_fetched_only_if_there_is_a_reference_and_a_command() {
        let said = |screen: &Screen| screen.message.as_ref().map(|line| line.text.clone()).unwrap_or_default();
        let mut screen = with(1);
        assert!(matches!(screen.press(key(KeyCode::Char('f')), NOON), Action::Nothing));
        assert!(said(&screen).contains("nothing to fetch"), "its output has only a hash");
        let elsewhere = |screen: &mut Screen| {
            let held = screen.cases.front_mut().expect("a case");
            held.case.run = Some(serde_json::json!({ "content_json": "{\"output_ref\":\"s3://b/k\"}" }));
        };
        elsewhere(&mut screen);
        assert!(matches!(screen.press(key(KeyCode::Char('f')), NOON), Action::Nothing));
        assert!(said(&screen).contains("evals.fetch_content"));
        screen.can_fetch = true;
        let Action::Order(order) = screen.press(key(KeyCode::Char('f')), NOON) else { panic!("an order") };
        let Order::Fetch(id, name, Part::Elsewhere { .. }) = *order else { panic!("a fetch") };
        screen.receive(News::Fetched(id, name, Ok("the whole answer".to_owned())), NOON);
        assert!(
            matches!(screen.press(key(KeyCode::Char('e')), NOON), Action::Edit(text) if text == "the whole answer")
        );
    }
}
