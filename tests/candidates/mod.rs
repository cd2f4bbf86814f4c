//! From a failed run to a decision: sampled, listed, shown, decided by people over Kafka, and decided in the tables.

mod cases;

use serde_json::{Value, json};

use crate::common::broker::broker;
use crate::common::event::{now, rfc3339, runs};
use crate::common::program::{Ended, Running, text};
use crate::common::{Setup, bellwether, until};

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
    let setup = Setup::new(&broker.address, &topic, "[ingest]\ncontent = true\n[evals]\nsample = true\n");
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

    let plan = |more: &[&str]| bellwether(&[&["candidates", "plan", "--config", text(&config)], more].concat());
    let planned: Value = serde_json::from_str(&plan(&["--json"]).succeeds()).expect("JSON");
    assert_eq!((&planned["taken"], &planned["runs"]), (&Value::from(5), &Value::from(12)), "as the role took them");
    assert_eq!(planned["strata"][0]["suppressed"], 7.0, "{planned:#}");
    let smaller = plan(&["--budget", "3"]).succeeds();
    assert!(smaller.contains("3 of 12 runs are taken") && smaller.contains("tool_failure"), "{smaller}");
    let wrong = plan(&["--week", "2020-W01"]);
    assert!(wrong.stderr.contains("no run ended in 2020-W01") && wrong.code == Some(2), "{}", wrong.stderr);

    // A decision is an event on the topic.
    let decide = |arguments: &[&str]| {
        let given = [&["candidates"], arguments, &["--config", text(&config)]].concat();
        bellwether(&given)
    };
    let printed = decide(&["reject", &candidate, "--reviewer", "ana", "--print"]).succeeds();
    let event: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&event["type"], &event["run_id"]), (&Value::from("run.review"), &queue[0]["run_id"]));
    let answer = setup.file("answer.json");
    std::fs::write(&answer, "{\"decision\":\"refund\",\"cc\":\"bob@example.org\"}").expect("writes");
    let accept = ["accept", &candidate[..8], "--reviewer", "ana", "--expected", text(&answer)];
    let refused = decide(&accept);
    assert!(refused.code == Some(2) && refused.stderr.contains("candidates edit"), "{}", refused.stderr);
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
    // The address in the answer is another one than that of the run.
    let reviews = setup.sql("SELECT review_json FROM events WHERE review_decision = 'edit'");
    assert!(reviews[0]["review_json"].as_str().is_some_and(|json| json.contains("[EMAIL_2]")), "{reviews:?}");
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
        (vec!["reject", &candidate, "--reviewer", "ana", "--failure-mode", &"x".repeat(65)], "a wrong `failure_mode`"),
        (vec!["accept", &candidate, "--reviewer", "ana", "--failure-mode", "slow"], "no failure mode"),
        (vec!["reopen", &candidate, "--reviewer", "cem"], "cem has made no decision"),
    ] {
        let ended = decide(&arguments);
        assert!(ended.stderr.contains(expected) && ended.code == Some(2), "{arguments:?}: {}", ended.stderr);
    }
    std::fs::write(&answer, "x".repeat(1 << 20)).expect("writes");
    let ended = decide(&edit);
    assert!(ended.stderr.contains("262144 bytes are allowed") && ended.code == Some(2), "{}", ended.stderr);
}

/// Returns an event with a statement of a person about a run.
fn review(run_id: &str, reviewer: &str, decision: &str) -> Value {
    let time = rfc3339(now());
    let data =
        json!({ "review_id": format!("{run_id}-{reviewer}-{time}"), "reviewer": reviewer, "decision": decision });
    json!({ "spec": "run-event/1", "type": "run.review", "source": "forger", "run_id": run_id, "time": time, "data": data })
}

#[test]
fn two_people_at_once_take_different_candidates_and_a_case_lives_until_it_is_retired() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("leases", 2);
    let fetch = "fetch_content = [\"printf\", \"%s\", \"fetched from {ref}\"]";
    let setup = Setup::new(
        &broker.address,
        &topic,
        &format!("[ingest]\ncontent = true\n[evals]\nsample = true\ninterval = \"1s\"\n{fetch}\n"),
    );
    let (config, root) = (setup.config(), setup.root());
    let mut events = runs("r", 12);
    for event in &mut events {
        event["data"]["content"] = json!({
            "input": "a \u{1b}[2J\u{0} שלום \u{202e}👋", "output_ref": "s3://bucket/answer", "output_sha256": null,
        });
    }
    broker.publish_events(&topic, 2, &events);
    setup.catch_up();
    let queue = listed(&setup, &[]);
    assert_eq!(queue.len(), 5, "{queue:#?}");
    let process = setup.start("run");

    // Two people take a candidate in the same moment, while the process reads the topic.
    let take = |reviewer: &str, more: &[&str]| {
        let given =
            [&["candidates", "take", "--json", "--config", text(&config), "--reviewer", reviewer], more].concat();
        Running::start(&given)
    };
    let (ana, ben) = (take("ana", &[]), take("ben", &[]));
    let taken = |ended: Ended| serde_json::from_str::<Value>(&ended.succeeds()).expect("JSON")["candidate_id"].clone();
    let (of_ana, of_ben) = (taken(ana.end()), taken(ben.end()));
    assert_ne!(of_ana, of_ben);
    let (mine, theirs) = (of_ana.as_str().expect("an id"), of_ben.as_str().expect("an id"));
    let leased = listed(&setup, &[]);
    let holder = |id: &str| leased.iter().find(|one| one["candidate_id"] == id).map(|one| one["leased_by"].clone());
    assert_eq!((holder(mine), holder(theirs)), (Some("ana".into()), Some("ben".into())), "{leased:#?}");

    // What the other one has cannot be decided or taken; a forged name could not be told apart.
    let decide = |arguments: &[&str]| bellwether(&[&["candidates"], arguments, &["--config", text(&config)]].concat());
    let refused = decide(&["accept", mine, "--reviewer", "ben"]);
    assert!(refused.stderr.contains("ana has taken candidate") && refused.code == Some(2), "{}", refused.stderr);
    let refused = take("ben", &[mine]).end();
    assert!(refused.stderr.contains("ana has taken candidate") && refused.code == Some(2), "{}", refused.stderr);

    // Content that is stored elsewhere, and text that would change a terminal.
    let shown = bellwether(&["candidates", "show", mine, "--config", text(&config)]).succeeds();
    assert!(shown.contains("It is at s3://bucket/answer: fetch it") && shown.contains("leased by ana"), "{shown}");
    assert!(shown.contains("שלום") && !shown.contains(['\u{1b}', '\0', '\u{202e}']), "{shown:?}");
    let shown = bellwether(&["candidates", "show", mine, "--config", text(&config), "--fetch"]).succeeds();
    assert!(shown.contains("fetched from s3://bucket/answer"), "{shown}");

    // The life of a case.
    let state = |id: &str| {
        let all = listed(&setup, &["--all"]);
        all.into_iter().find(|one| one["candidate_id"] == id).expect("is there")["state"].clone()
    };
    let becomes = |id: &str, expected: &str| until(expected, || (state(id) == expected).then_some(()));
    let answer = setup.file("answer.txt");
    std::fs::write(&answer, "12.50 👩\u{200d}🔬 שלום\n").expect("writes");
    decide(&["edit", mine, "--reviewer", "ana", "--expected", text(&answer), "--eval-case"]).succeeds();
    becomes(mine, "eval_case");
    decide(&["retire", mine, "--reviewer", "ben"]).succeeds();
    becomes(mine, "retired");
    let refused = decide(&["accept", mine, "--reviewer", "cy"]);
    assert!(refused.stderr.contains("is retired") && refused.code == Some(2), "{}", refused.stderr);
    let refused = decide(&["retire", theirs, "--reviewer", "cy"]);
    assert!(refused.stderr.contains("only an eval case can be retired"), "{}", refused.stderr);
    let shown = bellwether(&["candidates", "show", mine, "--root", text(&root)]).succeeds();
    assert!(shown.contains("expected: 12.50 👩\u{200d}🔬 שלום") && shown.contains("retired by ben"), "{shown}");

    // Reviews of a run that is unknown or erased are stored, and change no candidate.
    let other = queue.iter().find(|one| one["candidate_id"] != mine && one["candidate_id"] != theirs).expect("five");
    let (erased_run, erased_id) = (other["run_id"].as_str().expect("an id"), id(other));
    // Replaced files stay for a while, and the command says so.
    bellwether(&["erase", "--root", text(&root), "--run-id", erased_run]).exits_with(5);
    let late = [review("no-such-run", "ana", "accept"), review(erased_run, "ana", "accept")];
    broker.publish_events(&topic, 2, &late);
    let orphans = "SELECT count(*) FROM orphans WHERE event_type = 'run.review'";
    until("late reviews are stored", || (setup.number(orphans) == 2).then_some(()));
    let after = listed(&setup, &["--all"]);
    assert!(after.iter().all(|one| one["run_id"] != erased_run && one["run_id"] != "no-such-run"), "{after:#?}");
    let gone = decide(&["accept", &erased_id, "--reviewer", "ana"]);
    assert!(gone.stderr.contains(&format!("no candidate `{erased_id}`")) && gone.code == Some(2), "{}", gone.stderr);

    process.stop();

    // Without a terminal there is no screen.
    let next = decide(&["next", "--reviewer", "ana"]);
    assert!(next.stderr.contains("needs a terminal") && next.stderr.contains("candidates take"), "{}", next.stderr);
    let unnamed = decide(&["next", "--reviewer", "a\u{1b}[2J"]);
    assert!(unnamed.stderr.contains("control characters") && unnamed.code == Some(2), "{}", unnamed.stderr);
}
