//! Prometheus metrics of the watcher.

use bellwether_base::{Error, Result};
use bellwether_follow::FollowMetrics;
use bellwether_tables::Table;
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Counters and gauges of the watcher. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) follow: FollowMetrics,
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
    pub(crate) complete_to: IntGauge,
    pub(crate) rebuilds: IntCounter,
    pub(crate) too_late: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) judged_again: IntCounter,
    pub(crate) pages_budget: Gauge,
    pub(crate) pages_spent: Gauge,
    pub(crate) pages: IntGauge,
    pub(crate) pages_retracted: IntGauge,
    pub(crate) feedback: IntGaugeVec,
    pub(crate) precision: GaugeVec,
}

// === impl Metrics ===

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self> {
        let wrong =
            |source: prometheus::Error| Error::bug("a metric of the watcher cannot be registered").with_source(source);
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
            follow: FollowMetrics::register(registry, "watch", Table::Metrics, None)?,
            evaluations: counter("bellwether_watch_evaluations_total", "Evaluations of all rules")?,
            seconds: float("bellwether_watch_evaluation_seconds", "Duration of the last evaluation")?,
            transitions: made!(IntCounterVec::new(
                Opts::new("bellwether_watch_transitions_total", "Transitions of alerts"),
                &["severity", "state"]
            )),
            firing: made!(IntGaugeVec::new(Opts::new("bellwether_alerts_firing", "Firing alerts"), &["severity"])),
            stale: gauge("bellwether_alerts_stale", "Firing alerts whose series has had no data since")?,
            rules: gauge("bellwether_watch_rules", "Rules that are evaluated")?,
            broken: gauge("bellwether_watch_rules_broken", "Rules that cannot be read or fail again and again")?,
            rule_failures: made!(IntCounterVec::new(
                Opts::new("bellwether_watch_rule_failures_total", "Failed evaluations of a rule"),
                &["rule"]
            )),
            rule_failing: made!(IntGaugeVec::new(
                Opts::new(
                    "bellwether_watch_rule_failing",
                    "Failed evaluations of a rule since the last one that worked"
                ),
                &["rule"]
            )),
            given_up: made!(IntGaugeVec::new(
                Opts::new("bellwether_watch_rule_rows_given_up", "Rows that a rule could not judge after all attempts"),
                &["rule"]
            )),
            series: gauge("bellwether_watch_series", "Series that rules judge")?,
            complete_to: gauge("bellwether_watch_complete_to_seconds", "Event time up to which windows are complete")?,
            rebuilds: counter("bellwether_watch_rebuilds_total", "Rebuilds of state from the tables")?,
            too_late: gauge(
                "bellwether_watch_too_late",
                "Corrections of windows that are no longer in memory, since the watcher opened",
            )?,
            waiting: gauge(
                "bellwether_watch_series_waiting",
                "Series of rules that wait to be judged again from the tables",
            )?,
            judged_again: counter(
                "bellwether_watch_series_judged_again_total",
                "Series of rules that were judged again from the tables",
            )?,
            pages_budget: float("bellwether_alerts_false_pages_budget", "Allowed false pages a month")?,
            pages_spent: float(
                "bellwether_alerts_false_pages_bound",
                "Bound on the false pages of this month, by the thresholds in use",
            )?,
            pages: gauge("bellwether_alerts_pages_30d", "Pages fired in the last 30 days of event time")?,
            pages_retracted: gauge(
                "bellwether_alerts_pages_retracted_30d",
                "Pages of the last 30 days that a correction retracted",
            )?,
            feedback: made!(IntGaugeVec::new(
                Opts::new("bellwether_alerts_feedback", "Firings of a rule that people have judged"),
                &["rule", "verdict"]
            )),
            precision: made!(GaugeVec::new(
                Opts::new("bellwether_alerts_precision", "Share of a rule's judged firings that were useful"),
                &["rule"]
            )),
        })
    }
}
