//! The role on tables of its own, with sinks that record, fail, or never answer.

#[path = "../../alerts/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bellwether_alerts::{Contracts, Rules, Watch, WatchSettings};
use bellwether_base::{Error, ErrorKind, Result, unique_id};
use bellwether_deliver::outbox::{self, DeliveryStep, Kind};
use bellwether_deliver::{Deliver, DeliverSettings, DeliverSetup, Deliverer, NoHands, PageBuilder, RowOnly, run};
use bellwether_evidence::{AlertRecord, Links};
use bellwether_follow::{FollowHealth, Follower, Step, Until};
use bellwether_lake::{Advance, Commit, CommitLog, Lake, Outcome, PartitionRange, StorageOptions};
use bellwether_sinks::page::{Evidence, Status};
use bellwether_sinks::{Failure, Notice, Page, Receipt, ReleaseNotice, Sink};
use bellwether_tables::Table;
use common::{BEGIN, Cell, cell, default_value, rows};
use prometheus::Registry;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// How a sink answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepts,
    Fails,
    Never,
}

/// A sink that records each message that it is handed.
struct Recorder {
    answer: Mutex<Answer>,
    seen: Mutex<Vec<(Notice, Option<Receipt>)>>,
    announced: Mutex<Vec<ReleaseNotice>>,
}

impl Recorder {
    fn new(answer: Answer) -> Arc<Self> {
        Arc::new(Self { answer: Mutex::new(answer), seen: Mutex::default(), announced: Mutex::default() })
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("no test panics here") = answer;
    }

    fn seen(&self) -> Vec<(Notice, Option<Receipt>)> {
        self.seen.lock().expect("no test panics here").clone()
    }

    fn pages(&self) -> Vec<Page> {
        self.seen().into_iter().flat_map(|(notice, _)| notice.pages).collect()
    }

    fn states(&self) -> Vec<Status> {
        self.pages().iter().map(|page| page.status).collect()
    }
}

#[async_trait]
impl Sink for Recorder {
    fn kind(&self) -> &'static str {
        "recorder"
    }

    fn takes_late_evidence(&self) -> bool {
        true
    }

    fn shows_releases(&self) -> bool {
        true
    }

    async fn announce(&self, release: &ReleaseNotice) -> std::result::Result<Option<Receipt>, Failure> {
        if *self.answer.lock().expect("no test panics here") == Answer::Fails {
            return Err(Failure::Later { reason: "503 Service Unavailable".to_owned(), after: None });
        }
        self.announced.lock().expect("no test panics here").push(release.clone());
        Ok(Some(Receipt::default()))
    }

    async fn send(&self, notice: &Notice, earlier: Option<&Receipt>) -> std::result::Result<Receipt, Failure> {
        let answer = *self.answer.lock().expect("no test panics here");
        if answer == Answer::Fails {
            return Err(Failure::Later { reason: "503 Service Unavailable".to_owned(), after: None });
        }
        let number = {
            let mut seen = self.seen.lock().expect("no test panics here");
            seen.push((notice.clone(), earlier.cloned()));
            seen.len()
        };
        if answer == Answer::Never {
            std::future::pending::<()>().await;
        }
        Ok(Receipt { reference: format!("message {number}"), answer: "202 Accepted".to_owned() })
    }
}

struct Tables {
    _folder: tempfile::TempDir,
    lake: Lake,
}

impl Tables {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lake = Lake::open(folder.path().to_str().expect("UTF-8"), &StorageOptions::default()).await.expect("opens");
        Self { _folder: folder, lake }
    }

    async fn commit(
        &self,
        table: Table,
        app: &str,
        next: Option<i64>,
        batch: Option<&RecordBatch>,
        ranges: Vec<PartitionRange>,
    ) {
        let log = self.lake.log(table);
        let on = log.load().await.expect("loads");
        let mut files = Vec::new();
        if let Some(batch) = batch {
            files.extend(self.lake.write(table, batch).await.expect("writes").into_iter().map(|written| written.file));
        }
        let next = next.unwrap_or_else(|| on.next(app).unwrap_or(0) + 1);
        let advances = vec![Advance { app_id: app.to_owned(), expected: on.next(app), next }];
        let commit = Commit { uuid: unique_id(), advances, files, operation: "test", ranges, facts: Map::new() };
        assert!(matches!(log.try_commit(&on, &commit).await, Ok(Outcome::Committed(_))));
    }

    /// Appends a row to `releases`.
    async fn release(&self, id: &str, stage: &str, first_seen: i64) {
        let columns = Table::Releases.columns().iter().filter(|column| column.required);
        let mut row: Map<String, Value> =
            columns.map(|column| (column.name.to_owned(), default_value(column.name, column.kind))).collect();
        let stated = [
            ("release_id", json!(id)),
            ("task", json!("refunds")),
            ("stage", json!(stage)),
            ("first_seen", json!(first_seen)),
        ];
        row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
        let mut decoder =
            arrow::json::ReaderBuilder::new(Table::Releases.arrow_schema()).build_decoder().expect("a decoder");
        decoder.serialize(&[row]).expect("a row");
        let batch = decoder.flush().expect("a row").expect("some");
        self.commit(Table::Releases, "aggregate/0", None, Some(&batch), Vec::new()).await;
    }

    /// Appends a transition to `alerts`, as an evaluation of its own.
    async fn transition(&self, id: &str, at: i64, from: &str, state: &str) {
        let now = self.lake.clock().now_micros();
        let number = self.lake.log(Table::Alerts).load().await.expect("loads").next("watch/0").unwrap_or(0) + 1;
        let columns = Table::Alerts.columns().iter().filter(|column| column.required);
        let mut row: Map<String, Value> =
            columns.map(|column| (column.name.to_owned(), default_value(column.name, column.kind))).collect();
        let stated = [
            ("evaluation", json!(number)),
            ("evaluated_at", json!(now)),
            ("alert_id", json!(id)),
            ("rule", json!("success_drift")),
            ("severity", json!("page")),
            ("labels", json!({ "area": "quality" })),
            ("strata", json!([])),
            ("at", json!(at)),
            ("state_from", json!(from)),
            ("state", json!(state)),
            ("change", json!("new")),
            ("title", json!(format!("{id}: failure rate 8 % → 14 %"))),
        ];
        row.extend(stated.map(|(name, value)| (name.to_owned(), value)));
        let mut decoder =
            arrow::json::ReaderBuilder::new(Table::Alerts.arrow_schema()).build_decoder().expect("a decoder");
        decoder.serialize(&[row]).expect("a row");
        let batch = decoder.flush().expect("a row").expect("some");
        self.commit(Table::Alerts, "watch/0", Some(number), Some(&batch), Vec::new()).await;
    }

    async fn fires(&self, id: &str, at: i64) {
        self.transition(id, at, "pending", "firing").await;
    }

    async fn resolves(&self, id: &str, at: i64) {
        self.transition(id, at, "firing", "resolved").await;
    }

    /// Adds rows to `metrics`, with a commit to `events` that brings its source from a minute to another.
    async fn add(&self, cells: &[Cell<'_>], from: i64, to: i64) {
        let range = PartitionRange {
            topic: "t".to_owned(),
            partition: 0,
            from,
            next: to,
            end_offset: Some(to),
            newest_event_micros: Some((BEGIN + to) * 60_000_000 - 1),
            passed_over: None,
        };
        self.commit(Table::Events, "job/t/0", None, None, vec![range]).await;
        let next = self.lake.log(Table::Events).latest_version().await.expect("a version") + 1;
        self.commit(Table::Metrics, "aggregate/0", Some(next), Some(&rows(cells)), Vec::new()).await;
    }

    /// Lets the watcher judge everything.
    async fn watch(&self) {
        let mut rules = Rules::load(None, &[]);
        rules.rules.retain(|rule| rule.name == "success_regression");
        let watch = Watch {
            settings: WatchSettings::default(),
            rules,
            contracts: Contracts::new(),
            lake: self.lake.clone(),
            health: FollowHealth::default(),
        };
        let stop = CancellationToken::new();
        bellwether_alerts::run(watch, Registry::new(), Until::caught_up(), stop).await.expect("judges");
    }

    fn deliver(&self, sinks: &[(&str, &Arc<Recorder>)]) -> Deliver {
        let text: String = sinks.iter().map(|(name, _)| format!("[deliver.sinks.{name}]\n")).collect();
        let sinks = sinks.iter().map(|(name, sink)| ((*name).to_owned(), Arc::clone(sink) as Arc<dyn Sink>));
        Deliver {
            record_progress: false,
            settings: DeliverSettings::parse(&text).expect("valid"),
            lake: self.lake.clone(),
            sinks: sinks.collect::<BTreeMap<_, _>>(),
            builder: Arc::new(RowOnly),
            links: Links::default(),
            hands: Arc::new(NoHands),
            health: FollowHealth::default(),
            interval: Duration::from_millis(50),
        }
    }

    async fn open(&self, deliver: Deliver) -> Deliverer {
        let setup = DeliverSetup::new(deliver, &Registry::new()).expect("registers");
        Deliverer::open(&setup).await.expect("opens")
    }

    /// Marks the start of deliveries, so that everything from now on is news.
    async fn begin(&self) {
        let sink = Recorder::new(Answer::Accepts);
        until_caught_up(self.deliver(&[("chat", &sink)])).await;
        assert!(sink.seen().is_empty());
    }

    /// Step, sink, state and kind of each row.
    async fn rows(&self) -> Vec<(DeliveryStep, String, Status, Kind)> {
        let rows = outbox::load(&self.lake).await.expect("reads");
        rows.into_iter().map(|row| (row.step, row.sink, row.state, row.kind)).collect()
    }

    async fn count(&self, step: DeliveryStep) -> usize {
        self.rows().await.iter().filter(|row| row.0 == step).count()
    }
}

async fn until_caught_up(deliver: Deliver) {
    let role = run(deliver, Registry::new(), Until::caught_up(), CancellationToken::new());
    tokio::time::timeout(Duration::from_secs(60), role).await.expect("ends by itself").expect("delivers");
}

/// Lets a deliverer step until it has caught up.
async fn drain(deliverer: &mut Deliverer) -> Result<()> {
    loop {
        if deliverer.step().await? == Step::CaughtUp {
            return Ok(());
        }
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("after 30 s still not: {what}");
}

/// Minutes [from, to) of a baseline and a canary; half of the canary's runs fail.
fn cells(from: i64, to: i64) -> Vec<Cell<'static>> {
    let of_minute = |minute| {
        let canary = Cell { release: "v2", stage: "canary", ..cell(minute, "checkout", 4, 2) };
        [cell(minute, "checkout", 10, 1), canary]
    };
    (from..to).flat_map(of_minute).collect()
}

#[tokio::test]
async fn what_the_watcher_writes_is_sent_and_a_late_correction_resolves_it() {
    let tables = Tables::new().await;
    let sink = Recorder::new(Answer::Accepts);
    tables.add(&cells(0, 180), 0, 180).await;
    tables.watch().await;
    until_caught_up(tables.deliver(&[("chat", &sink)])).await;
    let page = sink.pages().remove(0);
    assert_eq!((page.status, page.release.as_deref()), (Status::Firing, Some("v2")));
    assert!(page.title.contains("failure rate"), "{}", page.title);
    assert!(page.evidence.effect.is_some() && page.evidence.reproduce.is_some());
    // Late scores: all runs of the canary succeeded.
    let correction = |minute| Cell { release: "v2", stage: "canary", ..cell(minute, "checkout", 0, -2) };
    let corrections: Vec<Cell<'_>> = (0..180).map(correction).collect();
    tables.add(&corrections, 180, 181).await;
    tables.watch().await;
    until_caught_up(tables.deliver(&[("chat", &sink)])).await;
    assert_eq!(sink.states(), [Status::Firing, Status::Resolved]);
    let (notice, earlier) = sink.seen().remove(1);
    assert_eq!(notice.pages[0].incident, page.incident);
    assert!(notice.pages[0].title.starts_with("corrected: "), "{}", notice.pages[0].title);
    assert_eq!(earlier.expect("a receipt").reference, "message 1");
    assert!(tables.rows().await.contains(&(DeliveryStep::Sent, "chat".to_owned(), Status::Resolved, Kind::Corrected)));
}

#[tokio::test]
async fn of_two_deliverers_one_is_fenced_and_sends_nothing() {
    let tables = Tables::new().await;
    tables.begin().await;
    let (a, b) = (Recorder::new(Answer::Accepts), Recorder::new(Answer::Accepts));
    let mut first = tables.open(tables.deliver(&[("chat", &a)])).await;
    let mut second = tables.open(tables.deliver(&[("chat", &b)])).await;
    tables.fires("x", 1).await;
    drain(&mut first).await.expect("delivers");
    assert_eq!(drain(&mut second).await.expect_err("fenced").kind(), ErrorKind::Fenced);
    let mut second = tables.open(tables.deliver(&[("chat", &b)])).await;
    drain(&mut second).await.expect("delivers");
    assert_eq!((a.states().len(), b.states().len()), (1, 0));
    assert_eq!((tables.count(DeliveryStep::Planned).await, tables.count(DeliveryStep::Sent).await), (1, 1));
    // The first one does not know yet that another works: it looks before it sends.
    tables.resolves("x", 2).await;
    drain(&mut second).await.expect("delivers");
    assert_eq!(drain(&mut first).await.expect_err("fenced").kind(), ErrorKind::Fenced);
    assert_eq!((a.states().len(), b.states()), (1, vec![Status::Resolved]));
}

#[tokio::test]
async fn killed_between_sending_and_its_result_it_sends_the_same_incident_again() {
    let tables = Tables::new().await;
    tables.begin().await;
    let silent = Recorder::new(Answer::Never);
    tables.fires("x", 1).await;
    let mut deliverer = tables.open(tables.deliver(&[("chat", &silent)])).await;
    while silent.seen().is_empty() {
        deliverer.step().await.expect("goes on");
    }
    drop(deliverer);
    assert_eq!(tables.count(DeliveryStep::Sent).await, 0);
    let sink = Recorder::new(Answer::Accepts);
    until_caught_up(tables.deliver(&[("chat", &sink)])).await;
    assert_eq!(sink.pages()[0].incident, silent.pages()[0].incident);
    assert_eq!((tables.count(DeliveryStep::Planned).await, tables.count(DeliveryStep::Sent).await), (1, 1));
}

#[tokio::test]
async fn an_outage_of_one_sink_delays_no_other_and_its_end_brings_no_flood() {
    let tables = Tables::new().await;
    tables.begin().await;
    let (down, up, slow) = (Recorder::new(Answer::Fails), Recorder::new(Answer::Accepts), Recorder::new(Answer::Never));
    let deliver = tables.deliver(&[("down", &down), ("up", &up), ("slow", &slow)]);
    let (health, stop) = (deliver.health.clone(), CancellationToken::new());
    let role = tokio::spawn(run(deliver, Registry::new(), Until::Stopped, stop.clone()));
    for id in 0..12 {
        tables.fires(&format!("short{id}"), 1).await;
    }
    tables.fires("long", 2).await;
    eventually("all 13 are sent", || up.states().len() == 13).await;
    for id in 0..12 {
        tables.resolves(&format!("short{id}"), 3).await;
    }
    eventually("12 ends are sent", || up.states().len() == 25).await;
    assert!(health.degraded().is_some_and(|why| why.contains("sink `down` fails: 503 Service Unavailable")));
    assert!(down.seen().is_empty() && !slow.seen().is_empty());
    down.answers(Answer::Accepts);
    eventually("the sink is back", || !down.seen().is_empty()).await;
    eventually("it fails no more", || !health.degraded().is_some_and(|why| why.contains("sink `down`"))).await;
    stop.cancel();
    role.await.expect("no panic").expect("stops");
    let seen = down.seen();
    assert_eq!(seen.len(), 1, "one message");
    let notice = &seen[0].0;
    assert_eq!(notice.pages.len() + notice.missed.len(), 13);
    assert!(notice.missed.len() >= 6, "the service cannot know of these: {}", notice.missed.len());
    assert_eq!((notice.pages[0].alert_id.as_str(), notice.pages[0].status), ("long", Status::Firing));
}

#[tokio::test]
async fn another_process_takes_over_and_nothing_is_sent_twice() {
    let tables = Tables::new().await;
    tables.begin().await;
    let sink = Recorder::new(Answer::Accepts);
    let start = || {
        let deliver = tables.deliver(&[("chat", &sink)]);
        tokio::spawn(run(deliver, Registry::new(), Until::Stopped, CancellationToken::new()))
    };
    let first = start();
    tables.fires("x", 1).await;
    eventually("it is sent", || sink.states().len() == 1).await;
    let second = start();
    tokio::time::sleep(Duration::from_millis(800)).await;
    for _ in 0..200 {
        if tables.count(DeliveryStep::Sent).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    first.abort();
    tables.resolves("x", 2).await;
    eventually("its end is sent", || sink.states().len() == 2).await;
    second.abort();
    assert_eq!(sink.states(), [Status::Firing, Status::Resolved]);
}

/// A builder that takes longer than a message waits, and whose first build fails.
#[derive(Default)]
struct Slow(AtomicUsize);

#[async_trait]
impl PageBuilder for Slow {
    async fn build(&self, page: Page, _: &AlertRecord) -> Result<Page> {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Error::unavailable("the store is away"));
        }
        let evidence = Evidence { eval_candidates: vec!["c1".to_owned()], ..page.evidence };
        Ok(Page { evidence, ..page })
    }
}

#[tokio::test]
async fn a_page_is_not_held_back_by_its_evidence_which_follows() {
    let tables = Tables::new().await;
    tables.begin().await;
    let sink = Recorder::new(Answer::Accepts);
    tables.fires("x", 1).await;
    let builder = Arc::new(Slow::default());
    // The first build fails after its message has left. A later process makes the evidence.
    for messages in [1, 2] {
        until_caught_up(Deliver { builder: builder.clone(), ..tables.deliver(&[("chat", &sink)]) }).await;
        assert_eq!(sink.seen().len(), messages);
    }
    let [(bare, _), (whole, earlier)] = &sink.seen()[..] else { panic!("two messages: {:?}", sink.states()) };
    let notes = &bare.pages[0].evidence.notes;
    assert!(notes.iter().any(|note| note.contains("was not ready in time")) && !bare.evidence_only, "{notes:?}");
    assert!(notes.iter().any(|note| note == "The evidence follows."), "{notes:?}");
    assert_eq!(whole.pages[0].evidence.eval_candidates, ["c1"]);
    assert_eq!((whole.evidence_only, &whole.pages[0].incident), (true, &bare.pages[0].incident));
    assert_eq!(earlier.as_ref().map(|receipt| receipt.reference.as_str()), Some("message 1"));
    let rows = outbox::load(&tables.lake).await.expect("reads");
    let sent: Vec<_> = rows.iter().filter(|row| row.step == DeliveryStep::Sent).collect();
    assert_eq!(sent.iter().map(|row| row.kind).collect::<Vec<_>>(), [Kind::New, Kind::Evidence]);
    let row = sent[0];
    assert_eq!(
        (row.answer.as_deref(), row.receipt.as_deref(), row.attempt),
        (Some("202 Accepted"), Some("message 1"), 1)
    );
    assert!(row.written_at - row.noticed_at < 10_000_000, "within seconds");
}

#[tokio::test]
async fn a_recent_release_is_announced_once_to_each_sink_whatever_restarts() {
    let tables = Tables::new().await;
    let (hour, now) = (3_600_000_000, tables.lake.clock().now_micros());
    tables.release("v0", "full", now - 72 * hour).await;
    tables.release("v1", "full", now - 48 * hour).await;
    tables.release("v2", "canary", now - hour).await;
    tables.release("v3", "internal", now - hour).await;
    let (down, up) = (Recorder::new(Answer::Fails), Recorder::new(Answer::Accepts));
    let announced = |sink: &Recorder| -> Vec<(String, Option<String>)> {
        let all = sink.announced.lock().expect("no test panics here");
        all.iter().map(|notice| (notice.release.clone(), notice.previous.clone())).collect()
    };
    let once = [("v2".to_owned(), Some("v1".to_owned()))];
    let mut deliverer = tables.open(tables.deliver(&[("down", &down), ("up", &up)])).await;
    while announced(&up).is_empty() {
        deliverer.step().await.expect("a sink that fails stops nothing");
        tokio::task::yield_now().await;
    }
    // The note of the success comes with a later step.
    for _ in 0..20 {
        deliverer.step().await.expect("goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(deliverer);
    // After a restart, only the sink that has failed hears of it.
    down.answers(Answer::Accepts);
    let mut deliverer = tables.open(tables.deliver(&[("down", &down), ("up", &up)])).await;
    while announced(&down).is_empty() {
        deliverer.step().await.expect("goes on");
        tokio::task::yield_now().await;
    }
    assert_eq!((announced(&up), announced(&down)), (once.to_vec(), once.to_vec()));
}
