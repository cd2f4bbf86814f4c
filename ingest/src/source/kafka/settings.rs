//! The settings of the Kafka source, validated without I/O.
//!
//! Every librdkafka property passes through, except those that the exactly-once protocol depends on. Property values are never
//! printed, because they may be secrets.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bellwether_base::{Error, Result};
use bellwether_login::Login;

/// Properties that users cannot set, each with the reason or the key to set instead.
const RESERVED: &[(&str, &str)] = &[
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

/// Defaults that differ from librdkafka's. A property set by the user takes precedence.
const DEFAULTS: &[(&str, &str)] = &[
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Other requests wait behind a fetch; librdkafka's 500 ms would delay them noticeably.
    ("fetch.wait.max.ms", "100"),
    // librdkafka would pause fetching for a second after a full queue.
    ("fetch.queue.backoff.ms", "20"),
    // A fifth of a second at full speed; librdkafka's 64 MiB would be an eighth of all memory.
    ("queued.max.messages.kbytes", "16384"),
    // The statistics hold the lag, for health and metrics, and how far the client has fetched.
    ("statistics.interval.ms", "2000"),
    // Detects partitions that are added to a topic; with librdkafka's 5 min they would stay unread for that long. The group then
    // needs some more seconds to assign them.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

/// The start of a partition that was never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The oldest message in the broker, so that none is missed.
    #[default]
    Earliest,
    /// The end of the topic when a worker is first assigned a partition of it: older messages are left out. The end is recorded
    /// in the tables; a partition that is added later starts at its oldest message.
    Latest,
}

/// Limits at which the open batch is committed; the first one reached counts.
#[derive(Clone, Debug)]
pub struct FlushSettings {
    /// Age of its first message. Shorter intervals give fresher tables, and more and smaller files.
    pub interval: Duration,
    /// Bytes of memory that it takes.
    pub max_bytes: usize,
    /// Number of rows.
    pub max_rows: usize,
    /// Finished batches that may wait for storage before partitions are paused.
    pub channel_batches: usize,
}

/// The settings of the Kafka source.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Broker addresses, `HOST:PORT`, separated by commas.
    pub brokers: String,
    pub topics: Vec<String>,
    /// Consumer group. It only assigns partitions; offsets are stored in the tables.
    pub group: String,
    /// Name under which the tables store this job's offsets. Under another name, all messages are read again.
    pub job: String,
    /// Static group membership: a restart within the session timeout moves no partitions.
    pub instance_id: Option<String>,
    /// Further librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// Limits at which the open batch is committed.
    pub flush: FlushSettings,
    /// The start of a partition that was never read.
    pub start: Start,
    /// The source of tokens, if the clients authenticate by OAUTHBEARER.
    pub login: Option<Login>,
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
            login: None,
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
    /// Validates the settings without a broker.
    ///
    /// # Errors
    /// `Config`, naming the key and the remedy.
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
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == key) {
                return Err(Error::config(format!("librdkafka property `{key}` is reserved"))
                    .with_hint(format!("remove it: {why}")));
            }
        }
        let mechanism = ["sasl.mechanism", "sasl.mechanisms"].iter().find_map(|key| self.properties.get(*key));
        let signs_itself = self.properties.get("enable.sasl.oauthbearer.unsecure.jwt").is_some_and(|is| is == "true");
        if mechanism.is_some_and(|mechanism| mechanism == "OAUTHBEARER") && self.login.is_none() && !signs_itself {
            return Err(Error::config("OAUTHBEARER needs a source of tokens").with_hint(
                "set `kafka.security.sasl_mechanism` and not a property; `bellwether config reference` lists its keys",
            ));
        }
        Ok(())
    }

    /// Returns every client property: the reserved ones override the user's, and those override the defaults.
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
        let properties = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        KafkaSettings { properties, ..KafkaSettings::default() }
    }

    #[test]
    fn properties_pass_through_unless_they_are_reserved() {
        let good = settings("fetch.wait.max.ms", "50");
        good.validate().expect("valid");
        assert_eq!(good.client_properties()["fetch.wait.max.ms"], "50");
        for (reserved, _) in RESERVED {
            let error = settings(reserved, "x").validate().expect_err("reserved");
            assert!(error.message().contains(reserved));
        }
    }

    #[test]
    fn oauthbearer_without_a_source_of_tokens_is_refused() {
        let error = settings("sasl.mechanisms", "OAUTHBEARER").validate().expect_err("refused");
        assert!(error.hint().is_some_and(|hint| hint.contains("kafka.security.sasl_mechanism")), "{error:?}");
    }

    #[test]
    fn values_of_properties_are_never_printed() {
        assert!(!format!("{:?}", settings("sasl.password", "hunter2")).contains("hunter2"));
    }
}
