//! Announces new releases to sinks that have a place for them, such as change events beside incidents.
//!
//! A release is announced once to each sink: a note under the root says so, which outlives the process. After a kill between the message and
//! its note it is announced again. Releases older than [`RECENT`] at the start are not announced, so that a first start is quiet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Backoff, Result};
use bellwether_evidence::AlertRecord;
use bellwether_follow::Cursor;
use bellwether_lake::{AddedFile, Lake, values_of};
use bellwether_sinks::{Failure, Receipt, ReleaseNotice};
use bellwether_tables::Table;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::deliverer::Deliver;
use crate::destination::micros;
use crate::send::{at_most, within};

/// Age up to which a release is announced.
const RECENT: Duration = Duration::from_secs(24 * 3600);

/// Time between two looks for new releases: they are rarer than alerts, and less urgent.
const INTERVAL: Duration = Duration::from_secs(10);

/// Most log entries of `releases` that are read at once.
const MOST_VERSIONS: usize = 256;

/// Time limit for reading the changes of a release. After it, the release is announced without them.
const DESCRIPTION_TIME: Duration = Duration::from_secs(10);

/// Pauses after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A row of `releases`.
#[derive(Clone, Debug, Deserialize)]
struct ReleaseRow {
    release_id: String,
    task: String,
    stage: String,
    first_seen: i64,
    tenant: Option<String>,
}

/// A release to announce to a sink.
#[derive(Clone, Debug)]
struct Announcement {
    sink: String,
    notice: ReleaseNotice,
}

/// A message under way.
struct Sending {
    announcement: Announcement,
    result: JoinHandle<Result<Option<Receipt>, Failure>>,
}

/// The releases that are known, and what is to be announced of them.
pub(crate) struct Announcer {
    releases: Cursor,
    /// By tenant and task: the first run of each release.
    known: BTreeMap<(String, String), BTreeMap<String, i64>>,
    waiting: VecDeque<Announcement>,
    sending: Option<Sending>,
    /// When to look for new releases again, microseconds since the epoch.
    looks_at: i64,
    pause: Backoff,
    rests_until: i64,
}

// === impl Announcer ===

impl Announcer {
    /// Reads the releases that are known.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub(crate) async fn open(deliver: &Deliver) -> Result<Self> {
        let lake = &deliver.lake;
        let (version, files) = lake.active_files(Table::Releases).await?;
        let mut announcer = Self {
            releases: Cursor::new(lake.log(Table::Releases), version + 1),
            known: BTreeMap::new(),
            waiting: VecDeque::new(),
            sending: None,
            looks_at: lake.clock().now_micros().saturating_add(micros(INTERVAL)),
            pause: Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &*lake.clock()),
            rests_until: i64::MIN,
        };
        announcer.take(deliver, &files).await?;
        Ok(announcer)
    }

    /// Takes in new releases and the last result, and sends the next announcement. Never waits for a sink.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer.
    pub(crate) async fn step(&mut self, deliver: &Deliver) -> Result<()> {
        let now = deliver.lake.clock().now_micros();
        if now >= self.looks_at {
            self.looks_at = now.saturating_add(micros(INTERVAL));
            self.look(deliver).await?;
        }
        self.settle(&deliver.lake).await?;
        self.send_next(deliver).await
    }

    /// Reads new rows of `releases`.
    async fn look(&mut self, deliver: &Deliver) -> Result<()> {
        for entry in self.releases.entries(0, MOST_VERSIONS).await? {
            if entry.brings_rows() {
                let files: Vec<AddedFile> = entry.added.iter().filter(|file| file.data_change).cloned().collect();
                self.take(deliver, &files).await?;
            }
            self.releases.advance_to(entry.version + 1);
        }
        Ok(())
    }

    /// Takes in rows, the oldest first, and plans what is recent.
    async fn take(&mut self, deliver: &Deliver, files: &[AddedFile]) -> Result<()> {
        let lake = &deliver.lake;
        let mut rows: Vec<ReleaseRow> = Vec::new();
        for file in files {
            for batch in lake.read(Table::Releases, file, None).await? {
                rows.extend(values_of::<ReleaseRow>(&batch)?);
            }
        }
        rows.sort_by_key(|row| row.first_seen);
        let oldest = lake.clock().now_micros().saturating_sub(micros(RECENT));
        for row in rows.into_iter().filter(|row| ["canary", "full"].contains(&row.stage.as_str())) {
            let tenant = row.tenant.clone().filter(|tenant| !tenant.is_empty());
            let of_task = self.known.entry((tenant.clone().unwrap_or_default(), row.task.clone())).or_default();
            let is_new = !of_task.contains_key(&row.release_id);
            let first = of_task.entry(row.release_id.clone()).or_insert(row.first_seen);
            *first = row.first_seen.min(*first);
            if !is_new || row.first_seen < oldest {
                continue;
            }
            let before = of_task.iter().filter(|(_, first)| **first < row.first_seen);
            let notice = ReleaseNotice {
                previous: before.max_by_key(|(_, first)| **first).map(|(release, _)| release.clone()),
                release: row.release_id,
                task: Some(row.task),
                tenant,
                started_at: row.first_seen,
                ..ReleaseNotice::default()
            };
            let announced = receivers(deliver, &notice);
            self.waiting.extend(announced.into_iter().map(|sink| Announcement { sink, notice: notice.clone() }));
        }
        Ok(())
    }

    /// Takes in the result of the message under way.
    async fn settle(&mut self, lake: &Lake) -> Result<()> {
        let Some(sending) = self.sending.take_if(|sending| sending.result.is_finished()) else { return Ok(()) };
        let (Announcement { sink, notice }, now) = (&sending.announcement, lake.clock().now_micros());
        let result =
            sending.result.await.unwrap_or_else(|_| Err(Failure::Refused { reason: "it panicked".to_owned() }));
        let (release, task) = (&notice.release, notice.task.as_deref().unwrap_or_default());
        match result {
            Ok(None) => return Ok(()),
            Ok(Some(receipt)) => tracing::info!(sink, release, task, answer = receipt.answer, "announced a release"),
            Err(Failure::Later { reason, after }) => {
                tracing::warn!(sink, release, task, reason, "a release was not announced; trying again");
                let pause = self.pause.pause().max(after.unwrap_or_default());
                self.rests_until = now.saturating_add(micros(pause));
                self.waiting.push_back(sending.announcement);
                return Ok(());
            }
            Err(Failure::Refused { reason }) => {
                tracing::error!(sink, release, task, reason, "a sink refuses the announcement of a release");
            }
        }
        self.pause = Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &*lake.clock());
        lake.note_done(&name_of(&sending.announcement), format!("{{\"at\":{now}}}\n")).await
    }

    /// Sends the next announcement that no process has sent.
    async fn send_next(&mut self, deliver: &Deliver) -> Result<()> {
        let lake = &deliver.lake;
        while self.sending.is_none() && self.rests_until <= lake.clock().now_micros() {
            let Some(announcement) = self.waiting.pop_front() else { return Ok(()) };
            let Some(sink) = deliver.sinks.get(&announcement.sink).cloned() else { continue };
            if lake.is_done(&name_of(&announcement)).await? {
                continue;
            }
            let (notice, clock, builder) = (announcement.notice.clone(), lake.clock(), Arc::clone(&deliver.builder));
            let result = tokio::spawn(async move {
                let described = at_most(builder.describe(notice.clone()), DESCRIPTION_TIME, &*clock).await;
                let notice = match described {
                    Some(Ok(described)) => described,
                    Some(Err(error)) => {
                        let (release, why) = (&notice.release, error.chain());
                        tracing::warn!(release, why, "a release is announced without what it changes");
                        notice
                    }
                    None => notice,
                };
                within(sink.announce(&notice), &*clock).await
            });
            self.sending = Some(Sending { announcement, result });
        }
        Ok(())
    }
}

/// Returns the sinks that show releases and are in a route whose conditions match this release at any severity. Hours are ignored.
/// A condition on any other label, such as the rule, does not match a release.
fn receivers(deliver: &Deliver, release: &ReleaseNotice) -> BTreeSet<String> {
    let alert = |severity: &str| AlertRecord {
        severity: severity.to_owned(),
        tenant: release.tenant.clone(),
        task: release.task.clone(),
        release_id: Some(release.release.clone()),
        ..AlertRecord::default()
    };
    let mut sinks = BTreeSet::new();
    for alert in ["page", "ticket", "info"].map(alert) {
        for route in deliver.settings.routes.iter().filter(|route| route.matcher.matches(&alert)) {
            let shows = |sink: &&String| deliver.sinks.get(*sink).is_some_and(|sink| sink.shows_releases());
            sinks.extend(route.sinks.iter().filter(shows).cloned());
            // Outside its hours, a later route takes the alert.
            if !route.goes_on && route.hours.is_none() {
                break;
            }
        }
    }
    sinks
}

/// Returns the name of the note that a release was announced to a sink.
fn name_of(announcement: &Announcement) -> String {
    let ReleaseNotice { release, task, tenant, .. } = &announcement.notice;
    let parts = [
        announcement.sink.as_str(),
        tenant.as_deref().unwrap_or_default(),
        task.as_deref().unwrap_or_default(),
        release.as_str(),
    ];
    let hash = Sha256::digest(serde_json::json!(parts).to_string().as_bytes());
    let short: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("release-{short}")
}
