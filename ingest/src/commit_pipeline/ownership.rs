//! Transfers partitions between committers.
//!
//! The two tables cannot be changed in one commit, so without precautions a message could land in both: one worker rejects it and
//! stalls, another reads it a moment later, accepts it and commits `events`, and then the first worker's rejection lands.
//! Therefore the first commit of a partition *claims* it, with a number that only grows:
//!
//! 1. in `events`: no earlier claimant can commit rows of the partition there any more;
//! 2. in `quarantine`, with the same number: no earlier claimant can reject its messages any more;
//! 3. then the new owner reads the rejections in `quarantine` beyond `events`: earlier owners can add none to them.
//!
//! A commit requires its claims in the table it writes to. A committer that has lost them is fenced.
//!
//! The third step follows the log of `quarantine` back to a recorded version, at which `quarantine` held nothing beyond `events`.
//! If a later owner rejects a message below the recorded offset, that offset stays. Such rejections advance a counter of their
//! own, by which they are found.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_base::{Backoff, ErrorKind, Result};
use bellwether_lake::{Advance, Commit, EncodedRows, OffsetsOf, Snapshot, WrittenFile};
use bellwether_tables::{AppId, PartitionId, Table};

use super::{CommitReport, Committer, PartitionBatch};
use crate::topic_partition::TopicPartition;

/// Pauses of a committer that has lost its claims before it could commit. Taking over takes seconds on a slow store, so that two
/// owners that never paused would fence each other for ever.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A committer's claim on a partition.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    number: i64,
    /// Offsets rejected by earlier owners that `events` has not passed yet.
    rejected: BTreeSet<i64>,
}

// === impl Committer ===

impl Committer {
    fn partition_of(&self, part: &PartitionBatch) -> PartitionId {
        PartitionId::new(&self.job, &part.range.topic, part.range.partition)
    }

    /// Returns the application id of the claims on a partition, in `events` and `quarantine`.
    fn claim_of(&self, part: &PartitionBatch) -> String {
        AppId::Claim(self.partition_of(part)).to_string()
    }

    /// Returns the application id that records the version of `quarantine` after which it may hold rows beyond `events`.
    fn since_of(&self, part: &PartitionBatch) -> String {
        AppId::Since(self.partition_of(part)).to_string()
    }

    /// Returns the application id that counts rejections below the recorded offset of `quarantine`.
    fn late_of(&self, part: &PartitionBatch) -> String {
        AppId::Late(self.partition_of(part)).to_string()
    }

    /// Returns true if this committer holds the claim on a partition.
    pub(super) fn holds(&self, on: &Snapshot, part: &PartitionBatch) -> bool {
        self.held.get(&part.topic_partition()).is_some_and(|held| on.next(&self.claim_of(part)) == Some(held.number))
    }

    /// Returns advances that do not move, which make a commit conditional on this committer's claims.
    pub(super) fn claims(&self, partitions: &[PartitionBatch]) -> Vec<Advance> {
        let step = |part: &PartitionBatch| {
            let claim = self.held.get(&part.topic_partition())?.number;
            Some(Advance { app_id: self.claim_of(part), expected: Some(claim), next: claim })
        };
        partitions.iter().filter_map(step).collect()
    }

    /// Claims the partitions that this committer does not hold, and reads which of their messages are rejected already.
    pub(super) async fn take_over(
        &mut self,
        mut on: Snapshot,
        partitions: &mut Vec<PartitionBatch>,
        report: &mut CommitReport,
    ) -> Result<Snapshot> {
        let new: Vec<PartitionBatch> = partitions.iter().filter(|part| !self.holds(&on, part)).cloned().collect();
        if new.is_empty() {
            return Ok(on);
        }
        if new.iter().any(|part| self.held.contains_key(&part.topic_partition())) {
            let new = || Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &*self.clock);
            let mut contest = self.contest.take().unwrap_or_else(new);
            let waited = self.wait("claim", "another owner has taken the same partitions", &mut contest).await;
            self.contest = Some(contest);
            waited?;
        }
        let mut claimed: Vec<(PartitionBatch, i64)>;
        loop {
            let next = |part: &PartitionBatch| on.next(&self.claim_of(part)).unwrap_or(0) + 1;
            claimed = new.iter().map(|part| (part.clone(), next(part))).collect();
            let commit = self.claiming(&claimed, &on);
            let (snapshot, landed) = self.settle(&self.events, &on, &commit, "claim").await?;
            on = snapshot;
            if landed {
                break;
            }
        }
        // A partition is lost if another owner has advanced it before the claim, or claimed it afterwards.
        claimed.retain(|(part, claim)| self.is_at(&on, part) && on.next(&self.claim_of(part)) == Some(*claim));
        let on_quarantine = self.claim_in_quarantine(&mut claimed).await?;
        for (part, claim) in &claimed {
            let rejected = match self.is_ahead(&on_quarantine, part) {
                true => self.rejected(&on_quarantine, part).await?,
                false => BTreeSet::new(),
            };
            self.held.insert(part.topic_partition(), Claim { number: *claim, rejected });
        }
        self.on_quarantine = Some(on_quarantine);
        let won =
            |part: &PartitionBatch| claimed.iter().any(|(other, _)| other.topic_partition() == part.topic_partition());
        let was_new = |part: &PartitionBatch| new.iter().any(|other| other.topic_partition() == part.topic_partition());
        self.drop_lost(&on, partitions, report, |part| !was_new(part) || won(part));
        Ok(on)
    }

    /// Commits claims to `quarantine`, and removes those that another committer has claimed since.
    async fn claim_in_quarantine(&self, claimed: &mut Vec<(PartitionBatch, i64)>) -> Result<Snapshot> {
        let mut on = self.load(&self.quarantine).await?;
        loop {
            claimed.retain(|(part, claim)| on.next(&self.claim_of(part)).is_none_or(|known| known < *claim));
            if claimed.is_empty() {
                return Ok(on);
            }
            let commit = self.claiming(claimed, &on);
            let (snapshot, landed) = self.settle(&self.quarantine, &on, &commit, "claim").await?;
            on = snapshot;
            if landed {
                return Ok(on);
            }
        }
    }

    fn claiming(&self, claimed: &[(PartitionBatch, i64)], on: &Snapshot) -> Commit {
        let advances = claimed.iter().map(|(part, claim)| {
            let app_id = self.claim_of(part);
            Advance { expected: on.next(&app_id), app_id, next: *claim }
        });
        Commit { advances: advances.collect(), ..self.commit_of("claim", &[], &[], |_| (None, 0)) }
    }

    /// Returns true if `quarantine` is beyond the start of a range, at which `events` is.
    fn is_ahead(&self, on: &Snapshot, part: &PartitionBatch) -> bool {
        on.next(&self.app_of(part)).is_some_and(|next| next > part.range.from)
    }

    /// Returns the offsets, at or after the start of a range, of messages that this job has rejected.
    async fn rejected(&self, on: &Snapshot, part: &PartitionBatch) -> Result<BTreeSet<i64>> {
        let asked = OffsetsOf {
            app_id: self.app_of(part),
            aside: self.late_of(part),
            // Tables of earlier versions lack this record; the recorded offsets then end the search.
            after: on.next(&self.since_of(part)).unwrap_or(-1),
            until: on.version,
            topic: part.range.topic.clone(),
            partition: part.range.partition,
            from: part.range.from,
        };
        let mut backoff = Backoff::new(&*self.clock);
        loop {
            match self.store.offsets(Table::Quarantine, &asked).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("read", &error.chain(), &mut backoff).await?;
                }
                done => return done,
            }
        }
    }

    /// Returns a commit of rejected messages. Rejections below the recorded offset of `quarantine` do not advance it.
    pub(super) fn rejecting(
        &self,
        files: &[WrittenFile],
        mine: &[PartitionBatch],
        on: &Snapshot,
        moves: bool,
    ) -> Commit {
        let step = |app_id: String, next: i64| Advance { expected: on.next(&app_id), app_id, next };
        if moves {
            let mut commit =
                self.commit_of("quarantine", files, mine, |part| (on.next(&self.app_of(part)), part.range.next));
            let first = mine.iter().filter(|part| !self.is_ahead(on, part));
            commit.advances.extend(first.map(|part| step(self.since_of(part), on.version)));
            return commit;
        }
        let late = |part: &PartitionBatch| {
            let app_id = self.late_of(part);
            let next = on.next(&app_id).unwrap_or(0) + 1;
            step(app_id, next)
        };
        let advances = mine.iter().map(late).chain(self.claims(mine)).collect();
        Commit { advances, ..self.commit_of("quarantine", files, &[], |_| (None, 0)) }
    }

    /// Returns rows without the messages that an earlier owner has rejected.
    pub(super) fn without_rejected(&self, rows: &EncodedRows, partitions: &[PartitionBatch]) -> Result<EncodedRows> {
        let known: Vec<(&TopicPartition, &BTreeSet<i64>)> = self
            .held
            .iter()
            .filter(|(owned, held)| !held.rejected.is_empty() && contains(partitions, owned))
            .map(|(owned, held)| (owned, &held.rejected))
            .collect();
        if known.is_empty() {
            return Ok(rows.clone());
        }
        rows.kept(|topic, partition, offset| {
            !known.iter().any(|(owned, offsets)| {
                *owned.topic == *topic && owned.partition == partition && offsets.contains(&offset)
            })
        })
    }

    /// Drops the rejected offsets that `events` has passed.
    pub(super) fn forget_passed(&mut self, partitions: &[PartitionBatch]) {
        for part in partitions {
            if let Some(held) = self.held.get_mut(&part.topic_partition()) {
                held.rejected = held.rejected.split_off(&part.range.next);
            }
        }
    }
}

fn contains(partitions: &[PartitionBatch], wanted: &TopicPartition) -> bool {
    partitions.iter().any(|part| *part.range.topic == *wanted.topic && part.range.partition == wanted.partition)
}
