//! L-7: every role works within its memory budget, whatever the input. Each one runs under a hard limit (`ulimit -v`), beyond
//! which the system refuses memory: it succeeds, or ends with an error that names the limit.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::event::{rfc3339, run};
use crate::common::program::{Ended, Running, text};
use crate::common::{Message, Setup, bellwether, real_broker};
use crate::late::feed::{Feed, NOW};

/// The budget of each process, MiB: the least there is.
const BUDGET: u64 = 256;

/// Resident memory beyond the budget, MiB: the program itself, its threads, freed pages that the system does not have back yet.
const BESIDE: u64 = 192;

/// Address space, MiB: most of a debug build is mapped and never read, and allocators reserve more than they use.
const ADDRESS_SPACE: u64 = 3 * 1024;

/// Groups in each minute of the many.
const GROUPS: usize = 1500;

/// Settings of a small machine. Events here are as old as the feed.
fn settings() -> String {
    format!("[memory]\nbudget_bytes = \"{BUDGET}MiB\"\n[ingest]\nmax_event_age = \"36500d\"\n")
}

/// Runs the program under the hard limit. Returns how it ended, and its peak of resident memory, MiB.
fn limited(arguments: &[&str]) -> (Ended, u64) {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &(ADDRESS_SPACE << 10).to_string()]);
    command.arg(env!("CARGO_BIN_EXE_bellwether")).args(arguments);
    command.env_remove("RUST_LOG").env_remove("BELLWETHER_CONFIG").env("NO_COLOR", "1");
    let mut program = Running::spawn(&mut command, format!("bellwether {}", arguments.join(" ")));
    let (begun, mut peak) = (Instant::now(), 0);
    while program.runs() {
        peak = peak.max(program.peak_memory().unwrap_or(0));
        assert!(begun.elapsed() < Duration::from_secs(300), "{arguments:?} does not end\n{}", program.printed());
        std::thread::sleep(Duration::from_millis(5));
    }
    (program.end(), peak >> 20)
}

/// Fails unless the program ends well within its budget under the hard limit.
fn fits(arguments: &[&str]) -> String {
    let (ended, peak) = limited(arguments);
    assert_eq!(ended.code, Some(0), "{arguments:?} with {peak} MiB\n{}{}", ended.stdout, ended.stderr);
    assert!(peak <= BUDGET + BESIDE, "{arguments:?} took {peak} MiB");
    crate::common::say(&format!("{peak} MiB: {}", arguments.join(" ").split(" --").next().unwrap_or_default()));
    ended.stdout
}

/// A run that ended so many seconds before the feed's present.
fn ended(mut run: Value, ago_s: u64) -> Value {
    let now = std::time::UNIX_EPOCH + Duration::from_micros(u64::try_from(NOW).expect("after 1970"));
    run["data"]["started_at"] = Value::from(rfc3339(now - Duration::from_secs(ago_s + 2)));
    run["data"]["ended_at"] = Value::from(rfc3339(now - Duration::from_secs(ago_s)));
    run["time"] = run["data"]["ended_at"].clone();
    run
}

/// Runs of as many groups, each a task and a release of its own, in one minute.
fn many_groups(prefix: &str, ago_s: u64) -> Vec<Value> {
    let of = |n: usize| {
        let mut run = ended(run(&format!("{prefix}-{n}")), ago_s);
        run["data"]["task"] = Value::from(format!("task-{}", n / 3));
        run["data"]["release"]["id"] = Value::from(format!("release-{}", n % 3));
        run
    };
    (0..GROUPS).map(of).collect()
}

/// A run with texts that cannot be compressed, nearly as large as an event may be.
fn huge(n: usize, ago_s: u64) -> Value {
    let mut run = ended(run(&format!("huge-{n}")), ago_s);
    let mut state = n as u64 + 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    let text: String = (0..45_000).map(|_| noise()).collect();
    run["data"]["content"] = json!({ "input": text });
    run
}

/// Reviews of runs.
fn reviews(of: &[Value]) -> Vec<Value> {
    let review = |run: &Value| {
        json!({
            "spec": "run-event/1", "type": "run.review", "source": "desk", "run_id": run["run_id"], "time": run["time"],
            "data": {"review_id": "first", "reviewer": "person", "decision": "reject"},
        })
    };
    of.iter().map(review).collect()
}

/// Commits what is hard on memory: many groups in each of many versions, huge rows, and late statements about all of it.
async fn adversarial(root: &Path) {
    let mut feed = Feed::at(root.to_owned()).await;
    let mut all = Vec::new();
    for version in 0..12 {
        let runs = many_groups(&format!("v{version}"), 3 * 86_400 - version * 20);
        Box::pin(feed.commit_events(&runs)).await;
        all.extend(runs);
    }
    for part in 0..6 {
        let runs: Vec<Value> = (0..16).map(|n| huge(part * 16 + n, 7200)).collect();
        Box::pin(feed.commit_events(&runs)).await;
    }
    // The same groups in versions of their own: each is a partial row of its window.
    for version in 0..60 {
        let runs: Vec<Value> = many_groups(&format!("p{version}"), 600).into_iter().take(100).collect();
        Box::pin(feed.commit_events(&runs)).await;
    }
    for part in all.chunks(3000) {
        Box::pin(feed.commit_events(&reviews(part))).await;
    }
    Box::pin(feed.commit_events(&[ended(run("last"), 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_fits_in_its_budget_on_an_adversarial_input() {
    // Nothing is read from a broker here; the address must only be well formed.
    let setup = Setup::new("127.0.0.1:9", "unused", &settings());
    Box::pin(adversarial(&setup.root())).await;
    let (config, root) = (setup.config(), setup.root());
    let (config, root) = (text(&config), text(&root));
    fits(&["aggregate", "--until-caught-up", "--config", config]);
    fits(&["watch", "--until-caught-up", "--config", config]);
    fits(&["audit", "--config", config]);
    fits(&["audit", "--recompute", "--config", config]);
    fits(&["rebuild", "--config", config]);
    for query in [
        "SELECT count(*) FROM rolling",
        "SELECT count(*) FROM release_summary",
        "SELECT sum(length(content_json)) FROM events",
    ] {
        fits(&["sql", "--config", config, query]);
    }
    // After all that, everything is still counted.
    bellwether(&["audit", "--recompute", "--root", root]).succeeds();
}

#[test]
fn ingest_and_run_fit_in_their_budget_on_huge_messages_and_many_groups() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("memory", 2);
    for part in 0..6 {
        let runs: Vec<Value> = (0..16).map(|n| huge(part * 16 + n, 7200)).collect();
        broker.publish_events(&topic, 2, &runs);
        broker.publish_events(&topic, 2, &many_groups(&format!("m{part}"), 7000));
    }
    broker.publish(&topic, (0..500).map(|n| Message::new("x".repeat(1000 * (n % 50)))));
    let setup = Setup::new(&broker.address, &topic, &settings());
    let config = setup.config();
    fits(&["run", "--until-caught-up", "--config", text(&config)]);
    let runs = i64::try_from(6 * (16 + GROUPS)).expect("small");
    assert_eq!(setup.number("SELECT count(*) FROM runs"), runs);
    assert_eq!(setup.number("SELECT sum(runs) FROM metrics"), runs);
    bellwether(&["audit", "--recompute", "--root", text(&setup.root())]).succeeds();
}

#[test]
fn a_process_that_is_refused_memory_says_so() {
    let setup = Setup::new("127.0.0.1:9", "unused", "");
    setup.catch_up_role("aggregate");
    // More than the address space has, and within the statement's own limit.
    let query = "SELECT sum(x) FROM (SELECT sum(value) OVER () AS x FROM generate_series(1, 10000000000))";
    let (ended, _) = limited(&["sql", "--root", text(&setup.root()), "--memory-limit", "1000GiB", query]);
    assert_eq!(ended.code, Some(3), "{:?}\n{}", ended.code, ended.stderr);
    assert!(
        ended.stderr.contains("error: the system refused more memory") && ended.stderr.contains("hint: "),
        "{}",
        ended.stderr
    );
}
