//! How a partition changes hands between committers.
//!
//! Two tables have no commit in common, so a message could stand in both: one worker rejects it and stands still, another
//! one reads it a moment later, accepts it and commits `events`, and then the first one's rejection lands. So whoever
//! commits a partition for the first time *claims* it, with a number that only grows:
//!
//! 1. in `events`: nobody who claimed before can commit rows of it there any more;
//! 2. in `quarantine`, with the same number: nobody who claimed before can reject a message of it any more;
//! 3. then what `quarantine` holds beyond `events` is read: it is all that will ever be there from earlier owners.
//!
//! A commit asks for its claims in the table it goes to. One that has lost them is fenced.
//!
//! For the third step the log of `quarantine` is followed back. How far is kept with the number: the version before which
//! there was nothing beyond `events`. Rejections of messages below the number, by an owner that came later, leave it alone;
//! they count up a number of their own, by which they are found.

use std::collections::BTreeSet;

use bellwether_base::{ErrorKind, Result};
use bellwether_lake::{Advance, Commit, EncodedRows, OffsetsOf, Snapshot, WrittenFile};
use bellwether_tables::Table;

use super::{CommitReport, Committer, Touched};

/// Topic and partition.
pub(super) type Place = (String, i32);

/// What a committer knows of a partition that it has taken over.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// The number of its claim.
    claim: i64,
    /// Offsets that `quarantine` held when it was taken over, and `events` has yet to pass.
    rejected: BTreeSet<i64>,
}

pub(super) fn place_of(one: &Touched) -> Place {
    (one.range.topic.clone(), one.range.partition)
}

// === impl Committer ===

impl Committer {
    /// The application of the claims on a partition, in `events` and `quarantine`.
    fn claim_of(&self, one: &Touched) -> String {
        format!("{}/claim", self.app_of(one))
    }

    /// The application of the version of `quarantine` after which there may be something beyond `events`.
    fn since_of(&self, one: &Touched) -> String {
        format!("{}/since", self.app_of(one))
    }

    /// The application that counts rejections of messages below where `quarantine` stands.
    fn late_of(&self, one: &Touched) -> String {
        format!("{}/late", self.app_of(one))
    }

    /// True where the claim on a partition is this committer's.
    pub(super) fn holds(&self, on: &Snapshot, one: &Touched) -> bool {
        self.held.get(&place_of(one)).is_some_and(|held| on.next(&self.claim_of(one)) == Some(held.claim))
    }

    /// The condition that the claims on partitions are this committer's: steps that stay where they are.
    pub(super) fn claims(&self, touched: &[Touched]) -> Vec<Advance> {
        let step = |one: &Touched| {
            let claim = self.held.get(&place_of(one))?.claim;
            Some(Advance { app_id: self.claim_of(one), expected: Some(claim), next: claim })
        };
        touched.iter().filter_map(step).collect()
    }

    /// Claims the partitions that this committer does not hold, and reads which messages of them are rejected already.
    pub(super) async fn take_over(
        &mut self,
        mut on: Snapshot,
        touched: &mut Vec<Touched>,
        report: &mut CommitReport,
    ) -> Result<Snapshot> {
        let new: Vec<Touched> = touched.iter().filter(|one| !self.holds(&on, one)).cloned().collect();
        if new.is_empty() {
            return Ok(on);
        }
        let mut claimed: Vec<(Touched, i64)>;
        loop {
            let next = |one: &Touched| on.next(&self.claim_of(one)).unwrap_or(0) + 1;
            claimed = new.iter().map(|one| (one.clone(), next(one))).collect();
            let commit = self.claiming(&claimed, &on);
            let (snapshot, landed) = self.settle(&self.events, &on, &commit, "claim").await?;
            on = snapshot;
            if landed {
                break;
            }
        }
        // Somebody may have moved a partition before, or claimed it after: such a one is lost.
        claimed.retain(|(one, claim)| self.stands(&on, one) && on.next(&self.claim_of(one)) == Some(*claim));
        let on_quarantine = self.claim_in_quarantine(&mut claimed).await?;
        for (one, claim) in &claimed {
            let rejected = match self.is_ahead(&on_quarantine, one) {
                true => self.rejected(&on_quarantine, one).await?,
                false => BTreeSet::new(),
            };
            self.held.insert(place_of(one), Held { claim: *claim, rejected });
        }
        self.on_quarantine = Some(on_quarantine);
        let won = |one: &Touched| claimed.iter().any(|(other, _)| place_of(other) == place_of(one));
        let was_new = |one: &Touched| new.iter().any(|other| place_of(other) == place_of(one));
        self.drop_lost(&on, touched, report, |one| !was_new(one) || won(one));
        Ok(on)
    }

    /// Puts claims into `quarantine`; those that somebody has claimed after are taken out of the list.
    async fn claim_in_quarantine(&self, claimed: &mut Vec<(Touched, i64)>) -> Result<Snapshot> {
        let mut on = self.load(&self.quarantine).await?;
        loop {
            claimed.retain(|(one, claim)| on.next(&self.claim_of(one)).is_none_or(|known| known < *claim));
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

    fn claiming(&self, claimed: &[(Touched, i64)], on: &Snapshot) -> Commit {
        let advances = claimed.iter().map(|(one, claim)| {
            let app_id = self.claim_of(one);
            Advance { expected: on.next(&app_id), app_id, next: *claim }
        });
        Commit { advances: advances.collect(), ..self.commit_of("claim", &[], &[], |_| (None, 0)) }
    }

    /// True where `quarantine` stands beyond the start of a range, at which `events` stands.
    fn is_ahead(&self, on: &Snapshot, one: &Touched) -> bool {
        on.next(&self.app_of(one)).is_some_and(|next| next > one.range.from)
    }

    /// Offsets at or after the start of a range whose messages this job has rejected.
    async fn rejected(&self, on: &Snapshot, one: &Touched) -> Result<BTreeSet<i64>> {
        let asked = OffsetsOf {
            app_id: self.app_of(one),
            aside: self.late_of(one),
            // Versions before this was kept did not say; the application's own numbers then end the search.
            after: on.next(&self.since_of(one)).unwrap_or(-1),
            until: on.version,
            topic: one.range.topic.clone(),
            partition: one.range.partition,
            from: one.range.from,
        };
        let mut pause = self.first_pause;
        loop {
            match self.store.offsets(Table::Quarantine, &asked).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    self.wait("read", &error.chain(), &mut pause).await?;
                }
                done => return done,
            }
        }
    }

    /// A commit of rejected messages; those of messages below where `quarantine` stands do not move it.
    pub(super) fn rejecting(&self, files: &[WrittenFile], mine: &[Touched], on: &Snapshot, moves: bool) -> Commit {
        let step = |app_id: String, next: i64| Advance { expected: on.next(&app_id), app_id, next };
        if moves {
            let mut commit =
                self.commit_of("quarantine", files, mine, |one| (on.next(&self.app_of(one)), one.range.next));
            let first = mine.iter().filter(|one| !self.is_ahead(on, one));
            commit.advances.extend(first.map(|one| step(self.since_of(one), on.version)));
            return commit;
        }
        let late = |one: &Touched| {
            let app_id = self.late_of(one);
            let next = on.next(&app_id).unwrap_or(0) + 1;
            step(app_id, next)
        };
        let advances = mine.iter().map(late).chain(self.claims(mine)).collect();
        Commit { advances, ..self.commit_of("quarantine", files, &[], |_| (None, 0)) }
    }

    /// Rows without those of messages that an earlier owner has rejected.
    pub(super) fn without_rejected(&self, rows: &EncodedRows, touched: &[Touched]) -> Result<EncodedRows> {
        let known: Vec<(&Place, &BTreeSet<i64>)> = self
            .held
            .iter()
            .filter(|(place, held)| !held.rejected.is_empty() && owns(touched, place))
            .map(|(place, held)| (place, &held.rejected))
            .collect();
        if known.is_empty() {
            return Ok(rows.clone());
        }
        rows.kept(|topic, partition, offset| {
            !known.iter().any(|(place, offsets)| place.0 == topic && place.1 == partition && offsets.contains(&offset))
        })
    }

    /// Forgets rejected messages that `events` has passed.
    pub(super) fn passed(&mut self, touched: &[Touched]) {
        for one in touched {
            if let Some(held) = self.held.get_mut(&place_of(one)) {
                held.rejected = held.rejected.split_off(&one.range.next);
            }
        }
    }
}

fn owns(touched: &[Touched], (topic, partition): &Place) -> bool {
    touched.iter().any(|one| one.range.topic == *topic && one.range.partition == *partition)
}
