//! Measures how long a page takes, at default settings: from the transition of an alert to its delivery, and from the event that
//! completes the evidence to the page.
//!
//! Many tasks have a canary that fails far more often than its baseline, so that each of them fires within minutes of live traffic,
//! and the role `deliver` sends the pages to a file. All times come from the table `deliveries`: a delivery is recorded after the sink
//! has answered, so that they include the making of the page.
//!
//! The evidence suffices at the end of a window of one minute. The window is judged once events from after its end plus
//! `[alerts].grace` have arrived. Traffic is steady, so that such an event is sent at that very moment, and the clock starts there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_bench::events::Event;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::Bench;
use crate::kafka::{self, Publisher};
use crate::part::flow::{Setup, stop};
use crate::report::Bound;

/// Runs of each task a second, of both releases together.
const PER_TASK: f64 = 1.0;

/// Failure rates of the baseline and the canary.
const FAILING: [f64; 2] = [0.03, 0.6];

/// Default of `[alerts].grace`.
const GRACE: Duration = Duration::from_secs(30);

/// Time after the end of traffic in which the last pages are sent, and then their evidence, if it was late.
const SETTLE: Duration = Duration::from_secs(45);

/// Pause between two looks at the time.
const TICK: Duration = Duration::from_millis(5);

/// Sent pages: times in microseconds since the epoch.
const SENT: &str = "SELECT CAST(at AS BIGINT) AS at, CAST(noticed_at AS BIGINT) AS noticed_at, \
                    CAST(written_at AS BIGINT) AS written_at FROM deliveries \
                    WHERE step = 'sent' AND state = 'firing' AND kind = 'new'";

/// Seconds from each transition to the evidence that followed its page.
const FOLLOWED: &str = "SELECT (CAST(e.written_at AS BIGINT) - CAST(n.noticed_at AS BIGINT)) / 1e6 AS seconds \
                        FROM deliveries AS e JOIN deliveries AS n ON e.incident = n.incident AND n.kind = 'new' \
                        WHERE e.step = 'sent' AND n.step = 'sent' AND e.kind = 'evidence'";

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let (tasks, window) = (bench.sizes.paged_tasks, Duration::from_secs(bench.sizes.paged_s));
    let (mut pages, mut delivery, mut whole) = (Vec::new(), [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut at_once, mut in_the_end, mut followed) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.sizes.runs {
        let topic = kafka::topic(&broker)?;
        let inbox = bench.scratch.join(format!("{topic}.ndjson"));
        let sink = format!("[deliver.sinks.inbox]\nkind = \"inbox\"\npath = {:?}\n", inbox.display().to_string());
        let setup = Setup::with_config(bench, &topic, &sink)?;
        let worker = setup.start(&["run"])?;
        let (publisher, seed) = (Publisher::new(&broker, &topic)?, bench.seed + run as u64);
        let traffic = std::thread::spawn(move || traffic(&publisher, seed, tasks, window));
        while !traffic.is_finished() {
            if worker.has_ended() {
                return Err(Error::unavailable("the program ended"));
            }
            tokio::time::sleep(TICK).await;
        }
        traffic.join().map_err(|_| Error::bug("the producer panicked"))??;
        // Messages under way arrive before the program stops.
        tokio::time::sleep(SETTLE.min(window)).await;
        stop(worker)?;
        let (mut after_transition, mut after_event) = times(&setup.query(SENT)?.0)?;
        pages.push(after_transition.len() as f64);
        for (share, index) in [(0.5, 0), (0.99, 1)] {
            delivery[index].push(at(&mut after_transition, share));
            whole[index].push(at(&mut after_event, share));
        }
        let (first, last) = shares_with_evidence(&std::fs::read_to_string(&inbox).unwrap_or_default());
        at_once.push(first);
        in_the_end.push(last);
        followed.push(at(&mut numbers(&setup.query(FOLLOWED)?.0), 0.99));
        setup.remove();
        // A file that cannot be removed is deleted with the temporary folder.
        drop(std::fs::remove_file(&inbox));
    }
    let mut section = bench.report.section("page");
    section.note(
        format!("pages and tickets of {tasks} bad canaries in {} s", window.as_secs()),
        &pages,
        "messages",
        None,
    );
    section.note("alerts whose first page has its evidence", &at_once, "%", None);
    section.note("alerts that have their evidence in the end", &in_the_end, "%", None);
    section.note("transition to evidence that followed its page, p99", &followed, "s", None);
    // Without a page, no bound was tried.
    let bound = |seconds: f64| pages.iter().any(|count| *count > 0.0).then_some(Bound::AtMost(seconds));
    section.note("transition to delivery, median", &delivery[0], "s", None);
    section.note("transition to delivery, p99", &delivery[1], "s", bound(2.0));
    section.note("event that completes the evidence to page, median", &whole[0], "s", None);
    section.note("event that completes the evidence to page, p99", &whole[1], "s", bound(10.0));
    Ok(())
}

/// Publishes runs of all tasks at a steady rate, each when it ends.
fn traffic(publisher: &Publisher, seed: u64, tasks: usize, window: Duration) -> Result<()> {
    let (begun, mut sent, mut random) = (Instant::now(), 0_usize, StdRng::seed_from_u64(seed));
    let per_second = PER_TASK * tasks as f64;
    while begun.elapsed() < window {
        let due = (begun.elapsed().as_secs_f64() * per_second) as usize;
        while sent < due {
            publisher.publish(&event(sent, tasks, SystemClock.now_micros(), &mut random), false)?;
            sent += 1;
        }
        publisher.poll();
        std::thread::sleep(TICK);
    }
    publisher.flush()
}

fn event(number: usize, tasks: usize, ended_micros: i64, random: &mut StdRng) -> Event {
    let canary = usize::from((number / tasks.max(1)).is_multiple_of(2));
    let (release, stage) = [("v1", "full"), ("v2", "canary")][canary];
    let status = if random.random::<f64>() < FAILING[canary] { "failure" } else { "success" };
    let time = |micros: i64| {
        let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        humantime::format_rfc3339_micros(std::time::UNIX_EPOCH + since).to_string()
    };
    let key = format!("page-{number}");
    let event = json!({
        "spec": "run-event/1.0", "type": "run.completed", "run_id": key, "source": "bench",
        "data": {
            "task": format!("task-{:03}", number % tasks.max(1)),
            "release": { "id": release, "model": { "requested": "model-a" } },
            "rollout": { "stage": stage },
            "started_at": time(ended_micros - 1_000_000), "ended_at": time(ended_micros),
            "outcome": { "status": status },
        },
    });
    Event { key, payload: event.to_string().into_bytes() }
}

/// Returns the seconds from transition to delivery, and from the event that completes the evidence to delivery, of all pages.
fn times(answer: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut after_transition, mut after_event) = (Vec::new(), Vec::new());
    let grace = i64::try_from(GRACE.as_micros()).unwrap_or(i64::MAX);
    for line in answer.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let numbers: Vec<i64> = line.split(',').filter_map(|cell| cell.trim().parse().ok()).collect();
        let [at, noticed_at, written_at] = numbers[..] else {
            return Err(Error::bug(format!("`deliveries` has a time that is no number: {line}")));
        };
        after_transition.push((written_at - noticed_at) as f64 / 1e6);
        after_event.push((written_at - at - grace) as f64 / 1e6);
    }
    Ok((after_transition, after_event))
}

/// Returns the numbers of an answer with one column.
fn numbers(answer: &str) -> Vec<f64> {
    answer.lines().skip(1).filter_map(|line| line.trim().parse().ok()).collect()
}

/// Returns the shares of incidents in an inbox, in per cent, that had their evidence with the first page, and with any page. A page
/// has its evidence if its statement was run and checked.
fn shares_with_evidence(inbox: &str) -> (f64, f64) {
    let mut incidents: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for message in inbox.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
        for page in message["pages"].as_array().into_iter().flatten() {
            let incident = page["incident"].as_str().unwrap_or_default().to_owned();
            incidents.entry(incident).or_default().push(page["evidence"]["reproduce"]["checked"] == true);
        }
    }
    let share = |has: fn(&Vec<bool>) -> bool| {
        100.0 * incidents.values().filter(|pages| has(pages)).count() as f64 / incidents.len().max(1) as f64
    };
    (share(|pages| pages.first().is_some_and(|first| *first)), share(|pages| pages.contains(&true)))
}

/// Returns the value that a share of all values does not exceed; 0 without values.
fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1));
    values.get(index - 1).copied().unwrap_or(0.0)
}
