//! The desk of a reviewer: what is in the queue, who has taken what, and statements to the topic.
//!
//! Statements travel over Kafka and ingest. A lease therefore holds once the tables have it: of several people who take a candidate
//! at once, the first in the topic gets it, and all of them read the same tables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_lake::StorageOptions;
use bellwether_queries::{Session, SessionSettings, quoted};
use clap::Args;

use super::case::Case;
use super::filter::FilterArgs;
use super::statement::{Lease, Review, Statement, allowed, now};
use super::{Candidate, find, statement};
use crate::config::Config;
use crate::replay::publish;
use crate::root::open_to_read;

/// Longest wait until a lease is in the tables, and the time between two looks at them.
const ARRIVAL: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(250);

/// A reviewer, and where statements go.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeskArgs {
    /// Configuration file that names the tables and Kafka.
    #[arg(long, short, value_name = "FILE", env = "BELLWETHER_CONFIG")]
    config: PathBuf,
    /// Your pseudonym; it is stored.
    #[arg(long, value_name = "NAME", env = "BELLWETHER_REVIEWER", value_parser = statement::reviewer)]
    reviewer: String,
}

/// The desk of a reviewer.
pub(super) struct Desk {
    pub(super) config: Config,
    pub(super) session: Session,
    pub(super) reviewer: String,
    /// The part of the queue from which candidates are taken.
    pub(super) wanted: FilterArgs,
}

/// The result of taking candidates.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) mine: Vec<(Candidate, Lease)>,
    /// Candidates that somebody else was quicker to take, and who.
    pub(super) lost: Vec<(Candidate, String)>,
    /// Candidates of which no lease has arrived in the tables.
    pub(super) unseen: Vec<(Candidate, Lease)>,
}

// === impl Desk ===

impl Desk {
    /// Opens the tables.
    ///
    /// # Errors
    /// `Config` if the configuration is invalid or there are no tables; `Unavailable` if storage does not respond.
    pub(super) async fn open(args: &DeskArgs) -> Result<Self> {
        let config = Config::load(&args.config)?;
        let options = StorageOptions(config.tables.options.clone());
        let lake = open_to_read(&config.tables.root, &options).await?;
        let session = Session::open(&lake, SessionSettings::default()).await?;
        Ok(Self { config, session, reviewer: args.reviewer.clone(), wanted: FilterArgs::default() })
    }

    /// Takes candidates from a part of the queue only.
    pub(super) fn of(self, wanted: &FilterArgs) -> Self {
        Self { wanted: wanted.clone(), ..self }
    }

    /// Returns the first candidates of its part of the queue that this reviewer may take and that are not in `without`.
    ///
    /// # Errors
    /// As the session's statements.
    pub(super) async fn free(&self, without: &BTreeSet<String>, most: usize) -> Result<Vec<Candidate>> {
        let me = quoted(&self.reviewer);
        let without: Vec<String> = without.iter().map(|id| quoted(id)).collect();
        let without = match without.is_empty() {
            true => String::new(),
            false => format!("AND c.candidate_id NOT IN ({})", without.join(", ")),
        };
        let wanted = self.wanted.condition();
        // A second review is one by another person.
        let sql = format!(
            "SELECT c.* FROM current_candidates AS c WHERE {wanted} AND (c.state IN ('queued', 'second_review') \
             OR c.state = 'leased' AND c.leased_by = {me}) {without} AND (c.decisions = 0 OR c.run_id NOT IN (\
             SELECT run_id FROM events WHERE event_type = 'run.review' AND reviewer = {me} \
             AND review_decision IN ('accept', 'edit', 'reject'))) ORDER BY c.priority LIMIT {most}"
        );
        self.session.rows(&sql).await
    }

    /// Returns how many candidates of its part of the queue wait for a decision.
    ///
    /// # Errors
    /// As the session's statements.
    pub(super) async fn waiting(&self) -> Result<usize> {
        #[derive(serde::Deserialize)]
        struct Count {
            waiting: usize,
        }
        let sql = format!("SELECT count(*) AS waiting FROM review_queue WHERE {}", self.wanted.condition());
        let rows: Vec<Count> = self.session.rows(&sql).await?;
        Ok(rows.first().map_or(0, |row| row.waiting))
    }

    /// Takes candidates for a while, and waits until the tables say who has them. Those that somebody else has are given up.
    ///
    /// # Errors
    /// `Unavailable` if the broker or storage does not respond.
    pub(super) async fn take(&self, wanted: Vec<Candidate>, length: Duration) -> Result<Taken> {
        let until = now() + i64::try_from(length.as_micros()).unwrap_or(0);
        let mut leases: BTreeMap<String, (Candidate, Lease)> = wanted
            .into_iter()
            .map(|candidate| (candidate.candidate_id.clone(), (candidate, Lease::new(until))))
            .collect();
        self.send(leases.values().map(|(candidate, lease)| (candidate, Statement::Lease(lease.clone())))).await?;
        let mut taken = Taken::default();
        let mut waited = Duration::ZERO;
        while !leases.is_empty() && waited < ARRIVAL {
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
            let holders = self.holders(leases.keys()).await?;
            for (id, holder) in holders {
                let Some(held) = leases.remove(&id) else { continue };
                match holder == self.reviewer {
                    true => taken.mine.push(held),
                    false => {
                        self.leave([&held]).await?;
                        taken.lost.push((held.0, holder));
                    }
                }
            }
        }
        taken.unseen = leases.into_values().collect();
        let place = |one: &(Candidate, Lease)| one.0.priority;
        taken.mine.sort_by_key(place);
        taken.unseen.sort_by_key(place);
        Ok(taken)
    }

    /// Returns who holds candidates by a lease or, for those that are decided, whether this reviewer's lease has arrived.
    async fn holders(&self, ids: impl Iterator<Item = &String>) -> Result<Vec<(String, String)>> {
        #[derive(serde::Deserialize)]
        struct Holder {
            candidate_id: String,
            leased_by: String,
        }
        let ids: Vec<String> = ids.map(|id| quoted(id)).collect();
        // A decided candidate that a reviewer takes for another opinion is leased by nobody in the view.
        let sql = format!(
            "SELECT c.candidate_id, coalesce(max(c.leased_by), max(e.reviewer)) AS leased_by FROM current_candidates AS c \
             LEFT JOIN events AS e ON e.event_type = 'run.review' AND e.run_id = c.run_id AND e.reviewer = {} \
             AND e.review_leased_until > now() AND c.state NOT IN ('queued', 'second_review', 'leased') \
             WHERE c.candidate_id IN ({}) GROUP BY c.candidate_id \
             HAVING coalesce(max(c.leased_by), max(e.reviewer)) IS NOT NULL",
            quoted(&self.reviewer),
            ids.join(", ")
        );
        let rows: Vec<Holder> = self.session.rows(&sql).await?;
        Ok(rows.into_iter().map(|row| (row.candidate_id, row.leased_by)).collect())
    }

    /// Moves the end of a lease.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not accept it.
    pub(super) async fn prolong(&self, candidate: &Candidate, lease: &Lease, length: Duration) -> Result<Lease> {
        let moved = lease.moved(now() + i64::try_from(length.as_micros()).unwrap_or(0));
        self.send([(candidate, Statement::Lease(moved.clone()))]).await?;
        Ok(moved)
    }

    /// Ends leases, so that others may take the candidates at once.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not accept it.
    pub(super) async fn leave<'a>(&self, held: impl IntoIterator<Item = &'a (Candidate, Lease)>) -> Result<()> {
        self.send(held.into_iter().map(|(candidate, lease)| (candidate, Statement::Lease(lease.moved(now()))))).await
    }

    /// States a review, if the present state of the candidate allows it. Returns the candidate as it was before.
    ///
    /// # Errors
    /// `Config` if it is not allowed, as [`allowed`]; `Unavailable` if the broker does not accept it.
    pub(super) async fn review(&self, id: &str, review: Review) -> Result<Candidate> {
        let case = self.checked(id, review.eval_case).await?;
        self.send([(&case.candidate, Statement::Review(review))]).await?;
        Ok(case.candidate)
    }

    /// Returns a candidate about which this reviewer may decide now.
    ///
    /// # Errors
    /// `Config` if there is no such candidate, or as [`allowed`].
    pub(super) async fn checked(&self, id: &str, eval_case: bool) -> Result<Case> {
        let candidate = find(&self.session, id).await?;
        let case = Case::load(&self.session, candidate).await?;
        allowed(&case.candidate, &case.said(), &self.reviewer, eval_case, now())?;
        Ok(case)
    }

    /// Returns the event of a statement. Ingest redacts events one by one, so an answer that people write is redacted here: its
    /// placeholders must not mean other values than those of the run.
    ///
    /// # Errors
    /// `Config` if the contract does not allow a value; otherwise as the session's statements.
    pub(super) async fn event(&self, candidate: &Candidate, mut said: Statement) -> Result<String> {
        if let Some(expected) = said.expected_mut() {
            let contents = self.contents(candidate).await?;
            let mut session = self.config.redactor.session_of(contents.as_bytes());
            *expected = serde_json::from_str(&session.json(&expected.to_string()))
                .map_err(|source| Error::bug("a redacted answer is not JSON").with_source(source))?;
        }
        let event = said.event(candidate, &self.reviewer, now());
        // A value that ingest would cut or leave out is an error here, so that its author can correct it.
        if let Some(problem) = bellwether_event::problems(&event).first() {
            let field = problem.pointer.trim_start_matches("/data/");
            return Err(Error::config(format!("the review has a wrong `{field}`: {}", problem.message))
                .with_hint("nothing was sent"));
        }
        Ok(event.to_string())
    }

    /// Returns the texts of a run, with their placeholders; empty if its events are no longer kept.
    async fn contents(&self, candidate: &Candidate) -> Result<String> {
        #[derive(serde::Deserialize)]
        struct Contents {
            content_json: Option<String>,
            steps_json: Option<String>,
        }
        let sql = format!("SELECT content_json, steps_json FROM runs WHERE {}", candidate.is_run());
        let rows: Vec<Contents> = self.session.rows(&sql).await?;
        let texts = rows.into_iter().flat_map(|row| [row.content_json, row.steps_json]).flatten();
        Ok(texts.collect::<Vec<_>>().join("\n"))
    }

    /// Sends statements in their order.
    ///
    /// # Errors
    /// `Unavailable` if the broker does not accept them, or as [`Desk::event`].
    pub(super) fn send<'a>(
        &self,
        said: impl IntoIterator<Item = (&'a Candidate, Statement)>,
    ) -> impl Future<Output = Result<()>> + Send {
        // The iterator does not live as long as the requests.
        let said: Vec<(Candidate, Statement)> =
            said.into_iter().map(|(candidate, one)| (candidate.clone(), one)).collect();
        async move {
            let mut events = Vec::new();
            for (candidate, one) in said {
                events.push(self.event(&candidate, one).await?);
            }
            match events.is_empty() {
                true => Ok(()),
                false => publish(&self.config, &events).await,
            }
        }
    }
}

/// Makes the error of a lease that has not arrived in the tables.
pub(super) fn not_arrived(candidate: &Candidate) -> Error {
    let id = &candidate.candidate_id;
    Error::unavailable(format!("the lease of candidate {id} is not in the tables after {} s", ARRIVAL.as_secs()))
        .with_hint("check that `bellwether ingest` or `bellwether run` reads this topic; the lease was sent")
}
