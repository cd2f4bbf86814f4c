//! Snapshots of what a person reads: summaries of commands, errors, and titles of alerts. `docs/cli.md` holds the whole help.
//!
//! `make snapshots` writes them; read the diff. Paths of temporary folders appear as `[dir]`.

use std::fmt::Write;

use insta::assert_snapshot;

use crate::common::event::run;
use crate::common::program::text;
use crate::common::{Setup, bellwether};
use crate::earlier;

/// Commands in a shell's notation, each followed by what it prints and its exit code.
struct Transcript<'a> {
    setup: &'a Setup,
    text: String,
}

// === impl Transcript ===

impl<'a> Transcript<'a> {
    fn new(setup: &'a Setup) -> Self {
        Self { setup, text: String::new() }
    }

    /// Runs a command; `[dir]` in an argument is the folder of the setup.
    fn run(&mut self, arguments: &[&str]) {
        let dir = self.setup.file("");
        let dir = text(&dir).trim_end_matches('/');
        let given: Vec<String> = arguments.iter().map(|argument| argument.replace("[dir]", dir)).collect();
        let ended = bellwether(&given.iter().map(String::as_str).collect::<Vec<_>>());
        let quoted: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        let printed = format!("{}{}", ended.stdout, ended.stderr).replace(dir, "[dir]");
        write!(self.text, "$ bellwether {}\n{}\n", quoted.join(" "), printed.trim_end()).expect("a string grows");
        if let Some(code) = ended.code.filter(|code| *code != 0) {
            writeln!(self.text, "[exit code {code}]").expect("a string grows");
        }
        self.text.push('\n');
    }
}

/// Returns an argument as a shell takes it.
fn quoted(argument: &str) -> String {
    if argument.contains([' ', '*', '(', '\'']) { format!("\"{argument}\"") } else { argument.to_owned() }
}

/// Returns a setup whose configuration has further text.
fn setup(extra: &str) -> Setup {
    Setup::new("127.0.0.1:9", "llm.runs", extra)
}

#[test]
fn summaries_of_commands() {
    let setup = setup("");
    let mut transcript = Transcript::new(&setup);
    transcript.run(&["-h"]);
    for command in [
        "run",
        "ingest",
        "aggregate",
        "watch",
        "deliver",
        "alerts",
        "rules",
        "rebuild",
        "erase",
        "sql",
        "audit",
        "schema",
        "check",
    ] {
        transcript.run(&[command, "-h"]);
    }
    for command in ["replay", "demo", "config"] {
        transcript.run(&[command, "-h"]);
    }
    for sub in ["list", "show", "ack", "unack", "silence", "unsilence", "feedback"] {
        transcript.run(&["alerts", sub, "-h"]);
    }
    for (command, sub) in [("deliver", "routes"), ("deliver", "test"), ("check", "config"), ("check", "event")] {
        transcript.run(&[command, sub, "-h"]);
    }
    for sub in ["list", "check", "test", "replay"] {
        transcript.run(&["rules", sub, "-h"]);
    }
    assert_snapshot!(transcript.text);
}

#[test]
fn errors_of_the_command_line() {
    let setup = setup("");
    let mut transcript = Transcript::new(&setup);
    transcript.run(&["ingset"]);
    transcript.run(&["erase"]);
    transcript.run(&["erase", "--tenant", "acme"]);
    transcript.run(&["run", "--config", "[dir]/nowhere.toml"]);
    transcript.run(&["replay", "[dir]/nowhere.ndjson", "--to", "tables", "--config", "[dir]/bellwether.toml"]);
    transcript.run(&["replay", "[dir]/bellwether.toml", "--to", "nowhere", "--config", "[dir]/bellwether.toml"]);
    transcript.run(&["audit", "--root", "[dir]/nowhere"]);
    transcript.run(&["sql", "--root", "[dir]/nowhere", "SELECT 1"]);
    transcript.run(&["check", "event", "[dir]/nowhere.json"]);
    assert_snapshot!(transcript.text);
}

#[test]
fn errors_of_the_configuration() {
    let setup = setup(
        "[ingest]\nflush_intervall = \"1s\"\nflush_bytes = \"many\"\nmax_event_depth = 0\n\
        [kafka.security]\nprotocol = \"tls\"\n[contracts.refund_triage]\nsuccess = 95\n",
    );
    let mut transcript = Transcript::new(&setup);
    transcript.run(&["check", "config", "[dir]/bellwether.toml"]);
    std::fs::write(setup.file("no.toml"), "tables = [").expect("a file is written");
    transcript.run(&["check", "config", "[dir]/no.toml"]);
    std::fs::write(setup.file("secret.toml"), "[kafka.security]\npassword = { env = \"BELLWETHER_NO_SUCH_SECRET\" }\n")
        .expect("a file is written");
    transcript.run(&["check", "config", "[dir]/secret.toml"]);
    assert_snapshot!(transcript.text);
}

#[test]
fn errors_of_events() {
    let setup = setup("[ingest]\nmax_event_age = \"36500d\"\n");
    let mut wrong = run("wrong");
    wrong["data"]["outcome"]["status"] = "won".into();
    wrong["data"]["started_at"] = "yesterday".into();
    wrong["data"]["ended_at"] = serde_json::Value::Null;
    wrong["data"]["tokens"]["input"] = (-1).into();
    wrong["data"]["cost"] = serde_json::json!({"amount": "a dollar"});
    wrong["data"]["release"] = "v1".into();
    let lines = format!("{wrong}\n{{\"spec\": \"run-event/1.0\"}}\nnot json\n[]\n");
    std::fs::write(setup.file("events.ndjson"), lines).expect("a file is written");
    let mut transcript = Transcript::new(&setup);
    transcript.run(&["check", "event", "[dir]/events.ndjson"]);
    assert_snapshot!(transcript.text);
}

#[test]
fn errors_of_sql_and_alerts() {
    let setup = earlier::recorded(earlier::ROOTS[0], "127.0.0.1:9");
    let mut transcript = Transcript::new(&setup);
    for query in [
        "SELEKT 1",
        "SELECT success_rat FROM rolling",
        "SELECT * FROM run",
        "SELECT wilson_lo(1, 2)",
        "SELECT wilson_low('a', 2)",
        "SELECT 1 / 0",
        "DROP TABLE events",
        "SELECT * FROM '/etc/hostname'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        transcript.run(&["sql", "--root", "[dir]/tables", query]);
    }
    transcript.run(&["sql", "--root", "[dir]/tables", "--format", "xml", "SELECT 1"]);
    transcript.run(&["alerts", "show", "nothing", "--root", "[dir]/tables"]);
    for wrong in [
        &["list", "--label", "task"][..],
        &["ack", "nothing"],
        &["ack", "nothing", "--by", ""],
        &["silence", "--for", "2h", "--reason", "test"],
        &["silence", "task=~\".*\"", "--for", "2h", "--reason", "test"],
        &["silence", "task=other", "--reason", "test"],
        &["silence", "task=other", "--for", "9000h", "--reason", "test"],
        &["silence", "task=~\"(\"", "--for", "2h", "--reason", "test"],
        &["silence", "4f80", "task=other", "--for", "2h", "--reason", "test"],
        &["unsilence", "nothing"],
        &["feedback", "nothing", "useful"],
        &["feedback", "nothing", "good"],
    ] {
        let person: &[&str] = if wrong[0] == "list" || wrong.contains(&"--by") { &[] } else { &["--by", "ada"] };
        transcript.run(&[&["alerts"], wrong, person, &["--root", "[dir]/tables"]].concat());
    }
    transcript.run(&[
        "rules",
        "replay",
        "--rule",
        "succes_regression",
        "--from",
        "2026-11-23",
        "--to",
        "2026-11-24",
        "--root",
        "[dir]/tables",
    ]);
    let wrong_times = ["--from", "2026-11-24", "--to", "2026-11-23"];
    transcript.run(
        &[&["rules", "replay", "--rule", "success_regression", "--root", "[dir]/tables"], &wrong_times[..]].concat(),
    );
    assert_snapshot!(transcript.text);
}

#[test]
fn titles_of_alerts() {
    // Judged again by the present program: the recorded alerts are left out.
    let setup = earlier::recorded(earlier::ROOTS[0], "127.0.0.1:9");
    std::fs::remove_dir_all(setup.root().join("alerts")).expect("the alerts are removed");
    bellwether(&["watch", "--until-caught-up", "--config", text(&setup.config())]).succeeds();
    let alerts = setup.sql(
        "SELECT rule, severity, state, change, why, title FROM alerts ORDER BY rule, at, state DESC, change, title",
    );
    let mut titles = String::new();
    for alert in &alerts {
        let field = |name: &str| alert[name].as_str().unwrap_or("-").to_owned();
        let [rule, severity, state, change, why] = ["rule", "severity", "state", "change", "why"].map(field);
        writeln!(titles, "{rule} ({severity}): {state}, {change}, {why}\n  {}", field("title"))
            .expect("a string grows");
    }
    assert_snapshot!(titles);
}
