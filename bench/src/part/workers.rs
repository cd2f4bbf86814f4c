//! Compares two ingest workers on one topic with one.
//!
//! The rate is measured in the middle of the topic: at the start the second worker is still joining the group, and at
//! the end one of them may have nothing left to read. The broker runs on the same machine and takes its share of the
//! cores, so the ratio of times is accompanied by one that the broker cannot distort: events per CPU-second of all
//! workers.

use bellwether_base::Result;
use bellwether_bench::events::Size;
use bellwether_bench::process::Measured;
use bellwether_lake::LogEntry;

use crate::Bench;
use crate::kafka::{self, Filled};
use crate::part::flow::{Setup, messages, stop, until_ingested};

/// The part of the topic in which the rate is measured.
const FROM: f64 = 0.3;
const TO: f64 = 0.95;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let filled = kafka::fill(&broker, bench.seed, Size::Small, bench.sizes.topic_events)?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..bench.sizes.runs {
        for index in 0..2 {
            let (rate, cost) = ingest(bench, &filled, index + 1).await?;
            rates[index].push(rate);
            costs[index].push(cost);
        }
    }
    let [one, two] = &rates;
    let ratios: Vec<f64> = one.iter().zip(two).map(|(one, two)| two / one.max(f64::MIN_POSITIVE)).collect();
    let report = &mut bench.report;
    for (index, what) in ["one `ingest` worker", "two `ingest` workers"].into_iter().enumerate() {
        report.section("workers").note(what, &rates[index], "events / s", None);
        report.section("workers").note(what, &costs[index], "events / CPU-s", None);
    }
    report.section("workers").note("two relative to one", &ratios, "× events / s", None);
    Ok(())
}

/// Returns the events per second in the middle of the topic, and the events per CPU-second of all workers.
async fn ingest(bench: &Bench, filled: &Filled, workers: usize) -> Result<(f64, f64)> {
    let setup = Setup::new(bench, &filled.topic)?;
    let lake = setup.lake().await?;
    let workers = (0..workers).map(|_| setup.start(&["ingest"])).collect::<Result<Vec<Measured>>>()?;
    let entries = until_ingested(&lake, filled.events, &workers).await?;
    let mut cpu_s = 0.0;
    for worker in workers {
        cpu_s += stop(worker)?.cpu_s;
    }
    setup.remove();
    Ok((middle_rate(&entries, filled.events), filled.events as f64 / cpu_s.max(0.01)))
}

/// Returns the messages per second between two fractions of all messages, by the times of the commits.
fn middle_rate(entries: &[LogEntry], all: u64) -> f64 {
    let mut sum = 0;
    let mut commits = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.ranges.is_empty()) {
        sum += messages(entry);
        commits.push((sum, entry.timestamp_ms));
    }
    let inside = |(sum, _): &(u64, i64)| (FROM..=TO).contains(&(*sum as f64 / all.max(1) as f64));
    let middle: Vec<(u64, i64)> = commits.iter().copied().filter(inside).collect();
    // A topic with few commits has no middle.
    let counted = if middle.len() > 1 { &middle } else { &commits };
    let (Some((first, begun)), Some((last, ended))) = (counted.first(), counted.last()) else { return 0.0 };
    (last - first) as f64 / ((ended - begun).max(1) as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_lake::PartitionRange;

    #[test]
    fn the_rate_is_that_of_the_middle() {
        let entry = |from: i64, timestamp_ms| {
            let range = PartitionRange {
                passed_over: None,
                topic: "t".to_owned(),
                partition: 0,
                from,
                next: from + 100,
                end_offset: None,
                newest_event_micros: None,
            };
            LogEntry { timestamp_ms, ranges: vec![range], ..LogEntry::default() }
        };
        // Ten commits of a hundred; slow at first, then one every 50 ms.
        let entries: Vec<LogEntry> =
            (0..10).map(|index| entry(index * 100, if index < 2 { index * 1000 } else { 2000 + index * 50 })).collect();
        assert!((middle_rate(&entries, 1000) - 2000.0).abs() < 1e-9);
    }
}
