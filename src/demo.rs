//! The demo: an embedded broker, three simulated apps, the real pipeline, and a live summary.
//!
//! * `apps` makes the events, `traffic` publishes them, `observe` reads the tables through SQL.
//! * `screen` shows it in a terminal, `headless` prints a bounded scenario.
//!
//! Rule: everything between the broker and the SQL answer is the program itself, not a copy of it.

pub(crate) mod apps;
mod headless;
mod observe;
mod screen;
mod traffic;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bellwether_lake::{Clock, Error, Result, SystemClock};
use rdkafka::mocking::MockCluster;
use tokio_util::sync::CancellationToken;

use crate::cli::DemoArgs;
use crate::config::{Config, Environment, REFERENCE};
use crate::roles::{self, Running, Which};

/// Topic of the simulated apps.
pub(crate) const TOPIC: &str = "llm.runs";

/// Partitions of the topic. The embedded broker keeps 5 MiB of each: together five times what the whole history needs.
pub(crate) const PARTITIONS: i32 = 24;

/// A demo that runs.
pub(crate) struct Demo {
    pub(crate) running: Running,
    pub(crate) brokers: String,
    pub(crate) progress: Arc<traffic::Progress>,
}

impl Demo {
    /// Where the tables are, as a person writes it.
    pub(crate) fn root(&self) -> String {
        self.running.lake.root_display()
    }

    /// How to ask the tables afterwards.
    pub(crate) fn sql_command(&self) -> String {
        format!("bellwether sql --root {}", self.root())
    }
}

/// Queries worth a try, with what they tell.
pub(crate) const QUERIES: &[(&str, &str)] = &[
    ("which release is worse", "SELECT task, release_id, stage, runs, success_rate FROM rolling WHERE span = '5m'"),
    (
        "who judged, how late",
        "SELECT task, coverage, judged_by_llm, judged_by_human, label_delay_s_p95 FROM release_summary",
    ),
    ("which fields break", "SELECT * FROM field_errors LIMIT 10"),
    ("what was refused", "SELECT reason, messages, example_message FROM quarantine_summary"),
    ("which tools fail", "SELECT * FROM tool_calls LIMIT 10"),
    ("how fresh is it", "SELECT * FROM freshness"),
    ("what waits for a run", "SELECT * FROM orphans LIMIT 10"),
    (
        "what alarmed, and why",
        "SELECT at, state, severity, title, log_e, threshold, false_alarm FROM alerts ORDER BY at",
    ),
];

/// Runs the demo.
///
/// # Errors
/// Where the broker or the tables cannot be made.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let cluster = MockCluster::new(1).map_err(|source| unavailable("the embedded broker does not start", source))?;
    cluster
        .create_topic(TOPIC, PARTITIONS, 1)
        .map_err(|source| unavailable("the embedded broker makes no topic", source))?;
    let brokers = cluster.bootstrap_servers();
    let config = configure(&args, &brokers)?;
    let running = roles::start(&config, Which::All, false, &CancellationToken::new()).await?;
    let progress = Arc::new(traffic::Progress::new(args.history));
    let producer = traffic::start(&brokers, args.seed, Arc::clone(&progress))?;
    let demo = Demo { running, brokers, progress };
    let shown = if args.headless || !std::io::stdout().is_terminal() {
        headless::run(&demo, args.duration).await
    } else {
        screen::run(&demo).await
    };
    demo.progress.stop();
    let (root, command) = (demo.root(), demo.sql_command());
    let finished = demo.running.finish().await;
    // The thread looks at the flag between messages, so this takes one message's time.
    let produced = tokio::task::spawn_blocking(move || producer.join()).await;
    drop(cluster);
    shown?;
    finished?;
    if !matches!(produced, Ok(Ok(()))) {
        return Err(Error::bug("the simulated apps have stopped in a panic"));
    }
    crate::print(&format!("\nThe tables are in {root}\nAsk them: {command}"))
}

fn configure(args: &DemoArgs, brokers: &str) -> Result<Config> {
    let mut config = Config::parse("the demo's configuration", REFERENCE, &Environment)?;
    config.tables.root = match &args.root {
        Some(root) => root.display().to_string(),
        None => {
            let now = humantime::format_rfc3339_seconds(now()).to_string();
            format!("bellwether-data/demo-{}", now.replace([':', '-', 'Z'], "").replace('T', "-"))
        }
    };
    config.kafka.brokers = brokers.split(',').map(str::to_owned).collect();
    config.kafka.topics = vec![TOPIC.to_owned()];
    config.ingest.flush_interval = Duration::from_millis(800);
    config.alerts.interval = Duration::from_secs(1);
    config.alerts.grace = Duration::from_secs(5);
    config.serve.address = args.serve;
    // The embedded broker is forgotten at the end, and with it its offsets: another demo on the same root starts anew.
    config.kafka.job = format!("demo-{}", SystemClock.now_micros() / 1_000_000);
    Ok(config)
}

/// The time of day, as the tables have it.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(SystemClock.now_micros()).unwrap_or(0))
}

fn unavailable(what: &str, source: rdkafka::error::KafkaError) -> Error {
    Error::unavailable(what).with_source(source)
}
