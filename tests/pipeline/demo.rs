//! The demo, without a terminal.

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
}
