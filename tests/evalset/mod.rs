//! `bellwether evalset`: versions that never change, exports, and results that are valid events.
//!
//! `make exports` loads the exports with the evaluation tools themselves.

use serde_json::json;

use crate::common::bellwether;
use crate::common::program::text;

/// Two cases of a task.
fn cases() -> String {
    let good = json!({ "id": "good", "task": "refunds", "input": [{ "role": "user", "content": "Say exactly: shipped {{x}}" }],
        "expected": "shipped", "provenance": { "reviewer": "ana", "inclusion_probability": 0.25 } });
    let bad = json!({ "id": "bad", "task": "refunds", "kind": "failure", "split": "holdout", "failure_class": "judged_bad",
        "input": [{ "role": "system", "content": "You refund." }, { "role": "user", "content": "Refund 7 to ana@example.com" }],
        "expected": "refused" });
    format!("{good}\n{bad}\n")
}

#[test]
fn versions_are_written_once_superseded_and_exported_without_personal_data() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let sets = path("sets");
    let evalset = |arguments: &[&str]| bellwether(&[&["evalset"], arguments, &["--sets", &sets]].concat());
    let write = |name: &str, content: &str| std::fs::write(path(name), content).expect("writes");
    write("cases", &cases());
    let said = evalset(&["create", "refunds", "--from", &path("cases")]).exits_with(0);
    assert!(said.starts_with("refunds v1 has 2 cases"), "{said}");
    let said = evalset(&["create", "refunds", "--from", &path("cases")]).exits_with(0);
    assert!(said.starts_with("refunds v1 has all of these cases"), "{said}");
    write("shots", "{\"input\": \"say  EXACTLY: shipped {{x}}\"}\n");
    let said = evalset(&["status", "refunds", "--few-shots", &path("shots")]).exits_with(0);
    assert!(said.contains("refunds needs 18 more cases (start with 20 to 50)"), "{said}");
    assert!(said.contains("leak: case good has the input of few-shot example 1"), "{said}");
    evalset(&["freeze", "refunds"]).exits_with(0);
    let before = std::fs::read(path("sets/refunds/v1/cases.jsonl")).expect("reads");

    // A hold-out case that nearly is a case of the other split.
    let near = cases().lines().next().expect("a case").replace("\"good\"", "\"near\"");
    let near = near.replacen('{', "{\"split\": \"holdout\", ", 1);
    write("near", &near);
    let said = evalset(&["create", "mixed", "--from", &path("near")]).exits_with(0);
    assert!(!said.contains("leak"), "{said}");
    write("both", &cases());
    let said = evalset(&["create", "mixed", "--from", &path("both")]).exits_with(0);
    assert!(said.contains("leak: case near has the input of case good"), "{said}");
    let ended = evalset(&["freeze", "mixed"]);
    assert!(ended.stderr.contains("mixed v2 has 1 leak") && ended.code == Some(2), "{}", ended.stderr);
    evalset(&["freeze", "mixed", "--allow-leaks"]).exits_with(0);

    // An edited case is refused; a version that supersedes it makes version 2.
    let line = cases().lines().next().expect("a case").replace("\"shipped\"", "\"sent\"");
    write("edited", &line);
    let ended = evalset(&["create", "refunds", "--from", &path("edited")]);
    assert!(ended.stderr.contains("case `good` version 1 was edited") && ended.code == Some(2), "{}", ended.stderr);
    write("long", &cases().replace("\"refused\"", &format!("\"{}\"", "x".repeat(2 << 20))));
    let ended = evalset(&["create", "refunds", "--from", &path("long")]);
    assert!(
        ended.stderr.contains("has 2097152 bytes; the limit is 262144") && ended.code == Some(2),
        "{}",
        ended.stderr
    );
    let newer = line.replace("\"reviewer\":\"ana\"", "\"supersedes\":{\"version\":1,\"reason\":\"new wording\"}");
    write("newer", &newer.replace("\"id\":\"good\"", "\"id\":\"good\",\"version\":2"));
    evalset(&["create", "refunds", "--from", &path("newer")]).exits_with(0);
    let said = evalset(&["diff", "refunds"]).exits_with(0);
    assert_eq!(said.trim(), "refunds v1 to v2: 1 case is unchanged\n~ good has a later version");
    evalset(&["retire", "refunds", "bad"]).exits_with(0);
    assert_eq!(evalset(&["diff", "refunds"]).exits_with(0).trim(), "refunds v2 to v3: 1 case is unchanged\n- bad");
    assert_eq!(std::fs::read(path("sets/refunds/v1/cases.jsonl")).expect("reads"), before, "a version stays");

    // Without --version, the released version is exported: twice with the same bytes, and redacted.
    let export = |format: &str| evalset(&["export", "refunds", "--format", format, "--output", &path("out")]);
    let said = export("inspect").exits_with(0);
    assert!(said.starts_with("wrote 2 cases of refunds v1:"), "{said}");
    let samples = || std::fs::read_to_string(path("out/samples.jsonl")).expect("reads");
    let first = samples();
    assert!(!first.contains("ana@example.com") && first.contains("[EMAIL_1]"), "{first}");
    export("inspect").exits_with(0);
    assert_eq!(samples(), first);
    let ended = export("csv");
    assert!(ended.stderr.contains("is an export of refunds as inspect") && ended.code == Some(2), "{}", ended.stderr);
    write("out/mine", "x");
    let ended = export("inspect");
    assert!(ended.stderr.contains("has another file: mine") && ended.code == Some(2), "{}", ended.stderr);

    // Damage is found, and a wrong name goes nowhere.
    write("sets/refunds/v1/cases.jsonl", &cases().replace("shipped", "Shipped"));
    let ended = evalset(&["status", "refunds", "--version", "1"]);
    assert!(ended.stderr.contains("differ from their manifest"), "{}", ended.stderr);
    for (name, expected) in [("../refunds", "is not a name of an eval set"), ("none", "no eval set `none`")] {
        let ended = evalset(&["status", name]);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    }
}

#[test]
fn a_case_with_only_the_hash_of_its_input_is_exported_once_a_person_gave_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let sets = path("sets");
    let evalset = |arguments: &[&str]| bellwether(&[&["evalset"], arguments, &["--sets", &sets]].concat());
    let write = |name: &str, content: &str| std::fs::write(path(name), content).expect("writes");
    // SHA-256 of `Refund 7 to ana@example.com`.
    let hash = "af2c35ac0ad38fde1dd65c6634df5d3a6e5bc0fa93febda4623ee8ec7e220b13";
    let case = json!({ "id": "c1", "task": "refunds", "content_sha256": hash, "expected": "refused",
        "provenance": { "run": { "source": "app", "run_id": "r1" }, "reviewer": "ana", "decision": "edit" } });
    write("cases", &format!("{case}\n"));
    evalset(&["create", "refunds", "--from", &path("cases")]).exits_with(0);
    let said = evalset(&["status", "refunds"]).exits_with(0);
    let expected =
        format!("case c1 has no input: get the content (SHA-256 {hash}) from the producer `app`, for run `r1`");
    assert!(said.contains(&expected), "{said}");
    let export = || evalset(&["export", "refunds", "--format", "inspect", "--output", &path("out")]);
    let ended = export();
    assert!(ended.stderr.contains("its input is not stored here") && ended.code == Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("bellwether evalset complete"), "{}", ended.stderr);

    // Beside other cases it can be left out.
    write("other", &cases());
    evalset(&["create", "mixed", "--from", &path("cases")]).exits_with(0);
    evalset(&["create", "mixed", "--from", &path("other")]).exits_with(0);
    let mixed =
        |more: &[&str]| evalset(&[&["export", "mixed", "--format", "csv", "--output", &path("mixed")], more].concat());
    assert!(mixed(&[]).stderr.contains("leave such cases out with --skip-unfit"));
    let said = mixed(&["--skip-unfit"]).exits_with(0);
    assert!(said.starts_with("wrote 2 cases of mixed v2:"), "{said}");
    assert!(said.contains("left out: case c1: its input is not stored here: get the content"), "{said}");
    let stored = std::fs::read_to_string(path("sets/mixed/v2/cases.jsonl")).expect("reads");
    assert!(stored.contains("\"file\":\"other\"") && !stored.contains("\"file\":\"cases\""), "{stored}");

    // Another text is refused, and nothing is written; the right one makes the next version, redacted.
    let complete = |case: &str| evalset(&["complete", "refunds", case, "--input", &path("input")]);
    write("input", "Refund 8 to ana@example.com");
    let ended = complete("c1");
    assert!(ended.stderr.contains("the file is not the input of case `c1`"), "{}", ended.stderr);
    assert!(!folder.path().join("sets/refunds/v2").exists());
    write("input", "Refund 7 to ana@example.com\n");
    let said = complete("c1").exits_with(0);
    assert!(said.starts_with("refunds v2 has 1 case"), "{said}");
    let stored = std::fs::read_to_string(path("sets/refunds/v2/cases.jsonl")).expect("reads");
    assert!(stored.contains("Refund 7 to [EMAIL_1]") && stored.contains("input given by hand"), "{stored}");
    export().exits_with(0);
    let samples = std::fs::read_to_string(path("out/samples.jsonl")).expect("reads");
    assert!(samples.contains("Refund 7 to [EMAIL_1]") && samples.contains("refused"), "{samples}");
    for (case, what) in [("c1", "case `c1` has its input"), ("c2", "has no case `c2`")] {
        let ended = complete(case);
        assert!(ended.stderr.contains(what) && ended.code == Some(2), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_run_leaves_every_version_of_every_set_and_its_case_stays_as_a_tombstone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let sets = path("sets");
    let feed = crate::pipeline::erase::fed().await;
    let evalset = |arguments: &[&str]| bellwether(&[&["evalset"], arguments, &["--sets", &sets]].concat());
    let write = |name: &str, content: &str| std::fs::write(path(name), content).expect("writes");
    let run = |id: &str| json!({ "source": "tests", "run_id": id });
    let case = |id: &str, of: &str, others: &[&str]| {
        let runs: Vec<_> = others.iter().map(|id| run(id)).collect();
        json!({ "id": id, "task": "refunds", "input": [{ "role": "user", "content": format!("secret question of {id}") }],
            "expected": format!("secret answer of {id}"), "grading": [{ "type": "contains", "value": format!("secret rule of {id}") }],
            "provenance": { "run": run(of), "runs": runs, "signature": format!("secret signature of {id}"), "reviewer": "ana",
                "decision": "edit", "inclusion_probability": 0.25 } })
    };
    let (gone, other) = (case("c1", "run-ada-1", &[]), case("c2", "run-more-1", &["run-more-1", "run-ada-1"]));
    write("cases", &format!("{gone}\n{other}\n"));
    evalset(&["create", "refunds", "--from", &path("cases")]).exits_with(0);
    evalset(&["freeze", "refunds"]).exits_with(0);
    write("more", &format!("{}\n", case("c3", "run-bob-3", &[])));
    evalset(&["create", "refunds", "--from", &path("more")]).exits_with(0);
    // Folders and files of others stay, and what a link leads to is reached.
    std::fs::create_dir_all(path("sets/drafts.new")).expect("a folder");
    write("sets/drafts.new/x.md", "mine");
    write("sets/refunds/v1/README.md", "mine");
    std::fs::rename(path("sets/refunds/v2"), path("elsewhere")).expect("moves");
    std::os::unix::fs::symlink(path("elsewhere"), path("sets/refunds/v2")).expect("links");
    // A copy of a set is no set, and a folder with any name is searched.
    std::fs::create_dir_all(path("sets/copy/v1")).expect("a folder");
    for file in ["cases.jsonl", "manifest.json"] {
        std::fs::copy(path(&format!("sets/refunds/v1/{file}")), path(&format!("sets/copy/v1/{file}"))).expect("copies");
    }

    let erase = |more: &[&str]| bellwether(&[&["erase", "--root", text(feed.root()), "--sets", &sets], more].concat());
    let erase_run = |how: &str| erase(&["--run-id", "run-ada-1", how]);
    let holding = |what: &str| crate::pipeline::erase::holding(&folder.path().join("sets"), what);
    let before = std::fs::read(path("sets/refunds/v1/manifest.json")).expect("reads");
    let said = erase_run("--dry-run").exits_with(0);
    assert!(said.contains("eval set refunds v1: would remove the content of 1 case"), "{said}");
    assert!(said.contains("would still name it: ") && said.contains("copy/v1"), "{said}");
    assert_eq!(holding("secret answer of c1").len(), 3, "a dry run changes nothing");
    let said = erase_run("--now").exits_with(5);
    assert!(said.contains("sets/copy/v1` holds `refunds` v1") && !said.contains("nothing is left"), "{said}");
    std::fs::remove_dir_all(path("sets/copy")).expect("removes");
    let wrong =
        bellwether(&["erase", "--root", text(feed.root()), "--sets", &path("typo"), "--run-id", "run-ada-1", "--now"]);
    assert!(wrong.stderr.contains("no folder of eval sets"), "{}", wrong.stderr);
    assert!(
        folder.path().join("sets/drafts.new/x.md").exists() && folder.path().join("sets/refunds/v1/README.md").exists()
    );
    let elsewhere = std::fs::read_to_string(path("elsewhere/cases.jsonl")).expect("reads");
    assert!(!elsewhere.contains("answer of c1") && elsewhere.contains("answer of c2"), "{elsewhere}");
    for version in ["v1", "v2"] {
        assert!(said.contains(&format!("eval set refunds {version}: removed the content of 1 case")), "{said}");
    }
    for what in ["run-ada-1", "question of c1", "answer of c1", "rule of c1", "signature of c1"] {
        assert_eq!(holding(what), Vec::<String>::new(), "{what}");
    }
    assert_eq!(holding("secret answer of c2"), ["refunds/v1/cases.jsonl", "refunds/v2/cases.jsonl"]);

    // The versions are whole: one case less in exports, a tombstone with its provenance, and the mark of a release.
    let said = evalset(&["status", "refunds", "--version", "1"]).exits_with(0);
    assert!(said.starts_with("refunds v1, released: 2 cases\n1 case lost the content by an erasure"), "{said}");
    let stored = std::fs::read_to_string(path("sets/refunds/v1/cases.jsonl")).expect("reads");
    let tombstone: serde_json::Value = serde_json::from_str(stored.lines().next().expect("a case")).expect("JSON");
    let expected = json!({ "id": "c1", "version": 1, "task": "refunds", "split": "regression", "kind": "failure", "input": [], "erased": true,
        "provenance": { "run": { "source": "tests", "run_id": "erased", "attempt": 1 }, "reviewer": "ana", "decision": "edit",
            "inclusion_probability": 0.25 } });
    assert_eq!(tombstone, expected);
    let said = evalset(&["export", "refunds", "--format", "inspect", "--output", &path("out")]).exits_with(0);
    assert!(said.starts_with("wrote 1 case of refunds v1:"), "{said}");
    assert!(said.contains("left out: case c1: it lost its content by an erasure"), "{said}");
    let samples = std::fs::read_to_string(path("out/samples.jsonl")).expect("reads");
    assert!(samples.contains("answer of c2") && !samples.contains("c1"), "{samples}");
    // It does not come back, and a second erasure finds nothing.
    let ended = evalset(&["create", "refunds", "--from", &path("cases")]);
    assert!(ended.stderr.contains("case `c1` was erased with its run") && ended.code == Some(2), "{}", ended.stderr);
    // Once both files are written, an erasure that was interrupted is read as a whole, and ended by the next one.
    let (manifest, new) = (path("sets/refunds/v1/manifest.json"), path("sets/refunds/v1/manifest.json.part"));
    std::fs::rename(&manifest, &new).expect("moves");
    std::fs::write(&manifest, &before).expect("writes");
    evalset(&["status", "refunds", "--version", "1"]).exits_with(0);
    let said = erase_run("--now").exits_with(0);
    assert!(!said.contains("eval set") && said.contains("nothing is left"), "{said}");
    // The tables know the runs of a user.
    let said = erase(&["--user-key", "usr-bob", "--now"]).exits_with(0);
    assert!(said.contains("eval set refunds v2: removed the content of 1 case") && !said.contains("v1:"), "{said}");
    assert_eq!(holding("answer of c3"), Vec::<String>::new());
    // What names the run elsewhere is reported.
    write("sets/notes", "see run-ada-1");
    let said = erase_run("--now").exits_with(5);
    assert!(said.contains("a file of eval sets names it: ") && said.contains("notes"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_erasures_at_once_and_a_new_version_beside_them_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let sets = path("sets");
    let feed = crate::pipeline::erase::fed().await;
    let case = |n: usize, of: &str, source: &str| {
        json!({ "id": format!("c{n:04}"), "task": "refunds", "expected": "yes",
            "input": [{ "role": "user", "content": format!("question {n} of {of}") }],
            "provenance": { "run": { "source": source, "run_id": of } } })
    };
    // The last run is of another app, with the id of an erased one.
    let of = |n: usize| ["run-ada-2", "run-bob-2", "run-more-2"][n % 3];
    let mut lines: Vec<String> = (0..1500).map(|n| case(n, of(n), "tests").to_string()).collect();
    lines.push(case(1500, "run-bob-2", "another").to_string());
    std::fs::write(path("cases"), lines.join("\n")).expect("writes");
    bellwether(&["evalset", "create", "big", "--from", &path("cases"), "--sets", &sets]).exits_with(0);
    bellwether(&["evalset", "freeze", "big", "--sets", &sets, "--allow-leaks"]).exits_with(0);
    std::fs::write(path("more"), case(1501, "run-more-3", "tests").to_string()).expect("writes");
    let root = text(feed.root());
    let commands = [
        vec!["erase", "--root", root, "--sets", &sets, "--user-key", "usr-bob", "--now"],
        vec!["erase", "--root", root, "--sets", &sets, "--run-id", "run-ada-2", "--source", "tests", "--now"],
        vec!["evalset", "create", "big", "--from", "more", "--sets", &sets],
    ];
    let more = path("more");
    let started: Vec<_> = commands
        .iter()
        .map(|command| {
            let command: Vec<&str> = command.iter().map(|word| if *word == "more" { &*more } else { word }).collect();
            crate::common::program::Running::start(&command)
        })
        .collect();
    let ended: Vec<_> = started.into_iter().map(crate::common::program::Running::end).collect();
    assert_eq!(ended[2].code, Some(0), "{}", ended[2].stderr);
    let said = bellwether(&["evalset", "status", "big", "--version", "1", "--sets", &sets]).exits_with(0);
    assert!(said.starts_with("big v1, released: 1501 cases"), "{said}");
    for version in ["v1", "v2"] {
        let stored = std::fs::read_to_string(path(&format!("sets/big/{version}/cases.jsonl"))).expect("reads");
        let has = |what: &str| stored.matches(what).count();
        assert_eq!((has("of run-bob-2"), has("of run-more-2")), (1, 500), "{version}");
        assert_eq!((has("of run-ada-2"), has("\"erased\":true")), (0, 1000), "{version}");
    }
}

#[test]
fn results_of_a_tool_are_valid_events_with_their_cases() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| text(&folder.path().join(name)).to_owned();
    let log = json!({ "version": 2, "status": "success",
        "eval": { "eval_id": "e1", "run_id": "r1", "task": "refunds", "model": "mockllm/model", "created": "2026-11-20T09:00:00+00:00" },
        "stats": { "started_at": "2026-11-20T09:00:00+00:00", "completed_at": "2026-11-20T09:00:05+00:00" },
        "samples": [
            { "id": "a", "epoch": 1, "metadata": { "case_id": "a" }, "scores": { "match": { "value": "C" } }, "total_time": 0.5, "started_at": "2026-11-20T09:00:00+00:00", "completed_at": "2026-11-20T09:00:01+00:00" },
            { "id": "b", "epoch": 1, "metadata": { "case_id": "b" }, "scores": { "match": { "value": "I" } }, "total_time": 0.5, "started_at": "2026-11-20T09:00:00+00:00", "completed_at": "2026-11-20T09:00:01+00:00" },
        ] });
    std::fs::write(path("log.json"), log.to_string()).expect("writes");
    let file = path("log.json");
    let arguments = ["evalset", "import-results", &file, "--format", "inspect", "--task", "t", "--release", "v2"];
    let lines = bellwether(&arguments).exits_with(0);
    assert!(lines.contains("\"case_id\":\"a\"") && lines.contains("\"stage\":\"offline_eval\""), "{lines}");
    std::fs::write(path("runs.jsonl"), lines).expect("writes");
    let said = bellwether(&["check", "event", &path("runs.jsonl")]).exits_with(0);
    assert!(said.contains("2 of 2 events accepted, 0 rejected"), "{said}");
}
