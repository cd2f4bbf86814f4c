//! `bellwether rebuild`: recomputes `metrics` and `releases` from `events`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use bellwether_base::Result;
use bellwether_lake::{Lake, StorageOptions};
use tokio_util::sync::CancellationToken;

use crate::cli::RebuildArgs;
use crate::config::Config;

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
    let terminal = std::io::stderr().is_terminal();
    let show = |rows: u64| {
        if terminal {
            drop(write!(std::io::stderr(), "\r\x1b[Krows read: {rows}")); // Progress is optional: a closed pipe is fine.
        }
    };
    let rebuilt = Box::pin(bellwether_aggregate::rebuild(&lake, config.aggregate.settings, show, &stop)).await?;
    if terminal {
        drop(write!(std::io::stderr(), "\r\x1b[K"));
    }
    crate::print(&format!(
        "rebuilt `metrics` and `releases` from {} rows of `events`, up to version {}, for {} shards (rebuild {})",
        rebuilt.rows,
        rebuilt.events_version - 1,
        rebuilt.shards,
        rebuilt.generation
    ))
}
