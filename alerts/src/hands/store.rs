//! Reads `alert_actions`, and appends to it exactly once.
//!
//! The log counts the actions (`txn(hands/actions)`). A commit is accepted only if the table holds exactly the actions that its
//! writer has read, so an action whose id is known is never added a second time, whoever retries it and whenever.

use bellwether_base::{Error, ErrorKind, Result};
use bellwether_lake::{AddedFile, Advance, Commit, CommitLog, Lake, settle};
use bellwether_tables::{AppId, Table};
use serde_json::Map;

use super::action::{actions, batch};
use super::{Action, Hands};

/// Attempts to append before giving up: each loses only against an action of another person.
const ATTEMPTS: usize = 50;

/// The outcome of [`append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Actions that the table did not have.
    pub added: usize,
    /// Actions that it had already: they were not added again.
    pub known: usize,
}

// === impl Hands ===

impl Hands {
    /// Reads all actions.
    ///
    /// # Errors
    /// `Unavailable` if storage does not answer; `Data` if the table is damaged.
    pub async fn load(lake: &Lake) -> Result<Self> {
        match Self::load_once(lake).await {
            // A file may be vacuumed between being listed and being read.
            Err(error) if error.kind() == ErrorKind::Data => Self::load_once(lake).await,
            loaded => loaded,
        }
    }

    async fn load_once(lake: &Lake) -> Result<Self> {
        let (version, files) = lake.active_files(Table::AlertActions).await?;
        let mut hands = Self::of(read(lake, &files).await?);
        hands.version = version;
        Ok(hands)
    }

    /// Reads the actions that were added since. Returns true if there were any.
    ///
    /// # Errors
    /// As [`Hands::load`].
    pub async fn refresh(&mut self, lake: &Lake) -> Result<bool> {
        let log = lake.log(Table::AlertActions);
        let mut changed = false;
        loop {
            let Some(entry) = log.entry(self.version + 1).await? else {
                if log.is_cleaned_up_at(self.version + 1).await? {
                    *self = Self::load(lake).await?;
                    return Ok(true);
                }
                return Ok(changed);
            };
            // Files that replace others hold the same actions, or, after an erasure, fewer.
            if !entry.removed.is_empty() {
                *self = Self::load(lake).await?;
                return Ok(true);
            }
            match read(lake, &entry.added).await {
                Ok(new) => changed |= self.add(new) > 0,
                Err(error) if error.kind() == ErrorKind::Data => {
                    *self = Self::load(lake).await?;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
            self.version = entry.version;
        }
    }
}

async fn read(lake: &Lake, files: &[AddedFile]) -> Result<Vec<Action>> {
    let mut found = Vec::new();
    for file in files {
        for rows in lake.read(Table::AlertActions, file, None).await? {
            found.extend(actions(&rows)?);
        }
    }
    Ok(found)
}

/// Appends actions, all in one commit, except those that the table has. `hands` is up to date afterwards.
///
/// # Errors
/// `Config` if an action is not valid; `Unavailable` if storage does not answer: repeat it with the same ids.
pub async fn append(lake: &Lake, hands: &mut Hands, new: &[Action]) -> Result<Appended> {
    for action in new {
        action.validate()?;
    }
    let (log, app_id) = (lake.log(Table::AlertActions), AppId::Actions.to_string());
    for _ in 0..ATTEMPTS {
        let on = log.load().await?;
        hands.refresh(lake).await?;
        if hands.version != on.version {
            continue; // Others commit at this moment.
        }
        let mut missing: Vec<Action> = new.iter().filter(|action| !hands.knows(&action.action_id)).cloned().collect();
        missing.sort_by(|a, b| a.action_id.cmp(&b.action_id));
        missing.dedup_by(|a, b| a.action_id == b.action_id);
        let done = Appended { added: missing.len(), known: new.len() - missing.len() };
        if missing.is_empty() {
            return Ok(done);
        }
        let expected = on.next(&app_id);
        let next = expected.unwrap_or(0).saturating_add(i64::try_from(missing.len()).unwrap_or(i64::MAX));
        let files = lake.write(Table::AlertActions, &batch(&missing)?).await?;
        let commit = Commit {
            uuid: lake.clock().unique_id(),
            advances: vec![Advance { app_id: app_id.clone(), expected, next }],
            files: files.into_iter().map(|written| written.file).collect(),
            operation: "hands",
            ranges: Vec::new(),
            facts: Map::new(),
        };
        let unclear = |reason: &str| tracing::warn!(reason, "the outcome of a commit is unknown; trying again");
        let landed = settle(&*lake.clock(), || log.try_commit(&on, &commit), unclear).await?;
        if landed.is_some() {
            hands.refresh(lake).await?;
            return Ok(done);
        }
        lake.discard(Table::AlertActions, &commit.files).await;
    }
    Err(Error::unavailable("too many actions are being recorded at this moment").with_hint("try again"))
}
