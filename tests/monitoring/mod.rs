//! What Prometheus reads: the text of `/metrics`, and the rules in `deploy/prometheus`, checked by Prometheus's own tool.
//! `supervised` is what a service manager hears.

pub(crate) mod heartbeat;
mod services;
mod supervised;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::event::{now, rfc3339, run};
use crate::common::program::{Running, metric, text};
use crate::common::{Setup, promtool, repository, until};

const RULES: &str = "deploy/prometheus/bellwether.rules.yml";
const TESTS: &str = "deploy/prometheus/bellwether.test.yml";

/// Returns runs of the last minutes: those that ended in a complete minute, and one in the minute that still fills.
fn events() -> Vec<Value> {
    let at = |n: u64, seconds: u64| {
        let (mut event, ended) = (run(&format!("run-{n}")), now() - Duration::from_secs(seconds));
        event["data"]["started_at"] = json!(rfc3339(ended - Duration::from_millis(400 * n)));
        event["data"]["ended_at"] = json!(rfc3339(ended));
        event["data"]["task"] = json!("a \"task\" with a \\ and\na new line");
        event
    };
    (1..20).map(|n| at(n, 150)).chain([at(20, 0)]).collect()
}

/// Starts every role on tables with some runs, and returns the text of its metrics once all of them have worked. Kafka is not
/// needed: ingest waits.
fn exposition() -> String {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    let sink = format!("[deliver.sinks.inbox]\nkind = \"inbox\"\npath = {:?}\n", text(&setup.file("pages.ndjson")));
    let config = setup.other("with-sink.toml", |config| format!("{config}{sink}"));
    std::fs::rename(config, setup.config()).expect("replaces the configuration");
    setup.replay(&setup.recording("events.ndjson", &events()));
    let running = setup.start("run");
    until("the metrics of tasks and rules are there", || {
        let (_, text) = running.get("/metrics")?;
        let of_five_minutes =
            |line: &&str| line.starts_with("bellwether_task_latency_seconds_count{") && line.contains("span=\"5m\"");
        text.lines().find(of_five_minutes).filter(|line| line.ends_with(" 19"))?;
        metric(&text, "bellwether_role_ready{role=\"watch\"}").filter(|ready| *ready == 1.0)?;
        metric(&text, "bellwether_watch_evaluations_total").filter(|count| *count >= 1.0)?;
        metric(&text, "bellwether_role_ready{role=\"deliver\"}").filter(|ready| *ready == 1.0)?;
        Some(text)
    })
}

/// Runs promtool in the folder of the rules.
fn check(promtool: &Path, arguments: &[&str]) {
    let mut command = Command::new(promtool);
    command.args(arguments).current_dir(repository("deploy/prometheus"));
    Running::spawn(&mut command, format!("promtool {}", arguments.join(" "))).end().succeeds();
}

#[test]
fn promtool_accepts_the_rules_their_tests_and_the_configuration() {
    let Some(promtool) = promtool() else { return };
    check(&promtool, &["check", "rules", "--lint=all", "--lint-fatal", "bellwether.rules.yml"]);
    check(&promtool, &["test", "rules", "bellwether.test.yml"]);
    check(&promtool, &["check", "config", "prometheus.yml"]);
}

#[test]
fn promtool_accepts_the_metrics_and_every_metric_of_a_rule_exists() {
    let exposed = exposition();
    let names: BTreeSet<&str> = exposed.lines().filter_map(|line| line.split([' ', '{']).next()).collect();
    let rules = std::fs::read_to_string(repository(RULES)).expect("the rules can be read");
    let sources = sources();
    for name in metrics_of(&(rules + &dashboards())) {
        // A metric with labels is exposed once it has a series. The names of those are literals in the sources.
        let known = names.contains(name.as_str()) || sources.contains(&format!("\"{name}\""));
        assert!(known, "no metric is called `{name}`; {RULES} or a dashboard reads it");
    }
    for role in ["ingest", "aggregate", "rollup", "watch", "deliver"] {
        let fresh = format!("bellwether_role_fresh{{role=\"{role}\"}}");
        assert_eq!(metric(&exposed, &fresh), Some(1.0), "{fresh} in\n{exposed}");
    }
    let Some(promtool) = promtool() else { return };
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), &exposed).expect("the metrics are written");
    let mut command = Command::new(promtool);
    command.args(["check", "metrics"]).stdin(std::fs::File::open(file.path()).expect("the metrics can be read"));
    let checked = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("promtool starts");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}\n{exposed}");
}

#[test]
fn every_rule_has_a_test() {
    let rules = std::fs::read_to_string(repository(RULES)).expect("the rules can be read");
    let tests = std::fs::read_to_string(repository(TESTS)).expect("the tests can be read");
    let named = |key: &str| -> Vec<String> {
        let lines = rules.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.map(|name| name.trim().to_owned()).collect()
    };
    let (alerts, records) = (named("- alert:"), named("- record:"));
    assert!(alerts.len() >= 10 && records.len() >= 10, "{alerts:?} {records:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}")), "{TESTS} has no test of `{alert}`");
    }
    for record in records {
        let used = rules.matches(&record).count() > rules.matches(&format!("- record: {record}")).count();
        assert!(used || tests.contains(&format!("expr: {record}")), "{TESTS} has no test of `{record}`");
    }
}

/// Returns the texts of Grafana's dashboards.
fn dashboards() -> String {
    let entries = std::fs::read_dir(repository("deploy/grafana/dashboards")).expect("the folder can be read");
    entries.map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a dashboard")).collect()
}

/// Returns the names of Bellwether's metrics in the expressions of rules and dashboards, without those of recording rules.
fn metrics_of(rules: &str) -> BTreeSet<String> {
    let of_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
    let words = rules.split(|letter| !of_name(letter)).filter(|word| word.starts_with("bellwether_"));
    let names: BTreeSet<String> = words.filter(|word| !word.contains(':')).map(str::to_owned).collect();
    assert!(names.len() >= 20, "{names:?}");
    names
}

/// Returns the text of the program's sources.
fn sources() -> String {
    let mut all = String::new();
    let mut folders: Vec<PathBuf> = vec![repository("")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the sources can be read") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && !["target", "tests", "bench"].contains(&name) {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&std::fs::read_to_string(&path).expect("a source can be read"));
            }
        }
    }
    all
}
