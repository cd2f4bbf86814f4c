//! Every file in `examples/`, checked or run.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::common::program::{Running, text};
use crate::common::{Setup, bellwether, broker, python, repository, skipped};
use crate::pipeline::views;

/// Returns the files of an example folder with an extension, in order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository("examples").join(folder)).expect("the folder can be read");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    assert!(!files.is_empty(), "examples/{folder} has no .{extension} files");
    files
}

#[test]
fn every_folder_of_examples_has_a_test() {
    let entries = std::fs::read_dir(repository("examples")).expect("the folder can be read");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    assert_eq!(names, ["README.md", "config", "producers", "rules", "sql"]);
}

#[test]
fn every_configuration_passes_its_check() {
    for file in files("config", "toml") {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
        command.args(["check", "config", text(&file)]).current_dir(repository("")).env_remove("BELLWETHER_CONFIG");
        for secret in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "KAFKA_PASSWORD", "KAFKA_CLIENT_SECRET"] {
            command.env(secret, "a secret");
        }
        Running::spawn(&mut command, format!("check of {}", file.display())).end().succeeds();
    }
}

#[test]
fn every_rule_can_be_used_and_passes_its_tests() {
    let folder = repository("examples/rules");
    bellwether(&["rules", "check", "--rules", text(&folder)]).succeeds();
    let (tests, rules): (Vec<PathBuf>, Vec<PathBuf>) =
        files("rules", "toml").into_iter().partition(|file| text(file).ends_with(".test.toml"));
    for rule in rules {
        let test = rule.with_extension("test.toml");
        assert!(tests.contains(&test), "{} has no tests", rule.display());
        bellwether(&["rules", "test", text(&test), "--rules", text(&folder)]).succeeds();
    }
}

#[test]
fn every_sql_statement_returns_rows() {
    let setup = views::full();
    for file in files("sql", "sql") {
        let statements = std::fs::read_to_string(&file).expect("the example can be read");
        for statement in statements.split_inclusive(";\n") {
            // The program takes an argument that starts with `--` for an option.
            let rows = setup.sql(&format!("\n{statement}"));
            assert!(!rows.is_empty(), "{}: no rows from\n{statement}", file.display());
        }
    }
}

#[test]
fn the_producer_publishes_runs_and_a_review() {
    let (Some(broker), Some(python)) = (broker(), python()) else { return };
    if broker.is_mock() {
        return skipped("the example producer needs a real broker");
    }
    let topic = broker.topic("example", 1);
    for file in files("producers", "py") {
        let mut command = Command::new(&python);
        command.arg(&file).env("BROKERS", &broker.address).env("TOPIC", &topic);
        Running::spawn(&mut command, format!("producer {}", file.display())).end().succeeds();
    }
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let rejected = setup.sql("SELECT reason, pointer, message FROM quarantine");
    assert!(rejected.is_empty(), "{rejected:?}");
    let runs =
        setup.sql("SELECT outcome_status, outcome_source, tool_calls_failed, cost FROM runs ORDER BY started_at");
    let expected = [
        json!({"outcome_status": "success", "outcome_source": null, "tool_calls_failed": 0, "cost": 0.0125}),
        json!({"outcome_status": "failure", "outcome_source": "human", "tool_calls_failed": 0, "cost": 0.0125}),
        json!({"outcome_status": "timeout", "outcome_source": null, "tool_calls_failed": 1, "cost": null}),
    ];
    assert_eq!(runs, expected);
}
