//! `deploy/examples/flags`: its receiver turns a flag off when the gate says so, and obeys no one else.

use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_base::{Clock, SystemClock};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::http::send;
use super::{Arm, runs_of, tables};
use crate::common::program::{Running, bellwether, text};
use crate::common::{python, repository, until_or};

const KEY: [u8; 32] = [7; 32];

fn example(name: &str) -> std::path::PathBuf {
    repository("deploy/examples/flags").join(name)
}

fn flag(flags: &Path) -> Value {
    let text = std::fs::read_to_string(flags).expect("the flags can be read");
    serde_json::from_str::<Value>(&text).expect("JSON")["flags"]["refund-triage-release"].clone()
}

/// Returns the headers of a message of this time, signed with a key.
fn signed(body: &str, at: i64, key: &[u8]) -> [String; 3] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    mac.update(format!("id-1.{at}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    ["webhook-id: id-1".to_owned(), format!("webhook-timestamp: {at}"), format!("webhook-signature: v1,{signature}")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_turns_the_canary_off_once_the_gate_says_so_and_obeys_no_one_else() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let [key, flags, config] = ["key", "flags.json", "bellwether.toml"].map(|name| folder.path().join(name));
    std::fs::write(&key, format!("whsec_{}\n", STANDARD.encode(KEY))).expect("written");
    std::fs::copy(example("flags.json"), &flags).expect("copied");
    let mut command = Command::new(python);
    command.arg(example("receiver.py")).args([&key, &flags]).arg("0");
    let receiver = Running::spawn(&mut command, "receiver.py".to_owned());
    let port = until_or(
        || receiver.printed().trim().strip_prefix("listening on port ").map(str::to_owned),
        || receiver.printed(),
    );
    let address = format!("127.0.0.1:{port}");

    // Messages that are forged, replayed later, or not signed change nothing.
    let body = json!({ "type": "bellwether.rollback", "data": { "canary": "v18", "baseline": "v17" } }).to_string();
    let now = SystemClock.now_micros() / 1_000_000;
    let before = flag(&flags);
    let refused = [
        (signed(&body, now, &[8; 32]), "signature is wrong"),
        (signed(&body.replace("v18", "v17"), now, &KEY), "signature is wrong"),
        (signed(&body, now - 301, &KEY), "too old"),
        (signed(&body, now + 400, &KEY), "from the future"),
        (["x-none: 1", "x-none: 2", "x-none: 3"].map(str::to_owned), "not signed"),
    ];
    for (headers, expected) in refused {
        let (status, _, answer) = send(&address, "POST /", &headers.each_ref().map(String::as_str), &body);
        assert!(status == 401 && answer.contains(expected), "{expected}: {status} {answer}");
    }
    assert_eq!(flag(&flags), before);

    // The gate, with the configuration of the example.
    let arms = [Arm { release: "v17", ..Arm::default() }, Arm::canary("v18", 7), Arm::canary("v19", 7)];
    let feed = tables(runs_of(&arms)).await;
    let shipped = std::fs::read_to_string(example("bellwether.toml")).expect("the example can be read");
    let changed = shipped.replace("/run/secrets/flags-key", text(&key)).replace("127.0.0.1:8087", &address);
    std::fs::write(&config, format!("{changed}\n[tables]\nroot = \"{}\"\n", text(feed.root()))).expect("written");
    let gate = |canary: &str| {
        bellwether(&[
            "gate",
            "--config",
            text(&config),
            "--task",
            "refunds",
            "--canary",
            canary,
            "--baseline",
            "v17",
            "--notify",
            "flags",
        ])
    };
    gate("v18").exits_with(2);
    let off = flag(&flags);
    assert_eq!((&off["defaultVariant"], &off["targeting"]), (&json!("baseline"), &json!({})), "{off:#}");
    assert_eq!((&off["state"], &off["variants"]), (&before["state"], &before["variants"]));
    // A release that no flag serves is an error of the setup, and is reported as one.
    let ended = gate("v19");
    assert!(ended.stderr.contains("no flag serves both `v19` and `v17`"), "{}", ended.stderr);
    ended.exits_with(2);
    receiver.kill();
}
