//! The broker goes away and comes back.

use std::process::Command;
use std::time::Instant;

use super::ledger::{Plan, Publisher};
use super::proof::{Stands, audit, exactly_once};
use super::real_broker;
use crate::common::program::Wanted;
use crate::common::{Broker, Setup, repository, until_or};

/// A broker of this test's own.
struct Own {
    folder: tempfile::TempDir,
    broker: Broker,
}

impl Own {
    fn start() -> Self {
        let folder = tempfile::TempDir::with_prefix("bellwether-kafka-").expect("a temporary folder");
        let address = script(&["start", folder.path().to_str().expect("text")]);
        Self { folder, broker: Broker::at(address.trim()) }
    }

    fn call(&self, verb: &str) {
        script(&[verb, self.folder.path().to_str().expect("text")]);
    }

    fn process(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("pid")).expect("the broker's process").trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.call("stop");
    }
}

/// Runs `scripts/broker`; its output goes to files, since the broker itself holds on to what it was given.
fn script(arguments: &[&str]) -> String {
    let output = Command::new(repository("scripts/broker")).args(arguments).output().expect("scripts/broker runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("an address")
}

#[test]
fn a_broker_that_stops_or_dies_and_comes_back_is_waited_for() {
    if real_broker().is_none() {
        return;
    }
    let own = Own::start();
    let topic = own.broker.topic("outage", 3);
    let setup = Setup::with(&Wanted {
        brokers: &own.broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"200ms\"\n",
        ..Wanted::default()
    });
    let publisher = Publisher::start(&own.broker.address, &topic, Plan { partitions: 3, only_bad: None, burst: 2 });
    let worker = setup.start("run");
    let mut stands = Stands::new(&setup, &topic);
    stands.pass(0, Instant::now(), || worker.printed());
    for dies in [false, true] {
        if dies {
            Command::new("kill").args(["-s", "KILL", &own.process()]).status().expect("the broker is killed");
        } else {
            own.call("stop");
        }
        until_or(
            || worker.get("/readyz").filter(|(status, body)| *status == 503 && body.contains("Kafka is out of reach")),
            || format!("health says that Kafka is away\n{}", worker.printed()),
        );
        let before = stands.all();
        own.call("restart");
        stands.pass(before + 100, Instant::now(), || worker.printed());
        until_or(
            || worker.get("/readyz").filter(|(status, _)| *status == 200),
            || format!("health is good again: {:?}\n{}", worker.get("/readyz"), worker.printed()),
        );
    }
    let ledger = publisher.finish();
    worker.signal("TERM");
    assert_eq!(worker.end().code, Some(0));
    setup.catch_up();
    audit(&setup, true);
    exactly_once(&setup, &topic, &ledger);
}
