//! The broker stops and comes back; the reader of the worker's log goes away for good.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::ledger::{Plan, Publisher};
use super::proof::{TableProgress, finish_and_verify};
use crate::common::event::runs;
use crate::common::program::{ConfigText, text};
use crate::common::{Broker, Setup, real_broker, repository, until_or};

/// A broker that this test started itself.
struct OwnBroker {
    folder: tempfile::TempDir,
    broker: Broker,
}

impl OwnBroker {
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

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.call("stop");
    }
}

/// Runs `scripts/broker` and returns its output.
fn script(arguments: &[&str]) -> String {
    let output = Command::new(repository("scripts/broker")).args(arguments).output().expect("scripts/broker runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("an address")
}

#[test]
fn a_worker_waits_for_a_broker_that_stops_or_dies() {
    if real_broker().is_none() {
        return;
    }
    let own = OwnBroker::start();
    let topic = own.broker.topic("outage", 3);
    let setup = Setup::with(&ConfigText {
        brokers: &own.broker.address,
        topics: &[&topic],
        extra: "[ingest]\nflush_interval = \"200ms\"\n",
        ..ConfigText::default()
    });
    let publisher = Publisher::start(&own.broker.address, &topic, Plan { partitions: 3, only_bad: None, burst: 2 });
    let worker = setup.start("run");
    let mut progress = TableProgress::new(&setup, &topic);
    progress.wait_past(0, Instant::now(), || worker.printed());
    for dies in [false, true] {
        if dies {
            Command::new("kill").args(["-s", "KILL", &own.process()]).status().expect("the broker is killed");
        } else {
            own.call("stop");
        }
        until_or(
            || worker.get("/readyz").filter(|(status, body)| *status == 503 && body.contains("Kafka is unreachable")),
            || format!("readiness reports that Kafka is unreachable\n{}", worker.printed()),
        );
        let before = progress.processed();
        own.call("restart");
        progress.wait_past(before + 100, Instant::now(), || worker.printed());
        until_or(
            || worker.get("/readyz").filter(|(status, _)| *status == 200),
            || format!("readiness recovers: {:?}\n{}", worker.get("/readyz"), worker.printed()),
        );
    }
    finish_and_verify(&setup, &topic, publisher, Some(worker));
}

#[test]
fn a_worker_continues_after_its_standard_error_is_closed() {
    let Some(broker) = real_broker() else { return };
    let topic = broker.topic("unread", 2);
    let setup = Setup::new(&broker.address, &topic, "");
    let mut child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["run", "--config", text(&setup.config())])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // From now on, every line that it logs fails.
    drop(child.stderr.take());
    let mut progress = TableProgress::new(&setup, &topic);
    for round in 1..=2 {
        broker.publish_events(&topic, 2, &runs(&format!("round-{round}"), 20));
        progress.wait_past(round * 20 - 1, Instant::now(), || format!("round {round}: {:?}", child.try_wait()));
    }
    let stopped = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(stopped.is_ok_and(|status| status.success()));
    let ended = until_or(|| child.try_wait().expect("it can be waited for"), || "the worker ends".to_owned());
    assert_eq!(ended.code(), Some(0));
}
