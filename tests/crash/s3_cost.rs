//! Requests on S3, counted by the server: of a commit from the broker to the metrics, and of a minute without messages. Their
//! numbers are bounds, because S3 charges for each (`docs/scaling.md`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::stores::Store;
use crate::common::event::run;
use crate::common::program::{ConfigText, Running};
use crate::common::{Setup, real_broker, say, until_or};

/// Time over which requests are counted.
const WINDOW: Duration = Duration::from_secs(40);

/// Most requests of `run` with all roles in a minute in which nothing happens, by price: those that write or list, those that
/// read.
const IDLE_MINUTE: [f64; 2] = [215.0, 800.0];

/// Most further requests for each commit of ingest.
const COMMIT: [f64; 2] = [10.0, 55.0];

/// Dollars for a million requests in us-east-1, by list price: PUT, POST and LIST; GET and HEAD. DELETE is free.
const PRICE: [f64; 2] = [5.0, 0.4];

/// Returns the numbers of requests so far: those that write or list, and those that read.
fn requests(store: &Store) -> ([f64; 2], BTreeMap<String, usize>) {
    let printed = store.printed();
    let (mut sums, mut kinds) = ([0.0; 2], BTreeMap::new());
    for line in printed.lines().filter(|line| line.contains(" HTTP/1.")) {
        // 127.0.0.1 - - [TIME] "METHOD /PATH HTTP/1.1" STATUS -, with colours around some of it.
        let Some((_, request)) = line.split_once('"') else { continue };
        let request = request.trim_start_matches(|c: char| c == '\u{1b}' || c == '[' || c == 'm' || c.is_ascii_digit());
        let mut parts = request.split(' ');
        let (method, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let kind = if path.contains("list-type") { "LIST" } else { method };
        match kind {
            "PUT" | "POST" | "LIST" => sums[0] += 1.0,
            "GET" | "HEAD" => sums[1] += 1.0,
            _ => {}
        }
        let of = if path.contains("_delta_log") { "log" } else { "data" };
        *kinds.entry(format!("{kind} {of}")).or_insert(0) += 1;
    }
    (sums, kinds)
}

/// Returns the commits to `metrics`: one for each commit of ingest, at this pace.
fn commits(worker: &Running) -> f64 {
    worker.metric("bellwether_aggregate_commits_total").unwrap_or(0.0)
}

/// Waits for the window while `work` is called every second. Returns the requests in it.
fn counted(store: &Store, mut work: impl FnMut(u64)) -> ([f64; 2], BTreeMap<String, usize>) {
    let (before, kinds_before) = requests(store);
    let begun = Instant::now();
    for second in 0..WINDOW.as_secs() {
        work(second);
        let next = Duration::from_secs(second + 1);
        std::thread::sleep(next.saturating_sub(begun.elapsed()));
    }
    let (after, mut kinds) = requests(store);
    for (kind, count) in kinds_before {
        *kinds.entry(kind).or_default() -= count;
    }
    ([after[0] - before[0], after[1] - before[1]], kinds)
}

#[test]
fn requests_of_a_commit_and_of_an_idle_minute_are_bounded() {
    let Some(broker) = real_broker() else { return };
    let Some(store) = Store::s3() else { return };
    let topic = broker.topic("s3-cost", 1);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        tables: Some(&store.tables()),
        ..ConfigText::default()
    });
    let worker = setup.start("run");
    broker.publish_events(&topic, 1, &[run("first")]);
    let aggregated = || (commits(&worker) > 0.0).then_some(());
    until_or(aggregated, || format!("the first run is aggregated\n{}", worker.printed()));
    // The start, and the first round of maintenance, are no part of a minute.
    std::thread::sleep(Duration::from_secs(12));
    let (idle, idle_kinds) = counted(&store, |_| {});
    let before = commits(&worker);
    let (live, live_kinds) = counted(&store, |n| broker.publish_events(&topic, 1, &[run(&format!("live-{n}"))]));
    let made = commits(&worker) - before;
    worker.stop();
    assert!(made >= 20.0, "{made} commits in {WINDOW:?}");
    let minute = idle.map(|requests| requests * 60.0 / WINDOW.as_secs_f64());
    let commit = [0, 1].map(|class| (live[class] - idle[class]) / made);
    let month = |per_minute: [f64; 2]| (per_minute[0] * PRICE[0] + per_minute[1] * PRICE[1]) * 60.0 * 24.0 * 30.0 / 1e6;
    say(&format!(
        "an idle minute: {minute:.1?} requests (write or list, read), {:.2} $ a month: {idle_kinds:?}",
        month(minute)
    ));
    let second = commit.map(|requests| requests * 60.0);
    say(&format!("a commit: {commit:.1?} more, {:.2} $ a month at one a second: {live_kinds:?}", month(second)));
    assert!(minute[0] <= IDLE_MINUTE[0] && minute[1] <= IDLE_MINUTE[1], "an idle minute: {minute:?} {idle_kinds:?}");
    assert!(commit[0] <= COMMIT[0] && commit[1] <= COMMIT[1], "a commit: {commit:?} {live_kinds:?}");
}
