//! Prometheus metrics of watching.

use bellwether_lake::{Error, Result};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Counters and gauges of watching.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) evaluations: IntCounter,
    pub(crate) seconds: Gauge,
    pub(crate) transitions: IntCounterVec,
    pub(crate) firing: IntGaugeVec,
    pub(crate) stale: IntGauge,
    pub(crate) rules: IntGauge,
    pub(crate) broken: IntGauge,
    pub(crate) rule_failures: IntCounterVec,
    pub(crate) rule_failing: IntGaugeVec,
    pub(crate) given_up: IntGaugeVec,
    pub(crate) series: IntGauge,
    pub(crate) next_version: IntGauge,
    pub(crate) complete_to: IntGauge,
    pub(crate) rebuilds: IntCounter,
    pub(crate) too_late: IntGauge,
    pub(crate) fenced: IntCounter,
    pub(crate) retries: IntCounter,
    pub(crate) pages_budget: Gauge,
    pub(crate) pages_spent: Gauge,
    pub(crate) pages: IntGauge,
    pub(crate) pages_retracted: IntGauge,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        let wrong =
            |source: prometheus::Error| Error::bug("a metric of watching is defined wrongly").with_source(source);
        macro_rules! made {
            ($made:expr) => {{
                let made = $made.map_err(wrong)?;
                registry.register(Box::new(made.clone())).map_err(wrong)?;
                made
            }};
        }
        let counter = |name: &str, help: &str| -> Result<IntCounter> { Ok(made!(IntCounter::new(name, help))) };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> { Ok(made!(IntGauge::new(name, help))) };
        let float = |name: &str, help: &str| -> Result<Gauge> { Ok(made!(Gauge::new(name, help))) };
        Ok(Self {
            evaluations: counter("bellwether_watch_evaluations_total", "Evaluations of all rules")?,
            seconds: float("bellwether_watch_evaluation_seconds", "Time that the last evaluation took")?,
            transitions: made!(IntCounterVec::new(
                Opts::new("bellwether_watch_transitions_total", "Changes of the state of alerts"),
                &["severity", "state"]
            )),
            firing: made!(IntGaugeVec::new(Opts::new("bellwether_alerts_firing", "Alerts that fire"), &["severity"])),
            stale: gauge("bellwether_alerts_stale", "Alerts that fire without news")?,
            rules: gauge("bellwether_watch_rules", "Rules that are watched")?,
            broken: gauge("bellwether_watch_rules_broken", "Rules that could not be read, or fail again and again")?,
            rule_failures: made!(IntCounterVec::new(
                Opts::new("bellwether_watch_rule_failures_total", "Evaluations of a rule that failed"),
                &["rule"]
            )),
            rule_failing: made!(IntGaugeVec::new(
                Opts::new(
                    "bellwether_watch_rule_failing",
                    "Evaluations of a rule that failed since the last that worked"
                ),
                &["rule"]
            )),
            given_up: made!(IntGaugeVec::new(
                Opts::new("bellwether_watch_rule_rows_given_up", "Rows that a rule could not judge after all tries"),
                &["rule"]
            )),
            series: gauge("bellwether_watch_series", "Series that are watched")?,
            next_version: gauge("bellwether_watch_next_version", "Version of metrics that is read next")?,
            complete_to: gauge("bellwether_watch_complete_to_seconds", "Event time up to which windows are complete")?,
            rebuilds: counter("bellwether_watch_rebuilds_total", "Times that state was rebuilt from the tables")?,
            too_late: gauge(
                "bellwether_watch_too_late",
                "Corrections older than what can be judged again without a rebuild",
            )?,
            fenced: counter("bellwether_watch_fenced_total", "Commits lost to another watcher")?,
            retries: counter("bellwether_watch_retries_total", "Steps tried again because storage did not answer")?,
            pages_budget: float(
                "bellwether_alerts_false_pages_budget",
                "False pages a month that the configuration allows",
            )?,
            pages_spent: float(
                "bellwether_alerts_false_pages_bound",
                "Bound of the false pages of this month by the thresholds given out",
            )?,
            pages: gauge("bellwether_alerts_pages_30d", "Pages that fired in the last 30 days of event time")?,
            pages_retracted: gauge(
                "bellwether_alerts_pages_retracted_30d",
                "Pages of the last 30 days that a correction took back",
            )?,
        })
    }
}
