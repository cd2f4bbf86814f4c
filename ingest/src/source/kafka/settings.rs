//! What may be set about reading Kafka, checked without any I/O.
//!
//! Any librdkafka property passes through, except those the exactly-once protocol must own. Values of properties are
//! never printed: they may be secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bellwether_base::{Error, Result};

/// Properties that the protocol owns, with why or what to use instead.
const OWNED: &[(&str, &str)] = &[
    ("auto.commit.enable", "offsets are stored in the tables"),
    (
        "auto.offset.reset",
        "an offset outside the log must halt its partition; `start` decides where a first read begins",
    ),
    ("bootstrap.servers", "set `brokers` instead"),
    ("check.crcs", "corrupt messages must be detected"),
    ("enable.auto.commit", "offsets are stored in the tables"),
    ("enable.auto.offset.store", "offsets are stored in the tables"),
    ("enable.partition.eof", "ingest decides when it needs end-of-partition events"),
    ("group.id", "set `group` instead"),
    ("group.instance.id", "set `instance_id` instead"),
    ("metadata.broker.list", "set `brokers` instead"),
];

/// Our defaults where librdkafka's do not fit; a user's property wins over them.
const DEFAULTS: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    // An answer to anything else waits behind a fetch: half a second would be felt.
    ("fetch.wait.max.ms", "100"),
    // After a full queue librdkafka would pause fetching for a second.
    ("fetch.queue.backoff.ms", "20"),
    // A fifth of a second at full speed; librdkafka's own 64 MiB would be an eighth of all memory.
    ("queued.max.messages.kbytes", "16384"),
    // Lag, for health and metrics; and how far the client has fetched.
    ("statistics.interval.ms", "2000"),
    // Partitions that are added to a topic are found by asking for them; librdkafka's own 5 min would leave them unread for so
    // long. The group then shares them out, which takes some seconds more.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// Where a partition starts that was never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the oldest message held: nothing is missed.
    #[default]
    Earliest,
    /// At the end that its topic has when it is read for the first time by anybody: what is there already is left out. That
    /// end is recorded in the tables; a partition that is added later begins at its oldest message.
    Latest,
}

/// When an open batch is handed on for commit; whichever comes first.
#[derive(Clone, Debug)]
pub struct FlushSettings {
    /// Age of its first message. Shorter is fresher and makes more, smaller files.
    pub interval: Duration,
    /// Bytes of messages in it.
    pub max_bytes: usize,
    /// Rows in it.
    pub max_rows: usize,
    /// Finished batches that may wait for storage before partitions are paused.
    pub channel_batches: usize,
}

/// What to read, as whom, and how.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Addresses, `HOST:PORT`, separated by commas.
    pub brokers: String,
    /// Topics.
    pub topics: Vec<String>,
    /// Consumer group: shares partitions out, and nothing else.
    pub group: String,
    /// Name under which the tables keep this job's offsets. Another name reads everything again.
    pub job: String,
    /// Static membership: a restart within the session timeout moves no partitions.
    pub instance_id: Option<String>,
    /// Further librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// When to commit.
    pub flush: FlushSettings,
    /// Where a partition starts that was never read.
    pub start: Start,
}

impl Default for FlushSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), max_bytes: 64 << 20, max_rows: 100_000, channel_batches: 2 }
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            topics: vec!["llm.runs".to_owned()],
            group: "bellwether".to_owned(),
            job: "main".to_owned(),
            instance_id: None,
            properties: BTreeMap::new(),
            flush: FlushSettings::default(),
            start: Start::default(),
        }
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("group", &self.group)
            .field("job", &self.job)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

// === impl KafkaSettings ===

impl KafkaSettings {
    /// Checks what can be checked without a broker.
    ///
    /// # Errors
    /// `Config`, naming the key and what would be right.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in [("brokers", &self.brokers), ("group", &self.group), ("job", &self.job)] {
            if value.trim().is_empty() {
                return Err(Error::config(format!("`{key}` is empty")).with_hint(format!("set `{key}`")));
            }
        }
        // `/` and `#` separate the parts of an application id in the tables.
        if self.job.contains(['/', '#']) {
            return Err(Error::config(format!("`job` is `{}`, but must not contain `/` or `#`", self.job))
                .with_hint("choose another name"));
        }
        if self.topics.is_empty() || self.topics.iter().any(|topic| topic.is_empty() || topic.starts_with('^')) {
            return Err(Error::config("`topics` is empty, or holds an empty name or a pattern")
                .with_hint("list the full name of each topic"));
        }
        let flush = &self.flush;
        let limits = [flush.max_bytes, flush.max_rows, flush.channel_batches];
        if flush.interval.is_zero() || limits.contains(&0) {
            return Err(Error::config("a limit in `flush` is zero").with_hint("remove the key to use its default"));
        }
        for key in self.properties.keys() {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return Err(Error::config(format!("librdkafka property `{key}` is reserved"))
                    .with_hint(format!("remove it: {why}")));
            }
        }
        Ok(())
    }

    /// Every property for the client: ours, over the user's, over the defaults.
    pub fn client_properties(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |key: &str, value: &str| all.insert(key.to_owned(), value.to_owned());
        for (key, value) in DEFAULTS {
            set(key, value);
        }
        for (key, value) in &self.properties {
            set(key, value);
        }
        for (key, value) in [
            ("bootstrap.servers", self.brokers.as_str()),
            ("group.id", &self.group),
            ("auto.offset.reset", "error"),
            ("check.crcs", "true"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "false"),
        ] {
            set(key, value);
        }
        if let Some(id) = &self.instance_id {
            set("group.instance.id", id);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(key: &str, value: &str) -> KafkaSettings {
        KafkaSettings {
            brokers: "localhost:9092".to_owned(),
            topics: vec!["runs".to_owned()],
            group: "bellwether".to_owned(),
            job: "main".to_owned(),
            instance_id: None,
            properties: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            flush: FlushSettings::default(),
            start: Start::default(),
        }
    }

    #[test]
    fn properties_pass_through_but_not_those_of_the_protocol() {
        let good = settings("fetch.wait.max.ms", "50");
        good.validate().expect("valid");
        assert_eq!(good.client_properties()["fetch.wait.max.ms"], "50");
        for (owned, _) in OWNED {
            let error = settings(owned, "x").validate().expect_err("owned");
            assert!(error.message().contains(owned));
        }
    }

    #[test]
    fn values_of_properties_are_never_printed() {
        assert!(!format!("{:?}", settings("sasl.password", "hunter2")).contains("hunter2"));
    }
}
