//! Pages from the tables of a lake, as they were when an alert was evaluated.

use std::time::Duration;

use bellwether_base::Result;
use bellwether_lake::Lake;
use bellwether_queries::{Engine, EngineSettings, SessionSettings};
use bellwether_sinks::Page;
use bellwether_tables::Table;
use tokio::sync::Mutex;

use crate::links::Links;
use crate::page::{Versions, build, minimal};
use crate::record::AlertRecord;

/// Memory that the statements of one page may take.
const MEMORY_BYTES: usize = 256 << 20;

/// Longest time for one statement, unless the caller is patient. A part that takes longer is absent.
const LONGEST_STATEMENT: Duration = Duration::from_secs(5);

/// The tables at the time of one evaluation. Its alerts share them.
struct Opened {
    evaluation: i64,
    versions: Versions,
    engine: Engine,
}

/// Builds pages from a lake.
pub struct PageSource {
    lake: Lake,
    links: Links,
    longest_statement: Duration,
    opened: Mutex<Option<Opened>>,
}

// === impl PageSource ===

impl PageSource {
    /// Creates a source of pages over a lake.
    pub fn new(lake: Lake, links: Links) -> Self {
        Self { lake, links, longest_statement: LONGEST_STATEMENT, opened: Mutex::new(None) }
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

    /// Returns the page of an alert, with a note in place of what cannot be read. The caller owns the deadline.
    pub async fn page(&self, record: &AlertRecord) -> Page {
        let opened = Box::pin(self.open(record)).await.and_then(|(engine, versions)| {
            let settings = SessionSettings { timeout: Some(self.longest_statement), ..SessionSettings::default() };
            Ok((engine.session(settings)?, versions))
        });
        match opened {
            Ok((session, versions)) => Box::pin(build(&session, &versions, record, &self.links)).await,
            Err(error) => {
                let mut page = self.minimal(record);
                page.evidence.notes.push(format!("The tables cannot be read: {}.", error.message()));
                page
            }
        }
    }

    /// Adds the evidence to a page that was made from the row alone, for a caller that keeps incidents: incident, status, times, title
    /// and suppressed alerts of `page` stay, and so do its notes.
    pub async fn complete(&self, page: Page, record: &AlertRecord) -> Page {
        let built = Box::pin(self.page(record)).await;
        let mut evidence = built.evidence;
        let own: Vec<String> =
            page.evidence.notes.iter().filter(|note| !evidence.notes.contains(note)).cloned().collect();
        evidence.notes.splice(0..0, own);
        Page { evidence, links: built.links, ..page }
    }

    /// Opens the tables as an alert saw them or, if these are gone, the newest ones.
    async fn open(&self, record: &AlertRecord) -> Result<(Engine, Versions)> {
        let mut opened = self.opened.lock().await;
        if let Some(opened) = opened.as_ref().filter(|opened| opened.evaluation == record.evaluation) {
            return Ok((opened.engine.clone(), opened.versions.clone()));
        }
        let settings = EngineSettings { memory_limit_bytes: MEMORY_BYTES, ..EngineSettings::default() };
        // The row states the version after the last one of `events` that was read.
        let at = [(Table::Metrics, record.metrics_version), (Table::Events, (record.events_version - 1).max(0))];
        let (engine, versions) = match Box::pin(Engine::frozen(&self.lake, settings.clone(), &at)).await {
            Ok(engine) => (engine, Versions::OfAlert),
            Err(_) => (Box::pin(Engine::frozen(&self.lake, settings, &[])).await?, Versions::Newest),
        };
        *opened = Some(Opened { evaluation: record.evaluation, versions: versions.clone(), engine: engine.clone() });
        Ok((engine, versions))
    }
}
