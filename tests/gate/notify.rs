//! `bellwether gate --notify`: a service for flags hears once of a canary that is to be rolled back, and can check who says so.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{Arm, runs_of, tables};
use crate::common::bellwether;
use crate::common::program::text;
use crate::monitoring::heartbeat::Listener;

const KEY: &str = "a key of at least twenty-four bytes";

/// Checks the signature of a request as Standard Webhooks describes, and returns the event.
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
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_sent_once_for_each_canary_signed() {
    let arms = [Arm::default(), Arm::canary("bad", 7), Arm::canary("worse", 8), Arm::canary("twin", 3)];
    let feed = tables(runs_of(&arms)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let flags = Listener::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (key, config) = (folder.path().join("key"), folder.path().join("bellwether.toml"));
    std::fs::write(&key, KEY).expect("written");
    let webhook = |name: &str, address: &str| {
        format!(
            "[deliver.sinks.{name}]\nkind = \"webhook\"\nurl = \"http://{address}/hook\"\nkeys = [{{ file = \"{}\" }}]\n\
             allow_private = true\n",
            text(&key)
        )
    };
    let inbox = "[deliver.sinks.inbox]\nkind = \"inbox\"\nstdout = true\n";
    let all = [webhook("flags", &flags.address), webhook("absent", &free.to_string()), inbox.to_owned()].concat();
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
    let reachable = std::fs::read_to_string(&config).expect("written").replace(&free.to_string(), &flags.address);
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
