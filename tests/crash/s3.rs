//! Tables on S3: the same protocol with a real server; a store that lets two writers create the same object is refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::Random;
use super::ledger::{Plan, Publisher};
use super::members::leave;
use super::proof::{audit, finish_and_verify};
use crate::common::program::{ConfigText, Running, text};
use crate::common::{Setup, bellwether, cache, python, real_broker, skipped, until_or};

const KILLS: usize = 5;

/// Commits that must be fenced while two writers race.
const FENCED: f64 = 6.0;

/// An in-memory S3 server.
pub(super) struct Server {
    pub(super) address: String,
    running: Running,
}

impl Server {
    /// Starts it. Returns none if it is not installed.
    pub(super) fn start() -> Option<Self> {
        python()?;
        let program = cache("venv/bin/moto_server");
        if !program.exists() {
            skipped("no S3 server; `scripts/setup python` installs moto");
            return None;
        }
        let address = free_address();
        let (host, port) = address.split_once(':').expect("host and port");
        let mut command = Command::new(program);
        let running = Running::spawn(command.args(["-H", host, "-p", port]), "moto_server".to_owned());
        until_or(|| put(&address, "/bellwether"), || format!("the S3 server creates a bucket\n{}", running.printed()));
        Some(Self { address, running })
    }

    /// Returns its output so far, with a line for each request.
    pub(super) fn printed(&self) -> String {
        self.running.printed()
    }
}

/// Returns an address with a free port.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// Creates a bucket; none while the server does not answer.
fn put(address: &str, path: &str) -> Option<()> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "PUT {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next()?.contains(" 200 ").then_some(())
}

/// Returns the `[tables]` keys of a configuration with its tables on a store.
pub(super) fn tables(address: &str) -> String {
    format!(
        "root = \"s3://bellwether/llm\"\n[tables.options]\naws_endpoint = \"http://{address}\"\naws_region = \"us-east-1\"\n\
         aws_access_key_id = \"tests\"\naws_secret_access_key = \"tests\"\n"
    )
}

#[test]
fn killed_and_racing_writers_on_s3_store_every_message_once() {
    let Some(broker) = real_broker() else { return };
    let Some(server) = Server::start() else { return };
    let mut random = Random::new("crash::s3");
    let topic = broker.topic("s3", 2);
    let setup = Setup::with(&ConfigText {
        brokers: &broker.address,
        topics: &[&topic],
        tables: Some(&tables(&server.address)),
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
    let other = setup.other("other.toml", |text| text.replace("group = \"", "group = \"other-"));
    let racers = [setup.start("run"), Running::role("run", &other)];
    let fenced = || -> Option<f64> {
        let each = racers.iter().map(|racer| racer.metric("bellwether_ingest_fenced_total"));
        each.sum::<Option<f64>>().filter(|fenced| *fenced >= FENCED)
    };
    until_or(fenced, || format!("the two fence each other\n{}", racers[0].printed()));
    racers.into_iter().for_each(leave);
    finish_and_verify(&setup, &topic, publisher, None);
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
    let setup = Setup::with(&ConfigText {
        brokers: "127.0.0.1:9",
        topics: &["unused"],
        tables: Some(&tables(&address)),
        ..ConfigText::default()
    });
    for command in ["run", "ingest", "aggregate"] {
        let ended = bellwether(&[command, "--config", text(&setup.config())]);
        assert_eq!(ended.code, Some(2), "{command}: {}", ended.stderr);
        assert!(ended.stderr.contains("ignores `If-None-Match`"), "{command}: {}", ended.stderr);
        assert!(ended.stderr.contains("hint: two writers could overwrite each other's commits"), "{}", ended.stderr);
    }
}
