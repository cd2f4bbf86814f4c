//! Erasure: removes a subject's rows from every table. The figures stay, exactly.
//!
//! `metrics` = its definition over `events` + erased contributions, bit for bit, before and after any kill. In this order:
//!
//! 1. Everything that is to be erased is in `metrics` (`waiting`), so that later nothing is counted that is gone.
//! 2. The subject is found (`subject`), and its identifiers leave `quarantine`, `alerts`, `deliveries`, `alert_actions` and `candidates` (`edits`): once the runs are gone,
//!    nothing says any more which identifiers they were.
//! 3. The loss of `metrics` by the erasure is computed (`contributions`) and stored, under a number that nothing names yet.
//! 4. One commit takes the rows out of `events` and names that number. It is fenced by any rows about the subject, or its runs, that
//!    were added since step 1; then all starts over. So a statement about a run is either counted and erased, or later than the
//!    erasure: then it is a statement without a run, as after retention.
//! 5. A sampler may have read `events` before, and add a candidate of an erased run later. `candidates` is therefore edited once more, in
//!    a commit that takes the number of the sampler's next one, even if there is nothing to edit: the sampler is fenced, reads the
//!    erasure and draws again.
//! 6. For a tenant, the rows of the other tables follow.
//!
//! `vacuum` removes the replaced files at once.

mod contributions;
mod edits;
mod subject;
mod vacuum;
mod waiting;

use std::collections::HashSet;
use std::time::Duration;

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Advance, CommitLog, Edit, Lake, Rewriting, Snapshot, Tokens};
use bellwether_tables::{AppId, Table};

use edits::{AlertsEdit, CandidatesEdit, QuarantineEdit, TenantEdit};
use subject::Found;
pub use subject::Subject;
pub use vacuum::{Waiting, vacuum};

/// Attempts to commit before the command gives up: each loses only against another commit.
const ATTEMPTS: usize = 50;

/// Determines how an erasure proceeds.
#[derive(Clone, Copy, Debug)]
pub struct EraseSettings {
    /// How long it waits for an aggregator that makes no progress.
    pub patience: Duration,
    /// Only find out what would be done.
    pub dry_run: bool,
}

/// The rows erased from one table, or to be erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedFrom {
    /// Rows that were removed.
    pub rows: u64,
    /// Rows in which an identifier was replaced.
    pub changed: u64,
    /// Files that were written again, or that held nothing else.
    pub files: u64,
}

/// The outcome of an erasure.
#[derive(Clone, Debug, Default)]
pub struct Erasure {
    /// By table; tables without a row of the subject are left out.
    pub tables: Vec<(Table, ErasedFrom)>,
    /// Runs of the subject.
    pub runs: u64,
    /// Other statements about them.
    pub statements: u64,
    /// The subject's identifiers: those given, and the ids of its runs.
    pub identifiers: HashSet<String>,
    /// Its runs. Others may have their ids.
    pub owned: HashSet<OwnedRun>,
}

/// A run, as it is identified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedRun {
    /// Empty without a tenant.
    pub tenant: String,
    pub source: String,
    pub run_id: String,
}

/// The progress that the commit of an edit records besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// The number of tenants erased so far, unless the table has it.
    Tenants(i64),
    /// The number of the sampler's next commit. It is recorded even if no row is edited.
    Sampler,
}

/// A step of an erasure, for a progress line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraseProgress {
    /// It waits until aggregate has read this version of `events`.
    Waits {
        /// Version.
        version: i64,
    },
    /// It works on a table.
    Table(Table),
}

// === impl Erasure ===

impl Erasure {
    /// Prepares the identifiers for a search.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(self.identifiers.iter().map(String::as_str))
    }

    /// Adds the runs of a subject.
    fn note(&mut self, found: &Found) {
        self.identifiers.extend(found.run_ids().map(str::to_owned));
        self.owned.extend(found.owned());
    }

    fn add(&mut self, table: Table, more: ErasedFrom) {
        if more == ErasedFrom::default() {
            return;
        }
        match self.tables.iter_mut().find(|(known, _)| *known == table) {
            Some((_, of)) => {
                of.rows += more.rows;
                of.changed += more.changed;
                of.files += more.files;
            }
            None => self.tables.push((table, more)),
        }
    }
}

// === impl Mark ===

impl Mark {
    /// Returns what a commit on a snapshot is to record; none if the snapshot has it.
    fn advance(self, on: &Snapshot) -> Option<Advance> {
        let advance = |app: AppId, next: &dyn Fn(i64) -> i64| {
            let app_id = app.to_string();
            let expected = on.next(&app_id);
            Advance { expected, app_id, next: next(expected.unwrap_or(0)) }
        };
        match self {
            Self::Nothing => None,
            Self::Tenants(number) => Some(advance(AppId::ErasedTenants, &|_| number))
                .filter(|advance| advance.expected.is_none_or(|known| known < number)),
            Self::Sampler => Some(advance(AppId::Evals, &|known| known + 1)),
        }
    }
}

/// Removes a subject from every table. Calls `progress` before each part.
///
/// # Errors
/// `Unavailable` if storage does not answer, or no aggregator reads `events`; `Config` if `delta.appendOnly` forbids it; `Data` if a
/// file is unreadable or has columns of a later version. It can be run again after any error.
pub async fn erase(
    lake: &Lake,
    subject: &Subject,
    settings: EraseSettings,
    mut progress: impl FnMut(EraseProgress),
) -> Result<Erasure> {
    let mut erasure = Erasure::default();
    erasure.identifiers.extend(subject.identifiers().map(str::to_owned));
    for _ in 0..ATTEMPTS {
        let (on, files) = lake.snapshot_with_files(Table::Events).await?;
        progress(EraseProgress::Table(Table::Events));
        let found = match Box::pin(Found::of(lake, subject.clone(), &files)).await {
            Err(error) if is_outdated(lake, &on, Table::Events, &error).await => continue,
            found => found?,
        };
        erasure.note(&found);
        if !found.is_empty() && !settings.dry_run {
            waiting::until_read(lake, on.version, settings.patience, &mut progress).await?;
        }
        let tokens = erasure.tokens();
        let quarantine = QuarantineEdit(tokens.clone());
        let done = from_table(lake, Table::Quarantine, &quarantine, settings, &mut progress, Mark::Nothing).await?;
        erasure.add(Table::Quarantine, done);
        let alerts = AlertsEdit { tokens, tenant: subject.tenant_erased().map(str::to_owned) };
        for table in [Table::Alerts, Table::Deliveries, Table::AlertActions] {
            let done = from_table(lake, table, &alerts, settings, &mut progress, Mark::Nothing).await?;
            erasure.add(table, done);
        }
        let candidates =
            CandidatesEdit { tokens: erasure.tokens(), tenant: subject.tenant_erased().map(str::to_owned) };
        let done = from_table(lake, Table::Candidates, &candidates, settings, &mut progress, Mark::Nothing).await?;
        erasure.add(Table::Candidates, done);
        if let Some(tenant) = subject.tenant_erased() {
            // An aggregator reads this table again when it sees the erasure, so that the tenant's later releases are new to it.
            let edit = TenantEdit::all(tenant);
            let done = from_table(lake, Table::Releases, &edit, settings, &mut progress, Mark::Nothing).await?;
            erasure.add(Table::Releases, done);
        }
        let (done, next) = match Box::pin(from_events(lake, subject, &on, &files, &found, settings)).await {
            Ok(Some(done)) => done,
            Ok(None) => continue,
            Err(error) if is_outdated(lake, &on, Table::Events, &error).await => continue,
            Err(error) => return Err(error),
        };
        erasure.add(Table::Events, done);
        // Of a subject that is unknown, nothing changes.
        let mark = if found.is_empty() { Mark::Nothing } else { Mark::Sampler };
        let done = from_table(lake, Table::Candidates, &candidates, settings, &mut progress, mark).await?;
        erasure.add(Table::Candidates, done);
        (erasure.runs, erasure.statements) = (found.runs(), found.statements());
        if let Some(tenant) = subject.tenant_erased() {
            Box::pin(from_derived(lake, tenant, next, settings, &mut erasure, &mut progress)).await?;
        }
        return Ok(erasure);
    }
    Err(contended(Table::Events))
}

/// Adds the runs of a subject in files of `events` that no version names any more, but that still exist.
///
/// # Errors
/// `Unavailable` if storage does not answer.
pub async fn add_replaced(lake: &Lake, subject: &Subject, paths: &[String], erasure: &mut Erasure) -> Result<()> {
    for path in paths {
        let file = AddedFile {
            path: path.clone(),
            size: 0,
            rows: None,
            partition_values: std::collections::BTreeMap::new(),
            data_change: true,
            stats: None,
        };
        match Found::runs_in(lake, subject, &[file]).await {
            Ok(found) => erasure.note(&found),
            // Removed meanwhile, or no file of this program.
            Err(error) if error.kind() != ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns true if an error may come from a file that left the table since the snapshot: another erasure removes replaced files at once.
async fn is_outdated(lake: &Lake, on: &Snapshot, table: Table, error: &Error) -> bool {
    error.kind() == ErrorKind::Data && lake.log(table).load().await.is_ok_and(|newest| newest.version != on.version)
}

/// Takes the subject out of `events`, and keeps what it contributed to `metrics`. Returns what was done, and the version after it;
/// none if all is to start over.
async fn from_events(
    lake: &Lake,
    subject: &Subject,
    on: &Snapshot,
    files: &[AddedFile],
    found: &Found,
    settings: EraseSettings,
) -> Result<Option<(ErasedFrom, i64)>> {
    let table = Table::Events;
    let touched = found.files().to_vec();
    let number = Lake::erased_number(on);
    let before = lake.erased_rows(number).await?;
    let tenant = subject.tenant_erased();
    let known_tenant = tenant.is_some_and(|tenant| contributions::name(&before, tenant));
    if settings.dry_run || touched.is_empty() && !known_tenant {
        let done = ErasedFrom { rows: found.rows(), changed: 0, files: touched.len() as u64 };
        return Ok(Some((done, on.version + 1)));
    }
    let rewriting = lake.rewrite(table, touched, found).await?;
    let rows = async {
        let lost = Box::pin(contributions::lost(lake, files, found)).await?;
        Box::pin(contributions::with(before, lost, tenant)).await
    };
    let rows = match rows.await {
        Ok(rows) => rows,
        Err(error) => {
            lake.discard(table, &rewriting.new).await;
            return Err(error);
        }
    };
    let next = lake.store_erased(number, &rows).await?;
    let committed = land(lake, on, found, &rewriting, next, tenant.is_some()).await;
    let Some(version) = committed? else {
        lake.discard(table, &rewriting.new).await;
        lake.forget_erased(next).await;
        return Ok(None);
    };
    lake.discard_erased(next, tenant.is_some()).await?;
    let done = ErasedFrom { rows: rewriting.rows, changed: 0, files: rewriting.old.len() as u64 };
    Ok(Some((done, version + 1)))
}

/// Commits the erasure to `events`, after other commits if these have nothing to do with it. Returns the version of the commit; none
/// if one has.
async fn land(
    lake: &Lake,
    on: &Snapshot,
    found: &Found,
    rewriting: &Rewriting,
    number: i64,
    is_tenant: bool,
) -> Result<Option<i64>> {
    let log = lake.log(Table::Events);
    let mut base = on.clone();
    for _ in 0..ATTEMPTS {
        let erased = AppId::Erased.to_string();
        let mut advances = vec![Advance { expected: on.next(&erased), app_id: erased, next: number }];
        if is_tenant {
            let app_id = AppId::ErasedTenants.to_string();
            let known = on.next(&app_id);
            advances.push(Advance { app_id, expected: known, next: known.unwrap_or(0) + 1 });
        }
        match lake.commit_rewriting(Table::Events, &base, rewriting, advances, true).await {
            Ok(Some(snapshot)) => return Ok(Some(snapshot.version)),
            Ok(None) => {}
            // Its log was cleaned up beyond the snapshot.
            Err(error) if error.kind() == ErrorKind::Fenced => return Ok(None),
            Err(error) => return Err(error),
        }
        let newest = log.load().await?;
        if Lake::erased_number(&newest) != Lake::erased_number(on) {
            return Ok(None);
        }
        for version in base.version + 1..=newest.version {
            let Some(entry) = log.entry(version).await? else { return Ok(None) };
            if rewriting.old.iter().any(|old| entry.removed.contains(&old.path)) {
                return Ok(None);
            }
            for file in entry.added.iter().filter(|file| file.data_change) {
                let added = match lake.read(Table::Events, file, Some(&subject::COLUMNS)).await {
                    // Compacted and removed meanwhile.
                    Err(error) if error.kind() == ErrorKind::Data => return Ok(None),
                    added => added?,
                };
                for rows in added {
                    if found.concern(&rows)? {
                        return Ok(None);
                    }
                }
            }
        }
        base = newest;
    }
    Err(contended(Table::Events))
}

/// Writes the files of a table that an edit touches again or, of a dry run, finds out what that would do.
async fn rewritten(
    lake: &Lake,
    table: Table,
    files: &[AddedFile],
    edit: &dyn Edit,
    settings: EraseSettings,
) -> Result<Rewriting> {
    let touched = lake.touched(table, files, edit).await?;
    match settings.dry_run {
        true => lake.plan_rewrite(table, touched, edit).await,
        false => lake.rewrite(table, touched, edit).await,
    }
}

/// Edits a table, again if another process replaces its files or moves the mark at the same moment.
async fn from_table(
    lake: &Lake,
    table: Table,
    edit: &dyn Edit,
    settings: EraseSettings,
    progress: &mut impl FnMut(EraseProgress),
    mark: Mark,
) -> Result<ErasedFrom> {
    progress(EraseProgress::Table(table));
    for _ in 0..ATTEMPTS {
        let (on, files) = lake.snapshot_with_files(table).await?;
        let advances: Vec<Advance> = mark.advance(&on).into_iter().collect();
        let rewriting = match rewritten(lake, table, &files, edit, settings).await {
            Err(error) if is_outdated(lake, &on, table, &error).await => continue,
            rewriting => rewriting?,
        };
        if rewriting.old.is_empty() && (advances.is_empty() || settings.dry_run) {
            return Ok(ErasedFrom::default());
        }
        let done = ErasedFrom { rows: rewriting.rows, changed: rewriting.changed, files: rewriting.old.len() as u64 };
        if settings.dry_run {
            return Ok(done);
        }
        match lake.commit_rewriting(table, &on, &rewriting, advances, false).await {
            Ok(Some(_)) => return Ok(done),
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::Fenced => {}
            Err(error) => return Err(error),
        }
        lake.discard(table, &rewriting.new).await;
    }
    Err(contended(table))
}

/// Removes a tenant's rows from the tables that are derived from `events`, as far as they were made of versions before `next`.
async fn from_derived(
    lake: &Lake,
    tenant: &str,
    next: i64,
    settings: EraseSettings,
    erasure: &mut Erasure,
    progress: &mut impl FnMut(EraseProgress),
) -> Result<()> {
    let events = lake.log(Table::Events).load().await?;
    let mark = events.next(&AppId::ErasedTenants.to_string()).map_or(Mark::Nothing, Mark::Tenants);
    for table in [Table::Metrics, Table::MetricsHourly, Table::MetricsDaily] {
        let edit = TenantEdit::partials(tenant, next);
        let done = from_table(lake, table, &edit, settings, progress, mark).await?;
        erasure.add(table, done);
    }
    let edit = TenantEdit::all(tenant);
    let done = from_table(lake, Table::RollingHistory, &edit, settings, progress, Mark::Nothing).await?;
    erasure.add(Table::RollingHistory, done);
    Ok(())
}

fn contended(table: Table) -> Error {
    Error::unavailable(format!(
        "other processes replaced files of `{}` at the same moment, again and again",
        table.name()
    ))
    .with_hint("run the command again; an erasure may be interrupted at any point")
}
