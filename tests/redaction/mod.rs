//! Redaction by the whole program: planted values reach no byte of the tables, the pages, the logs and an export.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::util::display::array_value_to_string;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::common::broker::{Message, broker};
use crate::common::program::{KEEP_HISTORY, Running, text};
use crate::common::{Setup, bellwether};
use crate::pipeline::alerts::canary;

/// A value of each kind, with the part of it that may appear nowhere.
const PLANTED: [(&str, &str); 12] = [
    ("planted.person@secret-mail.example", "planted.person"),
    ("4111 1111 1111 1111", "4111 1111 1111 1111"),
    ("5500005555555559", "5500005555555559"),
    ("DE89370400440532013000", "DE89370400440532013000"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F292c6912E7710c838347Ae178B4a"),
    ("password: hunter22planted", "hunter22planted"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P", "dozjgNryP4J3jVmNHl0w5N"),
    ("+44 20 7946 0958", "7946 0958"),
    ("203.0.113.77", "203.0.113.77"),
    ("postgres://ann:s3cretplanted@db.example.org", "s3cretplanted"),
    ("078-05-1120", "078-05-1120"),
    ("Zebedee Quill", "Zebedee Quill"),
];

const KEY: &str = "a key of placeholders that is secret";

/// Puts a value into every text of a run that is no id.
fn plant(event: &mut Value, value: &str) {
    let said = format!("say {value} twice");
    let data = &mut event["data"];
    let failed = data["outcome"]["status"] == "failure";
    data["outcome"]["reason_code"] = json!(said);
    data["outcome"]["finish_reason"] = json!(said);
    if failed {
        data["failure_point"] = json!({ "component": said, "step": said, "error_type": said });
    }
    data["content"] = json!({ "input": said, "output": format!("{{\"to\": \"{value}\"}}"), said.as_str(): 1 });
    data["steps"] = json!([{ "name": "answer", "note": said }]);
    data["segments"] = json!({ "plan": said });
    data["escalation"] = json!({ "reason_code": said, "to": said, "resolution": said });
    data["validation"] =
        json!({ "valid": false, "fields": [{ "path": "/a", "valid": false, "rule": said, "message": said }] });
    data["tool_calls"] = json!([{ "name": "look_up", "status": "error", "error_type": said }]);
    data["policy_exceptions"] = json!([{ "policy_id": "p", "severity": "high", "component": said, "native_result": { "type": "t", "value": said } }]);
    data["scores"] = json!([{ "name": "quality", "kind": "llm", "evaluator": { "id": "e" }, "value": 0.2, "passed": false,
        "label": said, "explanation": said, "reference": { "of": said } }]);
    data["unknown"] = json!({ said.as_str(): said });
}

/// Messages that are rejected, with a value in their keys and texts.
fn rejected(value: &str) -> [String; 4] {
    [
        format!("not JSON, but {value}"),
        json!({ "spec": "run-event/1.0", value: value, "data": { value: 1 } }).to_string(),
        format!(r#"{{"spec":"run-event/1.0","run_id":"r","data":{{"task":"t","{value}":1,"{value}":2,"release":7}}}}"#),
        format!(r#"{{"spec":"run-event/1.0","run_id":"r","type":"{value}","data":{{"started_at":"{value}"}}}}"#),
    ]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found
}

/// Returns all that a file says: its bytes and, of a Parquet file, every value. A text occurs once.
fn said(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("reads");
    let mut all = format!("{}\n{}", path.display(), String::from_utf8_lossy(&bytes));
    if path.extension().is_some_and(|extension| extension == "parquet") {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).expect("a Parquet file");
        let mut texts = BTreeSet::new();
        for batch in reader.build().expect("a reader").map(|batch| batch.expect("rows")) {
            for column in batch.columns() {
                texts.extend((0..batch.num_rows()).map(|row| array_value_to_string(column, row).expect("shows")));
            }
        }
        texts.iter().for_each(|text| {
            all.push('\n');
            all.push_str(text);
        });
    }
    all
}

#[test]
fn no_planted_value_reaches_a_table_a_page_a_log_or_an_export() {
    let Some(broker) = broker() else { return };
    let topic = broker.topic("redaction", 1);
    let setup = Setup::new(&broker.address, &topic, &format!("{KEEP_HISTORY}content = true\n[evals]\nsample = true\n"));
    let (inbox, key) = (setup.file("pages.ndjson"), setup.file("key"));
    std::fs::write(&key, KEY).expect("writes");
    let more = format!(
        "[redaction]\nnames = [\"zebedee quill\"]\nkey = {{ file = \"{}\" }}\n[deliver.sinks.file]\nkind = \"inbox\"\npath = \"{}\"\n",
        text(&key),
        text(&inbox)
    );
    let config = setup.other("with-sink.toml", |config| format!("{config}{more}"));
    let mut events = canary("checkout", 240, 3);
    for (at, event) in events.iter_mut().enumerate().step_by(5) {
        plant(event, PLANTED[at % PLANTED.len()].0);
    }
    broker.publish_events(&topic, 1, &events);
    let bad = PLANTED.iter().flat_map(|(value, _)| rejected(value)).map(Message::new);
    broker.publish(&topic, bad.collect::<Vec<_>>());

    // Everything that the program can log, from all roles.
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(["run", "--until-caught-up", "--config", text(&config)]).env("RUST_LOG", "bellwether=trace,info");
    let ended = Running::spawn(command.env("NO_COLOR", "1"), "bellwether run".to_owned()).end();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let mut logs = format!("{}\n{}", ended.stdout, ended.stderr);
    let counted = setup.sql("SELECT redaction['policy'] AS policy, count(*) AS n FROM events GROUP BY 1");
    assert_eq!(counted.len(), 1, "one policy: {counted:?}");
    assert!(counted[0]["policy"].as_str().is_some_and(|policy| policy.starts_with("3-")), "{counted:?}");
    assert_eq!(setup.number("SELECT count(*) FROM quarantine"), 4 * PLANTED.len() as i64);
    for table in ["events", "quarantine"] {
        let unmarked = format!("SELECT count(*) FROM {table} WHERE redaction['policy'] IS NULL");
        assert_eq!(setup.number(&unmarked), 0, "each row of {table} has the version of its policy");
    }
    assert!(setup.number("SELECT count(*) FROM candidates") > 0);
    assert!(inbox.exists(), "alerts were delivered");

    // What people write, and what they make of the runs.
    let alert = setup.sql("SELECT alert_id FROM alerts WHERE state = 'firing' LIMIT 1")[0]["alert_id"].clone();
    let alert = alert.as_str().expect("an id");
    for (value, _) in PLANTED {
        let arguments =
            ["alerts", "feedback", alert, "noise", "--by", "kim", "--reason", value, "--config", text(&config)];
        logs.push_str(&bellwether(&arguments).succeeds());
    }
    let runs = setup.sql("SELECT run_id, content_json FROM events WHERE content_json IS NOT NULL LIMIT 40");
    let cases: Vec<String> = runs
        .iter()
        .map(|run| {
            let input = [json!({ "role": "user", "content": run["content_json"] })];
            json!({ "id": run["run_id"], "task": "checkout", "input": input, "expected": "x" }).to_string()
        })
        .chain(PLANTED.iter().enumerate().map(|(at, (value, _))| {
            let input = [json!({ "role": "user", "content": format!("say {value} twice") })];
            json!({ "id": format!("typed-{at}"), "task": "checkout", "input": input, "expected": value }).to_string()
        }))
        .collect();
    let outside = tempfile::tempdir().expect("a folder");
    let (from, sets, export) = (outside.path().join("from"), outside.path().join("sets"), setup.file("export"));
    std::fs::write(&from, cases.join("\n")).expect("writes");
    let evalset =
        |arguments: &[&str]| bellwether(&[&["evalset"], arguments, &["--sets", text(&sets)]].concat()).succeeds();
    evalset(&["create", "checkout", "--from", text(&from), "--config", text(&config)]);
    evalset(&["freeze", "checkout"]);
    let made = files(&sets);
    evalset(&["export", "checkout", "--format", "inspect", "--output", text(&export), "--config", text(&config)]);

    let written = [files(&setup.root()), made, files(&export)].concat();
    let mut places: Vec<String> = written.iter().map(|path| said(path)).collect();
    places.extend([said(&inbox), logs]);
    let checked = bellwether(&["check", "config", text(&config)]).succeeds();
    places.push(checked);
    for (_, part) in PLANTED.iter().chain([&(KEY, KEY)]) {
        let held: Vec<&str> =
            places.iter().filter(|place| place.contains(part)).map(|place| excerpt(place, part)).collect();
        assert!(held.is_empty(), "{} places hold `{part}`: {held:#?}", held.len());
    }
    // The search would find a value.
    assert!(places.iter().any(|place| place.contains("say [EMAIL_")), "placeholders are there");
    assert!(places.iter().any(|place| place.contains("checkout")), "the values of Parquet files are read");
}

/// Returns the text around a part.
fn excerpt<'p>(place: &'p str, part: &str) -> &'p str {
    let at = place.find(part).expect("is there");
    let floor = |mut at: usize| {
        while !place.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    &place[floor(at.saturating_sub(100))..floor((at + part.len() + 40).min(place.len()))]
}
