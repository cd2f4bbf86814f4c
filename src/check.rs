//! `bellwether check`: says everything that is wrong with events or a configuration.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_event::{Decoder, Limits, Problem};
use bellwether_ingest::decode::{Message, problems};
use bellwether_ingest::replay::too_large;
use bellwether_ingest::source::file::{Record, Records, Size};
use bellwether_lake::{Clock, Error, Lake, Result, StorageOptions, SystemClock};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::cli::CheckEventArgs;
use crate::config::{Config, Kafka};
use crate::{exit, roles};

/// Longest wait for a broker's answer.
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// Events that were checked.
#[derive(Default)]
struct Checked {
    accepted: u64,
    /// Of those that are accepted, events with something that is not kept as it was sent.
    warned: u64,
    rejected: u64,
}

/// Checks the events of files, or of standard input for `-`, as ingest and replay do.
///
/// # Errors
/// `Config` where the configuration cannot be read.
pub(crate) fn event(args: &CheckEventArgs) -> Result<ExitCode> {
    let mut limits = match &args.config {
        Some(file) => roles::limits(&Config::load(file)?),
        None => Limits::default(),
    };
    if args.any_time {
        (limits.max_future_micros, limits.max_age_micros) = (i64::MAX / 4, i64::MAX / 4);
    }
    let (mut checked, mut unreadable) = (Checked::default(), Vec::new());
    for file in &args.files {
        // One file is told of by its events alone.
        let name = if args.files.len() > 1 { format!("{}: ", file.display()) } else { String::new() };
        if let Err(error) = events_of(file, &name, limits, &mut checked) {
            unreadable.push(error);
        }
    }
    let Checked { accepted, warned, rejected } = checked;
    let warnings = if warned > 0 { format!(" ({warned} with warnings)") } else { String::new() };
    crate::print(&format!("{accepted} of {} events are accepted{warnings}, {rejected} rejected", accepted + rejected))?;
    let mut code = if rejected == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) };
    for error in &unreadable {
        code = exit::report(error);
    }
    Ok(code)
}

/// Checks the events of one file, and tells what is wrong with each.
fn events_of(file: &Path, name: &str, limits: Limits, checked: &mut Checked) -> Result<()> {
    let mut records = Records::open(file, limits.readable_bytes())?;
    let (decoder, mut buffer, mut events) = (Decoder::new(limits), Vec::new(), 0_u64);
    while let Some(record) = records.read(&mut buffer)? {
        events += 1;
        let found = problems_of(&decoder, &record, &buffer);
        let rejects = found.iter().any(|problem| problem.rejects);
        checked.rejected += u64::from(rejects);
        checked.accepted += u64::from(!rejects);
        checked.warned += u64::from(!rejects && !found.is_empty());
        let lines: Vec<String> =
            found.iter().map(|problem| format!("{name}{}: {}", place(&record), told(problem))).collect();
        if !lines.is_empty() {
            crate::print(&lines.join("\n"))?;
        }
    }
    if events == 0 {
        return Err(Error::config(format!("`{}` holds no event", file.display())));
    }
    Ok(())
}

fn problems_of(decoder: &Decoder, record: &Record, body: &[u8]) -> Vec<Problem> {
    match record.size {
        Size::Whole => {
            let message = Message { topic: "file", payload: Some(body), ..Message::default() };
            problems(decoder, &message, SystemClock.now_micros())
        }
        Size::TooLong(size) => too_large(size).problems,
    }
}

/// Where an event is: its line, and its place among those that begin on one line.
fn place(record: &Record) -> String {
    match record.offset - record.line {
        0 => format!("line {}", record.line + 1),
        _ => format!("line {} (event {})", record.line + 1, record.offset + 1),
    }
}

fn told(problem: &Problem) -> String {
    let warning = if problem.rejects { "" } else { "warning: " };
    let pointer = if problem.pointer.is_empty() { "(whole message)" } else { &problem.pointer };
    let value = problem.value.as_ref().map(|value| format!(" (it is `{value}`)")).unwrap_or_default();
    format!("{warning}{pointer}: {}{value} [{}]", problem.message, problem.reason.code())
}

/// Checks a configuration, and with `connect` what it points to.
///
/// # Errors
/// `Config` where the file is wrong, `Unavailable` where brokers or tables do not answer.
pub(crate) async fn config(file: &Path, connect: bool) -> Result<ExitCode> {
    let config = Config::load(file)?;
    if !connect {
        return crate::print(&format!("`{}` is right; --connect also asks the brokers and the tables", file.display()));
    }
    let lake = Lake::open(&config.tables.root, &StorageOptions(config.tables.options.clone())).await?;
    crate::print(&format!("tables  {} can be written", lake.root_display()))?;
    let kafka = config.kafka.clone();
    let topics = tokio::task::spawn_blocking(move || topics(&kafka))
        .await
        .map_err(|source| Error::bug("the check of the brokers has panicked").with_source(source))??;
    for (topic, partitions) in topics {
        crate::print(&format!("kafka   topic `{topic}` has {partitions} partitions"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A client with the configured brokers and properties.
pub(crate) fn client(kafka: &Kafka) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.brokers.join(","));
    for (key, value) in &kafka.properties {
        client.set(key, value);
    }
    client
}

fn topics(kafka: &Kafka) -> Result<Vec<(String, usize)>> {
    let brokers = kafka.brokers.join(",");
    let consumer: BaseConsumer = client(kafka).create().map_err(|source| {
        Error::config("librdkafka refuses the configuration")
            .with_hint("look at `kafka.security` and `kafka.properties`")
            .with_source(source)
    })?;
    let mut found = Vec::new();
    for topic in &kafka.topics {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT).map_err(|source| {
            Error::unavailable(format!("brokers `{brokers}` do not answer"))
                .with_hint("check `kafka.brokers` and `kafka.security`")
                .with_source(source)
        })?;
        let partitions =
            metadata.topics().iter().find(|known| known.name() == topic).map_or(0, |known| known.partitions().len());
        if partitions == 0 {
            return Err(Error::config(format!("topic `{topic}` is not on the brokers `{brokers}`"))
                .with_hint("make the topic, or change `kafka.topics`"));
        }
        found.push((topic.clone(), partitions));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Ends with which exit code, over files with these contents.
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
    fn a_problem_is_told_with_its_pointer_and_whether_it_rejects() {
        let decoder = Decoder::new(Limits { max_age_micros: i64::MAX / 4, ..Limits::default() });
        let body = r#"{"spec":"run-event/1","run_id":"","data":{"task":"t","release":{"id":"1"},"started_at":"2026-11-23T10:00:00Z",
            "ended_at":"2026-11-23T10:00:01Z","outcome":{"status":"fine"},"tokens":{"input":-1}}}"#;
        let record = Record { offset: 3, line: 3, size: Size::Whole };
        let found: Vec<String> = problems_of(&decoder, &record, body.as_bytes()).iter().map(told).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|told| told.starts_with("/run_id: ") && told.ends_with("[too_short]")), "{found:?}");
        assert!(found.iter().any(|told| told.starts_with("/data/outcome/status: not a known value")), "{found:?}");
        assert!(found.iter().any(|told| told.starts_with("warning: /data/tokens/input: out of range")), "{found:?}");
        assert_eq!(place(&record), "line 4");
        assert_eq!(place(&Record { offset: 5, ..record }), "line 4 (event 6)");
    }
}
