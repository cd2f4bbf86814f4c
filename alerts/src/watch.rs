//! The role that watches: follows `metrics` and `events` by version, judges complete windows, and writes transitions to
//! `alerts`, each evaluation in one commit.
//!
//! State is a function of the tables: at a start it is read from them, day by day, and what had been told is not told
//! again. The same happens where a version that should be read next is gone (vacuumed), where another watcher has
//! committed, and where corrections are older than what is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_detect::{Minute, Season};
use bellwether_lake::{
    Advance, Commit, CommitLog, DataFile, Error, ErrorKind, Lake, Layout, Reading, Result, Snapshot, Table, settle,
};
use bellwether_queries::{Session, SessionSettings};
use prometheus::Registry;
use serde_json::Map;
use tokio_util::sync::CancellationToken;

use crate::contract::Contracts;
use crate::engine::{BudgetSettings, Engine, LONGEST_QUERY};
use crate::health::Health;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::observe::MINUTE_MICROS;
use crate::progress::Progress;
use crate::read::{Parts, read_entry, replay};
use crate::record::{Known, RULE_FAILING, Row, batch};
use crate::rule::Rules;

/// The only watcher there is.
const APP: &str = "watch/0";

/// Versions that one turn takes at most.
const TURN_VERSIONS: usize = 500;

/// Entries of `events` that tell how far the sources are, at a start.
const ENTRIES_AT_START: i64 = 200;

/// Least time between two rebuilds for corrections that came too late.
const REBUILD_MICROS: i64 = 60 * 1_000_000;

/// What was told of so many days is compared with what comes out when all is judged anew.
const CONFIRMED_MICROS: i64 = 7 * 86_400 * 1_000_000;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What may be set about watching.
#[derive(Clone, Debug)]
pub struct Settings {
    /// False alarms that are allowed.
    pub budget: BudgetSettings,
    /// Time between two evaluations.
    pub interval: Duration,
    /// How far past a window's end all sources have to be for it to be complete.
    pub grace: Duration,
    /// Days of history that state is rebuilt from.
    pub history_days: i64,
    /// Memory of queries over whole tables.
    pub memory_bytes: usize,
    /// The clock that weeks go by, where a task's contract does not name another.
    pub season: Season,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            budget: BudgetSettings::default(),
            interval: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            history_days: 84,
            memory_bytes: 256 << 20,
            season: Season::default(),
        }
    }
}

/// What transitions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// All that is in the tables, judged at a start or anew.
    History,
    /// New rows.
    News,
}

/// Everything that watching works with.
#[derive(Clone)]
pub struct Watch {
    /// Settings.
    pub settings: Settings,
    /// Rules.
    pub rules: Rules,
    /// Contracts.
    pub contracts: Contracts,
    /// Tables.
    pub lake: Lake,
    /// Where it tells how far it is.
    pub health: Health,
}

/// The role at work.
pub struct Watcher {
    watch: Watch,
    metrics: Metrics,
    engine: Engine,
    ledger: Ledger,
    progress: Progress,
    /// `alerts` as of the last commit.
    on: Snapshot,
    /// `metrics` as of the last version that was read.
    read: Snapshot,
    /// Version of `events` to read next.
    events_next: i64,
    /// Version of `events` before which all is noted that is said of how far partitions were read.
    said_next: i64,
    /// Session over whole tables, for the rules that need one.
    tables: Option<Session>,
    complete_to: Minute,
    rebuilt_at: i64,
    too_late: u64,
    /// All rows of `metrics` were replaced: what was learned from the old ones is to be learned anew.
    replaced: bool,
}

/// How often all rows of `metrics` have been replaced.
fn generation(metrics: &Snapshot) -> i64 {
    Layout::of(metrics).map_or(0, |layout| layout.generation)
}

/// Runs the role until it is stopped; with `until_caught_up`, until it has judged all there is.
///
/// # Errors
/// `Data` and `Bug` where no waiting can help. Storage that does not answer is waited for.
pub async fn run(watch: Watch, registry: Registry, until_caught_up: bool, stop: CancellationToken) -> Result<()> {
    let metrics = Metrics::register(&registry)?;
    for broken in &watch.rules.broken {
        tracing::warn!(
            rule = broken.name,
            from = broken.origin,
            why = broken.why,
            "a rule cannot be used; the others go on"
        );
    }
    let mut pause = FIRST_PAUSE;
    let mut gone_at_start = false;
    loop {
        let worked = async {
            let mut watcher = Watcher::open_with(&watch, metrics.clone()).await?;
            gone_at_start = false;
            watcher.work(until_caught_up, &mut pause).await
        };
        // What is in the tables is whole at any moment, and state is made of it: nothing has to be brought to an end first,
        // so that one told to end does not wait for slow storage.
        let ended = tokio::select! {
            biased; // Stopping wins over working.
            () = stop.cancelled() => return Ok(()),
            ended = Box::pin(worked) => ended,
        };
        match ended {
            Ok(true) => return Ok(()),
            Ok(false) => {} // To be opened anew.
            Err(error) if error.kind() == ErrorKind::Fenced => {
                metrics.fenced.inc();
                tracing::info!("another watcher has committed; going on from what the tables say");
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                metrics.retries.inc();
                tracing::warn!(reason = %error.chain(), "storage does not answer as it should; trying again");
            }
            // A file of a version that was being read was vacuumed; the newest version has all that counts.
            Err(error) if error.kind() == ErrorKind::Data && !gone_at_start => {
                gone_at_start = true;
                metrics.rebuilds.inc();
                tracing::warn!(reason = %error.chain(), "a version that was to be read is gone; state is rebuilt from the newest one");
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            biased; // Stopping wins over waiting.
            () = stop.cancelled() => return Ok(()),
            () = watch.lake.clock().sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

// === impl Watcher ===

impl Watcher {
    /// Reads what has been told, and judges what is in the tables.
    ///
    /// # Errors
    /// `Unavailable` where storage does not answer; `Data` where a file is gone.
    pub async fn open(watch: &Watch, registry: &Registry) -> Result<Self> {
        Self::open_with(watch, Metrics::register(registry)?).await
    }

    async fn open_with(watch: &Watch, metrics: Metrics) -> Result<Self> {
        let lake = &watch.lake;
        let on = lake.log(Table::Alerts).load().await?;
        let ledger = Ledger::load(lake).await?;
        let mut watcher = Self {
            engine: Engine::new(&watch.rules, &watch.contracts, &watch.settings.budget)?
                .in_season(watch.settings.season),
            watch: watch.clone(),
            metrics,
            ledger,
            progress: Progress::default(),
            on,
            read: Snapshot::default(),
            events_next: 0,
            said_next: 0,
            tables: None,
            complete_to: Minute::MIN,
            rebuilt_at: lake.clock().now_micros(),
            too_late: 0,
            replaced: false,
        };
        Box::pin(watcher.rebuild()).await?;
        Ok(watcher)
    }

    /// Judges the history of the tables, day by day, and tells what is not known from before.
    async fn rebuild(&mut self) -> Result<()> {
        let lake = self.watch.lake.clone();
        let at = lake.log(Table::Metrics).load().await?;
        self.events_next = Layout::reads_next(&at);
        self.read = at.clone();
        let log = lake.log(Table::Events);
        for version in (self.events_next - ENTRIES_AT_START).max(0)..self.events_next {
            // What has been cleaned up says nothing any more.
            if let Some(entry) = log.entry(version).await? {
                self.progress.note(&entry);
            }
        }
        self.said_next = self.progress.follow(&log, self.events_next).await?;
        let newest = log.load().await?;
        self.progress.note_known(Reading::all(&newest), newest.version < self.said_next);
        let firing: Vec<(String, std::collections::BTreeMap<String, String>, i64)> = self
            .ledger
            .alerts()
            .filter(|(_, alert)| alert.last().is_some_and(|last| last.state == "firing"))
            .filter_map(|(_, alert)| Some((alert.rule.clone(), alert.labels.clone(), alert.last()?.at)))
            .collect();
        for (rule, labels, at) in firing {
            self.engine.resume(&rule, &labels, at);
        }
        self.engine.at(lake.clock().now_micros(), false);
        let to = self.complete();
        let mut rows = Vec::new();
        if at.version > 0 || self.events_next > 0 {
            let now = lake.clock().now_micros();
            let silent_to = to.map(|to| self.progress.silent_to(to, now));
            let versions = (at.version, self.events_next);
            rows = replay(&lake, &mut self.engine, &self.watch.settings, versions, (None, to), silent_to).await?;
        }
        let found: BTreeSet<(String, i64, String, bool)> =
            rows.iter().map(|row| (row.alert_id.clone(), row.at, row.state.to_owned(), row.stale)).collect();
        let until = crate::record::micros(to.unwrap_or(Minute::MIN));
        let replayed = self.engine.replayed_rules();
        for (id, entry) in self.ledger.unconfirmed(&found, until.saturating_sub(CONFIRMED_MICROS), until, &replayed) {
            rows.extend(self.engine.retraction(&id, entry.at, &entry.state, entry.stale));
        }
        self.complete_to = to.unwrap_or(Minute::MIN);
        self.commit(rows, Origin::History).await?;
        self.metrics.next_version.set(self.next());
        self.watch.health.moved(self.next());
        self.too_late = self.engine.totals(0).too_late;
        Ok(())
    }

    /// Version of `metrics` to read next.
    fn next(&self) -> i64 {
        self.read.version + 1
    }

    /// Up to when windows are complete; with the time of day, once nothing has come for a while.
    fn complete(&self) -> Option<Minute> {
        let grace = i64::try_from(self.watch.settings.grace.as_micros()).unwrap_or(i64::MAX);
        self.progress.complete_to(grace, Some(self.watch.lake.clock().now_micros()))
    }

    /// True where it ended as it should; false where it has to be opened anew.
    async fn work(&mut self, until_caught_up: bool, pause: &mut Duration) -> Result<bool> {
        loop {
            let more = self.turn().await?;
            *pause = FIRST_PAUSE;
            if self.is_outdated() {
                self.metrics.rebuilds.inc();
                tracing::info!("`metrics` was rebuilt; so is what was learned from it");
                return Ok(false);
            }
            let now = self.watch.lake.clock().now_micros();
            let late = self.engine.totals(0).too_late;
            if !more && self.engine.wants_rebuild() && self.watch.health.may_rebuild(now) {
                self.metrics.rebuilds.inc();
                tracing::info!("a rule that had failed works again; what it has not judged is read from the tables");
                return Ok(false);
            }
            if late > self.too_late && now - self.rebuilt_at >= REBUILD_MICROS && !more {
                self.metrics.rebuilds.inc();
                tracing::info!(
                    corrections = late - self.too_late,
                    "corrections are older than what is kept; state is rebuilt from the tables"
                );
                return Ok(false);
            }
            if more {
                continue;
            }
            if until_caught_up {
                return Ok(true);
            }
            self.watch.lake.clock().sleep(self.watch.settings.interval).await;
        }
    }

    /// Reads the versions that are new, judges, and commits what is news. True where there may be more to read at once.
    ///
    /// # Errors
    /// `Fenced` where another watcher has committed; `Data` where a version that is to be read is gone.
    pub async fn turn(&mut self) -> Result<bool> {
        let begun = self.watch.lake.clock().now_micros();
        self.engine.at(begun, true);
        let (events_to, more) = self.read_metrics().await?;
        if self.replaced {
            return Ok(false);
        }
        self.read_events(events_to).await?;
        let events = self.watch.lake.log(Table::Events);
        self.said_next = self.progress.follow(&events, self.said_next.max(self.events_next)).await?;
        Box::pin(self.engine.retry()).await?;
        let now = self.watch.lake.clock().now_micros();
        let minute = now.div_euclid(MINUTE_MICROS);
        if self.engine.asks_tables() && !more {
            self.ask_tables(minute).await;
        }
        let to = self.complete().unwrap_or(Minute::MIN).max(self.complete_to);
        self.complete_to = to;
        // Silence is news only where nothing waits to be read, and only up to when that is known.
        let silent_to = self.progress.silent_to(to, now).min(if more { to } else { Minute::MAX });
        let mut found = Vec::new();
        // Rules on whole tables have something to say before there is any window: that nothing is read, for one.
        if to > Minute::MIN || self.progress.read_to().is_some() {
            found = self.engine.evaluate(to.max(0), silent_to.max(0), Some(minute));
            if let Some(until) = self.progress.stale_to(now).filter(|_| !more) {
                found.extend(self.engine.unheard(until));
            }
            let stale: Vec<(String, i64)> = self
                .ledger
                .alerts()
                .filter_map(|(id, alert)| Some((id.clone(), alert.last().filter(|last| last.stale)?.at)))
                .collect();
            // An alert that was told to be stale has been heard of after all: the data was only late.
            for (id, at) in stale {
                if self.engine.is_heard_after(&id, at) {
                    found.extend(self.engine.retraction(&id, at, "firing", true));
                }
            }
        }
        found.extend(crate::failing::rows(&self.engine, &self.ledger, now));
        self.commit(found, Origin::News).await?;
        crate::failing::tell(&mut self.engine, &self.metrics, &self.watch.health);
        self.metrics.evaluations.inc();
        self.metrics.seconds.set((self.watch.lake.clock().now_micros() - begun) as f64 / 1e6);
        self.metrics.next_version.set(self.next());
        self.watch.health.moved(self.next());
        Ok(more)
    }

    /// Asks the rules on whole tables. Where the tables cannot be opened, these rules fail, and no others.
    async fn ask_tables(&mut self, minute: Minute) {
        if self.tables.is_none() {
            let settings = SessionSettings {
                memory_limit_bytes: self.watch.settings.memory_bytes,
                threads: Some(1),
                timeout: Some(LONGEST_QUERY),
                ..SessionSettings::default()
            };
            match Session::open(&self.watch.lake, settings).await {
                Ok(session) => self.tables = Some(session),
                Err(error) => return self.engine.tables_fail(&format!("the tables cannot be read: {}", error.chain())),
            }
        }
        if let Some(session) = &self.tables {
            Box::pin(self.engine.ask_tables(session, minute)).await;
        }
    }

    /// Takes in new rows of `metrics`; gives the version of `events` that they reach to, and whether there may be more.
    async fn read_metrics(&mut self) -> Result<(i64, bool)> {
        let log = self.watch.lake.log(Table::Metrics);
        let columns = self.engine.columns(Table::Metrics);
        let (mut parts, mut read) = (Parts::of(Table::Metrics), 0);
        while read < TURN_VERSIONS {
            let Some(entry) = log.entry(self.next()).await? else {
                if read == 0 && log.latest_version().await? > self.next() {
                    return Err(Error::data(format!(
                        "version {} of `metrics` is not in its log any more",
                        self.next()
                    )));
                }
                break;
            };
            let after = self.read.after(entry.version, entry.txns.iter().cloned());
            if generation(&after) != generation(&self.read) {
                self.replaced = true;
                break;
            }
            let rows = read_entry(&self.watch.lake, Table::Metrics, &entry, &columns).await?;
            parts.add(&mut self.engine, rows).await?;
            self.read = after;
            read += 1;
        }
        parts.take(&mut self.engine).await?;
        Ok((Layout::reads_next(&self.read).max(self.events_next), read == TURN_VERSIONS))
    }

    /// Takes in new rows of `events` up to a version, where a rule wants them; and notes how far the sources are.
    async fn read_events(&mut self, to: i64) -> Result<()> {
        let log = self.watch.lake.log(Table::Events);
        let columns = self.engine.columns(Table::Events);
        let mut parts = Parts::of(Table::Events);
        while self.events_next < to {
            let Some(entry) = log.entry(self.events_next).await? else {
                return Err(Error::data(format!(
                    "version {} of `events` is not in its log any more",
                    self.events_next
                )));
            };
            self.progress.note(&entry);
            if !columns.is_empty() {
                let rows = read_entry(&self.watch.lake, Table::Events, &entry, &columns).await?;
                parts.add(&mut self.engine, rows).await?;
            }
            self.events_next += 1;
        }
        parts.take(&mut self.engine).await
    }

    /// Writes what is news, in one commit.
    async fn commit(&mut self, rows: Vec<Row>, from: Origin) -> Result<()> {
        let news = self.ledger.news(rows);
        self.tell(&news, from);
        if news.is_empty() {
            return Ok(());
        }
        let lake = &self.watch.lake;
        let evaluation = self.ledger.evaluations + 1;
        self.ledger.evaluations = evaluation;
        let known = Known {
            evaluation,
            metrics_version: self.read.version,
            events_version: self.events_next,
            // Before the first event there is no time that is complete.
            complete_to: self.complete_to.max(0),
            evaluated_at: lake.clock().now_micros(),
        };
        let written = lake.write(Table::Alerts, &batch(&news, &known)?).await?;
        let files: Vec<DataFile> = written.into_iter().map(|written| written.file).collect();
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances: vec![Advance { app_id: APP.to_owned(), expected: self.on.next(APP), next: evaluation }],
            files,
            operation: "watch",
            ranges: Vec::new(),
            facts: Map::from_iter([("metrics_version".to_owned(), known.metrics_version.into())]),
        };
        let log = lake.log(Table::Alerts);
        let unclear = |reason: &str| {
            self.metrics.retries.inc();
            tracing::warn!(table = "alerts", reason, "a commit is unclear; asking again");
        };
        let Some(snapshot) = settle(&*lake.clock(), || log.try_commit(&self.on, &commit), unclear).await? else {
            lake.discard(Table::Alerts, &commit.files).await;
            return Err(Error::fenced("another watcher has committed to `alerts`"));
        };
        self.on = snapshot;
        Ok(())
    }

    /// Logs what is news, and sets the gauges. What history brings is told in one line: it may be weeks of transitions.
    fn tell(&self, news: &[Row], from: Origin) {
        for row in news {
            // A page that grows stale and is heard of again is no other page.
            if !row.restates() {
                self.metrics.transitions.with_label_values(&[row.severity, row.state]).inc();
            }
            if from == Origin::News {
                tracing::info!(
                    alert = row.alert_id, rule = row.rule, severity = row.severity, from = row.state_from, to = row.state, why = row.why,
                    change = ?row.change, stale = row.stale, title = row.title, "alert"
                );
            }
        }
        if from == Origin::History {
            let stand = |state: &str| {
                self.ledger.alerts().filter(|(_, alert)| alert.last().is_some_and(|last| last.state == state)).count()
            };
            tracing::info!(
                firing = stand("firing"),
                pending = stand("pending"),
                resolved = stand("resolved"),
                new_transitions = news.len(),
                "alerts as the tables have them; `bellwether alerts list` shows them"
            );
        }
        // Before the first event there is no time to count from.
        let complete_to = self.complete_to.max(0);
        let totals = self.engine.totals(complete_to);
        let (pages, retracted) = self.ledger.pages(crate::record::micros(complete_to));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let standing = self.engine.standing();
        for severity in ["page", "ticket", "info"] {
            let firing = standing
                .iter()
                .filter(|alert| alert.severity.name() == severity && alert.state == bellwether_detect::State::Firing);
            let rules = self.ledger.alerts().filter(|(_, alert)| {
                alert.rule == RULE_FAILING
                    && alert.severity == severity
                    && alert.last().is_some_and(|last| last.state == "firing")
            });
            self.metrics.firing.with_label_values(&[severity]).set(number(firing.count() + rules.count()));
        }
        let stale = self.ledger.alerts().filter(|(_, alert)| alert.last().is_some_and(|last| last.stale)).count();
        self.metrics.stale.set(number(stale));
        self.metrics.rules.set(number(totals.rules));
        self.metrics.broken.set(number(totals.broken));
        self.metrics.series.set(number(totals.series));
        self.metrics.complete_to.set(complete_to.saturating_mul(60));
        self.metrics.too_late.set(i64::try_from(totals.too_late).unwrap_or(i64::MAX));
        self.metrics.pages_budget.set(self.watch.settings.budget.pages);
        self.metrics.pages_spent.set(totals.pages_spent);
        self.metrics.pages.set(number(pages));
        self.metrics.pages_retracted.set(number(retracted));
    }

    /// True where what was learned does not hold any more, and it has to be opened anew.
    pub fn is_outdated(&self) -> bool {
        self.replaced
    }

    /// The rules at work.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}
