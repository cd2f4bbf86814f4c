//! The detection benchmark processes its simulated runs directly. This test sends the same runs through the whole
//! system, as events with duplicates and late arrivals, into tables and through SQL: all counts are equal, and evidence
//! is bit-identical.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bellwether_bench_detection::detector::{BLOCK_MINUTES, BLOCK_RUNS};
use bellwether_bench_detection::event::{CLEAN, Delivery, USUAL, events};
use bellwether_bench_detection::trial::{ReleaseWatch, release};
use bellwether_bench_detection::world::{Change, EPOCH, NONE, Outcome, Run, Scope, Traffic, World};
use bellwether_stats::histogram_e::{BINS, bin_of};
use serde_json::Value;

/// Minutes of traffic.
const MINUTES: i64 = 240;

/// First minute of it.
const START: i64 = 3 * 1440 + 600;

const COUNTS: &str = "SELECT date_part('epoch', window_start) AS second, task, release_id, \
    CAST(sum(runs) AS BIGINT) AS runs, CAST(sum(failure) AS BIGINT) AS failed, \
    CAST(sum(schema_applicable - schema_valid) AS BIGINT) AS schema, CAST(sum(escalated) AS BIGINT) AS escalated, \
    CAST(sum(tool_calls_failed) AS BIGINT) AS tools, CAST(sum(policy_exceptions_high) AS BIGINT) AS exceptions, \
    CAST(sum(tokens_input) AS BIGINT) AS tokens, CAST(sum(cost_nanos_sum) AS BIGINT) AS cost, \
    histogram_of(sketch_merge(latency_sketch)) AS latency FROM metrics GROUP BY window_start, task, release_id";

/// A folder with a configuration and its tables.
struct Setup(PathBuf);

impl Setup {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("bellwether-detection-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let setup = Self(folder);
        // Accept events of any age, since a test may run long after the simulated days.
        let text = format!(
            "[tables]\nroot = \"{}\"\n[kafka]\nbrokers = [\"127.0.0.1:9\"]\ntopics = [\"unused\"]\ngroup = \"unused\"\n\
             [serve]\naddress = \"127.0.0.1:0\"\n[ingest]\nmax_event_age = \"36500d\"\n",
            setup.file("tables").display()
        );
        fs::write(setup.file("bellwether.toml"), text).expect("the configuration is written");
        setup
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn bellwether(&self, arguments: &[&str]) -> String {
        let output = Command::new(program()).args(arguments).output().expect("the program starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn sql(&self, query: &str) -> Vec<Value> {
        let tables = self.file("tables");
        let answer = self.bellwether(&["sql", "--root", text(&tables), "--format", "json", query]);
        serde_json::from_str(&answer).expect("rows")
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        // Leftovers are in the folder for temporary files.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Returns the program, which `cargo test --workspace` builds together with this test.
fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_bellwether-detection")).with_file_name("bellwether")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of plain letters")
}

/// A world in which the canary is worse in every count.
fn world() -> World {
    World::new(10_007, Traffic { icc: 0.3, ..Traffic::new(12.0).canary(0.4) }).with(Change {
        scope: Scope::Canary,
        failure: 0.12,
        rates: [4.0, 2.0, 3.0, 200.0],
        latency: 1.5,
        tokens: 1.2,
        ..NONE
    })
}

/// Counts of one minute, task and release, in the order of the query, then the histogram of latency.
type Cells = BTreeMap<(i64, String, bool), (Vec<i64>, Vec<u64>)>;

fn folded(world: &World) -> Cells {
    let mut cells = Cells::new();
    world.minutes(START, START + MINUTES, |minute, runs| {
        for run in runs {
            let key = (EPOCH + minute, format!("task-{:02}", run.task + 1), run.canary);
            let (counts, latency) = cells.entry(key).or_insert_with(|| (vec![0; 8], vec![0; BINS]));
            for (sum, value) in counts.iter_mut().zip(values(world, run)) {
                *sum += value;
            }
            latency[bin_of(world.latency_micros(run))] += 1;
        }
    });
    cells
}

fn values(world: &World, run: &Run) -> [i64; 8] {
    let happened = |outcome| i64::from(world.has_outcome(run, outcome));
    [
        1,
        happened(Outcome::Failure),
        happened(Outcome::Schema),
        happened(Outcome::Escalation),
        happened(Outcome::Tool),
        happened(Outcome::Exception),
        world.tokens(run).cast_signed(),
        world.cost_micros(run).cast_signed() * 1000,
    ]
}

fn answered(setup: &Setup) -> Cells {
    let whole = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("no whole number: {value}"));
    let rows = setup.sql(COUNTS);
    let cell = |row: &Value| {
        let second = row["second"].as_f64().expect("a moment") as i64;
        let key = (second / 60, row["task"].as_str().expect("a task").to_owned(), row["release_id"] == "canary");
        let names = ["runs", "failed", "schema", "escalated", "tools", "exceptions", "tokens", "cost"];
        let counts = names.iter().map(|name| whole(&row[*name])).collect();
        let latency = row["latency"].as_array().expect("a list").iter().map(|bin| whole(bin).cast_unsigned()).collect();
        (key, (counts, latency))
    };
    rows.iter().map(cell).collect()
}

/// Evidence as an analyst would query it: blocks, then increments, then the mixture, without the open blocks.
fn evidence(setup: &Setup) -> f64 {
    let sum = |column: &str, release: &str| {
        format!("CAST(coalesce(sum({column}) FILTER (WHERE release_id = '{release}'), 0) AS BIGINT)")
    };
    let [fa, ra] = ["failure", "runs"].map(|column| sum(column, "baseline"));
    let [fb, rb] = ["failure", "runs"].map(|column| sum(column, "canary"));
    let rows = setup.sql(&format!(
        "WITH minutes AS (SELECT window_start, task, {fa} AS fa, {ra} AS ra, {fb} AS fb, {rb} AS rb \
         FROM metrics GROUP BY window_start, task), \
         numbered AS (SELECT *, block_number(window_start, ra, rb, {BLOCK_RUNS}, {BLOCK_MINUTES}) \
         OVER (PARTITION BY task ORDER BY window_start) AS block FROM minutes), \
         blocks AS (SELECT task, block, sum(fa) AS fa, sum(ra) AS ra, sum(fb) AS fb, sum(rb) AS rb \
         FROM numbered GROUP BY task, block), \
         closed AS (SELECT *, max(block) OVER (PARTITION BY task) AS last FROM blocks) \
         SELECT stratified_log_e(task, e2x2_increments(fa, ra, fb, rb)) AS log_e FROM closed \
         WHERE block < last OR least(ra, rb) >= {BLOCK_RUNS}"
    ));
    rows[0]["log_e"].as_f64().expect("evidence")
}

#[test]
fn the_pipeline_gives_the_counts_and_the_evidence_that_the_bench_folds_directly() {
    if !program().exists() {
        eprintln!("skipped: `{}` is not there; `cargo test --workspace` builds it", program().display());
        return;
    }
    let world = world();
    let counts = folded(&world);
    let watch = ReleaseWatch {
        outcome: Outcome::Failure,
        // Never alarms: only the evidence at the end counts.
        alpha: 1e-300,
        margin: 1.0,
        sessions: false,
        start: START,
        minutes: MINUTES,
        onset: 0,
    };
    let direct = release(&world, &watch).log_e;
    assert!(direct > 10.0, "a canary as bad as this is found: {direct}");
    // Perfect delivery, realistic delivery, and a burst: everything twice, half of it up to three hours late.
    let burst = Delivery { duplicates: 1.0, late: 0.5, late_minutes: 180 };
    for (name, way) in [("clean", CLEAN), ("usual", USUAL), ("burst", burst)] {
        let setup = Setup::new(name);
        let (file, config) = (setup.file("runs.ndjson"), setup.file("bellwether.toml"));
        let sent: String = events(&world, START, START + MINUTES, way).into_iter().map(|event| event + "\n").collect();
        fs::write(&file, sent).expect("the recording is written");
        setup.bellwether(&["replay", text(&file), "--to", "tables", "--config", text(&config)]);
        setup.bellwether(&["aggregate", "--until-caught-up", "--config", text(&config)]);
        assert_eq!(answered(&setup), counts, "{name}");
        assert_eq!(evidence(&setup).to_bits(), direct.to_bits(), "{name}");
    }
}
