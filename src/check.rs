//! `bellwether check`: reports every problem of events, of a configuration, or of a running process (`health`).

pub(crate) mod health;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Clock, Error, Result, SystemClock};
use bellwether_event::{Decoder, Limits, Problem};
use bellwether_ingest::KafkaSettings;
use bellwether_ingest::decode::{Message, problems};
use bellwether_ingest::login::log_in;
use bellwether_ingest::replay::too_large;
use bellwether_ingest::source::file::{FileEvent, FileEvents, Size};
use bellwether_lake::{Lake, StorageOptions};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::cli::CheckEventArgs;
use crate::config::Config;
use crate::exit;

/// Longest wait for a response of the brokers.
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// Counts of checked events.
#[derive(Default)]
struct EventCounts {
    accepted: u64,
    /// Accepted events with values that are cut or left out.
    warned: u64,
    rejected: u64,
}

/// Checks the events of files, or of standard input for `-`, as ingest and replay do.
///
/// # Errors
/// `Config` if the configuration is invalid.
pub(crate) fn event(args: &CheckEventArgs) -> Result<ExitCode> {
    let mut limits = match &args.config {
        Some(file) => Config::load(file)?.limits,
        None => Limits::default(),
    };
    if args.any_time {
        (limits.max_future_micros, limits.max_age_micros) = (i64::MAX / 4, i64::MAX / 4);
    }
    let (mut counts, mut unreadable) = (EventCounts::default(), Vec::new());
    for file in &args.files {
        // With one file its name would add nothing.
        let name = if args.files.len() > 1 { format!("{}: ", file.display()) } else { String::new() };
        if let Err(error) = events_of(file, &name, limits, &mut counts) {
            unreadable.push(error);
        }
    }
    let EventCounts { accepted, warned, rejected } = counts;
    let warnings = if warned > 0 { format!(" ({warned} with warnings)") } else { String::new() };
    // If no file could be read, the errors below say all.
    if accepted + rejected > 0 {
        crate::print(&format!("{accepted} of {} events accepted{warnings}, {rejected} rejected", accepted + rejected))?;
    }
    let mut code = if rejected == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) };
    for error in &unreadable {
        code = exit::report(error);
    }
    Ok(code)
}

/// Checks the events of one file and prints the problems of each.
fn events_of(file: &Path, name: &str, limits: Limits, counts: &mut EventCounts) -> Result<()> {
    let mut records = FileEvents::open(file, limits.readable_bytes())?;
    let (decoder, mut buffer, mut events) = (Decoder::new(limits), Vec::new(), 0_u64);
    while let Some(record) = records.read(&mut buffer)? {
        events += 1;
        let found = problems_of(&decoder, &record, &buffer);
        let rejects = found.iter().any(|problem| problem.rejects);
        counts.rejected += u64::from(rejects);
        counts.accepted += u64::from(!rejects);
        counts.warned += u64::from(!rejects && !found.is_empty());
        let lines: Vec<String> =
            found.iter().map(|problem| format!("{name}{}: {}", location(&record), described(problem))).collect();
        if !lines.is_empty() {
            crate::print(&lines.join("\n"))?;
        }
    }
    if events == 0 {
        return Err(Error::config(format!("`{}` has no events", file.display())));
    }
    Ok(())
}

fn problems_of(decoder: &Decoder, record: &FileEvent, body: &[u8]) -> Vec<Problem> {
    match record.size {
        Size::Whole => {
            let message = Message { topic: "file", payload: Some(body), ..Message::default() };
            problems(decoder, &message, SystemClock.now_micros())
        }
        Size::TooLong(size) => too_large(size).problems,
    }
}

/// Returns the line of an event, and its number if several events begin on one line.
fn location(record: &FileEvent) -> String {
    match record.offset - record.line {
        0 => format!("line {}", record.line + 1),
        _ => format!("line {} (event {})", record.line + 1, record.offset + 1),
    }
}

fn described(problem: &Problem) -> String {
    let warning = if problem.rejects { "" } else { "warning: " };
    let pointer = if problem.pointer.is_empty() { "(whole message)" } else { &problem.pointer };
    let value = problem.value.as_ref().map(|value| format!(" (found `{value}`)")).unwrap_or_default();
    format!("{warning}{pointer}: {}{value} [{}]", problem.message, problem.reason.code())
}

/// Checks a configuration, and with `connect` also the brokers, topics and tables that it names.
///
/// # Errors
/// `Config` if the file is invalid, `Unavailable` if brokers or tables do not respond.
pub(crate) async fn config(file: &Path, connect: bool) -> Result<ExitCode> {
    let config = Config::load(file)?;
    for warning in config.deliver.warnings() {
        crate::print(&format!("warning: {warning}"))?;
    }
    if !connect {
        return crate::print(&format!(
            "`{}` is valid; add --connect to check the brokers and tables too",
            file.display()
        ));
    }
    let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
    crate::print(&format!("tables  {} is writable", lake.root_display()))?;
    let kafka = config.kafka.clone();
    let topics = tokio::task::spawn_blocking(move || topics(&kafka))
        .await
        .map_err(|source| Error::bug("the check of the brokers panicked").with_source(source))??;
    for (topic, partitions) in topics {
        crate::print(&format!("kafka   topic `{topic}` has {partitions} partitions"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns a client configuration with the configured brokers and properties.
pub(crate) fn client(kafka: &KafkaSettings) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &kafka.brokers);
    for (key, value) in &kafka.properties {
        client.set(key, value);
    }
    client
}

fn topics(kafka: &KafkaSettings) -> Result<Vec<(String, usize)>> {
    let brokers = &kafka.brokers;
    let consumer: BaseConsumer = client(kafka).create().map_err(|source| {
        Error::config("librdkafka rejected the configuration")
            .with_hint("check `kafka.security` and `kafka.properties`")
            .with_source(source)
    })?;
    log_in(&consumer, kafka.login.as_ref())?;
    let mut found = Vec::new();
    for topic in &kafka.topics {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT).map_err(|source| {
            Error::unavailable(format!("brokers `{brokers}` do not respond"))
                .with_hint("check `kafka.brokers` and `kafka.security`")
                .with_source(source)
        })?;
        let partitions =
            metadata.topics().iter().find(|known| known.name() == topic).map_or(0, |known| known.partitions().len());
        if partitions == 0 {
            return Err(Error::config(format!("topic `{topic}` does not exist on brokers `{brokers}`"))
                .with_hint("create it, change `kafka.topics`, or give this user the right to describe it"));
        }
        found.push((topic.clone(), partitions));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Returns the exit code of a check of files with these contents.
    fn code(contents: &[&str], any_time: bool) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<PathBuf> = contents
            .iter()
            .enumerate()
            .map(|(n, text)| {
                let file = folder.path().join(format!("{n}.json"));
                std::fs::write(&file, text).expect("writes");
                file
            })
            .collect();
        let code = event(&CheckEventArgs { files, config: None, any_time }).expect("checks");
        format!("{code:?}")
    }

    #[test]
    fn the_exit_code_says_whether_all_events_are_accepted_and_all_files_read() {
        let good = r#"{"spec":"run-event/1","run_id":"r","data":{"task":"t","release":{"id":"1"},"started_at":"2026-11-23T10:00:00Z",
            "ended_at":"2026-11-23T10:00:01Z","outcome":{"status":"success"}}}"#;
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(&[good, good], true), expected(0));
        assert_eq!(code(&[good, &format!("[{good},{good}]"), &format!("{good}\n{{}}\n{good}")], true), expected(1));
        assert_eq!(code(&[good, ""], true), expected(2));
        let old = good.replace("2026", "2016");
        assert_eq!(code(&[&old], true), expected(0));
        assert_eq!(code(&[&old], false), expected(1));
    }

    #[test]
    fn a_problem_is_printed_with_its_pointer_and_whether_it_rejects() {
        let decoder = Decoder::new(Limits { max_age_micros: i64::MAX / 4, ..Limits::default() });
        let body = r#"{"spec":"run-event/1","run_id":"","data":{"task":"t","release":{"id":"1"},"started_at":"2026-11-23T10:00:00Z",
            "ended_at":"2026-11-23T10:00:01Z","outcome":{"status":"fine"},"tokens":{"input":-1}}}"#;
        let record = FileEvent { offset: 3, line: 3, size: Size::Whole };
        let found: Vec<String> = problems_of(&decoder, &record, body.as_bytes()).iter().map(described).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("/run_id: ") && line.ends_with("[too_short]")), "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("/data/outcome/status: unknown value")), "{found:?}");
        assert!(found.iter().any(|line| line.starts_with("warning: /data/tokens/input: out of range")), "{found:?}");
        assert_eq!(location(&record), "line 4");
        assert_eq!(location(&FileEvent { offset: 5, ..record }), "line 4 (event 6)");
    }
}
