//! L-4 with the crates in one process: regardless of order, repeats, cuts into commits and restarts, `metrics` folds to the
//! same bytes as a recomputation from `events`, and as any other order of the same events.

use arrow::array::RecordBatch;
use bellwether_aggregate::recompute::{first_difference, folded, recompute};
use bellwether_aggregate::{Aggregator, AggregatorSettings, event_columns};
use bellwether_base::unique_id;
use bellwether_event::Limits;
use bellwether_ingest::{BatchBuilder, Message};
use bellwether_lake::{Advance, Commit, CommitLog, Handover, Lake, Outcome, StorageOptions};
use bellwether_tables::Table;
use prometheus::Registry;
use proptest::prelude::*;
use serde_json::json;

const NOW: i64 = 1_795_543_200_000_000; // 2026-11-24T18:00:00Z

/// One statement about one of a few runs, as numbers from which [`body`] builds it.
#[derive(Clone, Debug)]
struct Statement {
    run: u8,
    revision: u8,
    variant: u8,
}

fn statement() -> impl Strategy<Value = Statement> {
    (0..12_u8, 0..3_u8, 0..4_u8).prop_map(|(run, revision, variant)| Statement { run, revision, variant })
}

fn body(statement: &Statement) -> Vec<u8> {
    let Statement { run, revision, variant } = statement;
    let status = ["success", "failure", "unknown", "error"][usize::from(*variant)];
    let mut event = json!({
        "spec": "run-event/1", "run_id": format!("run-{run}"), "source": "app", "revision": revision,
        "time": format!("2026-11-23T10:0{variant}:30Z"),
        "data": {
            "task": if run % 2 == 0 { "a" } else { "b" },
            "release": { "id": format!("r{}", run % 3), "model": { "requested": "m", "responded": format!("m-{variant}") } },
            "started_at": "2026-11-23T10:00:00Z",
            "ended_at": format!("2026-11-23T10:0{}:{:02}.5Z", revision, run * 4),
            "outcome": { "status": status },
            "tokens": { "input": 100 + u32::from(*run), "output": 7 * u32::from(*variant) },
            "tool_calls": [{ "name": "t", "status": if *variant == 1 { "error" } else { "ok" } }],
        },
    });
    let data = &mut event["data"];
    if variant % 2 == 0 {
        data["cost"] = json!({ "amount": format!("0.00{run}{variant}3"), "currency": "USD" });
        data["latency"] = json!({ "total_ms": 100.5 * f64::from(*run) + f64::from(*variant), "ttft_ms": 33.25 });
    }
    if run % 4 == 0 {
        data["session_id"] = json!(format!("s-{}", run % 8));
        data["sampling"] = json!({ "probability": 0.3 });
    }
    if *variant == 3 {
        data["escalation"] = json!({ "reason_code": "x" });
        data["validation"] = json!({ "applicable": true, "valid": false, "fields_total": 4,
            "fields": [{ "path": "/a", "valid": false }] });
    }
    event.to_string().into_bytes()
}

/// Commits statements to `events`, as ingest would.
async fn ingest(lake: &Lake, statements: &[Statement], from: i64, handover: Option<&Handover>) {
    let handed_on = handover.map_or(&[] as &[_], Handover::columns);
    let mut builder = BatchBuilder::new(Limits::default()).handing_on(handed_on).expect("columns of events");
    let bodies: Vec<Vec<u8>> = statements.iter().map(body).collect();
    for (offset, body) in (from..).zip(&bodies) {
        builder.push(&Message { topic: "t", offset, payload: Some(body), ..Message::default() }, NOW);
    }
    let (events, quarantine) = builder.finish().expect("rows");
    assert_eq!(quarantine.rows(), 0, "every event is valid");
    let files = lake.store(&events).await.expect("writes");
    let log = lake.log(Table::Events);
    let on = log.load().await.expect("loads");
    let next = from + i64::try_from(statements.len()).expect("few");
    let commit = Commit {
        uuid: unique_id(),
        advances: vec![Advance { app_id: "j/t/0".to_owned(), expected: on.next("j/t/0"), next }],
        files: files.iter().map(|file| file.file.clone()).collect(),
        operation: "ingest",
        ranges: Vec::new(),
        facts: serde_json::Map::new(),
    };
    let outcome = log.try_commit(&on, &commit).await.expect("answers");
    assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    if let Some(handover) = handover {
        handover.offer(commit.uuid, files);
    }
}

/// Commits statements in pieces. After each piece the aggregator catches up, or is opened again, or nothing happens.
async fn run(statements: &[Statement], cuts: &[(u8, u8)], index_memory_bytes: usize, hand_over: bool) -> RecordBatch {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lake = Lake::open(folder.path().to_str().expect("text"), &StorageOptions::default()).await.expect("opens");
    let settings = AggregatorSettings { index_memory_bytes, ..AggregatorSettings::default() };
    let handover = hand_over.then(|| Handover::new(1 << 20, event_columns()));
    let open = || async {
        Box::pin(Aggregator::open(&lake, settings, handover.clone(), &Registry::new())).await.expect("opens")
    };
    let mut aggregator = open().await;
    let mut from = 0;
    for (size, then) in cuts.iter().chain(std::iter::repeat(&(255, 0))) {
        let to = (from + 1 + usize::from(*size)).min(statements.len());
        if from == to {
            break;
        }
        let offset = i64::try_from(from).expect("few");
        Box::pin(ingest(&lake, &statements[from..to], offset, handover.as_ref())).await;
        from = to;
        match then % 3 {
            0 => Box::pin(aggregator.run_until_caught_up()).await.expect("catches up"),
            1 => aggregator = open().await,
            _ => {}
        }
    }
    Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
    let (table, computed) = (folded(&lake).await.expect("folds"), recompute(&lake).await.expect("computes"));
    assert_eq!(first_difference(&table, &computed), None);
    table
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_order_repeats_cuts_and_restarts_give_the_same_bytes(
        statements in prop::collection::vec(statement(), 1..50),
        keys in prop::collection::vec(any::<u32>(), 100),
        cuts in prop::collection::vec((0..12_u8, any::<u8>()), 0..8),
        hand_over in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
        runtime.block_on(async {
            let first = Box::pin(run(&statements, &cuts, 1 << 20, hand_over)).await;
            // The same statements, some of them twice, in another order and in other pieces.
            let other: Vec<(u32, Statement)> = keys.iter().copied().zip(statements.iter().chain(&statements).cloned()).collect();
            let (sure, spare) = other.split_at(statements.len());
            let mut other: Vec<(u32, Statement)> = sure.iter().chain(spare.iter().filter(|(key, _)| key % 2 == 0)).cloned().collect();
            other.sort_by_key(|(key, _)| *key);
            let other: Vec<Statement> = other.into_iter().map(|(_, statement)| statement).collect();
            let second = Box::pin(run(&other, &[(5, 1), (0, 0), (9, 2), (3, 1)], 1 << 20, !hand_over)).await;
            assert_eq!(first_difference(&second, &first), None);
        });
    }
}
