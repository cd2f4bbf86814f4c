//! Exports, loaded by the tools themselves: those of `TOOLS` and promptfoo. `scripts/exports fetch` installs the tools; without it
//! a test says so and skips.
//!
//! The light tools run always; with BELLWETHER_EXPORTS=all (`make exports`) all do.

use std::path::{Path, PathBuf};
use std::process::Command;

use bellwether_evalsets::{ResultFormat, Unfit, export, import};
use serde_json::Value;

use super::results::{of, valid};
use super::{as_it_is, awkward, text_for};

/// Exports, and the environment that loads each.
const TOOLS: [(&str, &str); 14] = [
    ("inspect", "inspect"),
    ("langsmith", "langsmith"),
    ("csv", "huggingface"),
    ("huggingface", "huggingface"),
    ("parquet", "huggingface"),
    ("braintrust", "braintrust"),
    ("deepeval", "deepeval"),
    ("langfuse", "langfuse"),
    ("mlflow", "mlflow"),
    ("openai-api", "openai"),
    ("openai-evals", "openai-evals"),
    ("opik", "opik"),
    ("phoenix", "phoenix"),
    ("ragas", "ragas"),
];
/// As many of these, from the beginning, run in the ordinary tests.
const LIGHT: usize = 2;

fn environment(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("BELLWETHER_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/bellwether")))?;
    let folder = cache.join("exports").join(name);
    if folder.join("ready").exists() {
        return Some(folder);
    }
    eprintln!("skipped: {name} is not installed; run `scripts/exports fetch {name}`");
    None
}

fn written(format: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in export(&awkward(&text(format)), format, &as_it_is, Unfit::Refuse).expect(format).files {
        let path = folder.path().join(&file.path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, file.bytes).expect("a file");
    }
    folder
}

/// Returns the text of the first case of an export.
fn text(format: &str) -> String {
    text_for(super::format(format))
}

/// Runs load.py, and returns its last line.
fn load(environment: &Path, what: &str, folder: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/load.py");
    let output =
        Command::new(environment.join("bin/python")).arg(script).arg(what).arg(folder).current_dir(folder).output();
    let output = output.expect("python");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or("").to_owned()
}

#[test]
fn each_tool_loads_its_export() {
    let all = std::env::var("BELLWETHER_EXPORTS").is_ok_and(|value| value == "all");
    let mut failed = Vec::new();
    for (format, tool) in &TOOLS[..if all { TOOLS.len() } else { LIGHT }] {
        let Some(environment) = environment(tool) else { continue };
        let folder = written(format);
        let loaded = std::panic::catch_unwind(|| {
            let said = load(&environment, format, folder.path());
            let loaded: Value = serde_json::from_str(&said).expect(&said);
            eprintln!("{format}: loaded {} cases by {tool} {}", loaded["cases"], loaded["version"]);
            assert_eq!(loaded["cases"], 2, "{format}");
            assert_eq!(loaded["id"], "case-1", "{format}");
            assert_eq!(loaded["input"], text(format), "{format}");
            assert_eq!(loaded["expected"], "yes", "{format}");
        });
        if loaded.is_err() {
            failed.push(format);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn inspect_runs_a_case_to_a_passing_and_a_failing_grade_and_its_logs_come_back() {
    let Some(environment) = environment("inspect") else { return };
    let folder = written("inspect");
    load(&environment, "run-inspect", folder.path());
    for (file, status) in [("pass.json", "success"), ("fail.json", "failure")] {
        let log = std::fs::read_to_string(folder.path().join(file)).expect(file);
        let events = import(&log, ResultFormat::Inspect, &of()).expect("events");
        valid(&events[0]);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["data"]["outcome"]["status"], status);
        assert_eq!(events[0]["data"]["segments"]["case_id"], "case-1");
        assert_eq!(events[0]["data"]["task"], "refunds");
    }
}

#[test]
fn promptfoo_runs_a_case_to_a_passing_and_a_failing_grade_and_its_results_come_back() {
    let Some(environment) = environment("promptfoo") else { return };
    let folder = written("promptfoo");
    std::fs::write(
        folder.path().join("yes.js"),
        "module.exports = class { id() { return 'yes'; } async callApi() { return { output: 'yes' }; } };",
    )
    .expect("a provider");
    std::fs::write(
        folder.path().join("no.js"),
        "module.exports = class { id() { return 'no'; } async callApi() { return { output: 'no' }; } };",
    )
    .expect("a provider");
    for (provider, status) in [("yes", "success"), ("no", "failure")] {
        let output = Command::new(environment.join("node_modules/.bin/promptfoo"))
            .args(["eval", "-c", "promptfooconfig.json", "--no-cache", "--filter-pattern", "case-1", "-o"])
            .arg(format!("{provider}.json"))
            .args(["--providers", &format!("file://{provider}.js")])
            .env("PROMPTFOO_CONFIG_DIR", folder.path().join("state"))
            .env("PROMPTFOO_DISABLE_TELEMETRY", "1")
            .env("PROMPTFOO_DISABLE_UPDATE", "1")
            .current_dir(folder.path())
            .output()
            .expect("promptfoo");
        let results = std::fs::read_to_string(folder.path().join(format!("{provider}.json")))
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let events = import(&results, ResultFormat::Promptfoo, &of()).expect("events");
        assert_eq!(events.len(), 1);
        valid(&events[0]);
        assert_eq!(events[0]["data"]["outcome"]["status"], status);
        assert_eq!(events[0]["data"]["segments"]["case_id"], "case-1");
        let file: Value = serde_json::from_str(&results).expect("JSON");
        let prompt = file["results"]["results"][0]["prompt"]["raw"].as_str().expect("a prompt");
        let messages: Value = serde_json::from_str(prompt).expect("messages");
        assert_eq!(messages[0]["content"], text("promptfoo"), "the text is no template");
    }
}
