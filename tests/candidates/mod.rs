//! From a failed run to a decision: sampled, listed, shown, decided by people over Kafka, and decided in the tables.

use serde_json::Value;

use crate::common::broker::broker;
use crate::common::event::runs;
use crate::common::program::text;
use crate::common::{Setup, bellwether};

fn listed(setup: &Setup, more: &[&str]) -> Vec<Value> {
    let root = setup.root();
    let arguments = [&["candidates", "list", "--json", "--root", text(&root)], more].concat();
    serde_json::from_str(&bellwether(&arguments).succeeds()).expect("a JSON array")
}

fn id(candidate: &Value) -> String {
    candidate["candidate_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_failed_run_is_sampled_shown_and_decided_by_two_people() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("candidates", 1);
    let setup = Setup::new(&broker.address, &topic, "[evals]\nsample = true\n");
    let config = setup.config();
    let mut events = runs("r", 12);
    for event in &mut events {
        event["data"]["content"] = serde_json::json!({ "input": "refund me, I am ana@example.com" });
    }
    broker.publish_events(&topic, 1, &events);
    setup.catch_up();

    let queue = listed(&setup, &[]);
    // Every run has a failed call of the same tool: one signature, which gets five places.
    assert_eq!(queue.len(), 5, "{queue:#?}");
    assert!(queue.iter().all(|candidate| candidate["class"] == "tool_failure"), "{queue:#?}");
    let candidate = id(&queue[0]);
    let root = setup.root();
    let shown = bellwether(&["candidates", "show", &candidate[..8], "--root", text(&root)]).succeeds();
    assert!(shown.contains("issue_refund") && shown.contains("is queued"), "{shown}");
    assert!(shown.contains("[EMAIL_1]") && !shown.contains("ana@example.com"), "{shown}");
    let table = bellwether(&["candidates", "list", "--root", text(&root)]).succeeds();
    assert!(table.contains(&candidate[..8]) && table.contains("weight"), "{table}");

    // A decision is an event on the topic.
    let decide = |arguments: &[&str]| {
        let given = [&["candidates"], arguments, &["--config", text(&config)]].concat();
        bellwether(&given)
    };
    let printed = decide(&["reject", &candidate, "--reviewer", "ana", "--print"]).succeeds();
    let event: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&event["type"], &event["run_id"]), (&Value::from("run.review"), &queue[0]["run_id"]));
    let answer = setup.file("answer.json");
    std::fs::write(&answer, "{\"decision\":\"refund\"}").expect("writes");
    let edit = ["edit", &candidate[..8], "--reviewer", "ana", "--expected", text(&answer), "--eval-case"];
    decide(&edit).succeeds();
    setup.catch_up();
    let state = |id: &str| {
        let all = listed(&setup, &["--all"]);
        all.iter()
            .find(|candidate| candidate["candidate_id"] == id)
            .map(|found| found["state"].clone())
            .expect("is there")
    };
    assert_eq!(state(&candidate), "eval_case");
    assert!(listed(&setup, &[]).iter().all(|left| left["candidate_id"] != candidate.as_str()), "it left the queue");
    // Another person disagrees: a third one is needed. The first takes the decision back.
    decide(&["accept", &candidate, "--reviewer", "ben"]).succeeds();
    setup.catch_up();
    assert_eq!(state(&candidate), "second_review");
    decide(&["reopen", &candidate, "--reviewer", "ana"]).succeeds();
    setup.catch_up();
    assert_eq!(state(&candidate), "decided");

    for (arguments, expected) in [
        (vec!["accept", "ffffffffffff", "--reviewer", "ana"], "no candidate `ffffffffffff`"),
        (vec!["accept", "x'; --", "--reviewer", "ana"], "is not the id of a candidate"),
        (vec!["edit", &candidate, "--reviewer", "ana"], "an edit needs the expected answer"),
    ] {
        let ended = decide(&arguments);
        assert!(ended.stderr.contains(expected) && ended.code == Some(2), "{arguments:?}: {}", ended.stderr);
    }
    std::fs::write(&answer, "x".repeat(1 << 20)).expect("writes");
    let ended = decide(&edit);
    assert!(ended.stderr.contains("262144 are allowed") && ended.code == Some(2), "{}", ended.stderr);
}
