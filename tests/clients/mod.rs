//! Publishes the README's first events to the broker, with the code as the README shows it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::common::program::{Running, text};
use crate::common::{Setup, broker, cache, python, repository, skipped};

/// Maximum length of a snippet in lines, not counting blank ones.
const MAX_LINES: usize = 15;

/// Placeholders in the README for the reader's own broker and topic.
const README_BROKER: &str = "localhost:9092";
const README_TOPIC: &str = "llm.runs";

/// Returns the README's only code block of a language that publishes an event.
fn snippet(language: &str) -> String {
    let readme = std::fs::read_to_string(repository("README.md")).expect("README.md");
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1).filter_map(|rest| rest.split_once("\n```")).map(|(block, _)| block);
    let found: Vec<&str> = blocks.filter(|block| block.contains(README_TOPIC)).collect();
    let [block] = found[..] else {
        panic!("README.md has {} {language} blocks with {README_TOPIC}, not one", found.len())
    };
    let lines = block.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= MAX_LINES, "the {language} block has {lines} lines; at most {MAX_LINES}");
    assert!(block.contains(README_BROKER), "the {language} block does not name {README_BROKER}");
    block.to_owned()
}

/// Runs a snippet against a new topic and checks that the tables have its run.
fn publishes(language: &str, file: &str, prepare: impl FnOnce(&Path) -> Command) {
    let code = snippet(language);
    let Some(broker) = broker() else { return };
    if broker.is_mock() {
        return skipped(&format!("the README's {language} snippet needs a real broker"));
    }
    let topic = broker.topic("client", 1);
    let folder = TempDir::with_prefix("bellwether-client-").expect("a temporary folder");
    let code = code.replace(README_BROKER, &broker.address).replace(README_TOPIC, &topic);
    std::fs::write(folder.path().join(file), code).expect("the snippet is written");
    let mut command = prepare(folder.path());
    command.current_dir(folder.path());
    Running::spawn(&mut command, format!("the README's {language} snippet")).end().succeeds();
    let setup = Setup::new(&broker.address, &topic, "");
    setup.catch_up();
    let rejected = setup.sql("SELECT reason, pointer, message FROM quarantine");
    assert!(rejected.is_empty(), "{rejected:?}");
    let rows = setup.sql("SELECT source, task, outcome_status FROM runs");
    assert_eq!(rows, [json!({"source": "support-bot", "task": "refund_triage", "outcome_status": "success"})]);
}

fn found(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("`{}` is missing; `scripts/setup clients` installs it", path.display()));
    None
}

#[test]
fn the_python_snippet_of_the_readme_publishes_a_run() {
    let Some(python) = python() else { return };
    publishes("python", "first.py", |folder| {
        let mut command = Command::new(python);
        command.arg(folder.join("first.py"));
        command
    });
}

#[test]
fn the_typescript_snippet_of_the_readme_publishes_a_run() {
    let Some(modules) = found(cache("clients/typescript/node_modules")) else { return };
    publishes("ts", "first.mts", |folder| {
        std::os::unix::fs::symlink(&modules, folder.join("node_modules")).expect("a link to the packages");
        let mut command = Command::new("node");
        command.args(["--import", "tsx", "first.mts"]);
        command
    });
}

#[test]
fn the_go_snippet_of_the_readme_publishes_a_run() {
    // The modules are in Go's own cache, so `scripts/setup clients` leaves this marker.
    if found(cache("clients/go.ready")).is_none() {
        return;
    }
    publishes("go", "main.go", |folder| {
        for file in ["go.mod", "go.sum"] {
            let from = repository("tests/clients/go").join(file);
            std::fs::copy(&from, folder.join(file)).unwrap_or_else(|error| panic!("{}: {error}", text(&from)));
        }
        let mut command = Command::new("go");
        command.args(["run", "."]);
        command
    });
}
