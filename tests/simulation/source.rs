//! The scripted source: a topic with messages from the seed, and a consumer group that moves partitions between workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use bellwether_event::Limits;
use serde_json::json;

use super::random::Random;

/// A message in the topic.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    /// When it can be read.
    pub(crate) at_micros: i64,
    pub(crate) payload: Option<Vec<u8>>,
    /// Its run; none if it must be rejected.
    pub(crate) run: Option<String>,
    /// The verdict depends on when it is read: it must be accepted or rejected, and both are right.
    pub(crate) timed: bool,
}

/// How long after its arrival the verdict on a message can change.
const VERDICT_CHANGES_WITHIN: i64 = 12_000_000;

/// The messages of each partition.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) partitions: Vec<Vec<Stored>>,
}

impl Broker {
    /// Draws messages that arrive during `span_micros` from `start`: valid ones, repeats and corrections, bad messages,
    /// tombstones, some that are in the future or too old for a while only, and offsets without a message.
    pub(crate) fn script(random: &mut Random, start: i64, span_micros: i64, messages: u64) -> Self {
        let partitions = (0..random.between(1, 3)).map(|_| {
            let mut offset = random.between(0, 5);
            let mut times: Vec<i64> = (0..messages).map(|_| start + random.between(0, span_micros)).collect();
            times.sort_unstable();
            let mut stored = Vec::new();
            for at_micros in times {
                stored.push(Stored { offset, at_micros, ..message(random, at_micros) });
                offset += 1 + if random.one_in(8) { random.between(1, 4) } else { 0 };
            }
            stored
        });
        Self { partitions: partitions.collect() }
    }

    /// Returns the first message at or after an offset, if it has arrived.
    pub(crate) fn fetch(&self, partition: i32, offset: i64, now_micros: i64) -> Option<&Stored> {
        let all = &self.partitions[usize::try_from(partition).expect("a partition")];
        all.iter().find(|stored| stored.offset >= offset).filter(|stored| stored.at_micros <= now_micros)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = i32> {
        0..i32::try_from(self.partitions.len()).expect("few")
    }

    /// Returns the offset after the last message.
    pub(crate) fn end(&self, partition: i32) -> i64 {
        self.partitions[usize::try_from(partition).expect("a partition")].last().map_or(0, |last| last.offset + 1)
    }

    pub(crate) fn stored(&self, partition: i32, offset: i64) -> Option<&Stored> {
        self.partitions.get(usize::try_from(partition).ok()?)?.iter().find(|stored| stored.offset == offset)
    }
}

fn message(random: &mut Random, at_micros: i64) -> Stored {
    let poison = |payload: Option<&str>| Stored {
        offset: 0,
        at_micros,
        payload: payload.map(|text| text.as_bytes().to_vec()),
        run: None,
        timed: false,
    };
    let drawn = random.below(14);
    match drawn {
        0 => poison(None),
        1 => poison(Some("{\"spec\":")),
        2 => poison(Some("{\"spec\":\"run-event/1\",\"run_id\":7}")),
        _ => {
            let (run, revision, variant) = (random.below(12), random.below(3), random.below(4));
            let Limits { max_future_micros, max_age_micros, .. } = Limits::default();
            let changes = at_micros + random.between(0, VERDICT_CHANGES_WITHIN);
            // Valid from that time on, or until that time.
            let ended_micros = match drawn {
                3 => Some(changes + max_future_micros),
                4 => Some(changes - max_age_micros),
                _ => None,
            };
            let id = format!("run-{run}");
            let payload = Some(statement(&id, run, revision, variant, ended_micros));
            Stored { offset: 0, at_micros, payload, run: Some(id), timed: ended_micros.is_some() }
        }
    }
}

fn statement(id: &str, run: u64, revision: u64, variant: u64, ended_micros: Option<i64>) -> Vec<u8> {
    let status = ["success", "failure", "unknown", "error"][variant as usize];
    let moment = |micros: i64| {
        let at = UNIX_EPOCH + Duration::from_micros(micros.unsigned_abs());
        humantime::format_rfc3339_micros(at).to_string()
    };
    let (time, started, ended) = match ended_micros {
        Some(micros) => (moment(micros), moment(micros - 1_000_000), moment(micros)),
        None => (
            format!("2026-11-24T17:0{variant}:30Z"),
            "2026-11-24T17:00:00Z".to_owned(),
            format!("2026-11-24T17:{:02}:{:02}.5Z", run * 2 + revision, run * 4),
        ),
    };
    let event = json!({
        "spec": "run-event/1", "run_id": id, "source": "app", "revision": revision,
        "time": time,
        "data": {
            "task": if run.is_multiple_of(2) { "a" } else { "b" },
            "release": { "id": format!("r{}", run % 3), "model": { "requested": "m", "responded": format!("m-{}", run % 2) } },
            "started_at": started,
            "ended_at": ended,
            "outcome": { "status": status },
            "tokens": { "input": 100 + run, "output": 7 * variant },
            "cost": { "amount": format!("0.00{run}{variant}3"), "currency": "USD" },
            "latency": { "total_ms": 100 * run + variant },
        },
    });
    event.to_string().into_bytes()
}

/// Which worker owns which partition, and which assignments each worker has heard of. A worker that has not heard of the
/// newest one still reads a partition that another owns.
#[derive(Debug)]
pub(crate) struct Group {
    /// Each worker owns all partitions, as if two groups wrote the same tables by mistake.
    contested: bool,
    assignments: Vec<BTreeMap<i32, usize>>,
    /// The assignments of each worker, with the time at which it hears of them.
    heard: Vec<Vec<(i64, usize)>>,
}

impl Group {
    pub(crate) fn new(workers: usize, contested: bool) -> Self {
        Self { contested, assignments: vec![BTreeMap::new()], heard: vec![Vec::new(); workers] }
    }

    /// Assigns the partitions again; each worker hears of it at its own time.
    pub(crate) fn rebalance(&mut self, random: &mut Random, partitions: &[i32], now_micros: i64) {
        let workers = self.heard.len() as u64;
        let dealt = partitions.iter().map(|partition| (*partition, random.below(workers) as usize)).collect();
        self.assignments.push(dealt);
        let newest = self.assignments.len() - 1;
        for heard in &mut self.heard {
            let delay = if random.one_in(3) { random.between(0, 8_000_000) } else { random.between(0, 300_000) };
            heard.push((now_micros + delay, newest));
        }
    }

    /// Returns the partitions that a worker believes it owns.
    pub(crate) fn believed(&self, worker: usize, now_micros: i64) -> BTreeSet<i32> {
        let known = self.heard[worker].iter().filter(|(at, _)| *at <= now_micros).map(|(_, which)| *which).max();
        let Some(known) = known else { return BTreeSet::new() };
        let mine = self.assignments[known].iter().filter(|(_, owner)| self.contested || **owner == worker);
        mine.map(|(partition, _)| *partition).collect()
    }
}
