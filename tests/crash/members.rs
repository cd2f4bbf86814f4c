//! Members of a consumer group that join, leave, die, and resume after a long stop.

use std::time::{Duration, Instant};

use super::Random;
use super::ledger::{Plan, Publisher};
use super::proof::{TableProgress, finish_and_verify};
use crate::common::program::{ConfigText, Running};
use crate::common::{Broker, Setup, real_broker, until, until_or};

const PARTITIONS: i32 = 4;

/// Changes of the group's members.
const CHANGES: usize = 14;

/// Maximum time between two changes: some hit a settled group, most hit one that is rebalancing.
const PAUSE: Duration = Duration::from_millis(2500);

const PLAN: Plan = Plan { partitions: PARTITIONS, only_bad: None, burst: 3 };

/// Configures a short session, so that a dead member's partitions soon move; 6 s is the shortest that brokers allow by
/// default.
fn in_a_group(broker: &Broker, topic: &str, flush_interval: &str) -> Setup {
    let extra = format!(
        "[ingest]\nflush_interval = \"{flush_interval}\"\n\
         [kafka.properties]\n\"session.timeout.ms\" = 6000\n\"heartbeat.interval.ms\" = 500\n\
         [rollup]\ninterval = \"500ms\"\ndays_interval = \"1s\"\n"
    );
    Setup::with(&ConfigText { brokers: &broker.address, topics: &[topic], extra: &extra, ..ConfigText::default() })
}

/// Stops a worker with SIGTERM and checks that it ends well. The signal kills a worker that does not handle signals yet:
/// then there is neither an exit code nor output.
pub(super) fn leave(worker: Running) {
    worker.signal("TERM");
    let ended = worker.end();
    let too_early = ended.code.is_none() && ended.stderr.is_empty();
    assert!(ended.code == Some(0) || too_early, "{:?}\n{}", ended.code, ended.stderr);
}

/// Returns the number of rows that a worker has committed; none while it does not answer.
fn committed(worker: &Running) -> Option<f64> {
    worker.metric("bellwether_ingest_rows_committed_total")
}

/// Waits until each worker has committed something new.
fn all_commit(workers: &[Running]) {
    let before: Vec<f64> = workers.iter().map(|worker| committed(worker).unwrap_or(0.0)).collect();
    let commits = |(worker, before): (&Running, &f64)| committed(worker).is_some_and(|now| now > *before);
    until_or(
        || workers.iter().zip(&before).all(commits).then_some(()),
        || workers.iter().map(Running::printed).collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn a_worker_that_ends_while_it_joins_leaves_its_group() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("joining", PARTITIONS);
    let setup = in_a_group(broker, &topic, "150ms");
    let group = setup.group();
    // The topic is empty, so the worker has caught up before the group has answered.
    setup.catch_up_role("ingest");
    assert_eq!(broker.members(&group), 0);
    let worker = setup.start("ingest");
    until_or(|| (broker.members(&group) > 0).then_some(()), || worker.printed());
    leave(worker);
    assert_eq!(broker.members(&group), 0);
}

#[test]
fn two_workers_that_join_leave_and_die_under_load_store_every_message_once() {
    let Some(broker) = real_broker() else { return };
    let mut random = Random::new("crash::members::two");
    let topic = broker.topic("members", PARTITIONS);
    let setup = in_a_group(broker, &topic, "150ms");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    let both = [setup.start("run"), setup.start("run")];
    all_commit(&both);
    let mut workers = both.map(Some);
    for _ in 0..CHANGES {
        random.sleep_up_to(PAUSE);
        let slot = &mut workers[random.number(2)];
        match slot.take() {
            None => *slot = Some(setup.start("run")),
            Some(worker) if random.number(2) == 0 => worker.kill(),
            Some(worker) => leave(worker),
        }
    }
    let mut progress = TableProgress::new(&setup, &topic);
    let before = progress.processed();
    // If the last member has died, this one waits for the end of its session.
    let last = setup.start("run");
    progress.wait_past(before, Instant::now(), || last.printed());
    workers.into_iter().flatten().for_each(leave);
    let both = [last, setup.start("run")];
    all_commit(&both);
    both.into_iter().for_each(leave);
    finish_and_verify(&setup, &topic, publisher, None);
}

#[test]
fn a_zombie_is_fenced_and_continues() {
    let Some(broker) = real_broker() else { return };
    let mut random = Random::new("crash::members::a_zombie");
    let topic = broker.topic("zombie", PARTITIONS);
    // Long enough that a suspended worker almost certainly has an open batch, which it will then try to commit.
    let setup = in_a_group(broker, &topic, "1s");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    let mut zombie = setup.start("run");
    let mut progress = TableProgress::new(&setup, &topic);
    progress.wait_past(0, Instant::now(), || zombie.printed());
    until("the worker's first commit is counted", || committed(&zombie));
    random.sleep_up_to(Duration::from_millis(700));
    zombie.signal("STOP");
    let stopped_at = progress.processed();
    // Its session ends; another worker takes over and commits beyond the open batch of the suspended one.
    let heir = setup.start("run");
    progress.wait_past(stopped_at + 500, Instant::now(), || heir.printed());
    zombie.signal("CONT");
    until_or(
        || zombie.metric("bellwether_ingest_fenced_total").filter(|fenced| *fenced > 0.0),
        || format!("the suspended worker is fenced\n{}", zombie.printed()),
    );
    assert!(zombie.runs(), "a fenced worker keeps running\n{}", zombie.printed());
    let before = committed(&zombie).expect("it answers");
    leave(heir);
    until_or(
        || committed(&zombie).filter(|now| *now > before),
        || format!("the suspended worker commits again\n{}", zombie.printed()),
    );
    finish_and_verify(&setup, &topic, publisher, Some(zombie));
}

#[test]
fn two_groups_that_write_the_same_tables_store_every_message_once() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("race", PARTITIONS);
    let setup = in_a_group(broker, &topic, "100ms");
    let publisher = Publisher::start(&broker.address, &topic, PLAN);
    // A configuration mistake: each group gets all partitions, and only the tables can fence one of the two.
    let other = setup.other("other.toml", |text| text.replace("group = \"", "group = \"other-"));
    let racers = [setup.start("ingest"), Running::role("ingest", &other)];
    let fenced = || -> Option<f64> {
        let each = racers.iter().map(|racer| racer.metric("bellwether_ingest_fenced_total"));
        each.sum::<Option<f64>>().filter(|fenced| *fenced >= 20.0)
    };
    until_or(fenced, || format!("the two fence each other\n{}", racers[0].printed()));
    racers.into_iter().for_each(leave);
    finish_and_verify(&setup, &topic, publisher, None);
}
