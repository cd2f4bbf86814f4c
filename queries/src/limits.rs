//! The limits of a running statement: its time, its memory and its rows, and a client that cancels it.
//!
//! A statement runs in a task of its own. A separate thread watches the clock and the memory of the process, because the task
//! does not pause while the engine folds a constant or compiles a regular expression. When a limit is reached, the reader of
//! the rows receives the error at once, and the task stops at its next pause.
//!
//! Memory has three bounds. The engine's own accounting lets sorts and aggregations spill; functions with a large result
//! bound it (`function/bounded.rs`); and if the program counts its memory ([`Gauge`]), everything else is seen here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bellwether_base::{Error, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::explain::explain;
use crate::settings::{Gauge, SessionSettings};

/// Time between two checks of the clock and the memory, in which a thread can fill about ten megabytes.
const LOOK: Duration = Duration::from_millis(10);

/// Longest wait for a stopped task to reach a pause and return its memory.
const STOP: Duration = Duration::from_secs(2);

/// Batches computed before they are read.
const READY: usize = 1;

/// Memory beyond the limit that the engine does not count: batches between operators, columns being read, the plan.
const BESIDE_BYTES: usize = 64 << 20;

/// Memory between the bound that stops a statement and the bound at which the process gives up.
const LAST_BYTES: usize = 64 << 20;

/// Cancels the statements of a session. Clones cancel the same session.
#[derive(Clone, Debug, Default)]
pub struct Canceller(watch::Sender<()>);

// === impl Canceller ===

impl Canceller {
    /// Stops the statements that the session runs now; their memory is returned.
    pub fn cancel(&self) {
        self.0.send_replace(());
    }
}

/// The reason for stopping a statement.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Time,
    Memory,
}

/// The limits of one statement.
pub(crate) struct Limits {
    timeout: Option<Duration>,
    max_rows: Option<u64>,
    cancelled: watch::Receiver<()>,
    stop: Option<oneshot::Receiver<Stop>>,
    /// Ends the thread when dropped.
    _watchdog: Option<Watchdog>,
}

/// The thread that watches a statement.
struct Watchdog {
    ended: Arc<AtomicBool>,
    thread: Thread,
    gauge: Option<Gauge>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.unpark();
        if let Some(gauge) = self.gauge {
            (gauge.give_up_at)(None);
        }
    }
}

// === impl Limits ===

impl Limits {
    /// Starts watching a statement.
    pub(crate) fn start(settings: &SessionSettings, gauge: Option<Gauge>, canceller: &Canceller) -> Self {
        let (timeout, max_rows) = (settings.timeout, settings.max_rows);
        let cancelled = canceller.0.subscribe();
        let unwatched = Self { timeout, max_rows, cancelled, stop: None, _watchdog: None };
        if timeout.is_none() && gauge.is_none() {
            return unwatched;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let bound = gauge.map(|gauge| {
            let beside = settings.memory_limit_bytes / 4 + BESIDE_BYTES;
            let bound = (gauge.used_bytes)().saturating_add(settings.memory_limit_bytes).saturating_add(beside);
            (gauge.give_up_at)(Some(bound.saturating_add(LAST_BYTES)));
            (gauge, bound)
        });
        let (sender, receiver) = oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let look = move || {
            let mut sender = Some(sender);
            while !over.load(Ordering::Relaxed) {
                let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
                let full = bound.is_some_and(|(gauge, bound)| (gauge.used_bytes)() > bound);
                // The receiver is dropped once the answer is complete.
                if (late || full)
                    && let Some(sender) = sender.take()
                {
                    sender.send(if full { Stop::Memory } else { Stop::Time }).ok();
                }
                // The statement does not pause, so it cannot be stopped, and still takes memory.
                if let Some((gauge, bound)) = bound
                    && (gauge.used_bytes)() > bound.saturating_add(LAST_BYTES)
                {
                    (gauge.give_up)();
                }
                std::thread::park_timeout(LOOK);
            }
        };
        match std::thread::Builder::new().name("limits".to_owned()).spawn(look) {
            Ok(handle) => {
                let watchdog = Watchdog { ended, thread: handle.thread().clone(), gauge };
                Self { stop: Some(receiver), _watchdog: Some(watchdog), ..unwatched }
            }
            // A system that starts no thread runs no statement either.
            Err(_) => unwatched,
        }
    }

    /// Waits for work until a limit is reached.
    pub(crate) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let timeout = self.timeout.unwrap_or_default();
        let (stop, cancelled) = (&mut self.stop, &mut self.cancelled);
        let stopped = async {
            match stop {
                Some(stop) => stop.await.ok(),
                None => None,
            }
        };
        tokio::select! {
            biased; // Finished work counts, even if a limit was reached meanwhile.
            done = work => Ok(done),
            Some(stop) = stopped => Err(match stop {
                Stop::Time => too_long(timeout),
                Stop::Memory => too_much(),
            }),
            Ok(()) = cancelled.changed() => Err(Error::unavailable("the statement was cancelled")),
        }
    }

    /// Returns the rows of a stream, which runs in a task of its own.
    pub(crate) fn stream(self, mut rows: SendableRecordBatchStream) -> BoxStream<'static, Result<RecordBatch>> {
        let (sender, receiver) = mpsc::channel(READY);
        let task = SpawnedTask::spawn(async move {
            while let Some(batch) = rows.next().await {
                if sender.send(batch.map_err(|source| explain(source, &[]))).await.is_err() {
                    return;
                }
            }
        });
        let running = Running { limits: self, receiver, task, rows: 0 };
        futures::stream::unfold(Some(running), |running| async move { running?.next().await }).boxed()
    }
}

/// A statement that is being read.
struct Running {
    limits: Limits,
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    task: SpawnedTask<()>,
    rows: u64,
}

impl Running {
    /// Returns the next rows, and the statement if there may be more.
    async fn next(mut self) -> Option<(Result<RecordBatch>, Option<Self>)> {
        match self.limits.hold(self.receiver.recv()).await {
            Ok(Some(Ok(batch))) => {
                let Some(most) = self.limits.max_rows else { return Some((Ok(batch), Some(self))) };
                let left = most.saturating_sub(self.rows);
                let rows = batch.num_rows() as u64;
                if left == 0 && rows > 0 {
                    return Some((Err(too_many(most)), None));
                }
                // Rows beyond the limit are an error when the next ones are read.
                self.rows = self.rows.saturating_add(rows);
                if rows <= left {
                    return Some((Ok(batch), Some(self)));
                }
                let some = batch.slice(0, usize::try_from(left).unwrap_or(usize::MAX));
                self.receiver.close();
                let (sender, receiver) = mpsc::channel(READY);
                // The channel has room for one.
                drop(sender.try_send(Err(too_many(most))));
                self.receiver = receiver;
                Some((Ok(some), Some(self)))
            }
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => match self.task.join().await {
                Ok(()) => None,
                Err(error) => Some((Err(ended_badly(error)), None)),
            },
            Err(error) => {
                let Self { task, mut receiver, .. } = self;
                // Its memory is returned at its next pause; a task that never pauses is left behind.
                drop(task);
                let ended = async { while receiver.recv().await.is_some() {} };
                drop(tokio::time::timeout(STOP, ended).await);
                Some((Err(error), None))
            }
        }
    }
}

/// Adds pauses to the operators that may make many rows of few: a join of two small tables can work for hours, and a task
/// stops only at its pauses.
pub(crate) fn with_pauses(plan: Arc<dyn ExecutionPlan>) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
    let paused = plan.transform_up(|node| {
        let name = node.name();
        if name.ends_with("JoinExec") || ["UnnestExec", "RecursiveQueryExec", "WindowAggExec"].contains(&name) {
            return Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as _));
        }
        Ok(Transformed::no(node))
    })?;
    Ok(paused.data)
}

/// Explains a task that the engine itself ended.
pub(crate) fn ended_badly(error: tokio::task::JoinError) -> Error {
    // A column of texts holds 2 GiB, and the engine panics beyond that; only the message distinguishes this panic from others.
    if error.is_panic() && error.to_string().contains("overflow") {
        return too_much().with_source(error);
    }
    Error::bug("the query engine stopped in the middle of a statement").with_source(error)
}

/// Start of the message about a statement that ran too long.
const TOOK_LONGER: &str = "the query took longer than";

pub(crate) fn too_long(timeout: Duration) -> Error {
    Error::unavailable(format!("{TOOK_LONGER} {} s", timeout.as_secs_f64()))
        .with_hint("narrow it by time or columns, or raise --timeout")
}

/// Returns true if an error says that a statement ran too long.
pub fn timed_out(error: &Error) -> bool {
    error.message().starts_with(TOOK_LONGER)
}

fn too_much() -> Error {
    Error::unavailable("the query needs more memory than this session may use")
        .with_hint("narrow it by time or columns, or raise --memory-limit")
}

fn too_many(most: u64) -> Error {
    Error::unavailable(format!("the answer has more than {most} rows; only the first {most} are returned"))
        .with_hint("add LIMIT or aggregate, or raise --max-rows")
}
