//! `bellwether serve`: as a program with TLS and tokens, and as a role of `run`.

use std::net::SocketAddr;
use std::path::Path;

use bellwether_aggregate::AggregatorSettings;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::common::program::{ConfigText, Running, text};
use crate::common::{Setup, bellwether, until_or};
use crate::late::feed::{Feed, NOW};

/// Returns the base of the addresses that a process serves.
fn url(process: &Running) -> String {
    address(process, "url")
}

/// Returns the address that a process has printed under a name.
pub(super) fn address(process: &Running, name: &str) -> String {
    let name = format!("{name}=\"");
    until_or(
        || {
            let printed = process.printed();
            let (_, rest) = printed.split_once(&name)?;
            rest.split_once('"').map(|(address, _)| address.to_owned())
        },
        || process.printed(),
    )
}

/// Returns tables with runs of two tenants.
pub(super) async fn tables() -> Feed {
    let mut feed = Feed::new().await;
    let run = |tenant: &str, number: i64| {
        let text = |micros: i64| {
            let moment = arrow::temporal_conversions::timestamp_us_to_datetime(micros).expect("in range");
            moment.format("%Y-%m-%dT%H:%M:%SZ").to_string()
        };
        json!({
            "spec": "run-event/1", "type": "run.completed", "run_id": format!("{tenant}-{number}"), "source": "app",
            "tenant": tenant,
            "data": {
                "task": format!("{tenant}-task"), "release": { "id": "v1" },
                "started_at": text(NOW - 60_000_000 * number), "ended_at": text(NOW - 60_000_000 * number + 1_000_000),
                "outcome": { "status": "success" },
            },
        })
    };
    let runs: Vec<Value> = (1..=20).flat_map(|number| [run("acme", number), run("globex", number)]).collect();
    feed.commit_events(&runs).await;
    Box::pin(feed.aggregate(AggregatorSettings::default())).await;
    feed
}

pub(super) fn with(feed: &Feed, extra: &str) -> Setup {
    let tables = format!("root = \"{}\"\n", feed.root().display());
    let config =
        ConfigText { brokers: "127.0.0.1:1", topics: &["t"], tables: Some(&tables), extra, ..ConfigText::default() };
    Setup::with(&config)
}

/// Writes a certificate for the name `bellwether.test`, and its key.
pub(super) fn certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["bellwether.test".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    format!("certificate_file = \"{}\"\nkey_file = \"{}\"\n", certificate.display(), key.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_answers_by_tls_to_those_who_have_a_token() {
    let feed = tables().await;
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens.toml");
    let api = format!(
        "[api]\naddress = \"0.0.0.0:0\"\ntokens_file = \"{}\"\n{}",
        tokens.display(),
        certificate(folder.path())
    );
    let setup = with(&feed, &api);
    let config = setup.config();
    let token = |more: &[&str]| {
        let mut arguments = vec!["serve", "token"];
        arguments.extend(more);
        arguments.extend(["--config", text(&config)]);
        bellwether(&arguments)
    };
    let ended = Running::role("serve", &config).end();
    assert!(
        ended.stderr.contains("cannot read the tokens") && ended.stderr.contains("serve token add"),
        "{}",
        ended.stderr
    );
    ended.exits_with(2);
    let acme = token(&["add", "acme-pages", "--tenant", "acme", "--valid", "90d"]).succeeds().trim_end().to_owned();
    let brief = token(&["add", "brief", "--valid", "1us"]).succeeds().trim_end().to_owned();
    let process = setup.start("serve");
    let served = url(&process);
    let port = served.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    assert!(served.starts_with("https://"), "{served}");
    let pem = std::fs::read(folder.path().join("tls.crt")).expect("a certificate");
    let client = Client::builder()
        .add_root_certificate(Certificate::from_pem(&pem).expect("a certificate"))
        .resolve("bellwether.test", SocketAddr::from(([127, 0, 0, 1], port)))
        .build()
        .expect("a client");
    let ask = |token: &str| {
        client.get(format!("https://bellwether.test:{port}/v1/releases?format=csv")).bearer_auth(token).send()
    };
    let response = ask(&acme).await.expect("answers");
    assert_eq!(response.status(), 200);
    let rows = response.text().await.expect("rows");
    assert!(rows.contains("acme-task") && !rows.contains("globex"), "{rows}");
    let response = ask(&brief).await.expect("answers");
    assert_eq!(response.status(), 401);
    assert!(response.text().await.expect("text").contains("`brief` has expired"));
    assert_eq!(ask("bellwether_wrong").await.expect("answers").status(), 401);
    // Without TLS there is no answer.
    assert!(client.get(format!("http://127.0.0.1:{port}/v1/releases")).bearer_auth(&acme).send().await.is_err());

    let list = token(&["list"]).succeeds();
    assert!(
        list.contains("acme-pages: read, tenant acme, expires at 20")
            && list.contains("brief: read, all tenants, expired at"),
        "{list}"
    );
    assert!(!list.contains(&acme));
    let again = token(&["add", "acme-pages"]);
    assert!(again.stderr.contains("there is a token `acme-pages` already"), "{}", again.stderr);
    again.exits_with(2);
    token(&["revoke", "nobody"]).exits_with(2);
    token(&["revoke", "acme-pages"]).succeeds();
    assert_eq!(ask(&acme).await.expect("answers").status(), 401, "a revoked token is refused at once");
    let metrics = process.get("/metrics").expect("metrics").1;
    assert!(
        metrics.contains("bellwether_serve_requests_total{endpoint=\"/v1/releases\",status=\"200\"} 1"),
        "{metrics}"
    );
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_address_without_tokens_is_refused_and_loopback_needs_none() {
    let feed = tables().await;
    let setup = with(&feed, "[api]\naddress = \"0.0.0.0:0\"\n");
    let ended = Running::role("serve", &setup.config()).end();
    assert!(ended.stderr.contains("need TLS and tokens"), "{}", ended.stderr);
    ended.exits_with(2);
    let setup = with(&feed, "[api]\naddress = \"127.0.0.1:0\"\n");
    let process = setup.start("serve");
    let served = url(&process);
    let client = Client::new();
    let sql = client.post(format!("{served}/v1/sql")).header("content-type", "application/json");
    let response = sql.body("{\"sql\": \"SELECT count(*) AS n FROM runs\"}").send().await.expect("answers");
    assert_eq!(response.text().await.expect("rows").trim_end(), "[{\"n\":40}]");
    let other = client.get(format!("{served}/v1/tasks")).header("host", "rebound.example");
    assert_eq!(other.send().await.expect("answers").status(), 403, "a name that leads here is not enough");
    let ended = bellwether(&["serve", "token", "list", "--config", text(&setup.config())]);
    assert!(ended.stderr.contains("api.tokens_file"), "{}", ended.stderr);
    ended.exits_with(2);
    process.stop();
}
