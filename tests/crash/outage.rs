//! The broker goes away and comes back; whoever reads the log goes away and does not.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::ledger::{Plan, Publisher};
use super::proof::{Stands, ends_whole};
use super::real_broker;
use crate::common::event::runs;
use crate::common::program::{ConfigText, text};
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
    let setup = Setup::with(&ConfigText {
        brokers: &own.broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"200ms\"\n",
        ..ConfigText::default()
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
    ends_whole(&setup, &topic, publisher, Some(worker));
}

#[test]
fn a_worker_whose_log_nobody_reads_any_more_goes_on() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("unread", 2);
    let setup = Setup::new(&broker.address, &topic, "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["run", "--config", text(&setup.config())])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Every line that it writes is now an error to it.
    drop(child.stderr.take());
    let mut stands = Stands::new(&setup, &topic);
    for round in 1..=2 {
        broker.publish_events(&topic, 2, &runs(&format!("round-{round}"), 20));
        stands.pass(round * 20 - 1, Instant::now(), || format!("round {round}: {:?}", child.try_wait()));
    }
    let stopped = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    let ended = until_or(|| child.try_wait().expect("it can be waited for"), || "its end".to_owned());
    assert_eq!(ended.code(), Some(0));
}
