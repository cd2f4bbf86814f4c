//! One evaluation: reads the versions that are new, judges them, and appends the transitions.

use arrow::array::RecordBatch;
use bellwether_base::{Error, Result};
use bellwether_detect::Minute;
use bellwether_follow::Cursor;
use bellwether_lake::{Lake, Layout, LogEntry, Snapshot};
use bellwether_queries::{Session, SessionSettings};
use bellwether_tables::Table;
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};

use super::Watcher;
use super::publish::Origin;
use crate::engine::LONGEST_QUERY;
use crate::observe::MINUTE_MICROS;
use crate::read::{Parts, read_entry};
use crate::record::AlertRow;

/// Most versions that one evaluation reads.
const MOST_VERSIONS: usize = 500;

/// Versions whose rows are read at the same time, far behind the end of a log. Each takes a few megabytes of memory if there are
/// thousands of groups.
const AT_ONCE: usize = 8;

/// Returns how often all rows of `metrics` have been replaced.
fn generation(metrics: &Snapshot) -> i64 {
    Layout::of(metrics).map_or(0, |layout| layout.generation)
}

/// Returns the rows of log entries, in their order. Some are read ahead, because a store may take tens of milliseconds for each.
fn rows_of<'a>(
    lake: &'a Lake,
    table: Table,
    entries: &'a [LogEntry],
    columns: &'a [&'static str],
) -> impl Stream<Item = Result<Vec<RecordBatch>>> + Unpin + 'a {
    stream::iter(entries).map(move |entry| read_entry(lake, table, entry, columns).boxed()).buffered(AT_ONCE)
}

// === impl Watcher ===

impl Watcher {
    /// Reads the versions that are new, judges them, and appends the transitions. Returns true if there may be more to read
    /// at once.
    ///
    /// # Errors
    /// `Fenced` if another watcher has committed; `Data` if a version that was not read yet is gone.
    pub async fn turn(&mut self) -> Result<bool> {
        let begun = self.watch.lake.clock().now_micros();
        self.engine.at(begun, true);
        let (events_to, more) = self.read_metrics().await?;
        if self.is_outdated {
            return Ok(false);
        }
        self.read_events(events_to).await?;
        let events = self.watch.lake.log(Table::Events);
        self.noted_next = self.progress.follow(&events, self.noted_next.max(self.events_next)).await?;
        Box::pin(self.engine.retry()).await?;
        let now = self.watch.lake.clock().now_micros();
        let minute = now.div_euclid(MINUTE_MICROS);
        if self.engine.asks_tables() && !more {
            self.ask_tables(minute).await;
        }
        let rows = self.judge(now, more);
        self.publish(rows, Origin::NewRows).await?;
        self.record_progress(now).await?;
        if !more {
            self.drop_idle();
            self.judge_again().await?;
        }
        crate::failing::report(&mut self.engine, &self.metrics, &self.watch.health);
        self.metrics.evaluations.inc();
        self.metrics.seconds.set((self.watch.lake.clock().now_micros() - begun) as f64 / 1e6);
        Ok(more)
    }

    /// Judges all windows that are complete by now. With `more` to read, silence is judged only as far as windows are complete.
    fn judge(&mut self, now: i64, more: bool) -> Vec<AlertRow> {
        let to = self.complete().unwrap_or(Minute::MIN).max(self.complete_to);
        self.complete_to = to;
        let silent_to = self.progress.silent_to(to, now).min(if more { to } else { Minute::MAX });
        let mut rows = Vec::new();
        // Rules on whole tables apply before there is any window: that nothing is read, for one.
        if to > Minute::MIN || self.progress.read_to().is_some() {
            rows = self.engine.evaluate(to.max(0), silent_to.max(0), Some(now.div_euclid(MINUTE_MICROS)));
            if let Some(until) = self.progress.stale_to(now).filter(|_| !more) {
                rows.extend(self.engine.unheard(until));
            }
            rows.extend(self.heard_again());
        }
        rows.extend(crate::failing::rows(&self.engine, &self.ledger, now));
        rows
    }

    /// Takes back that alerts were stale if their series has data after that moment: the data was only late.
    fn heard_again(&self) -> Vec<AlertRow> {
        let stale =
            self.ledger.alerts().filter_map(|(id, alert)| Some((id, alert.last().filter(|last| last.stale)?.at)));
        let heard = stale.filter(|(id, at)| self.engine.is_heard_after(id, *at));
        heard.filter_map(|(id, at)| self.engine.retraction(id, at, "firing", true)).collect()
    }

    /// Asks the rules on whole tables. If the tables cannot be opened, these rules fail and no others.
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

    /// Reads new rows of `metrics`. Returns the version of `events` up to which they count, and whether there may be more.
    async fn read_metrics(&mut self) -> Result<(i64, bool)> {
        let cursor = Cursor::new(self.watch.lake.log(Table::Metrics), self.metrics_read.version + 1);
        let columns = self.engine.columns(Table::Metrics).await;
        let mut parts = Parts::of(Table::Metrics);
        let lake = self.watch.lake.clone();
        let entries = cursor.entries(0, MOST_VERSIONS).await?;
        let mut read = rows_of(&lake, Table::Metrics, &entries, &columns);
        for entry in &entries {
            let after = self.metrics_read.after(entry.version, entry.txns.iter().cloned());
            if generation(&after) != generation(&self.metrics_read) {
                self.is_outdated = true;
                break;
            }
            let rows = read.try_next().await?.unwrap_or_default();
            parts.add(&mut self.engine, rows).await?;
            self.metrics_read = after;
        }
        parts.take(&mut self.engine).await?;
        Ok((Layout::reads_next(&self.metrics_read).max(self.events_next), entries.len() == MOST_VERSIONS))
    }

    /// Reads `events` up to a version: its rows if a rule needs them, and how far the sources are.
    async fn read_events(&mut self, to: i64) -> Result<()> {
        let lake = self.watch.lake.clone();
        let columns = self.engine.columns(Table::Events).await;
        let mut parts = Parts::of(Table::Events);
        while self.events_next < to {
            let most = usize::try_from(to - self.events_next).unwrap_or(MOST_VERSIONS).min(MOST_VERSIONS);
            let entries = Cursor::new(lake.log(Table::Events), self.events_next).entries(0, most).await?;
            if entries.is_empty() {
                return Err(Error::data(format!("version {} of `events` is no longer in its log", self.events_next)));
            }
            let mut read = rows_of(&lake, Table::Events, &entries, &columns);
            for entry in &entries {
                let rows = read.try_next().await?.unwrap_or_default();
                self.progress.note(entry);
                parts.add(&mut self.engine, rows).await?;
                self.events_next = entry.version + 1;
            }
        }
        parts.take(&mut self.engine).await
    }
}
