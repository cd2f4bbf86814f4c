//! Signals for each heartbeat that comes back: a ping, and an alert in an Alertmanager that ends unless it is sent again.

use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Clock, Error, Result};
use bellwether_sinks::page::{Evidence, Severity, Status};
use bellwether_sinks::{Failure, Notice, Page, Ping, Sink, SinkSettings};
use prometheus::{IntCounterVec, Opts, Registry};

use super::HeartbeatSettings;

/// Name of the alert, and of its rule.
const ALERT: &str = "BellwetherHeartbeat";

/// The sink sets the end of an alert this many of its intervals ahead.
const INTERVALS_AHEAD: u32 = 4;

/// The sink takes no longer interval.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// Everything outside that hears of heartbeats.
pub(super) struct Signals {
    ping: Option<Ping>,
    alertmanager: Option<Arc<dyn Sink>>,
    /// Name of the job, by which receivers tell installations apart.
    job: String,
    /// Time at which this process began, microseconds since the epoch.
    since: i64,
    results: IntCounterVec,
}

// === impl Signals ===

impl Signals {
    /// Creates the clients.
    ///
    /// # Errors
    /// `Config` if one cannot be created; `Bug` if the metric is registered already.
    pub(super) fn new(
        settings: &HeartbeatSettings,
        alertmanager: Option<&SinkSettings>,
        job: &str,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Self> {
        let help = "Signals of heartbeats that came back, by the service (ping or alertmanager) and the result";
        let opts = Opts::new("bellwether_heartbeat_signals_total", help);
        let results = IntCounterVec::new(opts, &["to", "result"])
            .and_then(|results| registry.register(Box::new(results.clone())).map(|()| results))
            .map_err(|source| Error::bug("cannot register the metrics of heartbeats").with_source(source))?;
        let ping = settings.ping.as_ref().map(|ping| Ping::new(ping, Arc::clone(&clock))).transpose()?;
        let alertmanager = alertmanager.map(|sink| lasting(sink, settings).build(Arc::clone(&clock))).transpose()?;
        Ok(Self { ping, alertmanager, job: job.to_owned(), since: clock.now_micros(), results })
    }

    /// Says that a heartbeat came back after some seconds. A failure is logged and counted; the next heartbeat tries again.
    pub(super) async fn send(&self, seconds: f64) {
        if let Some(ping) = &self.ping {
            self.count("ping", ping.send().await);
        }
        if let Some(sink) = &self.alertmanager {
            let notice = notice(&self.job, self.since, seconds);
            self.count("alertmanager", sink.send(&notice, None).await.map(|_| ()));
        }
    }

    fn count(&self, to: &str, result: std::result::Result<(), Failure>) {
        let word = match result {
            Ok(()) => "sent",
            Err(Failure::Later { reason, .. } | Failure::Refused { reason }) => {
                tracing::warn!(to, reason, "a heartbeat came back, but this could not be reported");
                "failed"
            }
        };
        self.results.with_label_values(&[to, word]).inc();
    }
}

/// Returns the settings of an Alertmanager with an end of alerts that allows for the slowest heartbeat in time.
fn lasting(sink: &SinkSettings, settings: &HeartbeatSettings) -> SinkSettings {
    let mut sink = sink.clone();
    if let SinkSettings::Alertmanager(alertmanager) = &mut sink {
        let until_next = settings.interval.saturating_add(settings.deadline);
        alertmanager.resend_every = (until_next / INTERVALS_AHEAD).clamp(Duration::from_secs(1), LONGEST_INTERVAL);
    }
    sink
}

fn notice(job: &str, since: i64, seconds: f64) -> Notice {
    let page = Page {
        incident: format!("heartbeat/{job}"),
        alert_id: "heartbeat".to_owned(),
        status: Status::Firing,
        severity: Severity::Info,
        rule: ALERT.to_owned(),
        owner: None,
        labels: [("job".to_owned(), job.to_owned())].into(),
        tenant: None,
        task: None,
        release: None,
        baseline_release: None,
        title: format!("Bellwether works: a heartbeat came back after {seconds:.0} s"),
        started_at: since,
        ended_at: None,
        acknowledgement: None,
        test: false,
        evidence: Evidence {
            notes: vec!["This alert always fires. Raise an alarm if it stops.".to_owned()],
            ..Evidence::default()
        },
        links: Vec::new(),
        suppressed: Vec::new(),
    };
    Notice { route: "heartbeat".to_owned(), pages: vec![page], ..Notice::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alert_outlives_the_slowest_heartbeat_that_is_in_time() {
        let text = "kind = \"alertmanager\"\nurls = [\"http://127.0.0.1:9\"]\nallow_private = true\n";
        let sink: SinkSettings = toml::from_str(text).expect("settings of a sink");
        let ahead = |interval: u64, deadline: u64| {
            let (interval, deadline) = (Duration::from_secs(interval), Duration::from_secs(deadline));
            let settings = HeartbeatSettings { interval, deadline, ..HeartbeatSettings::default() };
            let SinkSettings::Alertmanager(lasting) = lasting(&sink, &settings) else { panic!("another sink") };
            lasting.resend_every * INTERVALS_AHEAD
        };
        assert_eq!(ahead(60, 300), Duration::from_secs(360));
        assert_eq!(ahead(1, 1), Duration::from_secs(4), "the sink takes no shorter interval than a second");
    }

    #[test]
    fn all_heartbeats_of_a_job_are_one_alert_with_the_same_labels() {
        let [first, second] = [notice("main", 1, 2.0), notice("main", 9, 30.0)].map(|notice| notice.pages[0].clone());
        assert_eq!(first.title, "Bellwether works: a heartbeat came back after 2 s");
        let identity = |page: &Page| (page.rule.clone(), page.alert_id.clone(), page.severity, page.labels.clone());
        assert_eq!(identity(&first), identity(&second));
    }
}
