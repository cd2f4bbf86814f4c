//! `bellwether erase`: removes a subject's rows from every table, then searches all objects for its identifiers as proof.

mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bellwether_aggregate::erase::{EraseProgress, EraseSettings, Erasure, Subject, add_replaced, erase, vacuum};
use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_lake::{Holder, Lake, Scanned};
use bellwether_tables::Table;
use clap::Args;

use crate::evalset;
use crate::exit;
use crate::root::{self, RootArgs};
use crate::status_line::StatusLine;
use report::Report;

/// Rounds of removing the objects that the search found: one round may uncover more run ids.
const ROUNDS: usize = 3;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:
  bellwether erase --root bellwether-data --user-key 9f2c41 --dry-run    list it, and change nothing
  bellwether erase --config bellwether.toml --user-key 9f2c41 --now
  bellwether erase --config bellwether.toml --run-id run-7f3a --source checkout
  bellwether erase --config bellwether.toml --tenant acme --yes

Metrics keep their counts, which name no person; those of an erased tenant go. See --help.",
    after_long_help = "Examples:
  bellwether erase --root bellwether-data --user-key 9f2c41 --dry-run    list it, and change nothing
  bellwether erase --config bellwether.toml --user-key 9f2c41 --now
  bellwether erase --config bellwether.toml --run-id run-7f3a --source checkout
  bellwether erase --config bellwether.toml --tenant acme --yes

A run and the scores, reviews and escalations about it are one subject. Their rows leave
`events`, rejected messages that name the subject leave `quarantine`, and `erased` takes the
place of an identifier in texts of `alerts` and `alert_actions`. Metrics keep their counts.
With --tenant, the tenant's rows leave all tables, metrics included. The command may run
beside everything else; it waits until aggregate has counted the rows. If it is interrupted,
run it again.

The replaced files stay until maintenance removes them (`maintain.keep_replaced`, 2 hours),
and until aggregate has read the erasure. With --now they go at once, together with older
log entries: a reader that has an older version open then reports a missing file.

In the folder of eval sets (--sets), a case that was made of an erased run loses its content
in every version, and stays as a tombstone. Exports that were made earlier, and the history
of a repository that holds the folder, are not changed. Name the folder when you erase a user
or a session: once the rows have gone, only --run-id still finds the cases.

In the end all objects under the root are searched for the identifiers, as whole words:
data files, replaced ones included, log entries and log checkpoints. To verify later, run
the command again.

Not covered: Kafka keeps its messages for as long as the topic's retention says, and
`replay` or a new `kafka.job` brings them back; so do backups. A score or review that
arrives later carries the run id again: erase again.

Exit codes:
  0  nothing of the subject is left, or nothing was found
  2  the command line is invalid
  3  the tables are unreachable, or no aggregator reads `events`
  5  objects that hold the subject are left; the output says which, and until when"
)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Erase a run: all of this id, unless --source or --tenant select one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["user_key", "session_id"])]
    run_id: Option<String>,
    /// Erase the runs of a user, by the key that the producer sends.
    #[arg(long, value_name = "KEY", conflicts_with = "session_id")]
    user_key: Option<String>,
    /// Erase the runs of a session.
    #[arg(long, value_name = "ID")]
    session_id: Option<String>,
    /// Erase everything of a tenant; with --run-id, only that run of this tenant.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["user_key", "session_id"])]
    tenant: Option<String>,
    /// With --run-id, only the run of this source.
    #[arg(long, requires = "run_id")]
    source: Option<String>,
    /// Folder of eval sets, in which cases made of erased runs lose their content [default: evalsets].
    #[arg(long, value_name = "FOLDER", env = "BELLWETHER_EVALSETS")]
    sets: Option<PathBuf>,
    /// List what would be erased, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Confirm that a whole tenant is erased.
    #[arg(long)]
    yes: bool,
    /// Remove replaced files and older log entries at once.
    #[arg(long, conflicts_with = "dry_run")]
    now: bool,
    /// How long to wait for an aggregator that makes no progress.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

// === impl EraseArgs ===

impl EraseArgs {
    /// Returns the subject.
    ///
    /// # Errors
    /// `Config` if none is named, its name is empty, or a whole tenant is not confirmed.
    fn subject(&self) -> Result<Subject> {
        let subject = match (&self.run_id, &self.user_key, &self.session_id, &self.tenant) {
            (Some(run_id), _, _, tenant) => {
                Subject::Run { run_id: run_id.clone(), source: self.source.clone(), tenant: tenant.clone() }
            }
            (_, Some(key), _, _) => Subject::User(key.clone()),
            (_, _, Some(session), _) => Subject::Session(session.clone()),
            (_, _, _, Some(tenant)) => Subject::Tenant(tenant.clone()),
            _ => {
                return Err(Error::config("nothing to erase was named")
                    .with_hint("add --run-id ID, --user-key KEY, --session-id ID or --tenant NAME"));
            }
        };
        if subject.identifiers().any(str::is_empty) {
            return Err(Error::config("the name of what is to be erased is empty")
                .with_hint("rows without a user, session or tenant are not one subject"));
        }
        if let Some(tenant) = subject.tenant_erased().filter(|_| !self.yes && !self.dry_run) {
            return Err(Error::config(format!("erasing tenant `{tenant}` removes all its rows, and its figures too"))
                .with_hint("see what that is with --dry-run, then confirm it with --yes"));
        }
        Ok(subject)
    }
}

pub(crate) async fn run(args: EraseArgs) -> Result<ExitCode> {
    let subject = args.subject()?;
    let folder = sets_in(args.sets.as_deref())?;
    let found = args.root.resolve()?;
    let maintain = found.config.as_ref().map(|config| config.maintain).unwrap_or_default();
    let as_it_is = root::open_to_read(&found.uri, &found.options).await?;
    let lake = if args.dry_run { as_it_is } else { Lake::open(&found.uri, &found.options).await? };
    let line = StatusLine::new();
    let settings = EraseSettings { patience: args.wait, dry_run: args.dry_run };
    let mut erasure = Box::pin(erase(&lake, &subject, settings, |at| show(&line, at))).await?;
    let mut scanned = search(&lake, &subject, &mut erasure, &line).await?;
    // Before the replaced files go, which may be the last to know the runs of a user.
    let sets = folder.map(|folder| evalset::erase::erase(folder, &subject, &erasure, args.dry_run));
    let mut waiting = Vec::new();
    if args.now {
        for _ in 0..ROUNDS {
            let Some(tables) = removable(&scanned) else { break };
            line.show("removing replaced files");
            waiting = Box::pin(vacuum(&lake, &tables, args.wait)).await?;
            remove_unnamed(&lake, &scanned).await?;
            scanned = search(&lake, &subject, &mut erasure, &line).await?;
            if !waiting.is_empty() {
                break;
            }
        }
    }
    line.clear();
    let report =
        Report { subject: &subject, erasure: &erasure, sets: sets.as_ref(), scanned: &scanned, dry_run: args.dry_run };
    let times = report::Times { now_micros: SystemClock.now_micros(), maintain: &maintain };
    crate::print(&format!("{}\n{}", lake.root_display(), report.text(&waiting, times)))?;
    Ok(match scanned.held.is_empty() && sets.is_none_or(|sets| sets.is_clean()) || args.dry_run {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::LEFT),
    })
}

/// Returns the folder of eval sets; none if there is none and none was named.
fn sets_in(named: Option<&Path>) -> Result<Option<&Path>> {
    let usual = Path::new(evalset::FOLDER);
    match named {
        Some(folder) if !folder.is_dir() => {
            Err(Error::config(format!("there is no folder of eval sets `{}`", folder.display()))
                .with_hint("correct --sets; nothing was erased"))
        }
        Some(folder) => Ok(Some(folder)),
        None => Ok(Some(usual).filter(|folder| folder.is_dir())),
    }
}

/// Searches all objects. If replaced files of `events` name further runs of the subject, of an erasure that was interrupted, searches
/// again with their ids.
async fn search(lake: &Lake, subject: &Subject, erasure: &mut Erasure, line: &StatusLine) -> Result<Scanned> {
    let show = |objects: u64| {
        if objects.is_multiple_of(50) {
            line.show(&format!("searched {objects} objects"));
        }
    };
    let scanned = lake.scan(&erasure.tokens(), show).await?;
    let folder = format!("{}/", Table::Events.name());
    let replaced = scanned.held.iter().filter(|held| {
        matches!(held.holder, Holder::Replaced { .. } | Holder::Unnamed { .. }) && held.table == Some(Table::Events)
    });
    let paths: Vec<String> = replaced.filter_map(|held| held.path.strip_prefix(&folder).map(str::to_owned)).collect();
    let known = erasure.identifiers.len();
    Box::pin(add_replaced(lake, subject, &paths, erasure)).await?;
    match erasure.identifiers.len() > known {
        true => lake.scan(&erasure.tokens(), show).await,
        false => Ok(scanned),
    }
}

/// Returns the tables with objects that can be removed; none if there are no such objects.
fn removable(scanned: &Scanned) -> Option<Vec<Table>> {
    let goes = |holder: Holder| matches!(holder, Holder::Replaced { .. } | Holder::Log | Holder::Unnamed { .. });
    let mut tables: Vec<Table> =
        scanned.held.iter().filter(|held| goes(held.holder)).filter_map(|held| held.table).collect();
    tables.sort_unstable();
    tables.dedup();
    (!tables.is_empty()).then_some(tables)
}

/// Removes files that hold the subject and that no commit names.
async fn remove_unnamed(lake: &Lake, scanned: &Scanned) -> Result<()> {
    for table in Table::ALL {
        let folder = format!("{}/", table.name());
        let unnamed = scanned
            .held
            .iter()
            .filter(|held| matches!(held.holder, Holder::Unnamed { .. }) && held.table == Some(table));
        let paths: Vec<String> =
            unnamed.filter_map(|held| held.path.strip_prefix(&folder).map(str::to_owned)).collect();
        lake.remove_unnamed_now(table, &paths).await?;
    }
    Ok(())
}

fn show(line: &StatusLine, at: EraseProgress) {
    match at {
        EraseProgress::Waits { version } => {
            line.show(&format!("waiting until aggregate has read version {version} of events"));
        }
        EraseProgress::Table(table) => line.show(table.name()),
    }
}
