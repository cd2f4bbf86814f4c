//! The demo: an embedded broker, three simulated apps, the real pipeline, and a live summary.
//!
//! * `apps` generates the events, `traffic` publishes them, `observe` reads the tables with SQL.
//! * `pages` reads what was delivered, `gates` asks whether the canaries may go on.
//! * `reviews` samples the runs at the end and writes the weekly report.
//! * `screen` draws the live summary in a terminal, `headless` prints a bounded scenario.
//!
//! Rule: everything between the broker and the SQL result is the real program, not a copy of it.

pub(crate) mod apps;
mod gates;
mod headless;
mod observe;
mod pages;
mod reviews;
mod screen;
mod traffic;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bellwether_alerts::gate::GateReader;
use bellwether_base::{Clock, Error, Result, SystemClock};
use rdkafka::mocking::MockCluster;
use tokio_util::sync::CancellationToken;

use self::pages::PageFiles;
use crate::cli::DemoArgs;
use crate::config::{CONTENT_BYTES, Config};
use crate::process::Process;
use crate::roles;

/// Topic that the simulated apps publish to.
pub(crate) const TOPIC: &str = "llm.runs";

/// Partitions of the topic. The embedded broker keeps 5 MiB of each, together five times the size of the history.
pub(crate) const PARTITIONS: i32 = 24;

/// A running demo.
pub(crate) struct Demo {
    pub(crate) process: Process,
    pub(crate) brokers: String,
    pub(crate) progress: Arc<traffic::TrafficProgress>,
    pub(crate) pages: PageFiles,
    pub(crate) gate: Arc<GateReader>,
}

impl Demo {
    /// Returns the root of the tables.
    pub(crate) fn root(&self) -> String {
        self.process.lake.root_display()
    }

    /// Returns the command that queries the tables later.
    pub(crate) fn sql_command(&self) -> String {
        format!("bellwether sql --root {}", self.root())
    }
}

/// Example queries, each with the question it answers.
pub(crate) const QUERIES: &[(&str, &str)] = &[
    ("which release is worse?", "SELECT task, release_id, stage, runs, success_rate FROM rolling WHERE span = '5m'"),
    (
        "who judged, and how late?",
        "SELECT task, coverage, judged_by_llm, judged_by_human, label_delay_s_p95 FROM release_summary",
    ),
    ("which fields are invalid?", "SELECT * FROM field_errors LIMIT 10"),
    ("why were messages rejected?", "SELECT reason, messages, example_message FROM quarantine_summary"),
    ("which tools fail?", "SELECT * FROM tool_calls LIMIT 10"),
    ("how fresh are the tables?", "SELECT * FROM freshness"),
    ("which verdicts have no run?", "SELECT * FROM orphans LIMIT 10"),
    (
        "what alerted, and why?",
        "SELECT at, state, severity, title, log_e, threshold, false_alarm FROM alerts ORDER BY at",
    ),
];

/// Runs the demo.
///
/// # Errors
/// `Unavailable` if the broker, the tables or the terminal fail.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let cluster = MockCluster::new(1).map_err(|source| unavailable("cannot start the embedded broker", source))?;
    cluster
        .create_topic(TOPIC, PARTITIONS, 1)
        .map_err(|source| unavailable("cannot create a topic on the embedded broker", source))?;
    let brokers = cluster.bootstrap_servers();
    let root = root(&args);
    let pages = PageFiles::beside(&root);
    let config = configure(&args, &brokers, &root, &pages)?;
    let process = Process::start(&config, roles::all(&config), false, &CancellationToken::new()).await?;
    let progress = Arc::new(traffic::TrafficProgress::new(args.history));
    let producer = traffic::start(&brokers, args.seed, Arc::clone(&progress))?;
    let demo = Demo { process, brokers, progress, pages, gate: Arc::new(crate::gate::reader(Some(&config), None)?) };
    let shown = if args.headless || !std::io::stdout().is_terminal() {
        headless::run(&demo, args.duration).await
    } else {
        screen::run(&demo).await
    };
    demo.progress.stop();
    let (root, command, pages) = (demo.root(), demo.sql_command(), demo.pages);
    let lake = demo.process.lake.clone();
    let finished = demo.process.finish().await;
    // The thread checks the flag between messages, so this is quick.
    let produced = tokio::task::spawn_blocking(move || producer.join()).await;
    drop(cluster);
    shown?;
    finished?;
    if !matches!(produced, Ok(Ok(()))) {
        return Err(Error::bug("the simulated apps panicked"));
    }
    crate::print(&format!("\nThe tables are in {root}\nTo query them: {command}"))?;
    if pages.inbox.exists() {
        crate::print(&format!("The pages are in {}", pages.inbox.display()))?;
    }
    if pages.slack.exists() {
        crate::print(&format!("The page as a message for Slack: {}", pages.slack.display()))?;
    }
    tokio::select! {
        reviews = reviews::prepare(&lake, &demo.gate, &pages.report) => {
            crate::print(&reviews?.shown(&root))
        }
        // Until here, the process listened to it.
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

/// Returns the folder of the tables.
fn root(args: &DemoArgs) -> PathBuf {
    args.root.clone().unwrap_or_else(|| {
        let now = humantime::format_rfc3339_seconds(now()).to_string();
        let name = format!("demo-{}", now.replace([':', '-', 'Z'], "").replace('T', "-"));
        Path::new("bellwether-data").join(name)
    })
}

fn configure(args: &DemoArgs, brokers: &str, root: &Path, pages: &PageFiles) -> Result<Config> {
    let mut config = Config { deliver: pages.settings()?, ..Config::default() };
    config.tables.root = root.display().to_string();
    config.kafka.brokers = brokers.to_owned();
    config.kafka.topics = vec![TOPIC.to_owned()];
    // The people of the demo do not exist.
    config.limits.content_bytes = Some(CONTENT_BYTES);
    config.kafka.flush.interval = Duration::from_millis(800);
    config.alerts.watch.interval = Duration::from_secs(1);
    config.alerts.watch.grace = Duration::from_secs(5);
    config.serve.address = args.serve;
    // The embedded broker and its offsets are lost at the end, so every demo on the same root needs a job of its own.
    config.kafka.job = format!("demo-{}", SystemClock.now_micros() / 1_000_000);
    Ok(config)
}

/// Returns the time of day by the clock that the tables use.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(SystemClock.now_micros()).unwrap_or(0))
}

fn unavailable(message: &str, source: rdkafka::error::KafkaError) -> Error {
    Error::unavailable(message).with_source(source)
}
