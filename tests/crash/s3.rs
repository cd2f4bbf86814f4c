//! Tables in object stores: the same protocol with a real server of each API; a store that lets two writers create the same
//! object, and one without the bucket, are refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::Random;
use super::ledger::{Plan, Publisher};
use super::members::leave;
use super::proof::{audit, finish_and_verify};
use super::stores::Store;
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Setup, bellwether, real_broker, until_or};

const KILLS: usize = 5;

/// Commits that must be fenced while two writers race.
const FENCED: f64 = 6.0;

#[test]
fn killed_and_racing_writers_on_s3_store_every_message_once() {
    killed_and_racing_writers(Store::s3);
}

#[test]
fn killed_and_racing_writers_on_google_store_every_message_once() {
    killed_and_racing_writers(Store::google);
}

#[test]
fn killed_and_racing_writers_on_azure_store_every_message_once() {
    killed_and_racing_writers(Store::azure);
}

/// Kills `run` again and again, lets two race for every commit, and maintains the tables; no message is lost or doubled.
fn killed_and_racing_writers(start: fn() -> Option<Store>) {
    let Some(broker) = real_broker() else { return };
    let Some(store) = start() else { return };
    let mut random = Random::new("crash::s3");
    let topic = broker.topic("store", 2);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        tables: Some(&store.tables()),
        kafka: "instance_id = \"worker\"\n",
        extra: "[ingest]\nflush_interval = \"300ms\"\n",
    });
    let publisher = Publisher::start(&broker.address, &topic, Plan { partitions: 2, only_bad: None, burst: 2 });
    let committed =
        |worker: &Running| worker.metric("bellwether_ingest_rows_committed_total").filter(|rows| *rows > 0.0);
    for _ in 0..KILLS {
        let worker = setup.start("run");
        until_or(|| committed(&worker), || format!("the worker commits\n{}", worker.printed()));
        random.sleep_up_to(Duration::from_millis(900));
        worker.kill();
        audit(&setup, false);
    }
    let other =
        setup.other("other.toml", |text| store.by_another_credential(&text.replace("group = \"", "group = \"other-")));
    let racers = [setup.start("run"), Running::role("run", &other)];
    let fenced = || -> Option<f64> {
        let each = racers.iter().map(|racer| racer.metric("bellwether_ingest_fenced_total"));
        each.sum::<Option<f64>>().filter(|fenced| *fenced >= FENCED)
    };
    until_or(fenced, || format!("the two fence each other\n{}\n{}", racers[0].printed(), racers[1].printed()));
    racers.into_iter().for_each(leave);
    bellwether(&["maintain", "--config", text(&other)]).succeeds();
    finish_and_verify(&setup, &topic, publisher, None);
}

#[test]
fn a_missing_bucket_is_named_with_the_remedy() {
    for start in [Store::s3, Store::google, Store::azure] {
        let Some(store) = start() else { continue };
        let tables = store.tables().replace("://bellwether/", "://no-such-bucket/");
        let setup = Setup::with(&ConfigText {
            brokers: "127.0.0.1:9",
            topics: &["unused"],
            tables: Some(&tables),
            ..ConfigText::default()
        });
        let config = setup.config();
        for arguments in [&["run"][..], &["audit"], &["sql", "SELECT 1"]] {
            let arguments = [arguments, &["--config", text(&config)]].concat();
            let ended = bellwether(&arguments);
            assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
            assert!(ended.stderr.contains("does not exist\n  hint: create "), "{arguments:?}: {}", ended.stderr);
            // An audit only reads; the others try to write first, and know the name.
            let name = format!("`no-such-bucket` of the tables' root `{}`", store.root("no-such-bucket"));
            assert!(arguments[0] == "audit" || ended.stderr.contains(&name), "{arguments:?}: {}", ended.stderr);
        }
    }
}

/// Starts a store that ignores the conditions of requests, and returns its address.
fn store_without_conditions() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    // It ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || while serve_request(&stream).is_ok() {});
        }
    });
    address
}

/// Reads one request and answers it with success.
fn serve_request(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    if first.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap_or(0),
            Some(_) => {}
            None => break,
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let status = if first.starts_with("PUT") { "200 OK" } else { "204 No Content" };
    write!(stream, "HTTP/1.1 {status}\r\nETag: \"same\"\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn a_store_that_ignores_conditions_is_refused_at_start() {
    let address = store_without_conditions();
    for (store, condition) in [
        (Store::s3_at(&address), "If-None-Match"),
        (Store::google_at(&address), "x-goog-if-generation-match"),
        (Store::azure_at(&address), "If-None-Match"),
    ] {
        let setup = Setup::with(&ConfigText {
            brokers: "127.0.0.1:9",
            topics: &["unused"],
            tables: Some(&store.tables()),
            ..ConfigText::default()
        });
        for command in ["run", "ingest", "aggregate"] {
            let ended = bellwether(&[command, "--config", text(&setup.config())]);
            assert_eq!(ended.code, Some(2), "{command}: {}", ended.stderr);
            assert!(ended.stderr.contains(&format!("ignores `{condition}`")), "{command}: {}", ended.stderr);
            assert!(
                ended.stderr.contains("hint: two writers could overwrite each other's commits"),
                "{}",
                ended.stderr
            );
        }
    }
}
