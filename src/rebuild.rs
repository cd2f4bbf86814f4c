//! `bellwether rebuild`: recomputes `metrics` and `releases` from `events`, the roll-ups from `metrics`, and samples for review.

use std::process::ExitCode;

use bellwether_aggregate::rollup::{self, Rollup};
use bellwether_base::{Error, Result};
use bellwether_evals::Sample;
use bellwether_follow::{FollowHealth, Until};
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::cli::RebuildArgs;
use crate::config::Config;
use crate::status_line::StatusLine;

pub(crate) async fn run(args: &RebuildArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let line = StatusLine::new();
    let show = |rows: u64| line.show(&format!("rows read: {rows}"));
    let rebuilt = Box::pin(bellwether_aggregate::rebuild(&lake, config.aggregate.settings, show, &stop)).await?;
    line.clear();
    let roll_up = Rollup { settings: config.rollup, ..Rollup::new(lake.clone()) };
    Box::pin(rollup::run(roll_up, Registry::new(), Until::caught_up(), stop.clone())).await?;
    if stop.is_cancelled() {
        return Err(Error::unavailable(
            "the rebuild was stopped: `metrics` and `releases` are rebuilt, the roll-ups are not",
        )
        .with_hint("a running role `rollup` makes them again, as does `bellwether rollup --until-caught-up`"));
    }
    let sample = Sample { settings: config.evals.sampler, lake, health: FollowHealth::default() };
    let changed = Box::pin(bellwether_evals::resample(sample, &Registry::new())).await?;
    crate::print(&format!(
        "rebuilt `metrics`, its roll-ups and `releases` from {} rows of `events`, up to version {}, for {} shards (rebuild {}); rows added to `candidates`: {changed}",
        rebuilt.rows,
        rebuilt.events_version - 1,
        rebuilt.shards,
        rebuilt.generation
    ))
}
