//! A realistic fleet of LLM apps without faults, from a seed: input for tests, together with the true values.
//!
//! * Office hours in Berlin, quiet evenings and nights, weekends on which half of the tasks have no runs at all,
//!   holidays, and the end of daylight saving time.
//! * Tail sampling: some tasks keep all failures, and successes with a probability that differs by task.
//! * Two tenants with the same run ids and the same source.
//! * Runs without a cost or without tokens; producers with clocks up to five minutes ahead.
//! * Quality that wanders from hour to hour: an autoregressive logit.
//! * Ingestion that stalls for some hours, and partitions that are added during operation.
//!
//! Rules: every event is valid; the same seed gives the same bytes; no clock is read. Sampling probabilities have
//! integer inverses and amounts are integer micro-units, so that any program can add them exactly.

use std::ops::Range;
use std::time::{Duration, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc, Weekday};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::events::Event;

const MINUTE_MICROS: i64 = 60_000_000;
const HOUR_MINUTES: i64 = 60;

/// Standard deviation of the logit of success between hours, and its correlation time in hours.
const WANDER: f64 = 0.2;
const MEMORY_HOURS: f64 = 6.0;

/// Public holidays on working days.
const HOLIDAYS: [(i32, u32, u32); 3] = [(2026, 10, 30), (2026, 11, 11), (2026, 12, 25)];

/// One task of the fleet.
struct Task {
    name: &'static str,
    source: &'static str,
    tenant: &'static str,
    /// Runs per minute in the middle of a working day.
    runs: f64,
    success: f64,
    /// One in this many successes is kept; all failures are.
    one_of: u32,
    /// Seconds by which the producer's clock is ahead.
    ahead: i64,
    /// True if it has no runs on weekends.
    rests: bool,
}

const fn task(name: &'static str, source: &'static str, tenant: &'static str, runs: f64, success: f64) -> Task {
    Task { name, source, tenant, runs, success, one_of: 1, ahead: 0, rests: false }
}

/// The first two are one app used by two tenants, so they give the same ids to different runs.
const TASKS: [Task; 8] = [
    task("refund_triage", "support-assistant", "north", 0.5, 0.86),
    task("refund_triage", "support-assistant", "south", 0.4, 0.92),
    Task { one_of: 10, ..task("order_status", "order-bot", "north", 2.0, 0.96) },
    Task { one_of: 4, rests: true, ..task("policy_answer", "policy-assistant", "", 1.0, 0.91) },
    Task { ahead: 290, ..task("invoice_extraction", "invoice-extractor", "", 0.5, 0.93) },
    Task { ahead: 45, rests: true, ..task("code_review", "review-bot", "", 0.3, 0.82) },
    Task { rests: true, ..task("meeting_summary", "meeting-notes", "south", 0.4, 0.97) },
    Task { rests: true, ..task("contract_search", "legal-search", "north", 0.2, 0.88) },
];

/// Settings of a fleet.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Initial number of partitions.
    pub partitions: i32,
    /// Minute since 1970 from which on there is one more partition.
    pub one_more_from: i64,
    /// Minutes since 1970 during which ingestion stalls: messages of that time arrive at its end.
    pub stalled: Range<i64>,
}

/// The true values of a run, as far as its message states them.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// Tenant; empty for none.
    pub tenant: &'static str,
    pub task: &'static str,
    /// True if it succeeded; `None` if unknown.
    pub success: Option<bool>,
    /// Runs that it represents.
    pub weight: u32,
    /// Cost in micro-units, if stated.
    pub cost_micros: Option<u64>,
    /// Input and output tokens, if stated.
    pub tokens: Option<u64>,
}

/// A message with its partition and arrival time.
#[derive(Clone, Debug)]
pub struct Sent {
    pub partition: i32,
    /// When it can be read, µs since 1970, by a correct clock.
    pub arrives_micros: i64,
    /// Message.
    pub event: Event,
    /// Its true values.
    pub truth: Truth,
}

/// Generates the messages of a fleet.
pub struct Fleet {
    rng: StdRng,
    settings: Settings,
    /// Current deviation of each task's logit.
    wander: [f64; TASKS.len()],
    hour: i64,
    /// Number of runs so far, by task.
    runs: [u64; TASKS.len()],
}

// === impl Fleet ===

impl Fleet {
    /// Creates a fleet.
    pub fn new(seed: u64, settings: Settings) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, settings, wander: [0.0; TASKS.len()], hour: i64::MIN, runs: [0; TASKS.len()] }
    }

    /// Returns the messages of a minute since 1970. Call it in order of time.
    pub fn minute(&mut self, minute: i64) -> Vec<Sent> {
        if minute.div_euclid(HOUR_MINUTES) != self.hour {
            self.hour = minute.div_euclid(HOUR_MINUTES);
            self.wander();
        }
        let mut sent = Vec::new();
        for (place, task) in TASKS.iter().enumerate() {
            for _ in 0..self.poisson(task.runs * activity(minute, task.rests)) {
                sent.extend(self.run(place, minute));
            }
        }
        sent.sort_by_key(|sent| sent.arrives_micros);
        sent
    }

    /// Moves the quality of every task by one step.
    fn wander(&mut self) {
        let kept = (-1.0 / MEMORY_HOURS).exp();
        for place in 0..TASKS.len() {
            let step = (1.0 - kept * kept).sqrt() * WANDER * self.normal();
            self.wander[place] = kept * self.wander[place] + step;
        }
    }

    /// Returns one run, or none if sampling drops it.
    fn run(&mut self, place: usize, minute: i64) -> Option<Sent> {
        let task = &TASKS[place];
        self.runs[place] += 1;
        let ended = minute * MINUTE_MICROS + self.rng.random_range(0..MINUTE_MICROS);
        let logit = (task.success / (1.0 - task.success)).ln() + self.wander[place];
        let success = match self.rng.random::<f64>() {
            x if x < 0.01 => None,
            _ => Some(self.rng.random::<f64>() < 1.0 / (1.0 + (-logit).exp())),
        };
        let weight = if success == Some(true) { task.one_of } else { 1 };
        let is_kept = self.rng.random_range(0..weight) == 0;
        let truth = Truth {
            tenant: task.tenant,
            task: task.name,
            success,
            weight,
            cost_micros: (self.rng.random::<f64>() < 0.6).then(|| self.rng.random_range(500..9000)),
            tokens: (self.rng.random::<f64>() < 0.7).then(|| self.rng.random_range(100..4000)),
        };
        let latency_ms = 900.0 * (0.5 * self.normal()).exp();
        let arrives = ended + self.rng.random_range(20_000..900_000);
        if !is_kept {
            return None;
        }
        let run_id = format!("run-{:08}", self.runs[place]);
        let payload = message(task, &run_id, ended + task.ahead * 1_000_000, latency_ms, &truth).to_string();
        let minutes = &self.settings.stalled;
        let arrives_micros = match minutes.contains(&arrives.div_euclid(MINUTE_MICROS)) {
            true => minutes.end * MINUTE_MICROS,
            false => arrives,
        };
        let partitions = self.settings.partitions + i32::from(minute >= self.settings.one_more_from);
        let partition = self.rng.random_range(0..partitions);
        Some(Sent { partition, arrives_micros, event: Event { key: run_id, payload: payload.into_bytes() }, truth })
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = ((-mean).exp(), self.rng.random::<f64>(), 0);
        while product > limit {
            product *= self.rng.random::<f64>();
            count += 1;
        }
        count
    }

    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.rng.random::<f64>()).sum::<f64>() - 6.0
    }
}

/// Builds the message of a run.
fn message(task: &Task, run_id: &str, ended: i64, latency_ms: f64, truth: &Truth) -> Value {
    let status = match truth.success {
        Some(true) => "success",
        Some(false) => "failure",
        None => "unknown",
    };
    let mut data = json!({
        "task": task.name, "environment": "production", "release": { "id": "2026-10-01.1" },
        "rollout": { "stage": "full" }, "started_at": time(ended - (latency_ms * 1000.0) as i64), "ended_at": time(ended),
        "outcome": { "status": status, "source": "rule" }, "latency": { "total_ms": latency_ms },
    });
    if truth.success == Some(false) {
        data["outcome"]["reason_code"] = json!("wrong_answer");
    }
    if let Some(micros) = truth.cost_micros {
        let amount = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
        data["cost"] = json!({ "amount": amount, "currency": "EUR" });
    }
    if let Some(tokens) = truth.tokens {
        data["tokens"] = json!({ "input": tokens - tokens / 8, "output": tokens / 8 });
    }
    if task.one_of > 1 {
        data["sampling"] = json!({ "probability": 1.0 / f64::from(truth.weight), "reason": "tail" });
    }
    let mut event = json!({
        "spec": "run-event/1.0", "type": "run.completed", "source": task.source, "run_id": run_id, "time": time(ended),
        "data": data,
    });
    if !task.tenant.is_empty() {
        event["tenant"] = json!(task.tenant);
    }
    event
}

/// Returns the traffic of a minute relative to the middle of a working day.
fn activity(minute: i64, rests: bool) -> f64 {
    let Some(local) = DateTime::<Utc>::from_timestamp(minute * 60 + berlin_offset(minute) * 3600, 0) else {
        return 0.0;
    };
    let day = local.date_naive();
    let is_holiday = HOLIDAYS.iter().any(|(y, m, d)| (day.year(), day.month(), day.day()) == (*y, *m, *d));
    if matches!(day.weekday(), Weekday::Sat | Weekday::Sun) || is_holiday {
        return if rests { 0.0 } else { 0.03 };
    }
    match local.hour() {
        8 | 12 | 17 => 0.6,
        9..=16 => 1.0,
        18..=21 => 0.15,
        _ => 0.02,
    }
}

/// Returns the hours that Berlin is ahead of UTC: two from the last Sunday of March to that of October, at 01:00 UTC,
/// else one.
fn berlin_offset(minute: i64) -> i64 {
    let Some(at) = DateTime::<Utc>::from_timestamp(minute * 60, 0) else { return 1 };
    let change = |month: u32| {
        let last = NaiveDate::from_ymd_opt(at.year(), month, 31)?;
        let back = i64::from(last.weekday().num_days_from_sunday());
        Some((last - chrono::Duration::days(back)).and_hms_opt(1, 0, 0)?.and_utc())
    };
    match (change(3), change(10)) {
        (Some(spring), Some(autumn)) if (spring..autumn).contains(&at) => 2,
        _ => 1,
    }
}

fn time(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    humantime::format_rfc3339_micros(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_event::Limits;
    use bellwether_ingest::{BatchBuilder, Message, Pushed};
    use std::collections::BTreeSet;

    const MONDAY: i64 = 1_792_368_000 / 60; // 2026-10-19T00:00:00Z

    fn settings() -> Settings {
        let stalled = MONDAY + 9 * 60..MONDAY + 12 * 60;
        Settings { partitions: 2, one_more_from: MONDAY + 24 * 60, stalled }
    }

    fn week(seed: u64) -> Vec<Sent> {
        let mut fleet = Fleet::new(seed, settings());
        (MONDAY..MONDAY + 7 * 24 * 60).flat_map(|minute| fleet.minute(minute)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_every_event_is_valid() {
        let (one, two, other) = (week(1), week(1), week(2));
        let bytes = |sent: &[Sent]| sent.iter().map(|sent| sent.event.payload.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&one), bytes(&two));
        assert_ne!(bytes(&one), bytes(&other));
        let mut builder = BatchBuilder::new(Limits::default());
        for sent in &one {
            let message = Message { topic: "t", payload: Some(&sent.event.payload), ..Message::default() };
            let pushed = builder.push(&message, sent.arrives_micros);
            assert!(matches!(pushed, Pushed::Event(_)), "{pushed:?}: {}", String::from_utf8_lossy(&sent.event.payload));
        }
    }

    #[test]
    fn the_week_has_the_stated_properties() {
        let week = week(1);
        let minute = |sent: &Sent| sent.arrives_micros.div_euclid(MINUTE_MICROS);
        let of_day = |day: i64| week.iter().filter(|sent| (minute(sent) - MONDAY).div_euclid(24 * 60) == day).count();
        assert!(of_day(5) > 0 && of_day(5) * 10 < of_day(4), "{} on Saturday, {} on Friday", of_day(5), of_day(4));
        assert!(!week.iter().any(|sent| settings().stalled.contains(&minute(sent))), "ingestion stands still");
        assert!(week.iter().filter(|sent| minute(sent) == settings().stalled.end).count() > 100, "and goes on");
        let partitions = |from: i64, to: i64| {
            let there = week.iter().filter(|sent| (from..to).contains(&minute(sent)));
            there.map(|sent| sent.partition).collect::<BTreeSet<_>>().len()
        };
        assert_eq!((partitions(MONDAY, MONDAY + 1430), partitions(MONDAY + 1450, i64::MAX)), (2, 3));
        let ids = |tenant: &str| {
            let of = week.iter().filter(|sent| sent.truth.tenant == tenant && sent.truth.task == "refund_triage");
            of.map(|sent| sent.event.key.clone()).collect::<BTreeSet<_>>()
        };
        assert!(ids("north").intersection(&ids("south")).count() > 500, "two tenants have the same ids");
        let weights: BTreeSet<u32> = week.iter().map(|sent| sent.truth.weight).collect();
        assert_eq!(weights, [1, 4, 10].into());
        assert!(week.iter().any(|sent| sent.truth.cost_micros.is_none() && sent.truth.tokens.is_some()));
    }

    #[test]
    fn daylight_saving_time_ends_on_the_last_sunday_of_october() {
        let at = |text: &str| {
            let at: DateTime<Utc> = text.parse().expect("a time");
            at.timestamp() / 60
        };
        assert_eq!([at("2026-10-25T00:59:00Z"), at("2026-10-25T01:00:00Z")].map(berlin_offset), [2, 1]);
        assert_eq!([at("2026-03-29T00:59:00Z"), at("2026-03-29T01:00:00Z")].map(berlin_offset), [1, 2]);
        assert!(activity(at("2026-10-23T06:30:00Z"), false) > 0.5, "08:30 in summer");
        assert!(activity(at("2026-10-26T06:30:00Z"), false) < 0.1, "07:30 in winter");
        assert!(activity(at("2026-10-30T10:00:00Z"), true) == 0.0, "a holiday");
    }
}
