//! Views about judges and reviews, over simulated runs of which the truth is known. Each tenant is one repetition.

mod common;

use bellwether_queries::{Present, Session, SessionSettings};
use bellwether_tables::Table;
use common::{append, ask, lake};
use serde::Deserialize;
use serde_json::{Value, json};

/// Monday, 5 January 2026, 00:00 UTC.
const MONDAY: i64 = 1_767_571_200_000_000;
const WEEK: i64 = 7 * 86_400_000_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts some of a list, chosen at random, first.
    fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, (self.uniform() * (last + 1) as f64) as usize);
        }
    }
}

/// A run: its tenant and week, whether it is right, and whether the judge says so.
#[derive(Clone)]
struct Run {
    tenant: usize,
    week: i64,
    number: usize,
    right: bool,
    passed: bool,
}

/// Rows of the tables.
#[derive(Default)]
struct Rows {
    events: Vec<Value>,
    candidates: Vec<Value>,
}

// === impl Run ===

impl Run {
    fn new(tenant: usize, week: i64, number: usize, random: &mut Random, (rate, errs): (f64, [f64; 2])) -> Self {
        let right = random.uniform() < rate;
        let errs = random.uniform() < errs[usize::from(right)];
        Self { tenant, week, number, right, passed: right != errs }
    }

    fn id(&self) -> String {
        format!("r-{}-{}", self.week, self.number)
    }

    fn at(&self) -> i64 {
        MONDAY + self.week * WEEK + 3_600_000_000 + self.number as i64
    }
}

// === impl Rows ===

impl Rows {
    fn push(&mut self, run: &Run) {
        self.events.push(json!({
            "event_type": "run.completed", "event_id": run.id(), "run_id": run.id(), "tenant": format!("t{}", run.tenant), "source": "app",
            "attempt": 1, "task": "refund", "release_id": "v1", "outcome_status": "success", "event_time": run.at(), "ended_at": run.at(),
            "scores": [{ "name": "correct", "kind": "llm", "evaluator_id": "j", "sets_outcome": false, "passed": run.passed }],
        }));
    }

    fn sample(&mut self, run: &Run, probability: f64) {
        self.candidates.push(json!({
            "number": 1, "change": "taken", "week": format!("w{}", run.week), "candidate_id": format!("{}-{}", run.tenant, run.id()),
            "run_id": run.id(), "tenant": format!("t{}", run.tenant), "source": "app", "attempt": 1, "task": "refund", "release_id": "v1",
            "ended_at": run.at(), "class": if run.passed { "success" } else { "judged_bad" }, "severity": "low", "inclusion_probability": probability,
        }));
    }

    fn review(&mut self, run: &Run) {
        self.events.push(json!({
            "event_type": "run.review", "event_id": format!("v-{}", run.id()), "run_id": run.id(), "tenant": format!("t{}", run.tenant),
            "source": "people", "event_time": run.at() + WEEK, "review_id": format!("v-{}", run.id()), "reviewer": "ana",
            "review_decision": if run.right { "accept" } else { "reject" },
        }));
    }

    /// Returns a session over tables with these rows, at a time after all of them, and the folder of the tables.
    async fn session(&self) -> (tempfile::TempDir, Session) {
        let (folder, lake) = lake().await;
        append(&lake, Table::Events, &self.events).await;
        append(&lake, Table::Candidates, &self.candidates).await;
        let present = Present::default();
        present.set(MONDAY + 200 * WEEK);
        let settings = SessionSettings { present: Some(present), ..SessionSettings::default() };
        (folder, Session::open(&lake, settings).await.expect("opens"))
    }
}

/// A row of `judge_success`, with the share of wrong runs by `failure_classes`.
#[derive(Debug, Deserialize)]
struct Success {
    tenant: String,
    runs_observed: u64,
    reviews: u64,
    review_coverage: f64,
    success_naive: f64,
    success_corrected: f64,
    success_corrected_low: f64,
    success_corrected_high: f64,
    success_rogan_gladen_low: f64,
    success_rogan_gladen_high: f64,
    wrong: f64,
}

const SUCCESS: &str = "SELECT * FROM judge_success
    JOIN (SELECT tenant, sum(wrong_share) AS wrong FROM failure_classes GROUP BY tenant) USING (tenant)";

#[tokio::test(flavor = "multi_thread")]
async fn corrected_shares_cover_the_truth_although_reviewers_prefer_failures() {
    let (mut random, mut all) = (Random(7), Rows::default());
    let (tenants, runs) = (120, 200);
    let mut truths = Vec::new();
    for tenant in 0..tenants {
        let week: Vec<Run> = (0..runs).map(|n| Run::new(tenant, 0, n, &mut random, (0.75, [0.4, 0.05]))).collect();
        week.iter().for_each(|run| all.push(run));
        // The plan takes more of the failures, and people review more of these.
        for (passed, taken, reviewed) in [(false, 40, 30), (true, 50, 25)] {
            let mut stratum: Vec<&Run> = week.iter().filter(|run| run.passed == passed).collect();
            random.shuffle(&mut stratum);
            let probability = (f64::from(taken) / stratum.len() as f64).min(1.0);
            for (place, run) in stratum.into_iter().take(taken as usize).enumerate() {
                all.sample(run, probability);
                if place < reviewed {
                    all.review(run);
                }
            }
        }
        truths.push(week.iter().filter(|run| run.right).count() as f64 / runs as f64);
    }
    let (_folder, session) = all.session().await;
    let found: Vec<Success> = session.rows(SUCCESS).await.expect("answers");
    assert_eq!(found.len(), tenants);
    let truth = |row: &Success| truths[row.tenant[1..].parse::<usize>().expect("a number")];
    let share =
        |holds: &dyn Fn(&Success) -> bool| found.iter().filter(|row| holds(row)).count() as f64 / tenants as f64;
    let powered = share(&|row| (row.success_corrected_low..=row.success_corrected_high).contains(&truth(row)));
    let rogan_gladen =
        share(&|row| (row.success_rogan_gladen_low..=row.success_rogan_gladen_high).contains(&truth(row)));
    let naive = share(&|row| (row.success_naive - truth(row)).abs() < 0.03);
    let alone = share(&|row| (1.0 - row.wrong - truth(row)).abs() < 0.12);
    let bias = found.iter().map(|row| row.success_corrected - truth(row)).sum::<f64>() / tenants as f64;
    eprintln!("cover: {powered}, {rogan_gladen}; within 0.03: naive {naive}; within 0.12: {alone}; bias {bias}");
    assert!(powered >= 0.9, "the prediction-powered interval covers {powered}");
    assert!(rogan_gladen >= 0.9, "Rogan and Gladen's interval covers {rogan_gladen}");
    assert!(naive <= 0.3, "the naive share is right in {naive}: this test shows nothing");
    assert!(alone >= 0.9, "the reviewed share of wrong runs is near in {alone}");
    assert!(bias.abs() < 0.012, "the corrected share is off by {bias} on average");
    let whole = |row: &Success| row.runs_observed == runs as u64 && row.reviews > 40 && row.review_coverage == 1.0;
    assert!(found.iter().all(whole), "every run is like a reviewed one");
    let sql = "SELECT sum(overturned) = (SELECT count(*) FROM overturned_verdicts) FROM judge_success";
    assert_eq!(ask(&session, sql).await.expect("answers"), ["true"]);
}
