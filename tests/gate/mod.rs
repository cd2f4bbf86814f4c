//! The gate over tables that ingest and aggregate wrote: what it decides, what it holds for, and how it is asked.
//!
//! * `canary` has canaries in production; `offline` evaluations before any traffic.
//! * `command` asks by the command line, `http` as Argo Rollouts and Flagger do.
//! * `notify` hears of rollbacks as a service for flags does; `flags` runs the example that turns a flag off.
//! * `examples` reads the manifests in `deploy/examples`.

mod canary;
mod command;
mod examples;
mod flags;
mod http;
mod notify;
mod offline;

use std::sync::{Arc, LazyLock};

use bellwether_aggregate::AggregatorSettings;
use bellwether_alerts::Contracts;
use bellwether_alerts::gate::{GateAnswer, GateComparison, GateReader, GateSettings, Policy, Question};
use bellwether_base::ManualClock;
use serde_json::{Value, json};

use crate::common::Setup;
use crate::common::event::now;
use crate::common::program::{ConfigText, text};
use crate::late::feed::{Feed, NOW as ARRIVAL};

const MINUTE: i64 = 60_000_000;

/// The time of the last run, a whole minute: before the arrival of all events, and long enough ago for everything to be complete.
static NOW: LazyLock<i64> = LazyLock::new(|| {
    let real = now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros();
    let ago = i64::try_from(real).expect("in range") - 90 * MINUTE;
    ARRIVAL.min(ago).div_euclid(MINUTE) * MINUTE
});

/// Makes a configuration with the tables of a feed, without a broker.
fn setup_over(feed: &Feed, extra: &str) -> Setup {
    let tables = format!("root = \"{}\"\n", text(feed.root()));
    let (brokers, topics) = ("127.0.0.1:1", ["t"].as_slice());
    Setup::with(&ConfigText { brokers, topics, tables: Some(&tables), extra, ..ConfigText::default() })
}

/// Runs of a release: how many of every ten fail, and further fields.
#[derive(Clone, Debug)]
struct Arm {
    release: &'static str,
    stage: &'static str,
    /// Minutes before [`NOW`] in which it has runs: from and to.
    minutes: (i64, i64),
    per_minute: i64,
    /// Of ten runs, so many fail.
    failing: i64,
    /// Merged into the data of each run.
    data: Value,
}

impl Default for Arm {
    fn default() -> Self {
        let data = json!({ "latency": { "total_ms": 900 }, "cost": { "amount": "0.01", "currency": "USD" } });
        Self { release: "v1", stage: "full", minutes: (120, 10), per_minute: 20, failing: 3, data }
    }
}

impl Arm {
    fn canary(release: &'static str, failing: i64) -> Self {
        Self { release, stage: "canary", failing, ..Self::default() }
    }

    /// Returns its runs. `name` tells them apart.
    fn runs(&self, name: &str) -> Vec<Value> {
        let (from, to) = self.minutes;
        let places = (to..from).rev().flat_map(|minute| (0..self.per_minute).map(move |place| (minute, place)));
        places
            .enumerate()
            .map(|(number, (minute, place))| {
                let number = i64::try_from(number).expect("few");
                let ended = *NOW - minute * MINUTE + place * 1_000_000;
                // Failures are spread evenly over minutes and places.
                let fails = (number * 7 + number / 10).rem_euclid(10) < self.failing;
                let mut data = json!({
                    "task": "refunds",
                    "release": { "id": self.release, "model": { "requested": "m" } },
                    "rollout": { "stage": self.stage },
                    "started_at": text_of(ended - 1_000_000), "ended_at": text_of(ended),
                    "outcome": { "status": if fails { "failure" } else { "success" } },
                });
                merge(&mut data, &self.data);
                json!({ "spec": "run-event/1", "type": "run.completed", "run_id": format!("{name}-{number}"), "source": "app", "data": data })
            })
            .collect()
    }
}

fn merge(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                merge(to.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from.clone(),
    }
}

fn text_of(micros: i64) -> String {
    let moment = arrow::temporal_conversions::timestamp_us_to_datetime(micros).expect("in range");
    moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Commits runs as ingest does, and aggregates them.
async fn tables(runs: Vec<Value>) -> Feed {
    let mut feed = Feed::with_clock(Arc::new(ManualClock::at(*NOW + 60 * MINUTE))).await;
    feed.newest_event_micros = Some(crate::late::feed::NOW);
    add(&mut feed, runs).await;
    feed
}

async fn add(feed: &mut Feed, runs: Vec<Value>) {
    feed.commit_events(&runs).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
}

/// Returns runs of several arms.
fn runs_of(arms: &[Arm]) -> Vec<Value> {
    arms.iter().enumerate().flat_map(|(place, arm)| arm.runs(&format!("{}-{place}", arm.release))).collect()
}

fn question(canary: &str) -> Question {
    Question { task: "refunds".to_owned(), canary: Some(canary.to_owned()), ..Question::default() }
}

/// Returns the shipped policy with a change.
fn policy(from: &str, to: &str) -> Policy {
    let text = Policy::SHIPPED.replacen(from, to, 1);
    assert_ne!(text, Policy::SHIPPED, "`{from}` is in the policy");
    Policy::parse(&text).expect("valid")
}

async fn ask_with(feed: &Feed, policy: Policy, question: Question) -> GateAnswer {
    let reader = GateReader { policy, contracts: Contracts::new(), settings: GateSettings::default() };
    Box::pin(reader.ask(&feed.lake, &question)).await.unwrap_or_else(|error| panic!("{}", error.chain()))
}

async fn ask(feed: &Feed, question: Question) -> GateAnswer {
    Box::pin(ask_with(feed, Policy::default(), question)).await
}

/// Returns the comparison of a metric in a slice.
fn comparison<'a>(answer: &'a GateAnswer, metric: &str, slice: &str) -> &'a GateComparison {
    let found = answer.comparisons.iter().find(|it| it.metric.name() == metric && it.slice == slice);
    found.unwrap_or_else(|| panic!("{metric} of `{slice}` is not in {answer:#?}"))
}
