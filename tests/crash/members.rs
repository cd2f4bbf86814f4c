//! Members of a group that join, leave, die, and come back from the dead.

use std::time::{Duration, Instant};

use super::ledger::{Plan, Publisher};
use super::proof::{Stands, ends_whole};
use super::{Chance, real_broker};
use crate::common::program::{ConfigText, Running};
use crate::common::{Broker, Setup, until, until_or};

const PARTITIONS: i32 = 4;

/// Changes of the group's members.
const CHANGES: usize = 14;

/// Longest time between two changes: some find the group settled, most find it in the middle of sharing out.
const PAUSE: Duration = Duration::from_millis(2500);

/// Load of the tests here.
const PLAN: Plan = Plan { partitions: PARTITIONS, only_bad: None, burst: 3 };

/// A short session, so that a dead member's partitions move on soon; the shortest that brokers grant by default.
fn in_a_group(broker: &Broker, topic: &str, flush_interval: &str) -> Setup {
    let extra = format!(
        "[ingest]\nflush_interval = \"{flush_interval}\"\n\
         [kafka.properties]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 500\n"
    );
    Setup::with(&ConfigText { brokers: &broker.address, topics: &[topic], extra: &extra, ..ConfigText::default() })
}

/// Asks a worker to leave, and sees that it does so well. One that is asked before it has got to listening for that is
/// ended by the system, with no code and nothing said.
pub(super) fn leave(worker: Running) {
    worker.signal("TERM");
    let ended = worker.end();
    let unborn = ended.code.is_none() && ended.stderr.is_empty();
    assert!(ended.code == Some(0) || unborn, "{:?}\n{}", ended.code, ended.stderr);
}

/// A number of the worker's own metrics; none while it does not answer.
pub(super) fn metric(worker: &Running, name: &str) -> Option<f64> {
    let (_, text) = worker.get("/metrics")?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Rows that it has committed; none while it does not answer.
fn committed(worker: &Running) -> Option<f64> {
    metric(worker, "bellwether_ingest_rows_committed_total")
}

/// Waits until all of them commit, each what the others do not.
fn share(workers: &[Running]) {
    let before: Vec<f64> = workers.iter().map(|worker| committed(worker).unwrap_or(0.0)).collect();
    let commits = |(worker, before): (&Running, &f64)| committed(worker).is_some_and(|now| now > *before);
    until_or(
        || workers.iter().zip(&before).all(commits).then_some(()),
        || workers.iter().map(Running::printed).collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn two_workers_that_join_leave_and_die_under_load_count_every_message_once() {
    let Some(broker) = real_broker() else { return };
    let mut chance = Chance::new("crash::members::two");
    let topic = broker.topic("members", PARTITIONS);
    let setup = in_a_group(broker, &topic, "150ms");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    let both = [setup.start("run"), setup.start("run")];
    share(&both);
    let mut workers = both.map(Some);
    for _ in 0..CHANGES {
        chance.pass(PAUSE);
        let place = &mut workers[chance.number(2)];
        match place.take() {
            None => *place = Some(setup.start("run")),
            Some(worker) if chance.number(2) == 0 => worker.kill(),
            Some(worker) => leave(worker),
        }
    }
    let mut stands = Stands::new(&setup, &topic);
    let before = stands.all();
    // One more may find that the last member has died: it waits for the end of that one's session.
    let last = setup.start("run");
    stands.pass(before, Instant::now(), || last.printed());
    workers.into_iter().flatten().for_each(leave);
    let both = [last, setup.start("run")];
    share(&both);
    both.into_iter().for_each(leave);
    ends_whole(&setup, &topic, publisher, None);
}

#[test]
fn a_zombie_loses_the_race_and_carries_on() {
    let Some(broker) = real_broker() else { return };
    let mut chance = Chance::new("crash::members::a_zombie");
    let topic = broker.topic("zombie", PARTITIONS);
    // Long enough that a stopped worker has all but surely something open, which it will then try to commit.
    let setup = in_a_group(broker, &topic, "1s");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    let mut zombie = setup.start("run");
    let mut stands = Stands::new(&setup, &topic);
    stands.pass(0, Instant::now(), || zombie.printed());
    until("the worker's first commit is counted", || committed(&zombie));
    chance.pass(Duration::from_millis(700));
    zombie.signal("STOP");
    let stopped_at = stands.all();
    // Its session ends; another takes over and commits beyond what the stopped one holds open: that is a burst or so.
    let heir = setup.start("run");
    stands.pass(stopped_at + 500, Instant::now(), || heir.printed());
    zombie.signal("CONT");
    until_or(
        || metric(&zombie, "bellwether_ingest_fenced_total").filter(|fenced| *fenced > 0.0),
        || format!("the stopped worker is fenced\n{}", zombie.printed()),
    );
    assert!(zombie.runs(), "losing the race is no reason to end\n{}", zombie.printed());
    let before = committed(&zombie).expect("it answers");
    leave(heir);
    until_or(
        || committed(&zombie).filter(|now| *now > before),
        || format!("the stopped worker commits again\n{}", zombie.printed()),
    );
    ends_whole(&setup, &topic, publisher, Some(zombie));
}

#[test]
fn two_groups_that_write_the_same_tables_race_for_every_commit_and_count_every_message_once() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("race", PARTITIONS);
    let setup = in_a_group(broker, &topic, "100ms");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    // A mistake of configuration: each is given all partitions, and only the tables can keep the two apart.
    let other = setup.other("other.toml", |text| text.replace("group = \"", "group = \"other-"));
    let racers = [setup.start("ingest"), Running::role("ingest", &other)];
    let fenced = || -> Option<f64> {
        let each = racers.iter().map(|racer| metric(racer, "bellwether_ingest_fenced_total"));
        each.sum::<Option<f64>>().filter(|fenced| *fenced >= 20.0)
    };
    until_or(fenced, || format!("the two are in each other's way\n{}", racers[0].printed()));
    racers.into_iter().for_each(leave);
    ends_whole(&setup, &topic, publisher, None);
}
