//! Connects the role to what people say about alerts, and to the evidence in the tables.

use std::sync::Arc;

use async_trait::async_trait;
use bellwether_alerts::hands::{Hands as Said, matched_labels};
use bellwether_base::Result;
use bellwether_deliver::{Acknowledgement, Hands, PageBuilder, Silences};
use bellwether_evidence::{AlertRecord, Links, PageSource};
use bellwether_lake::Lake;
use bellwether_sinks::{Page, ReleaseNotice};
use tokio::sync::Mutex;

/// Silences and acknowledgements of the table `alert_actions`.
pub(super) struct People {
    lake: Lake,
    read: Mutex<Option<Read>>,
}

/// The actions that were read, and the state that they make.
struct Read {
    said: Said,
    present: Arc<Present>,
}

struct Present(Said);

/// Evidence from the tables.
pub(super) struct Evidence(PageSource);

// === impl People ===

impl People {
    pub(super) fn new(lake: Lake) -> Self {
        Self { lake, read: Mutex::new(None) }
    }
}

#[async_trait]
impl Hands for People {
    async fn now(&self) -> Result<Arc<dyn Silences>> {
        let mut read = self.read.lock().await;
        match &mut *read {
            Some(read) => {
                if read.said.refresh(&self.lake).await? {
                    read.present = Arc::new(Present(read.said.clone()));
                }
                Ok(Arc::<Present>::clone(&read.present))
            }
            None => {
                let said = Said::load(&self.lake).await?;
                let present = Arc::new(Present(said.clone()));
                *read = Some(Read { said, present: Arc::clone(&present) });
                Ok(present)
            }
        }
    }
}

// === impl Present ===

impl Silences for Present {
    fn silenced(&self, alert: &AlertRecord, at: i64) -> Option<String> {
        let labels = matched_labels(&alert.rule, &alert.severity, &alert.labels);
        let silence = self.0.silenced(&labels, &alert.alert_id, at)?;
        let reason = silence.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(format!("silenced by {}{reason}", silence.person))
    }

    fn acknowledged(&self, alert: &AlertRecord, since: i64, at: i64) -> Option<Acknowledgement> {
        let ack = self.0.acknowledged(&alert.alert_id, since, at)?;
        Some(Acknowledgement { person: ack.person.clone(), at: ack.at, until: ack.until, note: ack.reason.clone() })
    }
}

// === impl Evidence ===

impl Evidence {
    pub(super) fn new(lake: Lake, links: Links) -> Self {
        Self(PageSource::new(lake, links))
    }
}

#[async_trait]
impl PageBuilder for Evidence {
    async fn build(&self, page: Page, alert: &AlertRecord) -> Result<Page> {
        Box::pin(self.0.complete(page, alert)).await
    }

    async fn describe(&self, release: ReleaseNotice) -> Result<ReleaseNotice> {
        Box::pin(self.0.describe(release)).await
    }
}
