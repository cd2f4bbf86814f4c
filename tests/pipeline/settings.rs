//! Configuration errors: one message that names the key, the value and the accepted values.

use crate::common::program::text;
use crate::common::{Setup, bellwether, broker};

fn refused(extra: &str) -> String {
    let setup = Setup::new("127.0.0.1:9092", "llm.runs", extra);
    let ended = bellwether(&["check", "config", text(&setup.config())]);
    assert_eq!(ended.code, Some(2), "{}{}", ended.stdout, ended.stderr);
    ended.stderr
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_key() {
    let error = refused("[ingest]\nflush_intervall = \"1s\"\n");
    assert!(error.contains("ingest.flush_intervall") && error.contains("ingest.flush_interval`"), "{error}");
}

#[test]
fn an_invalid_value_is_refused_with_the_accepted_values() {
    let error = refused("[ingest]\nflush_interval = \"soon\"\n");
    assert!(error.contains("ingest.flush_interval") && error.contains("soon"), "{error}");
}

#[test]
fn the_printed_reference_is_a_valid_configuration() {
    let reference = bellwether(&["config", "reference"]).succeeds();
    let setup = Setup::new("127.0.0.1:9092", "llm.runs", "");
    std::fs::write(setup.config(), reference).expect("the reference is written");
    bellwether(&["check", "config", text(&setup.config())]).succeeds();
}

#[test]
fn a_missing_topic_is_reported_by_name() {
    let Some(broker) = broker() else { return };
    let setup = Setup::new(&broker.address, "no-such-topic", "");
    let ended = bellwether(&["check", "config", "--connect", text(&setup.config())]);
    // The mock cluster creates every topic that a client asks for.
    if ended.code != Some(0) {
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("no-such-topic"), "{}", ended.stderr);
    }
}
