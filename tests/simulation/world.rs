//! One simulated run: processes, the events that hit them, and the rules checked against every commit.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use bellwether_aggregate::Compared;
use bellwether_aggregate::recompute::{first_difference, folded, recompute};
use bellwether_aggregate::rollup::compare::{Sides, compare};
use bellwether_aggregate::rollup::{Rollup, RollupSettings};
use bellwether_aggregate::{Aggregate, event_columns};
use bellwether_base::{Clock, Error, Result};
use bellwether_event::Limits;
use bellwether_follow::Until;
use bellwether_ingest::commit_pipeline::{CommitTarget, Committer, DataStore};
use bellwether_ingest::source::open_batch::OpenBatch;
use bellwether_ingest::worker::commit_all;
use bellwether_ingest::{BatchBuilder, FlushSettings, IngestMetrics};
use bellwether_lake::commit::faulty::{Fault, FaultyLog};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_lake::rollup::{kept_from, rolled_to};
use bellwether_lake::{AddedFile, CommitLog, Handover, Lake, LogEntry, MaintainSettings, RollUp};
use bellwether_tables::Table;
use futures::future::LocalBoxFuture;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::control::{Control, CrashPoint, Violation};
use super::ledger::{Landed, Ledger};
use super::protocol::{FaultyData, JOB, MemoryData, Mutation, Row, WatchedData, WatchedLog, rows_of};
use super::random::Random;
use super::scheduler::{ProcessId, Scheduler};
use super::source::{Broker, Group};
use super::store::{FaultyStore, Objects, Role, contents};
use super::time::VirtualClock;
use super::worker::{Heard, Worker};

/// 2026-11-24T18:00:00Z.
const START_MICROS: i64 = 1_795_543_200_000_000;
/// Work must be finished this long after the last fault: twice the longest pause of each role.
const RESUMES_WITHIN_MICROS: i64 = 120_000_000;
const SECOND: i64 = 1_000_000;
const WORKERS: usize = 2;

/// The parts of the system that a run simulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Ingestion on the in-memory implementation of the commit trait.
    Memory,
    /// Ingestion on the Delta log, in a faulty object store.
    Delta,
    /// Like `Delta`, with aggregation, roll-ups and maintenance.
    Whole,
}

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) scene: Scene,
    pub(crate) mutation: Mutation,
    /// Each worker reads all partitions, so that they fence each other all the time.
    pub(crate) contested: bool,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) trace: Vec<String>,
    pub(crate) contents: String,
    pub(crate) crashed_at: BTreeSet<CrashPoint>,
    pub(crate) faults: BTreeSet<Fault>,
    pub(crate) commits: usize,
}

/// An event from outside the processes.
#[derive(Clone, Copy, Debug)]
enum Event {
    Rebalance,
    Kill,
    Outage(i64),
    Restart(Part),
    EndOfFaults,
}

/// The task of a process, which it keeps after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Worker(usize),
    Aggregate,
    Rollup,
    Maintain,
}

#[derive(Clone, Default)]
struct Tables {
    events: MemoryLog,
    quarantine: MemoryLog,
    data: MemoryData,
    objects: Objects,
}

type Spawned = Rc<RefCell<Vec<(ProcessId, LocalBoxFuture<'static, ()>)>>>;

struct World {
    plan: Plan,
    control: Control,
    clock: VirtualClock,
    scheduler: Scheduler,
    random: Random,
    broker: Rc<Broker>,
    group: Rc<RefCell<Group>>,
    tables: Tables,
    handover: Option<Handover>,
    flush: FlushSettings,
    spawned: Spawned,
    events: Rc<RefCell<Vec<Event>>>,
    running: BTreeMap<ProcessId, Part>,
    processes: u64,
    ledger: Ledger,
    /// The last checked versions of `events` and `quarantine`.
    seen: [i64; 2],
    faults_end: bool,
    faults_end_micros: i64,
    /// When the run last checked whether it had caught up, which costs more than a step.
    asked_micros: i64,
    /// A reader without faults.
    reader: Option<Lake>,
}

/// Runs a plan and returns its result.
pub(crate) fn run(plan: Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { Box::pin(World::new(plan).await.play()).await })
}

// === impl World ===

impl World {
    async fn new(plan: Plan) -> Self {
        let Plan { seed, scene, .. } = plan;
        let mut random = Random::new(seed, "world");
        let clock = VirtualClock::new(START_MICROS, seed);
        let one_in = random.between(6, 60).unsigned_abs();
        let control = Control::new(seed, clock.clone(), one_in);
        let (messages, span) = if scene == Scene::Whole { (12, 12 * SECOND) } else { (24, 20 * SECOND) };
        let broker = Rc::new(Broker::script(&mut random, START_MICROS, span, messages));
        let flush = FlushSettings {
            interval: Duration::from_millis(random.between(100, 1500).unsigned_abs()),
            max_bytes: 1 << 20,
            max_rows: random.between(2, 12).unsigned_abs() as usize,
            channel_batches: random.between(1, 3).unsigned_abs() as usize,
        };
        let objects = Objects::default();
        let reader = match scene {
            Scene::Memory => None,
            _ => {
                let store = Arc::clone(&objects.inner);
                Some(Lake::on_store(store, Arc::new(clock.clone())).await.expect("memory opens"))
            }
        };
        let handover = (scene == Scene::Whole && random.one_in(2)).then(|| Handover::new(1 << 20, event_columns()));
        Self {
            plan,
            scheduler: Scheduler::new(clock.clone(), seed),
            group: Rc::new(RefCell::new(Group::new(WORKERS, plan.contested))),
            tables: Tables { objects, ..Tables::default() },
            handover,
            flush,
            spawned: Rc::default(),
            events: Rc::default(),
            running: BTreeMap::new(),
            processes: 0,
            ledger: Ledger::new(Rc::clone(&broker)),
            seen: [if scene == Scene::Memory { -1 } else { 0 }; 2],
            faults_end: false,
            asked_micros: 0,
            faults_end_micros: START_MICROS + span + random.between(0, 15) * SECOND,
            reader,
            control,
            clock,
            random,
            broker,
        }
    }

    /// Draws the events of the run and starts all processes.
    fn begin(&mut self) {
        let whole = self.plan.scene == Scene::Whole;
        let span = self.faults_end_micros - START_MICROS;
        let mut script = vec![(0, Event::Rebalance), (span, Event::EndOfFaults)];
        for _ in 0..self.random.below(5) {
            script.push((self.random.between(0, span), Event::Rebalance));
        }
        for _ in 0..self.random.below(3) {
            script.push((self.random.between(0, span), Event::Kill));
        }
        for _ in 0..self.random.below(3) {
            let length = self.random.between(SECOND, 15 * SECOND);
            script.push((self.random.between(0, span), Event::Outage(length)));
        }
        for (after, event) in script {
            self.later(after, event);
        }
        for _ in 0..self.random.below(4) {
            self.control.arm(self.random.of(&CrashPoint::INGEST), 1 + self.random.below(6));
        }
        if whole {
            // Points in turn, so that a few seeds reach all of them, and a random one. Two in each run, since not every run
            // gets to every point.
            let turn =
                |shift: u64| CrashPoint::BEYOND[((self.plan.seed + shift) % CrashPoint::BEYOND.len() as u64) as usize];
            self.control.arm(self.random.of(&CrashPoint::BEYOND), 1 + self.random.below(3));
            self.control.arm(turn(0), 1);
            self.control.arm(turn(CrashPoint::BEYOND.len() as u64 / 2), 1);
        }
        (0..WORKERS).for_each(|number| self.start(Part::Worker(number)));
        if whole {
            self.start(Part::Aggregate);
            // Two processes, of which the second competes without a lease: they fence each other.
            self.start(Part::Rollup);
            self.start(Part::Rollup);
            self.start(Part::Maintain);
        }
    }

    fn later(&mut self, micros: i64, event: Event) {
        let (clock, events) = (self.clock.clone(), Rc::clone(&self.events));
        let wait = Duration::from_micros(micros.max(0).unsigned_abs());
        self.scheduler.spawn(ProcessId(0), async move {
            clock.sleep(wait).await;
            events.borrow_mut().push(event);
        });
    }

    fn start(&mut self, part: Part) {
        self.processes += 1;
        let process = ProcessId(self.processes);
        self.running.insert(process, part);
        self.control.note(process, format_args!("starts as {part:?}"));
        let control = self.control.clone();
        let task: LocalBoxFuture<'static, Result<()>> = match part {
            Part::Worker(number) => Box::pin(self.worker(process, number)),
            Part::Aggregate => Box::pin(self.aggregate(process)),
            Part::Rollup => Box::pin(self.rollup(process)),
            Part::Maintain => Box::pin(self.maintain(process)),
        };
        self.scheduler.spawn(process, async move {
            if let Err(error) = task.await {
                control.stopped(process, &error);
            }
        });
    }

    fn store(&self, process: ProcessId, role: Role) -> Arc<FaultyStore> {
        let (objects, control) = (self.tables.objects.clone(), self.control.clone());
        let (thread, mutation) = (std::thread::current().id(), self.plan.mutation);
        Arc::new(FaultyStore { objects, control, process, role, thread, mutation, owed: Arc::default() })
    }

    fn worker(&self, process: ProcessId, number: usize) -> impl Future<Output = Result<()>> + use<> {
        let (control, clock, tables) = (self.control.clone(), self.clock.clone(), self.tables.clone());
        let (broker, group) = (Rc::clone(&self.broker), Rc::clone(&self.group));
        let (flush, handover, spawned) = (self.flush.clone(), self.handover.clone(), Rc::clone(&self.spawned));
        let Plan { scene, mutation, .. } = self.plan;
        let store = self.store(process, Role::Worker);
        async move {
            let (data, events, quarantine): (Arc<dyn DataStore>, Arc<dyn CommitLog>, Arc<dyn CommitLog>) =
                if scene == Scene::Memory {
                    let data = tables.data.clone();
                    let (quarantine, owed) = (tables.quarantine.clone(), Mutex::default());
                    let data = FaultyData { data, quarantine, process, control: control.clone(), mutation, owed };
                    let log = |inner: MemoryLog| {
                        let (faults, clock) = (control.clone(), Arc::new(clock.clone()));
                        Arc::new(FaultyLog::with(inner, Box::new(move |call| faults.fault(process, call)), clock))
                    };
                    (Arc::new(data), log(tables.events), log(tables.quarantine))
                } else {
                    let lake = Lake::on_store(store, Arc::new(clock.clone())).await?;
                    let log = |table| Arc::new(lake.log(table));
                    (Arc::new(lake.clone()), log(Table::Events), log(Table::Quarantine))
                };
            let seen = MemoryData::default();
            let watched = |table, inner| {
                let (control, seen) = (control.clone(), seen.clone());
                Arc::new(WatchedLog { inner, table, process, control, mutation, seen }) as Arc<dyn CommitLog>
            };
            let data =
                Arc::new(WatchedData { inner: data, process, control: control.clone(), mutation, seen: seen.clone() });
            let log = watched(Table::Events, events);
            let heard = Arc::new(Heard { process, control: control.clone() });
            let quarantine = watched(Table::Quarantine, quarantine);
            let stop = CancellationToken::new();
            let handed_on = handover.as_ref().map_or(&[] as &[_], Handover::columns);
            let committer =
                Committer::new(CommitTarget { store: data, events: Arc::clone(&log), quarantine }, JOB, heard, stop)
                    .with_clock(Arc::new(clock.clone()))
                    .with_handover(handover);
            let (batches, waiting) = tokio::sync::mpsc::channel(flush.channel_batches);
            let (reply, replies) = std::sync::mpsc::channel();
            let builder = BatchBuilder::new(Limits::default()).handing_on(handed_on)?;
            let open = OpenBatch::new(builder, batches, replies, flush.channel_batches);
            let metrics = IngestMetrics::register(&Registry::new())?;
            let committing = commit_all(committer, waiting, reply, metrics, Arc::new(clock.clone()));
            spawned.borrow_mut().push((process, Box::pin(committing)));
            let worker = Worker { number, process, control, broker, group, log, flush, open, fetch: BTreeMap::new() };
            Box::pin(worker.run()).await;
            Ok(())
        }
    }

    fn aggregate(&self, process: ProcessId) -> impl Future<Output = Result<()>> + use<> {
        let (store, clock) = (self.store(process, Role::Aggregate), self.clock.clone());
        let handover = self.handover.clone();
        async move {
            let lake = Lake::on_store(store, Arc::new(clock)).await?;
            let aggregate = Aggregate { handover, ..Aggregate::new(lake) };
            let stop = CancellationToken::new();
            Box::pin(bellwether_aggregate::run(aggregate, Registry::new(), Until::Stopped, stop)).await
        }
    }

    fn rollup(&self, process: ProcessId) -> impl Future<Output = Result<()>> + use<> {
        let (store, clock) = (self.store(process, Role::Rollup), self.clock.clone());
        async move {
            let lake = Lake::on_store(store, Arc::new(clock)).await?;
            let settings = RollupSettings {
                interval: Duration::from_secs(2),
                days_interval: Duration::from_secs(4),
                ..RollupSettings::default()
            };
            let rollup = Rollup { settings, ..Rollup::new(lake) };
            let stop = CancellationToken::new();
            Box::pin(bellwether_aggregate::rollup::run(rollup, Registry::new(), Until::Stopped, stop)).await
        }
    }

    fn maintain(&self, process: ProcessId) -> impl Future<Output = Result<()>> + use<> {
        let (store, clock, control) = (self.store(process, Role::Maintain), self.clock.clone(), self.control.clone());
        async move {
            let lake = Lake::on_store(store, Arc::new(clock.clone())).await?;
            let settings = MaintainSettings { checkpoint_versions: 4, compact_files: 2, ..MaintainSettings::default() };
            loop {
                // Often, so that it rewrites files while there are still faults.
                let pause = control.chance(|chance| chance.between(SECOND / 4, SECOND));
                clock.sleep(Duration::from_micros(pause.unsigned_abs())).await;
                for table in [Table::Events, Table::Metrics, Table::MetricsHourly, Table::Quarantine] {
                    match Box::pin(lake.maintain(table, &settings)).await {
                        Ok(done) => control.note(process, format_args!("maintains {}: {done:?}", table.name())),
                        Err(error) if error.kind() == bellwether_base::ErrorKind::Unavailable => {
                            control.note(process, format_args!("maintains {} later", table.name()));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    async fn play(mut self) -> Outcome {
        self.begin();
        let mut landings = 0;
        loop {
            let goes_on = self.scheduler.step().await;
            for (process, task) in self.spawned.borrow_mut().drain(..) {
                self.scheduler.spawn(process, task);
            }
            let happening = std::mem::take(&mut *self.events.borrow_mut());
            happening.into_iter().for_each(|event| self.happen(event));
            self.bury();
            if self.control.landings() != landings {
                landings = self.control.landings();
                if let Err(violation) = self.look().await {
                    self.control.violated(violation.rule, violation.what);
                }
            }
            if self.control.violation().is_some() {
                break;
            }
            if !goes_on || self.clock.now_micros() > self.faults_end_micros + RESUMES_WITHIN_MICROS {
                let stands = self.control.acknowledged();
                self.control
                    .violated("L-6", format!("work has not resumed after the last fault; stands at {stands:?}"));
                break;
            }
            if self.faults_end && self.caught_up_now().await {
                if let Err(violation) = Box::pin(self.at_the_end()).await {
                    self.control.violated(violation.rule, violation.what);
                }
                break;
            }
        }
        let contents = contents(&self.tables.objects).await;
        Outcome {
            violation: self.control.violation(),
            trace: self.control.trace(),
            contents: format!("{}\n{contents}", self.ledger.lines()),
            crashed_at: self.control.crashed_at(),
            faults: self.control.faults_met(),
            commits: self.ledger.lines().lines().count(),
        }
    }

    fn happen(&mut self, event: Event) {
        self.control.note(ProcessId(0), format_args!("{event:?}"));
        let now = self.clock.now_micros();
        match event {
            Event::Rebalance => {
                let partitions: Vec<i32> = self.broker.ids().collect();
                self.group.borrow_mut().rebalance(&mut self.random, &partitions, now);
            }
            Event::Kill => {
                let all: Vec<ProcessId> = self.running.keys().copied().collect();
                if !all.is_empty() {
                    self.control.kill(self.random.of(&all));
                }
            }
            Event::Outage(length) => self.control.outage(now + length),
            Event::Restart(part) => self.start(part),
            Event::EndOfFaults => {
                self.control.end_of_faults();
                self.faults_end = true;
            }
        }
    }

    /// Removes dead processes and schedules their restarts.
    fn bury(&mut self) {
        for (process, why) in self.control.take_dying() {
            let Some(part) = self.running.remove(&process) else { continue };
            self.control.note(process, format_args!("dies: {why}"));
            self.scheduler.kill(process);
            let pause = self.random.between(SECOND / 10, 3 * SECOND);
            self.later(pause, Event::Restart(part));
        }
    }

    /// Checks the rules against the commits since the last check.
    async fn look(&mut self) -> std::result::Result<(), Violation> {
        for landed in self.landed(1).await {
            self.ledger.quarantine(&landed)?;
        }
        for landed in self.landed(0).await {
            self.ledger.events(&landed)?;
        }
        self.ledger.acknowledged(&self.control.acknowledged())
    }

    async fn landed(&mut self, which: usize) -> Vec<Landed> {
        let table = [Table::Events, Table::Quarantine][which];
        let mut all = Vec::new();
        match &self.reader {
            None => {
                let log = if which == 0 { &self.tables.events } else { &self.tables.quarantine };
                let commits = log.commits();
                for commit in commits.iter().skip(usize::try_from(self.seen[which] + 1).expect("a count")) {
                    self.seen[which] += 1;
                    let rows = |path: &str| self.tables.data.rows(path);
                    all.push(Landed {
                        version: self.seen[which],
                        id: commit.uuid.to_string(),
                        advances: commit.advances.iter().map(|one| (one.app_id.clone(), one.next)).collect(),
                        ranges: commit.ranges.clone(),
                        files: commit.files.iter().map(|file| (file.path.clone(), rows(&file.path))).collect(),
                    });
                }
            }
            Some(reader) => {
                while let Some(entry) =
                    reader.log(table).entry(self.seen[which] + 1).await.expect("a log entry is whole")
                {
                    self.seen[which] += 1;
                    if entry.operation != "OPTIMIZE" {
                        all.push(landed_of(reader, table, entry).await);
                    }
                }
            }
        }
        all
    }

    /// Checks at most a few times per simulated second whether the run has caught up.
    async fn caught_up_now(&mut self) -> bool {
        let now = self.clock.now_micros();
        if now < self.asked_micros + SECOND / 4 {
            return false;
        }
        self.asked_micros = now;
        self.caught_up().await
    }

    async fn caught_up(&self) -> bool {
        let acknowledged = self.control.acknowledged();
        if !self.broker.ids().all(|partition| acknowledged.get(&partition) == Some(&self.broker.end(partition))) {
            return false;
        }
        let (Scene::Whole, Some(reader)) = (self.plan.scene, &self.reader) else { return true };
        let taken = reader.log(Table::Metrics).load().await.expect("memory loads").next("aggregate/0").unwrap_or(0);
        for version in (taken.max(1)..).take_while(|version| *version <= self.seen[0]) {
            let entry = reader.log(Table::Events).entry(version).await.expect("memory reads");
            if entry.is_some_and(|entry| entry.brings_rows()) {
                return false;
            }
        }
        for rollup in RollUp::ALL {
            let source = reader.log(rollup.source()).load().await.expect("memory loads");
            let on = reader.log(rollup.table()).load().await.expect("memory loads");
            if rolled_to(&on) < rollup.source_end(&source) {
                return false;
            }
        }
        true
    }

    /// Compares each roll-up with its source.
    async fn check_rollups(reader: &Lake) -> Result<()> {
        for rollup in RollUp::ALL {
            let on = reader.log(rollup.table()).load().await?;
            let source = reader.log(rollup.source()).load().await?;
            let sides = Sides {
                rollup,
                files: reader.files_at(rollup.table(), on.version).await?,
                source: reader.files_at(rollup.source(), source.version).await?,
                rolled_to: rolled_to(&on),
                kept_from: kept_from(&source),
            };
            if let Compared { difference: Some(what), .. } = compare(reader, sides).await? {
                return Err(Error::bug(format!("`{}`: {what}", rollup.table().name())));
            }
        }
        Ok(())
    }

    async fn at_the_end(&mut self) -> std::result::Result<(), Violation> {
        self.look().await?;
        let gone = |error: Error| Violation { rule: "L-1", what: error.chain() };
        let events = self.whole(Table::Events).await.map_err(gone)?;
        let quarantine = self.whole(Table::Quarantine).await.map_err(gone)?;
        self.ledger.complete(&events, &quarantine)?;
        let (Scene::Whole, Some(reader)) = (self.plan.scene, &self.reader) else { return Ok(()) };
        let table = folded(reader).await.map_err(gone)?;
        let computed = recompute(reader).await.map_err(gone)?;
        if let Some(difference) = first_difference(&table, &computed) {
            return Err(Violation { rule: "L-4", what: difference });
        }
        Self::check_rollups(reader).await.map_err(|error| Violation { rule: "L-4", what: error.chain() })?;
        let releases = read_all(reader, Table::Releases).await.map_err(gone)?;
        let mut seen = BTreeSet::new();
        for batch in &releases {
            for row in 0..batch.num_rows() {
                let key: Vec<String> = ["release_fingerprint", "release_id", "model_responded"]
                    .iter()
                    .map(|name| format!("{:?}", batch.column_by_name(name).expect("a column").slice(row, 1)))
                    .collect();
                if !seen.insert(key.clone()) {
                    return Err(Violation { rule: "L-2", what: format!("release {key:?} is twice in `releases`") });
                }
            }
        }
        Ok(())
    }

    /// Returns the rows of the newest version.
    async fn whole(&self, table: Table) -> Result<Vec<Row>> {
        if let Some(reader) = &self.reader {
            return Ok(read_all(reader, table).await?.iter().flat_map(rows_of).collect());
        }
        let log = if table == Table::Events { &self.tables.events } else { &self.tables.quarantine };
        let mut all = Vec::new();
        for file in log.commits().into_iter().flat_map(|commit| commit.files) {
            let rows = self.tables.data.rows(&file.path);
            all.extend(rows.ok_or_else(|| Error::data(format!("file {} is not there", file.path)))?);
        }
        Ok(all)
    }
}

async fn read_all(reader: &Lake, table: Table) -> Result<Vec<RecordBatch>> {
    let (_, files) = reader.active_files(table).await?;
    let mut all = Vec::new();
    for file in &files {
        all.extend(reader.read(table, file, None).await?);
    }
    Ok(all)
}

async fn landed_of(reader: &Lake, table: Table, entry: LogEntry) -> Landed {
    let mut files = Vec::new();
    let columns: &[&str] = match table {
        Table::Events => &["partition", "offset", "run_id"],
        _ => &["partition", "offset"],
    };
    for file in &entry.added {
        let AddedFile { path, .. } = file;
        let rows = reader.read(table, file, Some(columns)).await.ok();
        files.push((path.clone(), rows.map(|batches| batches.iter().flat_map(rows_of).collect())));
    }
    Landed {
        version: entry.version,
        id: entry.uuid.map(|id| id.to_string()).unwrap_or_default(),
        advances: entry.txns,
        ranges: entry.ranges,
        files,
    }
}
