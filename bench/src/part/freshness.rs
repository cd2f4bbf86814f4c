//! Measures the time from sending an event to its visibility in `metrics`, under live traffic at default settings.
//!
//! The producer records when it hands each event to its client; the broker's acknowledgement contains the offset. A
//! reader of the two logs, as any other program could be, records when a commit to `metrics` includes the commit to
//! `events` with that offset. The result is the time between the two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_bench::events::{Generator, Size};
use bellwether_lake::{Lake, LogEntry};
use bellwether_tables::Table;

use crate::Bench;
use crate::kafka::{self, Publisher, Sent};
use crate::part::flow::{Follower, Setup, messages, read_up_to, stop, until_aggregated, until_ingested};
use crate::report::Bound;

/// Time between two polls of the logs: the resolution of the results.
const LOOK: Duration = Duration::from_millis(5);

/// Maximum wait for the last events.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state of a reader of the logs.
#[derive(Debug, Default)]
struct Seen {
    /// For each partition: the end offset of each range, and the version of `events` with it.
    versions: BTreeMap<i32, BTreeMap<i64, i64>>,
    /// Versions of `events` up to which `metrics` has read, and since when.
    visible: BTreeMap<i64, Instant>,
    messages: u64,
}

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let broker = bench.broker.clone().unwrap_or_default();
    let (mut median, mut p99, mut most, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..bench.sizes.runs {
        let topic = kafka::topic(&broker)?;
        let setup = Setup::new(bench, &topic)?;
        let lake = setup.lake().await?;
        let workers = [setup.start(&["run"])?];
        warm_up(&broker, &topic, &lake, &workers).await?;
        let before = bellwether_bench::process::cpu_seconds(workers[0].id()).unwrap_or_default();
        let live = Live { per_second: bench.sizes.live_per_second, window: Duration::from_secs(bench.sizes.window_s) };
        let generator = Generator::new(bench.seed + run as u64 + 1, Size::Small);
        let (times, _) = live.measure(generator, &broker, &topic, &lake).await?;
        let after = bellwether_bench::process::cpu_seconds(workers[0].id()).unwrap_or_default();
        let [worker] = workers;
        stop(worker)?;
        setup.remove();
        median.push(times.at(0.5));
        p99.push(times.at(0.99));
        most.push(times.at(1.0));
        cpu.push((after - before) / live.window.as_secs_f64() * 100.0);
    }
    let what = format!("sending to visibility in `metrics`, {} events/s", bench.sizes.live_per_second);
    let report = &mut bench.report;
    report.section("freshness").note(format!("{what}, median"), &median, "s", None);
    report.section("freshness").note(format!("{what}, p99"), &p99, "s", Some(Bound::AtMost(3.0)));
    report.section("freshness").note(format!("{what}, longest"), &most, "s", None);
    report.section("freshness").note("CPU during this", &cpu, "% of a core", None);
    Ok(())
}

/// Sends one event all the way before the clock starts, to exclude the time for joining the group.
pub(crate) async fn warm_up(
    broker: &str,
    topic: &str,
    lake: &Lake,
    workers: &[bellwether_bench::process::Measured],
) -> Result<()> {
    let publisher = Publisher::new(broker, topic)?;
    publisher.publish(&Generator::new(0, Size::Small).next(SystemClock.now_micros()), false)?;
    publisher.flush()?;
    let entries = until_ingested(lake, 1, workers).await?;
    until_aggregated(lake, entries.last().map_or(0, |entry| entry.version), workers).await
}

/// Live traffic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) per_second: u64,
    pub(crate) window: Duration,
}

/// Times from sending to visibility, in ascending order.
pub(crate) struct Times(Vec<Duration>);

// === impl Times ===

impl Times {
    /// Returns the time within which this share of the events became visible, seconds.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let index = ((self.0.len() as f64 * share).ceil() as usize).clamp(1, self.0.len().max(1));
        self.0.get(index - 1).map_or(0.0, Duration::as_secs_f64)
    }
}

// === impl Live ===

impl Live {
    /// Publishes at a steady rate and follows the logs. Returns the times of all events, and the generator.
    pub(crate) async fn measure(
        self,
        mut generator: Generator,
        broker: &str,
        topic: &str,
        lake: &Lake,
    ) -> Result<(Times, Generator)> {
        let done = Arc::new(AtomicBool::new(false));
        let (publisher, over) = (Publisher::new(broker, topic)?, Arc::clone(&done));
        let producing = std::thread::spawn(move || {
            let published = self.publish(&publisher, &mut generator);
            over.store(true, Ordering::Release);
            published.map(|()| (publisher.sent(), generator))
        });
        let mut seen = Seen::default();
        let (mut events, mut metrics) = (Follower::new(lake, Table::Events), Follower::new(lake, Table::Metrics));
        // Includes the event of the warm-up.
        let wanted = self.per_second * self.window.as_secs() + 1;
        let mut waiting_since = None;
        while !seen.all(wanted) {
            seen.look(&mut events, &mut metrics).await?;
            if done.load(Ordering::Acquire) {
                let since: &Instant = waiting_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(Error::unavailable(format!("only {} of {wanted} events are visible", seen.messages)));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        let (sent, generator) = producing.join().map_err(|_| Error::bug("the producer panicked"))??;
        let mut times = sent.iter().map(|sent| seen.time_of(sent)).collect::<Result<Vec<_>>>()?;
        times.sort_unstable();
        Ok((Times(times), generator))
    }

    fn publish(self, publisher: &Publisher, generator: &mut Generator) -> Result<()> {
        let (begun, mut sent) = (Instant::now(), 0);
        let all = self.per_second * self.window.as_secs();
        while sent < all {
            let due = ((begun.elapsed().as_secs_f64() * self.per_second as f64) as u64).min(all);
            while sent < due {
                publisher.publish(&generator.next(SystemClock.now_micros()), true)?;
                sent += 1;
            }
            publisher.poll();
            std::thread::sleep(Duration::from_millis(1));
        }
        publisher.flush()
    }
}

// === impl Seen ===

impl Seen {
    async fn look(&mut self, events: &mut Follower, metrics: &mut Follower) -> Result<()> {
        // Read `metrics` first: any version it names is then certainly found in `events` below.
        while let Some(entry) = metrics.next().await? {
            if let Some(next) = read_up_to(&entry) {
                self.visible.entry(next).or_insert_with(Instant::now);
            }
        }
        while let Some(entry) = events.next().await? {
            self.note(&entry);
        }
        Ok(())
    }

    fn note(&mut self, entry: &LogEntry) {
        self.messages += messages(entry);
        for range in &entry.ranges {
            self.versions.entry(range.partition).or_default().insert(range.next, entry.version);
        }
    }

    fn all(&self, wanted: u64) -> bool {
        let newest = self.versions.values().filter_map(|ranges| ranges.values().max()).max();
        let visible = self.visible.last_key_value().map(|(next, _)| *next);
        self.messages >= wanted && visible > newest.copied()
    }

    fn time_of(&self, sent: &Sent) -> Result<Duration> {
        let missing = || Error::data(format!("offset {} of partition {} was never seen", sent.offset, sent.partition));
        // The first range that ends after the offset contains it.
        let ranges = self.versions.get(&sent.partition).ok_or_else(missing)?;
        let (_, version) = ranges.range(sent.offset + 1..).next().ok_or_else(missing)?;
        let (_, at) = self.visible.range(version + 1..).next().ok_or_else(missing)?;
        Ok(at.saturating_duration_since(sent.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_visible_with_the_first_commit_that_has_read_its_version() {
        let sent = Instant::now();
        let after = |ms| sent + Duration::from_millis(ms);
        let mut seen = Seen::default();
        seen.versions.insert(0, BTreeMap::from([(10, 1), (20, 2)]));
        seen.visible = BTreeMap::from([(2, after(100)), (3, after(200))]);
        let time = |offset| seen.time_of(&Sent { partition: 0, offset, at: sent }).map(|time| time.as_millis()).ok();
        assert_eq!(
            [time(0), time(9), time(10), time(19), time(20)],
            [Some(100), Some(100), Some(200), Some(200), None]
        );
    }
}
