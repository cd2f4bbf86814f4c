//! `kill -9` at any moment, also while starting: the tables are complete after each kill, and the next process continues.

use std::time::{Duration, Instant};

use super::Random;
use super::ledger::{Plan, Publisher};
use super::proof::{TableProgress, assert_complete_below, audit, finish_and_verify};
use crate::common::program::ConfigText;
use crate::common::wait::patience;
use crate::common::{Broker, Setup, real_broker, say};

/// Default number of kills; `BELLWETHER_KILLS` overrides it.
const KILLS: usize = 30;

/// Maximum age at which a process is killed while it starts.
const STARTING: Duration = Duration::from_millis(1500);

/// Maximum time from a process's first commit until it is killed.
const WORKING: Duration = Duration::from_millis(500);

/// Age at which a process is killed while it maintains the tables; maintenance begins 5 s after the start.
const MAINTAINING: Duration = Duration::from_secs(5);

/// One in this many processes lives until it maintains the tables.
const MAINTAINS_EVERY: usize = 25;

/// Expected maximum from the start of a process to its first commit.
const RESUME_LIMIT: Duration = Duration::from_secs(3);

/// From this many starts on, the 95th percentile is compared with the limit; with fewer, the median.
const ENOUGH_FOR_P95: usize = 100;

/// Kills per topic. The tables are read completely after each kill, so the thousandth would take much longer than the first.
const ROUND: usize = 100;

/// Kills between two audits that recompute the metrics, which is slow.
const RECOMPUTE_EVERY: usize = 10;

/// Partitions of each topic; the last one has only bad messages.
const PARTITIONS: i32 = 3;

/// Configures small commits, so that there are many moments at which a kill can hit. A static group member takes the
/// partitions over at once; otherwise they would belong to the dead process until its session ends.
pub(super) fn frequent_commits(broker: &Broker, topic: &str) -> Setup {
    Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[topic],
        kafka: "instance_id = \"worker\"\n",
        extra: "[ingest]\nflush_interval = \"200ms\"\n[kafka.properties]\n\"session.timeout.ms\" = 6000\n\
                [rollup]\ninterval = \"300ms\"\ndays_interval = \"700ms\"\n",
        ..ConfigText::default()
    })
}

/// Kills workers that read the topic, one after the other; every second one commits first. Returns the time from start to
/// first commit of each of those.
pub(super) fn kill_repeatedly(
    setup: &Setup,
    topic: &str,
    partitions: i32,
    kills: usize,
    random: &mut Random,
) -> Vec<Duration> {
    let mut progress = TableProgress::new(setup, topic);
    let mut resumed = Vec::new();
    for kill in 0..kills {
        let before = progress.processed();
        let started = Instant::now();
        let mut worker = setup.start("run");
        if kill % 2 == 0 {
            random.sleep_up_to(STARTING);
        } else {
            resumed.push(progress.wait_past(before, started, || worker.printed()));
            random.sleep_up_to(WORKING);
        }
        if kill % MAINTAINS_EVERY == MAINTAINS_EVERY - 1 {
            std::thread::sleep(MAINTAINING.saturating_sub(started.elapsed()));
            random.sleep_up_to(WORKING);
        }
        assert!(worker.runs(), "kill {kill}: the process ended by itself\n{}", worker.printed());
        worker.kill();
        let next: Vec<i64> = (0..partitions).map(|partition| progress.next_offset(partition)).collect();
        // The first process may die before it has created the tables.
        if next.iter().sum::<i64>() > 0 {
            assert_complete_below(setup, topic, &next);
            audit(setup, kill % RECOMPUTE_EVERY == RECOMPUTE_EVERY - 1);
        }
        if kill % RECOMPUTE_EVERY == RECOMPUTE_EVERY - 1 {
            println!("kill {} of {kills}; {} messages processed", kill + 1, next.iter().sum::<i64>());
        }
    }
    resumed
}

#[test]
fn a_worker_killed_at_any_moment_loses_and_duplicates_nothing() {
    let Some(broker) = real_broker() else { return };
    let mut random = Random::new("crash::kill");
    let kills = std::env::var("BELLWETHER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let (mut done, mut resumed) = (0, Vec::new());
    while done < kills {
        let round = (kills - done).min(ROUND);
        let topic = broker.topic("kill", PARTITIONS);
        let setup = frequent_commits(broker, &topic);
        let plan = Plan { partitions: PARTITIONS, only_bad: Some(PARTITIONS - 1), burst: 3 };
        let publisher = Publisher::start(&broker.address, &topic, plan);
        resumed.extend(kill_repeatedly(&setup, &topic, PARTITIONS, round, &mut random));
        let ledger = finish_and_verify(&setup, &topic, publisher, None);
        done += round;
        println!("{done} of {kills} kills; each of {} messages is in the tables once", ledger.sent.len());
    }
    assert_fast_resume(resumed);
}

/// Checks that workers resume within [`RESUME_LIMIT`]: 95 % of many, half of a few, since a single start may meet a busy
/// moment. The caller has already waited for each to resume at all. If more processes want to run than there are cores, the
/// times are printed and not checked: they say nothing about the program.
fn assert_fast_resume(mut took: Vec<Duration>) {
    took.sort_unstable();
    let percentile = |share: usize| took.get(took.len() * share / 100);
    let (Some(median), Some(p95), Some(longest)) = (percentile(50), percentile(95), took.last()) else { return };
    let summary =
        format!("start to first commit: median {median:?}, p95 {p95:?}, longest {longest:?} of {} starts", took.len());
    say(&summary);
    let checked = if took.len() >= ENOUGH_FOR_P95 { p95 } else { median };
    let slow = patience().as_secs_f64() / Duration::from_secs(120).as_secs_f64();
    let limit = RESUME_LIMIT.mul_f64(slow.max(1.0));
    let cores =
        std::thread::available_parallelism().map_or(1.0, |cores| f64::from(u32::try_from(cores.get()).unwrap_or(1)));
    match load() {
        Some(load) if *checked > limit && load > cores + 1.0 => {
            say(&format!("not checked: the load average is {load} on {cores} cores"));
        }
        _ => assert!(*checked <= limit, "{summary}; the limit is {limit:?}"),
    }
}

/// Returns the load average of the last minute.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
