//! E-mail by a real mail server.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bellwether_sinks::{Failure, Sink};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::Value;

use crate::common::{acknowledged, cache, notice, page, page_of, resolved, secret, sink, skipped};

/// A mail server that runs until it is dropped.
struct MailServer {
    child: Child,
    _input: ChildStdin,
    /// Read at once: a full pipe would stop the server.
    messages: Receiver<String>,
    port: u16,
    dir: tempfile::TempDir,
}

// === impl MailServer ===

impl MailServer {
    /// Starts the server with TLS as `mode` says, if the library is there.
    fn start(mode: &str, login: &[&str]) -> Option<Self> {
        let python = python()?;
        let dir = tempfile::tempdir().expect("a folder");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = (dir.path().join("ca.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, cert.pem()).expect("a file");
        std::fs::write(&key, signing_key.serialize_pem()).expect("a file");
        let mut child = Command::new(python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/smtp_server.py"))
            .arg(mode)
            .args([&certificate, &key])
            .args(login)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take().expect("its input");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("the mail server did not start: {line}"));
        let (sender, messages) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Some(Self { child, _input: input, messages, port, dir })
    }

    /// Returns a sink that sends by this server.
    fn sink(&self, to: &str, more: &str) -> Arc<dyn Sink> {
        sink(&format!(
            "kind = \"email\"\nhost = \"localhost\"\nport = {}\nfrom = \"Bellwether <bellwether@example.org>\"\nto = [\"{to}\"]\n\
             allow_private = true\n{more}\n",
            self.port
        ))
    }

    fn trusted(&self) -> String {
        format!("ca_file = \"{}\"", self.dir.path().join("ca.pem").display())
    }

    /// Waits for the next message.
    fn message(&self) -> Value {
        let line = self.messages.recv_timeout(Duration::from_secs(20)).expect("a message");
        serde_json::from_str(&line).expect("JSON")
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn python() -> Option<PathBuf> {
    let python = cache("venv/bin/python");
    let there = Command::new(&python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    skipped("no Python environment with aiosmtpd; `scripts/setup python` creates it");
    None
}

/// Returns the value of a header, unfolded.
fn header(message: &str, name: &str) -> String {
    let mut value = String::new();
    let mut inside = false;
    for line in message.split("\r\n").take_while(|line| !line.is_empty()) {
        if line.starts_with([' ', '\t']) {
            if inside {
                value.push_str(line);
            }
            continue;
        }
        inside = line.to_lowercase().starts_with(&format!("{}:", name.to_lowercase()));
        if inside {
            value = line[name.len() + 1..].trim().to_owned();
        }
    }
    value
}

#[tokio::test]
async fn the_messages_of_an_incident_are_one_thread() {
    let Some(server) = MailServer::start("plain", &[]) else { return };
    let sink = server.sink("on-call@example.org", "tls = \"none\"");
    let first = sink.send(&notice(vec![page()]), None).await.unwrap();
    assert_eq!(first.answer, "250 queued as 42");
    let again = sink.send(&notice(vec![page()]), None).await.unwrap();
    sink.send(&notice(vec![acknowledged(page())]), Some(&first)).await.unwrap();
    sink.send(&notice(vec![resolved(page())]), Some(&again)).await.unwrap();
    let messages: Vec<Value> = (0..4).map(|_| server.message()).collect();
    assert_eq!(messages[0]["from"], "bellwether@example.org");
    assert_eq!(messages[0]["to"], serde_json::json!(["on-call@example.org"]));
    let headers = |name: &str| -> Vec<String> {
        messages.iter().map(|message| header(message["message"].as_str().unwrap(), name)).collect()
    };
    let (ids, references) = (headers("Message-ID"), headers("References"));
    assert_eq!(ids[0], first.reference);
    assert_eq!(ids[0], ids[1], "a message that is sent twice has one id");
    assert!(ids[2] != ids[0] && ids[3] != ids[0] && ids[2] != ids[3], "{ids:?}");
    assert_eq!(references, ["", "", ids[0].as_str(), ids[0].as_str()]);
    assert_eq!(headers("In-Reply-To"), references);
    assert_eq!(headers("Date")[0], "Mon, 21 Sep 2026 14:13:20 +0000");
    let message = messages[0]["message"].as_str().unwrap();
    assert!(
        message.contains("multipart/alternative") && message.contains("text/plain") && message.contains("text/html")
    );
}

#[tokio::test]
async fn the_two_parts_say_the_same() {
    let Some(server) = MailServer::start("plain", &[]) else { return };
    let sink = server.sink("on-call@example.org", "tls = \"none\"");
    sink.send(&notice(vec![page()]), None).await.unwrap();
    let message = server.message()["message"].as_str().unwrap().to_owned();
    // Python reads it, as a client would.
    let script = "import sys, email, email.policy\n\
        m = email.message_from_string(sys.stdin.read(), policy=email.policy.default)\n\
        print(m['subject']); print('=' * 20)\n\
        print(m.get_body(('plain',)).get_content()); print('=' * 20)\n\
        print(m.get_body(('html',)).get_content())";
    insta::assert_snapshot!("email", read_by_python(script, &message));
}

fn read_by_python(script: &str, input: &str) -> String {
    use std::io::Write;
    let python = python().expect("Python");
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn hostile_text_adds_no_header_and_no_markup() {
    let Some(server) = MailServer::start("plain", &[]) else { return };
    let sink = server.sink("on-call@example.org", "tls = \"none\"");
    let hostile = "x\r\nBcc: victim@example.org\r\n\r\n<script>alert(1)</script>\" onload=\"x\r\n.\r\nQUIT";
    sink.send(&notice(vec![page_of(hostile, 3)]), None).await.unwrap();
    sink.send(&notice(vec![page_of(&"長".repeat(10_000), 50)]), None).await.unwrap();
    let received = server.message();
    assert_eq!(received["to"], serde_json::json!(["on-call@example.org"]));
    let message = received["message"].as_str().unwrap();
    assert_eq!(header(message, "Bcc"), "");
    let script = "import sys, email, email.policy\n\
        m = email.message_from_string(sys.stdin.read(), policy=email.policy.default)\n\
        print(sorted(m.keys())); print(m.get_body(('html',)).get_content())";
    let read = read_by_python(script, message);
    let names = "['Content-Type', 'Date', 'From', 'MIME-Version', 'Message-ID', 'Subject', 'To']";
    assert_eq!(read.lines().next(), Some(names));
    assert!(read.contains("&lt;script&gt;") && !read.contains("<script") && !read.contains("\" onload"), "{read}");
    let large = server.message()["message"].as_str().unwrap().len();
    assert!(large < 512 * 1024, "{large}");
}

#[tokio::test]
async fn a_connection_is_encrypted_and_the_password_accepted() {
    for mode in ["starttls", "tls"] {
        let Some(server) = MailServer::start(mode, &["bellwether", "p4ssword"]) else { return };
        let right =
            format!("username = \"bellwether\"\npassword = {}\n", secret(server.dir.path(), "right", "p4ssword"));
        let wrong =
            format!("username = \"bellwether\"\npassword = {}\n", secret(server.dir.path(), "wrong", "password"));
        let with = |login: &str, trusted: &str| format!("tls = \"{mode}\"\n{login}{trusted}");
        let to = "on-call@example.org";
        let trusted = server.trusted();
        server.sink(to, &with(&right, &trusted)).send(&notice(vec![page()]), None).await.unwrap();
        let received = server.message();
        // The library of the server knows of TLS that was there from the start only by its port.
        assert!(mode == "tls" || received["tls"] == true, "{received}");
        let failure = server.sink(to, &with(&wrong, &trusted)).send(&notice(vec![page()]), None).await.unwrap_err();
        let Failure::Refused { reason } = failure else { panic!("{failure:?}") };
        assert!(reason.contains("answered 535") && reason.contains("check `username` and `password`"), "{reason}");
        let failure = server.sink(to, &with(&right, "")).send(&notice(vec![page()]), None).await.unwrap_err();
        let Failure::Refused { reason } = failure else { panic!("{mode}: {failure:?}") };
        assert!(reason.contains("certificate") && reason.contains("`ca_file`"), "{reason}");
    }
}

#[tokio::test]
async fn a_server_without_encryption_gets_no_message() {
    let Some(server) = MailServer::start("plain", &[]) else { return };
    let failure = server.sink("on-call@example.org", "").send(&notice(vec![page()]), None).await.unwrap_err();
    let Failure::Refused { reason } = failure else { panic!("{failure:?}") };
    assert!(reason.contains("check `tls` and `port`"), "{reason}");
}

#[tokio::test]
async fn refusals_for_good_and_for_now_are_told_apart() {
    let Some(server) = MailServer::start("plain", &[]) else { return };
    let send = async |to: &str| server.sink(to, "tls = \"none\"").send(&notice(vec![page()]), None).await.unwrap_err();
    let failure = send("unknown@example.org").await;
    let Failure::Refused { reason } = failure else { panic!("{failure:?}") };
    assert!(reason.contains("answered 550") && reason.contains("no such mailbox"), "{reason}");
    let failure = send("busy@example.org").await;
    assert!(matches!(&failure, Failure::Later { reason, .. } if reason.contains("greylisted")), "{failure:?}");
}

#[tokio::test]
async fn a_private_or_absent_mail_server_is_reported() {
    let text = "kind = \"email\"\nhost = \"localhost\"\nport = 9\nfrom = \"b@example.org\"\nto = [\"a@example.org\"]\n";
    let failure = sink(text).send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(
        matches!(&failure, Failure::Refused { reason } if reason.contains("is not a public address")),
        "{failure:?}"
    );
    let allowed = sink(&format!("{text}allow_private = true"));
    let failure = allowed.send(&notice(vec![page()]), None).await.unwrap_err();
    assert!(matches!(&failure, Failure::Later { reason, .. } if reason.contains("efused")), "{failure:?}");
}
