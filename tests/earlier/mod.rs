//! Tables that earlier versions wrote: the present program reads them, audits them clean and continues in them.
//!
//! Each archive `tests/data/NAME.tar.gz` holds `root`, the tables of 220 messages of topic `root-0.1` (two partitions of a real
//! broker) and of ten events replayed from `third.ndjson`. The real program of that time wrote it: ingest, aggregate, a rebuild
//! to two shards, a replay, late statements, two rejected messages, watch. Its logs thus hold every form of application id but
//! `…/late` and `…#start`. `NAME.answers.json` holds that version's own answers about it.
//!
//! * `root-0.1`: version 0.1.0 before its crates were rearranged.
//! * `root-0.1-minutes`: the last program without roll-ups by hour and day.
//!
//! Add a root for each version that is released, or form of a table that changes; never change one.

use std::process::Command;

use serde_json::Value;

use crate::common::event::{run, runs};
use crate::common::program::text;
use crate::common::{Broker, Message, Setup, bellwether, broker, repository, skipped, until_or};

/// The topic of the recorded root.
const TOPIC: &str = "root-0.1";

/// Messages of each of its two partitions that the recorded root has read.
const READ: usize = 110;

/// The settings under which the root was written. Only `lag` judges by the present: the root has not been read for long.
const SETTINGS: &str = "[ingest]\nmax_event_age = \"36500d\"\n[aggregate]\nshards = 2\n[alerts]\ndisabled = [\"lag\"]\n\
    [contracts.refund_triage]\nsuccess = 0.9\ncost_ceiling = 0.02\nbaseline = \"r1\"\n";

/// Names of the recorded roots, the oldest first.
pub(crate) const ROOTS: [&str; 2] = ["root-0.1", "root-0.1-minutes"];

/// Returns a configuration whose root is a copy of a recorded one.
pub(crate) fn recorded(name: &str, brokers: &str) -> Setup {
    let setup = Setup::new(brokers, TOPIC, SETTINGS);
    let folder = setup.file("recorded");
    std::fs::create_dir(&folder).expect("a folder is made");
    let archive = repository(&format!("tests/data/{name}.tar.gz"));
    let unpacked = Command::new("tar").args(["-xzf", text(&archive), "-C", text(&folder)]).status();
    assert!(unpacked.expect("`tar` runs").success(), "`{}` is not unpacked", archive.display());
    std::fs::rename(folder.join("root"), setup.root()).expect("the root is moved");
    setup
}

/// Fails unless the audit proves every number in the tables.
fn audits_clean(setup: &Setup) {
    bellwether(&["audit", "--root", text(&setup.root()), "--recompute"]).succeeds();
}

/// Fails if an answer differs from that of the version that wrote the root.
fn answers_as_recorded(name: &str, setup: &Setup) {
    let file = std::fs::read(repository(&format!("tests/data/{name}.answers.json"))).expect("the answers can be read");
    let answers: Vec<Value> = serde_json::from_slice(&file).expect("the answers are JSON");
    assert_eq!(answers.len(), 9);
    for answer in answers {
        let query = answer["query"].as_str().expect("a query");
        let (rows, expected) = (setup.sql(query), answer["rows"].as_array().expect("rows"));
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(row, expected, "{query}");
        }
        assert_eq!(rows.len(), expected.len(), "{query}");
    }
}

fn rows(setup: &Setup) -> i64 {
    setup.number("SELECT count(*) FROM events")
}

#[test]
fn an_earlier_root_answers_as_it_did_and_audits_clean() {
    for name in ROOTS {
        let setup = recorded(name, "127.0.0.1:9");
        answers_as_recorded(name, &setup);
        audits_clean(&setup);
        // Aggregate and watch find nothing to do: what they remember of their work is understood.
        for role in ["aggregate", "watch"] {
            bellwether(&[role, "--until-caught-up", "--config", text(&setup.config())]).succeeds();
        }
        answers_as_recorded(name, &setup);
        // The roll-ups, which the earliest version did not have, are made from its metrics.
        let totals = |table: &str| {
            let sums = "CAST(sum(runs) AS BIGINT) AS runs, CAST(sum(success) AS BIGINT) AS success";
            setup.sql(&format!("SELECT task, {sums} FROM {table} GROUP BY task ORDER BY task"))
        };
        for table in ["metrics_hourly", "metrics_daily"] {
            assert_eq!(totals(table), totals("metrics"), "{name}: {table}");
        }
        // What was replayed into it is known by its id.
        let file = setup.file("recorded/third.ndjson");
        bellwether(&["replay", text(&file), "--to", "tables", "--config", text(&setup.config())]).succeeds();
        assert_eq!(rows(&setup), 228, "a recording that was replayed before adds nothing to {name}");
        // What it holds can be computed again.
        bellwether(&["rebuild", "--config", text(&setup.config())]).succeeds();
        audits_clean(&setup);
    }
}

#[test]
fn ingest_continues_an_earlier_root_at_its_offsets() {
    for name in ROOTS {
        continues(name);
    }
}

fn continues(name: &str) {
    // A broker without ids of topics, so that this topic passes for the recorded one.
    let broker = Broker::embedded();
    broker.topic_named(TOPIC, 2);
    let setup = recorded(name, &broker.address);
    // Whatever the broker holds below the recorded offsets must not be read again; a message of it would be rejected.
    let old = (0..2).flat_map(|partition| (0..READ).map(move |_| Message { partition, ..Message::new("read before") }));
    broker.publish(TOPIC, old);
    let mut new: Vec<Value> = (0..10).map(|n| run(&format!("new-{n}"))).collect();
    // A run that the root knows, said again with a higher revision: it moves from success to failure.
    let mut corrected = run("refund_triage-r1-1");
    corrected["source"] = "support-bot".into();
    corrected["revision"] = 7.into();
    corrected["data"]["outcome"]["status"] = "failure".into();
    new.push(corrected);
    let before = setup.number("SELECT count(*) FROM runs");
    let alerts = setup.number("SELECT count(*) FROM alerts");
    broker.publish_events(TOPIC, 2, &new);
    setup.catch_up();
    bellwether(&["watch", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
    assert_eq!(rows(&setup), 228 + 11);
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 2, "no message below the recorded offsets was read");
    assert_eq!(setup.number("SELECT count(*) FROM runs"), before + 10, "the corrected run is still one run");
    let corrected = setup.sql("SELECT outcome_status FROM runs WHERE run_id = 'refund_triage-r1-1'");
    assert_eq!(corrected, [serde_json::json!({"outcome_status": "failure"})]);
    assert_eq!(setup.number("SELECT CAST(sum(runs_observed) AS BIGINT) FROM release_summary"), before + 10);
    let told = "SELECT count(*) FROM (SELECT 1 FROM alerts WHERE change = 'new' GROUP BY alert_id, at, state, stale HAVING count(*) > 1)";
    assert_eq!(setup.number(told), 0, "no alert is reported a second time");
    assert!(setup.number("SELECT count(*) FROM alerts") >= alerts);
    audits_clean(&setup);
}

#[test]
fn an_earlier_root_halts_at_a_recreated_topic() {
    let Some(broker) = broker() else { return };
    if broker.is_mock() {
        return skipped("the embedded broker has no ids of topics; a real one is needed");
    }
    broker.topic_named(TOPIC, 2);
    // The recorded offsets lie within the log: only the topic's id tells that these are other messages.
    broker.publish_events(TOPIC, 2, &runs("other", 2 * READ + 20));
    let setup = recorded(ROOTS[0], &broker.address);
    let worker = setup.start("run");
    let halted = || {
        let (_, metrics) = worker.get("/metrics")?;
        metrics.lines().any(|line| line == "bellwether_ingest_halted_partitions 2").then_some(())
    };
    until_or(halted, || format!("both partitions are halted\n{}\n{:?}", worker.printed(), worker.get("/readyz")));
    worker.signal("TERM");
    worker.end().succeeds();
    assert_eq!(rows(&setup), 228);
}
