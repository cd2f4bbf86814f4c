//! The gate over HTTP, asked as the documents of Argo Rollouts and Flagger say that they ask.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::{Arm, runs_of, setup_over, tables};
use crate::common::program::Running;
use crate::common::until_or;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Returns the address that a process serves.
pub(super) fn address(process: &Running) -> String {
    until_or(
        || {
            let printed = process.printed();
            let (_, rest) = printed.split_once("health=\"http://").or_else(|| printed.split_once("http://"))?;
            rest.split_once("/healthz").map(|(address, _)| address.to_owned())
        },
        || process.printed(),
    )
}

/// Sends a request; returns the status, the head and the body.
pub(super) fn send(address: &str, request: &str, headers: &[&str], body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("it has a head");
    let status = head.split_whitespace().nth(1).expect("a status").parse().expect("a number");
    (status, head.to_owned(), body.to_owned())
}

/// The payload of a webhook, as in Flagger's documentation (fluxcd/flagger, docs/gitbook/usage/webhooks.md).
pub(super) fn webhook(metadata: Value) -> String {
    json!({ "name": "podinfo", "namespace": "test", "phase": "Progressing", "checksum": "85d557f47b", "metadata": metadata })
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argo_rollouts_and_flagger_get_what_their_documents_say() {
    let feed = tables(runs_of(&[
        Arm::default(),
        Arm { minutes: (110, 10), ..Arm::canary("twin", 3) },
        Arm { minutes: (109, 10), ..Arm::canary("bad", 7) },
    ]))
    .await;
    let setup = setup_over(&feed, "");
    let process = setup.start("aggregate");
    let address = address(&process);

    // Argo Rollouts (argoproj/argo-rollouts, docs/analysis/web.md): a GET whose JSON body is read by a jsonPath.
    for (canary, decision) in [("twin", "promote"), ("bad", "roll_back"), ("none", "hold")] {
        let request = format!("GET /api/v1/gate?task=refunds&canary={canary}&baseline=v1");
        let (status, head, body) = send(&address, &request, &[], "");
        assert_eq!(status, 200, "{body}");
        assert!(head.to_lowercase().contains("content-type: application/json"), "{head}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["decision"], json!(decision), "{body:#}");
    }
    for (query, status, expected) in [
        ("task=refund&canary=twin", 404, "no run of task"),
        ("canary=twin", 400, "`task` is missing"),
        ("task=refunds&canary=twin&baseline=twin", 400, "are the same release"),
        ("task=refunds&canary=twin&mode=soon", 400, "`mode` is `soon`"),
        ("task=refunds&canari=twin", 400, "canari"),
        ("task=refunds&canary=twin&token=x", 400, "in an address"),
    ] {
        let (found, _, body) = send(&address, &format!("GET /api/v1/gate?{query}"), &[], "");
        assert_eq!(found, status, "{query}: {body}");
        assert!(body.contains(expected), "{query}: {body}");
    }

    // Flagger: 200 confirms or rolls back, anything else does not.
    let hook = |kind: &str, metadata: Value| {
        send(
            &address,
            &format!("POST /api/v1/gate/flagger/{kind}"),
            &["Content-Type: application/json"],
            &webhook(metadata),
        )
    };
    let of = |canary: &str| json!({ "task": "refunds", "canary": canary, "baseline": "v1" });
    assert_eq!(hook("confirm", of("twin")).0, 200);
    assert_eq!(hook("rollback", of("twin")).0, 403);
    let (status, _, body) = hook("confirm", of("bad"));
    assert_eq!(status, 403);
    assert!(body.starts_with("roll back: worse than the margin"), "{body}");
    assert_eq!(hook("rollback", of("bad")).0, 200);
    assert_eq!((hook("confirm", of("none")).0, hook("rollback", of("none")).0), (403, 403), "no runs hold");
    // Without a release, the newest canary is meant.
    assert_eq!(hook("rollback", json!({ "task": "refunds" })).0, 200);
    let (status, _, body) = hook("rollback", json!({ "task": "refunds", "release": "bad" }));
    assert!(status == 400 && body.contains("`test/podinfo`"), "{status} {body}");
    let (status, _, body) = send(&address, "POST /api/v1/gate/flagger/rollback", &[], "not JSON");
    assert!(status == 400 && body.contains("no webhook of Flagger"), "{status} {body}");
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_required_and_beyond_loopback_there_is_no_gate_without_one() {
    let feed = tables(runs_of(&[Arm { per_minute: 1, ..Arm::default() }])).await;
    let with = |extra: &str| setup_over(&feed, extra);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    let setup = with(&format!("[gate]\ntoken_file = \"{}\"\n", file.display()));
    let process = setup.start("aggregate");
    let served = address(&process);
    let request = "GET /api/v1/gate?task=refunds&canary=v2";
    let (status, head, body) = send(&served, request, &[], "");
    assert!(status == 401 && head.to_lowercase().contains("www-authenticate: bearer"), "{head}\n{body}");
    assert_eq!(send(&served, request, &["Authorization: Bearer wrong"], "").0, 401);
    assert_eq!(send(&served, request, &[&format!("Authorization: Bearer {TOKEN}")], "").0, 200);
    let hook = |token: &str| {
        let body = webhook(json!({ "task": "refunds", "canary": "v2", "token": token }));
        send(&served, "POST /api/v1/gate/flagger/rollback", &[], &body).0
    };
    assert_eq!((hook("wrong"), hook(TOKEN)), (401, 403), "the right token gets an answer, which is to hold");
    assert_eq!(send(&served, "GET /healthz", &[], "").0, 200, "health needs no token");
    // A replaced token counts at once.
    std::fs::write(&file, "fedcba9876543210fedcba9876543210").expect("written");
    assert_eq!(send(&served, request, &[&format!("Authorization: Bearer {TOKEN}")], "").0, 401);
    process.stop();

    let setup = with("[serve]\naddress = \"0.0.0.0:0\"\n");
    let process = setup.start("aggregate");
    let port = address(&process).rsplit(':').next().expect("a port").to_owned();
    let (status, _, body) = send(&format!("127.0.0.1:{port}"), request, &[], "");
    assert!(status == 403 && body.contains("gate.token_file"), "{status} {body}");
    process.stop();

    std::fs::write(&file, "short").expect("written");
    let setup = with(&format!("[gate]\ntoken_file = \"{}\"\n", file.display()));
    let ended = Running::role("aggregate", &setup.config()).end();
    assert!(ended.stderr.contains("shorter than 16 characters"), "{}", ended.stderr);
    ended.exits_with(2);
}
