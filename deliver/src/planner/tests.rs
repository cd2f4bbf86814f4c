//! The planner against a model of services and of a process that may be killed at any point.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_sinks::Notice;
use bellwether_sinks::page::Link;
use proptest::prelude::*;

use super::*;
use crate::hands::{Acknowledgement, NoHands};

const SECOND: i64 = 1_000_000;

/// For how long ends are repeated, to sinks that get repetitions.
const ENDED_FOR: Duration = Duration::from_secs(900);

fn settings(text: &str) -> DeliverSettings {
    DeliverSettings::parse(text).expect("valid")
}

/// Tables, services, and the process between them.
struct World {
    settings: DeliverSettings,
    resend: Option<Duration>,
    planner: Planner,
    now: i64,
    evaluation: i64,
    alerts: Vec<AlertRecord>,
    /// Rows of `alerts` that the process has read.
    read: usize,
    deliveries: Vec<DeliveryRow>,
    position: Option<i64>,
    /// Rows that the next commit writes.
    waiting: Vec<DeliveryRow>,
    /// The start of each alert that fires.
    firing: BTreeMap<String, i64>,
    /// The times at which each of them became stale.
    stale: BTreeMap<String, Vec<i64>>,
    /// Each message that a service has accepted.
    accepted: Vec<(String, Notice)>,
    silences: Box<dyn Silences>,
    /// Evidence takes too long for its message.
    evidence_is_late: bool,
}

/// The fate of the messages of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Works,
    Outage,
    /// The service accepts them, but its answer is lost.
    AnswerLost,
    /// The service refuses them.
    Refused,
    /// The process is killed before it commits its plan, before it sends, and after it has sent.
    KilledBeforeCommit,
    KilledBeforeSending,
    KilledAfterSending,
}

impl World {
    fn new(settings: DeliverSettings) -> Self {
        Self::with_resend(settings, None)
    }

    fn with_resend(settings: DeliverSettings, resend: Option<Duration>) -> Self {
        let planner = Planner::new(settings.clone(), sinks(&settings, resend));
        let mut world = Self {
            settings,
            resend,
            planner,
            now: 1_783_296_000 * SECOND,
            evaluation: 0,
            alerts: Vec::new(),
            read: 0,
            deliveries: Vec::new(),
            position: Some(0),
            waiting: Vec::new(),
            firing: BTreeMap::new(),
            stale: BTreeMap::new(),
            accepted: Vec::new(),
            silences: Box::new(NoHands),
            evidence_is_late: false,
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.planner = Planner::new(self.settings.clone(), sinks(&self.settings, self.resend));
        let restored = self.planner.restore(&self.deliveries, &self.alerts, self.position, self.now);
        self.waiting = restored.expect("restores");
        self.read = self.alerts.len();
    }

    fn commit(&mut self, mut rows: Vec<DeliveryRow>) {
        let number = self.deliveries.last().map_or(0, |row| row.number) + 1;
        rows.iter_mut().for_each(|row| row.number = number);
        self.deliveries.extend(rows);
        self.deliveries.sort_by_key(|row| (row.number, row.transition, row.step));
        self.position = self.planner.evaluation().or(Some(0));
    }

    /// Appends a row to `alerts`, as an evaluation of its own.
    fn add(&mut self, id: &str, row: AlertRecord) {
        self.evaluation += 1;
        let severity = if row.severity.is_empty() { "page".to_owned() } else { row.severity.clone() };
        let title = format!("{id} fires");
        let row = AlertRecord {
            alert_id: id.to_owned(),
            severity,
            title,
            evaluation: self.evaluation,
            evaluated_at: self.now,
            ..row
        };
        self.alerts.push(row);
    }

    fn transition(&mut self, id: &str, at: i64, from: &str, state: &str, change: &str) {
        let row = AlertRecord {
            at,
            state_from: from.to_owned(),
            state: state.to_owned(),
            change: change.to_owned(),
            task: Some(id.to_owned()),
            ..AlertRecord::default()
        };
        self.add(id, row);
    }

    fn fire(&mut self, id: &str) {
        self.transition(id, self.now, "pending", "firing", "new");
        self.firing.insert(id.to_owned(), self.now);
    }

    fn resolve(&mut self, id: &str) {
        self.transition(id, self.now, "firing", "resolved", "new");
        self.firing.remove(id);
        self.stale.remove(id);
    }

    /// A correction takes everything back that is known of the present firing.
    fn retract(&mut self, id: &str) {
        for at in self.stale.remove(id).unwrap_or_default() {
            self.transition(id, at, "firing", "firing", "retracted");
            self.alerts.last_mut().expect("added").stale = true;
        }
        if let Some(at) = self.firing.remove(id) {
            self.transition(id, at, "firing", "inactive", "retracted");
        }
    }

    fn step(&mut self, fate: Fate) {
        let rows = self.alerts[self.read..].to_vec();
        self.planner.take(&rows).expect("takes");
        self.read = self.alerts.len();
        let planned = self.planner.plan(self.now, &*self.silences);
        let planned = self.waiting.drain(..).chain(planned).collect();
        if fate == Fate::KilledBeforeCommit {
            return self.restart();
        }
        self.commit(planned);
        let due = self.planner.due(self.now);
        if fate == Fate::KilledBeforeSending {
            return self.restart();
        }
        for delivery in due {
            assert!(!delivery.drafts.is_empty(), "a message has a page");
            let mut pages: Vec<Page> = delivery.drafts.iter().map(|draft| draft.page.clone()).collect();
            let mut incomplete = BTreeSet::new();
            for (page, draft) in pages.iter_mut().zip(&delivery.drafts) {
                match draft.is_built || !self.evidence_is_late {
                    true => {
                        page.links = vec![evidence(draft)];
                        self.planner.complete(draft.alert.evaluation, draft.page.clone());
                    }
                    false => drop(incomplete.insert(page.incident.clone())),
                }
            }
            let sink = delivery.sink().to_owned();
            if matches!(fate, Fate::Works | Fate::AnswerLost | Fate::KilledAfterSending) {
                self.accepted.push((sink, delivery.notice(pages)));
            }
            let result = match fate {
                Fate::Works | Fate::KilledAfterSending => {
                    Ok(Receipt { reference: format!("m{}", self.accepted.len()), answer: "ok".to_owned() })
                }
                Fate::Refused => Err(Failure::Refused { reason: "token revoked".to_owned() }),
                _ => Err(Failure::Later { reason: "down".to_owned(), after: None }),
            };
            let after = self.now + 5 * SECOND;
            let outcome = Outcome { result, incomplete, destination_after: after, sink_after: after };
            if fate != Fate::KilledAfterSending {
                let rows = self.planner.settle(delivery, outcome, self.now);
                self.commit(rows);
            }
        }
        if fate == Fate::KilledAfterSending {
            self.restart();
        }
    }

    /// Returns the pages that were sent without their evidence, and whose evidence is not ready.
    fn incomplete(&self) -> Vec<Draft> {
        let keys: BTreeMap<&str, &DestinationId> = self.planner.incomplete().map(|(id, key)| (key, id)).collect();
        keys.into_iter().filter_map(|(key, id)| self.planner.draft(id, key)).collect()
    }

    /// Completes the pages that were sent without their evidence.
    fn complete(&mut self) {
        for draft in self.incomplete() {
            self.planner.complete(draft.alert.evaluation, draft.page);
        }
    }

    /// Lets everything work for a while.
    fn settle(&mut self) {
        for _ in 0..400 {
            self.now += 5 * SECOND;
            self.complete();
            self.step(Fate::Works);
        }
    }

    /// Returns the last state of each incident that a service knows: sink, alert, incident.
    fn known(&self) -> BTreeMap<(String, String, String), Status> {
        let mut known = BTreeMap::new();
        for (sink, notice) in &self.accepted {
            for page in &notice.pages {
                known.insert((sink.clone(), page.alert_id.clone(), page.incident.clone()), page.status);
            }
        }
        known
    }

    fn steps(&self, step: DeliveryStep) -> Vec<&DeliveryRow> {
        self.deliveries.iter().filter(|row| row.step == step).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.accepted.iter().flat_map(|(_, notice)| notice.missed.clone()).collect()
    }
}

fn sinks(settings: &DeliverSettings, every: Option<Duration>) -> Vec<(String, Resend)> {
    let again = Resend { every, ended_for: Some(ENDED_FOR), late_evidence: true };
    settings.sinks.keys().map(|name| (name.clone(), again)).collect()
}

/// Stands for the evidence of a page: names the evaluation and the status that it was built for.
fn evidence(draft: &Draft) -> Link {
    Link { name: "evidence".to_owned(), url: format!("{} {:?}", draft.alert.evaluation, draft.page.status) }
}

const TWO: &str = "[deliver.sinks.chat]\n[deliver.sinks.pager]\n[[deliver.routes]]\nname = \"pager\"\nsinks = [\"pager\"]\ncontinue = true\n\
                   [[deliver.routes]]\nname = \"chat\"\nsinks = [\"chat\"]\n";
const ONE: &str = "[deliver.sinks.chat]\n";

#[test]
fn an_incident_is_sent_when_it_begins_and_when_it_ends_under_one_key() {
    let mut world = World::new(settings(ONE));
    world.fire("a");
    world.step(Fate::Works);
    world.settle();
    assert_eq!(world.accepted.len(), 1, "nothing changed meanwhile");
    world.resolve("a");
    world.step(Fate::Works);
    let pages: Vec<&Page> = world.accepted.iter().flat_map(|(_, notice)| &notice.pages).collect();
    assert_eq!(pages.iter().map(|page| page.status).collect::<Vec<_>>(), [Status::Firing, Status::Resolved]);
    assert_eq!(pages[0].incident, pages[1].incident);
    world.fire("a");
    world.step(Fate::Works);
    assert_ne!(world.accepted[2].1.pages[0].incident, pages_of(&world, 0)[0].incident);
}

fn pages_of(world: &World, message: usize) -> &[Page] {
    &world.accepted[message].1.pages
}

#[test]
fn an_outage_ends_without_a_flood() {
    let mut world = World::new(settings(ONE));
    for id in 0..40 {
        world.fire(&format!("short{id}"));
    }
    world.fire("long");
    world.step(Fate::Outage);
    for id in 0..40 {
        world.resolve(&format!("short{id}"));
        world.now += 60 * SECOND;
        world.step(Fate::Outage);
    }
    world.settle();
    assert_eq!(world.accepted.len(), 1, "one message for everything");
    let notice = &world.accepted[0].1;
    assert_eq!(notice.pages.len() + notice.missed.len(), 41);
    assert!(notice.missed.len() >= 25, "the service cannot know of these: {}", notice.missed.len());
    assert!(notice.pages[1..].iter().all(|page| page.status == Status::Resolved));
    assert_eq!((notice.pages[0].alert_id.as_str(), notice.pages[0].status), ("long", Status::Firing));
    let planned: BTreeSet<&String> = world.steps(DeliveryStep::Planned).iter().map(|row| &row.key).collect();
    let sent: BTreeSet<&String> = world.steps(DeliveryStep::Sent).iter().map(|row| &row.key).collect();
    assert_eq!(planned, sent);
    assert!(world.steps(DeliveryStep::Failed).len() <= 60, "a long outage is recorded ever more rarely");
}

#[test]
fn if_everything_ended_during_an_outage_the_last_incident_is_a_resolved_page() {
    let mut world = World::new(settings(ONE));
    for id in ["a", "b"] {
        world.fire(id);
        world.now += SECOND;
        world.resolve(id);
        world.step(Fate::Outage);
    }
    world.settle();
    assert_eq!(world.accepted.len(), 1);
    let notice = &world.accepted[0].1;
    assert_eq!((notice.pages[0].alert_id.as_str(), notice.pages[0].status), ("b", Status::Resolved));
    assert!(notice.missed[0].contains("a fires"), "{:?}", notice.missed);
}

#[test]
fn a_failing_sink_delays_no_other_and_a_refusal_does_not_stop_the_next_transition() {
    let mut world = World::new(settings(TWO));
    world.fire("a");
    let rows = world.alerts.clone();
    world.planner.take(&rows).expect("takes");
    world.read = 1;
    let planned = world.planner.plan(world.now, &NoHands);
    world.commit(planned);
    for delivery in world.planner.due(world.now) {
        let refused = delivery.sink() == "pager";
        let result = match refused {
            true => Err(Failure::Refused { reason: "token revoked".to_owned() }),
            false => Err(Failure::Later { reason: "down".to_owned(), after: None }),
        };
        let after = world.now + 3600 * SECOND;
        let outcome = Outcome { result, incomplete: BTreeSet::new(), destination_after: after, sink_after: after };
        let rows = world.planner.settle(delivery, outcome, world.now);
        world.commit(rows);
    }
    assert_eq!(world.planner.failing().collect::<Vec<_>>(), [("chat", "down"), ("pager", "token revoked")]);
    assert_eq!(world.steps(DeliveryStep::Refused)[0].reason.as_deref(), Some("token revoked"));
    world.resolve("a");
    world.now += SECOND;
    world.step(Fate::Works);
    assert_eq!(world.known().len(), 1, "the pager had the resolution although chat is down");
    assert_eq!(world.accepted[0].0, "pager");
}

#[test]
fn a_group_waits_and_then_shares_its_messages() {
    let text = format!(
        "{ONE}[[deliver.routes]]\nname = \"r\"\nsinks = [\"chat\"]\ngroup_by = [\"severity\"]\nrepeat_interval = \"1h\"\n"
    );
    let mut world = World::new(settings(&text));
    world.fire("a");
    world.step(Fate::Works);
    world.now += 5 * SECOND;
    world.fire("b");
    world.step(Fate::Works);
    assert!(world.accepted.is_empty(), "it waits for 10 s");
    world.now += 5 * SECOND;
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 1);
    let notice = &world.accepted[0].1;
    assert_eq!((notice.pages.len(), notice.group.clone()), (2, vec![("severity".to_owned(), "page".to_owned())]));
    world.fire("c");
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 1, "a minute between two messages");
    world.now += 60 * SECOND;
    world.step(Fate::Works);
    assert_eq!(pages_of(&world, 1).len(), 3, "the whole group");
    world.resolve("a");
    world.now += 60 * SECOND;
    world.step(Fate::Works);
    let states: Vec<Status> = pages_of(&world, 2).iter().map(|page| page.status).collect();
    assert_eq!(states, [Status::Firing, Status::Firing, Status::Resolved]);
    world.now += 3600 * SECOND;
    world.restart();
    world.step(Fate::Works);
    assert_eq!(pages_of(&world, 3).len(), 2, "a reminder of what still fires");
    assert!(world.steps(DeliveryStep::Planned).iter().any(|row| row.kind == Kind::Repeated));
}

#[test]
fn a_service_that_forgets_is_told_again_without_rows() {
    let mut world = World::with_resend(settings(ONE), Some(Duration::from_secs(60)));
    world.fire("a");
    world.step(Fate::Works);
    let rows = world.deliveries.len();
    world.now += 59 * SECOND;
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 1);
    world.now += SECOND;
    world.step(Fate::Works);
    assert_eq!((world.accepted.len(), world.deliveries.len()), (2, rows));
    assert_eq!(pages_of(&world, 0)[0].incident, pages_of(&world, 1)[0].incident);
}

#[test]
fn the_end_is_repeated_for_a_while_but_not_once_the_alert_fires_again() {
    for again in [false, true] {
        let mut world = World::with_resend(settings(ONE), Some(Duration::from_secs(60)));
        world.fire("a");
        world.step(Fate::Works);
        world.resolve("a");
        world.step(Fate::Works);
        let (sent, rows) = (world.accepted.len(), world.deliveries.len());
        for _ in 0..10 {
            world.now += 60 * SECOND;
            world.restart();
            world.step(Fate::Works);
        }
        let ends = |world: &World| world.accepted[sent..].iter().flat_map(|(_, notice)| notice.pages.clone()).collect();
        let repeated: Vec<Page> = ends(&world);
        assert!(repeated.len() == 10 && repeated.iter().all(|page| page.status == Status::Resolved), "{repeated:#?}");
        assert_eq!(world.deliveries.len(), rows, "repetitions are no rows");
        if again {
            world.fire("a");
            world.step(Fate::Works);
        }
        let before = world.accepted.len();
        for _ in 0..20 {
            world.now += 60 * SECOND;
            world.step(Fate::Works);
        }
        let statuses: Vec<Status> = world.accepted[before..].iter().map(|(_, notice)| notice.pages[0].status).collect();
        // Fifteen minutes in all.
        let expected = if again { vec![Status::Firing; 20] } else { vec![Status::Resolved; 4] };
        assert_eq!(statuses, expected);
    }
}

struct Said {
    silenced: bool,
    acknowledged: bool,
}

impl Silences for Said {
    fn silenced(&self, _: &AlertRecord, _: i64) -> Option<String> {
        self.silenced.then(|| "silenced by ada: known".to_owned())
    }

    fn acknowledged(&self, _: &AlertRecord, since: i64, at: i64) -> Option<Acknowledgement> {
        assert!(since <= at);
        let (person, note) = ("ada".to_owned(), Some("on it".to_owned()));
        self.acknowledged.then_some(Acknowledgement { person, at, until: None, note })
    }
}

#[test]
fn a_silenced_alert_is_sent_when_the_silence_ends_if_it_still_fires() {
    let mut world = World::new(settings(ONE));
    world.silences = Box::new(Said { silenced: true, acknowledged: false });
    world.fire("a");
    world.fire("b");
    world.step(Fate::Works);
    world.settle();
    let suppressed = world.steps(DeliveryStep::Suppressed);
    assert_eq!((suppressed.len(), suppressed[0].reason.as_deref()), (2, Some("silenced by ada: known")));
    world.resolve("b");
    world.step(Fate::Works);
    world.restart();
    world.silences = Box::new(NoHands);
    world.settle();
    assert_eq!(world.known().into_keys().map(|(_, alert, _)| alert).collect::<Vec<_>>(), ["a"]);
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn an_acknowledgement_updates_the_incident_and_ends_its_repetitions() {
    let text = format!("{ONE}[[deliver.routes]]\nname = \"r\"\nsinks = [\"chat\"]\nrepeat_interval = \"1m\"\n");
    let mut world = World::new(settings(&text));
    world.fire("a");
    world.step(Fate::Works);
    world.silences = Box::new(Said { silenced: false, acknowledged: true });
    world.settle();
    assert_eq!(world.accepted.len(), 2);
    let page = &pages_of(&world, 1)[0];
    assert_eq!(page.status, Status::Acknowledged);
    assert_eq!(page.evidence.notes, ["Acknowledged by ada: on it"]);
    world.silences = Box::new(NoHands);
    world.now += SECOND;
    world.step(Fate::Works);
    assert_eq!(pages_of(&world, 2)[0].status, Status::Firing);
}

#[test]
fn an_explained_alert_waits_and_is_sent_once_its_explanation_ends() {
    let alert = |rule: &str, area: &str, severity: &str| AlertRecord {
        rule: rule.to_owned(),
        severity: severity.to_owned(),
        task: Some("refunds".to_owned()),
        labels: BTreeMap::from([("area".to_owned(), area.to_owned())]),
        state_from: "pending".to_owned(),
        state: "firing".to_owned(),
        change: "new".to_owned(),
        at: 1,
        ..AlertRecord::default()
    };
    let mut world = World::new(settings(ONE));
    world.add("cost", alert("cost_ceiling", "cost", "ticket"));
    world.add("success", alert("success_drift", "quality", "page"));
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 1);
    let suppressed = &pages_of(&world, 0)[0].suppressed;
    assert_eq!(suppressed[0].alert_id, "cost");
    assert!(suppressed[0].reason.contains("raises the cost"), "{suppressed:?}");
    assert_eq!(world.steps(DeliveryStep::Suppressed).len(), 1);
    world.restart();
    let ends = AlertRecord {
        state_from: "firing".to_owned(),
        state: "resolved".to_owned(),
        at: 2,
        ..alert("success_drift", "quality", "page")
    };
    world.add("success", ends);
    world.step(Fate::Works);
    let sent: Vec<(&str, Status)> =
        world.accepted[1..].iter().map(|(_, n)| (n.pages[0].alert_id.as_str(), n.pages[0].status)).collect();
    assert!(sent.contains(&("cost", Status::Firing)) && sent.contains(&("success", Status::Resolved)), "{sent:?}");
}

#[test]
fn the_first_start_sends_only_what_fires_now() {
    let mut world = World::new(settings(ONE));
    world.fire("old");
    world.resolve("old");
    world.fire("new");
    world.position = None;
    world.restart();
    world.settle();
    assert_eq!(world.accepted.len(), 1);
    assert_eq!((pages_of(&world, 0)[0].alert_id.as_str(), world.lines().len()), ("new", 0));
}

#[test]
fn what_is_no_longer_configured_is_given_up_and_goes_elsewhere() {
    let mut world = World::new(settings(TWO));
    world.fire("a");
    world.step(Fate::Outage);
    world.settings = settings(ONE);
    world.restart();
    world.settle();
    let given_up = world.steps(DeliveryStep::GivenUp);
    assert_eq!(given_up.len(), 2);
    assert!(given_up.iter().any(|row| row.reason.as_deref() == Some("route `pager` is no longer configured")));
    assert_eq!(world.known().len(), 1, "the default route takes it");
}

#[test]
fn evidence_that_was_late_follows_once_and_survives_a_kill() {
    let group = "[[deliver.routes]]\nname = \"r\"\nsinks = [\"chat\"]\ngroup_by = [\"severity\"]\n";
    for (text, pages) in [(ONE.to_owned(), 1), (format!("{ONE}{group}"), 2)] {
        let mut world = World::new(settings(&text));
        world.evidence_is_late = true;
        world.fire("a");
        world.fire("b");
        world.step(Fate::Works);
        world.now += 10 * SECOND;
        world.step(Fate::Works);
        let first = world.accepted.len();
        assert_eq!((first, pages_of(&world, 0).len()), (2 / pages, pages));
        world.restart();
        let incomplete = world.incomplete();
        assert_eq!((incomplete.len(), world.planner.oldest()), (2, None), "evidence is no change");
        let [a, b] = &incomplete[..] else { panic!("two alerts") };
        world.planner.complete(a.alert.evaluation, a.page.clone());
        world.step(Fate::Works);
        assert_eq!(world.accepted.len(), if pages == 1 { 3 } else { 1 }, "a group waits for all its evidence");
        world.planner.complete(b.alert.evaluation, b.page.clone());
        world.step(Fate::Works);
        assert_eq!(world.accepted.len(), 2 * first);
        assert!(
            world.accepted[first..].iter().all(|(_, notice)| notice.evidence_only && notice.pages[0].links.len() == 1)
        );
        world.settle();
        assert_eq!(world.accepted.len(), 2 * first, "once");
        let kinds = |step| world.steps(step).iter().map(|row| row.kind).filter(|kind| *kind == Kind::Evidence).count();
        assert_eq!((kinds(DeliveryStep::Planned), kinds(DeliveryStep::Sent)), (2, 2));
    }
}

#[test]
fn what_was_refused_is_sent_again_once_the_sink_accepts_others_or_at_a_start() {
    for restarts in [false, true] {
        let mut world = World::new(settings(ONE));
        world.fire("a");
        world.step(Fate::Refused);
        world.settle();
        assert!(world.accepted.is_empty(), "it is not tried again by itself");
        assert_eq!(world.planner.failing().collect::<Vec<_>>(), [("chat", "token revoked")]);
        if restarts {
            world.restart();
        } else {
            world.fire("b");
        }
        world.step(Fate::Works);
        world.step(Fate::Works);
        assert!(world.known().keys().any(|(_, alert, _)| alert == "a"), "{restarts}");
        assert_eq!(world.planner.failing().count(), 0);
        let sent = world.accepted.len();
        world.settle();
        assert_eq!(world.accepted.len(), sent, "once");
    }
    // A page that is refused because of its content is tried ever more rarely, not after every message that the sink accepts.
    let mut world = World::new(settings(ONE));
    world.fire("bad");
    world.step(Fate::Refused);
    for n in 0..200 {
        world.now += 60 * SECOND;
        world.fire(&format!("good{n}"));
        let read = world.alerts[world.read..].to_vec();
        world.planner.take(&read).expect("takes");
        world.read = world.alerts.len();
        let planned = world.planner.plan(world.now, &NoHands);
        world.commit(planned);
        for delivery in world.planner.due(world.now) {
            let is_bad = delivery.drafts[0].alert.alert_id == "bad";
            let result = match is_bad {
                true => Err(Failure::Refused { reason: "too long".to_owned() }),
                false => Ok(Receipt::default()),
            };
            let (incomplete, after) = (BTreeSet::new(), world.now);
            let outcome = Outcome { result, incomplete, destination_after: after, sink_after: after };
            let rows = world.planner.settle(delivery, outcome, world.now);
            world.commit(rows);
        }
    }
    let refused = world.steps(DeliveryStep::Refused).len();
    assert!((4..=8).contains(&refused), "{refused} times in 200 minutes");
}

#[test]
fn new_pages_go_before_evidence() {
    let mut world = World::new(settings(ONE));
    world.evidence_is_late = true;
    for id in 0..10 {
        world.fire(&format!("old{id}"));
    }
    for _ in 0..3 {
        world.step(Fate::Works);
    }
    world.complete();
    world.step(Fate::Outage);
    world.now += 60 * SECOND;
    for id in 0..10 {
        world.fire(&format!("new{id}"));
    }
    let before = world.accepted.len();
    for _ in 0..4 {
        world.step(Fate::Works);
    }
    let sent = &world.accepted[before..];
    assert!(sent.len() >= 10 && sent[..10].iter().all(|(_, notice)| !notice.evidence_only));
}

#[test]
fn late_evidence_holds_up_no_change_and_is_that_of_the_present_state() {
    let mut world = World::with_resend(settings(ONE), Some(Duration::from_secs(60)));
    world.evidence_is_late = true;
    world.fire("a");
    world.step(Fate::Works);
    let [old] = &world.incomplete()[..] else { panic!("one alert") };
    let old = old.clone();
    // The service hears again that it fires, although the evidence is missing.
    world.now += 60 * SECOND;
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 2);
    let (was, at) = (world.firing["a"], world.firing["a"] - SECOND);
    world.transition("a", at, "pending", "firing", "moved");
    world.alerts.last_mut().expect("added").was = Some(was);
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 3, "a change waits for no evidence");
    world.planner.complete(old.alert.evaluation, old.page);
    world.step(Fate::Works);
    assert_eq!(world.accepted.len(), 3, "evidence of an earlier state");
    world.complete();
    world.step(Fate::Works);
    assert!(world.accepted.len() == 4 && world.accepted[3].1.evidence_only);
    world.resolve("a");
    world.step(Fate::Works);
    assert!(world.incomplete().is_empty(), "an end needs none");
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Fire(u8),
    Resolve(u8),
    Move(u8),
    Retract(u8),
    Stale(u8),
    Pass(u8),
    /// From now on, evidence is too late for its message, or in time.
    Late(bool),
    /// The evidence of pages that were sent without it is ready.
    Complete,
    /// So many hours in which no service answers.
    Outage(u8),
    Step(Fate),
}

fn event() -> impl Strategy<Value = Event> {
    let fate = prop_oneof![
        4 => Just(Fate::Works),
        3 => Just(Fate::Outage),
        2 => Just(Fate::AnswerLost),
        1 => Just(Fate::KilledBeforeCommit),
        1 => Just(Fate::KilledBeforeSending),
        2 => Just(Fate::KilledAfterSending),
    ];
    prop_oneof![
        3 => (0u8..4).prop_map(Event::Fire),
        2 => (0u8..4).prop_map(Event::Resolve),
        1 => (0u8..4).prop_map(Event::Move),
        1 => (0u8..4).prop_map(Event::Retract),
        1 => (0u8..4).prop_map(Event::Stale),
        3 => (0u8..90).prop_map(Event::Pass),
        1 => (1u8..6).prop_map(Event::Outage),
        1 => any::<bool>().prop_map(Event::Late),
        2 => Just(Event::Complete),
        6 => fate.prop_map(Event::Step),
    ]
}

/// Lets an event happen. Returns true if an alert began to fire.
fn happen(world: &mut World, event: &Event) -> bool {
    let name = |id: &u8| format!("alert{id}");
    world.now += SECOND;
    match event {
        Event::Fire(id) if !world.firing.contains_key(&name(id)) => {
            world.fire(&name(id));
            return true;
        }
        Event::Resolve(id) if world.firing.contains_key(&name(id)) => world.resolve(&name(id)),
        Event::Move(id) => {
            if let Some(at) = world.firing.get(&name(id)).copied() {
                let (was, at) = (Some(at), at - SECOND / 100);
                world.transition(&name(id), at, "pending", "firing", "moved");
                world.alerts.last_mut().expect("added").was = was;
                world.firing.insert(name(id), at);
            }
        }
        Event::Retract(id) => world.retract(&name(id)),
        Event::Stale(id) if world.firing.contains_key(&name(id)) => {
            world.transition(&name(id), world.now, "firing", "firing", "restated");
            world.alerts.last_mut().expect("added").stale = true;
            let now = world.now;
            world.stale.entry(name(id)).or_default().push(now);
        }
        Event::Pass(seconds) => world.now += i64::from(*seconds) * SECOND,
        Event::Outage(hours) => {
            for _ in 0..i64::from(*hours) * 6 {
                world.now += 600 * SECOND;
                world.step(Fate::Outage);
            }
        }
        Event::Step(fate) => world.step(*fate),
        Event::Late(late) => world.evidence_is_late = *late,
        Event::Complete => world.complete(),
        Event::Fire(_) | Event::Resolve(_) | Event::Stale(_) => {}
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_services_end_with_the_present_state_and_each_incident_is_told(
        events in proptest::collection::vec(event(), 1..60),
        grouped in any::<bool>(),
        resends in any::<bool>(),
    ) {
        let group = if grouped { "group_by = [\"severity\"]\n" } else { "" };
        let text = TWO.replace("name = \"chat\"\n", &format!("name = \"chat\"\n{group}"));
        let mut world = World::with_resend(settings(&text), resends.then_some(Duration::from_secs(60)));
        let fired = events.iter().filter(|event| happen(&mut world, event)).count();
        world.settle();

        // Each planned transition is in the table once, and was delivered.
        let keys = |step| world.steps(step).iter().map(|row| row.key.clone()).collect::<Vec<_>>();
        let (planned, sent) = (keys(DeliveryStep::Planned), keys(DeliveryStep::Sent));
        prop_assert_eq!(planned.iter().collect::<BTreeSet<_>>().len(), planned.len());
        prop_assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len());
        prop_assert_eq!(planned.iter().collect::<BTreeSet<_>>(), sent.iter().collect::<BTreeSet<_>>());

        // Each firing is one incident, at both sinks.
        for sink in ["chat", "pager"] {
            let rows = world.steps(DeliveryStep::Planned);
            let incidents: BTreeSet<&String> = rows.iter().filter(|row| row.sink == sink).map(|row| &row.incident).collect();
            prop_assert_eq!(incidents.len(), fired);
        }

        // Services believe what is true.
        let mut believed: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for ((sink, alert, incident), status) in world.known() {
            let firing = believed.entry((sink, alert)).or_default();
            if status == Status::Firing {
                firing.push(incident);
            }
        }
        for id in 0..4 {
            for sink in ["chat", "pager"] {
                let alert = format!("alert{id}");
                let firing = believed.get(&(sink.to_owned(), alert.clone())).map_or(0, Vec::len);
                prop_assert_eq!(firing, usize::from(world.firing.contains_key(&alert)), "{} at {}", alert, sink);
            }
        }
        // A service that knows alerts by their labels believes what it heard last.
        if resends {
            let mut last: BTreeMap<(&str, &str), Status> = BTreeMap::new();
            for (sink, notice) in &world.accepted {
                // Of several pages about one alert in a message, it takes the first.
                for page in notice.pages.iter().rev() {
                    last.insert((sink, &page.alert_id), page.status);
                }
            }
            for ((sink, alert), status) in last {
                prop_assert_eq!(status == Status::Firing, world.firing.contains_key(alert), "{} at {}", alert, sink);
            }
        }
        prop_assert_eq!(world.planner.reported().len(), world.firing.len() * 2);
        // The last page of each firing incident has the evidence of its present state.
        prop_assert!(world.incomplete().is_empty());
        for (sink, alert) in ["chat", "pager"].iter().flat_map(|sink| world.firing.keys().map(move |alert| (*sink, alert))) {
            let mut messages = world.accepted.iter().filter(|(to, _)| to == sink).flat_map(|(_, notice)| &notice.pages);
            let last = messages.rfind(|page| &page.alert_id == alert && page.status == Status::Firing).expect("sent");
            prop_assert_eq!(last.links.len(), 1, "{} at {}", alert, sink);
        }
        prop_assert_eq!(world.planner.oldest(), None);
    }
}
