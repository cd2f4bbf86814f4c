//! An ingest worker: the real open batch and committing task, around the scripted source. This file does what librdkafka
//! does in production: fetching, seeking and reporting rebalances.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::{Clock, Error, ErrorKind, Result};
use bellwether_ingest::commit_pipeline::{CommitReport, Observer, app_id};
use bellwether_ingest::source::open_batch::OpenBatch;
use bellwether_ingest::{FlushSettings, Message, TopicPartition};
use bellwether_lake::{CommitLog, Snapshot};

use super::control::{Control, CrashPoint};
use super::protocol::{JOB, TOPIC};
use super::scheduler::ProcessId;
use super::source::{Broker, Group};

/// Like the constants of the real source, for a smaller world.
const LOAD_TRIES: usize = 40;
const LOAD_PAUSE: Duration = Duration::from_millis(250);
const REVOKE_WAIT_MICROS: i64 = 5_000_000;

/// A simulated worker.
pub(crate) struct Worker {
    pub(crate) number: usize,
    pub(crate) process: ProcessId,
    pub(crate) control: Control,
    pub(crate) broker: Rc<Broker>,
    pub(crate) group: Rc<RefCell<Group>>,
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) flush: FlushSettings,
    pub(crate) open: OpenBatch,
    /// The next offset to fetch, which the client keeps apart from the batch.
    pub(crate) fetch: BTreeMap<i32, i64>,
}

/// Records retries and commits of the committer in the trace.
pub(crate) struct Heard {
    pub(crate) process: ProcessId,
    pub(crate) control: Control,
}

impl Observer for Heard {
    fn retrying(&self, what: &'static str, reason: &str) {
        self.control.note(self.process, format_args!("tries `{what}` again: {reason}"));
    }

    fn committed(&self, report: &CommitReport) {
        let (rows, rejected) = (report.event_rows, report.quarantine_rows);
        self.control.note(self.process, format_args!("committed {rows} rows, {rejected} rejected"));
    }
}

pub(crate) fn topic_partition(partition: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, partition)
}

impl Worker {
    /// Reads until it fails.
    pub(crate) async fn run(mut self) {
        let error = loop {
            if let Err(error) = self.turn().await {
                break error;
            }
        };
        self.control.stopped(self.process, &error);
        std::future::pending::<()>().await;
    }

    /// Runs one round of the polling loop, in the same order as in production.
    async fn turn(&mut self) -> Result<()> {
        self.settle_replies().await?;
        for (rewound, next) in self.open.take_rewinds()? {
            self.control.note(self.process, format_args!("reads {rewound} again from {next:?}"));
            self.fetch.insert(rewound.partition, next.unwrap_or(0));
            if let Some(next) = next {
                self.control.acknowledge(rewound.partition, next);
            }
        }
        self.hear_of_rebalances().await?;
        let (full, old) = self.open.due(&self.flush, self.control.clock.now_micros());
        let held_back = (full || old) && !self.open.hand_over()?;
        if !(held_back && full) {
            self.poll();
        }
        let pause = self.control.chance(|chance| chance.between(1_000, 60_000));
        self.control.clock.sleep(Duration::from_micros(pause.unsigned_abs())).await;
        Ok(())
    }

    async fn settle_replies(&mut self) -> Result<()> {
        while let Ok(reply) = self.open.replies.try_recv() {
            self.control.pass(self.process, CrashPoint::BeforeAcknowledgement).await;
            let report = self.open.settle(reply)?;
            for range in &report.committed {
                self.control.acknowledge(range.partition, range.next);
            }
        }
        Ok(())
    }

    /// Takes a few messages from each partition.
    fn poll(&mut self) {
        let now = self.control.clock.now_micros();
        let many = self.control.chance(|chance| chance.between(1, 4));
        let partitions: Vec<i32> = self.fetch.keys().copied().collect();
        for partition in partitions {
            for _ in 0..many {
                let fetch = self.fetch[&partition];
                let Some(stored) = self.broker.fetch(partition, fetch, now) else { break };
                let message = Message {
                    topic: TOPIC,
                    partition,
                    offset: stored.offset,
                    timestamp_micros: Some(stored.at_micros),
                    payload: stored.payload.as_deref(),
                    ..Message::default()
                };
                self.open.take(&topic_partition(partition), &message, now);
                self.fetch.insert(partition, stored.offset + 1);
            }
        }
    }

    async fn hear_of_rebalances(&mut self) -> Result<()> {
        let believed = self.group.borrow().believed(self.number, self.control.clock.now_micros());
        let held: BTreeSet<i32> = self.fetch.keys().copied().collect();
        let lost: Vec<i32> = held.difference(&believed).copied().collect();
        let won: Vec<i32> = believed.difference(&held).copied().collect();
        if !lost.is_empty() {
            self.revoke(&lost).await?;
        }
        if !won.is_empty() {
            self.assign(&won).await?;
        }
        Ok(())
    }

    async fn revoke(&mut self, lost: &[i32]) -> Result<()> {
        let deadline = self.control.clock.now_micros() + REVOKE_WAIT_MICROS;
        while !self.open.all_settled()? && self.control.clock.now_micros() < deadline {
            self.control.clock.sleep(Duration::from_millis(20)).await;
            self.settle_replies().await?;
        }
        for partition in lost {
            self.open.release(&topic_partition(*partition))?;
            self.fetch.remove(partition);
        }
        self.control.note(self.process, format_args!("lets go of {lost:?}"));
        Ok(())
    }

    async fn assign(&mut self, won: &[i32]) -> Result<()> {
        let snapshot = self.load().await?;
        for partition in won {
            let next = snapshot.next(&app_id(JOB, TOPIC, *partition));
            self.open.assign(&topic_partition(*partition), next);
            self.fetch.insert(*partition, next.unwrap_or(0));
            if let Some(next) = next {
                self.control.acknowledge(*partition, next);
            }
            self.control.note(self.process, format_args!("reads {partition} from {next:?}"));
        }
        Ok(())
    }

    async fn load(&self) -> Result<Snapshot> {
        for _ in 0..LOAD_TRIES {
            match self.log.load().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => self.control.clock.sleep(LOAD_PAUSE).await,
                done => return done,
            }
        }
        Err(Error::unavailable("the table does not say where it stands"))
    }
}
