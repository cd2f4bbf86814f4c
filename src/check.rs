//! `bellwether check`: says everything that is wrong with events or a configuration.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_event::{Decoder, Envelope, Limits};
use bellwether_lake::{Error, Lake, Result, StorageOptions};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::value::RawValue;

use crate::config::{Config, Kafka};
use crate::exit;

/// Longest wait for a broker's answer.
const BROKER_WAIT: Duration = Duration::from_secs(10);

/// Checks the events of a file, or of standard input for `-`.
///
/// # Errors
/// `Config` where the file cannot be read.
pub(crate) fn event(file: &Path) -> Result<ExitCode> {
    let text = read(file)?;
    let events = split(&text);
    let mut report = String::new();
    let mut bad = 0_usize;
    // Whether a time is too old or too new is for the moment of ingestion to say, not for the form of an event.
    let limits = Limits { max_future_micros: i64::MAX / 4, max_age_micros: i64::MAX / 4, ..Limits::default() };
    let mut decoder = Decoder::new(limits);
    for (place, event) in &events {
        let Err(rejection) = decoder.decode(event.as_bytes(), &Envelope::default(), 0) else { continue };
        bad += 1;
        for problem in rejection.problems {
            let pointer = if problem.pointer.is_empty() { "(whole message)" } else { &problem.pointer };
            let value = problem.value.map(|value| format!(" (it is `{value}`)")).unwrap_or_default();
            report.push_str(&format!("{place}: {pointer}: {}{value} [{}]\n", problem.message, problem.reason.code()));
        }
    }
    if events.is_empty() {
        return Err(Error::config(format!("`{}` holds no event", file.display())));
    }
    report.push_str(&format!("{} of {} events are right", events.len() - bad, events.len()));
    crate::print(&report)?;
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::NO) })
}

fn read(file: &Path) -> Result<String> {
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let refuse = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::config(format!("`{}` cannot be read", file.display())).with_source(source)
    };
    String::from_utf8(bytes.map_err(|source| refuse(source.into()))?).map_err(|source| refuse(source.into()))
}

/// One event, an array of events, or one event a line, each with where it is.
fn split(text: &str) -> Vec<(String, &str)> {
    if let Ok(array) = serde_json::from_str::<Vec<&RawValue>>(text) {
        return array.iter().enumerate().map(|(index, event)| (format!("event {}", index + 1), event.get())).collect();
    }
    let lines: Vec<(usize, &str)> = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).collect();
    // A single event may be spread over many lines; then its first line is no JSON by itself.
    let first_is_whole = lines.first().is_some_and(|(_, line)| serde_json::from_str::<&RawValue>(line).is_ok());
    if !first_is_whole && serde_json::from_str::<&RawValue>(text).is_ok() {
        return vec![("event 1".to_owned(), text)];
    }
    lines.into_iter().map(|(index, line)| (format!("line {}", index + 1), line)).collect()
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
    use super::*;

    #[test]
    fn events_come_as_lines_as_one_or_as_an_array() {
        assert_eq!(split("{\"a\":1}\n\n{\"b\":2}\n").len(), 2);
        assert_eq!(split("{\n \"a\": 1\n}\n"), vec![("event 1".to_owned(), "{\n \"a\": 1\n}\n")]);
        assert_eq!(split("[{\"a\":1}, {\"b\":2}]")[1], ("event 2".to_owned(), "{\"b\":2}"));
        assert_eq!(split("{\"a\":1}\nnot json\n")[1], ("line 2".to_owned(), "not json"));
    }
}
