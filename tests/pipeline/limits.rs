//! L-7 for queries: every statement stays within the limits on memory, time and rows, and the error names the limit.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::program::{Ended, Running, text};
use crate::common::{Setup, bellwether};

/// The memory limit of the statements here.
const LIMIT: u64 = 128 << 20;

/// The bound that docs/asking.md promises: a statement is stopped at a quarter and 64 MiB above its limit, and the program
/// gives up another 64 MiB later. The rest is for freed pages that the system does not have back yet. The memory of the
/// program without a query comes on top.
const BEYOND: u64 = LIMIT + LIMIT / 4 + (64 << 20) + (64 << 20) + (64 << 20);

/// Runs a statement and returns the peak memory of the program.
fn peak(root: &Path, sql: &str) -> (u64, Ended) {
    let mut program =
        Running::start(&["sql", "--root", text(root), "--memory-limit", "128MiB", "--timeout", "20s", sql]);
    let (begun, mut peak) = (Instant::now(), 0);
    while program.runs() {
        peak = peak.max(program.peak_memory().unwrap_or(0));
        assert!(begun.elapsed() < Duration::from_secs(60), "{sql} does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    (peak, program.end())
}

fn tables() -> Setup {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    setup.catch_up_role("aggregate");
    setup
}

#[test]
fn no_query_exceeds_its_memory_limit() {
    let setup = tables();
    let root = setup.root();
    let (without, _) = peak(&root, "SELECT count(*) FROM events");
    let steps: Vec<String> = (1..40).map(|n| format!("t{n} AS (SELECT s || s AS s FROM t{})", n - 1)).collect();
    let doubled = format!("WITH t0 AS (SELECT repeat('x', 1000) AS s), {} SELECT length(s) FROM t39", steps.join(", "));
    for sql in [
        "SELECT length(repeat('x', 2000000000))",
        "SELECT repeat('x', 30000000) AS a, repeat('y', 30000000) AS b FROM generate_series(1, 100)",
        "SELECT length(repeat('x', 20000000) || repeat('y', value)) FROM generate_series(1, 1000)",
        "SELECT sum(length(lpad('x', value * 1000))) FROM generate_series(1, 100000)",
        "SELECT cardinality(array_repeat(1, 1000000000))",
        "SELECT sum(cardinality(range(value))) FROM generate_series(1, 1000000)",
        "SELECT sum(v) FROM (SELECT unnest(range(2000)) AS v, repeat('x', 1000 + value % 2) AS t FROM generate_series(1, 8192)) WHERE length(t) > 0",
        "SELECT length(string_agg(repeat('x', 1000), ',')) FROM generate_series(1, 10000000)",
        "SELECT cardinality(array_agg(value)) FROM generate_series(1, 1000000000)",
        "SELECT cardinality(array_agg(DISTINCT CAST(value AS TEXT))) FROM generate_series(1, 100000000)",
        "SELECT sum(x) FROM (SELECT sum(value) OVER () AS x FROM generate_series(1, 10000000000))",
        "WITH RECURSIVE t AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
        "SELECT count(*) FROM generate_series(1, 1000000) WHERE regexp_like('x', concat('(a|b|c){1,', 1 + value % 900, '}', value))",
        "SELECT repeat('x', 3000000) FROM generate_series(1, 1000)",
        doubled.as_str(),
    ] {
        let (peak, ended) = peak(&root, sql);
        assert!(peak <= without + BEYOND, "{sql} took {} MiB\n{}", peak >> 20, ended.stderr);
        assert!([Some(0), Some(1), Some(3)].contains(&ended.code), "{sql}: {:?}\n{}", ended.code, ended.stderr);
        if ended.code != Some(0) {
            assert!(ended.stderr.contains("error: ") && ended.stderr.contains("hint: "), "{sql}\n{}", ended.stderr);
        }
    }
}

#[test]
fn limits_on_time_and_rows_hold_and_errors_name_them() {
    let setup = tables();
    let root = setup.root();
    let begun = Instant::now();
    let endless = "SELECT count(*) FROM generate_series(1, 10000000) AS a CROSS JOIN generate_series(1, 10000000) AS b";
    let ended = bellwether(&["sql", "--root", text(&root), "--timeout", "1s", endless]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("took longer than 1 s") && ended.stderr.contains("--timeout"), "{}", ended.stderr);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let rows = "SELECT value FROM generate_series(1, 50)";
    let ended = bellwether(&["sql", "--root", text(&root), "--max-rows", "7", "--format", "csv", rows]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(3), 8), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("more than 7 rows") && ended.stderr.contains("--max-rows"), "{}", ended.stderr);
    // The configuration can set the limit too.
    let config = setup.other("limited.toml", |body| format!("{body}[queries]\nmax_rows = 3\n"));
    let ended = bellwether(&["sql", "--config", text(&config), "--format", "csv", rows]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(3), 4), "{}{}", ended.stdout, ended.stderr);
}
