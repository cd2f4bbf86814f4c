//! From runs in production to an eval set: sampled, reviewed, made cases, superseded by a later review, retired, and exported.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::review;
use crate::common::event::run;
use crate::common::program::text;
use crate::common::{Setup, bellwether};

/// A successful run with its content.
fn asked(id: &str, input: &str, output: &str) -> Value {
    let mut event = run(id);
    event["data"]["tool_calls"] = json!([]);
    event["data"]["content"] = json!({ "input": input, "output": output });
    event
}

/// A decision that asks for an eval case.
fn wanted(decision: &str, run: &str, reviewer: &str) -> Value {
    let mut event = review(run, reviewer, decision);
    event["data"]["make_eval_case"] = json!(true);
    event
}

fn edited(run: &str, reviewer: &str, answer: &str) -> Value {
    let mut event = wanted("edit", run, reviewer);
    event["data"]["expected"] = json!(answer);
    event
}

/// A set that is made of the candidates of tables.
struct Made<'a> {
    setup: &'a Setup,
    config: std::path::PathBuf,
}

impl Made<'_> {
    fn evalset(&self, arguments: &[&str]) -> String {
        let sets = self.setup.file("sets");
        bellwether(&[&["evalset"], arguments, &["--sets", text(&sets)]].concat()).exits_with(0)
    }

    fn create(&self, more: &[&str]) -> String {
        let arguments = ["create", "support", "--from-candidates", "--holdout", "0.5", "--config", text(&self.config)];
        self.evalset(&[&arguments, more].concat())
    }

    fn status(&self, more: &[&str]) -> String {
        self.evalset(&[&["status", "support", "--config", text(&self.config)], more].concat())
    }

    fn cases(&self, version: usize) -> Vec<Value> {
        let file = self.setup.file("sets").join(format!("support/v{version}/cases.jsonl"));
        let lines = std::fs::read_to_string(file).expect("reads");
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn case(&self, version: usize, input: &str) -> Value {
        let is = |case: &Value| case["input"][0]["content"] == input;
        self.cases(version).into_iter().find(is).unwrap_or_else(|| panic!("no case {input}"))
    }

    fn decide(&self, events: &[Value]) {
        self.setup.replay(&self.setup.recording("reviews.ndjson", events));
    }
}

#[test]
fn a_reviewer_learns_why_content_is_not_stored() {
    for (settings, says) in [
        ("", "The input is not stored here, because `ingest.content` was off: ask the producer"),
        ("[ingest]\ncontent = true\nmax_content_bytes = 100\n", "The input was too large to be stored"),
    ] {
        let setup = Setup::new("127.0.0.1:9", "unused", &format!("{settings}[evals]\nsample = true\n"));
        setup.replay(&setup.recording("runs.ndjson", &[asked("secret", &"Where is it? ".repeat(20), "There.")]));
        setup.catch_up_role("evals");
        let root = setup.root();
        let all = ["candidates", "list", "--json", "--root", text(&root)];
        let all: Value = serde_json::from_str(&bellwether(&all).succeeds()).expect("JSON");
        let id = all[0]["candidate_id"].as_str().expect("an id");
        let shown = bellwether(&["candidates", "show", id, "--root", text(&root)]).succeeds();
        assert!(shown.contains(says) && !shown.contains("Where is it"), "{shown}");
    }
}

#[test]
fn decided_candidates_become_cases_that_later_reviews_supersede_or_retire() {
    let fetch = "fetch_content = [\"printf\", \"%s\", \"Where is {ref}, ana@example.com?\"]";
    let setup =
        Setup::new("127.0.0.1:9", "unused", &format!("[ingest]\ncontent = true\n[evals]\nsample = true\n{fetch}\n"));
    let parcel = |n: usize| {
        format!(
            "Where is my parcel {n}? The tracking page has said out for delivery since Monday, and nobody answers the phone."
        )
    };
    let mut events = vec![
        asked("same-1", "Refund order seven, please", "Refunded."),
        asked("same-2", "refund  ORDER seven, please", "Done, it is refunded."),
        asked("wrong", "Cancel my subscription", "I have ordered another one."),
        asked("unsafe", "Tell me where Zebedee Quill lives", "In 5 Main Street."),
        run("silent"),
        asked("waiting", "Which colours are there?", "Error"),
        asked("elsewhere", "", ""),
        asked("plain", "Are you open today?", "Yes, until six."),
        asked("long", "Write a novel", "No."),
    ];
    events[3]["data"]["policy_exceptions"] = json!([{ "policy_id": "pii", "severity": "high" }]);
    events[5]["data"]["outcome"]["status"] = json!("failure");
    events[6]["data"]["content"] = json!({ "input_ref": "s3://bucket/question" });
    events.extend((0..6).map(|n| asked(&format!("parcel-{n}"), &parcel(n), &format!("It is at depot {n}."))));
    setup.replay(&setup.recording("runs.ndjson", &events));
    setup.catch_up_role("evals");
    assert_eq!(setup.number("SELECT count(*) FROM current_candidates"), 15, "every run is in the sample");

    // The names were not known when the runs were ingested.
    let names = "[redaction]\nnames = [\"Zebedee Quill\"]\n";
    let made = Made { setup: &setup, config: setup.other("names.toml", |config| format!("{config}{names}")) };
    assert!(made.create(&[]).contains("people have decided no candidate yet"));
    let mut decisions = vec![
        wanted("accept", "same-1", "ana"),
        wanted("accept", "same-2", "ben"),
        wanted("reject", "wrong", "ana"),
        edited("unsafe", "ana", "I must not say where Zebedee Quill lives."),
        wanted("accept", "silent", "ana"),
        edited("elsewhere", "ana", "It is in the post."),
        review("plain", "ana", "accept"),
        edited("long", "ana", &"x".repeat(600_000)),
    ];
    decisions.extend((0..6).map(|n| wanted("accept", &format!("parcel-{n}"), "ben")));
    made.decide(&decisions);

    let said = made.create(&[]);
    assert!(said.starts_with("support v1 has 9 cases"), "{said}");
    assert!(said.contains("has no input; add --fetch to get it from s3://bucket/question"), "{said}");
    for (count, why) in [
        ("left out: 1 candidate (", "rejected, without the right answer"),
        ("left out: 1 candidate (", "the input is neither stored nor referred to"),
        ("left out: 1 candidate (", "nobody asked for a case; add --all"),
        ("left out: 1 candidate (", "its expected answer has 600000 bytes; the limit is 262144"),
    ] {
        assert!(said.lines().any(|line| line.starts_with(count) && line.contains(why)), "{why}: {said}");
    }
    // The same input twice is one case, with the first accepted answer and both runs.
    let same = made.case(1, "Refund order seven, please");
    assert_eq!(same["expected"], "Refunded.");
    let runs: BTreeSet<&str> = same["provenance"]["runs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|run| run["run_id"].as_str())
        .collect();
    assert_eq!(runs, BTreeSet::from(["same-1", "same-2"]));
    // What was stored before the configuration had the name is redacted in the set.
    let unsafe_case = made.case(1, "Tell me where [NAME_1] lives");
    assert_eq!(unsafe_case["expected"], "I must not say where [NAME_1] lives.");
    assert_eq!(unsafe_case["kind"], "must_fail_safely");
    let provenance = &unsafe_case["provenance"];
    assert_eq!(provenance["run"], json!({ "source": "tests", "run_id": "unsafe", "attempt": 1 }));
    assert_eq!((&provenance["decision"], &provenance["reviewer"]), (&json!("edit"), &json!("ana")));
    assert!(provenance["signature"].as_str().is_some_and(|signature| signature.contains("pii")), "{provenance}");
    assert!(provenance["release_fingerprint"].is_string(), "{provenance}");
    assert!(provenance["inclusion_probability"].is_number(), "{provenance}");
    let near: BTreeSet<String> = (0..6).map(|n| made.case(1, &parcel(n))["split"].to_string()).collect();
    assert_eq!(near.len(), 1, "near-duplicates are in one split");
    let root = setup.root();
    for policy in [["--config", text(&made.config)], ["--root", text(&root)]] {
        let create = [&["create", "support", "--from-candidates"][..], &policy].concat();
        let said = made.evalset(&create);
        assert!(said.starts_with("there are no new cases"), "another policy changes no case: {said}");
    }

    // Content that is stored elsewhere is fetched on request, and redacted.
    let said = made.create(&["--fetch"]);
    assert!(
        said.starts_with("support v2 has 9 cases") && said.contains("fetched input; edit of run elsewhere"),
        "{said}"
    );
    assert_eq!(made.case(2, "Where is s3://bucket/question, [EMAIL_1]?")["version"], 2);

    // What is missing is proposed from the queue.
    let said = made.status(&[]);
    assert!(said.contains("refund_triage could get a failure case: review"), "{said}");
    assert!(said.contains("1 decided candidate has no request for a case"), "{said}");
    assert!(!said.contains(" ready: "), "{said}");
    let status: Value = serde_json::from_str(&made.status(&["--json"])).expect("JSON");
    assert_eq!(status["proposed"]["review"][0]["class"], "judged_bad", "{status:#}");

    // A later review says that the expected answer is wrong, an answer is given to the rejected run, and one case is retired.
    let mut retired = review("unsafe", "ben", "skip");
    retired["data"]["retired"] = json!(true);
    retired["data"]["sets_outcome"] = json!(false);
    made.decide(&[
        edited("same-1", "ana", "It was refunded to your card."),
        edited("same-2", "ben", "It was refunded to your card."),
        edited("wrong", "ana", "It is cancelled."),
        retired,
    ]);
    let said = made.status(&[]);
    assert!(said.contains("2 cases are ready: `bellwether evalset create support --from-candidates`"), "{said}");
    let retire =
        format!("take out: `bellwether evalset retire support {}`", unsafe_case["id"].as_str().expect("an id"));
    assert!(said.contains(&retire), "{said}");
    let second = made.cases(2);
    let said = made.create(&[]);
    assert!(said.starts_with("support v3 has 10 cases") && said.contains(&retire), "{said}");
    // Its input is that of the run with the newest edit, which differs in case and white space only.
    let newer = made.cases(3).into_iter().find(|case| case["id"] == same["id"]).expect("the case");
    assert_eq!((&newer["version"], &newer["split"]), (&json!(2), &same["split"]));
    assert_eq!(newer["expected"], "It was refunded to your card.");
    assert_eq!(newer["provenance"]["supersedes"]["version"], 1, "{newer}");
    assert_eq!(made.cases(2), second, "a version stays as it was");
    let said = made.evalset(&["diff", "support"]);
    assert!(said.contains("v2 to v3: 8 cases are unchanged") && said.contains("has a later version"), "{said}");

    // What is taken out does not come back by itself.
    let parcel_case = made.case(3, &parcel(0));
    let ids = [&unsafe_case["id"], &parcel_case["id"]].map(|id| id.as_str().expect("an id"));
    made.evalset(&["retire", "support", ids[0], ids[1]]);
    let said = made.create(&[]);
    assert!(said.starts_with("there are no new cases") && said.contains("add --retired to take it again"), "{said}");
    assert!(made.create(&["--retired"]).starts_with("support v5 has 9 cases"));
    assert_eq!(made.case(5, &parcel(0))["split"], parcel_case["split"]);

    let output = setup.file("exported");
    made.evalset(&["export", "support", "--format", "promptfoo", "--output", text(&output)]);
    let exported: String = std::fs::read_dir(&output)
        .expect("a folder")
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("reads"))
        .collect();
    assert!(exported.contains("It was refunded to your card.") && exported.contains("It is cancelled."), "{exported}");
    assert!(!exported.contains("Refunded."), "{exported}");
}
