//! `bellwether gate --notify` and `gate.notify`: a service for flags hears once of a canary that is to be rolled back, and can
//! check who says so.

use std::net::TcpListener;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::http::{address, send};
use super::{Arm, runs_of, setup_over, tables};
use crate::common::program::{Running, text};
use crate::common::{bellwether, repository, until};
use crate::monitoring::heartbeat::Listener;

const KEY: &str = "a key of at least twenty-four bytes";

/// Returns a validator of a schema in the repository that also refuses fields that the schema does not name.
fn strict(path: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(repository(path)).expect("the schema can be read");
    let mut schema: Value = serde_json::from_str(&text).expect("JSON");
    close(&mut schema);
    jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema")
}

/// Closes every object that has a list of required fields: conditions have none.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.contains_key("description") {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

fn assert_valid(schema: &jsonschema::Validator, value: &Value) {
    let errors: Vec<String> =
        schema.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{}\n{value:#}", errors.join("\n"));
}

/// Checks a request: its signature as Standard Webhooks describes, the event by the schema of CloudEvents, and its data by the
/// published one. Returns the event.
fn verified(request: &str) -> Value {
    let (head, body) = request.split_once("\r\n\r\n").expect("a request");
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.to_lowercase().strip_prefix(&format!("{name}:")).map(|_| line));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).expect(name)
    };
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    assert_eq!(header("webhook-signature"), format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    let event: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(event["id"], Value::from(id));
    assert_valid(&strict("deliver/sinks/tests/data/cloudevents.schema.json"), &event);
    assert_eq!(event["dataschema"], "urn:bellwether:rollback:1");
    assert_valid(&strict("docs/rollback.schema.json"), &event["data"]);
    event
}

/// Returns the section of a webhook on loopback.
fn webhook(name: &str, address: &str, key: &Path) -> String {
    format!(
        "[deliver.sinks.{name}]\nkind = \"webhook\"\nurl = \"http://{address}/hook\"\nkeys = [{{ file = \"{}\" }}]\n\
         allow_private = true\n",
        text(key)
    )
}

/// Returns an address on which nothing listens.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_sent_once_for_each_canary_signed() {
    let arms = [Arm::default(), Arm::canary("bad", 7), Arm::canary("worse", 8), Arm::canary("twin", 3)];
    let feed = tables(runs_of(&arms)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let flags = Listener::start();
    let free = free_address();
    let (key, config) = (folder.path().join("key"), folder.path().join("bellwether.toml"));
    std::fs::write(&key, KEY).expect("written");
    let inbox = "[deliver.sinks.inbox]\nkind = \"inbox\"\nstdout = true\n";
    let all = [webhook("flags", &flags.address, &key), webhook("absent", &free, &key), inbox.to_owned()].concat();
    std::fs::write(&config, format!("[tables]\nroot = \"{}\"\n{all}", text(feed.root()))).expect("written");
    let gate = |canary: &str, sink: &str| {
        let config = text(&config);
        bellwether(&["gate", "--config", config, "--task", "refunds", "--canary", canary, "--notify", sink])
    };
    let sent = || flags.with("POST /hook");

    // Nothing but a rollback is sent, and a rollback once.
    gate("twin", "flags").exits_with(0);
    assert_eq!(sent().len(), 0);
    gate("bad", "flags").exits_with(2);
    gate("bad", "flags").exits_with(2);
    let requests = sent();
    assert_eq!(requests.len(), 1, "{requests:#?}");
    let event = verified(&requests[0]);
    assert_eq!((&event["type"], &event["specversion"]), (&"bellwether.rollback".into(), &"1.0".into()));
    let data = &event["data"];
    assert_eq!((&data["format"], &data["task"]), (&"bellwether.rollback/1".into(), &"refunds".into()));
    assert_eq!((&data["canary"], &data["baseline"]), (&"bad".into(), &"v1".into()));
    assert_eq!(data["answer"]["decision"], "roll_back");

    // A webhook that cannot be reached changes no decision, and nothing is lost: the next command sends it.
    let ended = gate("worse", "absent");
    assert!(ended.stderr.contains("sink `absent` was not notified"), "{}", ended.stderr);
    ended.exits_with(2);
    let reachable = std::fs::read_to_string(&config).expect("written").replace(&free, &flags.address);
    std::fs::write(&config, reachable).expect("written");
    gate("worse", "absent").exits_with(2);
    let requests = sent();
    assert_eq!(requests.len(), 2, "{requests:#?}");
    let later = verified(&requests[1]);
    assert_eq!(later["data"]["canary"], "worse");
    assert_ne!(later["id"], event["id"]);

    for (sink, expected) in [("none", "there is no sink `none`"), ("inbox", "is of kind `inbox`, not `webhook`")] {
        let ended = gate("bad", sink);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
        ended.exits_with(64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_gate_notifies_once_and_goes_on_until_the_webhook_answers() {
    let arms = [Arm::default(), Arm::canary("bad", 7), Arm::canary("worse", 8), Arm::canary("twin", 3)];
    let feed = tables(runs_of(&arms)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (key, free) = (folder.path().join("key"), free_address());
    std::fs::write(&key, KEY).expect("written");
    let with = |extra: &str| setup_over(&feed, extra);
    let setup = with(&format!("[gate]\nnotify = \"flags\"\n{}", webhook("flags", &free, &key)));
    let process = setup.start("aggregate");
    let gate = address(&process);
    let ask = |canary: &str| {
        let request = format!("GET /api/v1/gate?task=refunds&canary={canary}&baseline=v1");
        let (status, _, body) = send(&gate, &request, &[], "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")["decision"].clone()
    };
    // Nothing listens: the answers come all the same.
    assert_eq!(
        (ask("twin"), ask("bad"), ask("bad"), ask("worse")),
        ("promote".into(), "roll_back".into(), "roll_back".into(), "roll_back".into())
    );
    // No one asks again, and both rollbacks arrive once the webhook listens.
    let flags = Listener::at(&free);
    let canaries = || {
        let mut sent: Vec<String> =
            flags.with("POST /hook").iter().map(|it| verified(it)["data"]["canary"].to_string()).collect();
        sent.sort();
        sent
    };
    until("both rollbacks arrive", || (canaries().len() == 2).then_some(()));
    let noted = || std::fs::read_dir(feed.root().join("_done")).map_or(0, Iterator::count);
    until("both are noted", || (noted() == 2).then_some(()));
    // Further questions send nothing, neither here nor by command or webhooks of Flagger.
    assert_eq!(ask("bad"), "roll_back");
    let hook = super::http::webhook(serde_json::json!({ "task": "refunds", "canary": "worse", "baseline": "v1" }));
    assert_eq!(send(&gate, "POST /api/v1/gate/flagger/rollback", &[], &hook).0, 200);
    let config = setup.config();
    let arguments = ["gate", "--config", text(&config), "--task", "refunds", "--canary", "bad", "--notify", "flags"];
    bellwether(&arguments).exits_with(2);
    process.stop();
    assert_eq!(canaries(), ["\"bad\"", "\"worse\""]);

    // A sink that is none, or of another kind, is found before anything starts.
    let inbox = "[deliver.sinks.flags]\nkind = \"inbox\"\nstdout = true\n";
    for sinks in ["", inbox] {
        let setup = with(&format!("[gate]\nnotify = \"flags\"\n{sinks}"));
        let ended = Running::role("aggregate", &setup.config()).end();
        assert!(ended.stderr.contains("`gate.notify` is `flags`, but no sink of kind webhook"), "{}", ended.stderr);
        ended.exits_with(2);
    }
}
