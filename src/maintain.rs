//! `bellwether maintain`: does what the role `maintain` does, at once and until nothing is left, and reports it.

use std::process::ExitCode;

use bellwether_aggregate::PartialsFold;
use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_lake::{Act, Amount, Lake, MaintainSettings, Maintained, Waits};
use bellwether_tables::Table;
use clap::Args;

use crate::root::{self, RootArgs};
use crate::status_line::StatusLine;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether maintain --root bellwether-data --dry-run     list what is due, and change nothing
  bellwether maintain --config bellwether.toml

`bellwether run` does the same in the background. Nothing is removed that a follower has still to
read, or that is younger than `maintain.keep_replaced`.")]
pub(crate) struct MaintainArgs {
    #[command(flatten)]
    root: RootArgs,
    /// List what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Remove more than a week of expired rows at once, as after `[retention]` was shortened.
    #[arg(long)]
    confirm_retention: bool,
}

pub(crate) async fn run(args: MaintainArgs) -> Result<ExitCode> {
    let found = args.root.resolve()?;
    let config = found.config.as_ref();
    let settings = config.map(|config| config.maintain).unwrap_or_default();
    let retention = config.map(|config| config.retention).unwrap_or_default();
    let as_it_is = root::open_to_read(&found.uri, &found.options).await?;
    let lake = if args.dry_run { as_it_is } else { Lake::open(&found.uri, &found.options).await? };
    let mut text = match args.dry_run {
        true => format!("{} (dry run: nothing is changed)\n", lake.root_display()),
        false => format!("{}\n", lake.root_display()),
    };
    let line = StatusLine::new();
    let mut failed: Option<Error> = None;
    for table in Table::ALL {
        let work = async {
            let mut done = match args.dry_run {
                true => Box::pin(lake.plan_maintenance(table, &settings)).await?,
                false => Box::pin(maintain(&lake, table, &settings, &line)).await?,
            };
            if let Some(keep) = retention.of(table) {
                let act = if args.dry_run { Act::Plan } else { Act::Do };
                let expired = Box::pin(lake.retain(table, keep, args.confirm_retention, act)).await?;
                done.add(Maintained { waits: done.waits, ..expired });
            }
            Ok::<_, Error>(done)
        };
        match work.await {
            Ok(done) => text.push_str(&report(table, &done, args.dry_run, SystemClock.now_micros())),
            Err(error) => {
                text.push_str(&format!("{}\n  failed            {}\n", table.name(), error.message()));
                failed.get_or_insert(error);
            }
        }
    }
    line.clear();
    crate::print(&text)?;
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Maintains a table until nothing is left to do.
async fn maintain(lake: &Lake, table: Table, settings: &MaintainSettings, line: &StatusLine) -> Result<Maintained> {
    let mut all = Maintained::default();
    loop {
        let (files, entries) = (all.files_compacted, all.log.count);
        line.show(&format!("{}: {files} files rewritten, {entries} log entries removed", table.name()));
        let mut done = lake.maintain_with(table, settings, Some(&PartialsFold)).await?;
        let cleaned = lake.clean_up(table, settings, Act::Do).await?;
        done.add(cleaned);
        all.add(done);
        if !done.is_some() {
            break;
        }
    }
    all.unnamed = lake.remove_unnamed(table, settings, Act::Do).await?;
    Ok(all)
}

/// Describes what was done to a table, or is to be done.
fn report(table: Table, done: &Maintained, dry_run: bool, now_micros: i64) -> String {
    let say = |does: &str, did: &str| if dry_run { format!("would {does}") } else { did.to_owned() };
    let mut lines: Vec<(String, String)> = Vec::new();
    if done.files_compacted > 0 {
        let bytes = bytes(u64::try_from(done.bytes_compacted).unwrap_or(0));
        lines.push((say("rewrite", "rewrote"), format!("{} small files ({bytes})", done.files_compacted)));
    }
    if done.rows_folded > 0 {
        lines.push(("folded".to_owned(), format!("partial rows: {} fewer", done.rows_folded)));
    }
    if done.checkpointed {
        lines.push((say("write", "wrote"), "a log checkpoint".to_owned()));
    }
    let amounts = [
        (done.log, "old log entries and checkpoints"),
        (done.replaced, "replaced files"),
        (done.unnamed, "files that no commit names"),
    ];
    if done.expired.count > 0 {
        let (Amount { count, bytes: size }, rows) = (done.expired, done.expired_rows);
        let what = format!("{count} files with {rows} expired rows ({})", bytes(size));
        lines.push((say("remove", "removed"), what));
    }
    if done.refused_days > 0 {
        let what = format!("to remove {} days of rows at once; add --confirm-retention", done.refused_days);
        lines.push(("refuses".to_owned(), what));
    }
    for (Amount { count, bytes: size }, what) in amounts.into_iter().filter(|(amount, _)| amount.count > 0) {
        lines.push((say("remove", "removed"), format!("{count} {what} ({})", bytes(size))));
    }
    if let Some(waits) = done.waits {
        lines.push(("waits".to_owned(), waits_for(waits, now_micros)));
    } else if lines.is_empty() {
        lines.push(("nothing to do".to_owned(), String::new()));
    }
    let mut text = format!("{}\n", table.name());
    for (what, of) in lines {
        text.push_str(format!("  {what:<16}  {of}").trim_end());
        text.push('\n');
    }
    text
}

fn waits_for(waits: Waits, now_micros: i64) -> String {
    match waits {
        Waits::Follower { name, version: 0 } => format!("for {name}, which has not read anything yet"),
        Waits::Follower { name, version } => format!("for {name}, which reads version {version} next"),
        Waits::Clock { until_micros, moved_micros } => {
            let minutes = (until_micros - now_micros).max(0) / 60_000_000 + 1;
            match moved_micros {
                None => format!("{minutes} minutes: how much time has passed is known from the first round on"),
                Some(moved) => {
                    let days = moved / 86_400_000_000;
                    format!("{minutes} minutes: the clock moved by {days} days since the last round, and may be wrong")
                }
            }
        }
    }
}

/// Describes a number of bytes.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_due_and_what_it_waits_for() {
        let due = Maintained {
            checkpointed: true,
            files_compacted: 64,
            bytes_compacted: 3 << 20,
            rows_folded: 0,
            log: Amount { count: 200, bytes: 2048 },
            replaced: Amount { count: 64, bytes: 3 << 20 },
            unnamed: Amount { count: 1, bytes: 10 },
            expired: Amount { count: 3, bytes: 2048 },
            expired_rows: 500,
            refused_days: 30,
            waits: Some(Waits::Follower { name: "aggregate", version: 12 }),
        };
        let expected = "events
  would rewrite     64 small files (3.0 MiB)
  would write       a log checkpoint
  would remove      3 files with 500 expired rows (2.0 KiB)
  refuses           to remove 30 days of rows at once; add --confirm-retention
  would remove      200 old log entries and checkpoints (2.0 KiB)
  would remove      64 replaced files (3.0 MiB)
  would remove      1 files that no commit names (10 B)
  waits             for aggregate, which reads version 12 next
";
        assert_eq!(report(Table::Events, &due, true, 0), expected);
        assert!(report(Table::Events, &due, true, 0).lines().all(|line| line.chars().count() <= 80));
        let idle = Maintained::default();
        assert_eq!(report(Table::Alerts, &idle, false, 0), "alerts\n  nothing to do\n");
        let waits = |moved_micros| Maintained {
            waits: Some(Waits::Clock { until_micros: 3_600_000_000, moved_micros }),
            ..idle
        };
        let jumped = report(Table::Alerts, &waits(Some(365 * 86_400_000_000)), false, 0);
        assert!(jumped.contains("61 minutes: the clock moved by 365 days"), "{jumped}");
        assert!(report(Table::Alerts, &waits(None), false, 0).contains("61 minutes: how much time"));
    }

    #[test]
    fn bytes_have_a_unit() {
        let shown = [0, 1023, 1024, 1_572_864, 5 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB"]);
    }
}
