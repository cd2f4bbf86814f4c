//! Spans: the figures of days, hours and minutes together equal those of the minutes alone, bit for bit.

use arrow::array::RecordBatch;
use bellwether_aggregate::AggregatorSettings;
use bellwether_aggregate::rollup::{Roller, RollupSettings};
use bellwether_lake::Rolled;
use bellwether_metrics::{AsOf, release_summary_sql, rolling_sql, tasks_between_sql};
use bellwether_queries::Session;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::feed::{Feed, NOW};

const MINUTE_MICROS: i64 = 60_000_000;
const DAY_MINUTES: i64 = 24 * 60;

/// Days over which the runs are spread: more than the longest span.
const DAYS: i64 = 95;

fn text_of(micros: i64) -> String {
    let moment = arrow::temporal_conversions::timestamp_us_to_datetime(micros).expect("in range");
    moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Returns a completed run at a random time of the last days. Some minutes have many, and edges of hours and days most.
fn run(random: &mut StdRng, number: usize) -> Value {
    let minute = match random.random_range(0..4) {
        0 => random.random_range(0..DAYS) * DAY_MINUTES + random.random_range(-1..=1_i64),
        1 => random.random_range(0..DAYS * 24) * 60 + random.random_range(-1..=1_i64),
        2 => random.random_range(0..180),
        _ => random.random_range(0..DAYS * DAY_MINUTES),
    };
    let ended = NOW - minute.max(0) * MINUTE_MICROS - random.random_range(0..MINUTE_MICROS);
    let mut data = json!({
        "task": format!("t-{}", random.random_range(0..3)),
        "release": { "id": format!("v{}", random.random_range(0..2)), "model": { "requested": "m" } },
        "started_at": text_of(ended - 2_000_000), "ended_at": text_of(ended),
        "outcome": { "status": (["success", "failure", "unknown"][random.random_range(0..3)]) },
        "latency": { "total_ms": random.random_range(1.0..90_000.0) },
        "sampling": { "probability": ([1.0, 0.7, 0.3][random.random_range(0..3)]) },
        "tokens": { "input": random.random_range(1..9000) },
    });
    if random.random_bool(0.7) {
        data["cost"] = json!({ "amount": format!("0.0{}", random.random_range(1..99)), "currency": "USD" });
    }
    if random.random_bool(0.5) {
        data["session_id"] = json!(format!("s-{}", random.random_range(0..40)));
    }
    json!({ "spec": "run-event/1", "type": "run.completed", "run_id": format!("r-{number}"), "source": "app", "data": data })
}

/// Returns a person's verdict about a run.
fn review(random: &mut StdRng, number: usize, run: usize) -> Value {
    let decision = ["accept", "reject"][random.random_range(0..2)];
    json!({
        "spec": "run-event/1", "type": "run.review", "run_id": format!("r-{run}"), "source": "people", "time": text_of(NOW),
        "data": { "review_id": format!("v-{number}"), "reviewer": "p", "decision": decision },
    })
}

async fn answer(session: &Session, sql: &str) -> RecordBatch {
    let answer = session.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
    let schema = answer.schema.clone();
    let rows = answer.collect().await.unwrap_or_else(|error| panic!("{sql}: {}", error.chain()));
    arrow::compute::concat_batches(&schema, &rows).expect("one batch")
}

/// Asserts that two queries have the same rows: columns, values and nulls.
async fn assert_same(session: &Session, what: &str, found: &str, wanted: &str, order: &str) {
    let ordered = |sql: &str| format!("SELECT * FROM ({sql}) ORDER BY {order}");
    let (found, wanted) = (answer(session, &ordered(found)).await, answer(session, &ordered(wanted)).await);
    assert_eq!(found.num_rows(), wanted.num_rows(), "{what}");
    for (n, field) in wanted.schema().fields().iter().enumerate() {
        assert_eq!(found.column(n), wanted.column(n), "{what}: {}", field.name());
    }
}

/// Compares the views and `rolling_at` with the minutes alone.
async fn compare(feed: &Feed, random: &mut StdRng, moments: usize) {
    let session = feed.session().await;
    let order = "span, tenant, task, release_id, stage";
    for n in 0..moments {
        // Whole hours and days, other minutes, and moments within a minute.
        let back = match n % 4 {
            0 => random.random_range(0..DAYS * 24) * 60,
            1 => random.random_range(0..DAYS) * DAY_MINUTES,
            _ => random.random_range(-10..DAYS * DAY_MINUTES),
        };
        let within = if n % 4 == 3 { random.random_range(0..MINUTE_MICROS) } else { 0 };
        let moment = NOW - NOW.rem_euclid(24 * 3_600_000_000) - back * MINUTE_MICROS + within;
        let found = format!("SELECT * FROM rolling_at(to_timestamp_micros({moment}))");
        let wanted = rolling_sql(AsOf::Micros(moment), bellwether_metrics::Rolled::default());
        assert_same(&session, &text_of(moment), &found, &wanted, order).await;
        let from = moment - random.random_range(1..DAYS * DAY_MINUTES) * MINUTE_MICROS;
        let found = format!("SELECT * FROM tasks_between(to_timestamp_micros({from}), to_timestamp_micros({moment}))");
        let wanted = tasks_between_sql(from, moment, bellwether_metrics::Rolled::default());
        assert_same(&session, &text_of(from), &found, &wanted, "tenant, task").await;
    }
    let minutes = bellwether_metrics::Rolled::default();
    let wanted = rolling_sql(AsOf::Newest, minutes);
    assert_same(&session, "rolling", "SELECT * FROM rolling", &wanted, order).await;
    let order = "tenant, task, release_id, release_fingerprint, model, stage";
    assert_same(&session, "releases", "SELECT * FROM release_summary", &release_summary_sql(minutes), order).await;
}

/// Asserts that a view reads these tables of metrics.
async fn assert_reads(feed: &Feed, view: &str, tables: &[&str]) {
    let rows = feed.sql(&format!("EXPLAIN SELECT * FROM {view}")).await;
    let plan = rows.iter().map(Value::to_string).collect::<String>();
    for table in ["metrics_hourly", "metrics_daily"] {
        assert_eq!(plan.contains(table), tables.contains(&table), "{view} and {table}: {plan}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_hours_and_minutes_together_equal_the_minutes_alone() {
    let mut feed = Feed::new().await;
    let mut random = StdRng::seed_from_u64(20);
    let (mut runs, mut reviews) = (0, 0);
    let settings = RollupSettings { step_rows: 150, ..RollupSettings::default() };
    for round in 0..3 {
        for _ in 0..4 {
            let mut events: Vec<Value> = (runs..runs + 60).map(|number| run(&mut random, number)).collect();
            runs += 60;
            // Verdicts about runs of any age: corrections of hours and days that are rolled up already.
            for _ in 0..20 {
                let about = random.random_range(0..runs);
                events.push(review(&mut random, reviews, about));
                reviews += 1;
            }
            feed.commit_events(&events).await;
            Box::pin(feed.aggregate(AggregatorSettings::default())).await;
        }
        // Nothing is rolled up at first; then the roll-ups lag behind the minutes by a round; then they have all of it.
        Box::pin(compare(&feed, &mut random, 3)).await;
        assert_reads(&feed, "release_summary", if round == 0 { &[] } else { &["metrics_hourly", "metrics_daily"] })
            .await;
        let mut roller = Roller::open(&feed.lake, settings, &Registry::new()).await.expect("opens");
        Box::pin(roller.run_until_caught_up()).await.expect("catches up");
    }
    assert_ne!(Rolled::load(&feed.lake).await.expect("loads"), Rolled::default());
    assert_reads(&feed, "rolling", &["metrics_hourly", "metrics_daily"]).await;
    assert_reads(&feed, "last_hour", &[]).await;
    Box::pin(compare(&feed, &mut random, 10)).await;
    feed.folded().await;
}
