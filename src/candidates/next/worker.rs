//! Work beside the screen: takes candidates ahead of the reviewer, reads them, and sends statements in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether_base::{ErrorKind, Result};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::candidates::Candidate;
use crate::candidates::case::Case;
use crate::candidates::content::Part;
use crate::candidates::desk::Desk;
use crate::candidates::statement::{Decision, Lease, Review, Statement, now};

/// Candidates that are kept at hand, the one on the screen included.
const AHEAD: usize = 4;

/// Pause after a look at the queue that found nothing to take.
const PAUSE: Duration = Duration::from_secs(3);

/// Something to do for the screen.
#[derive(Debug)]
pub(super) enum Order {
    Review(Candidate, Lease, Review),
    /// Takes a decision back, and takes the candidate again.
    Reopen(Candidate),
    /// Moves the end of a lease.
    Prolong(Candidate, Lease),
    Fetch(String, &'static str, Part),
}

/// Something that the screen shows.
#[derive(Debug)]
pub(super) enum News {
    /// A candidate is at hand. It is confirmed if the tables say that this reviewer has it.
    Case {
        case: Box<Case>,
        lease: Lease,
        confirmed: bool,
    },
    /// Candidates that wait for a decision, in all.
    Waiting(usize),
    /// There is nothing to take now.
    Nothing,
    /// Candidates cannot be taken now, and why.
    Trouble(String),
    Sent(String),
    /// A statement was not sent, and why. It may be made again unless the state of the candidate forbids it.
    NotSent {
        id: String,
        why: String,
        again: bool,
    },
    /// A candidate has this lease now.
    Lease(String, Lease),
    Fetched(String, &'static str, std::result::Result<String, String>),
}

struct Worker {
    desk: Desk,
    length: Duration,
    news: UnboundedSender<News>,
    /// Candidates on the screen or ahead of it, with their leases.
    at_hand: BTreeMap<String, (Candidate, Lease)>,
    /// Candidates that the screen does not show again by itself.
    done: BTreeSet<String>,
    pause: Duration,
}

/// Works until the screen is closed and all its orders are done, then gives back what is at hand.
pub(super) async fn work(
    desk: Desk,
    length: Duration,
    mut orders: UnboundedReceiver<Order>,
    news: UnboundedSender<News>,
) {
    let (at_hand, done) = (BTreeMap::new(), BTreeSet::new());
    let mut worker = Worker { desk, length, news, at_hand, done, pause: Duration::ZERO };
    loop {
        tokio::select! {
            // Decisions go before further candidates.
            biased;
            order = orders.recv() => match order {
                Some(order) => Box::pin(worker.obey(order)).await,
                None => return worker.end().await,
            },
            () = tokio::time::sleep(worker.pause), if worker.at_hand.len() < AHEAD => {
                worker.pause = match Box::pin(worker.supply()).await {
                    Ok(0) => PAUSE,
                    Ok(_) => Duration::ZERO,
                    Err(error) => {
                        worker.tell(News::Trouble(error.to_string()));
                        PAUSE
                    }
                };
            }
        }
    }
}

// === impl Worker ===

impl Worker {
    fn tell(&self, news: News) {
        // Nobody listens once the screen is closed.
        drop(self.news.send(news));
    }

    /// Takes candidates until enough are at hand. Returns their number.
    async fn supply(&mut self) -> Result<usize> {
        let without: BTreeSet<String> = self.at_hand.keys().chain(&self.done).cloned().collect();
        self.tell(News::Waiting(self.desk.waiting().await?));
        let wanted = self.desk.free(&without, AHEAD - self.at_hand.len()).await?;
        if wanted.is_empty() {
            self.tell(News::Nothing);
            return Ok(0);
        }
        let taken = self.desk.take(wanted, self.length).await?;
        let found = taken.mine.len() + taken.unseen.len() + taken.lost.len();
        let confirmed = taken.mine.into_iter().map(|one| (one, true));
        for ((candidate, lease), confirmed) in confirmed.chain(taken.unseen.into_iter().map(|one| (one, false))) {
            let id = candidate.candidate_id.clone();
            match Case::load(&self.desk.session, candidate.clone()).await {
                Ok(case) => {
                    self.at_hand.insert(id, (candidate, lease.clone()));
                    self.tell(News::Case { case: Box::new(case), lease, confirmed });
                }
                Err(error) => {
                    // Others may be able to read it; this screen does not try again.
                    self.done.insert(id.clone());
                    self.desk.leave([&(candidate, lease)]).await?;
                    self.tell(News::Trouble(format!("candidate {id} cannot be read: {error}")));
                }
            }
        }
        Ok(found)
    }

    /// Gives back what is at hand, so that others need not wait for the leases to run out.
    async fn end(self) {
        if let Err(error) = self.desk.leave(self.at_hand.values()).await {
            self.tell(News::Trouble(error.to_string()));
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Review(candidate, lease, review) => {
                let id = candidate.candidate_id.clone();
                self.at_hand.remove(&id);
                self.done.insert(id.clone());
                let sent = self.review(&candidate, &lease, review).await;
                let news = match sent {
                    Ok(()) => News::Sent(id),
                    Err(error) => {
                        let again = error.kind() != ErrorKind::Config;
                        if again {
                            self.at_hand.insert(id.clone(), (candidate, lease));
                        }
                        News::NotSent { id, why: error.to_string(), again }
                    }
                };
                self.tell(news);
            }
            Order::Reopen(candidate) => {
                let id = candidate.candidate_id.clone();
                let until = now() + i64::try_from(self.length.as_micros()).unwrap_or(0);
                let lease = Lease::new(until);
                let back = Statement::Review(Review::of(Decision::Unsure));
                let said = [(&candidate, back), (&candidate, Statement::Lease(lease.clone()))];
                let sent = self.desk.send(said).await;
                self.at_hand.insert(id.clone(), (candidate, lease.clone()));
                self.tell(match sent {
                    Ok(()) => News::Lease(id, lease),
                    Err(error) => News::NotSent { id, why: error.to_string(), again: true },
                });
            }
            Order::Prolong(candidate, lease) => {
                let id = candidate.candidate_id.clone();
                match self.desk.prolong(&candidate, &lease, self.length).await {
                    Ok(lease) => {
                        self.at_hand.insert(id.clone(), (candidate, lease.clone()));
                        self.tell(News::Lease(id, lease));
                    }
                    Err(error) => self.tell(News::Trouble(error.to_string())),
                }
            }
            Order::Fetch(id, name, part) => {
                let (command, news) = (self.desk.config.evals.fetch_content.clone(), self.news.clone());
                // A slow command must not hold up decisions.
                tokio::task::spawn_blocking(move || {
                    let text = part.fetch(&command).map_err(|error| error.to_string());
                    drop(news.send(News::Fetched(id, name, text)));
                });
            }
        }
    }

    /// Sends a review. Under a lease that ran out, the present state of the candidate must allow it.
    async fn review(&self, candidate: &Candidate, lease: &Lease, review: Review) -> Result<()> {
        match lease.until > now() {
            true => self.desk.send([(candidate, Statement::Review(review))]).await,
            false => self.desk.review(&candidate.candidate_id, review).await.map(|_| ()),
        }
    }
}
