//! The role `heartbeat`: sends a message of its own through the whole pipeline, again and again, and measures how long it takes.
//!
//! A heartbeat goes from the topic through ingest into the log of `events`, which aggregate and watch then read past, and deliver
//! reads past what watch has written. Each of them records how far it is in the log of the table that it writes, so the heartbeat is
//! back once all of these logs are past its offset. It is a row of no table ([`bellwether_ingest::heartbeat`]).
//!
//! * `signal`: says outside that a heartbeat has come back. Its absence raises an alarm there.

mod signal;

use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_deliver::DeliverSettings;
use bellwether_follow::Until;
use bellwether_ingest::{HeartbeatPlace, HeartbeatSender, KafkaSettings};
use bellwether_lake::{CommitLog, Lake, Layout, Snapshot};
use bellwether_sinks::{PingSettings, SinkSettings};
use bellwether_tables::{AppId, Table};
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use tokio_util::sync::CancellationToken;

use self::signal::Signals;
use super::{Role, Shared, Work};
use crate::config::Config;

/// Time between two looks at the logs. Each costs four requests on S3.
const LOOK: Duration = Duration::from_secs(1);

/// Buckets of the time that a heartbeat takes, seconds.
const BUCKETS: [f64; 9] = [1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0];

/// Settings of the role.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatSettings {
    /// Sends heartbeats.
    pub(crate) send: bool,
    /// Time between two heartbeats.
    pub(crate) interval: Duration,
    /// A heartbeat that is not back after this long has failed.
    pub(crate) deadline: Duration,
    /// Address that is pinged for each heartbeat that comes back.
    pub(crate) ping: Option<PingSettings>,
    /// Name of the sink whose Alertmanager holds an alert while heartbeats come back.
    pub(crate) alertmanager: Option<String>,
}

impl Default for HeartbeatSettings {
    fn default() -> Self {
        Self {
            send: false,
            interval: Duration::from_secs(60),
            deadline: Duration::from_secs(300),
            ping: None,
            alertmanager: None,
        }
    }
}

struct HeartbeatRole {
    settings: HeartbeatSettings,
    kafka: KafkaSettings,
    alertmanager: Option<SinkSettings>,
    /// Alerts are delivered, so that the way goes on to `deliveries`.
    delivers: bool,
}

pub(super) fn new(config: &Config) -> Box<dyn Role> {
    let settings = config.heartbeat.clone();
    // A wrong name is a problem of the configuration, found when it was read.
    let alertmanager = settings.alertmanager.as_deref().and_then(|name| alertmanager(&config.deliver, name));
    let delivers = config.deliver.delivers();
    Box::new(HeartbeatRole { settings, kafka: config.kafka.clone(), alertmanager, delivers })
}

/// Returns the settings of a sink by its name, if it is an Alertmanager.
pub(crate) fn alertmanager(deliver: &DeliverSettings, name: &str) -> Option<SinkSettings> {
    let settings = crate::deliver::read(name, deliver.sinks.get(name)?).ok()?;
    matches!(settings, SinkSettings::Alertmanager(_)).then_some(settings)
}

/// The part of the way on which a heartbeat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The broker does not have it.
    Kafka,
    /// `events` is not past it.
    Ingest,
    /// `metrics` is not past it.
    Aggregate,
    /// `alerts` is not past it.
    Watch,
    /// `deliveries` is not past that version of `alerts`.
    Deliver,
    Back,
}

/// The newest snapshots of the logs on the way.
#[derive(Clone, Default)]
struct Logs {
    events: Snapshot,
    metrics: Snapshot,
    alerts: Snapshot,
    /// None if nothing is delivered.
    deliveries: Option<Snapshot>,
}

/// A heartbeat on its way.
struct Journey {
    /// Application id of its partition in `events`.
    partition: String,
    offset: i64,
    /// A version of `events` that is past it.
    version: Option<i64>,
    /// A version of `alerts` of which the watcher had read that version.
    watched: Option<i64>,
}

struct Heart {
    settings: HeartbeatSettings,
    sender: HeartbeatSender,
    signals: Signals,
    delivers: bool,
    job: String,
    lake: Lake,
    /// None before the first look, and after one that failed.
    logs: Option<Logs>,
    seconds: Histogram,
    last_success: Gauge,
    failures: IntCounterVec,
}

// === impl HeartbeatRole ===

impl Role for HeartbeatRole {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    fn is_in_run(&self) -> bool {
        self.settings.send
    }

    fn is_background(&self) -> bool {
        self.settings.send
    }

    fn start(&self, shared: &Shared, until: Until) -> Result<Work> {
        if !self.settings.send || matches!(until, Until::CaughtUp(_)) {
            // A process that ends once it has caught up would wait for its own messages.
            return Ok(Box::pin(async { Ok(()) }));
        }
        let wrong =
            |source: prometheus::Error| Error::bug("cannot register the metrics of heartbeats").with_source(source);
        let (seconds, last_success, failures) = metrics(&shared.registry).map_err(wrong)?;
        let signals = Signals::new(
            &self.settings,
            self.alertmanager.as_ref(),
            &self.kafka.job,
            shared.lake.clock(),
            &shared.registry,
        )?;
        let heart = Heart {
            settings: self.settings.clone(),
            sender: HeartbeatSender::new(&self.kafka)?,
            signals,
            delivers: self.delivers,
            job: self.kafka.job.clone(),
            lake: shared.lake.clone(),
            logs: None,
            seconds,
            last_success,
            failures,
        };
        Ok(Box::pin(heart.run(shared.stop.clone())))
    }
}

fn metrics(registry: &Registry) -> prometheus::Result<(Histogram, Gauge, IntCounterVec)> {
    let help = "Seconds from sending a heartbeat until ingest, aggregate, watch and deliver are past it";
    let seconds =
        Histogram::with_opts(HistogramOpts::new("bellwether_heartbeat_seconds", help).buckets(BUCKETS.to_vec()))?;
    let last_success = Gauge::new(
        "bellwether_heartbeat_last_success_timestamp_seconds",
        "When a heartbeat last came back, or the start of the process",
    )?;
    let help = "Heartbeats that did not come back in time, by the part of the way where they were";
    let failures = IntCounterVec::new(Opts::new("bellwether_heartbeat_failures_total", help), &["stage"])?;
    registry.register(Box::new(seconds.clone()))?;
    registry.register(Box::new(last_success.clone()))?;
    registry.register(Box::new(failures.clone()))?;
    Ok((seconds, last_success, failures))
}

// === impl Stage ===

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Ingest => "ingest",
            Self::Aggregate => "aggregate",
            Self::Watch => "watch",
            Self::Deliver => "deliver",
            Self::Back => "back",
        }
    }
}

// === impl Journey ===

impl Journey {
    fn of(job: &str, place: &HeartbeatPlace) -> Self {
        let partition = AppId::partition(job, &place.topic, place.partition).to_string();
        Self { partition, offset: place.offset, version: None, watched: None }
    }

    /// Returns how far the heartbeat has come, by the newest snapshots.
    fn stage(&mut self, logs: &Logs) -> Stage {
        let is_past = logs.events.next(&self.partition).is_some_and(|next| next > self.offset);
        let Some(version) = self.version.or_else(|| is_past.then_some(logs.events.version)) else {
            return Stage::Ingest;
        };
        self.version = Some(version);
        if Layout::reads_next(&logs.metrics) <= version {
            return Stage::Aggregate;
        }
        let is_watched = logs.alerts.next(&AppId::WatchEvents.to_string()).is_some_and(|next| next > version);
        let Some(watched) = self.watched.or_else(|| is_watched.then_some(logs.alerts.version)) else {
            return Stage::Watch;
        };
        self.watched = Some(watched);
        let has_read = |deliveries: &Snapshot| {
            deliveries.next(&AppId::DeliverAlerts.to_string()).is_some_and(|next| next > watched)
        };
        if logs.deliveries.as_ref().is_none_or(has_read) { Stage::Back } else { Stage::Deliver }
    }
}

// === impl Heart ===

impl Heart {
    async fn run(mut self, stop: CancellationToken) -> Result<()> {
        self.last_success.set(self.now_seconds());
        let clock = self.lake.clock();
        loop {
            let begun = clock.now_micros();
            tokio::select! {
                biased; // Stopping wins over waiting.
                () = stop.cancelled() => return Ok(()),
                () = self.beat(begun) => {}
            }
            let took = u64::try_from(clock.now_micros().saturating_sub(begun)).unwrap_or(0);
            let rest = self.settings.interval.saturating_sub(Duration::from_micros(took));
            tokio::select! {
                biased; // Stopping wins over waiting.
                () = stop.cancelled() => return Ok(()),
                () = clock.sleep(rest) => {}
            }
        }
    }

    fn now_seconds(&self) -> f64 {
        self.lake.clock().now_micros() as f64 / 1e6
    }

    /// Sends a heartbeat, waits until it is back, and counts the result.
    async fn beat(&mut self, begun: i64) {
        let clock = self.lake.clock();
        let sent = self.sender.send(&*clock).await;
        let stage = match sent {
            Ok(place) => self.wait(Journey::of(&self.job, &place), begun).await,
            Err(error) => {
                tracing::warn!(reason = %error.chain(), "no heartbeat could be sent");
                Stage::Kafka
            }
        };
        if stage == Stage::Back {
            let seconds = (clock.now_micros() - begun) as f64 / 1e6;
            self.seconds.observe(seconds);
            self.last_success.set(self.now_seconds());
            self.signals.send(seconds).await;
        } else {
            self.failures.with_label_values(&[stage.name()]).inc();
            tracing::warn!(stage = stage.name(), "a heartbeat has not come back in time");
        }
    }

    /// Waits until a heartbeat is back or late. Returns how far it has come.
    async fn wait(&mut self, mut journey: Journey, begun: i64) -> Stage {
        let clock = self.lake.clock();
        let deadline = begun.saturating_add(i64::try_from(self.settings.deadline.as_micros()).unwrap_or(i64::MAX));
        let mut stage = Stage::Ingest;
        loop {
            match self.look().await {
                Ok(logs) => stage = journey.stage(logs),
                // Storage that does not answer delays the other roles as well, and they report it.
                Err(error) => tracing::debug!(reason = %error.chain(), "the way of a heartbeat cannot be read"),
            }
            if stage == Stage::Back || clock.now_micros() >= deadline {
                return stage;
            }
            clock.sleep(LOOK).await;
        }
    }

    /// Reads the newest snapshots.
    async fn look(&mut self) -> Result<&Logs> {
        let known = self.logs.take();
        let deliveries = known.as_ref().and_then(|logs| logs.deliveries.clone());
        let known = |pick: fn(&Logs) -> &Snapshot| known.as_ref().map(|logs| pick(logs).clone());
        let logs = Logs {
            events: self.newest(Table::Events, known(|logs| &logs.events)).await?,
            metrics: self.newest(Table::Metrics, known(|logs| &logs.metrics)).await?,
            alerts: self.newest(Table::Alerts, known(|logs| &logs.alerts)).await?,
            deliveries: match self.delivers {
                true => Some(self.newest(Table::Deliveries, deliveries).await?),
                false => None,
            },
        };
        Ok(self.logs.insert(logs))
    }

    async fn newest(&self, table: Table, known: Option<Snapshot>) -> Result<Snapshot> {
        let log = self.lake.log(table);
        match known {
            Some(known) => log.catch_up(known).await,
            None => log.load().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(version: i64, app: &str, next: i64) -> Snapshot {
        Snapshot::default().after(version, [(app.to_owned(), next)])
    }

    #[test]
    fn a_heartbeat_is_back_once_every_log_is_past_it() {
        let place = HeartbeatPlace { topic: "t".to_owned(), partition: 3, offset: 7 };
        let mut journey = Journey::of("main", &place);
        let mut logs = Logs { events: log(4, "main/t/3", 7), ..Logs::default() };
        assert_eq!(journey.stage(&logs), Stage::Ingest, "the next offset is its own");
        logs.events = log(5, "main/t/3", 8);
        assert_eq!(journey.stage(&logs), Stage::Aggregate);
        // Later versions of `events` do not move it further away.
        logs.events = log(9, "main/t/3", 20);
        let layout = Layout { generation: 0, shards: 1 }.advance(&Snapshot::default());
        let metrics = |next: i64| log(2, &layout.app_id, layout.next).after(3, [("aggregate/0".to_owned(), next)]);
        logs.metrics = metrics(5);
        assert_eq!(journey.stage(&logs), Stage::Aggregate);
        logs.metrics = metrics(6);
        assert_eq!(journey.stage(&logs), Stage::Watch);
        logs.alerts = log(1, "watch/events", 5);
        assert_eq!(journey.stage(&logs), Stage::Watch);
        logs.alerts = log(8, "watch/events", 6);
        logs.deliveries = Some(log(1, "deliver/alerts", 8));
        assert_eq!(journey.stage(&logs), Stage::Deliver);
        // Later versions of `alerts` do not move it further away.
        logs.alerts = log(12, "watch/events", 9);
        assert_eq!(journey.stage(&logs), Stage::Deliver);
        logs.deliveries = Some(log(2, "deliver/alerts", 9));
        assert_eq!(journey.stage(&logs), Stage::Back);
        logs.deliveries = None;
        assert_eq!(journey.stage(&logs), Stage::Back, "nothing is delivered");
    }
}
