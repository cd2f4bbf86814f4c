//! `bellwether replay`: sends recorded events to Kafka or writes them directly to the tables, with progress.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bellwether_base::{Error, Result, SystemClock, unique_id};
use bellwether_ingest::replay::{self, Pace, Progress, ToKafka, ToTables};
use bellwether_ingest::worker::CommitObserver;
use bellwether_ingest::{IngestHealth, IngestMetrics};
use bellwether_lake::{Lake, StorageOptions};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::cli::{Destination, ReplayArgs};
use crate::config::Config;
use crate::exit;

/// Reports per line of progress if standard error is not a terminal; there are two reports per second.
const REPORTS_A_LINE: u64 = 10;

pub(crate) async fn run(args: &ReplayArgs) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    replay::readable(&args.files)?;
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let progress = match args.to {
        Destination::Tables => Box::pin(into_tables(args, &config, stop.clone())).await?,
        Destination::Kafka => to_kafka(args, &config, stop.clone()).await?,
    };
    crate::print(&summary(args.to, &progress, stop.is_cancelled()))?;
    Ok(if progress.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// Returns the last line: how many events were read, accepted and rejected.
fn summary(to: Destination, progress: &Progress, stopped: bool) -> String {
    let ended = if stopped { "stopped" } else { "done" };
    let (accepted, why) = match to {
        Destination::Tables => ("accepted", " (reasons: `SELECT * FROM quarantine_summary`)"),
        Destination::Kafka => ("sent", " (reasons: see the warnings above)"),
    };
    let why = if progress.rejected > 0 { why } else { "" };
    let mut text = format!(
        "{ended}: {} events read in {:.1} s, {} {accepted}, {} rejected{why}",
        progress.read,
        seconds(progress),
        progress.done,
        progress.rejected
    );
    if progress.known > 0 {
        text.push_str(&format!(", {} skipped as already replayed", progress.known));
    }
    text
}

async fn into_tables(args: &ReplayArgs, config: &Config, stop: CancellationToken) -> Result<Progress> {
    if args.rate.is_some() || args.as_recorded || args.speed.is_some() || args.shift_to_now {
        return Err(Error::config("--rate, --as-recorded, --speed and --shift-to-now require --to kafka")
            .with_hint("remove them, or use --to kafka"));
    }
    let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
    let observer = CommitObserver {
        metrics: IngestMetrics::register(&Registry::new())?,
        health: IngestHealth::default(),
        clock: lake.clock(),
    };
    let (limits, redactor, flush) = (config.limits, Arc::clone(&config.redactor), &config.kafka.flush);
    let tables = ToTables { lake: &lake, limits, redactor, flush, observer: Arc::new(observer), stop };
    Box::pin(tables.run(&args.files, progress_printer())).await
}

async fn to_kafka(args: &ReplayArgs, config: &Config, stop: CancellationToken) -> Result<Progress> {
    let pace = match (args.rate, args.speed, args.as_recorded) {
        (Some(rate), ..) => Pace::Rate(positive("--rate", rate)?),
        (None, Some(speed), _) => Pace::Recorded(positive("--speed", speed)?),
        (None, None, true) => Pace::Recorded(1.0),
        (None, None, false) => Pace::Fastest,
    };
    let target = ToKafka { pace, shift_to_now: args.shift_to_now, ..target(config)? };
    let files = args.files.clone();
    send(files, target, stop, progress_printer()).await
}

/// Returns the first topic of a configuration as a target, without a pace.
fn target(config: &Config) -> Result<ToKafka> {
    let topic = config
        .kafka
        .topics
        .first()
        .cloned()
        .ok_or_else(|| Error::config("`kafka.topics` is empty").with_hint("name at least one topic"))?;
    let client = replay::producer_config(&config.kafka.brokers, &config.kafka.properties);
    Ok(ToKafka { client, login: config.kafka.login.clone(), topic, pace: Pace::Fastest, shift_to_now: false })
}

async fn send(
    files: Vec<PathBuf>,
    target: ToKafka,
    stop: CancellationToken,
    report: impl FnMut(&Progress) + Send + 'static,
) -> Result<Progress> {
    tokio::task::spawn_blocking(move || replay::to_kafka(&files, target, &SystemClock, &stop, report))
        .await
        .map_err(|source| Error::bug("the replay panicked").with_source(source))?
}

/// Sends events, each a line of JSON, to the first topic of a configuration in their order, and waits until the broker has them.
///
/// # Errors
/// `Unavailable` if the broker does not accept them.
pub(crate) async fn publish(config: &Config, events: &[String]) -> Result<()> {
    let file = std::env::temp_dir().join(format!("bellwether-event-{}.jsonl", unique_id()));
    std::fs::write(&file, format!("{}\n", events.join("\n")))
        .map_err(|source| Error::unavailable("cannot write a temporary file").with_source(source))?;
    let sent = send(vec![file.clone()], target(config)?, CancellationToken::new(), |_| ()).await;
    std::fs::remove_file(&file).ok();
    match sent?.done == events.len() as u64 {
        true => Ok(()),
        false => Err(Error::unavailable("the broker did not accept the event")),
    }
}

fn positive(name: &str, number: f64) -> Result<f64> {
    if number.is_finite() && number > 0.0 {
        return Ok(number);
    }
    Err(Error::config(format!("{name} is `{number}`")).with_hint("give a number greater than zero"))
}

#[expect(clippy::cast_precision_loss, reason = "for display only")]
fn seconds(progress: &Progress) -> f64 {
    progress.elapsed_micros as f64 / 1e6
}

/// Returns a callback that prints progress on standard error: one updating line on a terminal, occasional lines elsewhere.
fn progress_printer() -> impl FnMut(&Progress) + Send {
    let terminal = std::io::stderr().is_terminal();
    let mut reports = 0_u64;
    move |progress| {
        reports += 1;
        #[expect(clippy::cast_precision_loss, reason = "for display only")]
        let rate = progress.done as f64 / seconds(progress).max(0.001);
        let text = format!(
            "read {:>9}  done {:>9}  rejected {:>6}  {:>8.1} MB  {rate:>8.0} events/s",
            progress.read,
            progress.done,
            progress.rejected,
            progress.bytes as f64 / 1e6,
        );
        let mut stderr = std::io::stderr();
        // Progress is optional: a closed standard error is fine.
        if terminal {
            drop(write!(stderr, "\r{text}"));
        } else if reports.is_multiple_of(REPORTS_A_LINE) {
            drop(writeln!(stderr, "{text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_every_event() {
        let progress = Progress { read: 10, done: 8, rejected: 2, known: 0, bytes: 1, elapsed_micros: 1_500_000 };
        assert_eq!(
            summary(Destination::Tables, &progress, false),
            "done: 10 events read in 1.5 s, 8 accepted, 2 rejected (reasons: `SELECT * FROM quarantine_summary`)"
        );
        let again = Progress { read: 0, done: 0, rejected: 0, known: 10, ..progress };
        assert_eq!(
            summary(Destination::Kafka, &again, true),
            "stopped: 0 events read in 1.5 s, 0 sent, 0 rejected, 10 skipped as already replayed"
        );
    }
}
