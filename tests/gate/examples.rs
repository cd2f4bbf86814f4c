//! The manifests in `deploy/examples`: they are YAML, and ask what the gate answers.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::repository;

/// Reads a file as YAML.
fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(repository("deploy/examples").join(path)).expect("the example can be read");
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of parameters of the gate.
const PARAMETERS: [&str; 7] = ["task", "canary", "baseline", "tenant", "since", "mode", "token"];

#[test]
fn every_example_of_the_gate_is_tested() {
    for (folder, expected) in [
        ("argo-rollouts", vec!["analysis-template.yaml", "rollout.yaml"]),
        ("flagger", vec!["canary.yaml"]),
        ("github-action", vec!["action.yml", "release.yml"]),
        // `flags.rs` beside this file runs these.
        ("flags", vec!["bellwether.toml", "flags.json", "receiver.py"]),
    ] {
        let entries = std::fs::read_dir(repository("deploy/examples").join(folder)).expect("the folder can be read");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        assert_eq!(names, expected, "{folder}");
    }
}

#[test]
fn argo_rollouts_reads_the_decision() {
    let template = yaml("argo-rollouts/analysis-template.yaml");
    assert_eq!(template["kind"], "AnalysisTemplate");
    let metric = &template["spec"]["metrics"][0];
    let web = &metric["provider"]["web"];
    assert_eq!(web["jsonPath"], "{$.decision}");
    let (path, query) = web["url"].as_str().and_then(|url| url.split_once('?')).expect("a query");
    assert!(path.ends_with("/api/v1/gate"), "{path}");
    for pair in query.split('&') {
        let (name, _) = pair.split_once('=').expect("a name and a value");
        assert!(PARAMETERS.contains(&name), "{name}");
    }
    // The words are those of the answer.
    assert_eq!(metric["successCondition"], "result == \"promote\"");
    assert_eq!(metric["failureCondition"], "result == \"roll_back\"");
    // Only as many inconclusive answers as there are questions but one: the last may promote.
    assert_eq!(metric["inconclusiveLimit"].as_u64().map(|limit| limit + 1), metric["count"].as_u64());
    let declared: Vec<&str> =
        template["spec"]["args"].as_array().expect("arguments").iter().filter_map(|it| it["name"].as_str()).collect();
    let rollout = yaml("argo-rollouts/rollout.yaml");
    let analysis = &rollout["spec"]["strategy"]["canary"]["steps"][1]["analysis"];
    assert_eq!(analysis["templates"][0]["templateName"], template["metadata"]["name"]);
    for argument in analysis["args"].as_array().expect("arguments") {
        assert!(declared.contains(&argument["name"].as_str().expect("a name")), "{argument}");
    }
}

#[test]
fn flagger_asks_with_known_metadata() {
    let canary = yaml("flagger/canary.yaml");
    let hooks = canary["spec"]["analysis"]["webhooks"].as_array().expect("webhooks");
    let kinds: Vec<&str> = hooks.iter().filter_map(|hook| hook["type"].as_str()).collect();
    assert_eq!(kinds, ["confirm-rollout", "confirm-promotion", "rollback"]);
    for hook in hooks {
        let wanted =
            if hook["type"] == "rollback" { "/api/v1/gate/flagger/rollback" } else { "/api/v1/gate/flagger/confirm" };
        assert!(hook["url"].as_str().is_some_and(|url| url.ends_with(wanted)), "{hook}");
        let metadata = hook["metadata"].as_object().expect("metadata");
        assert!(metadata.contains_key("task"));
        for (name, value) in metadata {
            assert!(PARAMETERS.contains(&name.as_str()) && value.is_string(), "{name}: {value}");
        }
    }
}

/// Runs the script of the action with a program that prints `answer` and exits with `code`. Returns the exit code of the step, the
/// outputs that it sets, and the arguments that the program received.
fn run_the_github_action(code: u8, answer: &Value, inputs: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let action = yaml("github-action/action.yml");
    let script = action["runs"]["steps"][0]["run"].as_str().expect("a script").to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let program = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > arguments\ncat <<'END'\n{answer}\nEND\nexit {code}\n");
    std::fs::write(path("bellwether"), program).expect("writes");
    std::fs::set_permissions(path("bellwether"), std::fs::Permissions::from_mode(0o755)).expect("sets the mode");
    let search = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a path"));
    // As GitHub runs `shell: bash`.
    let status = Command::new("bash")
        .args(["--noprofile", "--norc", "-eo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", search)
        .env("GITHUB_OUTPUT", path("output"))
        .envs(["TASK", "CANARY", "BASELINE", "ROOT", "POLICY", "WAIT", "OFFLINE"].map(|name| (name, "")))
        .envs(inputs.iter().copied())
        .status()
        .expect("bash runs");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    (status.code(), read("output"), read("arguments"))
}

#[test]
fn the_github_action_runs_and_takes_no_error_for_a_decision() {
    if Command::new("jq").arg("--version").output().is_err() {
        eprintln!("skipped: the action needs `jq`, which the runners of GitHub have and this machine has not");
        return;
    }
    let inputs = [("TASK", "pay ; rm"), ("CANARY", "r2"), ("ROOT", "s3://b/p"), ("WAIT", "30m"), ("BASELINE", "r1")];
    for (code, decision) in [(0, "promote"), (1, "hold"), (2, "roll_back")] {
        let answer = json!({"decision": decision, "summary": "success\nfell"});
        let (status, output, arguments) = run_the_github_action(code, &answer, &inputs);
        assert_eq!(
            (status, output.as_str()),
            (Some(0), format!("decision={decision}\nsummary=success fell \n").as_str())
        );
        let given: Vec<&str> = arguments.lines().collect();
        let expected = [
            "gate",
            "--json",
            "--root",
            "s3://b/p",
            "--task",
            "pay ; rm",
            "--canary",
            "r2",
            "--wait",
            "30m",
            "--baseline",
            "r1",
        ];
        assert_eq!(given, expected);
    }
    let (status, output, _) = run_the_github_action(64, &json!({}), &inputs);
    assert_eq!((status, output.as_str()), (Some(64), ""), "an error is no decision");
}

#[test]
fn the_github_action_passes_every_input() {
    let action = yaml("github-action/action.yml");
    let step = &action["runs"]["steps"][0];
    let script = step["run"].as_str().expect("a script");
    let environment = step["env"].as_object().expect("variables");
    let inputs = action["inputs"].as_object().expect("inputs");
    for name in inputs.keys() {
        let wanted = format!("${{{{ inputs.{name} }}}}");
        assert!(environment.values().any(|value| *value == wanted.as_str()), "{name} is not passed");
        // Inputs reach the shell as variables only, never as text of the script.
        assert!(!script.contains(&wanted), "{name}");
        assert!(script.contains(&format!("${}", name.to_uppercase())), "{name}");
    }
    let workflow = yaml("github-action/release.yml");
    let steps = workflow["jobs"]["canary"]["steps"].as_array().expect("steps");
    let gate = steps.iter().find(|step| step["id"] == "gate").expect("a step that asks");
    for name in gate["with"].as_object().expect("inputs").keys() {
        assert!(inputs.contains_key(name), "{name}");
    }
    let conditions: Vec<&str> = steps.iter().filter_map(|step| step["if"].as_str()).collect();
    for decision in ["promote", "roll_back", "hold"] {
        let wanted = format!("steps.gate.outputs.decision == '{decision}'");
        assert!(conditions.contains(&wanted.as_str()), "{decision}");
    }
}
