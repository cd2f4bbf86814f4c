//! Reads the figures that the demo shows from the tables, with SQL like any other client.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bellwether_base::{Error, Result};
use bellwether_lake::Lake;
use bellwether_queries::{Session, SessionSettings};
use bellwether_sinks::Page;
use bellwether_sinks::page::{Severity, Status};
use bellwether_tables::Table;

use super::Demo;
use super::pages::PageFiles;
use crate::roles::ingest;

/// Points of a release's sparkline.
const SPARK: usize = 40;

/// Lines of news to keep.
const NEWS: usize = 100;

/// Memory of the demo's own queries.
const MEMORY_BYTES: usize = 256 << 20;

/// Time without progress after which the rate is zero, seconds.
const STILL: f64 = 10.0;

/// Runs that a release needs before the news mentions its rates.
const ENOUGH: f64 = 30.0;

/// Rolling metrics of one task, release and stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ReleaseRow {
    pub(crate) task: String,
    pub(crate) release: String,
    pub(crate) stage: String,
    pub(crate) runs: f64,
    pub(crate) success: Option<f64>,
    pub(crate) success_low: Option<f64>,
    pub(crate) success_high: Option<f64>,
    pub(crate) coverage: Option<f64>,
    pub(crate) delay_s: Option<f64>,
    pub(crate) schema: Option<f64>,
    pub(crate) escalation: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) cost: Option<f64>,
    pub(crate) exceptions: Option<f64>,
}

/// A query result as text.
#[derive(Clone, Debug, Default)]
pub(crate) struct TextResult {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Everything on the screen at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) span: &'static str,
    pub(crate) rows: Vec<ReleaseRow>,
    pub(crate) committed: u64,
    pub(crate) per_second: f64,
    pub(crate) quarantined: u64,
    pub(crate) commits: i64,
    pub(crate) event_lag_s: Option<f64>,
    pub(crate) spark: BTreeMap<String, VecDeque<u64>>,
    pub(crate) news: VecDeque<String>,
    pub(crate) error: Option<String>,
}

/// Reads the tables periodically and keeps the latest view.
pub(crate) struct Observer {
    session: Session,
    lake: Lake,
    view: View,
    at: Instant,
    known: BTreeMap<String, bool>,
    pages: PageFiles,
}

// === impl Observer ===

impl Observer {
    pub(crate) async fn open(demo: &Demo) -> Result<Self> {
        let lake = demo.process.lake.clone();
        let settings = SessionSettings {
            memory_limit_bytes: MEMORY_BYTES,
            timeout: Some(Duration::from_secs(60)),
            threads: Some(2),
            ..SessionSettings::default()
        };
        let session = Session::open(&lake, settings).await?;
        let view = View { span: "5m", ..View::default() };
        Ok(Self { session, lake, view, at: Instant::now(), known: BTreeMap::new(), pages: demo.pages.clone() })
    }

    /// Updates the number of committed messages, which the producer waits for. Cheap.
    pub(crate) async fn count(&mut self, demo: &Demo) -> Result<()> {
        let events = self.lake.log(Table::Events).latest_version().await?;
        let committed = u64::try_from(demo.process.health.progress(ingest::NAME)).unwrap_or(0);
        let passed = self.at.elapsed().as_secs_f64();
        // Ingest reports its progress every few seconds; in between, the rate does not drop to zero.
        if (passed >= 1.0 && committed > self.view.committed) || passed >= STILL {
            let rate = committed.saturating_sub(self.view.committed) as f64 / passed;
            self.view.per_second = rate;
            self.view.committed = committed;
            self.at = Instant::now();
        }
        self.view.commits = events;
        demo.progress.note_committed(committed);
        Ok(())
    }

    /// Reads the rolling metrics of a span.
    pub(crate) async fn look(&mut self, span: &'static str) -> Result<()> {
        self.view.span = span;
        let answer = self.ask(&rolling_sql(span)).await?;
        self.view.rows = answer.rows.iter().map(|cells| release_row(cells)).collect();
        self.add_news();
        for page in self.pages.read() {
            self.once(format!("page {} {:?}", page.incident, page.status), heading(&page));
        }
        let quarantine =
            self.ask("SELECT reason, count(*) AS n FROM quarantine GROUP BY reason ORDER BY reason").await?;
        let mut total = 0;
        for cells in &quarantine.rows {
            let [reason, count] = cells.as_slice() else { continue };
            total += count.parse::<u64>().unwrap_or(0);
            self.once(format!("quarantine {reason}"), format!("poison message quarantined: {reason}"));
        }
        self.view.quarantined = total;
        let lag = self.ask("SELECT min(event_lag_s) AS lag FROM freshness WHERE table_name = 'events'").await?;
        self.view.event_lag_s = lag.rows.first().and_then(|cells| cells.first()?.parse().ok());
        Ok(())
    }

    /// Runs a query.
    pub(crate) async fn ask(&self, sql: &str) -> Result<TextResult> {
        let answer = self.session.execute(sql).await?;
        let columns = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = Vec::new();
        for batch in answer.collect().await? {
            texts(&batch, &mut rows)?;
        }
        Ok(TextResult { columns, rows })
    }

    pub(crate) fn view(&self) -> View {
        self.view.clone()
    }

    pub(crate) fn set_error(&mut self, error: &Error) {
        self.view.error = Some(error.chain());
    }

    pub(crate) fn clear_error(&mut self) {
        self.view.error = None;
    }

    fn add_news(&mut self) {
        let rows = self.view.rows.clone();
        for row in &rows {
            self.once(
                format!("release {}", row.release),
                format!("release {} seen ({}, {})", row.release, row.task, row.stage),
            );
            if let Some(success) = row.success {
                let points = self.view.spark.entry(format!("{} {}", row.task, row.release)).or_default();
                points.push_back((success * 100.0).round().clamp(0.0, 100.0) as u64);
                if points.len() > SPARK {
                    points.pop_front();
                }
            }
        }
        for row in rows.iter().filter(|row| row.runs >= ENOUGH && row.delay_s.is_some()) {
            let (Some(coverage), Some(success)) = (row.coverage, row.success) else { continue };
            // One line for each 5 % of coverage that verdicts add.
            let step = (coverage * 20.0).floor() as i64;
            self.once(
                format!("coverage {} {} {step}", row.task, row.release),
                format!("{}: {:.0} % of runs judged, success {:.1} %", row.task, coverage * 100.0, success * 100.0),
            );
        }
        for canary in rows.iter().filter(|row| row.stage == "canary" && row.runs >= ENOUGH) {
            let Some(full) = rows.iter().find(|row| row.stage == "full" && row.task == canary.task) else { continue };
            // Disjoint intervals are a rough reading for the eye; alerts use a sequential test.
            let (Some(high), Some(low)) = (canary.success_high, full.success_low) else { continue };
            if high < low {
                let (Some(mine), Some(theirs)) = (canary.success, full.success) else { continue };
                let text = format!(
                    "canary {} is worse than {}: success {:.1} % against {:.1} %",
                    canary.release,
                    full.release,
                    mine * 100.0,
                    theirs * 100.0
                );
                self.once(format!("worse {} {}", canary.task, canary.release), text);
            }
        }
    }

    fn once(&mut self, key: String, text: String) {
        if self.known.insert(key, true).is_none() {
            let now = humantime::format_rfc3339_seconds(super::now()).to_string();
            self.view.news.push_front(format!("{}  {text}", now.get(11..19).unwrap_or_default()));
            self.view.news.truncate(NEWS);
        }
    }
}

/// Returns the urgency of a page, its state and its title.
fn heading(page: &Page) -> String {
    let severity = match page.severity {
        Severity::Page => "page",
        Severity::Ticket => "ticket",
        Severity::Info => "info",
    };
    let state = match page.status {
        Status::Firing => "",
        Status::Acknowledged => "acknowledged: ",
        Status::Resolved => "resolved: ",
    };
    format!("{severity}: {state}{}", page.title)
}

fn rolling_sql(span: &str) -> String {
    format!(
        "SELECT task, release_id, stage, CAST(runs AS DOUBLE) AS runs, success_rate, success_rate_low, success_rate_high, \
         coverage, schema_adherence, escalation_rate, latency_ms_p50, latency_ms_p95, cost_per_completed_task, \
         policy_exceptions_per_1000, label_delay_s_p50 FROM rolling WHERE span = '{span}' ORDER BY task, stage DESC, release_id"
    )
}

fn release_row(cells: &[String]) -> ReleaseRow {
    let text = |index: usize| cells.get(index).cloned().unwrap_or_default();
    let number = |index: usize| cells.get(index).and_then(|cell| cell.parse::<f64>().ok());
    ReleaseRow {
        task: text(0),
        release: text(1),
        stage: text(2),
        runs: number(3).unwrap_or(0.0),
        success: number(4),
        success_low: number(5),
        success_high: number(6),
        coverage: number(7),
        schema: number(8),
        escalation: number(9),
        p50_ms: number(10),
        p95_ms: number(11),
        cost: number(12),
        exceptions: number(13),
        delay_s: number(14),
    }
}

fn texts(batch: &RecordBatch, rows: &mut Vec<Vec<String>>) -> Result<()> {
    let options = FormatOptions::default().with_null("");
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    for index in 0..batch.num_rows() {
        rows.push(formatters.iter().map(|formatter| formatter.value(index).to_string()).collect());
    }
    Ok(())
}
