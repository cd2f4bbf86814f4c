//! Reads `[kafka]`: brokers, topics, the properties of the client, and the source of its tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_base::SystemClock;
use bellwether_ingest::{FlushSettings, KafkaSettings, Start};
use bellwether_login::{Login, LoginSettings, MskSettings, OAuthSettings, Url, region_of};

use super::read::ConfigReader;

/// The SASL mechanism that uses tokens.
const OAUTH: &str = "OAUTHBEARER";

/// Bellwether's name for [`OAUTH`] with tokens for IAM of Amazon MSK.
const MSK: &str = "AWS_MSK_IAM";

/// Reads `[kafka]` with its sections, and the limits of a batch of `[ingest]`.
pub(super) fn kafka(reader: &mut ConfigReader<'_>, defaults: KafkaSettings) -> KafkaSettings {
    let flush = &defaults.flush;
    let brokers = brokers(reader, &defaults.brokers);
    let mechanism = mechanism(reader);
    KafkaSettings {
        login: login(reader, mechanism.as_deref(), &brokers),
        properties: properties(reader, mechanism, defaults.properties),
        brokers,
        topics: reader.list("kafka.topics", &defaults.topics),
        group: reader.text("kafka.group", &defaults.group),
        job: reader.text("kafka.job", &defaults.job),
        start: match reader.choice("kafka.start", &["earliest", "latest"]).as_deref() {
            Some("earliest") => Start::Earliest,
            Some("latest") => Start::Latest,
            _ => defaults.start,
        },
        instance_id: reader.optional("kafka.instance_id").or(defaults.instance_id),
        flush: FlushSettings {
            interval: reader.duration("ingest.flush_interval", Duration::from_millis(10), flush.interval),
            max_bytes: reader.bytes("ingest.flush_bytes", 1 << 20, flush.max_bytes),
            max_rows: reader.number_of("ingest.flush_rows", 1..=10_000_000, flush.max_rows),
            channel_batches: flush.channel_batches,
        },
    }
}

/// Reads the brokers, checks that each is HOST:PORT, and joins them by commas.
fn brokers(reader: &mut ConfigReader<'_>, default: &str) -> String {
    let default: Vec<String> = default.split(',').map(str::to_owned).collect();
    let brokers = reader.list("kafka.brokers", &default);
    if brokers.is_empty() {
        reader.problem("kafka.brokers", "is empty; name at least one broker as HOST:PORT");
    }
    for broker in &brokers {
        if !broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            reader.problem("kafka.brokers", &format!("contains `{broker}`; a broker must be HOST:PORT"));
        }
    }
    brokers.join(",")
}

/// Reads the SASL mechanism. [`MSK`] is not a mechanism of Kafka, but a name of Bellwether's.
fn mechanism(reader: &mut ConfigReader<'_>) -> Option<String> {
    reader.choice("kafka.security.sasl_mechanism", &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", OAUTH, MSK])
}

/// Reads `kafka.security` as properties of librdkafka, overridden by `kafka.properties`.
fn properties(
    reader: &mut ConfigReader<'_>,
    mechanism: Option<String>,
    mut properties: BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    const PROTOCOLS: &[&str] = &["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
    let protocol = reader.choice("kafka.security.protocol", PROTOCOLS);
    if protocol.as_ref().is_some_and(|protocol| protocol.starts_with("sasl")) && mechanism.is_none() {
        reader.problem(
            "kafka.security.sasl_mechanism",
            "is not set, but `sasl_…` protocols need it; use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM",
        );
    }
    let mut put = |property: &str, value: Option<String>| {
        if let Some(value) = value {
            properties.insert(property.to_owned(), value);
        }
    };
    // librdkafka's own default is plaintext too.
    put("security.protocol", protocol.filter(|protocol| protocol != PROTOCOLS[0]));
    put("sasl.mechanism", mechanism.map(|name| if name == MSK { OAUTH.to_owned() } else { name }));
    put("sasl.username", reader.optional("kafka.security.username"));
    put("sasl.password", reader.optional("kafka.security.password"));
    put("ssl.ca.location", reader.optional("kafka.security.ca_file"));
    put("ssl.certificate.location", reader.optional("kafka.security.certificate_file"));
    put("ssl.key.location", reader.optional("kafka.security.key_file"));
    properties.extend(reader.map("kafka.properties"));
    properties
}

/// Reads the source of tokens. Returns `None` if the mechanism needs no tokens, or if there are problems, which the reader collects.
fn login(reader: &mut ConfigReader<'_>, mechanism: Option<&str>, brokers: &str) -> Option<Login> {
    let [token_url, client_id, client_secret, scope, ca_file, region] = [
        "kafka.security.token_url",
        "kafka.security.client_id",
        "kafka.security.client_secret",
        "kafka.security.scope",
        "kafka.security.token_ca_file",
        "kafka.security.aws_region",
    ]
    .map(|key| {
        let value = if key.ends_with("secret") { reader.secret_only(key) } else { reader.optional(key) };
        let needed = if key.ends_with("aws_region") { MSK } else { OAUTH };
        if value.is_some() && mechanism != Some(needed) {
            reader.problem(key, &format!("is set, but only `sasl_mechanism = \"{needed}\"` uses it"));
        }
        value
    });
    let extensions = reader.map("kafka.security.extensions");
    for (name, value) in &extensions {
        if let Some(problem) = OAuthSettings::extension_problem(name, value) {
            reader.problem(&format!("kafka.security.extensions.{name}"), problem);
        }
    }
    let settings = match mechanism {
        Some(OAUTH) => {
            let mut needed = |key: &str, value: Option<String>| {
                // The reader has already reported a secret that cannot be read.
                if value.is_none() && !reader.is_given(key) {
                    reader.problem(key, "is not set, but OAUTHBEARER needs it");
                }
                value
            };
            let token_url = needed("kafka.security.token_url", token_url);
            let client_id = needed("kafka.security.client_id", client_id);
            let client_secret = needed("kafka.security.client_secret", client_secret);
            LoginSettings::OAuth(OAuthSettings {
                token_url: token_url.and_then(|text| address(reader, &text))?,
                client_id: client_id?,
                client_secret: client_secret?,
                scope,
                ca_file: ca_file.map(PathBuf::from),
                extensions,
            })
        }
        Some(MSK) => {
            let region = region.or_else(|| brokers.split(',').find_map(region_of).map(str::to_owned));
            if region.is_none() {
                let problem = "is not set, and the names of the brokers do not hold it; name the region of the cluster";
                reader.problem("kafka.security.aws_region", problem);
            }
            LoginSettings::Msk(MskSettings { region: region? })
        }
        _ => return None,
    };
    Some(Login::new(settings, Arc::new(SystemClock)))
}

/// Reads the address of the token endpoint.
fn address(reader: &mut ConfigReader<'_>, text: &str) -> Option<Url> {
    let url = Url::parse(text);
    let problem = match &url {
        Ok(url) => OAuthSettings::url_problem(url).map(str::to_owned),
        Err(error) => Some(format!("is not a URL: {error}")),
    };
    if let Some(problem) = problem {
        reader.problem("kafka.security.token_url", &problem);
        return None;
    }
    url.ok()
}
