//! The configuration: one commented TOML file.
//!
//! * `config/reference.toml` defines all keys, their defaults and their documentation. Unknown keys are rejected.
//! * `config/read.rs` reads a user's file, falls back to the reference, and collects every problem with its line.
//! * [`Config`] is the validated result. Parsing does no I/O except for secrets, which come from [`Secrets`].

mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bellwether_alerts::{Contracts, Season, contract};
use bellwether_lake::{Error, MOST_SHARDS, Result};

use read::ConfigReader;
pub(crate) use read::{Environment, Secrets, parse_bytes};

/// The commented reference configuration; its values are the defaults.
pub(crate) const REFERENCE: &str = include_str!("config/reference.toml");

/// Version of the configuration format.
const VERSION: u64 = 1;

/// All settings of a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) tables: Tables,
    pub(crate) kafka: Kafka,
    pub(crate) ingest: Ingest,
    pub(crate) aggregate: Aggregate,
    pub(crate) serve: Serve,
    pub(crate) queries: Queries,
    pub(crate) alerts: Alerts,
    pub(crate) contracts: Contracts,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Tables {
    pub(crate) root: String,
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq)]
pub(crate) struct Kafka {
    pub(crate) brokers: Vec<String>,
    pub(crate) topics: Vec<String>,
    pub(crate) group: String,
    pub(crate) job: String,
    pub(crate) start: Start,
    pub(crate) instance_id: Option<String>,
    /// Properties of librdkafka: those from `kafka.security`, overridden by `kafka.properties`.
    pub(crate) properties: BTreeMap<String, String>,
}

/// Start of a partition that the tables do not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Earliest,
    Latest,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ingest {
    pub(crate) flush_interval: Duration,
    pub(crate) flush_bytes: usize,
    pub(crate) flush_rows: usize,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_event_depth: usize,
    pub(crate) max_event_age: Duration,
    pub(crate) max_future: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Aggregate {
    pub(crate) index_memory_bytes: usize,
    pub(crate) horizon: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) rolling_history: bool,
    pub(crate) handover_bytes: usize,
    pub(crate) shards: u32,
    /// Shards of this process; empty means all.
    pub(crate) only_shards: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Serve {
    pub(crate) address: SocketAddr,
    pub(crate) stale_after: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queries {
    pub(crate) memory_bytes: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_rows: u64,
}

/// The defaults of the reference.
impl Default for Queries {
    fn default() -> Self {
        Self { memory_bytes: 512 << 20, timeout: Duration::from_secs(600), max_rows: 10_000_000 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alerts {
    pub(crate) watch: bool,
    pub(crate) rules: Option<String>,
    pub(crate) disabled: Vec<String>,
    pub(crate) false_pages_a_month: f64,
    pub(crate) false_tickets_a_month: f64,
    pub(crate) interval: Duration,
    pub(crate) grace: Duration,
    pub(crate) history_days: u64,
    pub(crate) memory_bytes: usize,
    pub(crate) season: Season,
}

/// Shows only the names of the properties: values may be passwords.
impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("properties", &self.properties.keys())
            .finish_non_exhaustive()
    }
}

/// Shows only the names of the options: values may be secret keys.
impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tables").field("root", &self.root).field("options", &self.options.keys()).finish()
    }
}

// === impl Config ===

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// `Config`, with every problem of the file at once.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| {
            Error::config(format!("cannot read the configuration `{name}`"))
                .with_hint("create one with `bellwether config reference > bellwether.toml`")
                .with_source(source)
        })?;
        Self::parse(&name, &text, &Environment)
    }

    /// Reads and validates a text; messages refer to it as `name`.
    ///
    /// # Errors
    /// `Config`, with every problem of the text at once.
    pub(crate) fn parse(name: &str, text: &str, secrets: &dyn Secrets) -> Result<Self> {
        let mut reader = ConfigReader::new(name, text, REFERENCE, secrets)?;
        reader.integer("version", VERSION, VERSION);
        let config = Self {
            tables: Tables { root: reader.text("tables.root"), options: reader.map("tables.options") },
            kafka: kafka(&mut reader),
            ingest: ingest(&mut reader),
            aggregate: Aggregate {
                index_memory_bytes: reader.bytes("aggregate.index_memory_bytes", 1 << 20),
                horizon: reader.duration("aggregate.horizon", Duration::ZERO),
                poll_interval: reader.duration("aggregate.poll_interval", Duration::from_millis(10)),
                rolling_history: reader.boolean("aggregate.rolling_history"),
                handover_bytes: reader.bytes("aggregate.handover_bytes", 0),
                shards: u32::try_from(reader.integer("aggregate.shards", 1, u64::from(MOST_SHARDS))).unwrap_or(1),
                only_shards: numbers(&mut reader, "aggregate.only_shards"),
            },
            serve: Serve {
                address: reader
                    .parsed("serve.address", "an address such as `127.0.0.1:9464`")
                    .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
                stale_after: reader.duration("serve.stale_after", Duration::from_secs(1)),
            },
            queries: Queries {
                memory_bytes: reader.bytes("queries.memory_bytes", 16 << 20),
                timeout: reader.duration("queries.timeout", Duration::from_millis(1)),
                max_rows: reader.integer("queries.max_rows", 1, i64::MAX.unsigned_abs()),
            },
            alerts: alerts(&mut reader),
            contracts: contract::parse(text).unwrap_or_else(|problems| {
                for problem in problems {
                    reader.problem("contracts", &format!("are invalid: {problem}"));
                }
                Contracts::new()
            }),
        };
        config.validate(&mut reader);
        reader.finish()?;
        Ok(config)
    }

    /// Checks rules that span several keys. Does no I/O.
    fn validate(&self, reader: &mut ConfigReader<'_>) {
        if let Some(shard) = self.aggregate.only_shards.iter().find(|shard| **shard >= self.aggregate.shards) {
            let shards = self.aggregate.shards;
            reader.problem(
                "aggregate.only_shards",
                &format!("contains `{shard}`, but with `aggregate.shards = {shards}` the last shard is {}", shards - 1),
            );
        }
        if self.tables.root.is_empty() {
            reader.problem("tables.root", "is empty; name a folder or s3://BUCKET/PREFIX");
        }
        if self.kafka.topics.is_empty() {
            reader.problem("kafka.topics", "is empty; name at least one topic");
        }
        if self.kafka.brokers.is_empty() {
            reader.problem("kafka.brokers", "is empty; name at least one broker as HOST:PORT");
        }
        for broker in &self.kafka.brokers {
            if !broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
                reader.problem("kafka.brokers", &format!("contains `{broker}`; a broker must be HOST:PORT"));
            }
        }
        for (key, value) in [("kafka.group", &self.kafka.group), ("kafka.job", &self.kafka.job)] {
            if value.is_empty() {
                reader.problem(key, "is empty; give it a name");
            }
        }
        if self.kafka.job.contains(['/', '#']) {
            reader.problem("kafka.job", "contains `/` or `#`; use letters, digits, `-`, `_` and `.`");
        }
        if self.ingest.flush_bytes < self.ingest.max_event_bytes {
            reader.problem(
                "ingest.flush_bytes",
                "is smaller than `ingest.max_event_bytes`; raise it so that one event fits",
            );
        }
    }
}

fn ingest(reader: &mut ConfigReader<'_>) -> Ingest {
    Ingest {
        flush_interval: reader.duration("ingest.flush_interval", Duration::from_millis(10)),
        flush_bytes: reader.bytes("ingest.flush_bytes", 1 << 20),
        flush_rows: size(reader.integer("ingest.flush_rows", 1, 10_000_000)),
        max_event_bytes: reader.bytes("ingest.max_event_bytes", 1024),
        max_event_depth: size(reader.integer("ingest.max_event_depth", 8, 128)),
        max_event_age: reader.duration("ingest.max_event_age", Duration::from_secs(60)),
        max_future: reader.duration("ingest.max_future", Duration::ZERO),
    }
}

fn kafka(reader: &mut ConfigReader<'_>) -> Kafka {
    const PROTOCOLS: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let mut properties = BTreeMap::new();
    let protocol = reader.choice("kafka.security.protocol", PROTOCOLS).unwrap_or_else(|| "plaintext".to_owned());
    let mechanism = reader.choice("kafka.security.sasl_mechanism", MECHANISMS);
    let sasl = protocol.starts_with("sasl");
    if sasl && mechanism.is_none() {
        reader.problem(
            "kafka.security.sasl_mechanism",
            "is not set, but `sasl_…` protocols need it; use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        );
    }
    let mut put = |property: &str, value: Option<String>| {
        if let Some(value) = value {
            properties.insert(property.to_owned(), value);
        }
    };
    put("security.protocol", Some(protocol));
    put("sasl.mechanism", mechanism);
    put("sasl.username", reader.optional("kafka.security.username"));
    put("sasl.password", reader.optional("kafka.security.password"));
    put("ssl.ca.location", reader.optional("kafka.security.ca_file"));
    put("ssl.certificate.location", reader.optional("kafka.security.certificate_file"));
    put("ssl.key.location", reader.optional("kafka.security.key_file"));
    properties.extend(reader.map("kafka.properties"));
    Kafka {
        brokers: reader.list("kafka.brokers"),
        topics: reader.list("kafka.topics"),
        group: reader.text("kafka.group"),
        job: reader.text("kafka.job"),
        start: match reader.choice("kafka.start", &["earliest", "latest"]).as_deref() {
            Some("latest") => Start::Latest,
            _ => Start::Earliest,
        },
        instance_id: reader.optional("kafka.instance_id"),
        properties,
    }
}

fn alerts(reader: &mut ConfigReader<'_>) -> Alerts {
    Alerts {
        watch: reader.boolean("alerts.watch"),
        rules: reader.optional("alerts.rules"),
        disabled: reader.list("alerts.disabled"),
        false_pages_a_month: reader.number("alerts.false_pages_a_month", 0.001, 1000.0),
        false_tickets_a_month: reader.number("alerts.false_tickets_a_month", 0.001, 1000.0),
        interval: reader.duration("alerts.interval", Duration::from_millis(100)),
        grace: reader.duration("alerts.grace", Duration::ZERO),
        history_days: reader.integer("alerts.history_days", 1, 366),
        memory_bytes: reader.bytes("alerts.memory_bytes", 16 << 20),
        season: {
            let name = reader.text("alerts.time_zone");
            Season::of(&name).unwrap_or_else(|_| {
                let problem = format!("is `{name}`; it must be an IANA time zone such as \"Europe/Berlin\"");
                reader.problem("alerts.time_zone", &problem);
                Season::default()
            })
        },
    }
}

/// Reads a list of numbers.
fn numbers(reader: &mut ConfigReader<'_>, key: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for text in reader.list(key) {
        match text.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => reader.problem(key, &format!("contains `{text}`; a shard is a number such as \"0\"")),
        }
    }
    numbers
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Secrets for Fake {
        fn env(&self, name: &str) -> Option<String> {
            (name == "KAFKA_PASSWORD").then(|| "s3cret".to_owned())
        }
        fn file(&self, _: &str) -> std::io::Result<String> {
            Ok("from a file\n".to_owned())
        }
    }

    fn parse(text: &str) -> Result<Config> {
        Config::parse("test.toml", text, &Fake)
    }

    fn refused(text: &str) -> String {
        parse(text).expect_err("the text is invalid").message().to_owned()
    }

    #[test]
    fn an_empty_file_means_the_defaults_of_the_reference() {
        let config = parse("").expect("defaults are right");
        assert_eq!(config, parse(REFERENCE).expect("the reference is right"));
        assert_eq!(config.ingest.flush_bytes, 64 << 20);
        assert_eq!(config.ingest.max_event_age, Duration::from_secs(30 * 86_400));
        assert_eq!(config.serve.address.port(), 9464);
    }

    #[test]
    fn an_unknown_key_is_rejected_with_the_nearest_name_and_its_line() {
        let message = refused("[kafka]\ntopic = [\"a\"]\n");
        assert!(message.contains("test.toml:2: unknown key `kafka.topic`; did you mean `kafka.topics`?"), "{message}");
    }

    #[test]
    fn a_key_in_the_prose_of_the_reference_is_no_key() {
        assert!(refused("password = \"s3cret\"\n").contains("test.toml:1: unknown key `password`"));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let message = refused(
            "version = 2\n[ingest]\nflush_interval = \"soon\"\nflush_bytes = true\n[kafka]\nstart = \"now\"\nbrokers = [\"nohost\"]\n",
        );
        for part in ["`version`", "`ingest.flush_interval`", "`ingest.flush_bytes`", "`kafka.start`", "`kafka.brokers`"]
        {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_the_environment() {
        let config = parse(
            "[kafka.security]\nprotocol = \"sasl_ssl\"\nsasl_mechanism = \"PLAIN\"\nusername = { file = \"/u\" }\npassword = { env = \"KAFKA_PASSWORD\" }\n",
        )
        .expect("secrets are there");
        assert_eq!(config.kafka.properties["sasl.password"], "s3cret");
        assert_eq!(config.kafka.properties["sasl.username"], "from a file");
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(refused("[kafka]\ngroup = { env = \"NOT_THERE\" }\n").contains("NOT_THERE"));
    }

    #[test]
    fn sizes_are_numbers_or_have_a_unit() {
        assert_eq!(parse("").expect("defaults").queries, Queries::default());
        assert_eq!(parse("[queries]\nmemory_bytes = 33554432\n").expect("bytes").queries.memory_bytes, 32 << 20);
        assert_eq!(parse("[queries]\nmemory_bytes = \"1GiB\"\n").expect("unit").queries.memory_bytes, 1 << 30);
        assert!(refused("[queries]\nmemory_bytes = \"lots\"\n").contains("`lots`"));
    }

    #[test]
    fn contracts_and_budgets_are_read_and_invalid_ones_reported() {
        let config =
            parse("[alerts]\nfalse_pages_a_month = 2\n[contracts.refund_triage]\nsuccess = 0.95\n").expect("right");
        assert_eq!(config.alerts.false_pages_a_month, 2.0);
        assert_eq!(config.contracts["refund_triage"].success, Some(0.95));
        assert!(
            refused("[contracts.refund_triage]\nsuccess = 95\n").contains("`contracts.refund_triage.success` is `95`")
        );
        assert!(refused("[contracts.refund_triage]\nsucces = 0.9\n").contains("succes"));
        assert!(refused("[alerts]\nfalse_pages_a_month = 0\n").contains("false_pages_a_month"));
        assert_eq!(parse("").expect("defaults").alerts.season.name(), "UTC");
        let zone = |name: &str| format!("[alerts]\ntime_zone = \"{name}\"\n");
        assert_eq!(parse(&zone("Europe/Berlin")).expect("a zone").alerts.season.name(), "Europe/Berlin");
        assert!(refused(&zone("Berlin")).contains("alerts.time_zone` is `Berlin`"));
    }

    #[test]
    fn librdkafka_properties_pass_through_and_win() {
        let config =
            parse("[kafka.properties]\n\"fetch.min.bytes\" = 7\n\"security.protocol\" = \"ssl\"\n").expect("free");
        assert_eq!(config.kafka.properties["fetch.min.bytes"], "7");
        assert_eq!(config.kafka.properties["security.protocol"], "ssl");
    }

    #[test]
    fn text_that_is_not_toml_is_reported_with_its_line() {
        assert!(refused("[kafka\n").contains("test.toml:1"));
    }
}
