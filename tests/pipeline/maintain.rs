//! Maintenance beside everything else: `bellwether maintain`, and followers whose files were rewritten and removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellwether_aggregate::rollup::{Roller, RollupSettings};
use bellwether_aggregate::{Aggregate, AggregatorSettings, PartialsFold};
use bellwether_base::{Clock, ManualClock, SystemClock};
use bellwether_follow::Until;
use bellwether_lake::{Act, CommitLog, Lake, Layout, MaintainSettings, StorageOptions};
use bellwether_tables::Table;
use prometheus::Registry;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::common::event::{rfc3339, runs};
use crate::common::program::text;
use crate::common::{bellwether, python};
use crate::late::feed::{Feed, NOW};

/// Files under a root, with their sizes.
fn listing(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).expect("a folder").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(listing(&path)),
            false => drop(found.insert(path, entry.metadata().expect("a file").len())),
        }
    }
    found
}

/// Runs that ended a minute before the feed's current time.
fn old_runs(prefix: &str, count: usize) -> Vec<serde_json::Value> {
    let now = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"));
    let at = |mut run: serde_json::Value| {
        run["data"]["started_at"] = json!(rfc3339(now - Duration::from_secs(62)));
        run["data"]["ended_at"] = json!(rfc3339(now - Duration::from_secs(60)));
        run
    };
    runs(prefix, count).into_iter().map(at).collect()
}

#[tokio::test]
async fn the_command_lists_what_is_due_then_does_it_and_then_finds_nothing() {
    let mut feed = Feed::new().await;
    for n in 0..70 {
        Box::pin(feed.commit_events(&old_runs(&format!("run-{n}"), 2))).await;
    }
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    let root = feed.root().to_owned();
    let before = listing(&root);
    let plan = bellwether(&["maintain", "--dry-run", "--root", text(&root)]).succeeds();
    assert!(plan.contains("dry run") && plan.contains("  would rewrite     70 small files ("), "{plan}");
    assert!(plan.lines().all(|line| line.chars().count() <= 80 || line.starts_with('/')), "{plan}");
    assert_eq!(listing(&root), before, "a dry run changes nothing");
    let done = bellwether(&["maintain", "--root", text(&root)]).succeeds();
    assert!(done.contains("  rewrote           70 small files ("), "{done}");
    let again = bellwether(&["maintain", "--root", text(&root)]).succeeds();
    assert!(!again.contains("rewrote") && again.contains("nothing to do"), "{again}");
    bellwether(&["audit", "--recompute", "--root", text(&root)]).succeeds();
    let ended = bellwether(&["maintain", "--root", text(&root.join("nowhere"))]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_goes_on_after_files_that_it_knew_were_removed() {
    let mut feed = Feed::new().await;
    for n in 0..3 {
        Box::pin(feed.commit_events(&old_runs(&format!("run-{n}"), 5))).await;
    }
    let settings = AggregatorSettings { poll_interval: Duration::from_millis(20), ..AggregatorSettings::default() };
    let aggregate = Aggregate { settings, ..Aggregate::new(feed.lake.clone()) };
    let stop = CancellationToken::new();
    let role = tokio::spawn(bellwether_aggregate::run(aggregate, Registry::new(), Until::Stopped, stop.clone()));
    let read = async |lake: &Lake, version: i64| {
        for _ in 0..1500 {
            let metrics = lake.log(Table::Metrics).load().await.expect("loads");
            if Layout::reads_next(&metrics) > version {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the aggregator does not read version {version}");
    };
    read(&feed.lake, 3).await;
    let small = feed.lake.active_files(Table::Events).await.expect("lists").1;
    let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(feed.lake.compact(Table::Events, &few).await.expect("compacts"), 3);
    // One more version, so that it has read the rewrite; then the files go, as after a clean-up.
    Box::pin(feed.commit_events(&old_runs("later", 1))).await;
    read(&feed.lake, 5).await;
    for file in small {
        std::fs::remove_file(feed.root().join("events").join(file.path)).expect("it was there");
    }
    let now = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"));
    let review = json!({
        "spec": "run-event/1.0", "type": "run.review", "run_id": "run-0-0", "source": "reviews",
        "time": rfc3339(now),
        "data": { "review_id": "r-1", "reviewer": "p-1", "decision": "reject" },
    });
    Box::pin(feed.commit_events(&[review])).await;
    read(&feed.lake, 6).await;
    feed.folded().await;
    let judged = feed.sql("SELECT count(*) AS n FROM runs WHERE outcome_source = 'human'").await;
    assert_eq!(judged[0]["n"], json!(1), "the review counts");
    stop.cancel();
    role.await.expect("no panic").expect("it goes on");
}

#[tokio::test]
async fn another_engine_reads_the_tables_as_they_are_and_has_a_clear_error_for_versions_that_are_gone() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut feed = Feed::at(folder.path().to_owned()).await;
    for n in 0..10 {
        Box::pin(feed.commit_events(&old_runs(&format!("run-{n}"), 3))).await;
    }
    let small = feed.lake.active_files(Table::Events).await.expect("lists").1;
    let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    feed.lake.compact(Table::Events, &few).await.expect("compacts");
    Box::pin(feed.commit_events(&old_runs("last", 1))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    let clock = ManualClock::at(SystemClock.now_micros());
    let root = folder.path().to_str().expect("text");
    let lake = Lake::open_with_clock(root, &StorageOptions::default(), Arc::new(clock.clone())).await.expect("opens");
    // The checkpoint of the version before the last, as an earlier round would have written it.
    lake.checkpoint(Table::Events).await.expect("a checkpoint");
    Box::pin(feed.commit_events(&old_runs("more", 1))).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    lake.clean_up(Table::Events, &few, Act::Do).await.expect("a first round");
    clock.advance(3 * 3600 * 1_000_000);
    let done = lake.clean_up(Table::Events, &few, Act::Do).await.expect("cleans up");
    assert_eq!((done.replaced.count, done.log.count), (10, 12), "{done:?}");
    for file in small {
        assert!(!folder.path().join("events").join(file.path).exists(), "a replaced file is gone");
    }
    let script = "import sys, duckdb\nfrom deltalake import DeltaTable\n\
        table = DeltaTable(sys.argv[1] + '/events')\n\
        files = [uri.removeprefix('file://') for uri in table.file_uris()]\n\
        print(duckdb.sql(f'SELECT count(*) FROM read_parquet({files!r})').fetchall()[0][0])\n\
        try:\n    DeltaTable(sys.argv[1] + '/events', version=5)\n    print('opened')\n\
        except Exception as error:\n    print(type(error).__name__, error)\n";
    let output = std::process::Command::new(python).args(["-c", script, root]).output().expect("runs");
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = answer.lines();
    assert_eq!(lines.next(), Some("32"), "{answer}{}", String::from_utf8_lossy(&output.stderr));
    let error = lines.next().unwrap_or_default();
    assert!(error.contains("No files in log segment"), "{answer}");
    bellwether(&["audit", "--recompute", "--root", root]).succeeds();
}

#[tokio::test]
async fn expired_events_go_and_the_audit_and_a_standing_aggregator_know() {
    let mut feed = Feed::new().await;
    let mut standing = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
    let at = |mut run: serde_json::Value, days: u64| {
        let ended = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"))
            - Duration::from_secs(days * 86_400);
        run["data"]["started_at"] = json!(rfc3339(ended - Duration::from_secs(2)));
        run["data"]["ended_at"] = json!(rfc3339(ended));
        run
    };
    let old: Vec<_> = runs("old", 5).into_iter().map(|run| at(run, 40)).collect();
    Box::pin(feed.commit_events(&old)).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    // The old file is rewritten with another of its day, so that the index knows it by two names.
    let more: Vec<_> = runs("also-old", 3).into_iter().map(|run| at(run, 40)).collect();
    Box::pin(feed.commit_events(&more)).await;
    let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
    assert_eq!(feed.lake.compact(Table::Events, &few).await.expect("compacts"), 2);
    Box::pin(feed.commit_events(&old_runs("new", 4))).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    let keep = Duration::from_secs(30 * 86_400);
    let refused = feed.lake.retain(Table::Events, keep, false, Act::Do).await.expect("looks");
    assert!(refused.refused_days > 7 && !refused.is_some(), "{refused:?}");
    let done = feed.lake.retain(Table::Events, keep, true, Act::Do).await.expect("removes");
    assert_eq!((done.expired.count, done.expired_rows), (1, 8), "{done:?}");
    let kept = feed.lake.active_files(Table::Events).await.expect("lists").1;
    for (path, _) in listing(&feed.root().join("events")) {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.ends_with(".parquet")
            && !name.contains("checkpoint")
            && !kept.iter().any(|file| file.path.ends_with(&name))
        {
            std::fs::remove_file(path).expect("it was there");
        }
    }
    // A verdict about a run that is gone changes nothing, and stops nothing.
    let review = json!({
        "spec": "run-event/1.0", "type": "run.review", "run_id": "old-0", "source": "reviews",
        "time": rfc3339(std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"))),
        "data": { "review_id": "r-1", "reviewer": "p-1", "decision": "reject" },
    });
    Box::pin(feed.commit_events(&[review])).await;
    Box::pin(standing.run_until_caught_up()).await.expect("catches up");
    assert_eq!(feed.sql("SELECT count(*) AS n FROM runs").await[0]["n"], json!(4));
    assert_eq!(feed.sql("SELECT sum(runs) AS n FROM metrics").await[0]["n"], json!(12), "figures stay");
    assert_eq!(feed.sql("SELECT count(*) AS n FROM orphans").await[0]["n"], json!(1));
    let answer = bellwether(&["audit", "--format", "json", "--root", text(feed.root())]).succeeds();
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let checks = answer["checks"].as_array().expect("checks");
    let rows = checks.iter().find(|check| check["name"] == "rows").expect("the check");
    assert_eq!((&rows["counts"]["removed"], &rows["counts"]["events"]), (&json!(8), &json!(5)), "{rows:#}");
}

async fn roll_up(lake: &Lake) {
    let roller = Roller::open(lake, RollupSettings::default(), &Registry::new()).await;
    Box::pin(roller.expect("opens").run_until_caught_up()).await.expect("rolls up");
}

#[tokio::test]
async fn partial_rows_become_one_for_each_window_and_group_once_they_are_rolled_up() {
    for all in [false, true] {
        let mut feed = Feed::new().await;
        let mut aggregator = Box::pin(feed.aggregator(AggregatorSettings::default(), None)).await;
        for n in 0..6 {
            Box::pin(feed.commit_events(&old_runs(&format!("run-{n}"), 20))).await;
            Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
            if all && n == 5 || !all && n == 2 {
                roll_up(&feed.lake).await;
            }
        }
        let rows = async || feed.sql("SELECT count(*) AS n FROM metrics").await[0]["n"].as_i64().expect("a number");
        let (before, folded) = (rows().await, feed.folded().await);
        let groups = i64::try_from(folded.num_rows()).expect("few");
        assert!(before >= 6 * groups, "{before} partial rows of {groups} groups");
        let few = MaintainSettings { compact_files: 2, ..MaintainSettings::default() };
        let maintain = async |few: &MaintainSettings| {
            let done = feed.lake.maintain_with(Table::Metrics, few, Some(&PartialsFold)).await.expect("maintains");
            (done.files_compacted, i64::try_from(done.rows_folded).expect("few"))
        };
        if all {
            assert_eq!(maintain(&few).await, (6, before - groups));
        } else {
            assert_eq!(maintain(&few).await, (3, before / 2 - groups), "only rows that are rolled up");
            assert_eq!(maintain(&few).await, (0, 0), "the others wait");
        }
        let left = rows().await;
        assert_eq!(left, if all { groups } else { groups + before / 2 });
        assert_eq!(feed.folded().await, folded, "no figure changes");
        let span = feed.sql("SELECT min(events_from) AS a, max(events_to) AS b FROM metrics").await;
        assert_eq!((&span[0]["a"], &span[0]["b"]), (&json!(0), &json!(7)), "nor the versions that the rows cover");
        // Later rows, and corrections of folded ones, are as good as before.
        let review = json!({
            "spec": "run-event/1.0", "type": "run.review", "run_id": "run-0-1", "source": "reviews",
            "time": rfc3339(std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"))),
            "data": { "review_id": "r-1", "reviewer": "p-1", "decision": "reject" },
        });
        Box::pin(feed.commit_events(&[review])).await;
        Box::pin(aggregator.run_until_caught_up()).await.expect("catches up");
        feed.folded().await;
        roll_up(&feed.lake).await;
        bellwether(&["audit", "--recompute", "--root", text(feed.root())]).succeeds();
    }
}
