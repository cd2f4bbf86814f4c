//! The parts of the bench, each a file of its own.

mod commits;
mod flow;
mod freshness;
mod idle;
mod late;
mod peers;
mod rooms;
mod watch;
mod whole;
mod workers;

use bellwether_base::Result;
use clap::ValueEnum;

use crate::Bench;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// From JSON text to rows
    Decode,
    /// From rows to durable Parquet files
    Parquet,
    /// From rows of `events` to rows of `metrics`
    Aggregate,
    /// From a topic to committed `events` and `metrics`, and its halves; memory at full speed
    Whole,
    /// From sent to visible in `metrics`, under live traffic
    Freshness,
    /// CPU and memory with nothing to do
    Idle,
    /// Two workers on one topic against one
    Workers,
    /// What a commit costs after thousands of them
    Commits,
    /// A tick of all shipped rules over thousands of series
    Watch,
    /// Late outcomes: the index of runs, verdicts within and beyond its horizon, a standby that takes over
    Late,
    /// Side by side with other stream processors on one topic
    Peers,
}

impl Part {
    pub(crate) fn all() -> &'static [Self] {
        Self::value_variants()
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
            Self::Late => "late",
            Self::Peers => "peers",
        }
    }

    fn needs_a_broker(self) -> bool {
        matches!(self, Self::Whole | Self::Freshness | Self::Idle | Self::Workers | Self::Peers)
    }

    /// Measures, or says why it cannot.
    ///
    /// # Errors
    /// Fails if what is measured fails.
    pub(crate) async fn run(self, bench: &mut Bench) -> Result<()> {
        eprintln!("{}:", self.name());
        if self.needs_a_broker() && bench.broker.is_none() {
            let why = "it needs a Kafka broker: `make bench` starts one where Java 17 and Maven are \
                       (`scripts/setup system` installs them); or set BELLWETHER_TEST_KAFKA=HOST:PORT";
            bench.report.skip(self.name(), why.to_owned());
            return Ok(());
        }
        match self {
            Self::Decode => rooms::decode(bench),
            Self::Parquet => Box::pin(rooms::parquet(bench)).await,
            Self::Aggregate => Box::pin(rooms::aggregate(bench)).await,
            Self::Whole => Box::pin(whole::run(bench)).await,
            Self::Freshness => Box::pin(freshness::run(bench)).await,
            Self::Idle => idle::run(bench),
            Self::Workers => Box::pin(workers::run(bench)).await,
            Self::Commits => Box::pin(commits::run(bench)).await,
            Self::Watch => Box::pin(watch::run(bench)).await,
            Self::Late => Box::pin(late::run(bench)).await,
            Self::Peers => Box::pin(peers::run(bench)).await,
        }
    }
}
