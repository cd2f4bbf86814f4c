//! Decides from the seed which runnable task runs next.
//!
//! It runs in a single-threaded runtime. Tasks that libraries spawn there finish before time advances, so that the speed of
//! the machine has no influence.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use futures::future::LocalBoxFuture;
use tokio::runtime::Handle;

use super::random::Random;
use super::time::VirtualClock;

/// Turns within which the tasks of libraries must finish.
const TURNS_OF_LIBRARIES: usize = 1_000_000;

/// A simulated process: its tasks die together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) u64);

struct Task {
    process: ProcessId,
    future: LocalBoxFuture<'static, ()>,
}

#[derive(Default)]
struct Ready(Mutex<BTreeSet<u64>>);

struct Wakes {
    task: u64,
    ready: Arc<Ready>,
}

/// The tasks of all processes.
pub(crate) struct Scheduler {
    clock: VirtualClock,
    random: Random,
    tasks: BTreeMap<u64, Task>,
    ready: Arc<Ready>,
    next: u64,
}

// === impl Ready ===

impl Ready {
    fn add(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
    }

    fn draw(&self, random: &mut Random) -> Option<u64> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = ready.len() as u64;
        let task = *ready.iter().nth(random.below(count.max(1)) as usize)?;
        ready.remove(&task);
        Some(task)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.task);
    }
}

// === impl Scheduler ===

impl Scheduler {
    pub(crate) fn new(clock: VirtualClock, seed: u64) -> Self {
        let random = Random::new(seed, "order");
        Self { clock, random, tasks: BTreeMap::new(), ready: Arc::default(), next: 0 }
    }

    /// Starts a task of a process.
    pub(crate) fn spawn(&mut self, process: ProcessId, task: impl Future<Output = ()> + 'static) {
        // All our tasks are one task of the runtime, whose cooperative budget would be too small for them.
        let future = Box::pin(tokio::task::unconstrained(task));
        self.tasks.insert(self.next, Task { process, future });
        self.ready.add(self.next);
        self.next += 1;
    }

    /// Drops all tasks of a process.
    pub(crate) fn kill(&mut self, process: ProcessId) {
        self.tasks.retain(|_, task| task.process != process);
    }

    /// Runs one task until it waits, or advances time if no task can run. False if nothing can ever happen again.
    pub(crate) async fn step(&mut self) -> bool {
        loop {
            while let Some(id) = self.ready.draw(&mut self.random) {
                let Some(task) = self.tasks.get_mut(&id) else { continue };
                let waker = Waker::from(Arc::new(Wakes { task: id, ready: Arc::clone(&self.ready) }));
                if Pin::new(&mut task.future).poll(&mut Context::from_waker(&waker)).is_ready() {
                    self.tasks.remove(&id);
                }
                return true;
            }
            self.let_libraries_work().await;
            if self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty() && !self.clock.move_on() {
                return false;
            }
        }
    }

    /// Waits until every task that libraries spawned has finished or has woken one of ours.
    async fn let_libraries_work(&self) {
        for _ in 0..TURNS_OF_LIBRARIES {
            let woken = !self.ready.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            if woken || Handle::current().metrics().num_alive_tasks() == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a library's task does not finish");
    }
}
