//! The configuration: one commented TOML file.
//!
//! * `config/reference.toml` documents all keys with their defaults. Unknown keys are rejected.
//! * `config/read.rs` reads a user's file and collects every problem with its line.
//! * [`Config`] is the validated result, made of the settings of the crates. Parsing does no I/O except for secrets, which come
//!   from [`Secrets`].
//!
//! Rule: a setting has one default, in the type that it belongs to. Tests hold the reference to these defaults, key by key.
//! A memory limit is by default a share of the process's budget (`crate::budget`); with the usual budget it is the type's own.

mod kafka;
mod read;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellwether_aggregate::rollup::RollupSettings;
use bellwether_alerts::{BudgetSettings, Contracts, Season, contract};
use bellwether_base::{Error, Result};
use bellwether_deliver::DeliverSettings;
use bellwether_evals::EvalsSettings;
use bellwether_event::Limits;
use bellwether_evidence::LinkSettings;
use bellwether_ingest::KafkaSettings;
use bellwether_lake::{MOST_SHARDS, MaintainSettings, Retention};
use bellwether_redact::{Kind, Policy, Redactor, Setting};
use bellwether_serve::ServerSettings;
use bellwether_sinks::PingSettings;

use crate::budget::{self, Budget};
use crate::candidates::CONTENT_PLACE;
use crate::gate::GateConfig;
use crate::gate::notify::is_webhook;
use crate::hooks::pagerduty::Secrets as WebhookSecrets;
use crate::roles;
use crate::roles::aggregate::AggregateSettings;
use crate::roles::evals::EvalsConfig;
use crate::roles::heartbeat::HeartbeatSettings;
use crate::roles::serve::ApiConfig;
use crate::roles::watch::AlertsSettings;
use crate::serve::ServeSettings;
use crate::sql::{LEAST_MEMORY, SqlLimits};
use kafka::kafka;
use read::ConfigReader;
pub(crate) use read::{Environment, Secrets, parse_bytes};

/// The commented reference configuration.
pub(crate) const REFERENCE: &str = include_str!("config/reference.toml");

/// Version of the configuration format.
const VERSION: u64 = 1;

/// Bytes of messages that librdkafka fetches in advance by default.
const FETCHED: usize = 64 << 20;

/// Largest content of a run, in bytes.
pub(crate) const CONTENT_BYTES: usize = 256 << 10;

const DAY: Duration = Duration::from_secs(86_400);

/// Replaced files stay for so much longer than a statement may take: it opens its tables first.
const LONGER_THAN_A_STATEMENT: Duration = Duration::from_secs(300);

/// All settings of a process. Each part is a type of the crate or module that obeys it, with that type's defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) tables: TablesSettings,
    /// `[memory]`: the budget of which the memory limits below are shares, unless their keys say otherwise.
    pub(crate) memory: Budget,
    /// `[kafka]`, and when to commit from `[ingest]`.
    pub(crate) kafka: KafkaSettings,
    /// Limits of messages from `[ingest]`.
    pub(crate) limits: Limits,
    /// The compiled policy from `[redaction]`. Its debug text shows neither names nor the key.
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) aggregate: AggregateSettings,
    pub(crate) rollup: RollupSettings,
    pub(crate) serve: ServeSettings,
    pub(crate) queries: SqlLimits,
    pub(crate) alerts: AlertsSettings,
    pub(crate) deliver: DeliverSettings,
    pub(crate) evals: EvalsConfig,
    pub(crate) api: ApiConfig,
    pub(crate) links: LinkSettings,
    pub(crate) gate: GateConfig,
    pub(crate) maintain: MaintainSettings,
    pub(crate) retention: Retention,
    pub(crate) heartbeat: HeartbeatSettings,
}

/// Location of the tables.
#[derive(Clone)]
pub(crate) struct TablesSettings {
    pub(crate) root: String,
    pub(crate) options: BTreeMap<String, String>,
}

impl Default for TablesSettings {
    fn default() -> Self {
        Self { root: "bellwether-data".to_owned(), options: BTreeMap::new() }
    }
}

/// Shows only the names of the options: values may be secret keys.
impl std::fmt::Debug for TablesSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TablesSettings").field("root", &self.root).field("options", &self.options.keys()).finish()
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
        reader.integer("version", VERSION..=VERSION, VERSION);
        let usual = Budget::within(secrets.usable_bytes());
        let memory = Budget { bytes: reader.bytes("memory.budget_bytes", budget::LEAST, usual.bytes) };
        let defaults = Self::divided(memory);
        let mut config = Self {
            memory,
            tables: TablesSettings {
                root: reader.text("tables.root", &defaults.tables.root),
                options: reader.map("tables.options"),
            },
            kafka: kafka(&mut reader, defaults.kafka),
            limits: limits(&mut reader, &defaults.limits),
            redactor: Arc::new(redaction(&mut reader)),
            aggregate: aggregate(&mut reader, &defaults.aggregate),
            rollup: rollup(&mut reader, defaults.rollup),
            serve: ServeSettings {
                address: reader.parsed("serve.address", "an address such as `127.0.0.1:9464`", defaults.serve.address),
                stale_after: reader.duration("serve.stale_after", Duration::from_secs(1), defaults.serve.stale_after),
                pagerduty: pagerduty(&mut reader),
            },
            queries: SqlLimits {
                memory_bytes: reader.bytes("queries.memory_bytes", LEAST_MEMORY, defaults.queries.memory_bytes),
                timeout: reader.duration("queries.timeout", Duration::from_millis(1), defaults.queries.timeout),
                max_rows: reader.integer("queries.max_rows", 1..=i64::MAX.unsigned_abs(), defaults.queries.max_rows),
            },
            alerts: alerts(&mut reader, text, defaults.alerts),
            deliver: deliver(&mut reader, text),
            evals: evals(&mut reader, defaults.evals),
            api: api(&mut reader, defaults.api),
            links: links(&mut reader),
            gate: GateConfig {
                policy: reader.optional("gate.policy").map(Into::into),
                token_file: reader.optional("gate.token_file").map(Into::into),
                notify: reader.optional("gate.notify"),
            },
            maintain: maintain(&mut reader, defaults.maintain),
            retention: retention(&mut reader, &defaults.retention),
            heartbeat: heartbeat(&mut reader, defaults.heartbeat),
        };
        // Heartbeats come back only if these roles say how far they are.
        config.aggregate.settings.record_progress = config.heartbeat.send;
        config.alerts.watch.record_progress = config.heartbeat.send;
        config.validate(&mut reader);
        reader.finish()?;
        Ok(config)
    }

    /// Returns the defaults, with the memory of each part as its share of a budget.
    fn divided(memory: Budget) -> Self {
        let mut config = Self { memory, ..Self::default() };
        config.kafka.flush.max_bytes = memory.batch();
        if memory.fetched() != FETCHED {
            let property = "queued.max.messages.kbytes".to_owned();
            config.kafka.properties.insert(property, (memory.fetched() >> 10).to_string());
        }
        config.aggregate.handover_bytes = memory.handover();
        config.aggregate.settings.index_memory_bytes = memory.index();
        config.aggregate.settings.memory_bytes = memory.sums();
        config.aggregate.settings.rolling_history_memory_bytes = memory.history();
        config.rollup.memory_bytes = memory.rollup();
        config.alerts.watch.memory_bytes = memory.rules();
        config.evals.sampler.memory_bytes = memory.samples();
        config.api.server.memory_bytes = memory.served();
        config.queries.memory_bytes = memory.statement();
        config
    }

    /// Checks rules that span several keys. Does no I/O.
    fn validate(&self, reader: &mut ConfigReader<'_>) {
        let shards = self.aggregate.settings.shards;
        if let Some(shard) = self.aggregate.only_shards.iter().find(|shard| **shard >= shards) {
            let last = shards - 1;
            reader.problem(
                "aggregate.only_shards",
                &format!("contains `{shard}`, but with `aggregate.shards = {shards}` the last shard is {last}"),
            );
        }
        if self.tables.root.is_empty() {
            reader.problem("tables.root", "is empty; name a folder, or s3://, gs:// or az://BUCKET/PREFIX");
        }
        if self.kafka.topics.is_empty() {
            reader.problem("kafka.topics", "is empty; name at least one topic");
        }
        for (key, value) in [("kafka.group", &self.kafka.group), ("kafka.job", &self.kafka.job)] {
            if value.is_empty() {
                reader.problem(key, "is empty; give it a name");
            }
        }
        if self.kafka.job.contains(['/', '#']) {
            reader.problem("kafka.job", "contains `/` or `#`; use letters, digits, `-`, `_` and `.`");
        }
        // A statement that comes within its time must find its run, and a run that is sent again must be known. Who accepts older
        // events than usual replays a history, and knows what is kept of it.
        let age = self.limits.max_age_micros.min(Limits::default().max_age_micros);
        let age = Duration::from_micros(age.unsigned_abs());
        let horizon = age.max(self.aggregate.settings.horizon).saturating_add(DAY);
        if self.retention.events.is_some_and(|keep| keep < horizon) {
            let days = horizon.as_secs().div_ceil(DAY.as_secs());
            reader.problem(
                "retention.events",
                &format!(
                    "is too short for late events; it must be at least {days} days: one more than they may be late"
                ),
            );
        }
        for (key, timeout) in [("queries.timeout", self.queries.timeout), ("api.timeout", self.api.server.timeout)] {
            if self.maintain.keep_replaced < timeout.saturating_add(LONGER_THAN_A_STATEMENT) {
                let timeout = humantime::format_duration(timeout);
                let what =
                    format!("is too short: a statement may read replaced files for `{key}` ({timeout}); add 5 minutes");
                reader.problem("maintain.keep_replaced", &what);
            }
        }
        if let Err(error) = self.api.server.check() {
            let hint = error.hint().unwrap_or_default();
            let server = &self.api.server;
            let addresses = [
                ("api.address", Some(server.address)),
                ("api.postgres_address", server.postgres),
                ("api.flight_address", server.flight),
            ];
            let mut exposed = addresses.iter().filter(|(_, at)| at.is_some_and(|at| !at.ip().is_loopback()));
            let key = exposed.next().map_or("api.address", |(key, _)| key);
            reader.problem(key, &format!("is refused: {}; {hint}", error.message()));
        }
        for (key, problem) in self.links.problems() {
            reader.problem(&format!("links.{key}"), &problem);
        }
        if let Some(name) = &self.gate.notify
            && !is_webhook(&self.deliver, name)
        {
            let problem = format!("is `{name}`, but no sink of kind webhook has that name in `deliver.sinks`");
            reader.problem("gate.notify", &problem);
        }
        let heartbeat = &self.heartbeat;
        if let Some(name) = &heartbeat.alertmanager
            && roles::heartbeat::alertmanager(&self.deliver, name).is_none()
        {
            let problem = format!("is `{name}`, but no sink of kind alertmanager has that name in `deliver.sinks`");
            reader.problem("heartbeat.alertmanager", &problem);
        }
        for (key, is_set) in
            [("alertmanager", heartbeat.alertmanager.is_some()), ("ping_url", heartbeat.ping.is_some())]
        {
            if is_set && !heartbeat.send {
                reader.problem(
                    &format!("heartbeat.{key}"),
                    "is set, but no heartbeat is sent; set `heartbeat.send = true`",
                );
            }
        }
        if self.kafka.flush.max_bytes < self.limits.max_bytes {
            reader.problem(
                "ingest.flush_bytes",
                "is smaller than `ingest.max_event_bytes`; raise it so that one event fits",
            );
        }
    }
}

fn limits(reader: &mut ConfigReader<'_>, defaults: &Limits) -> Limits {
    let content_bytes = reader.bytes("ingest.max_content_bytes", 1, defaults.content_bytes.unwrap_or(CONTENT_BYTES));
    Limits {
        max_bytes: reader.bytes("ingest.max_event_bytes", 1024, defaults.max_bytes),
        max_depth: reader.number_of("ingest.max_event_depth", 8..=128, defaults.max_depth),
        max_age_micros: reader.micros("ingest.max_event_age", Duration::from_secs(60), defaults.max_age_micros),
        max_future_micros: reader.micros("ingest.max_future", Duration::ZERO, defaults.max_future_micros),
        content_bytes: reader.boolean("ingest.content", defaults.content_bytes.is_some()).then_some(content_bytes),
    }
}

/// Reads and compiles the policy of redaction. Messages show neither names nor the key.
fn redaction(reader: &mut ConfigReader<'_>) -> Redactor {
    let mut keep = Vec::new();
    for text in reader.list("redaction.keep", &[]) {
        match Kind::named(&text).filter(|kind| Kind::choices().any(|choice| choice == *kind)) {
            Some(kind) => keep.push(kind),
            None => {
                let kinds: Vec<String> = Kind::choices().map(|kind| kind.name().to_lowercase()).collect();
                let problem = format!("contains `{text}`; a kind is one of `{}`", kinds.join("`, `"));
                reader.problem("redaction.keep", &problem);
            }
        }
    }
    // A file has a name a line.
    let entries = reader.list("redaction.names", &[]);
    let lines = entries.iter().flat_map(|text| text.lines()).map(str::trim);
    let names = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let key = reader.secret_only("redaction.key").map(String::into_bytes);
    let policy = Policy { names, keep, key, ..Policy::default() };
    Redactor::new(&policy).unwrap_or_else(|error| {
        let key = match error.setting {
            Setting::Names => "redaction.names",
            Setting::Key => "redaction.key",
        };
        reader.problem(key, &error.to_string());
        Redactor::default()
    })
}

fn aggregate(reader: &mut ConfigReader<'_>, defaults: &AggregateSettings) -> AggregateSettings {
    let settings = &defaults.settings;
    AggregateSettings {
        settings: bellwether_aggregate::AggregatorSettings {
            index_memory_bytes: reader.bytes("aggregate.index_memory_bytes", 1 << 20, settings.index_memory_bytes),
            horizon: reader.duration("aggregate.horizon", Duration::ZERO, settings.horizon),
            poll_interval: reader.duration(
                "aggregate.poll_interval",
                Duration::from_millis(10),
                settings.poll_interval,
            ),
            rolling_history: reader.boolean("aggregate.rolling_history", settings.rolling_history),
            exported_series: reader.number_of("aggregate.exported_series", 0..=1_000_000, settings.exported_series),
            memory_bytes: reader.bytes("aggregate.memory_bytes", LEAST_MEMORY, settings.memory_bytes),
            rolling_history_memory_bytes: reader.bytes(
                "aggregate.rolling_history_memory_bytes",
                8 << 20,
                settings.rolling_history_memory_bytes,
            ),
            shards: reader.number_of("aggregate.shards", 1..=u64::from(MOST_SHARDS), settings.shards),
            ..*settings
        },
        only_shards: shards(reader, "aggregate.only_shards"),
        handover_bytes: reader.bytes("aggregate.handover_bytes", 0, defaults.handover_bytes),
    }
}

fn rollup(reader: &mut ConfigReader<'_>, defaults: RollupSettings) -> RollupSettings {
    let least = Duration::from_millis(100);
    RollupSettings {
        interval: reader.duration("rollup.interval", least, defaults.interval),
        days_interval: reader.duration("rollup.days_interval", least, defaults.days_interval),
        memory_bytes: reader.bytes("rollup.memory_bytes", LEAST_MEMORY, defaults.memory_bytes),
        ..defaults
    }
}

/// Reads the settings of heartbeats. `Config::validate` checks that the named sink exists.
fn heartbeat(reader: &mut ConfigReader<'_>, defaults: HeartbeatSettings) -> HeartbeatSettings {
    let least = Duration::from_secs(1);
    HeartbeatSettings {
        send: reader.boolean("heartbeat.send", defaults.send),
        interval: reader.duration("heartbeat.interval", least, defaults.interval),
        deadline: reader.duration("heartbeat.deadline", least, defaults.deadline),
        alertmanager: reader.optional("heartbeat.alertmanager"),
        ping: {
            let allow_private = reader.boolean("heartbeat.allow_private", false);
            reader.optional("heartbeat.ping_url").and_then(|url| {
                let settings = PingSettings::new("ping_url", &url, allow_private);
                settings.map_err(|problem| reader.problem("heartbeat.ping_url", &format!("is refused: {problem}"))).ok()
            })
        },
    }
}

fn maintain(reader: &mut ConfigReader<'_>, defaults: MaintainSettings) -> MaintainSettings {
    MaintainSettings {
        keep_replaced: reader.duration("maintain.keep_replaced", LONGER_THAN_A_STATEMENT, defaults.keep_replaced),
        keep_unnamed: reader.duration("maintain.keep_unnamed", DAY, defaults.keep_unnamed),
        ..defaults
    }
}

fn retention(reader: &mut ConfigReader<'_>, defaults: &Retention) -> Retention {
    let mut keep = |key: &str, default: Option<Duration>| match reader.text(key, "").as_str() {
        "" => default,
        "forever" => None,
        _ => Some(reader.duration(key, DAY, default.unwrap_or(DAY))),
    };
    Retention {
        events: keep("retention.events", defaults.events),
        quarantine: keep("retention.quarantine", defaults.quarantine),
        metrics: keep("retention.metrics", defaults.metrics),
        metrics_hourly: keep("retention.metrics_hourly", defaults.metrics_hourly),
        metrics_daily: keep("retention.metrics_daily", defaults.metrics_daily),
    }
}

fn evals(reader: &mut ConfigReader<'_>, defaults: EvalsConfig) -> EvalsConfig {
    let sampler = defaults.sampler;
    EvalsConfig {
        is_in_run: reader.boolean("evals.sample", defaults.is_in_run),
        sampler: EvalsSettings {
            weekly_budget: reader.number_of("evals.weekly_budget", 1..=10_000, sampler.weekly_budget),
            per_signature: reader.number_of("evals.per_signature", 1..=10_000, sampler.per_signature),
            success_share: reader.number("evals.success_share", 0.0..=1.0, sampler.success_share),
            uncertain_share: reader.number("evals.uncertain_share", 0.0..=1.0, sampler.uncertain_share),
            outlier_factor: reader.number("evals.outlier_factor", 1.0..=1000.0, sampler.outlier_factor),
            interval: reader.duration("evals.interval", Duration::from_millis(100), sampler.interval),
            memory_bytes: reader.bytes("evals.memory_bytes", LEAST_MEMORY, sampler.memory_bytes),
        },
        fetch_content: {
            let command = reader.list("evals.fetch_content", &defaults.fetch_content);
            if !command.is_empty() && !command.iter().skip(1).any(|argument| argument.contains(CONTENT_PLACE)) {
                let problem = format!("has no argument with `{CONTENT_PLACE}`, the place of the reference");
                reader.problem("evals.fetch_content", &problem);
            }
            command
        },
    }
}

fn api(reader: &mut ConfigReader<'_>, defaults: ApiConfig) -> ApiConfig {
    let server = defaults.server;
    ApiConfig {
        is_in_run: reader.boolean("api.serve", defaults.is_in_run),
        server: ServerSettings {
            address: reader.parsed("api.address", "an address such as `127.0.0.1:9465`", server.address),
            postgres: reader.parsed_if_given("api.postgres_address", "an address such as `127.0.0.1:5433`"),
            flight: reader.parsed_if_given("api.flight_address", "an address such as `127.0.0.1:9466`"),
            certificate: reader.optional("api.certificate_file").map(Into::into),
            key: reader.optional("api.key_file").map(Into::into),
            tokens: reader.optional("api.tokens_file").map(Into::into),
            audit: reader.optional("api.audit_file").map(Into::into),
            memory_bytes: reader.bytes("api.memory_bytes", 2 * LEAST_MEMORY, server.memory_bytes),
            statements: reader.number_of("api.statements", 1..=1000, server.statements),
            timeout: reader.duration("api.timeout", Duration::from_millis(1), server.timeout),
            max_rows: reader.integer("api.max_rows", 1..=i64::MAX.unsigned_abs(), server.max_rows),
            max_bytes: reader.bytes("api.max_bytes", 1 << 10, server.max_bytes),
            connections: reader.number_of("api.connections", 1..=100_000, server.connections),
            patience: server.patience,
        },
    }
}

fn alerts(reader: &mut ConfigReader<'_>, text: &str, defaults: AlertsSettings) -> AlertsSettings {
    let watch = defaults.watch;
    AlertsSettings {
        is_in_run: reader.boolean("alerts.watch", defaults.is_in_run),
        rules: reader.optional("alerts.rules").or(defaults.rules),
        disabled: reader.list("alerts.disabled", &defaults.disabled),
        watch: bellwether_alerts::WatchSettings {
            budget: BudgetSettings {
                pages: reader.number("alerts.false_pages_a_month", 0.001..=1000.0, watch.budget.pages),
                tickets: reader.number("alerts.false_tickets_a_month", 0.001..=1000.0, watch.budget.tickets),
                ..watch.budget
            },
            interval: reader.duration("alerts.interval", Duration::from_millis(100), watch.interval),
            grace: reader.duration("alerts.grace", Duration::ZERO, watch.grace),
            history_days: reader.number_of("alerts.history_days", 1..=366, watch.history_days),
            memory_bytes: reader.bytes("alerts.memory_bytes", LEAST_MEMORY, watch.memory_bytes),
            record_progress: watch.record_progress,
            season: {
                let name = reader.text("alerts.time_zone", watch.season.name());
                Season::from_name(&name).unwrap_or_else(|_| {
                    let problem = format!("is `{name}`; it must be an IANA time zone such as \"Europe/Berlin\"");
                    reader.problem("alerts.time_zone", &problem);
                    watch.season
                })
            },
        },
        contracts: contract::parse(text).unwrap_or_else(|problems| {
            for problem in problems {
                reader.problem("contracts", &format!("are invalid: {problem}"));
            }
            Contracts::new()
        }),
    }
}

/// Reads the secrets of PagerDuty's webhook.
fn pagerduty(reader: &mut ConfigReader<'_>) -> WebhookSecrets {
    let key = "serve.pagerduty_secret";
    let Some(text) = reader.optional(key) else { return WebhookSecrets::default() };
    WebhookSecrets::parse(&text).unwrap_or_else(|why| {
        reader.problem(key, &why);
        WebhookSecrets::default()
    })
}

fn deliver(reader: &mut ConfigReader<'_>, text: &str) -> DeliverSettings {
    let (settings, mut problems) = DeliverSettings::read(text);
    problems.extend(crate::deliver::problems(&settings));
    for problem in &problems {
        reader.problem("deliver", &format!("is invalid: {problem}"));
    }
    if problems.is_empty() { settings } else { DeliverSettings::default() }
}

fn links(reader: &mut ConfigReader<'_>) -> LinkSettings {
    LinkSettings {
        trace: reader.optional("links.trace"),
        run: reader.optional("links.run"),
        dashboard: reader.optional("links.dashboard"),
        runbook: reader.optional("links.runbook"),
    }
}

/// Reads a list of shard numbers.
fn shards(reader: &mut ConfigReader<'_>, key: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for text in reader.list(key, &[]) {
        match text.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => reader.problem(key, &format!("contains `{text}`; a shard is a number such as \"0\"")),
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Secrets for Fake {
        fn env(&self, name: &str) -> Option<String> {
            (name == "KAFKA_PASSWORD").then(|| "s3cret".to_owned())
        }
        fn file(&self, path: &str) -> std::io::Result<String> {
            Ok(match path {
                "/names" => "another\n\n  from a file that begins \n",
                "/key" => "the key of 16 bytes or more\n",
                _ => "from a file\n",
            }
            .to_owned())
        }
    }

    fn parse(text: &str) -> Result<Config> {
        Config::parse("test.toml", text, &Fake)
    }

    fn refused(text: &str) -> String {
        parse(text).expect_err("the text is invalid").message().to_owned()
    }

    /// Returns everything that a configuration sets, as text.
    fn shown(config: &Config) -> String {
        let Config { kafka, .. } = config;
        let hidden = (&kafka.flush, kafka.start, &kafka.instance_id, &kafka.properties, &config.tables.options);
        format!("{config:#?}\n{hidden:#?}")
    }

    #[test]
    fn each_default_in_the_reference_is_the_default_of_the_crate_that_obeys_it() {
        let defaults = shown(&Config::default());
        assert_eq!(shown(&parse("").expect("an empty file is valid")), defaults);
        assert_eq!(shown(&parse(REFERENCE).expect("the reference is valid")), defaults);
        let (mut table, mut keys) = ("", 0);
        for line in REFERENCE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                table = line;
                continue;
            }
            let config = parse(&format!("{table}\n{line}\n")).expect("a line of the reference is valid");
            assert_eq!(shown(&config), defaults, "the crate has another default than the reference: {table} {line}");
            keys += 1;
        }
        assert_eq!(keys, 73, "keys with a default");
    }

    #[test]
    fn memory_limits_are_shares_of_the_budget_and_their_own_keys_win() {
        assert_eq!(shown(&Config::divided(Budget::default())), shown(&Config::default()), "the usual budget");
        let text = "[memory]\nbudget_bytes = \"2GiB\"\n[alerts]\nmemory_bytes = \"100MiB\"\n";
        let config = parse(text).expect("valid");
        assert_eq!(config.kafka.flush.max_bytes, 128 << 20);
        assert_eq!(config.kafka.properties["queued.max.messages.kbytes"], "131072");
        assert_eq!(config.aggregate.handover_bytes, 128 << 20);
        assert_eq!(config.aggregate.settings.index_memory_bytes, 256 << 20);
        assert_eq!(config.queries.memory_bytes, 1 << 30);
        assert_eq!(config.alerts.watch.memory_bytes, 100 << 20, "its own key wins");
        let message = refused("[memory]\nbudget_bytes = \"100MiB\"\n");
        assert!(message.contains("`memory.budget_bytes`") && message.contains("268435456"), "{message}");
        let least = Config::divided(Budget { bytes: budget::LEAST });
        assert!(least.kafka.flush.max_bytes > least.limits.max_bytes, "one event fits");
        assert!(least.alerts.watch.memory_bytes >= LEAST_MEMORY);
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
    fn the_policy_of_redaction_is_read_and_shows_neither_names_nor_the_key() {
        let text =
            "[redaction]\nkeep = [\"ip\"]\nnames = [\"Ann Lee\", { file = \"/names\" }]\nkey = { file = \"/key\" }\n";
        let config = parse(text).expect("valid");
        let redacted = |text: &str| config.redactor.session().text(text).into_owned();
        assert_eq!(redacted("203.0.113.9"), "203.0.113.9");
        let answer = redacted("ANN LEE, another from a file that begins");
        assert!(answer.starts_with("[NAME_") && !answer.contains("another"), "{answer}");
        let shown = format!("{config:?}");
        for hidden in ["Ann Lee", "another", "key of 16"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert_ne!(config.redactor.version(), Redactor::default().version());
    }

    #[test]
    fn each_problem_of_the_policy_of_redaction_is_reported_with_its_key_and_without_its_value() {
        for (line, expected) in [
            ("keep = [\"emails\"]", "`redaction.keep` contains `emails`; a kind is one of `pem`, `url_credentials`,"),
            ("keep = [\"unread\"]", "`redaction.keep` contains `unread`"),
            ("keep = 7", "`redaction.keep` is a number"),
            (
                "names = [\"Ann\", \"B\"]",
                "`redaction.names` has an invalid entry at position 2; a name must have letters",
            ),
            (
                "key = \"a key in the open file\"",
                "`redaction.key` is in the configuration itself; use { file = \"…\" }",
            ),
            ("key = { env = \"KAFKA_PASSWORD\" }", "`redaction.key` has 6 bytes; a key must have at least 16"),
            (
                "key = { env = \"NOT_THERE\" }",
                "`redaction.key` reads the environment variable `NOT_THERE`, which is not set",
            ),
            ("name = []", "unknown key `redaction.name`; did you mean `redaction.names`?"),
        ] {
            let message = refused(&format!("[redaction]\n{line}\n"));
            assert!(message.contains("test.toml:2: ") && message.contains(expected), "{line}: {message}");
            assert!(!message.contains("a key in the open") && !message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn tokens_for_kafka_come_from_an_endpoint_or_from_iam() {
        let oauth = "[kafka.security]\nprotocol = \"sasl_ssl\"\nsasl_mechanism = \"OAUTHBEARER\"\n\
            token_url = \"https://login.acme.example/token\"\nclient_id = \"bellwether\"\n\
            client_secret = { env = \"KAFKA_PASSWORD\" }\n[kafka.security.extensions]\nlogicalCluster = \"lkc-1\"\n";
        let kafka = parse(oauth).expect("valid").kafka;
        assert_eq!(kafka.properties["sasl.mechanism"], "OAUTHBEARER");
        kafka.validate().expect("valid");
        let shown = format!("{:?}", kafka.login.expect("a login"));
        assert!(shown.contains("https://login.acme.example/token") && !shown.contains("s3cret"), "{shown}");
        let msk = "[kafka]\nbrokers = [\"b-1.acme.c1.kafka.eu-central-1.amazonaws.com:9098\"]\n[kafka.security]\n\
            protocol = \"sasl_ssl\"\nsasl_mechanism = \"AWS_MSK_IAM\"\n";
        let kafka = parse(msk).expect("valid").kafka;
        assert_eq!(kafka.properties["sasl.mechanism"], "OAUTHBEARER", "as the broker calls it");
        assert!(format!("{:?}", kafka.login).contains("eu-central-1"), "{:?}", kafka.login);
        for (text, expected) in [
            (oauth.replace("https", "http"), "`kafka.security.token_url` must begin with https://"),
            (oauth.replace("https://", ""), "`kafka.security.token_url` is not a URL"),
            (oauth.replace("{ env = \"KAFKA_PASSWORD\" }", "\"s3cret\""), "`kafka.security.client_secret` is in the"),
            (oauth.replace("client_id = \"bellwether\"", ""), "`kafka.security.client_id` is not set"),
            (oauth.replace("logicalCluster", "auth"), "`kafka.security.extensions.auth` is reserved for the token"),
            (oauth.replace("OAUTHBEARER", "PLAIN"), "`kafka.security.token_url` is set, but only"),
            (msk.replace(".amazonaws.com", ""), "`kafka.security.aws_region` is not set"),
        ] {
            let message = refused(&text);
            assert!(message.contains(expected) && !message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn sizes_are_numbers_or_have_a_unit() {
        assert_eq!(parse("[queries]\nmemory_bytes = 33554432\n").expect("bytes").queries.memory_bytes, 32 << 20);
        assert_eq!(parse("[queries]\nmemory_bytes = \"1GiB\"\n").expect("unit").queries.memory_bytes, 1 << 30);
        assert!(refused("[queries]\nmemory_bytes = \"lots\"\n").contains("`lots`"));
    }

    #[test]
    fn contracts_and_budgets_are_read_and_invalid_ones_reported() {
        let config =
            parse("[alerts]\nfalse_pages_a_month = 2\n[contracts.refund_triage]\nsuccess = 0.95\n").expect("right");
        assert_eq!(config.alerts.watch.budget.pages, 2.0);
        assert_eq!(config.alerts.contracts["refund_triage"].success, Some(0.95));
        assert!(
            refused("[contracts.refund_triage]\nsuccess = 95\n").contains("`contracts.refund_triage.success` is `95`")
        );
        assert!(refused("[contracts.refund_triage]\nsucces = 0.9\n").contains("succes"));
        assert!(refused("[alerts]\nfalse_pages_a_month = 0\n").contains("false_pages_a_month"));
        assert_eq!(parse("").expect("defaults").alerts.watch.season.name(), "UTC");
        let zone = |name: &str| format!("[alerts]\ntime_zone = \"{name}\"\n");
        assert_eq!(parse(&zone("Europe/Berlin")).expect("a zone").alerts.watch.season.name(), "Europe/Berlin");
        assert!(refused(&zone("Berlin")).contains("alerts.time_zone` is `Berlin`"));
    }

    #[test]
    fn deliveries_are_read_and_invalid_ones_reported() {
        let sink = "deliver.sinks.file = { kind = \"inbox\", path = \"pages.ndjson\" }\n";
        let config = parse(sink).expect("one line is enough");
        assert_eq!(config.deliver.routes[0].sinks, ["file"]);
        assert!(!parse("").expect("defaults").deliver.delivers());
        let route = "[[deliver.routes]]\nname = \"r\"\nsinks = [\"fil\"]\n";
        assert!(refused(&format!("{sink}{route}")).contains("`deliver` is invalid: route `r`"));
        assert!(refused("deliver.sinks.a = { kind = \"pigeon\" }\n").contains("sink `a`"));
        let both = refused(&format!("deliver.sinks.a = {{ kind = \"pigeon\" }}\n{route}"));
        assert!(both.contains("route `r`") && both.contains("sink `a`"), "all problems at once: {both}");
        assert!(refused("[deliver]\nrouts = []\n").contains("routs"));
    }

    #[test]
    fn templates_of_links_are_read_and_broken_ones_reported() {
        let config = parse("[links]\nrun = \"https://runs.example/{run_id}\"\n").expect("a template");
        assert_eq!(config.links.run.as_deref(), Some("https://runs.example/{run_id}"));
        assert_eq!(config.links.trace, None);
        let message = refused("[links]\nrun = \"https://runs.example/{run}\"\ntrace = \"ftp://x/{trace_id}\"\n");
        assert!(message.contains("`links.run` has the unknown placeholder `{run}`"), "{message}");
        assert!(message.contains("`links.trace` begins with `ftp:`"), "{message}");
    }

    #[test]
    fn a_command_that_fetches_content_has_a_place_for_the_reference() {
        let config =
            parse("[evals]\nfetch_content = [\"aws\", \"s3\", \"cp\", \"{ref}\", \"-\"]\n").expect("a command");
        assert_eq!(config.evals.fetch_content, ["aws", "s3", "cp", "{ref}", "-"]);
        for wrong in ["[\"cat\"]", "[\"{ref}\"]"] {
            let message = refused(&format!("[evals]\nfetch_content = {wrong}\n"));
            assert!(message.contains("`evals.fetch_content` has no argument with `{ref}`"), "{message}");
        }
    }

    #[test]
    fn replaced_files_stay_for_longer_than_a_statement_may_read_them() {
        let config = parse("[maintain]\nkeep_replaced = \"90m\"\n").expect("valid");
        assert_eq!(config.maintain.keep_replaced, Duration::from_secs(5400));
        assert!(refused("[maintain]\nkeep_replaced = \"12m\"\n").contains("`maintain.keep_replaced` is too short"));
        assert!(refused("[queries]\ntimeout = \"2h\"\n").contains("`queries.timeout` (2h)"));
        assert!(refused("[maintain]\nkeep_unnamed = \"1h\"\n").contains("maintain.keep_unnamed"));
    }

    #[test]
    fn queries_beyond_this_machine_need_tls_and_tokens() {
        let open = "[api]\naddress = \"0.0.0.0:9465\"\n";
        assert!(refused(open).contains("`api.address` is refused"), "{}", refused(open));
        let safe = format!("{open}certificate_file = \"/c\"\nkey_file = \"/k\"\ntokens_file = \"/t\"\n");
        assert!(parse(&safe).expect("TLS and tokens").api.server.tokens.is_some());
        assert!(refused("[api]\npostgres_address = \"0.0.0.0:5433\"\n").contains("`api.postgres_address` is refused"));
        let local = parse("[api]\npostgres_address = \"127.0.0.1:5433\"\n").expect("valid").api.server.postgres;
        assert_eq!(local.map(|address| address.port()), Some(5433));
        assert!(refused("[api]\nflight_address = \"0.0.0.0:9466\"\n").contains("`api.flight_address` is refused"));
        let local = parse("[api]\nflight_address = \"127.0.0.1:9466\"\n").expect("valid").api.server.flight;
        assert_eq!(local.map(|address| address.port()), Some(9466));
        assert!(refused("[api]\npostgres_address = \"here\"\n").contains("it must be an address such as"));
        assert!(refused("[api]\ncertificate_file = \"/c\"\n").contains("both a certificate and its key"));
        assert!(refused("[api]\ntimeout = \"2h\"\n").contains("`api.timeout` (2h)"));
        assert!(refused("[api]\nstatements = 0\n").contains("`api.statements`"));
    }

    #[test]
    fn rows_are_kept_for_longer_than_late_events_may_come() {
        let events = |keep: &str| format!("[retention]\nevents = \"{keep}\"\n");
        assert_eq!(parse(&events("forever")).expect("valid").retention.events, None);
        assert_eq!(parse(&events("31d")).expect("valid").retention.events, Some(31 * DAY));
        assert!(refused(&events("30d")).contains("`retention.events` is too short"));
        assert!(refused("[aggregate]\nhorizon = \"100d\"\n").contains("`retention.events` is too short"));
        parse("[ingest]\nmax_event_age = \"200d\"\n").expect("a history is replayed");
        assert!(refused("[retention]\nmetrics = \"1h\"\n").contains("retention.metrics"));
        assert!(refused("[retention]\nmetrics = \"long\"\n").contains("retention.metrics"));
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
