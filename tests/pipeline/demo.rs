//! The demo, without a terminal.

use crate::common::bellwether;
use crate::common::program::text;

#[test]
fn the_demo_runs_prints_its_tables_and_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path().join("tables");
    let shown =
        bellwether(&["demo", "--headless", "--duration", "3s", "--history", "2000", "--root", text(&root)]).succeeds();
    for part in
        ["Rolling metrics", "Late outcomes", "A rate corrected", "Quarantine", "Freshness", "canary", "Queries to try"]
    {
        assert!(shown.contains(part), "`{part}` is missing in\n{shown}");
    }
    assert!(root.join("events/_delta_log").is_dir());
}
