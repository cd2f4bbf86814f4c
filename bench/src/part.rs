//! The parts of the benchmark, one file each.

mod commits;
mod crates;
mod flow;
mod freshness;
mod groups;
mod history;
mod idle;
mod late;
mod page;
mod peers;
mod watch;
mod whole;
mod workers;
mod years;

use bellwether_base::Result;
use clap::ValueEnum;

use crate::Bench;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From JSON text to rows
    Decode,
    /// From rows to durable Parquet files
    Parquet,
    /// From rows of `events` to rows of `metrics`
    Aggregate,
    /// From a topic to committed `events` and `metrics`, and both halves alone; memory at full speed
    Whole,
    /// From sending to visibility in `metrics`, under live traffic
    Freshness,
    /// CPU and memory with nothing to do
    Idle,
    /// Two workers on one topic compared with one
    Workers,
    /// Cost of a commit after thousands of commits
    Commits,
    /// A tick of all shipped rules over thousands of series
    Watch,
    /// From the transition of an alert to its delivery, and from the event that completes the evidence to the page
    Page,
    /// Late outcomes: the run index, verdicts within and beyond its horizon, takeover by a standby
    Late,
    /// Thousands of groups: aggregate, catching up, live traffic, the watcher
    Groups,
    /// Years of history: long spans beside DuckDB, one run of millions, a day of commits a second
    Years,
    /// Comparison with other stream processors on one topic
    Peers,
    /// The watcher of `groups`, which starts this part in a process of its own
    #[value(hide = true)]
    WatchAlone,
}

impl Part {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().iter().copied().filter(|part| *part != Self::WatchAlone).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Parquet => "parquet",
            Self::Aggregate => "aggregate",
            Self::Whole => "whole",
            Self::Freshness => "freshness",
            Self::Idle => "idle",
            Self::Workers => "workers",
            Self::Commits => "commits",
            Self::Watch => "watch",
            Self::Page => "page",
            Self::Late => "late",
            Self::Groups => "groups",
            Self::Years => "years",
            Self::Peers => "peers",
            Self::WatchAlone => "watch-alone",
        }
    }

    fn needs_a_broker(self) -> bool {
        matches!(self, Self::Whole | Self::Freshness | Self::Idle | Self::Workers | Self::Page | Self::Peers)
    }

    /// Measures the part, or records why it was skipped.
    ///
    /// # Errors
    /// Fails if the measured program fails.
    pub(crate) async fn run(self, bench: &mut Bench) -> Result<()> {
        eprintln!("{}:", self.name());
        if self.needs_a_broker() && bench.broker.is_none() {
            let why = "needs a Kafka broker: `make bench` starts one if Java 17 and Maven are installed \
                       (`scripts/setup system` installs them); or set BELLWETHER_TEST_KAFKA=HOST:PORT";
            bench.report.skip(self.name(), why.to_owned());
            return Ok(());
        }
        match self {
            Self::Decode => crates::decode(bench),
            Self::Parquet => Box::pin(crates::parquet(bench)).await,
            Self::Aggregate => Box::pin(crates::aggregate(bench)).await,
            Self::Whole => Box::pin(whole::run(bench)).await,
            Self::Freshness => Box::pin(freshness::run(bench)).await,
            Self::Idle => idle::run(bench),
            Self::Workers => Box::pin(workers::run(bench)).await,
            Self::Commits => Box::pin(commits::run(bench)).await,
            Self::Watch => Box::pin(watch::run(bench)).await,
            Self::Page => Box::pin(page::run(bench)).await,
            Self::Late => Box::pin(late::run(bench)).await,
            Self::Groups => Box::pin(groups::run(bench)).await,
            Self::Years => Box::pin(years::run(bench)).await,
            Self::Peers => Box::pin(peers::run(bench)).await,
            Self::WatchAlone => Box::pin(watch::alone(bench)).await,
        }
    }
}
