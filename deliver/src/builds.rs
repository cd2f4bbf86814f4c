//! Builds of evidence: for messages that wait for it, and for pages that were sent without it.
//!
//! A build that is too late for its message is cancelled. The evidence that follows is built later, when no new page waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Backoff, Clock, Error, Result};
use bellwether_sinks::Page;
use bellwether_sinks::page::Status;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{Id, JoinSet};

use crate::destination::micros;
use crate::page::PageBuilder;
use crate::planner::{Draft, Planner};

/// Most builds at the same time. A build mostly plans statements, which takes processor time, and a machine may have only two processors.
const AT_ONCE: usize = 4;

/// Time limit for a build. Its statements have limits of their own; this one covers storage that does not answer.
const LONGEST_BUILD: Duration = Duration::from_secs(60);

/// Shortest and longest pause before an incident whose build failed is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A page with its evidence, and the evaluation of the row that it was built for.
pub(crate) struct Completed {
    pub(crate) evaluation: i64,
    pub(crate) page: Page,
}

/// Receives a page with its evidence; `None` until the page is complete.
pub(crate) type Awaited = watch::Receiver<Option<Page>>;

/// A build under way, and the state of the incident that it describes.
struct Running {
    incident: String,
    evaluation: i64,
    status: Status,
    ready: Arc<watch::Sender<Option<Page>>>,
}

/// Retries of an incident whose build failed.
struct Failing {
    pauses: Backoff,
    not_before: i64,
}

/// The builds of a deliverer.
pub(crate) struct Builds {
    builder: Arc<dyn PageBuilder>,
    clock: Arc<dyn Clock>,
    /// Woken when a build ends.
    ended: Arc<Notify>,
    places: Arc<Semaphore>,
    /// The result is `None` for a build that was cancelled.
    tasks: JoinSet<Option<Result<Completed>>>,
    running: HashMap<Id, Running>,
    /// The build of evidence that follows its page: one at a time, so that most places are left to new pages.
    following: Option<Id>,
    failing: HashMap<String, Failing>,
}

// === impl Builds ===

impl Builds {
    pub(crate) fn new(builder: Arc<dyn PageBuilder>, clock: Arc<dyn Clock>, ended: Arc<Notify>) -> Self {
        let (places, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        let (running, failing) = (HashMap::new(), HashMap::new());
        Self { builder, clock, ended, places, tasks, running, following: None, failing }
    }

    /// Returns true if a build is under way.
    pub(crate) fn are_under_way(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Builds the page of a message, or joins the build that another sink waits for. The build is cancelled once no message waits for it.
    pub(crate) fn for_message(&mut self, draft: &Draft) -> Awaited {
        let same = |running: &&Running| {
            (running.incident.as_str(), running.evaluation, running.status)
                == (draft.page.incident.as_str(), draft.alert.evaluation, draft.page.status)
        };
        if let Some(running) = self.running.values().find(same) {
            return running.ready.subscribe();
        }
        let (ready, awaited) = watch::channel(None);
        self.start(draft.clone(), ready, true);
        awaited
    }

    /// Builds the evidence of the next page that was sent without it, unless such a build is still under way or a new page waits:
    /// a build would take processor time from the new page.
    pub(crate) fn follow(&mut self, planner: &Planner) {
        let now = self.clock.now_micros();
        let is_awaited = self.running.values().any(|running| running.ready.receiver_count() > 0);
        if self.following.is_some() || is_awaited || planner.has_waiting_news(now) {
            return;
        }
        let under_way: HashSet<&str> = self.running.values().map(|running| running.incident.as_str()).collect();
        let rests = |key: &str| self.failing.get(key).is_some_and(|failing| now < failing.not_before);
        let next = planner.incomplete().find(|(_, key)| !under_way.contains(key) && !rests(key));
        if let Some(draft) = next.and_then(|(id, key)| planner.draft(id, key)) {
            self.following = Some(self.start(draft, watch::channel(None).0, false));
        }
    }

    /// Starts a build. With `given_up`, it is cancelled once no message waits for it.
    fn start(&mut self, draft: Draft, ready: watch::Sender<Option<Page>>, given_up: bool) -> Id {
        let (builder, clock) = (Arc::clone(&self.builder), Arc::clone(&self.clock));
        let (places, ended, ready) = (Arc::clone(&self.places), Arc::clone(&self.ended), Arc::new(ready));
        let running = Running {
            incident: draft.page.incident.clone(),
            evaluation: draft.alert.evaluation,
            status: draft.page.status,
            ready: Arc::clone(&ready),
        };
        let evaluation = draft.alert.evaluation;
        let build = async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await.ok();
            tokio::select! {
                built = builder.build(draft.page, &draft.alert) => built,
                () = clock.sleep(LONGEST_BUILD) => {
                    Err(Error::unavailable(format!("it took longer than {} s", LONGEST_BUILD.as_secs())))
                }
            }
        };
        let task = async move {
            let built = tokio::select! {
                built = build => Some(built),
                () = ready.closed(), if given_up => None,
            };
            if let Some(Ok(page)) = &built {
                ready.send_replace(Some(page.clone()));
            }
            ended.notify_one();
            built.map(|built| built.map(|page| Completed { evaluation, page }))
        };
        let id = self.tasks.spawn(task).id();
        self.running.insert(id, running);
        id
    }

    /// Returns the pages that were completed since the last call.
    pub(crate) fn completed(&mut self) -> Vec<Completed> {
        let mut completed = Vec::new();
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let (id, built) = match ended {
                Ok((id, built)) => (id, built.map(|built| built.map_err(|error| error.chain()))),
                Err(error) => (error.id(), Some(Err(error.to_string()))),
            };
            self.following = self.following.filter(|following| *following != id);
            let Some(Running { incident, .. }) = self.running.remove(&id) else { continue };
            match built {
                Some(Ok(page)) => {
                    self.failing.remove(&incident);
                    completed.push(page);
                }
                Some(Err(why)) => self.rest(incident, &why),
                None => {}
            }
        }
        completed
    }

    /// Delays the next build of an incident whose build failed.
    fn rest(&mut self, incident: String, why: &str) {
        tracing::warn!(incident, why, "the evidence of an alert could not be made");
        let clock = Arc::clone(&self.clock);
        // Forget incidents whose pauses have long been over, such as those that have ended.
        let now = clock.now_micros();
        self.failing.retain(|_, failing| now < failing.not_before.saturating_add(micros(LONGEST_PAUSE)));
        let new = || Failing { pauses: Backoff::between(FIRST_PAUSE, LONGEST_PAUSE, &*clock), not_before: 0 };
        let failing = self.failing.entry(incident).or_insert_with(new);
        failing.not_before = now.saturating_add(micros(failing.pauses.pause()));
    }
}
