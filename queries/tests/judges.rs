//! Views about judges and reviews, over simulated runs of which the truth is known. Each tenant is one repetition.

use crate::common::{append, lake};
use bellwether_queries::{Present, Session, SessionSettings};
use bellwether_tables::Table;
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
}

/// The way in which a judge changes after some weeks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It passes 60 % of the wrong runs instead of 10 %.
    Lenient,
    /// It fails half of the right runs instead of 5 %.
    Harsh,
    /// The odds of both errors rise by a quarter, which counts as unchanged.
    Tolerated,
    Stable,
}

// === impl Fate ===

impl Fate {
    /// Returns the fate of a tenant's judge.
    const fn of(tenant: usize) -> Self {
        match tenant {
            0..10 => Self::Lenient,
            10..20 => Self::Harsh,
            20..50 => Self::Tolerated,
            _ => Self::Stable,
        }
    }

    /// Returns the share of wrong runs that the judge passes, and of right ones that it fails, once its fate has come.
    fn errs(self) -> [f64; 2] {
        let more = |share: f64| 1.25 * share / (1.0 + 0.25 * share);
        match self {
            Self::Lenient => [0.6, 0.05],
            Self::Harsh => [0.1, 0.5],
            Self::Tolerated => [more(0.1), more(0.05)],
            Self::Stable => [0.1, 0.05],
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_that_got_worse_is_found_and_others_raise_no_more_alarms_than_designed() {
    let (mut random, mut all) = (Random(11), Rows::default());
    let (tenants, weeks, change) = (80, 30, 14);
    for tenant in 0..tenants {
        for week in 0..weeks {
            let fate = if week < change { Fate::Stable } else { Fate::of(tenant) };
            for n in 0..60 {
                let run = Run::new(tenant, week, n, &mut random, (0.6, fate.errs()));
                // Busy weeks are sampled more thinly: shares among reviewed runs change, though the judge does not.
                let probability = match (run.passed, week % 2) {
                    (false, _) => 0.5,
                    (true, 0) => 0.25,
                    _ => 0.4,
                };
                if random.uniform() < probability {
                    all.push(&run);
                    all.sample(&run, probability);
                    all.review(&run);
                }
            }
        }
    }
    let (_folder, session) = all.session().await;
    let sql =
        "SELECT tenant, error, min(week) AS first FROM judge_drift WHERE evidence > ln(1000.0) GROUP BY tenant, error";
    let found: Vec<Alarm> = session.rows(sql).await.expect("answers");
    let judged: Vec<Judged> = session
        .rows("SELECT count(evidence) AS weeks, count(DISTINCT tenant || error) AS series, count(*) AS rows FROM judge_drift")
        .await
        .expect("answers");
    eprintln!("{judged:?}: {found:?}");
    let changed = |alarm: &&Alarm| match Fate::of(alarm.tenant[1..].parse().expect("a number")) {
        Fate::Lenient => alarm.error == "lenient" && alarm.first >= MONDAY + change * WEEK,
        Fate::Harsh => alarm.error == "harsh" && alarm.first >= MONDAY + change * WEEK,
        Fate::Tolerated | Fate::Stable => false,
    };
    let (right, wrong): (Vec<&Alarm>, Vec<&Alarm>) = found.iter().partition(changed);
    let within = |error: &str, weeks: i64| {
        let end = MONDAY + (change + weeks) * WEEK;
        right.iter().filter(|alarm| alarm.error == error && alarm.first < end).count()
    };
    // The judge passes fewer wrong runs than right ones, so that fewer reviews show its lenience.
    let caught = (within("harsh", 8), within("lenient", weeks - change));
    assert!(caught.0 >= 9 && caught.1 >= 7, "of 10 and 10 changes, {caught:?} are found");
    // Once in 1,000 weeks of evidence on average, or less often.
    let expected = judged[0].weeks / 1000;
    assert!(judged[0].series == 2 * tenants as u64 && judged[0].weeks > judged[0].rows / 2, "{judged:?}");
    assert!(wrong.len() as u64 <= expected, "{} false alarms, at most {expected} by design: {wrong:?}", wrong.len());
}

/// The first alarm of a series.
#[derive(Debug, Deserialize)]
struct Alarm {
    tenant: String,
    error: String,
    first: i64,
}

/// Weeks with evidence, series of weeks, and all weeks.
#[derive(Debug, Deserialize)]
struct Judged {
    weeks: u64,
    series: u64,
    rows: u64,
}
