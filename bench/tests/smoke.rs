//! Tests that the benchmark program works, on tiny sizes. Its numbers are meaningless here, and none is asserted.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs parts of the benchmark and returns its JSON, and false if a part was skipped.
fn bench(parts: &[&str]) -> (bool, String) {
    bench_with(parts, |_| {})
}

/// Like [`bench`], with a change to the command.
fn bench_with(parts: &[&str], change: impl FnOnce(&mut Command)) -> (bool, String) {
    let folder = std::env::temp_dir().join(format!("bellwether-bench-{}-{}", std::process::id(), parts.join("-")));
    let json = folder.join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether-bench"));
    command.args(["--tiny", "--json"]).arg(&json).arg("--program").arg(program()).args(parts);
    change(&mut command);
    let output = command.output().expect("the bench starts");
    let written = std::fs::read_to_string(&json).unwrap_or_default();
    drop(std::fs::remove_dir_all(&folder));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || stderr.contains("skipped"), "{stderr}");
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("| part"), "no table: {table}\n{stderr}");
    (output.status.success(), written)
}

/// Returns the program, which `cargo test --workspace` builds together with this test.
fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_bellwether-bench")).with_file_name("bellwether")
}

/// Counts the results of a part in a report, all of them finite.
fn measures(written: &str, part: &str) -> usize {
    let report: serde_json::Value = serde_json::from_str(written).expect("the report is JSON");
    let measures = report["measures"].as_array().expect("a list");
    let of_part: Vec<_> = measures.iter().filter(|measure| measure["part"] == part).collect();
    for measure in &of_part {
        assert!(measure["value"].is_f64(), "no number: {measure}");
    }
    of_part.len()
}

#[test]
fn the_crates_are_measured() {
    let (whole, written) = bench(&["decode", "parquet", "aggregate", "watch", "late"]);
    assert!(whole);
    let found = ["decode", "parquet", "aggregate", "watch", "late"].map(|part| measures(&written, part));
    assert_eq!(found, [8, 2, 2, 3, 9]);
}

#[test]
fn the_program_is_measured_on_a_broker() {
    let (whole, written) = bench(&["whole", "freshness", "idle", "page", "commits"]);
    if whole {
        assert!(measures(&written, "whole") >= 16);
        assert!(measures(&written, "freshness") >= 4);
        assert!(measures(&written, "idle") >= 2);
        assert!(measures(&written, "page") >= 5);
        assert!(measures(&written, "commits") >= 6);
    } else {
        assert!(written.contains("BELLWETHER_TEST_KAFKA"), "{written}");
    }
}

#[test]
fn many_groups_and_years_of_history_are_measured() {
    let (whole, written) = bench(&["groups", "years"]);
    // Two backlogs with CPU time and memory each, and the watcher.
    assert!(measures(&written, "groups") >= if whole { 12 } else { 7 }, "{written}");
    // Long spans, one run, and eight figures at each of six lengths of the log; DuckDB's, if it is installed.
    assert!(measures(&written, "years") >= 6 + 6 + 6 * 8, "{written}");
}

#[test]
fn without_a_broker_the_requirement_is_reported_and_the_rest_is_measured() {
    let (whole, written) = bench_with(&["decode", "idle"], |command| {
        command.env_remove("BELLWETHER_TEST_KAFKA");
    });
    assert!(!whole, "a part was left out: {written}");
    for part in ["Java 17 and Maven", "BELLWETHER_TEST_KAFKA=HOST:PORT"] {
        assert!(written.contains(part), "`{part}` is missing: {written}");
    }
    assert_eq!(measures(&written, "decode"), 8);
}

#[test]
fn a_missing_program_is_reported() {
    let output = Command::new(env!("CARGO_BIN_EXE_bellwether-bench"))
        .args(["--tiny", "commits", "--program", "/nowhere/bellwether"])
        .output()
        .expect("the bench starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("hint:") && stderr.contains("/nowhere"), "{stderr}");
}
