//! Pages from the tables of a lake, as they were when an alert was evaluated.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use bellwether_base::Result;
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, Session, SessionSettings, SmallFiles};
use bellwether_sinks::{Page, ReleaseNotice};
use bellwether_tables::Table;
use tokio::sync::{Mutex, OnceCell, Semaphore};

use crate::changes::changes_of_release;
use crate::links::Links;
use crate::page::{Versions, build, minimal};
use crate::record::AlertRecord;

/// Memory that the statements of one page may take.
const MEMORY_BYTES: usize = 256 << 20;

/// Small files that are read once for all pages of an evaluation: nearly all statements are about these tables. Their rows take about
/// ten times as much memory.
const SMALL_FILES: SmallFiles = SmallFiles { tables: &[Table::Events, Table::Metrics], bytes: 8 << 20 };

/// Longest time for one statement, unless the caller is patient. A part that takes longer is absent.
const LONGEST_STATEMENT: Duration = Duration::from_secs(5);

/// Evaluations whose tables stay open: pages of the one before may still be under way.
const OPEN_EVALUATIONS: usize = 3;

/// The tables at the time of one evaluation. Its alerts share them.
#[derive(Clone)]
struct Opened {
    evaluation: i64,
    versions: Versions,
    engine: Engine,
    pages: Arc<Mutex<BTreeMap<Transition, Arc<OnceCell<Page>>>>>,
}

/// A row of one evaluation: its alert, its time, its state and what it does to earlier rows.
type Transition = (String, i64, String, String);

/// Builds pages from a lake.
pub struct PageSource {
    lake: Lake,
    links: Links,
    longest_statement: Duration,
    opened: Mutex<VecDeque<Opened>>,
    /// Pages are built a few at a time: if all were built at once, all would be late.
    building: Semaphore,
}

// === impl PageSource ===

impl PageSource {
    /// Creates a source of pages over a lake.
    pub fn new(lake: Lake, links: Links) -> Self {
        let at_once = available_parallelism().map_or(1, NonZero::get);
        Self {
            lake,
            links,
            longest_statement: LONGEST_STATEMENT,
            opened: Mutex::default(),
            building: Semaphore::new(at_once),
        }
    }

    /// Lets each statement take so long, for a person who waits for the page.
    #[must_use]
    pub fn patient(self, longest_statement: Duration) -> Self {
        Self { longest_statement, ..self }
    }

    /// Returns the page of an alert from its row alone.
    pub fn minimal(&self, record: &AlertRecord) -> Page {
        minimal(record, &self.links)
    }

    /// Returns the page of an alert, with a note in place of a part that cannot be read. It is built once for all its receivers. The
    /// caller owns the deadline.
    ///
    /// # Errors
    /// `Unavailable` or `Data` if the tables cannot be read at all. The failure is not cached.
    pub async fn page(&self, record: &AlertRecord) -> Result<Page> {
        let opened = Box::pin(self.open(record)).await?;
        let transition = (record.alert_id.clone(), record.at, record.state.clone(), record.change.clone());
        let page = Arc::clone(opened.pages.lock().await.entry(transition).or_default());
        let build = async {
            // The semaphore is never closed.
            let _permit = self.building.acquire().await.ok();
            let settings = SessionSettings { timeout: Some(self.longest_statement), ..SessionSettings::default() };
            let session = opened.engine.session(settings)?;
            Ok(Box::pin(build(&session, &opened.versions, record, &self.links)).await)
        };
        page.get_or_try_init(|| build).await.cloned()
    }

    /// Adds the evidence to a page that was made from the row alone, for a caller that keeps incidents: incident, status, times, title
    /// and suppressed alerts of `page` stay, and so do its notes.
    ///
    /// # Errors
    /// As [`PageSource::page`].
    pub async fn complete(&self, page: Page, record: &AlertRecord) -> Result<Page> {
        let built = Box::pin(self.page(record)).await?;
        let mut evidence = built.evidence;
        let own: Vec<String> =
            page.evidence.notes.iter().filter(|note| !evidence.notes.contains(note)).cloned().collect();
        evidence.notes.splice(0..0, own);
        Ok(Page { evidence, links: built.links, ..page })
    }

    /// Adds to a release its changes against the release that ran before it in its task, and a link to the dashboard.
    ///
    /// # Errors
    /// `Unavailable` or `Data` if the tables cannot be read.
    pub async fn describe(&self, release: ReleaseNotice) -> Result<ReleaseNotice> {
        let settings = SessionSettings { timeout: Some(self.longest_statement), ..SessionSettings::default() };
        let session = Box::pin(Session::open(&self.lake, settings)).await?;
        let task = release.task.as_deref().unwrap_or_default();
        let now = self.lake.clock().now_micros();
        let found = changes_of_release(&session, release.tenant.as_deref(), task, &release.release, now);
        let changes = Box::pin(found).await?.changes;
        let value = |placeholder: &str| match placeholder {
            "tenant" => release.tenant.clone(),
            "task" => release.task.clone(),
            "release" => Some(release.release.clone()),
            "baseline" => release.previous.clone(),
            "from" => Some(release.started_at.div_euclid(1000).to_string()),
            "to" => Some(now.div_euclid(1000).to_string()),
            _ => None,
        };
        let links = self.links.dashboard(value).into_iter().collect();
        Ok(ReleaseNotice { changes, links, ..release })
    }

    /// Opens the tables as an alert saw them or, if these are gone, the newest ones.
    async fn open(&self, record: &AlertRecord) -> Result<Opened> {
        let mut all = self.opened.lock().await;
        if let Some(opened) = all.iter().find(|opened| opened.evaluation == record.evaluation) {
            return Ok(opened.clone());
        }
        let settings =
            EngineSettings { memory_limit_bytes: MEMORY_BYTES, small_files: SMALL_FILES, ..EngineSettings::default() };
        // The row states the version after the last one of `events` that was read.
        let at = [(Table::Metrics, record.metrics_version), (Table::Events, (record.events_version - 1).max(0))];
        let (engine, versions) = match Box::pin(Engine::frozen(&self.lake, settings.clone(), &at)).await {
            Ok(engine) => (engine, Versions::OfAlert),
            Err(_) => (Box::pin(Engine::frozen(&self.lake, settings, &[])).await?, Versions::Newest),
        };
        let opened = Opened { evaluation: record.evaluation, versions, engine, pages: Arc::default() };
        all.push_front(opened.clone());
        all.truncate(OPEN_EVALUATIONS);
        Ok(opened)
    }
}
