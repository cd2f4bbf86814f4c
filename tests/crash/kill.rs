//! kill -9 at any moment, starting up included: what the tables hold is whole after each, and the next process goes on.

use std::time::{Duration, Instant};

use super::ledger::{Plan, Publisher};
use super::proof::{Stands, audit, ends_whole, whole_so_far};
use super::{Chance, real_broker};
use crate::common::program::ConfigText;
use crate::common::wait::patience;
use crate::common::{Broker, Setup, say};

/// Kills, unless `BELLWETHER_KILLS` says otherwise.
const KILLS: usize = 50;

/// Longest life of a process that is killed at any moment of its start.
const YOUNG: Duration = Duration::from_millis(1500);

/// Longest further life of a process that has committed.
const WORKING: Duration = Duration::from_millis(500);

/// Life of a process that is killed while it maintains the tables: it begins with that 5 s after its start.
const MAINTAINING: Duration = Duration::from_secs(5);

/// Of so many processes, one lives until then.
const MAINTAINS_EVERY: usize = 25;

/// Start of a process to its first commit.
const RESUMED: Duration = Duration::from_secs(3);

/// So many starts are judged by the slow ones.
const MANY: usize = 100;

/// Kills in one topic and its tables: all that is in them is looked at after each kill, so that the thousandth would take
/// many times as long as the first.
const ROUND: usize = 100;

/// Kills between two audits that compute the metrics anew, which takes a while.
const RECOMPUTE_EVERY: usize = 10;

/// Partitions of the topics here; the last has nothing but bad messages.
const PARTITIONS: i32 = 3;

/// Small commits, so that there are many moments to be killed at. As a member with a fixed name, the next process takes
/// the partitions over at once; the dead one would otherwise hold them until its session ends.
pub(super) fn often_committing(broker: &Broker, topic: &str) -> Setup {
    Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[topic],
        kafka: "instance_id = \"worker\"\n",
        extra: "[ingest]\nflush_interval = \"200ms\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n",
        ..ConfigText::default()
    })
}

/// Kills a worker that reads the topic, again and again; every other one has committed before. Returns how long each of
/// those took from its start to its first commit.
pub(super) fn kill_again_and_again(
    setup: &Setup,
    topic: &str,
    partitions: i32,
    kills: usize,
    chance: &mut Chance,
) -> Vec<Duration> {
    let mut stands = Stands::new(setup, topic);
    let mut resumed = Vec::new();
    for kill in 0..kills {
        let before = stands.all();
        let started = Instant::now();
        let mut worker = setup.start("run");
        if kill % 2 == 0 {
            chance.pass(YOUNG);
        } else {
            resumed.push(stands.pass(before, started, || worker.printed()));
            chance.pass(WORKING);
        }
        if kill % MAINTAINS_EVERY == MAINTAINS_EVERY - 1 {
            std::thread::sleep(MAINTAINING.saturating_sub(started.elapsed()));
            chance.pass(WORKING);
        }
        assert!(worker.runs(), "kill {kill}: the process had ended by itself\n{}", worker.printed());
        worker.kill();
        let next: Vec<i64> = (0..partitions).map(|partition| stands.partition(partition)).collect();
        // The very first process may not have lived to make the tables.
        if next.iter().sum::<i64>() > 0 {
            whole_so_far(setup, topic, &next);
            audit(setup, kill % RECOMPUTE_EVERY == RECOMPUTE_EVERY - 1);
        }
        if kill % RECOMPUTE_EVERY == RECOMPUTE_EVERY - 1 {
            println!("killed {} times of {kills}; {} messages settled", kill + 1, next.iter().sum::<i64>());
        }
    }
    resumed
}

#[test]
fn a_worker_killed_at_any_moment_loses_and_doubles_nothing_and_the_next_goes_on() {
    let Some(broker) = real_broker() else { return };
    let mut chance = Chance::new("crash::kill");
    let kills = std::env::var("BELLWETHER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let (mut done, mut resumed) = (0, Vec::new());
    while done < kills {
        let round = (kills - done).min(ROUND);
        let topic = broker.topic("kill", PARTITIONS);
        let setup = often_committing(broker, &topic);
        let plan = Plan { partitions: PARTITIONS, only_bad: Some(PARTITIONS - 1), burst: 3 };
        let publisher = Publisher::start(&broker.address, &topic, plan);
        resumed.extend(kill_again_and_again(&setup, &topic, PARTITIONS, round, &mut chance));
        let ledger = ends_whole(&setup, &topic, publisher, None);
        done += round;
        println!("{done} of {kills} kills; each of {} messages is in the tables once", ledger.sent.len());
    }
    soon(resumed);
}

/// Of those that have committed, nineteen of twenty have done so within [`RESUMED`]; where there are few, half of them: one
/// start may always meet a busy moment. That each goes on at all is asserted with the tests' patience where it is waited for.
/// On a machine with more to do than it has cores the time says nothing of the program, and is told without being judged.
fn soon(mut took: Vec<Duration>) {
    took.sort_unstable();
    let share = |of: usize| took.get(took.len() * of / 100);
    let (Some(median), Some(most), Some(longest)) = (share(50), share(95), took.last()) else { return };
    let told = format!(
        "from start to first commit: median {median:?}, 95 of 100 {most:?}, longest {longest:?}, of {}",
        took.len()
    );
    say(&told);
    let judged = if took.len() >= MANY { most } else { median };
    let slow = patience().as_secs_f64() / Duration::from_secs(120).as_secs_f64();
    let limit = RESUMED.mul_f64(slow.max(1.0));
    let cores =
        std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)));
    match load() {
        Some(load) if *judged > limit && load > cores + 1.0 => {
            say(&format!("not judged: {load} processes wanted {cores} cores"));
        }
        _ => assert!(*judged <= limit, "{told}; more than {limit:?}"),
    }
}

/// Processes that wanted to run, averaged over the last minute.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
