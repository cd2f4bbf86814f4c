//! The runner with a toy follower over logs in memory: it copies numbers from one log to another.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bellwether_base::{Clock, Error, ErrorKind, Result, unique_id};
use bellwether_follow::{FollowMetrics, Follower, Runner, Step, Until, land};
use bellwether_lake::commit::faulty::{Fault, FaultyLog};
use bellwether_lake::commit::memory::MemoryLog;
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Snapshot};
use bellwether_tables::Table;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use prometheus::Registry;
use serde_json::{Map, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const APP: &str = "toy/0";

/// A clock on which waiting takes no time, or for ever.
#[derive(Clone, Default)]
struct ToyClock {
    now_micros: Arc<AtomicI64>,
    slept: Arc<Mutex<Vec<Duration>>>,
    stands_still: bool,
}

impl Clock for ToyClock {
    fn now_micros(&self) -> i64 {
        self.now_micros.load(Ordering::SeqCst)
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.slept.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        let (now, stands_still) = (Arc::clone(&self.now_micros), self.stands_still);
        Box::pin(async move {
            if stands_still {
                std::future::pending::<()>().await;
            }
            tokio::task::yield_now().await;
            now.fetch_add(i64::try_from(time.as_micros()).expect("a short wait"), Ordering::SeqCst);
        })
    }
}

/// The outcome of a step.
#[derive(Clone, Copy)]
enum Incident {
    Unavailable,
    Data,
    Reopen,
    /// Another process commits the same entry first.
    Rival,
    /// Storage never answers.
    Hang,
}

/// Everything that outlives a toy.
#[derive(Clone)]
struct World {
    source: MemoryLog,
    target: Arc<FaultyLog<MemoryLog>>,
    clock: ToyClock,
    registry: Registry,
    metrics: FollowMetrics,
    incidents: Arc<Mutex<VecDeque<Option<Incident>>>>,
    endless: Arc<AtomicBool>,
    fresh: Arc<Notify>,
    stop: CancellationToken,
    opened: Arc<AtomicUsize>,
    steps: Arc<AtomicUsize>,
    stood_by: Arc<AtomicUsize>,
    finished: Arc<AtomicUsize>,
}

struct Toy {
    world: World,
    on: Snapshot,
    next: i64,
}

// === impl World ===

impl World {
    /// A source with some numbers in it, and a target that answers the first calls with faults.
    async fn new(numbers: i64, faults: impl IntoIterator<Item = Fault>) -> Self {
        let registry = Registry::new();
        let world = Self {
            source: MemoryLog::default(),
            target: Arc::new(FaultyLog::new(MemoryLog::default(), faults)),
            clock: ToyClock::default(),
            metrics: FollowMetrics::register(&registry, "toy", Table::Events, None).expect("registers"),
            registry,
            incidents: Arc::default(),
            endless: Arc::default(),
            fresh: Arc::default(),
            stop: CancellationToken::new(),
            opened: Arc::default(),
            steps: Arc::default(),
            stood_by: Arc::default(),
            finished: Arc::default(),
        };
        for number in 0..numbers {
            world.add(number).await;
        }
        world
    }

    async fn add(&self, number: i64) {
        put(&self.source, "source", number).await;
        self.fresh.notify_one();
    }

    fn happens(&self, incidents: impl IntoIterator<Item = Option<Incident>>) {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner).extend(incidents);
    }

    fn runner(&self) -> Runner {
        Runner {
            until: Until::caught_up(),
            stop: self.stop.clone(),
            ..Runner::new("toy", Arc::new(self.clock.clone()), self.metrics.clone())
        }
    }

    /// Numbers that the target has, in their order.
    fn copied(&self) -> Vec<i64> {
        let commits = self.target.inner().commits();
        commits.iter().map(|commit| commit.facts["number"].as_i64().expect("a number")).collect()
    }

    fn slept(&self) -> Vec<Duration> {
        self.clock.slept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn gauge(&self, name: &str) -> i64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name).expect("it is registered");
        family.get_metric()[0].get_gauge().get_value() as i64
    }
}

async fn put(log: &MemoryLog, app: &str, number: i64) {
    let on = log.load().await.expect("loads");
    log.try_commit(&on, &commit_of(app, on.next(app), number)).await.expect("commits");
}

fn commit_of(app: &str, expected: Option<i64>, number: i64) -> Commit {
    Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: app.to_owned(), expected, next: expected.unwrap_or(0) + 1 }],
        files: Vec::new(),
        operation: "toy",
        ranges: Vec::new(),
        facts: Map::from_iter([("number".to_owned(), json!(number))]),
    }
}

#[async_trait]
impl Follower for Toy {
    type Setup = World;

    async fn open(world: &World) -> Result<Self> {
        world.opened.fetch_add(1, Ordering::SeqCst);
        let on = world.target.load().await?;
        let next = on.next(APP).unwrap_or(0);
        Ok(Self { world: world.clone(), on, next })
    }

    async fn step(&mut self) -> Result<Step> {
        if self.world.steps.fetch_add(1, Ordering::SeqCst) + 1 == 10 && self.world.endless.load(Ordering::SeqCst) {
            self.world.stop.cancel();
        }
        if self.world.endless.load(Ordering::SeqCst) {
            return Ok(Step::More);
        }
        let incident = self.world.incidents.lock().unwrap_or_else(PoisonError::into_inner).pop_front().flatten();
        let index = usize::try_from(self.next).expect("small");
        let source = self.world.source.commits();
        let number = source.get(index).map(|commit| commit.facts["number"].as_i64().expect("a number"));
        match incident {
            Some(Incident::Unavailable) => return Err(Error::unavailable("the toy's storage is away")),
            Some(Incident::Data) => return Err(Error::data("the toy's table is torn")),
            Some(Incident::Reopen) => return Ok(Step::Reopen("it was rebuilt".to_owned())),
            Some(Incident::Rival) => put(self.world.target.inner(), APP, number.expect("an entry")).await,
            Some(Incident::Hang) => std::future::pending().await,
            None => {}
        }
        let Some(number) = number else { return Ok(Step::CaughtUp) };
        let commit = commit_of(APP, self.on.next(APP), number);
        let landed = land(&*self.world.target, &self.on, &commit, &self.world.clock, &self.world.metrics).await?;
        self.on = landed.ok_or_else(|| Error::fenced("another toy has committed"))?;
        self.next += 1;
        Ok(Step::More)
    }

    async fn stand_by(&mut self) -> Result<()> {
        self.world.stood_by.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.world.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn woken(&self) -> BoxFuture<'static, ()> {
        let fresh = Arc::clone(&self.world.fresh);
        Box::pin(async move { fresh.notified().await })
    }

    fn next_version(&self) -> i64 {
        self.next
    }
}

/// Runs a future that ends soon, whatever its clock says.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it ends")
}

#[tokio::test]
async fn it_ends_when_it_has_caught_up() {
    let world = World::new(5, []).await;
    let runner = world.runner();
    let health = runner.health.clone();
    soon(runner.run::<Toy>(&world)).await.expect("ends");
    assert_eq!(world.copied(), [0, 1, 2, 3, 4]);
    assert_eq!((health.next_version(), world.gauge("bellwether_toy_next_version")), (5, 5));
    assert_eq!(world.finished.load(Ordering::SeqCst), 1);
    assert_eq!(world.slept(), [], "nothing kept it waiting");
}

#[tokio::test]
async fn it_reads_everything_that_was_added_before_the_end_was_announced() {
    let mut world = World::new(2, []).await;
    world.clock.stands_still = true;
    let done = CancellationToken::new();
    let runner = Runner { until: Until::CaughtUp(done.clone()), ..world.runner() };
    let feed = async {
        while world.copied().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.finished.load(Ordering::SeqCst), 0, "more may come");
        put(&world.source, "source", 2).await;
        done.cancel();
    };
    let (ended, ()) = soon(async { tokio::join!(runner.run::<Toy>(&world), feed) }).await;
    ended.expect("ends");
    assert_eq!(world.copied(), [0, 1, 2]);
}

#[tokio::test]
async fn one_that_is_fenced_is_opened_again_and_copies_nothing_twice() {
    let world = World::new(4, []).await;
    world.happens([None, Some(Incident::Rival)]);
    soon(world.runner().run::<Toy>(&world)).await.expect("ends");
    assert_eq!(world.copied(), [0, 1, 2, 3]);
    assert_eq!(world.opened.load(Ordering::SeqCst), 2);
    assert_eq!((world.metrics.fenced.get(), world.metrics.retries.get()), (1, 0));
}

#[tokio::test]
async fn unavailable_storage_is_tried_again_ever_later_with_jitter_and_soon_again_after_a_success() {
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let world = World::new(1, [Fault::Unavailable; 4]).await;
        world.happens([None, Some(Incident::Unavailable)]);
        soon(world.runner().run::<Toy>(&world)).await.expect("ends");
        assert_eq!(world.copied(), [0]);
        assert_eq!(world.metrics.retries.get(), 5);
        let slept = world.slept();
        for (pause, whole) in slept.iter().zip([100, 200, 400, 800, 100].map(Duration::from_millis)) {
            assert!(*pause >= whole / 2 && *pause <= whole, "{pause:?} of {whole:?} in {slept:?}");
        }
        assert_eq!(slept.len(), 5, "{slept:?}");
        pauses.push(slept);
    }
    pauses.dedup();
    assert!(pauses.len() > 1, "no two processes wait alike: {pauses:?}");
}

#[tokio::test]
async fn an_unclear_commit_is_asked_about_and_lands_once() {
    let world = World::new(2, [Fault::None, Fault::LostResponse, Fault::LostRequest]).await;
    soon(world.runner().run::<Toy>(&world)).await.expect("ends");
    assert_eq!(world.copied(), [0, 1]);
    assert_eq!(world.opened.load(Ordering::SeqCst), 1, "it was not opened again");
}

#[tokio::test]
async fn state_that_no_longer_holds_is_opened_again_and_torn_data_ends_the_role() {
    let world = World::new(3, []).await;
    world.happens([None, Some(Incident::Reopen), None, Some(Incident::Data)]);
    let error = soon(world.runner().run::<Toy>(&world)).await.expect_err("no waiting helps");
    assert_eq!(error.kind(), ErrorKind::Data);
    assert_eq!(world.copied(), [0, 1]);
    assert_eq!(world.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn fresh_rows_wake_it_before_the_interval_is_over() {
    let mut world = World::new(1, []).await;
    world.clock.stands_still = true;
    let runner = Runner { until: Until::Stopped, ..world.runner() };
    let feed = async {
        for number in 1..4 {
            while world.copied().len() < usize::try_from(number).expect("small") {
                tokio::task::yield_now().await;
            }
            world.add(number).await;
        }
        while world.copied().len() < 4 {
            tokio::task::yield_now().await;
        }
        world.stop.cancel();
    };
    let (ended, ()) = soon(async { tokio::join!(runner.run::<Toy>(&world), feed) }).await;
    ended.expect("being stopped is no error");
    assert_eq!(world.finished.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn stopping_wins_at_any_moment() {
    let still = || async {
        let mut world = World::new(1, []).await;
        world.clock.stands_still = true;
        world
    };
    // In a step that hangs, while backing off, and while nothing is new.
    for incidents in [vec![Some(Incident::Hang)], vec![Some(Incident::Unavailable)], vec![None, None]] {
        let (world, steps) = (still().await, incidents.len());
        world.happens(incidents);
        let runner = Runner { until: Until::Stopped, ..world.runner() };
        let stop = async {
            while world.steps.load(Ordering::SeqCst) < steps {
                tokio::task::yield_now().await;
            }
            world.stop.cancel();
        };
        let (ended, ()) = soon(async { tokio::join!(runner.run::<Toy>(&world), stop) }).await;
        ended.expect("being stopped is no error");
    }
    // Before it opens.
    let world = still().await;
    world.stop.cancel();
    soon(world.runner().run::<Toy>(&world)).await.expect("being stopped is no error");
    assert_eq!(world.opened.load(Ordering::SeqCst), 0);
    // In a follower that always has more and never waits.
    let world = still().await;
    world.endless.store(true, Ordering::SeqCst);
    soon(world.runner().run::<Toy>(&world)).await.expect("being stopped is no error");
    assert_eq!(world.steps.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn one_that_loses_its_lease_stands_by_until_it_has_it_again() {
    let world = World::new(1, []).await;
    let store = Arc::new(InMemory::new());
    let lake = Lake::on_store(Arc::clone(&store) as Arc<dyn ObjectStore>, Arc::new(world.clock.clone())).await;
    let lake = lake.expect("opens");
    let runner = Runner { lease: Some(lake.lease("toy")), until: Until::Stopped, ..world.runner() };
    let sign = Path::from("_leases/toy.json");
    // The sign of life of another holder.
    let rival = async |beat: usize| {
        let holder = "00000000-0000-4000-8000-000000000001";
        let text = json!({ "holder": holder, "beat": beat, "at_micros": world.clock.now_micros() }).to_string();
        store.put(&sign, PutPayload::from(text)).await.expect("is written");
        tokio::task::yield_now().await;
    };
    let story = async {
        while world.copied().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.gauge("bellwether_toy_on_duty"), 1);
        let mut beat = 0;
        let before = world.stood_by.load(Ordering::SeqCst);
        while world.stood_by.load(Ordering::SeqCst) < before + 3 {
            beat += 1;
            rival(beat).await;
        }
        assert_eq!(world.gauge("bellwether_toy_on_duty"), 0);
        world.add(1).await;
        for _ in 0..50 {
            beat += 1;
            rival(beat).await;
        }
        assert_eq!(world.copied(), [0], "another process works");
        // Without signs of life the lease is free again.
        while world.copied().len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.gauge("bellwether_toy_on_duty"), 1);
        world.stop.cancel();
    };
    let (ended, ()) = soon(async { tokio::join!(runner.run::<Toy>(&world), story) }).await;
    ended.expect("being stopped is no error");
    assert!(store.head(&sign).await.is_err(), "the lease was given back");
    assert_eq!(world.opened.load(Ordering::SeqCst), 1, "its state was kept");
}
