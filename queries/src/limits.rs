//! What holds a running statement to its time, its memory and its rows.
//!
//! A statement runs in a task of its own. Beside it, a thread looks at the clock and at the memory of the process: neither
//! needs a pause in the work, of which there is none while a constant is folded or a regular expression compiled. Whoever
//! waits for rows is told, and the task is stopped at its next pause.
//!
//! Memory has three bounds. The engine's own accounting lets sorts and aggregations spill; functions with a large result know
//! theirs (`function/bounded.rs`); and where the program counts its memory ([`Gauge`]), all else is seen here.

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
use tokio::sync::{mpsc, oneshot};

use crate::explain::explain;
use crate::session::SessionSettings;

/// Between two looks at the clock and the memory: in so short a time a thread fills some ten megabytes.
const LOOK: Duration = Duration::from_millis(10);

/// Wait for a stopped task to come to a pause and give its memory back.
const STOP: Duration = Duration::from_secs(2);

/// Batches that are ready before they are asked for.
const READY: usize = 1;

/// Memory beyond the limit that is not the engine's to count: batches on their way, columns being read, the plan.
const BESIDE_BYTES: usize = 64 << 20;

/// Memory between the bound at which a statement is stopped and the one at which the process gives up.
const LAST_BYTES: usize = 64 << 20;

/// The memory of a process that does nothing but run statements.
#[derive(Clone, Copy, Debug)]
pub struct Gauge {
    /// Bytes that it holds.
    pub used_bytes: fn() -> usize,
    /// Sets the bytes at which the process gives up; none: never. What is asked for in one piece is seen by nobody else.
    pub give_up_at: fn(Option<usize>),
    /// Gives up.
    pub give_up: fn(),
}

/// Why a statement is stopped.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Time,
    Memory,
}

/// The limits of one statement.
pub(crate) struct Limits {
    timeout: Option<Duration>,
    max_rows: Option<u64>,
    stop: Option<oneshot::Receiver<Stop>>,
    /// Ends with it.
    _watched: Option<Watched>,
}

/// The thread that looks, while this is there.
struct Watched {
    ended: Arc<AtomicBool>,
    thread: Thread,
    gauge: Option<Gauge>,
}

impl Drop for Watched {
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
    /// Begins to watch.
    pub(crate) fn of(settings: &SessionSettings) -> Self {
        let (timeout, max_rows) = (settings.timeout, settings.max_rows);
        let unwatched = Self { timeout, max_rows, stop: None, _watched: None };
        if timeout.is_none() && settings.gauge.is_none() {
            return unwatched;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let bound = settings.gauge.map(|gauge| {
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
                // Nobody waits any more where the answer is there.
                if (late || full)
                    && let Some(sender) = sender.take()
                {
                    sender.send(if full { Stop::Memory } else { Stop::Time }).ok();
                }
                // It was told to stop, makes no pause, and goes on taking memory.
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
                let watched = Watched { ended, thread: handle.thread().clone(), gauge: settings.gauge };
                Self { stop: Some(receiver), _watched: Some(watched), ..unwatched }
            }
            // A system without threads to give runs no statement either.
            Err(_) => unwatched,
        }
    }

    /// Waits for work, as long as the limits allow.
    pub(crate) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let timeout = self.timeout.unwrap_or_default();
        let Some(stop) = &mut self.stop else { return Ok(work.await) };
        tokio::select! {
            biased; // What is done is done.
            done = work => Ok(done),
            Ok(stop) = stop => Err(match stop {
                Stop::Time => too_long(timeout),
                Stop::Memory => too_much(),
            }),
        }
    }

    /// The rows of a stream, which runs in a task of its own.
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

/// A statement whose rows are being read.
struct Running {
    limits: Limits,
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    task: SpawnedTask<()>,
    rows: u64,
}

impl Running {
    /// The next rows, and what is left to read.
    async fn next(mut self) -> Option<(Result<RecordBatch>, Option<Self>)> {
        match self.limits.hold(self.receiver.recv()).await {
            Ok(Some(Ok(batch))) => {
                let Some(most) = self.limits.max_rows else { return Some((Ok(batch), Some(self))) };
                let left = most.saturating_sub(self.rows);
                let rows = batch.num_rows() as u64;
                if left == 0 && rows > 0 {
                    return Some((Err(too_many(most)), None));
                }
                // Those that are over are told about when the next are asked for.
                self.rows = self.rows.saturating_add(rows);
                if rows <= left {
                    return Some((Ok(batch), Some(self)));
                }
                let some = batch.slice(0, usize::try_from(left).unwrap_or(usize::MAX));
                self.receiver.close();
                let (sender, receiver) = mpsc::channel(READY);
                // There is room for one.
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
                // What it holds goes back when it comes to a pause; one that never pauses is left behind.
                drop(task);
                let ended = async { while receiver.recv().await.is_some() {} };
                drop(tokio::time::timeout(STOP, ended).await);
                Some((Err(error), None))
            }
        }
    }
}

/// A plan that pauses now and then in what may make many rows of few: a join of two small tables can be at work for hours, and
/// a task is stopped at its pauses only.
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

/// A task that the engine has ended by itself.
pub(crate) fn ended_badly(error: tokio::task::JoinError) -> Error {
    // Columns of texts end at 2 GiB, and the engine finds that out when it is there.
    if error.is_panic() && error.to_string().contains("overflow") {
        return too_much().with_source(error);
    }
    Error::bug("the query engine has stopped in the middle of a statement").with_source(error)
}

pub(crate) fn too_long(timeout: Duration) -> Error {
    Error::unavailable(format!("the query took longer than {} s", timeout.as_secs_f64()))
        .with_hint("narrow it by time or columns, or raise --timeout")
}

fn too_much() -> Error {
    Error::unavailable("the query needs more memory than this session may use")
        .with_hint("narrow it by time or columns, or raise --memory-limit")
}

fn too_many(most: u64) -> Error {
    Error::unavailable(format!("the answer has more than {most} rows; the first of them are there"))
        .with_hint("add LIMIT or aggregate, or raise --max-rows")
}
