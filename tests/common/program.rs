//! The built program: configures it, runs it and reads its output.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::wait::{patience, until_or};

/// Settings that accept events of any age.
pub(crate) const KEEP_HISTORY: &str = "[ingest]\nmax_event_age = \"36500d\"\n";

/// A temporary folder with a configuration and the tables it names.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    /// The tables are in an object store, which only the configuration can reach.
    remote: bool,
}

/// The contents of a configuration.
#[derive(Debug, Default)]
pub(crate) struct ConfigText<'a> {
    pub(crate) brokers: &'a str,
    pub(crate) topics: &'a [&'a str],
    /// Keys of `[tables]`; the default is a folder beside the configuration.
    pub(crate) tables: Option<&'a str>,
    /// Further keys of `[kafka]`.
    pub(crate) kafka: &'a str,
    /// Further TOML, such as `[ingest]` with its keys.
    pub(crate) extra: &'a str,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: [Arc<Mutex<Vec<u8>>>; 2],
    readers: Vec<JoinHandle<()>>,
    what: String,
}

/// The exit code and the output of a program that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    what: String,
}

// === impl Setup ===

impl Setup {
    /// Writes a configuration for a broker and a topic; `extra` is further TOML, such as `[ingest]` with its keys.
    pub(crate) fn new(brokers: &str, topic: &str, extra: &str) -> Self {
        Self::with(&ConfigText { brokers, topics: &[topic], extra, ..ConfigText::default() })
    }

    /// Writes a configuration with a unique consumer group.
    pub(crate) fn with(config: &ConfigText<'_>) -> Self {
        let ConfigText { brokers, topics, tables, kafka, extra } = config;
        let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
        let setup = Self { dir, remote: tables.is_some() };
        let mut text = match tables {
            Some(tables) => format!("[tables]\n{tables}"),
            None => format!("[tables]\nroot = \"{}\"\n", setup.root().display()),
        };
        let group = format!("tests-{}", bellwether_base::unique_id().simple());
        write!(text, "[kafka]\nbrokers = [\"{brokers}\"]\ntopics = {topics:?}\ngroup = \"{group}\"\n{kafka}")
            .expect("strings take text");
        if !extra.contains("[serve]") {
            text.push_str("[serve]\naddress = \"127.0.0.1:0\"\n");
        }
        text.push_str(extra);
        std::fs::write(setup.config(), text).expect("the configuration is written");
        setup
    }

    /// Writes a changed copy of the configuration beside it.
    pub(crate) fn other(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let text = std::fs::read_to_string(self.config()).expect("the configuration exists");
        let (path, changed) = (self.file(name), change(text.clone()));
        assert_ne!(changed, text, "`change` changed nothing");
        std::fs::write(&path, changed).expect("the configuration is written");
        path
    }

    /// Returns the path of the configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("bellwether.toml")
    }

    /// Returns the name of its consumer group.
    pub(crate) fn group(&self) -> String {
        let text = std::fs::read_to_string(self.config()).expect("the configuration exists");
        let config: toml::Table = text.parse().expect("the configuration is TOML");
        config["kafka"]["group"].as_str().expect("a name").to_owned()
    }

    /// Returns the root of the tables.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("tables")
    }

    /// Returns the path of a file beside the tables.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Processes every message that the topics hold now.
    pub(crate) fn catch_up(&self) {
        self.catch_up_as(&self.config());
    }

    /// Does the same with another configuration.
    pub(crate) fn catch_up_as(&self, config: &Path) {
        bellwether(&["run", "--until-caught-up", "--config", text(config)]).succeeds();
    }

    /// Runs a role until it has caught up.
    pub(crate) fn catch_up_role(&self, role: &str) {
        bellwether(&[role, "--until-caught-up", "--config", text(&self.config())]).succeeds();
    }

    /// Writes events to a file beside the tables, one per line, and returns its path.
    pub(crate) fn recording(&self, name: &str, events: &[Value]) -> PathBuf {
        let path = self.file(name);
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(&path, lines).expect("the recording is written");
        path
    }

    /// Replays a file into the tables; every event in it must be accepted.
    pub(crate) fn replay(&self, file: &Path) {
        bellwether(&["replay", text(file), "--to", "tables", "--config", text(&self.config())]).succeeds();
    }

    /// Replays events from a file, computes the metrics and evaluates the rules.
    pub(crate) fn replay_and_watch(&self, events: &[Value]) {
        self.replay(&self.recording("events.ndjson", events));
        self.catch_up_role("aggregate");
        self.catch_up_role("watch");
    }

    /// Starts a role.
    pub(crate) fn start(&self, role: &str) -> Running {
        Running::role(role, &self.config())
    }

    /// Runs a query and returns its rows as JSON objects.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let (config, root) = (self.config(), self.root());
        let tables = if self.remote { ["--config", text(&config)] } else { ["--root", text(&root)] };
        let answer = bellwether(&["sql", tables[0], tables[1], "--format", "json", query]).succeeds();
        match serde_json::from_str(&answer) {
            Ok(Value::Array(rows)) => rows,
            other => panic!("`{query}` did not return a list of rows: {other:?}\n{answer}"),
        }
    }

    /// Runs a query and returns the integer in the first column of its first row.
    pub(crate) fn number(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        let value = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        value.and_then(Value::as_i64).unwrap_or_else(|| panic!("`{query}` did not return an integer: {rows:?}"))
    }
}

/// Returns a path as a command-line argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Runs the program and waits for it to end.
pub(crate) fn bellwether(arguments: &[&str]) -> Ended {
    Running::start(arguments).end()
}

// === impl Running ===

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
        command.args(arguments).env_remove("RUST_LOG").env_remove("BELLWETHER_CONFIG").env("NO_COLOR", "1");
        Self::spawn(&mut command, format!("bellwether {}", arguments.join(" ")))
    }

    /// Starts a role with a configuration.
    pub(crate) fn role(role: &str, config: &Path) -> Self {
        Self::start(&[role, "--config", text(config)])
    }

    /// Starts any command and collects its output.
    pub(crate) fn spawn(command: &mut Command, what: String) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{what}` does not start: {error}"));
        let (stdout, out) = follow(child.stdout.take().expect("standard output is piped"));
        let (stderr, err) = follow(child.stderr.take().expect("standard error is piped"));
        Self { child, output: [stdout, stderr], readers: vec![out, err], what }
    }

    /// Returns its peak resident memory in bytes; none after it has ended.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|size| size << 10)
    }

    /// Returns its output so far: standard output, then standard error.
    pub(crate) fn printed(&self) -> String {
        let [out, err] = &self.output;
        format!("{}{}", read(out), read(err))
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot send {name} to `{}`", self.what);
    }

    /// True until it has ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("the program can be waited for").is_none()
    }

    /// Stops it with SIGTERM and checks that it ends well.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        self.end().succeeds();
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program is killed");
        self.child.wait().expect("the program can be waited for");
    }

    /// Waits for it to end.
    pub(crate) fn end(mut self) -> Ended {
        let what = self.what.clone();
        let child = &mut self.child;
        let [out, err] = &self.output;
        let status = until_or(
            || child.try_wait().expect("the program can be waited for"),
            || format!("`{what}` ends; its output so far:\n{}{}", read(out), read(err)),
        );
        for reader in self.readers.drain(..) {
            reader.join().expect("the thread that reads the output ends");
        }
        let [out, err] = &self.output;
        Ended { code: status.code(), stdout: read(out), stderr: read(err), what }
    }

    /// Requests a path of its health and metrics service. Returns status and body; none while it is not listening.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let printed = self.printed();
        get(&address_in(&printed)?, path)
    }

    /// Returns the address of its health and metrics service; none while it is not listening.
    pub(crate) fn address(&self) -> Option<String> {
        address_in(&self.printed())
    }

    /// Returns the value of one of its metrics; none while it does not answer.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.get("/metrics")?.1, name)
    }
}

fn address_in(printed: &str) -> Option<String> {
    let (_, rest) = printed.split_once("http://")?;
    Some(rest.chars().take_while(|letter| letter.is_ascii_digit() || matches!(letter, '.' | ':')).collect())
}

/// Requests a path of a service. Returns status and body; none while it is not listening.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(patience())).ok()?;
    // By version 1.0, the body comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Finds a metric by name, labels included or not, in the text of `/metrics`.
pub(crate) fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))?;
    line.rsplit(' ').next()?.parse().ok()
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails half-way must not leave a process behind. Killing one that has ended does nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn follow(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let output = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&output);
    let reader = std::thread::spawn(move || {
        let mut chunk = [0_u8; 8192];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..length]);
        }
    });
    (output, reader)
}

fn read(output: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

// === impl Ended ===

impl Ended {
    /// Returns standard output; fails unless the exit code is 0.
    pub(crate) fn succeeds(self) -> String {
        self.exits_with(0)
    }

    /// Returns standard output; fails unless the exit code is `code`.
    pub(crate) fn exits_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "`{}`\n{}\n{}", self.what, self.stdout, self.stderr);
        self.stdout
    }
}
