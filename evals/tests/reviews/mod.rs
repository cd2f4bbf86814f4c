//! The life of a candidate, as the view `current_candidates` folds it from reviews, leases and retirements.

use bellwether_base::{Clock, SystemClock};
use bellwether_queries::{Present, Session, SessionSettings};
use serde_json::{Map, Value, json};

use super::{Tables, run};

const MINUTE: i64 = 60_000_000;

/// Tables with one candidate of each severity that matters: `r0` is critical, `r4` is a usual failure.
struct Reviews {
    tables: Tables,
    present: Present,
    session: Session,
    /// A time after everything that was sampled; statements are so many minutes later.
    start: i64,
    sent: i64,
}

impl Reviews {
    async fn new() -> Self {
        let mut tables = Tables::new().await;
        let mut critical = run(0, "success");
        critical["policy_exceptions"] = json!([{ "policy_id": "pii", "severity": "critical", "derived": false }]);
        tables.append(&[critical, run(4, "failure"), run(5, "failure")]).await;
        tables.follow().await;
        let start = SystemClock.now_micros() + MINUTE;
        let present = Present::default();
        let settings = SessionSettings { present: Some(present.clone()), ..SessionSettings::default() };
        let session = Session::open(&tables.lake, settings).await.expect("opens");
        Self { tables, present, session, start, sent: 0 }
    }

    /// Appends a statement about a run, at a minute, with fields of its own.
    async fn state(&mut self, run_id: &str, reviewer: &str, minute: i64, decision: &str, more: Value) {
        self.sent += 1;
        let at = self.start + minute * MINUTE;
        let mut row = json!({
            "event_type": "run.review", "event_id": format!("s{}", self.sent), "run_id": run_id, "source": "people",
            "event_time": at, "ingested_at": at, "review_id": format!("s{}", self.sent), "reviewer": reviewer,
            "review_decision": decision, "review_sets_outcome": true, "content_hash": self.sent,
        });
        let fields = row.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        self.tables.append(&[row]).await;
    }

    async fn review(&mut self, run_id: &str, reviewer: &str, minute: i64, decision: &str) {
        self.state(run_id, reviewer, minute, decision, json!({})).await;
    }

    async fn lease(&mut self, run_id: &str, reviewer: &str, minute: i64, until: i64) {
        let until = json!({ "review_leased_until": self.start + until * MINUTE });
        self.state(run_id, reviewer, minute, "skip", until).await;
    }

    /// Returns the row of a run at a minute.
    async fn row(&self, run_id: &str, minute: i64) -> Map<String, Value> {
        self.present.set(self.start + minute * MINUTE);
        let sql = format!("SELECT * FROM current_candidates WHERE run_id = '{run_id}'");
        self.session.rows::<Map<String, Value>>(&sql).await.expect("reads").remove(0)
    }

    async fn is(&self, run_id: &str, minute: i64) -> String {
        self.row(run_id, minute).await["state"].as_str().expect("a state").to_owned()
    }

    async fn holder(&self, run_id: &str, minute: i64) -> Option<String> {
        self.row(run_id, minute).await.get("leased_by").and_then(Value::as_str).map(str::to_owned)
    }
}

#[tokio::test]
async fn a_lease_holds_until_it_runs_out_and_of_two_people_the_first_in_the_topic_has_the_run() {
    let mut tables = Reviews::new().await;
    assert_eq!(tables.is("r4", 0).await, "queued");
    tables.lease("r4", "ana", 1, 16).await;
    // Ben's clock is behind: his statement came later all the same.
    tables.lease("r4", "ben", 0, 30).await;
    assert_eq!((tables.is("r4", 2).await, tables.holder("r4", 2).await.as_deref()), ("leased".to_owned(), Some("ana")));
    assert_eq!(tables.holder("r4", 15).await.as_deref(), Some("ana"));
    assert_eq!(tables.holder("r4", 16).await.as_deref(), Some("ben"), "ana's has run out");
    assert_eq!(tables.is("r4", 30).await, "queued");
    assert_eq!(tables.row("r4", 2).await["reviews"], 0, "a lease is no review");
    assert_eq!(tables.is("r5", 2).await, "queued", "another run is free");
}

#[tokio::test]
async fn a_lease_is_prolonged_given_back_and_ended_by_a_review() {
    let mut tables = Reviews::new().await;
    tables.lease("r4", "ana", 1, 16).await;
    tables.lease("r4", "ben", 2, 17).await;
    let moved = |tables: &Reviews, until: i64| json!({ "review_id": "s1", "revision": 1, "review_leased_until": tables.start + until * MINUTE });
    let prolonged = moved(&tables, 40);
    tables.state("r4", "ana", 10, "skip", prolonged).await;
    assert_eq!(tables.holder("r4", 16).await.as_deref(), Some("ana"), "it keeps its place before ben's");
    let mut back = moved(&tables, 16);
    back["revision"] = json!(2);
    tables.state("r4", "ana", 16, "skip", back).await;
    assert_eq!(tables.holder("r4", 16).await.as_deref(), Some("ben"), "given back");
    tables.review("r4", "ben", 16, "unsure").await;
    assert_eq!(tables.is("r4", 16).await, "queued", "ben's review ended his lease");
    tables.lease("r4", "ben", 18, 30).await;
    assert_eq!(tables.is("r4", 18).await, "leased", "and he may take it again");
}

#[tokio::test]
async fn no_lease_blocks_a_run_for_longer_than_a_day() {
    let mut tables = Reviews::new().await;
    tables.lease("r4", "ana", 0, 1_000_000).await;
    assert_eq!(tables.is("r4", 24 * 60 - 1).await, "leased");
    assert_eq!(tables.is("r4", 24 * 60).await, "queued");
}

#[tokio::test]
async fn critical_runs_and_disagreements_need_another_person() {
    let mut tables = Reviews::new().await;
    tables.review("r0", "ana", 1, "reject").await;
    assert_eq!(tables.is("r0", 1).await, "second_review", "it is critical");
    tables.lease("r0", "ben", 2, 10).await;
    assert_eq!((tables.is("r0", 3).await.as_str(), &tables.row("r0", 3).await["decisions"]), ("leased", &json!(1)));
    tables.review("r0", "ben", 4, "accept").await;
    assert_eq!(tables.is("r0", 5).await, "second_review", "they disagree");
    tables.review("r0", "cy", 6, "edit").await;
    assert_eq!(
        (tables.is("r0", 7).await.as_str(), &tables.row("r0", 7).await["decision"]),
        ("decided", &json!("reject"))
    );
    tables.review("r0", "ana", 8, "unsure").await;
    assert_eq!(tables.is("r0", 9).await, "second_review", "ana took hers back");
}

#[tokio::test]
async fn an_eval_case_is_retired_and_only_a_new_case_brings_it_back() {
    let mut tables = Reviews::new().await;
    let retired = || json!({ "review_retired": true, "review_sets_outcome": false });
    tables.state("r4", "ana", 1, "skip", retired()).await;
    assert_eq!(tables.is("r4", 2).await, "queued", "there is no case to retire");
    tables.state("r4", "ana", 3, "edit", json!({ "review_make_eval_case": true })).await;
    assert_eq!(tables.is("r4", 4).await, "eval_case");
    tables.state("r4", "ben", 5, "skip", retired()).await;
    assert_eq!(tables.is("r4", 6).await, "retired");
    assert_eq!(tables.row("r4", 6).await["reviews"], 1, "a retirement is no review");
    tables.review("r4", "cy", 7, "accept").await;
    tables.lease("r4", "cy", 8, 20).await;
    assert_eq!((tables.is("r4", 9).await.as_str(), tables.holder("r4", 9).await), ("retired", None));
    tables.state("r4", "cy", 10, "edit", json!({ "review_make_eval_case": true })).await;
    assert_eq!(tables.is("r4", 11).await, "eval_case");
}

#[tokio::test]
async fn a_run_without_a_right_answer_is_no_eval_case_whoever_asks_for_one() {
    let mut tables = Reviews::new().await;
    let wanted = || json!({ "review_make_eval_case": true });
    tables.state("r4", "ana", 1, "reject", wanted()).await;
    assert_eq!(tables.is("r4", 2).await, "decided");
    tables.review("r4", "ben", 3, "edit").await;
    assert_eq!(tables.is("r4", 4).await, "eval_case", "now there is an answer");
    tables.state("r5", "ana", 5, "accept", wanted()).await;
    assert_eq!(tables.is("r5", 6).await, "eval_case", "its own answer is right");
}

#[tokio::test]
async fn statements_about_unknown_runs_and_of_other_tenants_change_nothing() {
    let mut tables = Reviews::new().await;
    tables.review("no-such-run", "ana", 1, "accept").await;
    tables.lease("no-such-run", "ana", 1, 10).await;
    tables.state("r4", "ana", 1, "accept", json!({ "tenant": "other" })).await;
    let until = json!({ "tenant": "other", "review_leased_until": tables.start + 10 * MINUTE });
    tables.state("r4", "ana", 1, "skip", until).await;
    for run_id in ["r0", "r4", "r5"] {
        assert_eq!(tables.is(run_id, 2).await, "queued", "{run_id}");
    }
}

#[tokio::test]
async fn leases_and_retirements_are_no_reviews_in_the_throughput() {
    let mut tables = Reviews::new().await;
    tables.lease("r4", "ana", 1, 10).await;
    tables.state("r4", "ana", 2, "edit", json!({ "review_make_eval_case": true })).await;
    tables.state("r4", "ana", 3, "skip", json!({ "review_retired": true })).await;
    tables.present.set(tables.start + 4 * MINUTE);
    let sql = "SELECT sum(reviews) AS reviews, sum(decided) AS decided FROM review_throughput";
    let rows: Vec<Value> = tables.session.rows(sql).await.expect("reads");
    assert_eq!((&rows[0]["reviews"], &rows[0]["decided"]), (&json!(1), &json!(1)));
}
