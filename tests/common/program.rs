//! The built program: its configuration, its runs, its answers.

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

/// A folder with a configuration and the tables it names.
#[derive(Debug)]
pub(crate) struct Setup {
    dir: TempDir,
    /// The tables are in a store that only the configuration knows how to reach.
    remote: bool,
}

/// What a configuration is to say.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) brokers: &'a str,
    pub(crate) topics: &'a [&'a str],
    /// Keys of `[tables]`; without them the tables are in a folder of their own.
    pub(crate) tables: Option<&'a str>,
    /// Further keys of `[kafka]`.
    pub(crate) kafka: &'a str,
    /// Further TOML, such as `[ingest]` with its keys.
    pub(crate) extra: &'a str,
}

/// The program, started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: [Arc<Mutex<Vec<u8>>>; 2],
    readers: Vec<JoinHandle<()>>,
    what: String,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    what: String,
}

// === impl Setup ===

impl Setup {
    /// A configuration for a broker and a topic; `extra` is further TOML, such as `[ingest]` with its keys.
    pub(crate) fn new(brokers: &str, topic: &str, extra: &str) -> Self {
        Self::with(&Wanted { brokers, topics: &[topic], extra, ..Wanted::default() })
    }

    /// A configuration with a group of its own.
    pub(crate) fn with(wanted: &Wanted<'_>) -> Self {
        let Wanted { brokers, topics, tables, kafka, extra } = wanted;
        let dir = TempDir::with_prefix("bellwether-test-").expect("a temporary folder");
        let setup = Self { dir, remote: tables.is_some() };
        let mut text = match tables {
            Some(tables) => format!("[tables]\n{tables}"),
            None => format!("[tables]\nroot = \"{}\"\n", setup.root().display()),
        };
        let group = format!("tests-{}", bellwether_lake::unique_id().simple());
        write!(text, "[kafka]\nbrokers = [\"{brokers}\"]\ntopics = {topics:?}\ngroup = \"{group}\"\n{kafka}")
            .expect("text grows");
        if !extra.contains("[serve]") {
            text.push_str("[serve]\naddress = \"127.0.0.1:0\"\n");
        }
        text.push_str(extra);
        std::fs::write(setup.config(), text).expect("the configuration is written");
        setup
    }

    /// Another configuration beside it, changed in its text.
    pub(crate) fn other(&self, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
        let text = std::fs::read_to_string(self.config()).expect("the configuration is there");
        let (path, changed) = (self.file(name), change(text.clone()));
        assert_ne!(changed, text, "the other configuration is another one");
        std::fs::write(&path, changed).expect("the configuration is written");
        path
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("bellwether.toml")
    }

    /// Root of the tables.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("tables")
    }

    /// A file beside the tables.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Processes what is there.
    pub(crate) fn catch_up(&self) {
        self.catch_up_as(&self.config());
    }

    /// The same by another configuration.
    pub(crate) fn catch_up_as(&self, config: &Path) {
        bellwether(&["run", "--until-caught-up", "--config", text(config)]).succeeds();
    }

    /// Starts a role.
    pub(crate) fn start(&self, role: &str) -> Running {
        Running::role(role, &self.config())
    }

    /// Rows of an answer, each an object.
    pub(crate) fn sql(&self, query: &str) -> Vec<Value> {
        let (config, root) = (self.config(), self.root());
        let tables = if self.remote { ["--config", text(&config)] } else { ["--root", text(&root)] };
        let answer = bellwether(&["sql", tables[0], tables[1], "--format", "json", query]).succeeds();
        match serde_json::from_str(&answer) {
            Ok(Value::Array(rows)) => rows,
            other => panic!("`{query}` gave no list of rows: {other:?}\n{answer}"),
        }
    }

    /// The one number of an answer.
    pub(crate) fn number(&self, query: &str) -> i64 {
        let rows = self.sql(query);
        let value = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        value.and_then(Value::as_i64).unwrap_or_else(|| panic!("`{query}` gave no number: {rows:?}"))
    }
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}

/// Runs the program to its end.
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

    /// Starts a role by a configuration.
    pub(crate) fn role(role: &str, config: &Path) -> Self {
        Self::start(&[role, "--config", text(config)])
    }

    /// Starts any command and reads what it prints.
    pub(crate) fn spawn(command: &mut Command, what: String) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{what}` does not start: {error}"));
        let (stdout, out) = follow(child.stdout.take().expect("standard output is piped"));
        let (stderr, err) = follow(child.stderr.take().expect("standard error is piped"));
        Self { child, output: [stdout, stderr], readers: vec![out, err], what }
    }

    /// The most memory that it has had so far, bytes; none once it has ended.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|size| size << 10)
    }

    /// What it has printed so far: standard output, then standard error.
    pub(crate) fn printed(&self) -> String {
        let [out, err] = &self.output;
        format!("{}{}", read(out), read(err))
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "`{}` takes no signal {name}", self.what);
    }

    /// True while it has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("the program can be waited for").is_none()
    }

    /// Ends it at once, with no chance to do anything about it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("the program is killed");
        self.child.wait().expect("the program can be waited for");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let what = self.what.clone();
        let child = &mut self.child;
        let [out, err] = &self.output;
        let status = until_or(
            || child.try_wait().expect("the program can be waited for"),
            || format!("the end of `{what}`, which has printed:\n{}{}", read(out), read(err)),
        );
        for reader in self.readers.drain(..) {
            reader.join().expect("the output is read");
        }
        let [out, err] = &self.output;
        Ended { code: status.code(), stdout: read(out), stderr: read(err), what }
    }

    /// Status and body of an answer of its health and metrics service; none while it does not listen.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let printed = self.printed();
        let (_, rest) = printed.split_once("http://")?;
        let address: String =
            rest.chars().take_while(|letter| letter.is_ascii_digit() || matches!(letter, '.' | ':')).collect();
        let mut stream = TcpStream::connect(&address).ok()?;
        stream.set_read_timeout(Some(patience())).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails half-way must leave no process behind; one that has ended needs no killing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn follow(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&kept);
    let reader = std::thread::spawn(move || {
        let mut piece = [0_u8; 8192];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            shared.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..length]);
        }
    });
    (kept, reader)
}

fn read(kept: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

// === impl Ended ===

impl Ended {
    /// Standard output, of a run that must have ended well.
    pub(crate) fn succeeds(self) -> String {
        self.exits_with(0)
    }

    /// Standard output, of a run that must have ended with a code.
    pub(crate) fn exits_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "`{}`\n{}\n{}", self.what, self.stdout, self.stderr);
        self.stdout
    }
}
