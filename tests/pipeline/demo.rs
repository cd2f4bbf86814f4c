//! The demo, without a terminal.

use serde_json::Value;

use crate::common::bellwether;
use crate::common::program::text;

#[test]
fn the_demo_prints_its_tables_and_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tables");
    let shown =
        bellwether(&["demo", "--headless", "--duration", "3s", "--history", "24000", "--root", text(&root)]).succeeds();
    for part in
        ["Rolling metrics", "Late outcomes", "Corrected rates", "Quarantine", "Freshness", "canary", "Queries to try"]
    {
        assert!(shown.contains(part), "`{part}` is missing from\n{shown}");
    }
    // The bad canary fires, with its time, number of runs and certainty; its good twin does not.
    let verdict = "Bad canary extract-7.4: caught. Harmless canary 2026-11-23.1: 0 alerts.";
    assert!(shown.contains(verdict), "{shown}");
    // The page says what broke, since when, what to do; the payload is a message for Slack.
    for part in ["on release extract-7.4 against extract-7.3", "Firing · ", "Certainty", "Since", "Numbers"] {
        assert!(shown.contains(part), "`{part}` is missing from\n{shown}");
    }
    let slack = folder.path().join("tables-slack.json");
    assert!(shown.contains(text(&slack)), "{shown}");
    let payload: Value = serde_json::from_slice(&std::fs::read(&slack).expect("a file")).expect("JSON");
    assert!(payload["text"].as_str().is_some_and(|text| text.contains("extract-7.4")), "{payload:#}");
    assert!(payload["blocks"].as_array().is_some_and(|blocks| blocks.len() > 2), "{payload:#}");
    assert!(folder.path().join("tables-pages.ndjson").is_file());
    // The gate rolls the bad canary back. Its twin goes on, or the gate says how many more runs it needs.
    assert!(shown.contains("roll back: invoice_extraction extract-7.4 against extract-7.3"), "{shown}");
    let twin = shown.split("--canary 2026-11-23.1\n").nth(1).expect("the twin is asked about");
    let held = twin.starts_with("hold: refund_triage") && twin.contains("more canary runs");
    assert!(held || twin.starts_with("promote: refund_triage"), "{twin}");
    assert!(shown.contains("canary runs against") && shown.contains("releases alerts falsely"), "{shown}");
    let listed = bellwether(&["alerts", "list", "--root", text(&root)]).succeeds();
    let line =
        listed.lines().find(|line| line.contains("success_regression") && line.contains("firing")).expect("it fires");
    let id = line
        .split_whitespace()
        .find(|word| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .expect("an id");
    let evidence = bellwether(&["alerts", "show", id, "--root", text(&root)]).succeeds();
    for part in ["pending", "firing", "log_e", "threshold", "baseline_runs", "e2x2_increments"] {
        assert!(evidence.contains(part), "`{part}` is missing from\n{evidence}");
    }
    assert!(root.join("events/_delta_log").is_dir());
    // It ends with runs to review and the report of the week.
    let waiting = shown.lines().find(|line| line.contains(" runs wait for a review, with ")).expect("candidates");
    let command = format!("bellwether candidates list --root {}", text(&root));
    let queue = bellwether(&["candidates", "list", "--json", "--limit", "1000", "--root", text(&root)]).succeeds();
    let queue: Vec<Value> = serde_json::from_str(&queue).expect("JSON");
    // People have reviewed some of the 50 already. Six hours of history may be in two weeks, each with a sample of its own.
    assert!(queue.len() >= 25, "{} runs", queue.len());
    assert!(waiting.starts_with(&format!("{} runs wait", queue.len())) && waiting.contains(&command), "{waiting}");
    let page = shown.lines().find_map(|line| line.strip_prefix("The weekly report is in ")).expect("a report");
    let report = std::fs::read_to_string(page).expect("the page");
    for part in ["Look at first", "extract-7.4", "Runs to review", "The sample has "] {
        assert!(report.contains(part), "`{part}` is missing from {page}");
    }
}
