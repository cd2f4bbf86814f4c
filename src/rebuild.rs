//! `bellwether rebuild`: everything downstream of `events` anew.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use bellwether_lake::{Lake, Result, StorageOptions};
use tokio_util::sync::CancellationToken;

use crate::cli::RebuildArgs;
use crate::config::Config;
use crate::roles;

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
    let told = |rows: u64| {
        if terminal {
            // Where standard error is closed there is nobody to tell.
            drop(write!(std::io::stderr(), "\r\x1b[Krows read: {rows}"));
        }
    };
    let rebuilt =
        Box::pin(bellwether_aggregate::rebuild(&lake, roles::aggregate_settings(&config), told, &stop)).await?;
    if terminal {
        drop(write!(std::io::stderr(), "\r\x1b[K"));
    }
    crate::print(&format!(
        "`metrics` and `releases` were made anew from {} rows of `events`, up to version {}, for {} shards (rebuild {})",
        rebuilt.rows,
        rebuilt.events_version - 1,
        rebuilt.shards,
        rebuilt.generation
    ))
}
